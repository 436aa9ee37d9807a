//! The broker, its clients and the model side by side; every operation is done to both, and every answer compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use cauce_broker::auth::Pattern;
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::publication::Draft;
use cauce_broker::rooms::{Keep, Manner, PresenceMode, RoomClass};
use cauce_protocol::Payload;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};

use crate::client::{Client, Dialect};
use crate::oracle::{Policy, RoomLog, Said, Sub, Who};
use crate::support::{Broker, PATIENCE, token};

pub(crate) const TENANTS: [&str; 2] = ["a", "b"];

/// Nothing is kept of the first; how much of the second changes; the third keeps all, and who is there.
pub(crate) const ROOMS: [&str; 3] = ["plain", "kept", "shown"];
const KEPT: usize = 1;
const SHOWN: usize = 2;
const KEPT_FIRST: u32 = 5;
const SHOWN_KEEPS: u32 = 100_000;

pub(crate) const EVENTS: [&str; 3] = ["e0", "e1", "e2"];
pub(crate) const KEYS: [&str; 3] = ["", "k1", "k2"];

/// Clients, half of each tenant. Two of them are the same user.
pub(crate) const SLOTS: usize = 8;
const USERS: [&str; SLOTS / 2] = ["ann", "ann", "bob", "carl"];

/// A burst is larger than what sockets and outbox hold of one who does not read.
const BURST_MESSAGES: u64 = 120;
const BURST_BYTES: usize = 56 * 1024;

/// How long one who was lost is held to be present: for ever in one tenant, not at all in the other.
const GRACE_MS: [u64; TENANTS.len()] = [3_600_000, 0];

const ADVANCE: u64 = 1;
const GAP: u64 = 2;

#[derive(Clone, Debug)]
pub(crate) enum Since {
    Plain,
    /// The position that this client would bring, if it has one.
    Remembered,
    /// A number that was never given.
    Wrong,
    Recent(u32),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Connect {
        slot: usize,
        remember: bool,
    },
    Drop {
        slot: usize,
    },
    Subscribe {
        slot: usize,
        room: usize,
        since: Since,
        policy: Policy,
        events: Vec<usize>,
        keys: Vec<usize>,
        watch: bool,
    },
    Unsubscribe {
        slot: usize,
        room: usize,
    },
    Publish {
        slot: usize,
        room: usize,
        event: usize,
        key: usize,
        myself: bool,
        exclude: Vec<usize>,
        repeat: Option<usize>,
    },
    Burst {
        tenant: usize,
        room: usize,
    },
    History {
        slot: usize,
        room: usize,
        from: u64,
        backwards: bool,
        limit: u32,
    },
    Who {
        slot: usize,
    },
    Keep {
        tenant: usize,
        messages: u32,
    },
    Presence {
        tenant: usize,
        on: bool,
    },
    Read {
        slot: usize,
    },
}

fn tenant_of(slot: usize) -> usize {
    slot / (SLOTS / 2)
}

fn user_of(slot: usize) -> &'static str {
    USERS[slot % (SLOTS / 2)]
}

/// One who is there: connections, and how many were lost and may come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Present {
    connections: u32,
    lost: u32,
}

/// Who is in the room that shows it.
#[derive(Debug, Default)]
struct Roll {
    on: bool,
    present: BTreeMap<&'static str, Present>,
}

impl Roll {
    fn enter(&mut self, user: &'static str) {
        if self.on {
            let present = self.present.entry(user).or_default();
            present.connections += 1;
            present.lost = present.lost.saturating_sub(1);
        }
    }

    fn exit(&mut self, user: &'static str, held: bool) {
        let Some(present) = self.present.get_mut(user) else {
            return;
        };
        present.connections -= 1;
        present.lost += u32::from(held);
        if *present == Present::default() {
            self.present.remove(user);
        }
    }

    fn names(&self) -> Vec<(String, u32)> {
        let present = self.present.iter();
        present
            .map(|(user, present)| ((*user).to_owned(), present.connections))
            .collect()
    }
}

/// What one who watches knows of who is there.
#[derive(Debug, Default)]
struct View {
    version: u64,
    names: Vec<String>,
    /// It was told that it does not know all.
    truncated: bool,
}

/// One client, through all its connections.
#[derive(Default)]
struct Slot {
    client: Option<Client>,
    who: Who,
    previous: Vec<u64>,
    positions: HashMap<usize, (u64, u64)>,
    subs: HashMap<usize, Sub>,
    /// Rooms by their numbers.
    numbers: HashMap<u64, usize>,
    view: Option<View>,
}

impl Slot {
    /// The subscription that a frame is of, and its room.
    fn sub<'a>(&'a mut self, rooms: &'a [RoomLog; ROOMS.len()], number: u64) -> (&'a mut Sub, &'a RoomLog) {
        let room = *self.numbers.get(&number).expect("a room that it joined");
        let sub = self.subs.get_mut(&room);
        (sub.expect("a room that it has not left"), &rooms[room])
    }
}

pub(crate) struct World {
    broker: Broker,
    slots: Vec<Slot>,
    rooms: Vec<[RoomLog; ROOMS.len()]>,
    rolls: [Roll; TENANTS.len()],
    keep: [u32; TENANTS.len()],
    /// Rises with each message: marks are never the same twice.
    n: u64,
}

impl World {
    pub(crate) async fn start() -> Self {
        let broker = Broker::with(
            "limits.outbox_bytes=256KiB\nlimits.stall_timeout=2m\nlimits.mailbox_bytes=64MiB\nlimits.history_bytes_per_tenant=1GiB\nthreads.client_shards=3",
        );
        let room = |keep: u32| RoomLog::new(keep.into());
        let mut world = Self {
            broker,
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            rooms: TENANTS
                .iter()
                .map(|_| [room(0), room(KEPT_FIRST), room(SHOWN_KEEPS)])
                .collect(),
            rolls: Default::default(),
            keep: [KEPT_FIRST; TENANTS.len()],
            n: 0,
        };
        for tenant in 0..TENANTS.len() {
            world.rolls[tenant].on = true;
            world.configure(tenant);
        }
        for slot in 0..SLOTS {
            world.connect(slot, false).await;
        }
        world
    }

    /// Gives the tenant's rooms the classes that the model says.
    fn configure(&self, tenant: usize) {
        let class = |messages: u32, presence| {
            let history = Keep {
                messages,
                age_ms: 3_600_000,
                bytes: 0,
            };
            Arc::new(RoomClass {
                history,
                presence,
                ..RoomClass::default()
            })
        };
        let presence = match self.rolls[tenant].on {
            true => PresenceMode::On {
                grace_ms: GRACE_MS[tenant],
            },
            false => PresenceMode::Off,
        };
        let rule = |room: usize, class| (Pattern::new(ROOMS[room]).expect("a pattern"), class).into();
        let rules = vec![
            rule(KEPT, class(self.keep[tenant], PresenceMode::Off)),
            rule(SHOWN, class(SHOWN_KEEPS, presence)),
        ];
        let hub = self.broker.server.hub();
        let tenant = hub.tenants.get(TENANTS[tenant]).expect("a tenant");
        tenant.configure(TenantSettings {
            classes: RoomClasses::new(rules, class(0, PresenceMode::Off)),
            ..(*tenant.settings()).clone()
        });
        hub.reclassify(&tenant);
    }

    pub(crate) async fn perform(&mut self, op: Op) {
        match op {
            Op::Connect { slot, remember } => {
                if self.slots[slot].client.is_none() {
                    self.connect(slot, remember).await;
                }
            }
            Op::Drop { slot } => self.drop_client(slot).await,
            Op::Subscribe {
                slot,
                room,
                since,
                policy,
                events,
                keys,
                watch,
            } => {
                if self.slots[slot].client.is_some() {
                    let names = |all: &[&str], some: &[usize]| -> Vec<String> {
                        some.iter().map(|&at| all[at].to_owned()).collect()
                    };
                    // A filter cannot name the empty key.
                    let keys: Vec<_> = keys.into_iter().filter(|&key| key > 0).collect();
                    let sub = Sub::new(
                        self.slots[slot].who.clone(),
                        policy,
                        names(&EVENTS, &events),
                        names(&KEYS, &keys),
                        0,
                    );
                    self.subscribe(slot, room, &since, sub, watch && room == SHOWN)
                        .await;
                }
            }
            Op::Unsubscribe { slot, room } => {
                if self.slots[slot].client.is_some() {
                    let rooms = vec![ROOMS[room].to_owned()];
                    let outcome = self
                        .ask(slot, Request::Unsubscribe(wire::Unsubscribe { rooms }))
                        .await;
                    assert!(matches!(outcome, Outcome::Unsubscribed(_)), "{outcome:?}");
                    self.leave(slot, room, false);
                }
            }
            Op::Publish {
                slot,
                room,
                event,
                key,
                myself,
                exclude,
                repeat,
            } => {
                if self.slots[slot].client.is_some() {
                    let exclude: Vec<u64> = exclude
                        .iter()
                        .filter_map(|&other| self.slots[other].who.ids.first().copied())
                        .collect();
                    self.publish(slot, room, EVENTS[event], KEYS[key], myself, exclude, repeat)
                        .await;
                }
            }
            Op::Burst { tenant, room } => self.burst(tenant, room),
            Op::History {
                slot,
                room,
                from,
                backwards,
                limit,
            } => {
                if self.slots[slot].client.is_some() {
                    self.history(slot, room, from, backwards, limit).await;
                }
            }
            Op::Who { slot } => {
                if self.slots[slot].client.is_some() {
                    self.check_roll(slot).await;
                }
            }
            Op::Keep { tenant, messages } => {
                self.keep[tenant] = messages;
                self.rooms[tenant][KEPT].set_keep(messages.into());
                self.configure(tenant);
            }
            Op::Presence { tenant, on } => self.switch_presence(tenant, on),
            Op::Read { slot } => {
                if self.slots[slot].client.is_some() {
                    let outcome = self.ask(slot, Request::Ping(wire::Ping {})).await;
                    assert!(matches!(outcome, Outcome::Pong(_)), "{outcome:?}");
                }
            }
        }
        self.settle().await;
    }

    async fn connect(&mut self, slot: usize, remember: bool) {
        let own = &self.slots[slot];
        let previous = match remember {
            true => own.previous.iter().copied().take(8).collect(),
            false => Vec::new(),
        };
        // One of four does not understand that a room goes on without it.
        let knows_advance = slot % 4 != 3;
        let features = GAP + if knows_advance { ADVANCE } else { 0 };
        let hello = wire::Hello {
            version: 1,
            features,
            previous: previous.clone(),
            ..wire::Hello::default()
        };
        let dialect = match slot % 2 {
            0 => Dialect::Json,
            _ => Dialect::Proto,
        };
        let token = token(TENANTS[tenant_of(slot)], user_of(slot));
        let client = Client::connect(&self.broker, &token, dialect, slot % 4 < 2, hello).await;
        let own = &mut self.slots[slot];
        own.previous.insert(0, client.connection);
        own.who = Who {
            ids: [vec![client.connection], previous].concat(),
            knows_advance,
        };
        own.client = Some(client);
    }

    /// The connection ends without a word, whatever is on its way.
    async fn drop_client(&mut self, slot: usize) {
        if self.slots[slot].client.take().is_none() {
            return;
        }
        for room in 0..ROOMS.len() {
            self.leave(slot, room, true);
        }
        let own = &mut self.slots[slot];
        own.numbers.clear();
        own.view = None;
        let slots = self.slots.iter().enumerate();
        let connected = slots
            .filter(|(other, own)| tenant_of(*other) == tenant_of(slot) && own.client.is_some())
            .count();
        let hub = self.broker.server.hub().clone();
        let tenant = hub.tenants.get(TENANTS[tenant_of(slot)]).expect("a tenant");
        eventually(|| tenant.connections() == connected, "the broker notices the end").await;
    }

    /// The model's side of leaving. Who was lost keeps its position.
    fn leave(&mut self, slot: usize, room: usize, lost: bool) {
        let tenant = tenant_of(slot);
        let own = &mut self.slots[slot];
        let Some(sub) = own.subs.remove(&room) else {
            return;
        };
        if let Some(epoch) = self.rooms[tenant][room].epoch {
            own.positions.insert(room, (epoch, sub.after));
        }
        if room == SHOWN {
            own.view = None;
            self.rolls[tenant].exit(user_of(slot), lost && GRACE_MS[tenant] > 0);
        }
    }

    async fn subscribe(&mut self, slot: usize, room: usize, since: &Since, mut sub: Sub, watch: bool) {
        let tenant = tenant_of(slot);
        let (head, first) = (self.rooms[tenant][room].head(), self.rooms[tenant][room].first());
        let remembered = self.slots[slot].positions.get(&room).copied();
        let (epoch, seq, recent) = match (since, remembered, self.rooms[tenant][room].epoch) {
            (Since::Remembered, Some((epoch, seq)), _) => (epoch, seq, 0),
            (Since::Wrong, _, Some(epoch)) => (epoch, head + 1, 0),
            (Since::Wrong, _, None) => (7, 0, 0),
            (Since::Recent(recent), ..) => (0, 0, *recent),
            (Since::Plain | Since::Remembered, ..) => (0, 0, 0),
        };
        let plain = epoch == 0
            && recent == 0
            && !watch
            && sub.policy == Policy::Reliable
            && sub.events.is_empty()
            && sub.keys.is_empty();
        let subscription = wire::Subscription {
            room: ROOMS[room].into(),
            epoch,
            seq,
            recent,
            delivery: match sub.policy {
                Policy::Reliable => wire::Delivery::Reliable,
                Policy::Latest => wire::Delivery::Latest,
                Policy::DropOldest => wire::Delivery::DropOldest,
                Policy::Sample => wire::Delivery::Sample,
            }
            .into(),
            sample_ms: if sub.policy == Policy::Sample { 10 } else { 0 },
            events: sub.events.clone(),
            keys: sub.keys.clone(),
            presence: if watch {
                wire::Watch::Users
            } else {
                wire::Watch::None
            }
            .into(),
        };
        let request = match plain {
            true => wire::Subscribe {
                rooms: vec![ROOMS[room].into()],
                ..wire::Subscribe::default()
            },
            false => wire::Subscribe {
                subscriptions: vec![subscription],
                ..wire::Subscribe::default()
            },
        };
        let outcome = self.ask(slot, Request::Subscribe(request)).await;
        if watch && !self.rolls[tenant].on {
            assert!(
                matches!(&outcome, Outcome::Error(error) if error.name == "conflict"),
                "{outcome:?}"
            );
            return;
        }
        let Outcome::Subscribed(subscribed) = outcome else {
            panic!("{outcome:?}");
        };
        let [told] = &subscribed.rooms[..] else {
            panic!("{subscribed:?}");
        };
        assert_eq!((told.name.as_str(), told.head), (ROOMS[room], head));
        self.rooms[tenant][room].check_epoch(told.epoch);
        let own = &mut self.slots[slot];
        own.numbers.insert(told.room, room);
        if let Some(joined) = own.subs.get_mut(&room) {
            joined.stands_at(&self.rooms[tenant][room], told.seq);
        } else {
            use wire::Recovery::{Continued, None, Partial, Reset};
            let expected = match (epoch, recent) {
                (0, 0) => (None, head, 0, 0),
                (0, recent) => (None, (head.saturating_sub(recent.into())).max(first - 1), 0, 0),
                _ if Some(epoch) != self.rooms[tenant][room].epoch || seq > head => (Reset, head, 0, 0),
                _ if seq + 1 < first => (Partial, first - 1, seq + 1, first - 1),
                _ => (Continued, seq, 0, 0),
            };
            assert_eq!(
                (told.recovery(), told.seq, told.lost_from, told.lost_to),
                expected,
                "epoch {epoch}, seq {seq}, recent {recent}; {first} to {head} are kept"
            );
            sub.from = told.seq;
            sub.after = told.seq;
            own.subs.insert(room, sub);
            if room == SHOWN {
                self.rolls[tenant].enter(user_of(slot));
            }
        }
        if watch && self.slots[slot].view.is_none() {
            // A watcher takes pages, and lays later changes over them.
            self.slots[slot].view = Some(View::default());
            self.take_page(slot).await;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one publish")]
    async fn publish(
        &mut self,
        slot: usize,
        room: usize,
        event: &str,
        key: &str,
        myself: bool,
        exclude: Vec<u64>,
        repeat: Option<usize>,
    ) {
        let (tenant, user) = (tenant_of(slot), user_of(slot));
        let mark = self.mark(tenant);
        let repeat = repeat.map(|repeat| format!("i{repeat}"));
        let publish = wire::Publish {
            room: ROOMS[room].into(),
            event: event.into(),
            payload: Some(wire::publish::Payload::Text(mark.clone())),
            idempotency_key: repeat.clone().unwrap_or_default(),
            exclude_sender: myself,
            exclude: exclude.clone(),
            want_receivers: true,
            key: key.into(),
            ..wire::Publish::default()
        };
        let id = self.slots[slot].who.ids[0];
        let expected = match &repeat {
            Some(repeat) => {
                let repeats = &self.rooms[tenant][room].repeats;
                repeats.get(&(user.to_owned(), repeat.clone())).copied()
            }
            None => None,
        };
        let seq = expected.unwrap_or_else(|| {
            let mut excluded = exclude;
            excluded.extend(myself.then_some(id));
            let said = Said {
                event: event.into(),
                key: key.into(),
                mark,
                excluded,
                user: user.into(),
            };
            let log = &mut self.rooms[tenant][room];
            let seq = log.publish(said);
            if let Some(repeat) = repeat {
                log.repeats.insert((user.to_owned(), repeat), seq);
            }
            seq
        });
        let others = self.slots.iter().enumerate();
        let receivers = others
            .filter(|(other, own)| tenant_of(*other) == tenant && own.subs.contains_key(&room))
            .filter(|(other, _)| !(myself && *other == slot))
            .count();
        let outcome = self.ask(slot, Request::Publish(publish)).await;
        let Outcome::Published(published) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((published.seq, published.repeated), (seq, expected.is_some()));
        if expected.is_none() {
            assert_eq!(published.receivers as usize, receivers);
        }
        self.rooms[tenant][room].check_epoch(published.epoch);
    }

    /// More at once than anyone takes who does not read.
    fn burst(&mut self, tenant: usize, room: usize) {
        let hub = self.broker.server.hub().clone();
        let to = hub.tenants.get(TENANTS[tenant]).expect("a tenant");
        for n in 0..BURST_MESSAGES {
            let (event, key) = (EVENTS[n as usize % 2], KEYS[n as usize % 3]);
            let mark = self.mark(tenant);
            let text = format!("{mark} {}", "x".repeat(BURST_BYTES));
            let draft = Draft {
                topic: key.into(),
                ..Draft::new(event.into(), Payload::text(text))
            };
            let accepted = hub
                .publish(&to, ROOMS[room], draft, Manner::default())
                .expect("published");
            let log = &mut self.rooms[tenant][room];
            log.burst = true;
            let seq = log.publish(Said {
                event: event.into(),
                key: key.into(),
                mark,
                excluded: Vec::new(),
                user: String::new(),
            });
            assert_eq!(accepted.seq.0, seq);
            log.check_epoch(accepted.epoch.0);
        }
    }

    async fn history(&mut self, slot: usize, room: usize, from: u64, backwards: bool, limit: u32) {
        let history = wire::History {
            room: ROOMS[room].into(),
            epoch: 0,
            from,
            backwards,
            limit,
        };
        let outcome = self.ask_page(slot, Request::History(history)).await;
        let Outcome::HistoryPage(page) = outcome else {
            panic!("{outcome:?}");
        };
        let log = &self.rooms[tenant_of(slot)][room];
        let (first, head) = (log.first(), log.head());
        let none = first > head;
        assert_eq!((page.first, page.head), (if none { 0 } else { first }, head));
        let expected: Vec<u64> = match backwards {
            false => (first.max(from + 1)..=head).collect(),
            true => {
                let end = if from == 0 { head + 1 } else { from.min(head + 1) };
                (first..end).rev().collect()
            }
        };
        let limit = if limit == 0 { 100 } else { limit as usize };
        let numbers: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        // A page ends for its bytes as well.
        assert!(
            numbers.len() <= limit && expected.starts_with(&numbers),
            "{numbers:?} of {expected:?}"
        );
        assert!(
            log.burst || numbers.len() == limit.min(expected.len()),
            "a page that is not full"
        );
        assert!(!numbers.is_empty() || expected.is_empty());
        assert_eq!(page.more, numbers.len() < expected.len());
        for entry in &page.entries {
            let said = log.get(entry.seq);
            let Some(wire::history_entry::Payload::Text(text)) = &entry.payload else {
                panic!("{entry:?}");
            };
            assert_eq!(
                (&entry.event, &entry.key, mark_of(text), &entry.user),
                (&said.event, &said.key, said.mark.as_str(), &said.user)
            );
        }
    }

    fn switch_presence(&mut self, tenant: usize, on: bool) {
        let was_on = std::mem::replace(&mut self.rolls[tenant].on, on);
        if was_on && !on {
            self.rolls[tenant].present.clear();
        }
        if on && !was_on {
            for slot in (0..SLOTS).filter(|&slot| tenant_of(slot) == tenant) {
                if self.slots[slot].subs.contains_key(&SHOWN) {
                    self.rolls[tenant].enter(user_of(slot));
                }
            }
        }
        self.configure(tenant);
    }

    async fn page(&mut self, slot: usize) -> Option<wire::PresencePage> {
        let presence = wire::Presence {
            room: ROOMS[SHOWN].into(),
            ..wire::Presence::default()
        };
        match self.ask_page(slot, Request::Presence(presence)).await {
            Outcome::PresencePage(page) => Some(page),
            Outcome::Error(error) if error.name == "conflict" => None,
            other => panic!("{other:?}"),
        }
    }

    /// A watcher begins anew from a page.
    async fn take_page(&mut self, slot: usize) {
        if let Some(page) = self.page(slot).await {
            let names = page.page.iter().map(|present| present.user.clone()).collect();
            self.slots[slot].view = Some(View {
                version: page.version,
                names,
                truncated: false,
            });
        }
    }

    /// Who is there is who the model says, as soon as the shards have heard of a change of class.
    async fn check_roll(&mut self, slot: usize) {
        let tenant = tenant_of(slot);
        let began = Instant::now();
        loop {
            let page = self.page(slot).await;
            assert_eq!(page.is_some(), self.rolls[tenant].on);
            let Some(page) = page else { return };
            let seen: Vec<_> = page
                .page
                .iter()
                .map(|present| (present.user.clone(), present.connections))
                .collect();
            let expected = self.rolls[tenant].names();
            let connections: u32 = expected.iter().map(|(_, connections)| connections).sum();
            if seen == expected && (page.users as usize, page.connections) == (expected.len(), connections) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{seen:?} are there, and should be {expected:?}"
            );
            tokio::task::yield_now().await;
        }
    }

    async fn ask(&mut self, slot: usize, request: Request) -> Outcome {
        let client = self.slots[slot].client.as_mut().expect("it is connected");
        let (outcome, before) = client.ask(request).await;
        for message in before {
            self.take(slot, message);
        }
        outcome
    }

    /// Asks for a page. One who has not read what he was sent is asked to come again; asking, he reads.
    async fn ask_page(&mut self, slot: usize, request: Request) -> Outcome {
        let began = Instant::now();
        loop {
            match self.ask(slot, request.clone()).await {
                Outcome::Error(error) if error.name == "overloaded" => {
                    let may_lag = self.rooms[tenant_of(slot)].iter().any(|room| room.burst);
                    assert!(may_lag && began.elapsed() < PATIENCE, "{error:?}");
                }
                outcome => return outcome,
            }
        }
    }

    /// One message of the broker that nobody asked for.
    fn take(&mut self, slot: usize, message: Message) {
        let own = &mut self.slots[slot];
        let rooms = &self.rooms[tenant_of(slot)];
        match message {
            Message::Push(push) => {
                let (sub, room) = own.sub(rooms, push.room);
                let Some(wire::push::Payload::Text(text)) = &push.payload else {
                    panic!("{push:?}");
                };
                sub.push(room, push.seq, &push.event, &push.key, mark_of(text));
            }
            Message::Advance(advance) => {
                let (sub, room) = own.sub(rooms, advance.room);
                sub.advance(room, advance.seq);
            }
            Message::Gap(gap) => {
                let (sub, room) = own.sub(rooms, gap.room);
                sub.gap(room, gap.from, gap.to);
            }
            Message::PresenceChange(change) => {
                assert_eq!(own.numbers.get(&change.room), Some(&SHOWN));
                // A change of another tenant would name one whom nobody here knows; all must be of this model's users.
                let Some(view) = &mut own.view else { return };
                if change.version <= view.version {
                    return;
                }
                view.truncated |= change.truncated;
                for user in change.joined.into_iter().map(|present| present.user) {
                    if !view.names.contains(&user) {
                        view.names.push(user);
                    }
                }
                view.names.retain(|name| !change.left.contains(name));
            }
            other => panic!("nobody asked for this: {other:?}"),
        }
    }

    fn mark(&mut self, tenant: usize) -> String {
        self.n += 1;
        format!("{}/{}", TENANTS[tenant], self.n)
    }

    /// Until the shards have delivered what they have: what is done next has nothing in between.
    async fn settle(&self) {
        let hub = self.broker.server.hub();
        eventually(
            || hub.shards.iter().all(|mailbox| mailbox.used() == 0),
            "the shards take all",
        )
        .await;
    }

    /// All read on until they have what they are owed, and nothing comes after it.
    pub(crate) async fn check_end(&mut self) {
        for slot in 0..SLOTS {
            if self.slots[slot].client.is_none() {
                continue;
            }
            let rooms = &self.rooms[tenant_of(slot)];
            let is_owed = |own: &Slot, rooms: &[RoomLog; ROOMS.len()]| {
                own.subs.iter().any(|(room, sub)| !sub.is_complete(&rooms[*room]))
            };
            let mut owed = is_owed(&self.slots[slot], rooms);
            while owed {
                let client = self.slots[slot].client.as_mut().expect("it is connected");
                let message = client.receive().await;
                self.take(slot, message);
                owed = is_owed(&self.slots[slot], &self.rooms[tenant_of(slot)]);
            }
            let outcome = self.ask(slot, Request::Ping(wire::Ping {})).await;
            assert!(matches!(outcome, Outcome::Pong(_)), "{outcome:?}");
            for (room, sub) in &self.slots[slot].subs {
                sub.check_end(&self.rooms[tenant_of(slot)][*room]);
            }
            self.check_roll(slot).await;
            self.check_view(slot).await;
        }
        let hub = self.broker.server.hub();
        for (number, tenant) in TENANTS.iter().enumerate() {
            let tenant = hub.tenants.get(tenant).expect("a tenant");
            let used = self.rooms[number].iter().filter(|room| room.epoch.is_some());
            assert_eq!(tenant.rooms.len(), used.count());
        }
    }

    /// Who watches ends with the names that are there.
    async fn check_view(&mut self, slot: usize) {
        let tenant = tenant_of(slot);
        if !self.rolls[tenant].on {
            return;
        }
        loop {
            match &mut self.slots[slot].view {
                None => return,
                Some(view) if view.truncated => self.take_page(slot).await,
                Some(view) => {
                    view.names.sort();
                    let names = self.rolls[tenant].names();
                    if view.names.iter().eq(names.iter().map(|(name, _)| name)) {
                        return;
                    }
                    let client = self.slots[slot].client.as_mut().expect("it is connected");
                    let message = client.receive().await;
                    self.take(slot, message);
                }
            }
        }
    }
}

/// What comes before the padding.
fn mark_of(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Waits for what happens by itself.
async fn eventually(mut is_so: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}
