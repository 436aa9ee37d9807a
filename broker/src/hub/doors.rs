//! How many may come in, and how fast, by address. Judged before a byte of a stranger is read.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use cauce_protocol::{Code, Refusal};
use parking_lot::Mutex;

use crate::rate::{Gcra, Quota};

/// Addresses remembered; those without connections and with a rested rate are forgotten first.
const ADDRESSES_MAX: usize = 100_000;

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
    addresses: HashMap<IpAddr, Visitor, foldhash::fast::RandomState>,
}

#[derive(Debug, Default)]
struct Visitor {
    connections: usize,
    connects: Gcra,
    last_ms: u64,
}

impl Door {
    pub fn new(limits: DoorLimits) -> Self {
        Self { inner: Mutex::new(Inner { limits, total: 0, addresses: HashMap::default() }) }
    }

    pub fn configure(&self, limits: DoorLimits) {
        self.inner.lock().limits = limits;
    }

    /// Lets a connection in, for as long as the permit lives.
    ///
    /// # Errors
    /// `too_many_connections` or `rate_limited`, with the time to wait.
    pub fn admit(self: &Arc<Self>, address: IpAddr, now_ms: u64) -> Result<Permit, Refusal> {
        let address = neighbourhood(address);
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if inner.total >= inner.limits.connections_max {
            return Err(Refusal::new(Code::TooManyConnections, "this node has as many connections as it may")
                .retry_after(5_000));
        }
        if inner.addresses.len() >= ADDRESSES_MAX && !inner.addresses.contains_key(&address) {
            inner.forget(now_ms);
        }
        let visitor = inner.addresses.entry(address).or_default();
        visitor.last_ms = now_ms;
        if visitor.connections >= inner.limits.per_address_max {
            let message = format!("{} connections of this address are open", inner.limits.per_address_max);
            return Err(Refusal::new(Code::TooManyConnections, message).retry_after(5_000));
        }
        if let Err(retry_after_ms) = visitor.connects.check(inner.limits.connects, now_ms, 1) {
            return Err(Refusal::new(Code::RateLimited, "too many new connections of this address")
                .retry_after(retry_after_ms));
        }
        visitor.connections += 1;
        inner.total += 1;
        Ok(Permit { door: self.clone(), address })
    }

    /// Connections let in and not ended.
    pub fn total(&self) -> usize {
        self.inner.lock().total
    }
}

impl Inner {
    /// Forgets addresses that have no connection and have been quiet for a minute; failing that, all without a connection.
    fn forget(&mut self, now_ms: u64) {
        const QUIET_MS: u64 = 60_000;
        self.addresses.retain(|_, visitor| visitor.connections > 0 || visitor.last_ms + QUIET_MS > now_ms);
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, visitor| visitor.connections > 0);
        }
    }
}

/// One connection in the door's count; dropping it counts it out.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Door>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.door.inner.lock();
        inner.total -= 1;
        if let Some(visitor) = inner.addresses.get_mut(&self.address) {
            visitor.connections -= 1;
        }
    }
}

/// Who counts as one: an IPv4 address, or the /64 that one IPv6 customer is given as a rule.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(connections_max: usize, per_address_max: usize) -> Arc<Door> {
        let connects = Quota::per_second(1, 3);
        Arc::new(Door::new(DoorLimits { connections_max, per_address_max, connects }))
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
        assert_eq!(door.total(), 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let network: [IpAddr; 2] = ["2001:db8:1:2::1".parse().unwrap(), "2001:db8:1:2:ffff::9".parse().unwrap()];
        assert_eq!(neighbourhood(network[0]), neighbourhood(network[1]));
        let mapped: IpAddr = "::ffff:127.0.0.7".parse().unwrap();
        assert_eq!(neighbourhood(mapped), v4(7));
    }
}
