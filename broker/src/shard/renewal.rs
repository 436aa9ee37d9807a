//! Renewal of tokens in band: the connection lives on under a new one.
//!
//! What must stay true: a connection stays with the tenant and the user that it was opened for. A token that is refused
//! changes nothing; the old one goes on until its end.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::{Code, Refusal, wire};

use super::peer::Peer;
use super::rights::who;
use super::{Shard, Tunables};
use crate::auth::Principal;
use crate::clock::Now;
use crate::hub::Tenant;

impl Shard {
    pub(super) fn refresh(&self, peer: &Rc<Peer>, id: u32, token: &str, now: Now, _: &Tunables) {
        let Some((tenant, before)) = who(peer) else { return };
        let (renewed, renewed_tenant) = match self.verify(token, now) {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(peer, id, &refusal),
        };
        if !Arc::ptr_eq(&renewed_tenant, &tenant) || renewed.user != before.user {
            let message = "the new token is for somebody else; open another connection with it";
            return self.refuse(peer, id, &Refusal::new(Code::Conflict, message));
        }
        let expires_in_ms = expires_in_ms(&renewed, now);
        // The answer first: what ends with the old rights is told by the time that the client knows of the new ones.
        self.answer(peer, id, wire::Refreshed { expires_in_ms });
        self.take_principal(peer, &tenant, renewed, now);
        // The new end may be nearer than the old one.
        self.arm_next(peer, now);
    }

    /// Whose token this is, if it is good now.
    pub(super) fn verify(&self, token: &str, now: Now) -> Result<(Arc<Principal>, Arc<Tenant>), Refusal> {
        let standing = |tenant: &cauce_protocol::TenantId| self.hub.standing(tenant.as_str());
        let principal = self.auth.borrow_mut().authenticate(token, now, standing)?;
        // The standing was asked a moment ago; a tenant is never taken out of the table while the node runs.
        let tenant = self
            .hub
            .tenants
            .get(principal.tenant.as_str())
            .ok_or_else(|| Refusal::new(Code::Internal, "the tenant is not there"))?;
        tenant.check_revoked(&principal, now.unix_ms)?;
        Ok((principal, tenant))
    }
}

/// Time until a token ends, as clients are told: 0 means never.
pub(super) fn expires_in_ms(principal: &Principal, now: Now) -> u64 {
    principal
        .expires_unix_ms
        .map_or(0, |ends| ends.saturating_sub(now.unix_ms).max(1))
}
