//! API keys and device tokens.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{header, uri};
use cauce_protocol::{Code, DeviceId, Refusal};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Done, Refused};
use super::caller::Caller;
use super::extract::{Body, Named, Params};
use super::page::{ListQuery, Page, TenantQuery, bad_cursor};
use super::publish::bad_name;
use super::serve::Peer;
use crate::admin::{ApiKey, DeviceToken, NewApiKey, NewDeviceToken};
use crate::auth::KeyOwner;
use crate::auth::secret::{CredentialId, Scope, Scopes};

/// An API key: all but the secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiKeyView {
    id: String,
    name: String,
    scopes: Vec<String>,
    /// Whose it is; null for the operator's.
    tenant: Option<String>,
    created_unix_ms: u64,
}

/// An API key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewApiKeyView {
    id: String,
    name: String,
    scopes: Vec<String>,
    /// Whose it is; null for the operator's.
    tenant: Option<String>,
    created_unix_ms: u64,
    /// The key, for `Authorization: Bearer`; shown this once.
    key: String,
}

/// An API key to be made. It gets no right that the key which makes it has not.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKeyBody {
    /// For people.
    #[serde(default)]
    #[schema(max_length = 256)]
    name: String,
    #[schema(value_type = Vec<ScopeName>, min_items = 1)]
    scopes: Vec<String>,
    /// With an operator's key: for this tenant; `default` unless given.
    tenant: Option<String>,
    /// With an operator's key: a key of the operator.
    #[serde(default)]
    operator: bool,
}

/// What an API key may be used for.
#[derive(ToSchema, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes `Scope` in the document")]
enum ScopeName {
    Publish,
    Rooms,
    Devices,
    Commands,
    Tenants,
    Keys,
    Tokens,
    Stats,
    Calls,
    Connections,
    All,
}

/// A device token: all but the secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceTokenView {
    id: String,
    /// The only device that may use it; null for any device of the tenant.
    device: Option<String>,
    label: String,
    created_unix_ms: u64,
}

/// A device token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewDeviceTokenView {
    id: String,
    device: Option<String>,
    label: String,
    created_unix_ms: u64,
    /// Shown this once.
    token: String,
    /// What the device is to dial, token included.
    url: String,
}

/// A device token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceTokenBody {
    /// The only device that may use it: its MAC in upper case. Any device of the tenant unless given.
    #[schema(pattern = "^[0-9A-Z]{1,64}$")]
    device: Option<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 256)]
    label: String,
}

fn scope_names(scopes: Scopes) -> Vec<String> {
    scopes.iter().map(|scope| scope.name().to_owned()).collect()
}

fn tenant_of(owner: &KeyOwner) -> Option<String> {
    match owner {
        KeyOwner::Operator => None,
        KeyOwner::Tenant(tenant) => Some(tenant.to_string()),
    }
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            scopes: scope_names(key.scopes),
            tenant: tenant_of(&key.owner),
            created_unix_ms: key.created_unix_ms,
        }
    }
}

impl From<DeviceToken> for DeviceTokenView {
    fn from(token: DeviceToken) -> Self {
        Self {
            id: token.id.to_string(),
            device: token.device.map(|device| device.to_string()),
            label: token.label,
            created_unix_ms: token.created_unix_ms,
        }
    }
}

fn after(query: &ListQuery) -> Result<Option<CredentialId>, Refusal> {
    let read = |key: String| CredentialId::new(&key).ok_or_else(bad_cursor);
    query.after()?.map(read).transpose()
}

/// Whether the id could be one decides nothing: what is not there is not there.
fn credential_id(id: &str) -> Result<CredentialId, Refusal> {
    CredentialId::new(id).ok_or_else(|| Refusal::new(Code::NotFound, "there is no such key or token"))
}

/// API keys by id. With an operator's key and no tenant: the operator's own.
#[utoipa::path(get, path = "/v1/api-keys", tag = "keys", params(ListQuery),
    responses((status = 200, body = Page<ApiKeyView>)))]
pub(super) async fn list_api_keys(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Answer<Page<ApiKeyView>> {
    let owner = caller.owner(&api, query.tenant.as_deref(), Scope::Keys)?;
    let limit = query.limit()?;
    let keys = api.admin.api_keys(&owner, after(&query)?, limit + 1);
    let views = keys.into_iter().map(ApiKeyView::from).collect();
    Ok(Json(Page::cut(views, limit, |key| &key.id)))
}

/// Make an API key. It is shown here, this once.
#[utoipa::path(post, path = "/v1/api-keys", tag = "keys", request_body = ApiKeyBody,
    responses((status = 200, body = NewApiKeyView)))]
pub(super) async fn create_api_key(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<ApiKeyBody>,
) -> Answer<NewApiKeyView> {
    let owner = match (body.operator, &body.tenant) {
        (true, Some(_)) => {
            return Err(Refused::new(
                Code::Invalid,
                "a key is the operator's or a tenant's, not both",
            ));
        }
        (true, None) => caller.operator(Scope::Keys).map(|()| KeyOwner::Operator)?,
        (false, tenant) => {
            let tenant = caller.tenant(&api, tenant.as_deref(), Scope::Keys)?;
            KeyOwner::Tenant(tenant.id.clone())
        }
    };
    let scopes = scopes(&body.scopes, caller.key().scopes)?;
    let new = NewApiKey {
        owner,
        name: body.name,
        scopes,
    };
    let made = api.admin.create_api_key(&caller.actor(), new).await?;
    Ok(Json(NewApiKeyView {
        id: made.item.id.to_string(),
        name: made.item.name,
        scopes: scope_names(made.item.scopes),
        tenant: tenant_of(&made.item.owner),
        created_unix_ms: made.item.created_unix_ms,
        key: made.secret.expose_secret().to_owned(),
    }))
}

/// Nobody gives what they do not have.
fn scopes(names: &[String], own: Scopes) -> Result<Scopes, Refusal> {
    let read = |name: &String| {
        let unknown = || Refusal::new(Code::Invalid, format!("there is no scope {name:?}"));
        let scope = Scope::from_name(name).ok_or_else(unknown)?;
        if own.allow(scope) {
            Ok(scope)
        } else {
            let message = format!("your own key lacks the scope {name}");
            Err(Refusal::new(Code::Forbidden, message))
        }
    };
    names.iter().map(read).collect()
}

/// Revoke an API key: the next request with it is refused.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "keys", params(TenantQuery, ("id" = String, Path)),
    responses((status = 200, body = Done)))]
pub(super) async fn revoke_api_key(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<Done> {
    let owner = caller.owner(&api, query.tenant.as_deref(), Scope::Keys)?;
    api.admin
        .revoke_api_key(&caller.actor(), &owner, credential_id(&id)?)
        .await?;
    Ok(Json(Done {}))
}

/// Device tokens by id.
#[utoipa::path(get, path = "/v1/device-tokens", tag = "devices", params(ListQuery),
    responses((status = 200, body = Page<DeviceTokenView>)))]
pub(super) async fn list_device_tokens(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Answer<Page<DeviceTokenView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    let limit = query.limit()?;
    let tokens = api.admin.device_tokens(&tenant.id, after(&query)?, limit + 1)?;
    let views = tokens.into_iter().map(DeviceTokenView::from).collect();
    Ok(Json(Page::cut(views, limit, |token| &token.id)))
}

/// Make a device token. It is shown here, this once.
#[utoipa::path(post, path = "/v1/device-tokens", tag = "devices", params(TenantQuery),
    request_body = DeviceTokenBody, responses((status = 200, body = NewDeviceTokenView)))]
pub(super) async fn create_device_token(
    State(api): State<Api>,
    caller: Caller,
    front: Front,
    Params(query): Params<TenantQuery>,
    Body(body): Body<DeviceTokenBody>,
) -> Answer<NewDeviceTokenView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    let device = body.device.as_deref().map(DeviceId::new).transpose();
    let new = NewDeviceToken {
        device: device.map_err(|e| bad_name("device", e))?,
        label: body.label,
    };
    let made = api
        .admin
        .create_device_token(&caller.actor(), &tenant.id, new)
        .await?;
    let token = made.secret.expose_secret().to_owned();
    Ok(Json(NewDeviceTokenView {
        id: made.item.id.to_string(),
        device: made.item.device.map(|device| device.to_string()),
        label: made.item.label,
        created_unix_ms: made.item.created_unix_ms,
        url: format!("{}://{}/shelly?token={token}", front.scheme, front.authority),
        token,
    }))
}

/// Revoke a device token: the sockets that came with it are closed.
#[utoipa::path(delete, path = "/v1/device-tokens/{id}", tag = "devices",
    params(TenantQuery, ("id" = String, Path)), responses((status = 200, body = Done)))]
pub(super) async fn revoke_device_token(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<Done> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Tokens)?;
    api.admin
        .revoke_device_token(&caller.actor(), &tenant.id, credential_id(&id)?)
        .await?;
    Ok(Json(Done {}))
}

/// How the caller reached us, so that a device can be told the same way. Only ever said to that caller.
#[derive(Debug)]
pub(super) struct Front {
    scheme: &'static str,
    authority: String,
}

impl FromRequestParts<Api> for Front {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refused> {
        let text = |name| {
            parts
                .headers
                .get(name)
                .and_then(|value: &header::HeaderValue| value.to_str().ok())
        };
        let host = text(header::HOST).and_then(|host| host.parse::<uri::Authority>().ok());
        let behind_tls = text(header::HeaderName::from_static("x-forwarded-proto")) == Some("https");
        let tls = parts.extensions.get::<Peer>().is_some_and(|peer| peer.tls);
        Ok(Self {
            scheme: if tls || behind_tls { "wss" } else { "ws" },
            authority: host.map_or_else(|| "localhost".to_owned(), |host| host.to_string()),
        })
    }
}
