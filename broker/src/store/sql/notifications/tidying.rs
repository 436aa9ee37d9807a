//! What lets notifications go: too many of them, or their time is over. A bounded number of rows at a time.

use std::collections::BTreeMap;

use cauce_protocol::TenantId;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use crate::store::notifications::{NOTIFICATION_KEPT_MS_MAX, NOTIFICATION_KEY_MS_MAX};
use crate::store::sql::values::int;

/// Lets the oldest of an audience go, until `max` are left or `step` have gone. Answers how many went.
pub(super) async fn trim_audience(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    audience: &str,
    max: u32,
    step: u64,
) -> Result<u64, sqlx::Error> {
    let oldest: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM notifications INDEXED BY notifications_by_audience \
         WHERE tenant = ?1 AND audience = ?2 AND id <= (SELECT id FROM notifications \
           INDEXED BY notifications_by_audience WHERE tenant = ?1 AND audience = ?2 \
           ORDER BY id DESC LIMIT 1 OFFSET ?3) \
         ORDER BY id LIMIT ?4",
    )
    .bind(tenant.as_str())
    .bind(audience)
    .bind(max)
    .bind(int(step))
    .fetch_all(&mut *c)
    .await?;
    remove(c, tenant.as_str(), &oldest).await
}

/// Lets the tenant's `count` oldest go. Answers how many went.
pub(super) async fn trim_tenant(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    count: u64,
) -> Result<u64, sqlx::Error> {
    let oldest: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM notifications WHERE tenant = ? ORDER BY id LIMIT ?")
            .bind(tenant.as_str())
            .bind(int(count))
            .fetch_all(&mut *c)
            .await?;
    remove(c, tenant.as_str(), &oldest).await
}

/// Deletes notifications. What was noted about who has read them is left for the sweep, for it may be much.
async fn remove(c: &mut SqliteConnection, tenant: &str, ids: &[i64]) -> Result<u64, sqlx::Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let ids = serde_json::to_string(ids).unwrap_or_default();
    sqlx::query(
        "INSERT INTO notification_leavings (tenant, id) SELECT ?1, value FROM json_each(?2) WHERE EXISTS \
         (SELECT 1 FROM notification_reads WHERE tenant = ?1 AND id = value) ON CONFLICT (tenant, id) DO NOTHING",
    )
    .bind(tenant)
    .bind(&ids)
    .execute(&mut *c)
    .await?;
    let done =
        sqlx::query("DELETE FROM notifications WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))")
            .bind(tenant)
            .bind(&ids)
            .execute(c)
            .await?;
    Ok(done.rows_affected())
}

/// One step of tidying, within a transaction of the caller: what has expired, what is left of notifications that have gone,
/// keys and marks that can no longer matter. Answers how many rows went; `rows_max` means that there may be more.
pub(in crate::store::sql) async fn sweep(
    c: &mut SqliteConnection,
    now_ms: u64,
    rows_max: u32,
) -> Result<u64, sqlx::Error> {
    let budget = u64::from(rows_max);
    let mut gone = expired(c, now_ms, budget).await?;
    gone += leavings(c, budget - gone.min(budget)).await?;
    let keys = "DELETE FROM notification_keys WHERE (tenant, sender, key) IN \
                (SELECT tenant, sender, key FROM notification_keys WHERE at_ms < ? ORDER BY at_ms LIMIT ?)";
    gone += older(
        c,
        keys,
        now_ms,
        NOTIFICATION_KEY_MS_MAX,
        budget - gone.min(budget),
    )
    .await?;
    let marks = "DELETE FROM notification_marks WHERE (tenant, user) IN \
                 (SELECT tenant, user FROM notification_marks WHERE at_ms < ? ORDER BY at_ms LIMIT ?)";
    gone += older(
        c,
        marks,
        now_ms,
        NOTIFICATION_KEPT_MS_MAX,
        budget - gone.min(budget),
    )
    .await?;
    Ok(gone)
}

async fn expired(c: &mut SqliteConnection, now_ms: u64, max: u64) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant, id FROM notifications WHERE expires_ms <= ? ORDER BY expires_ms, tenant, id LIMIT ?",
    )
    .bind(int(now_ms))
    .bind(int(max))
    .fetch_all(&mut *c)
    .await?;
    let mut tenants: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        tenants.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    let mut gone = 0;
    for (tenant, ids) in &tenants {
        let removed = remove(c, tenant, ids).await?;
        sqlx::query("UPDATE notification_heads SET kept = MAX(kept - ?, 0) WHERE tenant = ?")
            .bind(int(removed))
            .bind(tenant)
            .execute(&mut *c)
            .await?;
        gone += removed;
    }
    Ok(gone)
}

/// Who has read what is no longer there.
async fn leavings(c: &mut SqliteConnection, max: u64) -> Result<u64, sqlx::Error> {
    let reads = sqlx::query(
        "DELETE FROM notification_reads WHERE (tenant, id, user) IN (SELECT r.tenant, r.id, r.user \
           FROM (SELECT tenant, id FROM notification_leavings ORDER BY tenant, id LIMIT ?1) AS l \
           JOIN notification_reads AS r ON r.tenant = l.tenant AND r.id = l.id LIMIT ?1)",
    )
    .bind(int(max))
    .execute(&mut *c)
    .await?
    .rows_affected();
    if reads >= max {
        return Ok(reads);
    }
    // None of the first ones has reads any more.
    let done = sqlx::query(
        "DELETE FROM notification_leavings WHERE (tenant, id) IN \
         (SELECT tenant, id FROM notification_leavings ORDER BY tenant, id LIMIT ?)",
    )
    .bind(int(max - reads))
    .execute(c)
    .await?;
    Ok(reads + done.rows_affected())
}

async fn older(
    c: &mut SqliteConnection,
    text: &'static str,
    now_ms: u64,
    age_ms: u64,
    max: u64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(text)
        .bind(int(now_ms.saturating_sub(age_ms)))
        .bind(int(max))
        .execute(c)
        .await?;
    Ok(done.rows_affected())
}
