//! Publishing, and the answer to it.

use std::rc::Rc;

use cauce_protocol::message::Publish;
use cauce_protocol::wire;

use super::peer::{Peer, Stage};
use super::{Shard, Tunables};
use crate::clock::Now;
use crate::hub::{Outcome, ShardMessage, Tenant};
use crate::publication::{Draft, Excluded, Source};
use crate::rooms::{Accepted, Manner, OnCommit, Repeat, Written};

impl Shard {
    #[expect(clippy::too_many_arguments, reason = "one call, and each of them is needed")]
    pub(super) fn publish(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        id: u32,
        publish: Publish,
        excluded: Excluded,
        now: Now,
        tunables: &Tunables,
    ) {
        let Publish {
            room,
            event,
            payload,
            idempotency_key,
            exclude_sender,
            want_receivers,
            key,
            ack,
            ..
        } = publish;
        let user = match &*peer.stage.borrow() {
            Stage::Client(client) => client.connection.principal.user.clone(),
            _ => return,
        };
        let draft = Draft {
            excluded,
            topic: key,
            user: Some(user.clone()),
            source: Source::Client,
            ..Draft::new(event, payload)
        };
        let repeat = if idempotency_key.as_bytes().is_empty() {
            None
        } else {
            Some(Repeat {
                publisher: user.as_str(),
                key: idempotency_key.as_str(),
                now_ms: now.mono_ms,
                window_ms: tunables.dedup_window_ms,
                keys_max: tunables.dedup_keys_max,
            })
        };
        // A repeat is answered like the first, when the sender may not have joined yet: hence no underflow.
        let uncounted = u32::from(exclude_sender && want_receivers && self.has_joined(peer, room.as_str()));
        let published = move |accepted: Accepted, durable| wire::Published {
            epoch: accepted.epoch.0,
            seq: accepted.seq.0,
            receivers: match want_receivers {
                false => 0,
                true => accepted.receivers.saturating_sub(uncounted),
            },
            repeated: accepted.repeated,
            durable,
        };
        let on_commit = || -> OnCommit {
            let (hub, connection) = (self.hub.clone(), peer.id);
            Box::new(move |accepted, result| {
                let result = result.map(|()| published(accepted, true).into());
                if let Some(shard) = hub.shard_of(connection) {
                    hub.shards[shard].send(ShardMessage::Outcome(Box::new(Outcome {
                        connection,
                        request: id,
                        result,
                    })));
                }
            })
        };
        let manner = Manner {
            repeat,
            ack,
            on_commit: Some(&on_commit),
            ..Manner::default()
        };
        let accepted = match self.hub.publish(tenant, room.as_str(), draft, manner) {
            Ok(accepted) => accepted,
            Err(refusal) => return self.refuse_publication(peer, id, &refusal),
        };
        self.metrics().publications.increment();
        match accepted.written {
            // Answered when it is on the disk.
            Written::Awaited => {}
            written => self.answer(peer, id, published(accepted, written == Written::Yes)),
        }
    }

    pub(super) fn has_joined(&self, peer: &Peer, room: &str) -> bool {
        match &*peer.stage.borrow() {
            Stage::Client(client) => client
                .connection
                .subscriptions
                .iter()
                .any(|s| s.room.name.as_str() == room),
            _ => false,
        }
    }
}
