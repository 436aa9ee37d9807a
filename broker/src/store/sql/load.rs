//! What is read once, at start, across all tenants.

use futures_util::TryStreamExt;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::values::{damaged, int};
use super::{BEGIN, credentials, devices, messages, revocations, tenants};
use crate::store::config::LEASE_AHEAD;
use crate::store::rows::Loaded;

/// The tenant of a fresh start, so that a first token can be made at once.
const FIRST_TENANT: &str = "default";

/// Counts this start, makes the first tenant of a new database, and reads everything the broker keeps in memory. One
/// transaction: a start that fails has not happened.
pub(in crate::store) async fn load(c: &mut SqliteConnection, unix_ms: u64) -> Result<Loaded, sqlx::Error> {
    let mut t = c.begin_with(BEGIN).await?;
    let boot: String = sqlx::query_scalar(
        "INSERT INTO meta (name, value) VALUES ('boot', '1') \
         ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) RETURNING value",
    )
    .fetch_one(&mut *t)
    .await?;
    let boot = boot
        .parse()
        .map_err(|e| damaged(format_args!("the count of starts, {boot:?}: {e}")))?;
    sqlx::query(
        "INSERT INTO tenants (tenant, name, status, settings, created_ms, updated_ms) \
         SELECT ?1, ?1, 'enabled', '{}', ?2, ?2 WHERE NOT EXISTS (SELECT 1 FROM tenants)",
    )
    .bind(FIRST_TENANT)
    .bind(int(unix_ms))
    .execute(&mut *t)
    .await?;

    revocations::delete_ended(&mut t, unix_ms).await?;
    let loaded = Loaded {
        boot,
        tenants: all(
            &mut t,
            "SELECT tenant, name, status, settings, created_ms, updated_ms FROM tenants ORDER BY tenant",
            tenants::read,
        )
        .await?,
        signing_keys: all(
            &mut t,
            "SELECT tenant, kid, alg, material, created_ms, revoked_ms FROM signing_keys \
             WHERE revoked_ms IS NULL ORDER BY tenant, kid",
            credentials::read_signing_key,
        )
        .await?,
        api_keys: all(
            &mut t,
            "SELECT tenant, id, hash, name, scopes, created_ms, revoked_ms FROM api_keys \
             WHERE revoked_ms IS NULL ORDER BY tenant, id",
            credentials::read_api_key,
        )
        .await?,
        device_tokens: all(
            &mut t,
            "SELECT tenant, id, hash, device, label, created_ms, revoked_ms FROM device_tokens \
             WHERE revoked_ms IS NULL ORDER BY tenant, id",
            credentials::read_device_token,
        )
        .await?,
        revocations: all(
            &mut t,
            "SELECT tenant, subject, revoked_ms, until_ms, reason FROM revocations ORDER BY tenant, subject",
            revocations::read,
        )
        .await?,
        devices: all(
            &mut t,
            "SELECT tenant, device, seq, received_ms, src, model, state, equipment_id, label, assigned_ms, metadata \
             FROM devices ORDER BY tenant, device",
            devices::read,
        )
        .await?,
        room_heads: messages::load_heads(&mut t, LEASE_AHEAD).await?,
        seen_keys: messages::load_seen_keys(&mut t, unix_ms).await?,
    };
    t.commit().await?;
    Ok(loaded)
}

/// Row by row: with a hundred thousand devices, only our own form of them is in memory.
async fn all<T>(
    c: &mut SqliteConnection,
    text: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    let mut rows = sqlx::query(text).fetch(c);
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(read(&row)?);
    }
    Ok(all)
}
