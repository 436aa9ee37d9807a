//! Floor 4: the door for the API. Each handler parses, authorises, calls, answers; nothing is decided here that the hub or
//! administration could decide.
//!
//! What must stay true:
//! - A route exists by its documentation: the router is built from what the OpenAPI document describes.
//! - Everything under `/v1/` wants an API key. What a key may not see answers exactly like what is not there.
//! - There is one form of refusal and one function that makes it.
//! - Bodies, times, rates and connections are bounded; a request once begun is carried through, whoever hangs up.
//!
//! Reading order: `serve` (sockets), `gate` (who may come in), `extract` (bytes to types), then one file a family.

mod answer;
mod caller;
mod calls;
mod connection_logs;
mod credentials;
mod devices;
mod exposition;
mod extract;
mod gate;
mod health;
mod history;
mod metrics;
mod notifications;
mod openapi;
mod page;
mod past;
mod presence;
mod process;
mod publish;
mod revocations;
mod rooms;
mod serve;
mod stats;
mod tenants;
mod tokens;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use cauce_protocol::Code;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::hub::Hub;
use answer::Refused;

pub use openapi::document;
pub use serve::serve;

/// What handlers need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    hub: Arc<Hub>,
    admin: Arc<Admin>,
    counters: Arc<metrics::HttpCounters>,
    gate: Arc<gate::Gate>,
    /// Whether what is internal has a listener of its own.
    split: bool,
}

impl Api {
    /// `split` says that there is a second listener for what is internal.
    pub fn new(hub: Arc<Hub>, admin: Arc<Admin>, split: bool) -> Self {
        Self {
            hub,
            admin,
            counters: Arc::default(),
            gate: Arc::default(),
            split,
        }
    }

    /// Administration.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }
}

/// Which of the two listeners a router is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Open to whoever can reach the broker.
    Main,
    /// For the operator's network alone, or the only one.
    Internal,
}

/// What tenants and their servers use.
fn main_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(openapi::pointer))
        .routes(routes!(openapi::openapi_json))
        .routes(routes!(publish::publish))
        .routes(routes!(publish::publish_batch))
        .routes(routes!(publish::send))
        .routes(routes!(publish::broadcast))
        .routes(routes!(notifications::leave_notification))
        .routes(routes!(notifications::list_notifications))
        .routes(routes!(notifications::mark_notifications))
        .routes(routes!(rooms::list_rooms))
        .routes(routes!(rooms::get_room))
        .routes(routes!(users::list_users))
        .routes(routes!(users::get_user))
        .routes(routes!(users::list_user_rooms))
        .routes(routes!(users::disconnect_user))
        .routes(routes!(users::list_clients))
        .routes(routes!(users::get_client, users::disconnect_client))
        .routes(routes!(connection_logs::list_connection_logs))
        .routes(routes!(past::get_history))
        .routes(routes!(presence::get_presence))
        .routes(routes!(devices::list_devices))
        .routes(routes!(devices::get_device, devices::put_device))
        .routes(routes!(devices::assign_device, devices::unassign_device))
        .routes(routes!(devices::call_device))
        .routes(routes!(calls::call_method))
        .routes(routes!(history::list_readings))
        .routes(routes!(history::list_device_events))
        .routes(routes!(
            credentials::list_device_tokens,
            credentials::create_device_token
        ))
        .routes(routes!(credentials::revoke_device_token))
        .routes(routes!(tokens::create_token))
        .routes(routes!(
            revocations::list_revocations,
            revocations::create_revocation
        ))
        .routes(routes!(revocations::delete_revocation))
}

/// What the operator uses.
fn internal_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(tenants::list_tenants, tenants::create_tenant))
        .routes(routes!(tenants::get_tenant, tenants::update_tenant))
        .routes(routes!(tenants::list_signing_keys, tenants::add_signing_key))
        .routes(routes!(tenants::revoke_signing_key))
        .routes(routes!(credentials::list_api_keys, credentials::create_api_key))
        .routes(routes!(credentials::revoke_api_key))
        .routes(routes!(history::list_audit))
        .routes(routes!(stats::get_stats))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
}

fn router(api: &Api, side: Side) -> Router {
    let routes = match side {
        Side::Main if api.split => main_routes(),
        Side::Main | Side::Internal => main_routes().merge(internal_routes()),
    };
    let (router, _) = routes.split_for_parts();
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(api.clone(), gate::pass))
        .with_state(api.clone())
}

async fn nothing_here() -> Refused {
    Refused::new(Code::NotFound, "there is nothing here; see /openapi.json")
}

async fn wrong_method() -> Refused {
    let message = "this path has no such method; see /openapi.json";
    Refused::new(Code::Unsupported, message).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
