//! Devices: as they last spoke, what people say about them, and commands.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use cauce_protocol::message::{check_method, check_params};
use cauce_protocol::{Code, DeviceId, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::extract::{Body, Named, Params};
use super::page::{ListQuery, Page, TenantQuery, first_after};
use super::publish::bad_name;
use crate::admin::Equipment;
use crate::auth::secret::Scope;
use crate::hub::{Caller as Waiting, DeviceEntry, OutgoingCall, SharedDevice, Tenant};

/// The longest that a call may wait: the answer must leave before the request's own time is over.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(25);

const _: () = assert!(CALL_TIME_MAX.as_secs() < super::gate::REQUEST_TIME.as_secs());

/// A device in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceView {
    id: String,
    /// The device's own name.
    src: String,
    /// `online`, `asleep` or `offline`.
    #[schema(value_type = String)]
    presence: crate::shelly::Presence,
    /// When its last frame came; null if none ever did.
    last_seen_unix_ms: Option<u64>,
    /// The name its owner gave it.
    name: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    assignment: Option<AssignmentView>,
    /// What was put there.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

/// The equipment that a device belongs to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssignmentView {
    equipment_id: String,
    label: Option<String>,
    assigned_unix_ms: u64,
}

/// A device with its state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceDetail {
    #[serde(flatten)]
    #[schema(inline)]
    device: DeviceView,
    /// The device as it stands, in the form of `device-update`; null if it never spoke.
    #[schema(value_type = Option<Object>)]
    state: Option<Box<RawValue>>,
}

/// What to remember about a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceBody {
    /// Replaces what was there; null or nothing removes it. At most 64 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

/// What a device belongs to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssignmentBody {
    #[schema(min_length = 1, max_length = 256)]
    equipment_id: String,
    #[schema(max_length = 256)]
    label: Option<String>,
}

/// A command.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CallBody {
    /// As the device names it: `Switch.Set`.
    #[schema(pattern = "^[0-9A-Za-z._-]{1,100}$")]
    method: String,
    #[schema(value_type = Option<Object>)]
    params: Option<Box<RawValue>>,
    /// How long to wait for the answer.
    #[schema(minimum = 1, maximum = 25000)]
    timeout_ms: Option<u64>,
}

/// What the device, or the server of the method, answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallResult {
    #[schema(value_type = Value)]
    pub(super) result: Box<RawValue>,
}

impl Api {
    fn device_view(&self, tenant: &Tenant, entry: &DeviceEntry) -> Result<DeviceView, Refusal> {
        let notes = self.admin.device_notes(&tenant.id, &entry.id);
        let side = entry.lock();
        let device = &side.device;
        let info = device.info();
        Ok(DeviceView {
            id: entry.id.to_string(),
            src: device.identity().src().to_owned(),
            presence: device.presence(),
            last_seen_unix_ms: Some(device.last_seen_ms()).filter(|&ms| ms > 0),
            name: info.name.clone(),
            model: info.model.clone(),
            firmware: info.firmware.clone(),
            assignment: notes.assignment.map(|assignment| AssignmentView {
                equipment_id: assignment.equipment_id,
                label: assignment.label,
                assigned_unix_ms: assignment.assigned_ms,
            }),
            metadata: notes.metadata.map(|metadata| raw(&metadata)).transpose()?,
        })
    }

    fn device_detail(&self, tenant: &Tenant, entry: &DeviceEntry) -> Result<DeviceDetail, Refusal> {
        let device = self.device_view(tenant, entry)?;
        let current = {
            let side = entry.lock();
            (side.device.last_seen_ms() > 0).then(|| side.device.current())
        };
        Ok(DeviceDetail {
            device,
            state: current.map(|current| raw(&current)).transpose()?,
        })
    }
}

/// JSON of ours or of a device, which was checked when it came.
pub(super) fn raw(json: &Bytes) -> Result<Box<RawValue>, Refusal> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(%error, "something that should be JSON is none");
        Refusal::new(Code::Internal, "something stored is unreadable; see the log")
    })
}

/// The same words for a device that is not there and for one of another tenant.
pub(super) fn find(tenant: &Tenant, id: &str) -> Result<SharedDevice, Refusal> {
    let found = tenant.device(id);
    found.ok_or_else(|| Refusal::new(Code::NotFound, "the tenant has no device of this id"))
}

fn device_id(id: &str) -> Result<DeviceId, Refusal> {
    DeviceId::new(id).map_err(|e| bad_name("device", e))
}

/// Devices by id.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", params(ListQuery),
    responses((status = 200, body = Page<DeviceView>)))]
pub(super) async fn list_devices(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Answer<Page<DeviceView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let (limit, after) = (query.limit()?, query.after()?.unwrap_or_default());
    let mut ids = Vec::new();
    tenant.for_each_device(|device| {
        if device.id.as_str() > after.as_str() {
            ids.push(device.id.clone());
        }
    });
    let views: Result<Vec<_>, Refusal> = first_after(ids, limit)
        .iter()
        .filter_map(|id| tenant.device(id.as_str()))
        .map(|device| api.device_view(&tenant, &device))
        .collect();
    Ok(Json(Page::cut(views?, limit, |device| &device.id)))
}

/// One device with its state.
#[utoipa::path(get, path = "/v1/devices/{id}", tag = "devices", params(TenantQuery, ("id" = String, Path)),
    responses((status = 200, body = DeviceDetail)))]
pub(super) async fn get_device(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<DeviceDetail> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    Ok(Json(api.device_detail(&tenant, &*find(&tenant, &id)?)?))
}

/// Remember something about a device. One that has never spoken is announced by this.
#[utoipa::path(put, path = "/v1/devices/{id}", tag = "devices", params(TenantQuery, ("id" = String, Path)),
    request_body = DeviceBody, responses((status = 200, body = DeviceDetail)))]
pub(super) async fn put_device(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
    Body(body): Body<DeviceBody>,
) -> Answer<DeviceDetail> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let metadata = body
        .metadata
        .map(|json| Bytes::from(String::from(Box::<str>::from(json))));
    let set = api
        .admin
        .set_device_metadata(&caller.actor(), &tenant.id, &device_id(&id)?, metadata)
        .await?;
    Ok(Json(api.device_detail(&tenant, &set)?))
}

/// Assign a device to equipment; its rooms are told. One that has never spoken is announced by this.
#[utoipa::path(put, path = "/v1/devices/{id}/assignment", tag = "devices",
    params(TenantQuery, ("id" = String, Path)), request_body = AssignmentBody,
    responses((status = 200, body = DeviceDetail)))]
pub(super) async fn assign_device(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
    Body(body): Body<AssignmentBody>,
) -> Answer<DeviceDetail> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let equipment = Equipment {
        equipment_id: body.equipment_id,
        label: body.label,
    };
    let assigned = api
        .admin
        .assign_device(&caller.actor(), &tenant.id, &device_id(&id)?, Some(equipment))
        .await?;
    Ok(Json(api.device_detail(&tenant, &assigned)?))
}

/// Take a device from its equipment; its rooms are told.
#[utoipa::path(delete, path = "/v1/devices/{id}/assignment", tag = "devices",
    params(TenantQuery, ("id" = String, Path)), responses((status = 200, body = DeviceDetail)))]
pub(super) async fn unassign_device(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<DeviceDetail> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let device = find(&tenant, &id)?;
    let assigned = api
        .admin
        .assign_device(&caller.actor(), &tenant.id, &device.id, None)
        .await?;
    Ok(Json(api.device_detail(&tenant, &assigned)?))
}

/// Call a method of a device and wait for its answer.
#[utoipa::path(post, path = "/v1/devices/{id}/call", tag = "devices", params(TenantQuery, ("id" = String, Path)),
    request_body = CallBody, responses((status = 200, body = CallResult)))]
pub(super) async fn call_device(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
    Body(body): Body<CallBody>,
) -> Answer<CallResult> {
    let tenant: Arc<Tenant> = caller.tenant(&api, query.tenant.as_deref(), Scope::Commands)?;
    let call = api.outgoing(body)?;
    find(&tenant, &id)?;
    api.hub.audit_call(&tenant, caller.actor().as_str(), &id, &call);
    let (answer, answered) = oneshot::channel();
    api.hub.call(&tenant, &id, &call, Waiting::Waiter(answer));
    let stopping = |_| Err(Refusal::new(Code::GoingAway, "the broker is stopping"));
    let result = answered.await.unwrap_or_else(stopping)?;
    Ok(Json(CallResult {
        result: raw(&result)?,
    }))
}

impl Api {
    fn outgoing(&self, body: CallBody) -> Result<OutgoingCall, Refused> {
        let tunables = self.hub.tunables();
        let timeout_ms = self.call_time(body.timeout_ms)?;
        let params = body
            .params
            .map(|json| Bytes::from(String::from(Box::<str>::from(json))));
        let call = OutgoingCall {
            method: body.method,
            params: params.unwrap_or_default(),
            timeout_ms,
        };
        check_method(&call.method)?;
        check_params(&call.params, tunables.payload_bytes_max)?;
        Ok(call)
    }
}
