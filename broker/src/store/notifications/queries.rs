//! Turns at reading lists. After a restart everybody asks for his at once: they wait for each other rather than being sent away,
//! and leave the store's other queries their places.

use std::collections::HashMap;
use std::sync::Arc;

use cauce_protocol::TenantId;
use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::{NotificationPage, NotificationQuery};
use crate::store::config::QUERY_SLOTS;
use crate::store::error::StoreError;
use crate::store::handle::StoreHandle;
use crate::store::sql;

/// Lists that may wait or be read, of all tenants and of one.
pub const QUERIES_WAITING_MAX: usize = 20_000;
pub const QUERIES_PER_TENANT_MAX: usize = QUERIES_WAITING_MAX / 2;

/// Lists that are read at a time, of all tenants and of one. Whoever has asked waits behind this many of another tenant, however
/// many of them wait.
const AT_A_TIME: usize = 16;
const AT_A_TIME_PER_TENANT: usize = 4;

const _: () = assert!(AT_A_TIME < QUERY_SLOTS / 2);

/// Who waits to read.
#[derive(Debug)]
pub(in crate::store) struct Queries {
    tenants: Mutex<Tenants>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Tenants {
    gates: HashMap<TenantId, Gate, foldhash::fast::RandomState>,
    count: usize,
}

#[derive(Debug)]
struct Gate {
    turns: Arc<Semaphore>,
    count: usize,
}

impl Default for Queries {
    fn default() -> Self {
        Self {
            tenants: Mutex::default(),
            turns: Semaphore::new(AT_A_TIME),
        }
    }
}

/// A place among those who wait; dropping it gives it back.
#[derive(Debug)]
struct Place<'a> {
    queries: &'a Queries,
    tenant: &'a TenantId,
    turns: Arc<Semaphore>,
}

impl Place<'_> {
    /// In the order of asking, among the tenant's own and then among all. No semaphore here is ever closed.
    async fn turn(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), AcquireError> {
        let own = self.turns.acquire().await?;
        Ok((own, self.queries.turns.acquire().await?))
    }
}

impl Queries {
    /// A place to wait at, if there is one.
    fn enter<'a>(&'a self, tenant: &'a TenantId) -> Option<Place<'a>> {
        let mut tenants = self.tenants.lock();
        if tenants.count >= QUERIES_WAITING_MAX {
            return None;
        }
        let gate = tenants.gates.entry(tenant.clone()).or_insert_with(|| Gate {
            turns: Arc::new(Semaphore::new(AT_A_TIME_PER_TENANT)),
            count: 0,
        });
        if gate.count >= QUERIES_PER_TENANT_MAX {
            return None;
        }
        gate.count += 1;
        let turns = gate.turns.clone();
        tenants.count += 1;
        Some(Place {
            queries: self,
            tenant,
            turns,
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut tenants = self.queries.tenants.lock();
        tenants.count -= 1;
        if let Some(gate) = tenants.gates.get_mut(self.tenant) {
            gate.count -= 1;
            if gate.count == 0 {
                tenants.gates.remove(self.tenant);
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn a_tenant_with_many_waiting_leaves_turns_to_the_others() {
        let queries = Queries::default();
        let (a, b) = (tenant("a"), tenant("b"));
        let of_a: Vec<_> = (0..100).map(|_| queries.enter(&a).unwrap()).collect();
        let mut turns: Vec<_> = of_a.iter().map(|place| Box::pin(place.turn())).collect();
        let served: Vec<_> = turns.iter_mut().map(FutureExt::now_or_never).collect();
        assert_eq!(served.iter().flatten().count(), AT_A_TIME_PER_TENANT);
        let of_b = queries.enter(&b).unwrap();
        assert!(
            of_b.turn().now_or_never().is_some(),
            "it does not wait for a hundred"
        );
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let queries = Queries::default();
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        let mut of_a: Vec<_> = (0..QUERIES_PER_TENANT_MAX)
            .map(|_| queries.enter(&a).unwrap())
            .collect();
        assert!(queries.enter(&a).is_none());
        let rest = QUERIES_WAITING_MAX - QUERIES_PER_TENANT_MAX;
        let of_b: Vec<_> = (0..rest).map(|_| queries.enter(&b).unwrap()).collect();
        assert!(queries.enter(&c).is_none());
        of_a.pop();
        assert!(queries.enter(&c).is_some());
        drop((of_a, of_b));
        let tenants = queries.tenants.lock();
        assert_eq!((tenants.count, tenants.gates.len()), (0, 0));
    }
}
