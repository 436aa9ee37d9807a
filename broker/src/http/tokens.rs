//! Tokens for clients.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cauce_protocol::{Refusal, Role, UserId};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::answer::Answer;
use super::caller::Caller;
use super::extract::{Body, Object, Params};
use super::page::TenantQuery;
use super::publish::bad_name;
use crate::admin::{NewToken, TOKEN_LIFETIME_DEFAULT};
use crate::auth::grant::Rule;
use crate::auth::secret::Scope;

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    #[schema(min_length = 1, max_length = 200)]
    user: String,
    #[serde(default)]
    #[schema(max_items = 32)]
    roles: Vec<String>,
    #[serde(default)]
    #[schema(value_type = Vec<RuleBody>)]
    grants: Vec<Object<Rule>>,
    /// What others in a room are told of the user: any JSON of at most 1 KiB.
    #[serde(default)]
    #[schema(value_type = Value)]
    info: Option<Box<RawValue>>,
    /// Seconds; an hour unless given.
    #[schema(minimum = 1, maximum = 86400, default = 3600)]
    expires_in: Option<u64>,
}

/// What may be done where.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Rule` in the document")]
struct RuleBody {
    /// Patterns of room names; `*` at the end stands for anything.
    rooms: Vec<String>,
    /// `subscribe`, `publish`, `presence`, `history`, `call`.
    allow: Vec<String>,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenView {
    token: String,
    expires_unix_ms: u64,
}

/// Make a token for a client, signed with the tenant's newest shared secret.
#[utoipa::path(post, path = "/v1/tokens", tag = "keys", params(TenantQuery), request_body = TokenBody,
    responses((status = 200, body = TokenView)))]
pub(super) async fn create_token(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<TokenBody>,
) -> Answer<TokenView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    let role = |name: &String| Role::new(name).map_err(|e| bad_name("role", e));
    let roles: Result<Vec<_>, Refusal> = body.roles.iter().map(role).collect();
    let new = NewToken {
        user: UserId::new(&body.user).map_err(|e| bad_name("user", e))?,
        roles: roles?,
        grants: body.grants.into_iter().map(|Object(rule)| rule).collect(),
        info: body.info,
        lifetime: body
            .expires_in
            .map_or(TOKEN_LIFETIME_DEFAULT, Duration::from_secs),
    };
    let made = api.admin.create_token(&caller.actor(), &tenant.id, new).await?;
    Ok(Json(TokenView {
        token: made.token.expose_secret().to_owned(),
        expires_unix_ms: made.expires_unix_ms,
    }))
}
