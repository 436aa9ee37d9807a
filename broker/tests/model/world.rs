//! The broker, its clients and the model side by side; every operation is done to both, and every answer compared.

mod op;
mod requests;
mod roll;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cauce_broker::auth::Pattern;
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Keep, PresenceMode, RoomClass};
use cauce_protocol::wire;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::server_frame::Message;

pub(crate) use self::op::{Op, Since};
use self::roll::{Roll, View};
use crate::client::{Client, Dialect};
use crate::oracle::{RoomLog, Sub, Who};
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

/// How long one who was lost is held to be present: for ever in one tenant, not at all in the other.
const GRACE_MS: [u64; TENANTS.len()] = [3_600_000, 0];

const ADVANCE: u64 = 1;
const GAP: u64 = 2;

fn tenant_of(slot: usize) -> usize {
    slot / (SLOTS / 2)
}

fn user_of(slot: usize) -> &'static str {
    USERS[slot % (SLOTS / 2)]
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
