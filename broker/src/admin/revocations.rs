//! Revocation of users and of single tokens: what is open is closed, and what comes with such a token is refused.

use cauce_protocol::{Code, Refusal, TenantId};
use serde_json::json;

use super::error::store_refusal;
use super::{Actor, Admin, check_label, detail};
use crate::auth::{Expiry, Revocation, Revoked};
use crate::hub::Selection;
use crate::store::RevocationRow;

/// What to revoke.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    pub revoked: Revoked,
    pub lasts: Lasts,
    /// For people, and for the record.
    pub reason: String,
}

/// How long a revocation stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lasts {
    /// For as long as a token that says when it was issued can be good: the longest lifetime and the leeway of the
    /// configuration. For ever, where tokens need not end.
    #[default]
    AsLongAsTokens,
    /// Until then, in milliseconds since 1970.
    Until(u64),
    /// So many milliseconds.
    For(u64),
}

impl Admin {
    /// Revokes from now on. A repeat makes the moment later and the time longer, never less.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `too_large`, `quota_exceeded`, `unavailable`; then nothing is revoked.
    pub async fn revoke(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        new: NewRevocation,
    ) -> Result<Revocation, Refusal> {
        check_label("reason", &new.reason)?;
        let _change = self.changes.lock().await;
        self.tenant(tenant)?;
        let owner = self.hub.tenants.get(tenant.as_str());
        let owner = owner.ok_or_else(|| super::no_tenant(tenant))?;
        let now_ms = self.unix_ms();
        let revocation = Revocation {
            revoked_unix_ms: now_ms,
            until_unix_ms: self.end_of(new.lasts, now_ms)?,
            reason: new.reason,
        };
        let revoked = new.revoked;
        let revocation = {
            let mut revocations = owner.revocations.write();
            revocations.make_room(&revoked, now_ms)?;
            revocations.merged(&revoked, revocation)
        };
        if let Some(store) = &self.store {
            let row = RevocationRow {
                tenant: tenant.clone(),
                subject: revoked.to_string(),
                revoked_ms: revocation.revoked_unix_ms,
                until_ms: revocation.until_unix_ms,
                reason: revocation.reason.clone(),
            };
            let put = store.put_revocation(row, now_ms).await;
            put.map_err(|e| store_refusal(&e))?;
        }
        // Refused first and closed second: whoever comes between the two is in a shard's list by the time that it looks.
        owner
            .revocations
            .write()
            .insert(revoked.clone(), revocation.clone());
        let refusal = Refusal::new(Code::TokenRevoked, "the token was revoked; bring another");
        let selection = match &revoked {
            Revoked::User(user) => Selection::User(tenant.clone(), user.clone()),
            Revoked::Token(jti) => Selection::TokenId(tenant.clone(), jti.clone()),
        };
        self.hub.close(selection, refusal);
        let record = detail(&json!({
            "until_unix_ms": revocation.until_unix_ms,
            "reason": revocation.reason,
        }));
        self.audit(
            actor,
            Some(tenant),
            "revocation.create",
            &revoked.to_string(),
            record,
        );
        Ok(revocation)
    }

    fn end_of(&self, lasts: Lasts, now_ms: u64) -> Result<Option<u64>, Refusal> {
        let policy = self.hub.tunables().policy;
        let until = match lasts {
            Lasts::AsLongAsTokens if policy.expiry == Expiry::Optional => return Ok(None),
            Lasts::AsLongAsTokens => now_ms
                .saturating_add(policy.lifetime_ms_max)
                .saturating_add(policy.leeway_ms),
            Lasts::Until(until_ms) => until_ms,
            Lasts::For(ms) => now_ms.saturating_add(ms),
        };
        if until <= now_ms {
            return Err(Refusal::new(
                Code::Invalid,
                "the revocation would end before it begins",
            ));
        }
        Ok(Some(until))
    }

    /// What is revoked in a tenant and has not ended, users before tokens, those after `after`.
    ///
    /// # Errors
    /// `not_found`.
    pub fn revocations(
        &self,
        tenant: &TenantId,
        after: Option<&Revoked>,
        limit: usize,
    ) -> Result<Vec<(Revoked, Revocation)>, Refusal> {
        let owner = self.hub.tenants.get(tenant.as_str());
        let owner = owner.ok_or_else(|| super::no_tenant(tenant))?;
        let list = owner.revocations.read().list(after, self.unix_ms(), limit);
        Ok(list)
    }

    /// Takes a revocation back: its tokens are good again, as far as they are good otherwise.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn reinstate(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        revoked: &Revoked,
    ) -> Result<(), Refusal> {
        let _change = self.changes.lock().await;
        let owner = self.hub.tenants.get(tenant.as_str());
        let owner = owner.ok_or_else(|| super::no_tenant(tenant))?;
        let stands = owner.revocations.read().stands(revoked, self.unix_ms());
        if !stands {
            return Err(Refusal::new(Code::NotFound, "there is no such revocation"));
        }
        if let Some(store) = &self.store {
            let deleted = store.delete_revocation(tenant.clone(), revoked.to_string());
            deleted.await.map_err(|e| store_refusal(&e))?;
        }
        owner.revocations.write().remove(revoked);
        self.audit(
            actor,
            Some(tenant),
            "revocation.delete",
            &revoked.to_string(),
            bytes::Bytes::new(),
        );
        Ok(())
    }

    /// At start.
    pub(super) fn take_revocation(&self, row: RevocationRow) {
        let Ok(revoked) = row.subject.parse::<Revoked>() else {
            return tracing::error!(tenant = %row.tenant, subject = row.subject, "a stored revocation is damaged and left out");
        };
        if let Some(tenant) = self.hub.tenants.get(row.tenant.as_str()) {
            let revocation = Revocation {
                revoked_unix_ms: row.revoked_ms,
                until_unix_ms: row.until_ms,
                reason: row.reason,
            };
            tenant.revocations.write().insert(revoked, revocation);
        }
    }
}
