//! Figures of the moment, for people; `/metrics` is for machines.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::Answer;
use super::caller::Caller;
use super::extract::Params;
use super::page::TenantQuery;
use crate::auth::KeyOwner;
use crate::auth::secret::Scope;
use crate::hub::Tenant;

/// Of one tenant or of the node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsView {
    /// Null for the node as a whole.
    tenant: Option<String>,
    tenants: u64,
    /// Authenticated clients.
    clients: u64,
    /// Devices whose sockets are open.
    devices_connected: u64,
    /// Devices that are known.
    devices: u64,
    rooms: u64,
    /// Only of the node as a whole.
    node: Option<NodeStats>,
}

/// Of the node as a whole, since its start.
#[derive(Debug, Serialize, ToSchema)]
struct NodeStats {
    /// Of all kinds, this one too.
    connections: u64,
    publications: u64,
    deliveries: u64,
    device_frames: u64,
    /// Rows that reached the database.
    rows_written: u64,
    /// Rows that wait for it.
    rows_pending: u64,
}

impl StatsView {
    fn add(&mut self, tenant: &Tenant) {
        self.tenants += 1;
        self.clients += tenant.connections() as u64;
        self.devices += tenant.devices_len() as u64;
        self.rooms += tenant.rooms.len() as u64;
        tenant.for_each_device(|device| self.devices_connected += u64::from(device.lock().link.is_some()));
    }
}

impl Api {
    fn node_stats(&self) -> NodeStats {
        let metrics = &self.hub.metrics;
        let store = self.admin.store();
        NodeStats {
            connections: self.hub.door.total() as u64,
            publications: metrics.total(|m| &m.publications) + self.counters.publications.value(),
            deliveries: metrics.total(|m| &m.deliveries),
            device_frames: metrics.total(|m| &m.device_frames),
            rows_written: store.map_or(0, |store| store.counters().rows_written()),
            rows_pending: store.map_or(0, |store| store.queued().rows),
        }
    }
}

/// Figures of a tenant; with an operator's key and no tenant, of the node.
#[utoipa::path(get, path = "/v1/stats", tag = "operation", params(TenantQuery),
    responses((status = 200, body = StatsView)))]
pub(super) async fn get_stats(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
) -> Answer<StatsView> {
    let mut stats = StatsView {
        tenant: None,
        tenants: 0,
        clients: 0,
        devices_connected: 0,
        devices: 0,
        rooms: 0,
        node: None,
    };
    match caller.owner(&api, query.tenant.as_deref(), Scope::Stats)? {
        KeyOwner::Operator => {
            stats.node = Some(api.node_stats());
            api.hub.tenants.for_each(|tenant| stats.add(tenant));
        }
        KeyOwner::Tenant(id) => {
            stats.tenant = Some(id.to_string());
            if let Some(tenant) = api.hub.tenants.get(id.as_str()) {
                stats.add(&tenant);
            }
        }
    }
    Ok(Json(stats))
}
