//! Whether the broker lives, serves, and has troubles.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::store::{Health, StoreHandle};

/// A queue beyond this part of its room is a trouble, in per cent.
const QUEUE_TROUBLE_PERCENT: usize = 80;

/// How a broker feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// It serves, with troubles.
    Degraded,
    /// It sends its peers away and takes nobody new.
    Draining,
    /// It does not serve.
    Unavailable,
}

/// The answer to all three questions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthView {
    status: Status,
    version: &'static str,
    uptime_seconds: u64,
    troubles: Vec<Trouble>,
}

/// One trouble.
#[derive(Debug, Serialize, ToSchema)]
struct Trouble {
    /// Stable.
    code: &'static str,
    /// For people.
    message: String,
    #[serde(skip)]
    is_fatal: bool,
}

impl Api {
    fn health(&self) -> HealthView {
        let mut troubles = Vec::new();
        if self.hub.leaving.has_begun() {
            troubles.push(Trouble {
                code: "draining",
                message: "the broker is stopping and takes nobody new".to_owned(),
                is_fatal: false,
            });
        }
        match self.admin.store().map(StoreHandle::health) {
            Some(Health::Degraded { reason, .. }) => troubles.push(Trouble {
                code: reason.code(),
                message: reason.to_string(),
                is_fatal: false,
            }),
            Some(Health::Closed) => troubles.push(Trouble {
                code: "store_closed",
                message: "the store has ended".to_owned(),
                is_fatal: true,
            }),
            Some(Health::Ready) | None => {}
        }
        for shard in (0..self.hub.plan.total()).filter(|&shard| !self.hub.is_alive(shard)) {
            troubles.push(Trouble {
                code: "shard_ended",
                message: format!("the thread of shard {shard} has ended; start the broker again"),
                is_fatal: true,
            });
        }
        for (shard, mailbox) in self.hub.shards.iter().enumerate() {
            if mailbox.used().saturating_mul(100) > mailbox.capacity().saturating_mul(QUEUE_TROUBLE_PERCENT) {
                troubles.push(Trouble {
                    code: "queue_full",
                    message: format!(
                        "the queue of shard {shard} is nearly full; publishers are about to be refused"
                    ),
                    is_fatal: false,
                });
            }
        }
        let status = match troubles.iter().any(|trouble| trouble.is_fatal) {
            true => Status::Unavailable,
            false if self.hub.leaving.has_begun() => Status::Draining,
            false if troubles.is_empty() => Status::Ok,
            false => Status::Degraded,
        };
        HealthView {
            status,
            version: env!("CARGO_PKG_VERSION"),
            // The monotonic clock starts at a second.
            uptime_seconds: Duration::from_millis(self.hub.clock.now().mono_ms)
                .as_secs()
                .saturating_sub(1),
            troubles,
        }
    }
}

impl IntoResponse for HealthView {
    fn into_response(self) -> Response {
        let status = match self.status {
            Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Status::Ok | Status::Degraded | Status::Draining => StatusCode::OK,
        };
        (status, Json(self)).into_response()
    }
}

/// Everything that there is to say about health.
#[utoipa::path(get, path = "/health", tag = "operation", responses(
    (status = 200, body = HealthView, description = "It serves, perhaps with troubles"),
    (status = 503, body = HealthView, description = "It does not serve")))]
pub(super) async fn health(State(api): State<Api>) -> HealthView {
    api.health()
}

/// Whether the process is worth keeping: if it does not answer, or not with 200, start it again.
#[utoipa::path(get, path = "/health/live", tag = "operation", responses(
    (status = 200, body = HealthView, description = "It lives"),
    (status = 503, body = HealthView, description = "Start it again")))]
pub(super) async fn live(State(api): State<Api>) -> HealthView {
    // Whatever ends a thread of ours ends only with the process; troubles that pass are degraded, not unavailable.
    api.health()
}

/// Whether to send it traffic.
#[utoipa::path(get, path = "/health/ready", tag = "operation", responses(
    (status = 200, body = HealthView, description = "It serves"),
    (status = 503, body = HealthView, description = "It does not serve, or takes nobody new")))]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let health = api.health();
    match health.status {
        Status::Draining => (StatusCode::SERVICE_UNAVAILABLE, Json(health)).into_response(),
        _ => health.into_response(),
    }
}
