//! Reading lists of notifications, by turns.

use super::{NotificationPage, NotificationQuery};
use crate::store::config::QUERY_SLOTS;
use crate::store::error::StoreError;
use crate::store::handle::StoreHandle;
use crate::store::sql;
use crate::store::turns::Bounds;

/// Lists that may wait or be read, of all tenants and of one.
pub const QUERIES_WAITING_MAX: usize = 20_000;
pub const QUERIES_PER_TENANT_MAX: usize = QUERIES_WAITING_MAX / 2;

/// Lists that are read at a time, of all tenants and of one.
const AT_A_TIME: usize = 16;
const AT_A_TIME_PER_TENANT: usize = 4;

const _: () = assert!(AT_A_TIME < QUERY_SLOTS / 2);

pub(in crate::store) const QUERIES: Bounds = Bounds {
    waiting_max: QUERIES_WAITING_MAX,
    per_tenant_max: QUERIES_PER_TENANT_MAX,
    at_a_time: AT_A_TIME,
    at_a_time_per_tenant: AT_A_TIME_PER_TENANT,
};

impl StoreHandle {
    /// A page of what there is for a user. Safe to cancel.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if too many queries wait, or the database cannot be read.
    pub async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError> {
        let tenant = query.tenant.clone();
        let place = self
            .shared
            .notification_queries
            .enter(&tenant)
            .ok_or_else(StoreError::busy)?;
        let _turn = place.turn().await.map_err(|_| StoreError::closed())?;
        self.read(move |c| Box::pin(async move { sql::notifications(c, &query).await }))
            .await
    }
}
