//! What follows from a device's word: messages to rooms, rows for the store, answers to callers, frames back.
//!
//! Called with the device's lock held, so that the messages of one device keep their order whoever handles them. Nothing here
//! waits.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cauce_protocol::Payload;
use cauce_protocol::message::Text;

use super::Hub;
use super::devices::{DeviceSide, OutgoingCall, SharedDevice, call_refusal};
use super::tenants::Tenant;
use crate::metrics::ShardMetrics;
use crate::publication::{Draft, Source};
use crate::shelly::{Changes, Outcome, Reading};
use crate::store::{AuditRow, Channel, DeviceStateRow, EventRow, ReadingRow};

/// The room of all of a tenant's devices.
pub const DEVICES_ROOM: &str = "$devices";

/// The room of one device.
pub fn device_room(device: &str) -> String {
    format!("$device:{device}")
}

const UPDATE: &str = "device-update";
const OFFLINE: &str = "device-offline-status";
const EVENT: &str = "device-event";

impl Hub {
    /// Carries out what a device's state machine decided. Answers the frames to send to the device.
    /// `accepted` is when its word came, for the latency that we report.
    pub fn perform(
        &self,
        metrics: &ShardMetrics,
        tenant: &Tenant,
        entry: &SharedDevice,
        side: &mut DeviceSide,
        outcome: Outcome,
        accepted: Instant,
    ) -> Vec<Bytes> {
        for reply in outcome.replies {
            if let Some(caller) = side.caller(reply.token) {
                let result = reply
                    .result
                    .map(mask_tokens)
                    .map_err(|failure| call_refusal(&failure));
                self.answer(caller, result);
            }
        }
        if let Some(changes) = &outcome.changes {
            metrics.device_changes.increment();
            let update = side.device.update(changes);
            self.say_of_device(metrics, tenant, entry, UPDATE, update.clone(), accepted);
            self.record(tenant, entry, side, changes, update);
        }
        for event in outcome.events {
            let payload = side.device.event(outcome.at, &event);
            self.say_of_device(metrics, tenant, entry, EVENT, payload, accepted);
            self.records.device_event(EventRow {
                tenant: tenant.id.clone(),
                device: entry.id.clone(),
                ts_ms: outcome.at.ts_ms,
                received_ms: outcome.at.received_ms,
                component: Some(event.component).filter(|c| !c.is_empty()).map(Into::into),
                event: event.event.into(),
                data: serde_json::to_vec(&event.data).unwrap_or_default().into(),
            });
        }
        if let Some(offline) = &outcome.offline {
            let status = side.device.offline_status(offline);
            self.say_of_device(metrics, tenant, entry, OFFLINE, status.clone(), accepted);
            self.records.device_event(EventRow {
                tenant: tenant.id.clone(),
                device: entry.id.clone(),
                ts_ms: offline.at_ms,
                received_ms: offline.at_ms,
                component: None,
                event: "offline".into(),
                data: status,
            });
            // So that a restart knows it too.
            let current = side.device.current();
            self.record_state(tenant, entry, side, offline.seq, offline.at_ms, current);
        }
        if outcome.counters.malformed > 0 {
            metrics
                .device_frames_malformed
                .add(outcome.counters.malformed.into());
        }
        outcome.send
    }

    /// To the tenant's room of devices and to the device's own, if anybody listens there.
    fn say_of_device(
        &self,
        metrics: &ShardMetrics,
        tenant: &Tenant,
        entry: &SharedDevice,
        event: &'static str,
        json: Bytes,
        accepted: Instant,
    ) {
        for room in [DEVICES_ROOM, &device_room(entry.id.as_str())] {
            let draft = Draft {
                accepted,
                source: Source::Device,
                // The device: who asks for the newest of each key gets the newest of each device.
                topic: Text::from(entry.id.as_str()),
                ..Draft::new(Text::from_static(event), Payload::Json(json.clone()))
            };
            match self.publish_if_open(tenant, room, draft) {
                None => {}
                Some(Ok(_)) => metrics.publications.increment(),
                Some(Err(refusal)) => {
                    metrics.publications_refused.increment();
                    tracing::debug!(tenant = %tenant.id, device = %entry.id, %refusal, "a device's message was refused");
                }
            }
        }
    }

    fn record(
        &self,
        tenant: &Tenant,
        entry: &SharedDevice,
        side: &DeviceSide,
        changes: &Changes,
        update: Bytes,
    ) {
        self.record_state(tenant, entry, side, changes.seq, changes.at.received_ms, update);
        for reading in &changes.readings {
            if let Some(row) = reading_row(tenant, entry, reading, changes) {
                self.records.reading(row);
            }
        }
    }

    fn record_state(
        &self,
        tenant: &Tenant,
        entry: &SharedDevice,
        side: &DeviceSide,
        seq: u64,
        received_ms: u64,
        state: Bytes,
    ) {
        self.records.device_state(DeviceStateRow {
            tenant: tenant.id.clone(),
            device: entry.id.clone(),
            seq,
            received_ms,
            src: side.device.identity().src().into(),
            model: side.device.info().model.as_deref().map(Into::into),
            state,
        });
    }

    /// Notes who called a device and how. Parameters are kept, for they say what was switched; devices take no secrets in them
    /// but for `Ws.SetConfig` and `WiFi.SetConfig`, whose parameters are left out.
    pub fn audit_call(&self, tenant: &Arc<Tenant>, actor: &str, device: &str, call: &OutgoingCall) {
        let secret = call.method.to_ascii_lowercase().ends_with("setconfig")
            || call.method.to_ascii_lowercase().ends_with("setauth");
        self.records.audit(AuditRow {
            tenant: Some(tenant.id.clone()),
            at_ms: self.clock.now().unix_ms,
            actor: actor.into(),
            action: format!("device.call {}", call.method).into(),
            target: device.into(),
            detail: if secret { Bytes::new() } else { call.params.clone() },
        });
    }
}

/// A device that is asked for its configuration tells where it dials, and its token is in that URL. Whoever may call a device
/// may not therefore become it: the secret is masked in every answer, and in what is logged.
pub fn mask_tokens(json: Bytes) -> Bytes {
    const MARK: &[u8] = b"token=";
    const MASK: &[u8] = b"***";
    let Some(mut at) = find(&json, MARK) else {
        return json;
    };
    let (mut out, mut rest) = (Vec::with_capacity(json.len()), &json[..]);
    loop {
        let (before, after) = rest.split_at(at + MARK.len());
        out.extend_from_slice(before);
        out.extend_from_slice(MASK);
        // Up to the end of the value in the URL, or of the JSON string around it.
        let end = after
            .iter()
            .position(|b| matches!(b, b'&' | b'#' | b'"' | b'\\'))
            .unwrap_or(after.len());
        rest = &after[end..];
        match find(rest, MARK) {
            Some(next) => at = next,
            None => {
                out.extend_from_slice(rest);
                return out.into();
            }
        }
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn reading_row(
    tenant: &Tenant,
    entry: &SharedDevice,
    reading: &Reading,
    changes: &Changes,
) -> Option<ReadingRow> {
    Some(ReadingRow {
        tenant: tenant.id.clone(),
        device: entry.id.clone(),
        channel: Channel::new(&reading.channel).ok()?,
        ts_ms: changes.at.ts_ms,
        received_ms: changes.at.received_ms,
        output: reading.output,
        power_w: reading.power_w,
        voltage_v: reading.voltage_v,
        current_a: reading.current_a,
        energy_wh: reading.energy_wh,
        temperature_c: reading.temperature_c,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_own_token_is_masked_in_what_it_answers() {
        let masked = |json: &'static str| String::from_utf8(mask_tokens(json.into()).to_vec()).unwrap();
        assert_eq!(
            masked(r#"{"ws":{"server":"wss://h/shelly?token=cd_abc&x=1","ssl_ca":"*"}}"#),
            r#"{"ws":{"server":"wss://h/shelly?token=***&x=1","ssl_ca":"*"}}"#
        );
        assert_eq!(
            masked(r#"["?token=a","?token=b"]"#),
            r#"["?token=***","?token=***"]"#
        );
        assert_eq!(masked(r#"{"was_on":true}"#), r#"{"was_on":true}"#);
        assert_eq!(masked(r#""token=""#), r#""token=***""#);
    }
}
