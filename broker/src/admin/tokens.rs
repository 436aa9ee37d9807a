//! Tokens for clients, signed with the tenant's own key: for back ends that would rather not sign themselves.

use std::time::Duration;

use cauce_protocol::{Code, Refusal, Role, TenantId, UserId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Actor, Admin, NewSigningKey, detail};
use crate::auth::grant::Rule;
use crate::auth::sign::{Claims, SignError, SigningKey, sign};
use crate::auth::token::{ROLES_MAX, check_info};
use crate::config::Algorithm;

/// How long a token is good for unless asked otherwise.
pub const TOKEN_LIFETIME_DEFAULT: Duration = Duration::from_secs(3_600);

/// The longest that may be asked for; `auth.max_lifetime` may be shorter.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub user: UserId,
    pub roles: Vec<Role>,
    pub grants: Vec<Rule>,
    /// What others in a room are told of the user.
    pub info: Option<Box<RawValue>>,
    /// Whole seconds count.
    pub lifetime: Duration,
}

/// A token that was made.
#[derive(Clone, Debug)]
pub struct Token {
    pub token: SecretString,
    pub expires_unix_ms: u64,
}

impl Admin {
    /// Makes a token with the tenant's newest shared secret, and that secret if the tenant has none.
    ///
    /// # Errors
    /// `invalid` for a life that is too long or zero, or grants that no broker takes, or too much info; `too_large`; `not_found` for the
    /// tenant; `unavailable`.
    pub async fn create_token(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        new: NewToken,
    ) -> Result<Token, Refusal> {
        let lifetime_max = self.auth.read().max_lifetime.min(TOKEN_LIFETIME_MAX);
        if new.lifetime.as_secs() == 0 || new.lifetime > lifetime_max {
            let message = format!("a token is good for 1 to {} seconds", lifetime_max.as_secs());
            return Err(Refusal::new(Code::Invalid, message));
        }
        if new.roles.len() > ROLES_MAX {
            return Err(Refusal::new(
                Code::Invalid,
                format!("roles: more than {ROLES_MAX}"),
            ));
        }
        crate::auth::Rules::new(new.grants.clone())
            .map_err(|e| Refusal::new(Code::Invalid, format!("grants: {e}")))?;
        if let Some(info) = &new.info {
            check_info(info.get()).map_err(|refusal| Refusal::new(Code::Invalid, refusal.message))?;
        }
        let key = {
            let _change = self.changes.lock().await;
            let newest = self.registry.read().tenant(tenant)?.newest_secret().cloned();
            match newest {
                Some(key) => key,
                None => {
                    let new = NewSigningKey {
                        kid: None,
                        algorithm: Algorithm::Hs256,
                        material: None,
                    };
                    self.add_signing_key_locked(actor, tenant, new).await?;
                    let made = self.registry.read().tenant(tenant)?.newest_secret().cloned();
                    made.ok_or_else(|| Refusal::new(Code::Internal, "the tenant's new key is gone"))?
                }
            }
        };
        let secret = key.material.expose_secret().as_bytes();
        let signing = SigningKey::from_secret(key.info.algorithm, Some(key.info.kid.clone()), secret);
        let now_seconds = self.unix_ms() / 1_000;
        let seconds = new.lifetime.as_secs();
        let mut claims = Claims::new(new.user, now_seconds, seconds);
        claims.tenant = Some(tenant.clone());
        claims.roles = new.roles;
        claims.grants = new.grants;
        claims.info = new.info;
        let token = signing.and_then(|key| sign(&claims, &key)).map_err(refusal)?;
        let record = detail(&json!({ "roles": claims.roles, "seconds": seconds, "kid": key.info.kid }));
        self.audit(actor, Some(tenant), "token.create", claims.sub.as_str(), record);
        Ok(Token {
            token: token.into(),
            expires_unix_ms: (now_seconds + seconds) * 1_000,
        })
    }
}

fn refusal(error: SignError) -> Refusal {
    match error {
        SignError::TooLong => Refusal::new(Code::TooLarge, error.to_string()),
        SignError::Key(_) | SignError::Failed => {
            tracing::error!(%error, "a token cannot be signed");
            Refusal::new(Code::Internal, "the token could not be signed; see the log")
        }
    }
}
