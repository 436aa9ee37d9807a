//! What retention takes from durable rooms. Each statement walks an index that holds only the rooms there is something to do
//! for, so a step costs what it deletes, however many rooms and messages there are.

use cauce_protocol::{Epoch, Seq};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::values::{int, name, uint};
use crate::rooms::Keep;
use crate::store::config::{HEAD_IDLE_MS, TRIM_STEP_ROOMS};
use crate::store::trim::{Budget, Kept, Oldest, Surplus, surplus};

/// Rooms with more than their high marks allow.
const OVER: &str = "SELECT tenant, room, epoch, kept, bytes, keep_messages, keep_age_ms, keep_bytes \
                    FROM room_heads INDEXED BY room_heads_over \
                    WHERE kept > kept_high OR (bytes > bytes_high AND kept > 1) LIMIT ?";

/// Rooms whose oldest message is too old, the longest overdue first.
const AGED: &str = "SELECT tenant, room, epoch, kept, bytes, keep_messages, keep_age_ms, keep_bytes \
                    FROM room_heads INDEXED BY room_heads_by_age \
                    WHERE keep_age_ms > 0 AND kept > 0 AND oldest_ms + keep_age_ms < ? \
                    ORDER BY oldest_ms + keep_age_ms LIMIT ?";

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Trimmed {
    pub(in crate::store) messages: u64,
    pub(in crate::store) heads: u64,
    /// There was something to do, so there may be more.
    pub(in crate::store) busy: bool,
}

/// One step, within a transaction of the caller.
pub(in crate::store) async fn trim(c: &mut SqliteConnection, now_ms: u64) -> Result<Trimmed, sqlx::Error> {
    let mut trimmed = Trimmed::default();
    let mut budget = Budget::STEP;
    let over = sqlx::query(OVER).bind(TRIM_STEP_ROOMS).fetch_all(&mut *c).await?;
    trim_rooms(c, &over, now_ms, &mut budget, &mut trimmed).await?;
    if !budget.is_spent() {
        let aged = sqlx::query(AGED)
            .bind(int(now_ms))
            .bind(TRIM_STEP_ROOMS)
            .fetch_all(&mut *c)
            .await?;
        trim_rooms(c, &aged, now_ms, &mut budget, &mut trimmed).await?;
    }
    if !budget.is_spent() {
        trim_ended(c, budget, &mut trimmed).await?;
    }
    let idle = sqlx::query(
        "DELETE FROM room_heads WHERE (tenant, room) IN (SELECT tenant, room FROM room_heads INDEXED BY room_heads_empty \
         WHERE kept = 0 AND written_ms < ? ORDER BY written_ms LIMIT ?)",
    )
    .bind(int(now_ms.saturating_sub(HEAD_IDLE_MS)))
    .bind(TRIM_STEP_ROOMS)
    .execute(c)
    .await?;
    trimmed.heads = idle.rows_affected();
    trimmed.busy |= trimmed.heads > 0;
    Ok(trimmed)
}

async fn trim_rooms(
    c: &mut SqliteConnection,
    heads: &[SqliteRow],
    now_ms: u64,
    budget: &mut Budget,
    trimmed: &mut Trimmed,
) -> Result<(), sqlx::Error> {
    for head in heads {
        if budget.is_spent() {
            break;
        }
        let kept = read_head(head)?;
        let oldest = oldest(c, &kept, budget.rows + 1).await?;
        let gone = surplus(&kept, &oldest, *budget, now_ms);
        if gone.rows > 0 {
            delete(c, &kept, gone.up_to).await?;
        }
        correct(c, &kept, &gone).await?;
        budget.spend(gone.rows, gone.freed);
        trimmed.messages += gone.rows;
        trimmed.busy = true;
    }
    Ok(())
}

fn read_head(row: &SqliteRow) -> Result<Kept, sqlx::Error> {
    Ok(Kept {
        tenant: name(row, 0)?,
        room: name(row, 1)?,
        epoch: Epoch(uint(row, 2)?),
        messages: uint(row, 3)?,
        bytes: uint(row, 4)?,
        keep: Keep {
            messages: u32::try_from(uint(row, 5)?).unwrap_or(u32::MAX),
            age_ms: uint(row, 6)?,
            bytes: uint(row, 7)?,
        },
    })
}

async fn oldest(c: &mut SqliteConnection, kept: &Kept, limit: u64) -> Result<Vec<Oldest>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT seq, cost, unix_ms FROM messages WHERE tenant = ? AND room = ? AND epoch = ? ORDER BY seq LIMIT ?",
    )
    .bind(kept.tenant.as_str())
    .bind(kept.room.as_str())
    .bind(int(kept.epoch.0))
    .bind(int(limit))
    .fetch_all(c)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Oldest {
                seq: Seq(uint(row, 0)?),
                cost: uint(row, 1)?,
                unix_ms: uint(row, 2)?,
            })
        })
        .collect()
}

async fn delete(c: &mut SqliteConnection, kept: &Kept, up_to: Seq) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM messages WHERE tenant = ? AND room = ? AND epoch = ? AND seq <= ?")
        .bind(kept.tenant.as_str())
        .bind(kept.room.as_str())
        .bind(int(kept.epoch.0))
        .bind(int(up_to.0))
        .execute(c)
        .await
        .map(drop)
}

async fn correct(c: &mut SqliteConnection, kept: &Kept, gone: &Surplus) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE room_heads SET kept = ?, bytes = ?, oldest_ms = ? WHERE tenant = ? AND room = ?")
        .bind(int(gone.messages))
        .bind(int(gone.bytes))
        .bind(int(gone.oldest_ms))
        .bind(kept.tenant.as_str())
        .bind(kept.room.as_str())
        .execute(c)
        .await
        .map(drop)
}

/// Messages of an epoch that has ended.
async fn trim_ended(
    c: &mut SqliteConnection,
    budget: Budget,
    trimmed: &mut Trimmed,
) -> Result<(), sqlx::Error> {
    let ended = sqlx::query("SELECT tenant, room, epoch FROM room_epochs_ended LIMIT 1")
        .fetch_optional(&mut *c)
        .await?;
    let Some(ended) = ended else {
        return Ok(());
    };
    trimmed.busy = true;
    let ended = Kept {
        tenant: name(&ended, 0)?,
        room: name(&ended, 1)?,
        epoch: Epoch(uint(&ended, 2)?),
        messages: 0,
        bytes: 0,
        keep: Keep::NONE,
    };
    let current = sqlx::query("SELECT 1 FROM room_heads WHERE tenant = ? AND room = ? AND epoch = ?")
        .bind(ended.tenant.as_str())
        .bind(ended.room.as_str())
        .bind(int(ended.epoch.0))
        .fetch_optional(&mut *c)
        .await?;
    let rows = if current.is_some() {
        // The room went back to it: its messages are the head's business again.
        Vec::new()
    } else {
        oldest(c, &ended, budget.rows + 1).await?
    };
    let gone = surplus(&ended, &rows, budget, 0);
    if gone.rows > 0 {
        delete(c, &ended, gone.up_to).await?;
        trimmed.messages += gone.rows;
    }
    if gone.rows == rows.len() as u64 {
        sqlx::query("DELETE FROM room_epochs_ended WHERE tenant = ? AND room = ? AND epoch = ?")
            .bind(ended.tenant.as_str())
            .bind(ended.room.as_str())
            .bind(int(ended.epoch.0))
            .execute(c)
            .await?;
    }
    Ok(())
}
