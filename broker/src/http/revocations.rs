//! Revocation of users and tokens.

use axum::Json;
use axum::extract::State;
use cauce_protocol::{Code, Refusal, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Done, Refused};
use super::caller::Caller;
use super::extract::{Body, Named, Params};
use super::page::{ListQuery, Page, TenantQuery, bad_cursor};
use super::publish::bad_name;
use crate::admin::{Lasts, NewRevocation};
use crate::auth::secret::Scope;
use crate::auth::{Revocation, Revoked};
use crate::config::duration_ms;

/// What is refused, since when and until when.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevocationView {
    /// `user:<name>` or `jti:<id>`.
    id: String,
    /// All tokens of this user that were issued up to `revoked_unix_ms`; null if it is about one token.
    user: Option<String>,
    /// The token of this id; null if it is about a user.
    jti: Option<String>,
    revoked_unix_ms: u64,
    /// When it ends; null if never.
    until_unix_ms: Option<u64>,
    reason: String,
}

/// What to refuse from now on: a user's tokens, or one token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationBody {
    /// All tokens of this user that were issued up to now, to the second. Give this or `jti`.
    #[schema(min_length = 1, max_length = 200)]
    user: Option<String>,
    /// The token of this id. Give this or `user`.
    #[schema(min_length = 1, max_length = 200)]
    jti: Option<String>,
    /// When the revocation ends. Unless given, and without `ttl`: when no token of before can be good any more.
    #[serde(alias = "until")]
    until_unix_ms: Option<u64>,
    /// How long it lasts: `24h`, or seconds.
    #[schema(value_type = Option<String>)]
    ttl: Option<Ttl>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: String,
    /// With an operator's key: for this tenant; `default` unless given.
    tenant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a duration such as \"24h\", or a number of seconds"
)]
enum Ttl {
    Seconds(u64),
    Text(String),
}

impl Ttl {
    fn ms(&self) -> Result<u64, Refusal> {
        match self {
            Self::Seconds(seconds) => Ok(seconds.saturating_mul(1_000)),
            Self::Text(text) => {
                duration_ms(text).map_err(|error| Refusal::new(Code::Invalid, format!("ttl: {error}")))
            }
        }
    }
}

fn view((revoked, revocation): (Revoked, Revocation)) -> RevocationView {
    let name = revoked.name().to_owned();
    let (user, jti) = match &revoked {
        Revoked::User(_) => (Some(name), None),
        Revoked::Token(_) => (None, Some(name)),
    };
    RevocationView {
        id: revoked.to_string(),
        user,
        jti,
        revoked_unix_ms: revocation.revoked_unix_ms,
        until_unix_ms: revocation.until_unix_ms,
        reason: revocation.reason,
    }
}

fn invalid(message: &'static str) -> Refused {
    Refused::new(Code::Invalid, message)
}

/// Revocations that have not ended, users before tokens.
#[utoipa::path(get, path = "/v1/revocations", tag = "keys", params(ListQuery),
    responses((status = 200, body = Page<RevocationView>)))]
pub(super) async fn list_revocations(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Answer<Page<RevocationView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    let limit = query.limit()?;
    let after = query.after()?.map(|key| key.parse().map_err(|_| bad_cursor()));
    let list = api
        .admin
        .revocations(&tenant.id, after.transpose()?.as_ref(), limit + 1)?;
    let views = list.into_iter().map(view).collect();
    Ok(Json(Page::cut(views, limit, |revocation| &revocation.id)))
}

/// Revoke a user's tokens or one token: connections that came with them are closed, and none is opened any more.
#[utoipa::path(post, path = "/v1/revocations", tag = "keys", params(TenantQuery), request_body = RevocationBody,
    responses((status = 200, body = RevocationView)))]
pub(super) async fn create_revocation(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<RevocationBody>,
) -> Answer<RevocationView> {
    let named = match (&query.tenant, &body.tenant) {
        (Some(one), Some(other)) if one != other => {
            return Err(invalid("the query and the body name two tenants"));
        }
        (one, other) => one.as_deref().or(other.as_deref()),
    };
    let tenant = caller.tenant(&api, named, Scope::Tokens)?;
    let revoked = match (&body.user, &body.jti) {
        (Some(user), None) => Revoked::User(UserId::new(user).map_err(|e| bad_name("user", e))?),
        (None, Some(jti)) => Revoked::token(jti)?,
        _ => return Err(invalid("give a user or a jti, and not both")),
    };
    let lasts = match (body.until_unix_ms, &body.ttl) {
        (None, None) => Lasts::AsLongAsTokens,
        (Some(until), None) => Lasts::Until(until),
        (None, Some(ttl)) => Lasts::For(ttl.ms()?),
        (Some(_), Some(_)) => return Err(invalid("give until_unix_ms or ttl, not both")),
    };
    let new = NewRevocation {
        revoked: revoked.clone(),
        lasts,
        reason: body.reason,
    };
    let revocation = api.admin.revoke(&caller.actor(), &tenant.id, new).await?;
    Ok(Json(view((revoked, revocation))))
}

/// Take a revocation back.
#[utoipa::path(delete, path = "/v1/revocations/{id}", tag = "keys", params(TenantQuery, ("id" = String, Path)),
    responses((status = 200, body = Done)))]
pub(super) async fn delete_revocation(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<Done> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    // Whether it could be one decides nothing: what is not there is not there.
    let revoked: Revoked = id
        .parse()
        .map_err(|_| Refusal::new(Code::NotFound, "there is no such revocation"))?;
    api.admin.reinstate(&caller.actor(), &tenant.id, &revoked).await?;
    Ok(Json(Done {}))
}
