//! What a broker does, as simply as it can be said: rooms as lists, one connection, and what is under way in it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::{self, client_frame::Request, server_frame};
use cauce_protocol::{Code, Position, Refusal, RoomId, Seq, server};

use crate::connection::tests::Bench;

/// Room 0 keeps some messages, room 1 none, room 2 is followed with a filter, and keeps some.
pub(super) const ROOMS: usize = 3;
pub(super) const FILTERED: usize = 2;
/// Messages that a room keeps.
const KEPT: [usize; ROOMS] = [6, 0, 6];
/// What passes the filter, and what does not.
pub(super) const WANTED: &str = "e";
pub(super) const UNWANTED: &str = "x";

/// What stands at a number of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// For everyone, with this content.
    Message(u64),
    /// For those without a filter only.
    Unwanted(u64),
    /// Not for us, and we may count on being told so.
    Excluded,
}

/// How a message fails to reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Sent,
    /// In silence: a fault of the broker.
    Omitted,
    /// We were too slow, and are told before what follows.
    Dropped,
}

#[derive(Default)]
pub(super) struct Broker {
    restarts: u64,
    /// By epoch and room: what stands at number 1, 2, …
    pub(super) logs: BTreeMap<(u64, usize), Vec<Entry>>,
    /// Keys seen in this epoch.
    keys: HashMap<String, u64>,
    pub(super) sessions: u64,
    pub(super) session: Option<Session>,
    content: u64,
    pub(super) refuse: bool,
    /// Whether anything of a room was ever kept from us.
    pub(super) lossy: [bool; ROOMS],
    /// Ids of the connections that hello named, as it named them.
    pub(super) previous: Vec<u64>,
}

/// The broker's side of one connection and what is under way in it.
#[derive(Default)]
pub(super) struct Session {
    pub(super) joined: BTreeMap<usize, Joined>,
    pub(super) to_broker: VecDeque<wire::ClientFrame>,
    pub(super) to_client: VecDeque<wire::ServerFrame>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Joined {
    filtered: bool,
    /// Something was left out since our last push: an advance would hide it.
    omitted: bool,
    /// The first number that was dropped since.
    dropped: Option<u64>,
}

pub(super) fn room_name(room: usize) -> String {
    format!("r{room}")
}

fn room_of(name: &str) -> usize {
    name[1..].parse().unwrap()
}

fn push(room: u64, seq: u64, content: u64, event: &str) -> wire::ServerFrame {
    wire::ServerFrame {
        message: Some(server_frame::Message::Push(wire::Push {
            room,
            seq,
            event: event.into(),
            payload: Some(wire::push::Payload::Json(content.to_string().into())),
            key: String::new(),
        })),
    }
}

impl Broker {
    /// Never 0, which stands for none.
    pub(super) fn epoch(&self) -> u64 {
        self.restarts + 1
    }

    pub(super) fn restart(&mut self) {
        self.restarts += 1;
        self.keys.clear();
    }

    fn log(&mut self, room: usize) -> &mut Vec<Entry> {
        let epoch = self.epoch();
        self.logs.entry((epoch, room)).or_default()
    }

    pub(super) fn head(&self, room: usize) -> u64 {
        self.logs
            .get(&(self.epoch(), room))
            .map_or(0, |log| log.len() as u64)
    }

    /// On the next connection the same number stands for another room.
    fn number(&self, room: usize) -> u64 {
        (self.sessions + room as u64) % ROOMS as u64
    }

    /// Contents of others are even, ours are odd.
    pub(super) fn content(&mut self) -> u64 {
        self.content += 2;
        self.content
    }

    /// Somebody publishes what everyone wants.
    pub(super) fn publish(&mut self, room: usize, content: u64, fate: Fate) -> u64 {
        self.add(room, Entry::Message(content), fate)
    }

    pub(super) fn publish_unwanted(&mut self, room: usize) {
        let content = self.content();
        self.add(room, Entry::Unwanted(content), Fate::Sent);
    }

    pub(super) fn exclude(&mut self, room: usize) {
        let joined = self.session.as_ref().and_then(|s| s.joined.get(&room));
        // The advance would say more than the broker knows.
        if joined.is_none_or(|joined| !joined.omitted && joined.dropped.is_none()) {
            self.add(room, Entry::Excluded, Fate::Sent);
        }
    }

    fn add(&mut self, room: usize, entry: Entry, fate: Fate) -> u64 {
        let log = self.log(room);
        log.push(entry);
        let seq = log.len() as u64;
        let number = self.number(room);
        let Some(session) = &mut self.session else {
            return seq;
        };
        let Some(joined) = session.joined.get_mut(&room) else {
            return seq;
        };
        match fate {
            Fate::Omitted => joined.omitted = true,
            Fate::Dropped => joined.dropped = joined.dropped.or(Some(seq)),
            Fate::Sent => {
                joined.omitted = false;
                let frame = told(number, seq, entry, joined.filtered);
                if let (Some(first), true) = (joined.dropped, frame.is_some()) {
                    joined.dropped = None;
                    let gap = wire::Gap {
                        room: number,
                        from: first,
                        to: seq - 1,
                    };
                    session.to_client.push_back(gap.into());
                }
                session.to_client.extend(frame);
            }
        }
        self.lossy[room] |= fate != Fate::Sent;
        seq
    }

    /// The broker takes our right to the room.
    pub(super) fn end(&mut self, room: usize) {
        let number = self.number(room);
        if let Some(session) = &mut self.session
            && session.joined.remove(&room).is_some()
        {
            let error = Some((&Refusal::new(Code::Forbidden, "no more")).into());
            session
                .to_client
                .push_back(wire::Ended { room: number, error }.into());
        }
    }

    pub(super) fn serve(&mut self, bench: &Bench) {
        let Some(frame) = self.session.as_mut().and_then(|s| s.to_broker.pop_front()) else {
            return;
        };
        let mut after = Vec::new();
        let outcome: Outcome = match frame.request.unwrap() {
            Request::Hello(hello) => {
                self.previous = hello.previous;
                wire::Welcome {
                    connection: self.sessions,
                    ..bench.welcome()
                }
                .into()
            }
            Request::Ping(_) => wire::Pong { unix_ms: 0 }.into(),
            Request::Subscribe(_) if std::mem::take(&mut self.refuse) => {
                Outcome::from(&Refusal::new(Code::RateLimited, "later").retry_after(100))
            }
            Request::Subscribe(subscribe) => {
                let plain = subscribe.rooms.into_iter().map(|room| wire::Subscription {
                    room,
                    ..wire::Subscription::default()
                });
                let wanted: Vec<_> = plain.chain(subscribe.subscriptions).collect();
                let rooms = wanted.iter().map(|wanted| self.join(wanted, &mut after));
                wire::Subscribed {
                    rooms: rooms.collect(),
                }
                .into()
            }
            Request::Unsubscribe(unsubscribe) => {
                let session = self.session.as_mut().unwrap();
                for name in unsubscribe.rooms {
                    session.joined.remove(&room_of(&name));
                }
                return;
            }
            Request::Publish(publish) => self.published(&publish).into(),
            other => panic!("not asked for: {other:?}"),
        };
        let session = self.session.as_mut().unwrap();
        session.to_client.push_back(server::reply(frame.id, outcome));
        session.to_client.extend(after);
    }

    fn join(
        &mut self,
        wanted: &wire::Subscription,
        after: &mut Vec<wire::ServerFrame>,
    ) -> wire::RoomPosition {
        let room = room_of(&wanted.room);
        let joined = Joined {
            filtered: !wanted.events.is_empty(),
            ..Joined::default()
        };
        let session = self.session.as_mut().unwrap();
        session.joined.insert(room, joined);
        let (epoch, head, number) = (self.epoch(), self.head(room), self.number(room));
        let gone = head.saturating_sub(KEPT[room] as u64);
        let mut answer = wire::RoomPosition {
            name: wanted.room.clone(),
            room: number,
            epoch,
            seq: head,
            head,
            ..wire::RoomPosition::default()
        };
        let recovery = match wanted.epoch {
            0 => {
                answer.seq = head.saturating_sub(wanted.recent.into()).max(gone);
                wire::Recovery::None
            }
            brought if brought != epoch || wanted.seq > head => wire::Recovery::Reset,
            _ if wanted.seq >= gone => {
                answer.seq = wanted.seq;
                wire::Recovery::Continued
            }
            _ => {
                answer.seq = gone;
                (answer.lost_from, answer.lost_to) = (wanted.seq + 1, gone);
                self.lossy[room] = true;
                wire::Recovery::Partial
            }
        };
        answer.recovery = recovery.into();
        for seq in answer.seq + 1..=head {
            let entry = self.log(room)[seq as usize - 1];
            after.extend(told(number, seq, entry, joined.filtered));
        }
        answer
    }

    fn published(&mut self, publish: &wire::Publish) -> wire::Published {
        let key = publish.idempotency_key.clone();
        let seen = self.keys.get(&key).copied();
        let seq = seen.unwrap_or_else(|| {
            let content = key.parse().unwrap();
            self.publish(room_of(&publish.room), content, Fate::Sent)
        });
        self.keys.insert(key, seq);
        wire::Published {
            epoch: self.epoch(),
            seq,
            receivers: 0,
            repeated: seen.is_some(),
            durable: false,
        }
    }

    /// Numbers between two positions of one epoch that nobody need tell us of.
    pub(super) fn all_silent(&self, room: usize, from: Position, to: Seq) -> bool {
        let log = self
            .logs
            .get(&(from.epoch.0, room))
            .map_or(&[][..], Vec::as_slice);
        (from.seq.0 + 1..=to.0).all(|seq| match log[seq as usize - 1] {
            Entry::Excluded => true,
            Entry::Unwanted(_) => room == FILTERED,
            Entry::Message(_) => false,
        })
    }
}

/// What a subscriber is told of an entry.
fn told(number: u64, seq: u64, entry: Entry, filtered: bool) -> Option<wire::ServerFrame> {
    match entry {
        Entry::Message(content) => Some(push(number, seq, content, WANTED)),
        Entry::Unwanted(_) if filtered => None,
        Entry::Unwanted(content) => Some(push(number, seq, content, UNWANTED)),
        Entry::Excluded => Some(server::advance(RoomId(number), Seq(seq))),
    }
}
