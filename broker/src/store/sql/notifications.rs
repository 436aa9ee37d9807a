//! Notifications, and who has read what.
//!
//! What must stay true:
//! - Nobody sees what was left for an audience that he is not of, nor learns whether it exists.
//! - An id is never given twice within a tenant.
//! - Nothing here deletes more than a bounded number of rows at a time.

mod tidying;

use std::collections::{BTreeSet, HashMap};

use cauce_protocol::TenantId;
use cauce_protocol::message::{Audience, NotificationKind, Priority};
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

pub(super) use tidying::sweep;

use self::tidying::{trim_audience, trim_tenant};
use super::values::{damaged, int, page_rows, text_bytes, uint};
use crate::store::config::{NotificationLimits, PAGE_ROWS_MAX, RETENTION_STEP_ROWS};
use crate::store::error::StoreError;
use crate::store::notifications::{
    Change, Changed, Left, Marked, NotificationPage, NotificationQuery, NotificationRow, ReadRow, Reader,
    Sender, StoredNotification,
};

/// An audience as the tables know it. No two are written alike: names say nothing before the colon.
fn audience_text(audience: &Audience) -> String {
    match audience {
        Audience::User(user) => format!("u:{user}"),
        Audience::Role(role) => format!("r:{role}"),
        Audience::Tenant => "t".to_owned(),
    }
}

fn sender_text(sender: &Sender) -> String {
    match sender {
        Sender::Api => "api".to_owned(),
        Sender::Program => "program".to_owned(),
        Sender::User(user) => format!("u:{user}"),
    }
}

/// All audiences that a user is of, as a JSON list.
fn audiences(reader: &Reader) -> String {
    let roles = reader.roles.iter().cloned().map(Audience::Role);
    let all: Vec<String> = [Audience::User(reader.user.clone()), Audience::Tenant]
        .into_iter()
        .chain(roles)
        .map(|audience| audience_text(&audience))
        .collect();
    // A list of strings always has a JSON form.
    serde_json::to_string(&all).unwrap_or_default()
}

/// The last id that a tenant was given, and how many rows it has.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    last: u64,
    kept: u64,
}

/// What a batch has done so far, to be settled at its end.
#[derive(Debug, Default)]
struct Batch<'a> {
    heads: HashMap<&'a TenantId, Head>,
    /// Audiences that have grown.
    grown: BTreeSet<(&'a TenantId, String)>,
}

/// Carries out changes in order, within a transaction of the caller, and lets the oldest go where there are too many.
///
/// # Errors
/// Then the transaction must not be committed.
pub(in crate::store) async fn change_notifications(
    c: &mut SqliteConnection,
    changes: &[Change],
    limits: NotificationLimits,
) -> Result<Vec<Changed>, StoreError> {
    let mut batch = Batch::default();
    let mut changed = Vec::with_capacity(changes.len());
    for change in changes {
        let tenant = change.tenant();
        if !batch.heads.contains_key(tenant) {
            let head = head(c, tenant).await?;
            batch.heads.insert(tenant, head);
        }
        changed.push(match change {
            Change::Leave(row, _) => Changed::Left(leave(c, row, &mut batch).await?),
            Change::Read(row, _) => {
                let last = batch.heads.get(tenant).map_or(0, |head| head.last);
                Changed::Marked(mark(c, row, last).await?)
            }
        });
    }
    // In the long run no more go than come, which is less. More are there only if a limit was lowered, and go in steps.
    let mut step = u64::from(RETENTION_STEP_ROWS);
    for (tenant, audience) in &batch.grown {
        let gone = trim_audience(c, tenant, audience, limits.per_audience_max, step).await?;
        step = step.saturating_sub(gone);
        if let Some(head) = batch.heads.get_mut(tenant) {
            head.kept = head.kept.saturating_sub(gone);
        }
    }
    for (tenant, head) in &mut batch.heads {
        let excess = head.kept.saturating_sub(limits.per_tenant_max);
        if excess > 0 {
            let gone = trim_tenant(c, tenant, excess.min(step)).await?;
            step = step.saturating_sub(gone);
            head.kept = head.kept.saturating_sub(gone);
        }
        put_head(c, tenant, *head).await?;
    }
    Ok(changed)
}

async fn head(c: &mut SqliteConnection, tenant: &TenantId) -> Result<Head, sqlx::Error> {
    let row = sqlx::query("SELECT last, kept FROM notification_heads WHERE tenant = ?")
        .bind(tenant.as_str())
        .fetch_optional(c)
        .await?;
    row.map_or(Ok(Head::default()), |row| {
        Ok(Head {
            last: uint(&row, 0)?,
            kept: uint(&row, 1)?,
        })
    })
}

async fn put_head(c: &mut SqliteConnection, tenant: &TenantId, head: Head) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO notification_heads (tenant, last, kept) VALUES (?, ?, ?) \
         ON CONFLICT (tenant) DO UPDATE SET last = excluded.last, kept = excluded.kept",
    )
    .bind(tenant.as_str())
    .bind(int(head.last))
    .bind(int(head.kept))
    .execute(c)
    .await
    .map(|_| ())
}

async fn leave<'a>(
    c: &mut SqliteConnection,
    row: &'a NotificationRow,
    batch: &mut Batch<'a>,
) -> Result<Left, StoreError> {
    if !row.idempotency_key.is_empty()
        && let Some(id) = given(c, row).await?
    {
        return Ok(Left { id, repeated: true });
    }
    let head = batch.heads.entry(&row.tenant).or_default();
    let id = head.last + 1;
    let json = std::str::from_utf8(&row.json).map_err(|_| StoreError::Invalid {
        what: "JSON must be UTF-8",
    })?;
    let audience = audience_text(&row.audience);
    sqlx::query(
        "INSERT INTO notifications (tenant, id, audience, sender, kind, priority, title, message, json, created_ms, \
         expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.tenant.as_str())
    .bind(int(id))
    .bind(&audience)
    .bind(sender_text(&row.sender))
    .bind(row.kind as i32)
    .bind(row.priority as i32)
    .bind(&row.title)
    .bind(&row.message)
    .bind(json)
    .bind(int(row.created_ms))
    .bind(int(row.expires_ms))
    .execute(&mut *c)
    .await?;
    if !row.idempotency_key.is_empty() {
        sqlx::query(
            "INSERT INTO notification_keys (tenant, sender, key, id, at_ms) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (tenant, sender, key) DO UPDATE SET id = excluded.id, at_ms = excluded.at_ms",
        )
        .bind(row.tenant.as_str())
        .bind(sender_text(&row.sender))
        .bind(&*row.idempotency_key)
        .bind(int(id))
        .bind(int(row.created_ms))
        .execute(c)
        .await?;
    }
    head.last = id;
    head.kept += 1;
    batch.grown.insert((&row.tenant, audience));
    Ok(Left { id, repeated: false })
}

/// The id that this sender's key was given within the window.
async fn given(c: &mut SqliteConnection, row: &NotificationRow) -> Result<Option<u64>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT id FROM notification_keys WHERE tenant = ? AND sender = ? AND key = ? AND at_ms > ?",
    )
    .bind(row.tenant.as_str())
    .bind(sender_text(&row.sender))
    .bind(&*row.idempotency_key)
    .bind(int(row.created_ms.saturating_sub(row.window_ms)))
    .fetch_optional(c)
    .await?;
    found.map(|row| uint(&row, 0)).transpose()
}

/// What a user has read; `last` is the tenant's last id. Answers how things then stand.
async fn mark(c: &mut SqliteConnection, row: &ReadRow, last: u64) -> Result<Marked, StoreError> {
    let audiences = audiences(&row.reader);
    // What comes later has not been read.
    let up_to = row.up_to.min(last);
    if up_to > 0 {
        sqlx::query(
            "INSERT INTO notification_marks (tenant, user, up_to, at_ms) VALUES (?, ?, ?, ?) \
             ON CONFLICT (tenant, user) DO UPDATE SET up_to = MAX(up_to, excluded.up_to), at_ms = excluded.at_ms",
        )
        .bind(row.tenant.as_str())
        .bind(row.reader.user.as_str())
        .bind(int(up_to))
        .bind(int(row.at_ms))
        .execute(&mut *c)
        .await?;
    }
    let ids = match row.ids.is_empty() {
        true => Vec::new(),
        false => read_one_by_one(c, row, &audiences).await?,
    };
    let unread = unread(c, &row.tenant, &row.reader, &audiences, row.at_ms).await?;
    Ok(Marked { ids, up_to, unread })
}

/// Notes those of the ids that are for the user, and answers which.
async fn read_one_by_one(
    c: &mut SqliteConnection,
    row: &ReadRow,
    audiences: &str,
) -> Result<Vec<u64>, StoreError> {
    // What cannot be an id is none: no error tells the two apart.
    let asked: BTreeSet<i64> = row.ids.iter().filter_map(|&id| i64::try_from(id).ok()).collect();
    let asked = serde_json::to_string(&asked).unwrap_or_default();
    let found = sqlx::query(
        "SELECT id FROM notifications WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) \
         AND audience IN (SELECT value FROM json_each(?)) AND expires_ms > ? ORDER BY id",
    )
    .bind(row.tenant.as_str())
    .bind(&asked)
    .bind(audiences)
    .bind(int(row.at_ms))
    .fetch_all(&mut *c)
    .await?;
    let ids = found
        .iter()
        .map(|row| uint(row, 0))
        .collect::<Result<Vec<_>, _>>()?;
    for &id in &ids {
        sqlx::query(
            "INSERT INTO notification_reads (tenant, id, user) VALUES (?, ?, ?) \
             ON CONFLICT (tenant, id, user) DO NOTHING",
        )
        .bind(row.tenant.as_str())
        .bind(int(id))
        .bind(row.reader.user.as_str())
        .execute(&mut *c)
        .await?;
    }
    Ok(ids)
}

/// Up to where the user has read everything.
async fn marked_up_to(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    reader: &Reader,
) -> Result<i64, sqlx::Error> {
    let up_to = sqlx::query_scalar("SELECT up_to FROM notification_marks WHERE tenant = ? AND user = ?")
        .bind(tenant.as_str())
        .bind(reader.user.as_str())
        .fetch_optional(c)
        .await?;
    Ok(up_to.unwrap_or(0))
}

/// Reads the index alone, and no more of it than is kept of each audience.
async fn unread(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    reader: &Reader,
    audiences: &str,
    now_ms: u64,
) -> Result<u32, StoreError> {
    let up_to = marked_up_to(c, tenant, reader).await?;
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM notifications AS n INDEXED BY notifications_by_audience \
         WHERE tenant = ?1 AND audience IN (SELECT value FROM json_each(?2)) AND id > ?3 AND expires_ms > ?4 \
         AND NOT EXISTS (SELECT 1 FROM notification_reads AS r WHERE r.tenant = ?1 AND r.id = n.id AND r.user = ?5)",
    )
    .bind(tenant.as_str())
    .bind(audiences)
    .bind(up_to)
    .bind(int(now_ms))
    .bind(reader.user.as_str())
    .fetch_one(c)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A page, newest first, as of one moment.
pub(in crate::store) async fn notifications(
    c: &mut SqliteConnection,
    query: &NotificationQuery,
) -> Result<NotificationPage, StoreError> {
    let mut t = c.begin().await?;
    let audiences = audiences(&query.reader);
    let up_to = marked_up_to(&mut t, &query.tenant, &query.reader).await?;
    let unread = unread(&mut t, &query.tenant, &query.reader, &audiences, query.now_ms).await?;
    let limit = query.limit.clamp(1, PAGE_ROWS_MAX);
    let before = match query.before {
        0 => i64::MAX,
        before => int(before),
    };
    let mut page = NotificationPage {
        notifications: Vec::new(),
        unread,
        more: false,
    };
    // The ids come from the index and are sorted without the texts.
    let mut rows = sqlx::query(
        "WITH page AS (SELECT id, (id <= ?5 OR EXISTS \
             (SELECT 1 FROM notification_reads AS r WHERE r.tenant = ?1 AND r.id = m.id AND r.user = ?6)) AS read \
           FROM notifications AS m INDEXED BY notifications_by_audience \
           WHERE tenant = ?1 AND audience IN (SELECT value FROM json_each(?2)) AND id < ?3 AND expires_ms > ?4 \
           AND (NOT ?7 OR NOT read) ORDER BY id DESC LIMIT ?8) \
         SELECT n.id, n.kind, n.priority, n.title, n.message, n.json, n.created_ms, n.expires_ms, page.read \
         FROM page JOIN notifications AS n ON n.tenant = ?1 AND n.id = page.id ORDER BY page.id DESC",
    )
    .bind(query.tenant.as_str())
    .bind(&audiences)
    .bind(before)
    .bind(int(query.now_ms))
    .bind(up_to)
    .bind(query.reader.user.as_str())
    .bind(query.unread_only)
    .bind(page_rows(limit))
    .fetch(&mut *t);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let notification = read(&row)?;
        bytes += notification.bytes();
        let full = page.notifications.len() >= limit as usize || bytes > query.bytes_max;
        if full && !page.notifications.is_empty() {
            page.more = true;
            break;
        }
        page.notifications.push(notification);
    }
    drop(rows);
    t.rollback().await?;
    Ok(page)
}

fn read(row: &SqliteRow) -> Result<StoredNotification, sqlx::Error> {
    let (kind, priority): (i32, i32) = (row.try_get(1)?, row.try_get(2)?);
    Ok(StoredNotification {
        id: uint(row, 0)?,
        kind: NotificationKind::try_from(kind)
            .map_err(|_| damaged(format_args!("the kind of notification {kind}")))?,
        priority: Priority::try_from(priority)
            .map_err(|_| damaged(format_args!("the priority {priority}")))?,
        title: row.try_get(3)?,
        message: row.try_get(4)?,
        json: text_bytes(row, 5)?,
        created_ms: uint(row, 6)?,
        expires_ms: uint(row, 7)?,
        read: row.try_get(8)?,
    })
}

#[cfg(test)]
mod tests;
