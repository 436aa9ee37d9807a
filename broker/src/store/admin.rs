//! Everything that is asked of the store and answered: what administrators change, what anyone looks up.
//!
//! A change is committed and synced before its future is ready. All futures are safe to cancel, with one thing to know:
//! a change that has begun is finished on the store's thread even if nobody waits for it any more.
//!
//! # Errors
//! All of these answer [`StoreError::Unavailable`] when the store is overloaded, shut down, or the database is in
//! trouble; then nothing was changed. Creating what exists is a `Conflict`; changing what does not exist is `NotFound`;
//! what exceeds a bound of `bounds` is `Invalid`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use cauce_protocol::{DeviceId, TenantId};
use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnection;
use tokio::time::timeout;

use super::bounds;
use super::config::ADMIN_WAIT_MS;
use super::counters::Health;
use super::error::StoreError;
use super::handle::{Shared, StoreHandle};
use super::rows::{
    ApiKeyRow, Assignment, AuditQuery, AuditRow, ConnectionLogQuery, ConnectionLogRow, DeviceRow,
    DeviceTokenRow, EventRow, KeyOwner, Numbered, Page, ReadingCursor, ReadingQuery, ReadingRow,
    SigningKeyRow, TableCounts, TenantChange, TenantRow,
};
use super::slots::Slots;
use super::sql;

pub(super) type Answer<'c, T> = BoxFuture<'c, Result<T, StoreError>>;

/// Tenants.
impl StoreHandle {
    pub async fn create_tenant(&self, row: TenantRow) -> Result<(), StoreError> {
        bounds::tenant(&row)?;
        self.write(move |c| Box::pin(async move { sql::create_tenant(c, &row).await }))
            .await
    }

    /// Renames, disables, enables, gives new settings. Answers the tenant as it then is.
    pub async fn update_tenant(
        &self,
        tenant: TenantId,
        change: TenantChange,
        at_ms: u64,
    ) -> Result<TenantRow, StoreError> {
        bounds::tenant_change(&change)?;
        self.write(move |c| Box::pin(async move { sql::update_tenant(c, &tenant, &change, at_ms).await }))
            .await
    }

    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantRow, StoreError> {
        self.read(move |c| Box::pin(async move { sql::tenant(c, &tenant).await }))
            .await
    }

    /// By name.
    pub async fn tenants(
        &self,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Page<TenantRow, TenantId>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::tenants(c, after.as_ref(), limit).await }))
            .await
    }
}

/// Keys and tokens. Listings include what has been revoked; revoking again keeps the first time.
impl StoreHandle {
    pub async fn add_signing_key(&self, row: SigningKeyRow) -> Result<(), StoreError> {
        bounds::signing_key(&row)?;
        self.write(move |c| Box::pin(async move { sql::add_signing_key(c, &row).await }))
            .await
    }

    pub async fn signing_keys(
        &self,
        tenant: TenantId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<SigningKeyRow, String>, StoreError> {
        self.read(move |c| {
            Box::pin(async move { sql::signing_keys(c, &tenant, after.as_deref(), limit).await })
        })
        .await
    }

    pub async fn revoke_signing_key(
        &self,
        tenant: TenantId,
        kid: String,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        self.write(move |c| Box::pin(async move { sql::revoke_signing_key(c, &tenant, &kid, at_ms).await }))
            .await
    }

    pub async fn create_api_key(&self, row: ApiKeyRow) -> Result<(), StoreError> {
        bounds::api_key(&row)?;
        self.write(move |c| Box::pin(async move { sql::create_api_key(c, &row).await }))
            .await
    }

    pub async fn api_keys(
        &self,
        owner: KeyOwner,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<ApiKeyRow, String>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::api_keys(c, &owner, after.as_deref(), limit).await }))
            .await
    }

    pub async fn revoke_api_key(&self, owner: KeyOwner, id: String, at_ms: u64) -> Result<(), StoreError> {
        self.write(move |c| Box::pin(async move { sql::revoke_api_key(c, &owner, &id, at_ms).await }))
            .await
    }

    pub async fn create_device_token(&self, row: DeviceTokenRow) -> Result<(), StoreError> {
        bounds::device_token(&row)?;
        self.write(move |c| Box::pin(async move { sql::create_device_token(c, &row).await }))
            .await
    }

    pub async fn device_tokens(
        &self,
        tenant: TenantId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<DeviceTokenRow, String>, StoreError> {
        self.read(move |c| {
            Box::pin(async move { sql::device_tokens(c, &tenant, after.as_deref(), limit).await })
        })
        .await
    }

    pub async fn revoke_device_token(
        &self,
        tenant: TenantId,
        id: String,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        self.write(move |c| Box::pin(async move { sql::revoke_device_token(c, &tenant, &id, at_ms).await }))
            .await
    }
}

/// Devices.
impl StoreHandle {
    /// By id. What the database has: the states of the last moments may still be on their way.
    pub async fn devices(
        &self,
        tenant: TenantId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Page<DeviceRow, DeviceId>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::devices(c, &tenant, after.as_ref(), limit).await }))
            .await
    }

    pub async fn device(&self, tenant: TenantId, device: DeviceId) -> Result<DeviceRow, StoreError> {
        self.read(move |c| Box::pin(async move { sql::device(c, &tenant, &device).await }))
            .await
    }

    /// Replaces the metadata (a JSON object) or removes it. A device that has never spoken is announced by this.
    pub async fn set_device_metadata(
        &self,
        tenant: TenantId,
        device: DeviceId,
        metadata: Option<Bytes>,
    ) -> Result<DeviceRow, StoreError> {
        bounds::metadata(metadata.as_ref())?;
        self.write(move |c| {
            Box::pin(async move { sql::set_device_metadata(c, &tenant, &device, metadata.as_ref()).await })
        })
        .await
    }

    /// Replaces the assignment or removes it. A device that has never spoken is announced by this.
    pub async fn assign_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        assignment: Option<Assignment>,
    ) -> Result<DeviceRow, StoreError> {
        bounds::assignment(assignment.as_ref())?;
        self.write(move |c| {
            Box::pin(async move { sql::assign_device(c, &tenant, &device, assignment.as_ref()).await })
        })
        .await
    }
}

/// History.
impl StoreHandle {
    /// Oldest first, by the time of measurement.
    pub async fn readings(
        &self,
        query: ReadingQuery,
    ) -> Result<Page<Numbered<ReadingRow>, ReadingCursor>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::readings(c, &query).await }))
            .await
    }

    /// Newest first.
    pub async fn device_events(
        &self,
        tenant: TenantId,
        device: DeviceId,
        before_seq: Option<u64>,
        limit: u32,
    ) -> Result<Page<Numbered<EventRow>, u64>, StoreError> {
        self.read(move |c| {
            Box::pin(async move { sql::device_events(c, &tenant, &device, before_seq, limit).await })
        })
        .await
    }

    /// Newest first.
    pub async fn audit_rows(&self, query: AuditQuery) -> Result<Page<Numbered<AuditRow>, u64>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::audit_rows(c, &query).await }))
            .await
    }

    /// Newest first.
    pub async fn connection_logs(
        &self,
        query: ConnectionLogQuery,
    ) -> Result<Page<Numbered<ConnectionLogRow>, u64>, StoreError> {
        self.read(move |c| Box::pin(async move { sql::connection_logs(c, &query).await }))
            .await
    }

    /// Rows by table, of one tenant or of all. Counts them one by one: seconds for tens of millions.
    pub async fn counts(&self, tenant: Option<TenantId>) -> Result<TableCounts, StoreError> {
        self.read(move |c| Box::pin(async move { sql::counts(c, tenant.as_ref()).await }))
            .await
    }
}

impl StoreHandle {
    pub(super) async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Answer<'c, T> + Send + 'static,
    {
        let answer = self
            .on_store_thread(&self.shared.admin_slots, |shared| async move {
                write(&shared, change).await
            })
            .await;
        let counters = &self.shared.counters;
        if answer.is_ok() {
            &counters.admin_writes
        } else {
            &counters.admin_refused
        }
        .fetch_add(1, Relaxed);
        answer
    }

    pub(super) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Answer<'c, T> + Send + 'static,
    {
        self.look_up(&self.shared.query_slots, question).await
    }

    pub(super) async fn look_up<T, F>(&self, slots: &Slots, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Answer<'c, T> + Send + 'static,
    {
        self.on_store_thread(slots, |shared| async move {
            let mut connection = shared.readers.acquire().await?;
            question(&mut connection).await
        })
        .await
    }

    /// On the store's executor, because the driver's time-outs and its returning of connections need one that lives as
    /// long as the store, and so that a caller who gives up does not leave a transaction half-way.
    async fn on_store_thread<T, F, W>(&self, slots: &Slots, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
        W: FnOnce(Arc<Shared>) -> F,
    {
        let slot = slots.take()?;
        let work = work(Arc::clone(&self.shared));
        let task = self.shared.runtime.spawn(async move {
            let answer = work.await;
            drop(slot);
            answer
        });
        // The task ends early only when the store's executor does.
        task.await.unwrap_or_else(|_| Err(StoreError::closed()))
    }
}

async fn write<T, F>(shared: &Shared, change: F) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Answer<'c, T>,
{
    // While the database is in trouble the writer finds out when that ends; no need for everyone to wait for it.
    let degraded = match *shared.health.lock() {
        Health::Degraded { reason, .. } => Some(reason),
        Health::Closed | Health::Ready => None,
    };
    if let Some(reason) = degraded {
        return Err(StoreError::database(reason));
    }
    let turn = timeout(Duration::from_millis(ADMIN_WAIT_MS), shared.lane.lock()).await;
    let mut lane = turn.map_err(|_| StoreError::busy())?;
    // A shutdown waits for the change that has begun, not for those that have not.
    if shared.admin_slots.is_closed() {
        return Err(StoreError::closed());
    }
    let answer = async {
        let mut transaction = lane.begin().await?;
        match change(&mut transaction).await {
            Ok(answer) => {
                transaction.commit().await?;
                Ok(answer)
            }
            Err(error) => {
                transaction.rollback().await?;
                Err(error)
            }
        }
    }
    .await;
    if let Err(StoreError::Unavailable { .. }) = answer {
        lane.discard();
    }
    answer
}
