//! How much may be published: by a connection in bytes, by all connections of a user, by a tenant through whatever door.
//!
//! A message is charged before anything else is done with it. A refusal costs nothing, names the limit and the time to wait, and
//! leaves the connection as it is.

use cauce_protocol::{Code, Refusal};
use crossbeam_utils::CachePadded;

use super::Hub;
use super::people::Person;
use super::tenants::Tenant;
use crate::rate::{Gcra, NEVER, Quota, SharedGcra};

/// Bytes are counted in units of so many, begun ones whole: a rate in single bytes would be rounded coarsely.
const BYTES_A_UNIT: u32 = 64;

/// Told to wait where the limit itself has no answer, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// What may be published. One for the whole node, replaced when configuration changes.
#[derive(Clone, Copy, Debug)]
pub struct PublishQuotas {
    /// Messages of a user.
    pub user: Quota,
    /// Messages of a tenant.
    pub tenant: Quota,
    /// Units of bytes of a connection.
    pub connection_bytes: Quota,
    /// Units of bytes of a tenant.
    pub tenant_bytes: Quota,
}

impl PublishQuotas {
    /// A quota of bytes a second, two seconds' worth of them at once, but always one message of the largest size.
    pub fn bytes_per_second(rate: usize, largest: usize) -> Quota {
        let units = |bytes: usize| u32::try_from(bytes.div_ceil(BYTES_A_UNIT as usize)).unwrap_or(u32::MAX);
        let rate = units(rate);
        Quota::per_second(rate, rate.saturating_mul(2).max(units(largest)))
    }
}

/// Which limit a message met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishLimit {
    ConnectionBytes,
    User,
    Tenant,
    TenantBytes,
    /// What waits for the shards, of whoever publishes without a socket.
    TenantQueue,
}

impl PublishLimit {
    pub const ALL: [Self; 5] = [
        Self::ConnectionBytes,
        Self::User,
        Self::Tenant,
        Self::TenantBytes,
        Self::TenantQueue,
    ];

    /// Its name in metrics: the setting that holds it, if it is one that can be set.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectionBytes => "publish_bytes_per_second_per_connection",
            Self::User => "publishes_per_second_per_user",
            Self::Tenant => "publishes_per_second_per_tenant",
            Self::TenantBytes => "publish_bytes_per_second_per_tenant",
            Self::TenantQueue => "queue_per_tenant",
        }
    }

    pub(super) fn refusal(self, retry_after_ms: u32) -> Refusal {
        let message = match self {
            Self::ConnectionBytes => "more bytes than this connection may publish",
            Self::User => "more messages than this user may publish",
            Self::Tenant => "more messages than this tenant may publish",
            Self::TenantBytes => "more bytes than this tenant may publish",
            Self::TenantQueue => "more than can be delivered waits of this tenant; publish more slowly",
        };
        let retry_after_ms = match retry_after_ms {
            NEVER => RETRY_MS,
            ms => ms,
        };
        Refusal::new(Code::RateLimited, message).retry_after(retry_after_ms)
    }
}

impl Hub {
    /// Counts a message that met this limit.
    pub fn publish_limited(&self, limit: PublishLimit) {
        self.metrics.publish_limited[limit as usize].increment();
    }
}

/// Who publishes, besides the tenant.
#[derive(Debug)]
pub struct Publisher<'a> {
    pub person: &'a Person,
    /// The connection's own state.
    pub bytes: &'a mut Gcra,
}

/// What a tenant has published lately: both on one cache line, which the threads that publish for it share.
#[derive(Debug, Default)]
pub(super) struct PublishRates(CachePadded<Rates>);

#[derive(Debug, Default)]
struct Rates {
    messages: SharedGcra,
    bytes: SharedGcra,
}

impl Tenant {
    /// Charges a message of so many bytes to whoever publishes it.
    ///
    /// # Errors
    /// `rate_limited`, with the limit that was met; then nothing was charged.
    pub fn charge(
        &self,
        publisher: Option<Publisher<'_>>,
        quotas: &PublishQuotas,
        now_ms: u64,
        bytes: usize,
    ) -> Result<(), (PublishLimit, Refusal)> {
        let units = u32::try_from(bytes.div_ceil(BYTES_A_UNIT as usize)).unwrap_or(u32::MAX);
        let refuse = |limit: PublishLimit| move |wait: u32| (limit, limit.refusal(wait));
        let rates = &*self.rates.0;
        // A smaller limit than the largest message would refuse it for ever: it is taken for the whole burst instead.
        let tenant_units = units.min(quotas.tenant_bytes.burst());
        let Some(Publisher { person, bytes }) = publisher else {
            rates
                .messages
                .check(quotas.tenant, now_ms, 1)
                .map_err(refuse(PublishLimit::Tenant))?;
            return rates
                .bytes
                .check(quotas.tenant_bytes, now_ms, tenant_units)
                .map_err(|wait| {
                    rates.messages.give_back(quotas.tenant, 1);
                    refuse(PublishLimit::TenantBytes)(wait)
                });
        };
        let before = *bytes;
        bytes
            .check(
                quotas.connection_bytes,
                now_ms,
                units.min(quotas.connection_bytes.burst()),
            )
            .map_err(refuse(PublishLimit::ConnectionBytes))?;
        let charged = person
            .publishes
            .check(quotas.user, now_ms, 1)
            .map_err(refuse(PublishLimit::User))
            .and_then(|()| {
                self.charge(None, quotas, now_ms, bytes_of(units))
                    .inspect_err(|_| person.publishes.give_back(quotas.user, 1))
            });
        if charged.is_err() {
            *bytes = before;
        }
        charged
    }
}

fn bytes_of(units: u32) -> usize {
    units as usize * BYTES_A_UNIT as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cauce_protocol::{TenantId, UserId};
    use proptest::prelude::*;

    use super::*;
    use crate::hub::{ConnectionLimits, Membership, TenantSettings, Tenants};
    use crate::rooms::TableLimits;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        per_tenant_max: 100,
        per_user_max: 100,
    };

    fn tenants() -> [Arc<Tenant>; 2] {
        let tenants = Tenants::new(TableLimits {
            rooms_max: 10,
            linger_ms: 1_000,
            history_bytes_max: 1 << 20,
        });
        ["a", "b"].map(|id| tenants.get_or_make(&TenantId::new(id).unwrap(), TenantSettings::default()))
    }

    fn member(tenant: &Arc<Tenant>, user: &str) -> (Membership, Gcra) {
        let membership = tenant.admit(&UserId::new(user).unwrap(), LIMITS).unwrap();
        (membership, Gcra::default())
    }

    fn quotas(user: u32, tenant: u32, connection_bytes: usize, tenant_bytes: usize) -> PublishQuotas {
        PublishQuotas {
            user: Quota::per_second(user, user),
            tenant: Quota::per_second(tenant, tenant),
            connection_bytes: PublishQuotas::bytes_per_second(connection_bytes, 0),
            tenant_bytes: PublishQuotas::bytes_per_second(tenant_bytes, 0),
        }
    }

    fn publish(
        (membership, bytes): &mut (Membership, Gcra),
        quotas: &PublishQuotas,
        now_ms: u64,
        len: usize,
    ) -> Result<(), PublishLimit> {
        let publisher = Publisher {
            person: &membership.person,
            bytes,
        };
        let charged = membership.tenant.charge(Some(publisher), quotas, now_ms, len);
        charged.map_err(|(limit, refusal)| {
            assert!(refusal.code == Code::RateLimited && refusal.retry_after_ms > 0);
            limit
        })
    }

    #[test]
    fn all_connections_of_a_user_share_its_limit_and_another_user_has_its_own() {
        let [a, _] = tenants();
        let quotas = quotas(4, 1_000, 1 << 20, 1 << 20);
        let (mut first, mut second, mut bob) = (member(&a, "ann"), member(&a, "ann"), member(&a, "bob"));
        for peer in [&mut first, &mut second] {
            for _ in 0..2 {
                assert_eq!(publish(peer, &quotas, 1_000, 10), Ok(()));
            }
        }
        for peer in [&mut first, &mut second] {
            assert_eq!(publish(peer, &quotas, 1_000, 10), Err(PublishLimit::User));
        }
        assert_eq!(publish(&mut bob, &quotas, 1_000, 10), Ok(()));
        assert_eq!(
            publish(&mut first, &quotas, 1_250, 10),
            Ok(()),
            "a fourth of a second later"
        );
    }

    #[test]
    fn a_tenant_at_its_limit_does_not_touch_another() {
        let [a, b] = tenants();
        let quotas = quotas(1_000, 5, 1 << 20, 1 << 20);
        let (mut ann, mut bea) = (member(&a, "ann"), member(&b, "ann"));
        for _ in 0..5 {
            assert_eq!(publish(&mut ann, &quotas, 1_000, 1), Ok(()));
        }
        assert_eq!(publish(&mut ann, &quotas, 1_000, 1), Err(PublishLimit::Tenant));
        // The API is a door of the same tenant.
        assert_eq!(
            a.charge(None, &quotas, 1_000, 1).unwrap_err().0,
            PublishLimit::Tenant
        );
        for _ in 0..5 {
            assert_eq!(publish(&mut bea, &quotas, 1_000, 1), Ok(()));
        }
    }

    #[test]
    fn bytes_have_limits_of_their_own_and_the_largest_message_still_goes() {
        let [a, _] = tenants();
        let (mut ann, mut bob) = (member(&a, "ann"), member(&a, "bob"));
        let small = quotas(1_000, 1_000, 640, 1 << 20);
        assert_eq!(
            publish(&mut ann, &small, 1_000, 1 << 20),
            Ok(()),
            "once it fits the burst"
        );
        assert_eq!(
            publish(&mut ann, &small, 1_000, 1),
            Err(PublishLimit::ConnectionBytes)
        );
        assert_eq!(publish(&mut bob, &small, 1_000, 1), Ok(()));
        let tight = quotas(1_000, 1_000, 1 << 20, 640);
        let mut eve = member(&a, "eve");
        assert_eq!(publish(&mut eve, &tight, 5_000, 1_280), Ok(()));
        assert_eq!(
            publish(&mut eve, &tight, 5_000, 1),
            Err(PublishLimit::TenantBytes)
        );
    }

    proptest! {
        #[test]
        fn a_refusal_by_any_limit_costs_nothing_at_the_others(
            steps in prop::collection::vec((0usize..3, 0usize..3_000, 0u64..40), 1..200),
        ) {
            let [a, _] = tenants();
            let quotas = quotas(20, 30, 4_000, 6_000);
            let mut peers = [member(&a, "ann"), member(&a, "ann"), member(&a, "bob")];
            let mut now_ms = 1_000;
            for (who, len, wait_ms) in steps {
                now_ms += wait_ms;
                let units = (len as u32).div_ceil(BYTES_A_UNIT);
                let peer = &mut peers[who];
                // What each limit would say for itself, had this been the only one.
                let probe = |state: &SharedGcra, quota: Quota, cost: u32| {
                    let admits = state.check(quota, now_ms, cost).is_ok();
                    if admits {
                        state.give_back(quota, cost);
                    }
                    admits
                };
                let mut own = peer.1;
                let expected = [
                    (own.check(quotas.connection_bytes, now_ms, units).is_ok(), PublishLimit::ConnectionBytes),
                    (probe(&peer.0.person.publishes, quotas.user, 1), PublishLimit::User),
                    (probe(&a.rates.0.messages, quotas.tenant, 1), PublishLimit::Tenant),
                    (probe(&a.rates.0.bytes, quotas.tenant_bytes, units), PublishLimit::TenantBytes),
                ];
                let refuses = expected.iter().find(|(admits, _)| !admits).map(|&(_, limit)| limit);
                let due = [&peer.0.person.publishes, &a.rates.0.messages, &a.rates.0.bytes].map(|s| s.is_idle(now_ms));
                prop_assert_eq!(publish(peer, &quotas, now_ms, len).err(), refuses);
                if refuses.is_some() {
                    let after = [&peer.0.person.publishes, &a.rates.0.messages, &a.rates.0.bytes].map(|s| s.is_idle(now_ms));
                    prop_assert_eq!(due, after);
                }
            }
        }
    }
}
