//! Tenants and the keys that their tokens are signed with: the operator's business.

use axum::Json;
use axum::extract::State;
use cauce_protocol::{Refusal, TenantId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Done, Refused};
use super::caller::Caller;
use super::extract::{Body, Named, Object, Params};
use super::page::{Page, after, limit};
use super::publish::bad_name;
use crate::admin::{
    ClassSpec, NewSigningKey, NewTenant, SigningKeyInfo, TenantInfo, TenantUpdate, read_classes,
};
use crate::auth::RoleGrants;
use crate::auth::secret::Scope;
use crate::config::Algorithm;
use crate::store::TenantStatus;

/// A customer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantView {
    id: String,
    name: String,
    disabled: bool,
    /// What its roles may do, under what a token grants: role names and their rules.
    #[schema(value_type = Object)]
    role_grants: serde_json::Value,
    /// What holds in its rooms, by pattern of their names; the first that matches a room holds there.
    #[schema(value_type = Vec<ClassBody>)]
    room_classes: Vec<ClassSpec>,
    created_unix_ms: u64,
    updated_unix_ms: u64,
}

impl TryFrom<TenantInfo> for TenantView {
    type Error = Refusal;

    fn try_from(info: TenantInfo) -> Result<Self, Refusal> {
        let role_grants = serde_json::to_value(&*info.role_grants).map_err(|error| {
            tracing::error!(%error, "role grants cannot be shown");
            Refusal::new(
                cauce_protocol::Code::Internal,
                "role grants cannot be shown; see the log",
            )
        })?;
        Ok(Self {
            id: info.id.to_string(),
            name: info.name,
            disabled: info.status == TenantStatus::Disabled,
            role_grants,
            room_classes: info.room_classes.to_vec(),
            created_unix_ms: info.created_unix_ms,
            updated_unix_ms: info.updated_unix_ms,
        })
    }
}

/// A customer to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenantBody {
    #[schema(min_length = 1, max_length = 200)]
    id: String,
    /// For people; the id unless given.
    #[schema(max_length = 256)]
    name: Option<String>,
    #[serde(default)]
    #[schema(value_type = SettingsBody)]
    settings: Object<SettingsBody>,
    /// What holds in its rooms, by pattern of their names; the first that matches a room holds there.
    #[serde(default)]
    #[schema(value_type = Vec<ClassBody>, max_items = 64)]
    room_classes: Vec<serde_json::Value>,
}

/// What may be set of a tenant.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SettingsBody {
    #[serde(default)]
    #[schema(value_type = Object)]
    role_grants: RoleGrants,
}

/// What to change; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantUpdateBody {
    #[schema(max_length = 256)]
    name: Option<String>,
    /// Switching off closes every connection of the tenant.
    disabled: Option<bool>,
    #[schema(value_type = Option<Object>)]
    role_grants: Option<RoleGrants>,
    /// All of them anew; 64 KiB at most.
    #[schema(value_type = Option<Vec<ClassBody>>, max_items = 64)]
    room_classes: Option<Vec<serde_json::Value>>,
}

/// What holds in rooms of one pattern. What is not said is as the node's default.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ClassSpec` in the document")]
struct ClassBody {
    /// Pattern of room names; a `*` stands for anything.
    #[schema(min_length = 1, max_length = 200)]
    rooms: String,
    /// How much is kept: `{"messages": 1000, "age": "24h", "bytes": "1MiB"}`.
    #[schema(value_type = Option<Object>)]
    history: Option<()>,
    /// Whether who is there can be asked and watched: true, false or `{"grace_ms": 5000}`.
    #[schema(value_type = Option<serde_json::Value>)]
    presence: Option<()>,
    /// Keep history in the database.
    durable: Option<bool>,
    /// For subscribers that name none: `reliable`, `latest`, `drop_oldest` or `{"sample_ms": 500}`.
    #[schema(value_type = Option<serde_json::Value>)]
    delivery: Option<()>,
    /// How fast a room may be written to: `{"per_second": 50, "burst": 100}`.
    #[schema(value_type = Option<Object>)]
    rate: Option<()>,
    /// Rights by role, `*` for everyone in the tenant, where a token says nothing.
    #[schema(value_type = Option<Object>)]
    allow: Option<()>,
    /// JSON schemas by event; 16 KiB each, 64 in all classes of a tenant.
    #[schema(value_type = Option<Object>)]
    schemas: Option<()>,
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TenantsQuery {
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A signing key: nothing of the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SigningKeyView {
    /// As in the header of tokens.
    kid: String,
    alg: String,
    created_unix_ms: u64,
}

/// A key that was just added.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewSigningKeyView {
    kid: String,
    alg: String,
    created_unix_ms: u64,
    /// The secret, if the broker made it; shown this once.
    secret: Option<String>,
}

/// A key to be added: a shared secret for HS256, HS384 and HS512, made if not given; a public key for all others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SigningKeyBody {
    /// Chosen by the broker unless given.
    #[schema(min_length = 1, max_length = 200)]
    kid: Option<String>,
    #[schema(value_type = AlgorithmName)]
    alg: String,
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, min_length = 32)]
    secret: Option<SecretString>,
    /// In PEM.
    public_key: Option<String>,
}

/// What a key signs with (RFC 7518 §3.1, RFC 8037).
#[derive(ToSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(dead_code, reason = "describes `Algorithm` in the document")]
enum AlgorithmName {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

impl From<SigningKeyInfo> for SigningKeyView {
    fn from(info: SigningKeyInfo) -> Self {
        Self {
            kid: info.kid,
            alg: info.algorithm.name().to_owned(),
            created_unix_ms: info.created_unix_ms,
        }
    }
}

fn tenant_id(id: &str) -> Result<TenantId, Refused> {
    Ok(TenantId::new(id).map_err(|e| bad_name("tenant", e))?)
}

/// Tenants by id.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(TenantsQuery),
    responses((status = 200, body = Page<TenantView>)))]
pub(super) async fn list_tenants(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantsQuery>,
) -> Answer<Page<TenantView>> {
    caller.operator(Scope::Tenants)?;
    let (limit, after) = (limit(query.limit)?, after(query.cursor.as_deref())?);
    let after = after.as_deref().map(tenant_id).transpose()?;
    let tenants = api.admin.tenants(after.as_ref(), limit + 1).into_iter();
    let views: Result<Vec<_>, Refusal> = tenants.map(TenantView::try_from).collect();
    Ok(Json(Page::cut(views?, limit, |tenant| &tenant.id)))
}

/// Make a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenantBody,
    responses((status = 200, body = TenantView)))]
pub(super) async fn create_tenant(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<NewTenantBody>,
) -> Answer<TenantView> {
    caller.operator(Scope::Tenants)?;
    let new = NewTenant {
        id: tenant_id(&body.id)?,
        name: body.name,
        role_grants: body.settings.0.role_grants,
        room_classes: read_classes(body.room_classes)?,
    };
    let tenant = api.admin.create_tenant(&caller.actor(), new).await?;
    Ok(Json(tenant.try_into()?))
}

/// One tenant.
#[utoipa::path(get, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    responses((status = 200, body = TenantView)))]
pub(super) async fn get_tenant(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
) -> Answer<TenantView> {
    caller.operator(Scope::Tenants)?;
    Ok(Json(api.admin.tenant(&tenant_id(&id)?)?.try_into()?))
}

/// Rename, switch off or on, give rights to roles and classes to rooms.
#[utoipa::path(patch, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    request_body = TenantUpdateBody, responses((status = 200, body = TenantView)))]
pub(super) async fn update_tenant(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Body(body): Body<TenantUpdateBody>,
) -> Answer<TenantView> {
    caller.operator(Scope::Tenants)?;
    let update = TenantUpdate {
        name: body.name,
        status: body.disabled.map(|disabled| match disabled {
            true => TenantStatus::Disabled,
            false => TenantStatus::Enabled,
        }),
        role_grants: body.role_grants,
        room_classes: body.room_classes.map(read_classes).transpose()?,
    };
    let updated = api
        .admin
        .update_tenant(&caller.actor(), &tenant_id(&id)?, update)
        .await?;
    Ok(Json(updated.try_into()?))
}

/// The keys that a tenant's tokens are signed with.
#[utoipa::path(get, path = "/v1/tenants/{id}/keys", tag = "tenants", params(("id" = String, Path)),
    responses((status = 200, body = Page<SigningKeyView>)))]
pub(super) async fn list_signing_keys(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
) -> Answer<Page<SigningKeyView>> {
    caller.operator(Scope::Keys)?;
    let keys = api.admin.signing_keys(&tenant_id(&id)?)?;
    Ok(Json(Page::whole(
        keys.into_iter().map(SigningKeyView::from).collect(),
    )))
}

/// Add a key. Its secret is shown here, this once, if the broker makes it.
#[utoipa::path(post, path = "/v1/tenants/{id}/keys", tag = "tenants", params(("id" = String, Path)),
    request_body = SigningKeyBody, responses((status = 200, body = NewSigningKeyView)))]
pub(super) async fn add_signing_key(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Body(body): Body<SigningKeyBody>,
) -> Answer<NewSigningKeyView> {
    caller.operator(Scope::Keys)?;
    let invalid = |message: String| Refused::new(cauce_protocol::Code::Invalid, message);
    let algorithm: Algorithm = body.alg.parse().map_err(|e| invalid(format!("alg: {e}")))?;
    let material = match (body.secret, body.public_key) {
        (Some(_), Some(_)) => {
            return Err(invalid("give a secret or a public key, not both".to_owned()));
        }
        (secret, public) => secret.or(public.map(SecretString::from)),
    };
    let new = NewSigningKey {
        kid: body.kid,
        algorithm,
        material,
    };
    let added = api
        .admin
        .add_signing_key(&caller.actor(), &tenant_id(&id)?, new)
        .await?;
    let (info, secret) = added;
    Ok(Json(NewSigningKeyView {
        kid: info.kid,
        alg: info.algorithm.name().to_owned(),
        created_unix_ms: info.created_unix_ms,
        secret: secret.map(|secret| secret.expose_secret().to_owned()),
    }))
}

/// Revoke a key: tokens signed with it open no connection from now on.
#[utoipa::path(delete, path = "/v1/tenants/{id}/keys/{kid}", tag = "tenants",
    params(("id" = String, Path), ("kid" = String, Path)), responses((status = 200, body = Done)))]
pub(super) async fn revoke_signing_key(
    State(api): State<Api>,
    caller: Caller,
    Named((id, kid)): Named<(String, String)>,
) -> Answer<Done> {
    caller.operator(Scope::Keys)?;
    api.admin
        .revoke_signing_key(&caller.actor(), &tenant_id(&id)?, &kid)
        .await?;
    Ok(Json(Done {}))
}
