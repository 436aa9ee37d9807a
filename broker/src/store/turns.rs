//! Turns at reading. After a restart everybody asks for his at once: they wait for each other rather than being sent away, leave
//! the store's other queries their places, and no tenant takes the turns of the others.
//!
//! What must stay true: whoever has asked waits behind [`Bounds::at_a_time`] others at most who are not of his tenant, however
//! many of them wait; and what is read at a time is bounded, so its bytes are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use cauce_protocol::TenantId;
use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// How many may wait or read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Those who wait or read, of all tenants and of one.
    pub(super) waiting_max: usize,
    pub(super) per_tenant_max: usize,
    /// Those who read, of all tenants and of one.
    pub(super) at_a_time: usize,
    pub(super) at_a_time_per_tenant: usize,
}

/// Who waits to read.
#[derive(Debug)]
pub(super) struct Turns {
    bounds: Bounds,
    tenants: Mutex<Tenants>,
    turns: Semaphore,
    refused: AtomicU64,
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

/// A place among those who wait; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place<'a> {
    all: &'a Turns,
    tenant: &'a TenantId,
    turns: Arc<Semaphore>,
}

impl Place<'_> {
    /// In the order of asking, among the tenant's own and then among all. No semaphore here is ever closed.
    pub(super) async fn turn(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), AcquireError> {
        let own = self.turns.acquire().await?;
        Ok((own, self.all.turns.acquire().await?))
    }
}

impl Turns {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tenants: Mutex::default(),
            turns: Semaphore::new(bounds.at_a_time),
            refused: AtomicU64::new(0),
        }
    }

    /// A place to wait at, if there is one.
    pub(super) fn enter<'a>(&'a self, tenant: &'a TenantId) -> Option<Place<'a>> {
        let place = self.try_enter(tenant);
        if place.is_none() {
            self.refused.fetch_add(1, Relaxed);
        }
        place
    }

    fn try_enter<'a>(&'a self, tenant: &'a TenantId) -> Option<Place<'a>> {
        let mut tenants = self.tenants.lock();
        if tenants.count >= self.bounds.waiting_max {
            return None;
        }
        let gate = tenants.gates.entry(tenant.clone()).or_insert_with(|| Gate {
            turns: Arc::new(Semaphore::new(self.bounds.at_a_time_per_tenant)),
            count: 0,
        });
        if gate.count >= self.bounds.per_tenant_max {
            return None;
        }
        gate.count += 1;
        let turns = gate.turns.clone();
        tenants.count += 1;
        Some(Place {
            all: self,
            tenant,
            turns,
        })
    }

    /// Those who wait or read now.
    pub(super) fn waiting(&self) -> usize {
        self.tenants.lock().count
    }

    /// Those for whom there was no place.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut tenants = self.all.tenants.lock();
        tenants.count -= 1;
        if let Some(gate) = tenants.gates.get_mut(self.tenant) {
            gate.count -= 1;
            if gate.count == 0 {
                tenants.gates.remove(self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const BOUNDS: Bounds = Bounds {
        waiting_max: 300,
        per_tenant_max: 200,
        at_a_time: 8,
        at_a_time_per_tenant: 4,
    };

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn a_tenant_with_many_waiting_leaves_turns_to_the_others() {
        let all = Turns::new(BOUNDS);
        let (a, b) = (tenant("a"), tenant("b"));
        let of_a: Vec<_> = (0..100).map(|_| all.enter(&a).unwrap()).collect();
        let mut turns: Vec<_> = of_a.iter().map(|place| Box::pin(place.turn())).collect();
        let served: Vec<_> = turns.iter_mut().map(FutureExt::now_or_never).collect();
        assert_eq!(served.iter().flatten().count(), BOUNDS.at_a_time_per_tenant);
        let of_b = all.enter(&b).unwrap();
        assert!(
            of_b.turn().now_or_never().is_some(),
            "it does not wait for a hundred"
        );
    }

    #[test]
    fn places_are_bounded_counted_and_come_back() {
        let all = Turns::new(BOUNDS);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        let mut of_a: Vec<_> = (0..BOUNDS.per_tenant_max)
            .map(|_| all.enter(&a).unwrap())
            .collect();
        assert!(all.enter(&a).is_none());
        let rest = BOUNDS.waiting_max - BOUNDS.per_tenant_max;
        let of_b: Vec<_> = (0..rest).map(|_| all.enter(&b).unwrap()).collect();
        assert!(all.enter(&c).is_none());
        assert_eq!((all.waiting(), all.refused()), (BOUNDS.waiting_max, 2));
        of_a.pop();
        assert!(all.enter(&c).is_some());
        drop((of_a, of_b));
        assert_eq!(all.waiting(), 0);
        assert_eq!(all.tenants.lock().gates.len(), 0);
    }
}
