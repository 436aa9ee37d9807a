//! Publishers that repeat what was not acknowledged, a subscriber that never forgets where it was, and a reader of history.

use std::sync::{Arc, Mutex};

use cauce_client::{AckLevel, Client, Continuity, Error, Event, Payload};
use cauce_protocol::{Epoch, Seq};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;

use super::ROOM;
use super::ledger::{Id, Ledger};

/// Publishers that have one message on its way at a time.
pub(super) const SEQUENTIAL: usize = 2;

/// Those, two with many on their way, and one that is content when its messages are numbered, one by one.
pub(super) const PUBLISHERS: usize = SEQUENTIAL + 3;

/// The last one.
const CONTENT: usize = PUBLISHERS - 1;

/// Messages that the two have on their way.
const IN_FLIGHT: usize = 16;

/// One message in so many goes to the room of the round, which no disk has known before.
const FRESH: u64 = 4;

pub(super) struct Publisher {
    index: usize,
    next: u64,
    /// Sent and not acknowledged, oldest first.
    pending: Vec<(String, Id)>,
}

impl Publisher {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            next: 0,
            pending: Vec::new(),
        }
    }

    /// Until the broker is gone: first what is left of earlier rounds, then one message after the other.
    pub(super) async fn run(mut self, client: Client, fresh: String, ledger: Arc<Mutex<Ledger>>) -> Self {
        if self.repeat(&client, &ledger).await.is_err() {
            return self;
        }
        let in_flight = match self.index {
            ..SEQUENTIAL | CONTENT => 1,
            _ => IN_FLIGHT,
        };
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < in_flight {
                let room = if self.next % FRESH == FRESH - 1 {
                    fresh.as_str()
                } else {
                    ROOM
                };
                let id = Id {
                    publisher: self.index,
                    n: self.next,
                };
                self.next += 1;
                if self.index != CONTENT {
                    ledger.lock().unwrap().insists(room, &id);
                    self.pending.push((room.to_owned(), id.clone()));
                }
                under_way.push(publish(&client, room.to_owned(), id, &ledger));
            }
            match under_way.next().await {
                Some(Ok(id)) => self.pending.retain(|(_, pending)| *pending != id),
                Some(Err(_)) => break,
                None => {}
            }
        }
        // The others have failed too, or were answered in the last moment.
        while let Some(answer) = under_way.next().await {
            if let Ok(id) = answer {
                self.pending.retain(|(_, pending)| *pending != id);
            }
        }
        drop(under_way);
        self
    }

    /// Sends again, under the same keys, what was not acknowledged.
    pub(super) async fn repeat(&mut self, client: &Client, ledger: &Mutex<Ledger>) -> Result<(), Error> {
        while let Some((room, id)) = self.pending.first().cloned() {
            publish(client, room, id, ledger).await?;
            self.pending.remove(0);
        }
        Ok(())
    }
}

async fn publish(client: &Client, room: String, id: Id, ledger: &Mutex<Ledger>) -> Result<Id, Error> {
    let level = match id.publisher {
        CONTENT => AckLevel::Memory,
        _ => AckLevel::Room,
    };
    let publish = client
        .publish(&room, "made", Payload::text(id.to_string()))
        .idempotency_key(id.to_string())
        .ack(level);
    let ack = publish.await?;
    assert_eq!(ack.durable, level == AckLevel::Room, "{id}: {ack:?}");
    let mut ledger = ledger.lock().unwrap();
    ledger.told(&room, (ack.epoch, ack.seq), &id, ack.durable, ack.repeated);
    Ok(id)
}

fn id(payload: &Payload) -> Id {
    match payload {
        Payload::Text(text) => Id::read(std::str::from_utf8(text).expect("UTF-8")),
        other => panic!("not a text: {other:?}"),
    }
}

/// Follows the shared room from where the last follower was, until the broker is gone.
pub(super) async fn follow(client: Client, ledger: &Arc<Mutex<Ledger>>) -> JoinHandle<()> {
    let since = ledger.lock().unwrap().followed;
    let subscribe = client.subscribe(ROOM);
    let mut room = match since {
        Some(position) => subscribe.since(position).await.unwrap(),
        None => subscribe.await.unwrap(),
    };
    let ledger = ledger.clone();
    tokio::spawn(async move {
        let mut expected = None;
        loop {
            match room.next().await {
                Some(Event::Message(message)) => {
                    if let Some(expected) = expected {
                        assert_eq!((message.epoch, message.seq), expected, "no gap that was not told");
                    }
                    expected = Some((message.epoch, Seq(message.seq.0 + 1)));
                    let mut ledger = ledger.lock().unwrap();
                    let at = (message.epoch, message.seq);
                    ledger.observed(ROOM, at, &id(&message.payload));
                    ledger.followed = Some(message.position());
                }
                Some(Event::Resubscribed {
                    position, continuity, ..
                }) => {
                    if let Continuity::Lost(range) = continuity {
                        let from = (position.epoch, range.first);
                        ledger.lock().unwrap().lost(ROOM, from, range.last);
                    }
                    expected = None;
                }
                Some(Event::Gap { missed }) => {
                    let (epoch, _) = expected.expect("a message before the gap");
                    ledger
                        .lock()
                        .unwrap()
                        .lost(ROOM, (epoch, missed.first), missed.last);
                    expected = Some((epoch, Seq(missed.last.0 + 1)));
                }
                Some(Event::Ended { .. }) | None => break,
                other => panic!("{other:?}"),
            }
        }
        drop(client);
    })
}

/// All that is kept of a room, oldest first.
pub(super) async fn read_all(client: &Client, room: &str) -> (Epoch, Vec<(Seq, Id)>) {
    let page = client.history(room).await.unwrap();
    let epoch = page.epoch;
    let mut entries = Vec::new();
    let mut history = std::pin::pin!(client.history(room).page_size(1_000).stream());
    while let Some(entry) = history.next().await {
        let entry = entry.unwrap();
        entries.push((entry.seq, id(&entry.payload)));
    }
    (epoch, entries)
}
