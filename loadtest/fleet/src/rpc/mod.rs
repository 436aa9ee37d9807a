//! What a device answers when it is called. Pure like the device: a call changes it and returns the answer;
//! what the change makes the device say goes to `out`.

mod request;

pub use request::{Door, Request, RpcError};

use crate::device::{Device, Output, REBOOT_DELAY, REBOOT_DELAY_MAX, overlay};
use crate::frame::FrameKind;
use crate::meter::Flow;
use crate::outlet::OutletKind;
use crate::time::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Components listed by one answer of `Shelly.GetComponents`.
const COMPONENTS_PER_PAGE: usize = 5;
/// Most bytes of configuration that peers may set on one device.
const CONFIG_CHANGES_BYTES_MAX: usize = 16 * 1024;
/// Longest `toggle_after`, in seconds.
const TOGGLE_AFTER_SECONDS_MAX: f64 = 86_400.0 * 366.0;
/// Longest part of a caller's text that is repeated in an error.
const ECHO_CHARS_MAX: usize = 64;

impl Device {
    /// Handles a frame from the server the device dialled: answers it, and says what changed. Which of the two
    /// comes first is left to chance, as peers may rely on neither.
    pub fn handle_frame(&mut self, now: Timestamp, text: &str, out: &mut Vec<Output>) {
        let Some(request) = Request::parse(text) else {
            return;
        };
        let first = out.len();
        let answer = self.call(
            now,
            &request.method,
            &request.params,
            Door::OutboundWebSocket,
            out,
        );
        let reply = Output::Reply(request.reply(self.id().as_str(), answer));
        let place = if self.replies_first() { first } else { out.len() };
        out.insert(place, reply);
    }

    /// Whether the answer to a call goes out before what the call caused.
    pub(crate) fn replies_first(&mut self) -> bool {
        self.rng.one_in(2)
    }

    /// Carries out a call.
    ///
    /// # Errors
    /// The firmware's own: see [`RpcError`].
    pub fn call(
        &mut self,
        now: Timestamp,
        method: &str,
        params: &Map<String, Value>,
        door: Door,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        if let Some(left) = self.shutting_down_in(now) {
            return Err(RpcError::ShuttingDown(left));
        }
        match method.to_ascii_lowercase().as_str() {
            "shelly.getdeviceinfo" => Ok(self.device_info().into()),
            "shelly.getstatus" => Ok(self.full_status(now).into()),
            "shelly.getconfig" => Ok(self.config().into()),
            "shelly.getcomponents" => self.components(now, params),
            "shelly.listmethods" => Ok(json!({"methods": self.methods()})),
            "shelly.checkforupdate" => Ok(self.available_updates()),
            "shelly.reboot" => self.reboot(now, params),
            "switch.set" => self.switch_set(now, params, door, out),
            "switch.toggle" => self.switch_toggle(now, params, door, out),
            "switch.resetcounters" | "pm1.resetcounters" => {
                self.reset_counters_call(now, method, params, out)
            }
            "script.list" => Ok(self.scripts()),
            lower => self.component_call(now, method, lower, params, out),
        }
    }

    /// `<Type>.GetStatus`, `.GetConfig` and `.SetConfig` of any component the device has.
    fn component_call(
        &mut self,
        now: Timestamp,
        method: &str,
        lower: &str,
        params: &Map<String, Value>,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        let no_handler = || RpcError::NoHandler(method.chars().take(ECHO_CHARS_MAX).collect());
        let (type_name, verb) = lower.split_once('.').ok_or_else(no_handler)?;
        if !matches!(verb, "getstatus" | "getconfig" | "setconfig") {
            return Err(no_handler());
        }
        let (status, config) = (&self.model.status, &self.model.config);
        let is_single = status.contains_key(type_name) || config.contains_key(type_name);
        let key = if is_single {
            type_name.to_owned()
        } else {
            let has_type = |key: &String| key.split_once(':').is_some_and(|(name, _)| name == type_name);
            if !status.keys().chain(config.keys()).any(has_type) {
                return Err(no_handler());
            }
            let number = component_number(params)?;
            let key = format!("{type_name}:{number}");
            if !status.contains_key(&key) && !config.contains_key(&key) {
                return Err(RpcError::NoSuchComponent(number));
            }
            key
        };
        match verb {
            "getstatus" => Ok(self.full_status(now).remove(&key).unwrap_or_else(|| json!({}))),
            "getconfig" => Ok(self.config().remove(&key).unwrap_or_else(|| json!({}))),
            _ => self.set_config(now, &key, params, out),
        }
    }

    fn set_config(
        &mut self,
        now: Timestamp,
        key: &str,
        params: &Map<String, Value>,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        let changes = params.get("config").ok_or(RpcError::MissingArgument("config"))?;
        if !changes.is_object() {
            return Err(RpcError::BadArgument("config"));
        }
        let mut all = self.config_changes.clone();
        overlay(all.entry(key).or_insert_with(|| json!({})), changes.clone());
        if Value::Object(all.clone()).to_string().len() > CONFIG_CHANGES_BYTES_MAX {
            return Err(RpcError::ResourceExhausted);
        }
        self.config_changes = all;
        self.cfg_rev += 1;
        let restart_required = matches!(key, "ws" | "mqtt" | "ble");
        self.restart_required |= restart_required;
        let event = json!({
            "component": key, "event": "config_changed", "restart_required": restart_required, "cfg_rev": self.cfg_rev,
        });
        if let Value::Object(event) = event {
            self.notify_event(now, event, out);
        }
        let mut sys = Map::from_iter([("cfg_rev".to_owned(), self.cfg_rev.into())]);
        if restart_required {
            sys.insert("restart_required".into(), true.into());
        }
        let sys = Map::from_iter([("sys".to_owned(), Value::Object(sys))]);
        self.notify(now, FrameKind::Status, sys, out);
        Ok(json!({"restart_required": restart_required}))
    }

    fn switch_set(
        &mut self,
        now: Timestamp,
        params: &Map<String, Value>,
        door: Door,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        let place = self.switch_place("Switch.Set", params)?;
        let on = match params.get("on") {
            Some(Value::Bool(on)) => *on,
            Some(_) => return Err(RpcError::BadArgument("on")),
            None => return Err(RpcError::MissingArgument("on")),
        };
        let toggle_after = match params.get("toggle_after") {
            None | Some(Value::Null) => None,
            Some(seconds) => {
                let seconds = seconds
                    .as_f64()
                    .filter(|seconds| (0.0..=TOGGLE_AFTER_SECONDS_MAX).contains(seconds));
                Some(Duration::from_secs_f64(
                    seconds.ok_or(RpcError::BadArgument("toggle_after"))?,
                ))
            }
        };
        let was_on = self.switch_outlet(
            now,
            place,
            on,
            door.source(),
            toggle_after.filter(|after| !after.is_zero()),
            out,
        );
        Ok(json!({"was_on": was_on}))
    }

    fn switch_toggle(
        &mut self,
        now: Timestamp,
        params: &Map<String, Value>,
        door: Door,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        let place = self.switch_place("Switch.Toggle", params)?;
        let on = !self.outlets[place].is_on();
        let was_on = self.switch_outlet(now, place, on, door.source(), None, out);
        Ok(json!({"was_on": was_on}))
    }

    fn reset_counters_call(
        &mut self,
        now: Timestamp,
        method: &str,
        params: &Map<String, Value>,
        out: &mut Vec<Output>,
    ) -> Result<Value, RpcError> {
        let kind = if method.to_ascii_lowercase().starts_with("switch") {
            OutletKind::Switch
        } else {
            OutletKind::MeterOnly
        };
        let place = self.outlet_place(kind, method, params)?;
        let flows = match params.get("type") {
            None | Some(Value::Null) => vec![Flow::All, Flow::Returned],
            Some(Value::Array(names)) => names.iter().map(flow_of).collect::<Result<_, _>>()?,
            Some(_) => return Err(RpcError::BadArgument("type")),
        };
        Ok(self.reset_counters(now, place, &flows, out).into())
    }

    fn reboot(&mut self, now: Timestamp, params: &Map<String, Value>) -> Result<Value, RpcError> {
        let delay = match params.get("delay_ms") {
            None | Some(Value::Null) => REBOOT_DELAY,
            Some(millis) => {
                let millis = millis.as_u64().ok_or(RpcError::BadArgument("delay_ms"))?;
                Duration::from_millis(millis).min(REBOOT_DELAY_MAX)
            }
        };
        self.reboot_after(now, delay);
        Ok(Value::Null)
    }

    fn switch_place(&self, method: &str, params: &Map<String, Value>) -> Result<usize, RpcError> {
        self.outlet_place(OutletKind::Switch, method, params)
    }

    /// Where the outlet meant by `params.id` lies. A device without any outlet of this kind has no such method.
    fn outlet_place(
        &self,
        kind: OutletKind,
        method: &str,
        params: &Map<String, Value>,
    ) -> Result<usize, RpcError> {
        if !self.outlets.iter().any(|outlet| outlet.kind() == kind) {
            return Err(RpcError::NoHandler(method.to_owned()));
        }
        let number = component_number(params)?;
        let place = self
            .outlets
            .iter()
            .position(|outlet| outlet.kind() == kind && outlet.number() == number);
        place.ok_or(RpcError::NoSuchComponent(number))
    }

    fn components(&mut self, now: Timestamp, params: &Map<String, Value>) -> Result<Value, RpcError> {
        let offset = match params.get("offset") {
            None | Some(Value::Null) => 0,
            Some(offset) => {
                let offset = offset.as_u64().and_then(|offset| usize::try_from(offset).ok());
                offset.ok_or(RpcError::BadArgument("offset"))?
            }
        };
        let flag = |name: &str| params.get(name).and_then(Value::as_bool).unwrap_or(false);
        let includes = |name: &str| {
            params
                .get("include")
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|item| item == name))
        };
        let mut dynamic = Value::Array(self.model.dynamic.clone());
        self.identity.rewrite(&mut dynamic);
        let mut components = Vec::new();
        if !flag("dynamic_only") {
            let config = self.config();
            for (key, status) in self.full_status(now) {
                let config = config.get(&key).cloned().unwrap_or_else(|| json!({}));
                components.push(json!({"key": key, "status": status, "config": config}));
            }
        }
        if let Value::Array(dynamic) = dynamic {
            components.extend(dynamic);
        }
        let total = components.len();
        let mut page: Vec<Value> = components
            .into_iter()
            .skip(offset)
            .take(COMPONENTS_PER_PAGE)
            .collect();
        for component in &mut page {
            if let Value::Object(component) = component {
                let asked =
                    |part: &str| includes(part) || flag("dynamic_only") && !params.contains_key("include");
                component.retain(|key, _| !matches!(key.as_str(), "status" | "config") || asked(key));
            }
        }
        Ok(json!({"components": page, "cfg_rev": self.cfg_rev, "offset": offset, "total": total}))
    }

    fn methods(&self) -> Vec<String> {
        let mut methods: Vec<String> = [
            "Shelly.GetDeviceInfo",
            "Shelly.GetStatus",
            "Shelly.GetConfig",
            "Shelly.GetComponents",
            "Shelly.ListMethods",
            "Shelly.CheckForUpdate",
            "Shelly.Reboot",
            "Script.List",
        ]
        .map(str::to_owned)
        .into();
        if self
            .outlets
            .iter()
            .any(|outlet| outlet.kind() == OutletKind::Switch)
        {
            methods.extend(["Switch.Set", "Switch.Toggle", "Switch.ResetCounters"].map(str::to_owned));
        }
        let config = &self.model.config;
        let mut types: Vec<&str> = config.keys().filter_map(|key| key.split(':').next()).collect();
        types.sort_unstable();
        types.dedup();
        for name in types {
            let name = method_prefix(name);
            methods.extend(["GetStatus", "GetConfig", "SetConfig"].map(|verb| format!("{name}.{verb}")));
        }
        methods
    }

    fn available_updates(&self) -> Value {
        let updates = self
            .model
            .status
            .get("sys")
            .and_then(|sys| sys.get("available_updates"));
        updates
            .filter(|updates| updates.is_object())
            .cloned()
            .unwrap_or_else(|| json!({}))
    }

    fn scripts(&self) -> Value {
        let config = self.model.config.iter();
        let scripts = config
            .filter(|(key, _)| key.starts_with("script:"))
            .map(|(key, config)| {
                let running = self
                    .model
                    .status
                    .get(key)
                    .and_then(|status| status.get("running"));
                json!({
                    "id": config.get("id"), "name": config.get("name"), "enable": config.get("enable"),
                    "running": running.and_then(Value::as_bool).unwrap_or(false),
                })
            });
        json!({"scripts": scripts.collect::<Vec<_>>()})
    }
}

/// `Switch` from `switch`, `PM1` from `pm1`, as methods are spelled in documentation.
fn method_prefix(type_name: &str) -> String {
    if matches!(type_name, "ble" | "em" | "em1" | "knx" | "pm1" | "rgb" | "rgbw") {
        return type_name.to_ascii_uppercase();
    }
    let mut letters = type_name.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + letters.as_str()
    })
}

fn component_number(params: &Map<String, Value>) -> Result<u64, RpcError> {
    match params.get("id") {
        Some(id) => id.as_u64().ok_or(RpcError::BadArgument("id")),
        None => Err(RpcError::MissingArgument("id")),
    }
}

fn flow_of(name: &Value) -> Result<Flow, RpcError> {
    match name.as_str() {
        Some("aenergy") => Ok(Flow::All),
        Some("ret_aenergy") => Ok(Flow::Returned),
        _ => Err(RpcError::BadArgument("type")),
    }
}
