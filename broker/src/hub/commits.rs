//! Publishing for whoever waits for the disk in a future: the API and the embedding program.

use cauce_protocol::message::Ack;
use cauce_protocol::{Code, Refusal};
use tokio::sync::oneshot;

use super::{Hub, Tenant};
use crate::publication::Draft;
use crate::rooms::{Accepted, Manner, OnCommit, Repeat, Written};

/// What became of a publish that waited for the disk.
type Committed = Result<Accepted, Refusal>;

/// A message that has its number and has been handed to the shards, and may still be on its way to the disk.
#[derive(Debug)]
#[must_use = "its publisher is answered when it is on the disk"]
pub struct Begun {
    accepted: Accepted,
    committed: Option<oneshot::Receiver<Committed>>,
}

impl Begun {
    /// Waits until the message is on the disk, if its room or its publisher asked for that. The message is there whoever waits on.
    ///
    /// # Errors
    /// `unavailable` if it is not on the disk in time. It may be there later: a repeat with the same idempotency key is harmless.
    pub async fn written(self) -> Result<Accepted, Refusal> {
        let Some(committed) = self.committed else {
            return Ok(self.accepted);
        };
        let gone = || Err(Refusal::new(Code::Unavailable, "the store has ended"));
        let accepted = committed.await.unwrap_or_else(|_| gone())?;
        Ok(Accepted {
            written: Written::Yes,
            ..accepted
        })
    }
}

impl Hub {
    /// As [`Hub::publish`]; the answer waits for the disk if the room, or `ack`, asks for that.
    ///
    /// # Errors
    /// As [`Hub::publish`].
    pub fn begin_publish(
        &self,
        tenant: &Tenant,
        room: &str,
        draft: Draft,
        repeat: Option<Repeat<'_>>,
        ack: Ack,
    ) -> Result<Begun, Refusal> {
        let waiting = parking_lot::Mutex::new(None);
        let on_commit = || -> OnCommit {
            let (sender, receiver) = oneshot::channel();
            *waiting.lock() = Some(receiver);
            Box::new(move |accepted, result| drop(sender.send(result.map(|()| accepted))))
        };
        let manner = Manner {
            repeat,
            ack,
            on_commit: Some(&on_commit),
            ..Manner::default()
        };
        let accepted = self.publish(tenant, room, draft, manner)?;
        Ok(Begun {
            accepted,
            committed: waiting.into_inner(),
        })
    }
}
