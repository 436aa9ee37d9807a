//! Who calls, and for which tenant.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cauce_protocol::{Code, Refusal, TenantId};

use super::Api;
use super::answer::Refused;
use crate::admin::{Actor, DEFAULT_TENANT};
use crate::auth::KeyOwner;
use crate::auth::secret::{CredentialRow, Scope};
use crate::hub::Tenant;

/// The bearer of a valid API key.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    key: Arc<CredentialRow>,
}

impl Caller {
    pub(super) fn new(key: Arc<CredentialRow>) -> Self {
        Self { key }
    }

    /// For the record.
    pub(super) fn actor(&self) -> Actor {
        Actor::api_key(self.key.id)
    }

    pub(super) fn key(&self) -> &CredentialRow {
        &self.key
    }

    /// The tenant that the request is about, if the key may be used for this there. An operator's key chooses by `?tenant=`;
    /// a tenant's key has its own, and any other is not there for it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or `tenant_disabled` for a tenant's own key.
    pub(super) fn tenant(
        &self,
        api: &Api,
        named: Option<&str>,
        scope: Scope,
    ) -> Result<Arc<Tenant>, Refusal> {
        self.key.require(scope)?;
        let id = match &self.key.owner {
            KeyOwner::Operator => named.unwrap_or(DEFAULT_TENANT),
            KeyOwner::Tenant(own) => match named {
                Some(named) if named != own.as_str() => return Err(no_tenant(named)),
                _ => own.as_str(),
            },
        };
        let tenant = api.hub.tenants.get(id).ok_or_else(|| no_tenant(id))?;
        if self.key.owner != KeyOwner::Operator && tenant.settings().disabled {
            return Err(Refusal::new(Code::TenantDisabled, "the tenant is switched off"));
        }
        Ok(tenant)
    }

    /// For what only the operator may.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn operator(&self, scope: Scope) -> Result<(), Refusal> {
        self.key.require(scope)?;
        match self.key.owner {
            KeyOwner::Operator => Ok(()),
            KeyOwner::Tenant(_) => Err(Refusal::new(Code::Forbidden, "only the operator may do this")),
        }
    }

    /// For what belongs to the operator or to a tenant: the operator as a whole if no tenant is named.
    ///
    /// # Errors
    /// As [`Caller::tenant`].
    pub(super) fn owner(&self, api: &Api, named: Option<&str>, scope: Scope) -> Result<KeyOwner, Refusal> {
        match (&self.key.owner, named) {
            (KeyOwner::Operator, None) => self.operator(scope).map(|()| KeyOwner::Operator),
            _ => self
                .tenant(api, named, scope)
                .map(|tenant| KeyOwner::Tenant(tenant.id.clone())),
        }
    }
}

/// The same words for a tenant that is not there and for one that is somebody else's.
fn no_tenant(name: &str) -> Refusal {
    match TenantId::new(name) {
        Ok(id) => crate::admin::no_tenant(&id),
        Err(error) => Refusal::new(
            Code::NotFound,
            format!("there is no such tenant: its name {error}"),
        ),
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refused> {
        // The gate puts it there for every path that wants a key.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Refused::new(Code::Unauthenticated, "this needs an API key"))
    }
}
