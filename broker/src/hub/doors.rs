//! How many may come in, and how fast, by address. Judged before a byte of a stranger is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cauce_protocol::{Code, Refusal};
use parking_lot::Mutex;

use crate::rate::{ByAddress, Network, Quota};

/// Addresses whose rate of connecting is remembered.
const ADDRESSES_MAX: usize = 65_536;

/// What a visitor is told to wait when there are too many connections, in milliseconds: some will have ended by then.
const CROWDED_RETRY_MS: u32 = 5_000;

/// Bounds at the door.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Connections of the node.
    pub connections_max: usize,
    /// Connections of one IPv4 address, or of one IPv6 /64.
    pub per_address_max: usize,
    /// New connections of one address.
    pub connects: Quota,
}

/// Counts connections by address.
#[derive(Debug)]
pub struct Door {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: DoorLimits,
    total: usize,
    /// Addresses with open connections only, so `total` bounds it.
    open: HashMap<Network, usize, foldhash::fast::RandomState>,
    connects: ByAddress,
}

impl Door {
    pub fn new(limits: DoorLimits) -> Self {
        let connects = ByAddress::new(limits.connects, ADDRESSES_MAX);
        Self {
            inner: Mutex::new(Inner {
                limits,
                total: 0,
                open: HashMap::default(),
                connects,
            }),
        }
    }

    /// Takes other limits at once; nobody who is in is put out.
    pub fn configure(&self, limits: DoorLimits) {
        let mut inner = self.inner.lock();
        inner.connects.set_quota(limits.connects);
        inner.limits = limits;
    }

    /// Lets a connection in, for as long as the permit lives.
    ///
    /// # Errors
    /// `too_many_connections` or `rate_limited`, with the time to wait.
    pub fn admit(self: &Arc<Self>, address: IpAddr, now_ms: u64) -> Result<Permit, Refusal> {
        let network = Network::of(address);
        let mut inner = self.inner.lock();
        let crowded = |message: &'static str| {
            Err(Refusal::new(Code::TooManyConnections, message).retry_after(CROWDED_RETRY_MS))
        };
        if inner.total >= inner.limits.connections_max {
            return crowded("this node has as many connections as it may");
        }
        if inner
            .open
            .get(&network)
            .is_some_and(|&count| count >= inner.limits.per_address_max)
        {
            return crowded("this address has as many connections as it may");
        }
        if let Err(retry_after_ms) = inner.connects.check(address, now_ms, 1) {
            return Err(
                Refusal::new(Code::RateLimited, "too many new connections from this address")
                    .retry_after(retry_after_ms),
            );
        }
        *inner.open.entry(network).or_insert(0) += 1;
        inner.total += 1;
        Ok(Permit {
            door: self.clone(),
            network,
        })
    }

    /// Connections let in and not ended.
    pub fn total(&self) -> usize {
        self.inner.lock().total
    }
}

/// One connection in the door's count; dropping it counts it out.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Door>,
    network: Network,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.door.inner.lock();
        inner.total -= 1;
        if let Some(count) = inner.open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                inner.open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(connections_max: usize, per_address_max: usize) -> Arc<Door> {
        Arc::new(Door::new(DoorLimits {
            connections_max,
            per_address_max,
            connects: Quota::per_second(1, 3),
        }))
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn an_address_may_have_so_many_connections_and_another_its_own() {
        let door = door(10, 2);
        let held = [door.admit(v4(1), 0).unwrap(), door.admit(v4(1), 0).unwrap()];
        assert_eq!(door.admit(v4(1), 0).unwrap_err().code, Code::TooManyConnections);
        assert!(door.admit(v4(2), 0).is_ok());
        drop(held);
        assert!(door.admit(v4(1), 0).is_ok());
    }

    #[test]
    fn coming_too_fast_is_told_when_to_come_again() {
        let door = door(10, 9);
        for _ in 0..3 {
            drop(door.admit(v4(1), 0).unwrap());
        }
        let refusal = door.admit(v4(1), 0).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(door.admit(v4(1), refusal.retry_after_ms.into()).is_ok());
    }

    #[test]
    fn the_node_has_an_end_and_permits_give_back() {
        let door = door(1, 9);
        let permit = door.admit(v4(1), 0).unwrap();
        assert_eq!(door.admit(v4(2), 0).unwrap_err().code, Code::TooManyConnections);
        drop(permit);
        assert_eq!((door.total(), door.inner.lock().open.len()), (0, 0));
    }
}
