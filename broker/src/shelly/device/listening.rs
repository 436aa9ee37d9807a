//! What a device said: a notification or an answer becomes state, and news of what changed.

use super::{Device, News, power};
use crate::clock::Now;
use crate::shelly::calls::{CallFailure, CallReply, Lesson};
use crate::shelly::frame::{Notification, Response};
use crate::shelly::info::Info;
use crate::shelly::outcome::{Outcome, Stamp};
use crate::shelly::status::{Merged, Object};

impl Device {
    pub(super) fn notice(
        &mut self,
        now: Now,
        notification: Notification,
        news: &mut News,
        out: &mut Outcome,
    ) {
        match notification {
            Notification::FullStatus { ts, components } => {
                out.at = Stamp::new(ts, now, &mut out.counters);
                self.replace_status(components, news, out);
            }
            Notification::Status { ts, components } => {
                out.at = Stamp::new(ts, now, &mut out.counters);
                self.overlay_status(now, components, news, out);
            }
            Notification::Event { ts, events, skipped } => {
                out.at = Stamp::new(ts, now, &mut out.counters);
                out.counters.events_skipped = skipped;
                for event in events.iter().filter(|event| event.component == "sys") {
                    match event.event.as_str() {
                        "sleep" => self.live.iter_mut().for_each(|live| live.slept = true),
                        "component_added" | "component_removed" => self.resync.components_changed(),
                        _ => {}
                    }
                }
                out.events = events;
            }
            Notification::Unknown => out.counters.unknown_methods = 1,
        }
    }

    pub(super) fn answer(&mut self, response: Response, news: &mut News, out: &mut Outcome) {
        let Some(call) = response.id.and_then(|id| self.calls.take(id)) else {
            out.counters.unmatched_replies = 1;
            return;
        };
        if let (Lesson::Info | Lesson::Status, Ok(json)) = (call.lesson, &response.result) {
            match (serde_json::from_slice::<Object>(json), call.lesson) {
                (Ok(components), Lesson::Status) => {
                    self.replace_status(components, news, out);
                }
                (Ok(answer), _) => {
                    let info = Info::read(&answer);
                    // An answer that tells nothing is a fault, and must not wipe what we know.
                    if info != self.info && info != Info::default() {
                        self.info = info;
                        news.visible = true;
                    }
                }
                (Err(_), _) => out.counters.own_calls_failed = u32::from(call.token.is_none()),
            }
        }
        match call.token {
            Some(token) => {
                let result = response.result.map_err(CallFailure::Device);
                out.replies.push(CallReply { token, result });
            }
            None if response.result.is_err() => out.counters.own_calls_failed = 1,
            None => {}
        }
    }

    pub(super) fn replace_status(&mut self, components: Object, news: &mut News, out: &mut Outcome) {
        // Every device has a `sys` at least. An empty status is a fault, and must not wipe what we know.
        if components.is_empty() {
            return;
        }
        self.power.clear();
        let Merged { delta, refused } = self.state.replace(components);
        out.counters.refused_keys = refused;
        news.delta = delta;
        self.resync.told_all();
    }

    pub(super) fn overlay_status(
        &mut self,
        now: Now,
        components: Object,
        news: &mut News,
        out: &mut Outcome,
    ) {
        self.power.before_overlay(&components);
        let told_power = power::told_power(&components);
        let Merged { delta, refused } = self.state.overlay(components);
        out.counters.refused_keys = refused;
        self.power
            .after_overlay(now.mono_ms, &delta, self.state.components(), &told_power);
        news.delta = delta;
    }
}
