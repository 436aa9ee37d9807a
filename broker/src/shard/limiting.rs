//! How much a client may publish, judged before anything is done with what it says.

use cauce_protocol::{Code, Refusal};

use super::peer::Client;
use super::{Shard, Tunables};
use crate::clock::Now;
use crate::connection::Action;
use crate::hub::Publisher;

impl Shard {
    /// What is left of an action when the limits on publishing have been asked: itself, or a refusal.
    pub(super) fn limit(&self, client: &mut Client, action: Action, now: Now, tunables: &Tunables) -> Action {
        let Some((id, bytes)) = weight(&action) else {
            return action;
        };
        let publisher = Publisher {
            person: &client.membership.person,
            bytes: &mut client.connection.published,
        };
        let tenant = &client.membership.tenant;
        match tenant.charge(Some(publisher), &tunables.publishing, now.mono_ms, bytes) {
            Ok(()) => action,
            Err((limit, refusal)) => {
                if let Action::Call { .. } = action {
                    client.connection.call_ended();
                }
                self.hub.publish_limited(limit);
                tenant.logbook.refused(refusal.code);
                self.metrics().publications_refused.increment();
                Action::Refuse { id, refusal }
            }
        }
    }
}

/// The request's id and the bytes of what it has others hear, if it has.
fn weight(action: &Action) -> Option<(u32, usize)> {
    match action {
        Action::Publish { id, publish, .. } => Some((*id, publish.payload.len())),
        Action::Send { id, send, .. } => Some((*id, send.payload.len())),
        Action::Call { id, call, .. } => Some((*id, call.params.len())),
        Action::Notify { id, notify } => {
            Some((*id, notify.title.len() + notify.message.len() + notify.json.len()))
        }
        _ => None,
    }
}

/// Why the connection must end, if this refusal is one too many of its kind.
pub(super) fn is_abusive(client: &mut Client, action: &Action, now: Now) -> Option<Refusal> {
    /// Long enough that coming back does not pay.
    const RETRY_MS: u32 = 30_000;

    let Action::Refuse { refusal, .. } = action else {
        return None;
    };
    if refusal.code != Code::RateLimited || !client.connection.abuses(now) {
        return None;
    }
    let message = "thousands of requests were refused as too many and still came";
    Some(Refusal::new(Code::RateLimited, message).retry_after(RETRY_MS))
}
