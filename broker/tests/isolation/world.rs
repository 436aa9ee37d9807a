//! The broker with two tenants that are alike to the last name, and the model that says what each peer must receive: every
//! operation is done to both. What a tenant says carries its canary, so that nothing of the other can pass unseen.

use std::collections::HashMap;

use cauce_broker::Subscription;
use cauce_protocol::Payload;
use serde_json::{Value, json};

use crate::support::raw::Raw;
use crate::support::{Broker, PATIENCE, Peer, full_token};

pub(crate) const TENANTS: [&str; 2] = ["a", "b"];
pub(crate) const ROOMS: [&str; 4] = ["r0", "r1", "$devices", "$device:SAME01"];
const DEVICE: &str = "SAME01";
pub(crate) const USERS: [&str; 2] = ["u0", "u1"];
pub(crate) const ROLES: [&str; 2] = ["role0", "role1"];
/// What the tenants' devices say first; what they say later differs by tenant too.
const FIRST_POWER: [f64; TENANTS.len()] = [0.125, 0.375];
/// Behind the point of all that a tenant's device says.
const POWER_MARKS: [[f64; 2]; TENANTS.len()] = [[FIRST_POWER[0], 0.25], [FIRST_POWER[1], 0.5]];
/// User and role of a tenant's peers, by their number.
pub(crate) const PEERS: [(usize, usize); 3] = [(0, 0), (0, 0), (1, 1)];

/// Both tenants use their quotas to the full: if one counted for the other, something would be refused.
const QUOTAS: &str = "limits.rooms_per_tenant=4\nlimits.connections_per_tenant=3\nlimits.connections_per_user=2\nlimits.devices_per_tenant=1\nthreads.client_shards=3";

#[derive(Clone, Debug)]
pub(crate) enum To {
    User(usize),
    Role(usize),
    /// A peer of either tenant, by its number among all.
    Peer(usize),
    /// An id that nobody has.
    Nobody,
    Tenant,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Subscribe {
        peer: usize,
        room: usize,
    },
    Unsubscribe {
        peer: usize,
        room: usize,
    },
    Publish {
        peer: usize,
        room: usize,
        exclude: Vec<usize>,
        myself: bool,
    },
    Send {
        peer: usize,
        to: To,
        exclude: Vec<usize>,
        myself: bool,
    },
    Handle {
        tenant: usize,
        room: usize,
    },
    Device {
        tenant: usize,
    },
}

/// What must happen.
#[derive(Default)]
struct Model {
    /// Last number of each room that exists, by tenant and name.
    rooms: HashMap<(usize, usize), u64>,
    /// Who has joined which room.
    joined: Vec<Vec<usize>>,
    /// What each tenant's device said last.
    power: [f64; TENANTS.len()],
    /// What each peer must receive, in order.
    expected: Vec<Vec<Value>>,
}

fn tenant_of(peer: usize) -> usize {
    peer / PEERS.len()
}

impl Model {
    /// A message goes to a room of a tenant. Answers its number and how many listen.
    fn publish(&mut self, tenant: usize, room: usize, excluded: &[usize], frame: &Value) -> (u64, usize) {
        let seq = self.rooms.entry((tenant, room)).or_insert(0);
        *seq += 1;
        let mut listeners = usize::from(ROOMS[room] == "$devices"); // The tap.
        for peer in 0..self.joined.len() {
            if tenant_of(peer) == tenant && self.joined[peer].contains(&room) {
                listeners += 1;
                if !excluded.contains(&peer) {
                    let mut frame = frame.clone();
                    frame["seq"] = json!(*seq);
                    frame["in"] = json!(ROOMS[room]);
                    self.expected[peer].push(frame);
                }
            }
        }
        (*seq, listeners)
    }

    /// A peer has just joined a room: of a room of devices it is told what they are like, and only those of its own tenant.
    fn tell_states(&mut self, peer: usize, room: usize) {
        if ROOMS[room].starts_with('$') {
            let state = json!({"state of": DEVICE, "in": ROOMS[room], "power": self.power[tenant_of(peer)]});
            self.expected[peer].push(state);
        }
    }
}

/// Nothing anywhere in a frame, whatever its kind, was said in or by a device of another tenant.
fn assert_own(tenant: usize, part: &Value) {
    match part {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            match (name.as_str(), value) {
                ("canary", said) => assert_eq!(said, TENANTS[tenant]),
                ("apower", power) => {
                    let power = power.as_f64().expect("a number");
                    assert!(POWER_MARKS[tenant].contains(&power.fract()), "{power} in {part}");
                }
                _ => {}
            }
            assert_own(tenant, value);
        }),
        Value::Array(items) => items.iter().for_each(|item| assert_own(tenant, item)),
        _ => {}
    }
}

/// Waits until the device has said everywhere what was just heard in `$devices`: its own room comes behind that, in one step with
/// it under the device's lock. Who joined there in between would be told too.
fn pass_device(broker: &Broker, tenant: usize) {
    let hub = broker.server.hub();
    let tenant = hub.tenants.get(TENANTS[tenant]).expect("a tenant");
    drop(tenant.device(DEVICE).expect("the device").lock());
}

/// Two tenants on one broker, as they are.
pub(crate) struct World {
    broker: Broker,
    peers: Vec<Peer>,
    /// Names of a peer's rooms by their numbers.
    names: Vec<HashMap<u64, String>>,
    received: Vec<Vec<Value>>,
    plugs: Vec<Raw>,
    taps: Vec<Subscription>,
    model: Model,
    /// Rises with each operation: canaries are never the same twice.
    n: u64,
}

impl World {
    pub(crate) async fn start() -> Self {
        let broker = Broker::with(QUOTAS);
        let (mut peers, mut plugs, mut taps) = (Vec::new(), Vec::new(), Vec::new());
        let mut model = Model {
            power: FIRST_POWER,
            ..Model::default()
        };
        for (number, tenant) in TENANTS.iter().enumerate() {
            for (user, role) in PEERS {
                peers.push(broker.join(&full_token(tenant, USERS[user], ROLES[role])).await);
            }
            let mut tap = broker
                .server
                .handle()
                .tenant(tenant)
                .expect("a tenant")
                .subscribe("$devices")
                .expect("a tap");
            let mut plug = Raw::connect(broker.address).await;
            let credential = broker.device_token(tenant, None);
            plug.upgrade(&format!("/shelly?token={}", credential.expose()), "")
                .await;
            plug.say(json!({"src": "plug-same01", "method": "NotifyFullStatus", "params": {"ts": 1.0, "switch:0": {"id": 0, "apower": FIRST_POWER[number]}}})).await;
            assert_eq!(tap.next().await.expect("an update").seq.0, 1);
            pass_device(&broker, number);
            model.rooms.insert((number, 2), 1);
            plugs.push(plug);
            taps.push(tap);
        }
        let count = peers.len();
        model.joined = vec![Vec::new(); count];
        model.expected = vec![Vec::new(); count];
        Self {
            broker,
            peers,
            names: vec![HashMap::new(); count],
            received: vec![Vec::new(); count],
            plugs,
            taps,
            model,
            n: 0,
        }
    }

    /// Asks as a peer; what comes before the answer is noted.
    async fn ask(&mut self, peer: usize, request: Value) -> Value {
        let (reply, before) = self.peers[peer].ask(request).await;
        before
            .iter()
            .chain([&reply])
            .for_each(|frame| assert_own(tenant_of(peer), frame));
        before.into_iter().for_each(|frame| self.note(peer, &frame));
        reply
    }

    /// Brings a frame into the model's form.
    fn note(&mut self, peer: usize, frame: &Value) {
        let noted = if let Some(direct) = frame.get("direct") {
            json!({"direct": direct["json"]})
        } else if let Some(state) = frame.get("state") {
            let power = &state["json"]["state"]["switch:0"]["apower"];
            json!({"state of": state["key"], "in": self.room(peer, state), "power": power})
        } else {
            let push = &frame["push"];
            let room = self.room(peer, push);
            let said = match push["event"].as_str() {
                Some("device-update") => json!({"power": push["json"]["state"]["switch:0"]["apower"]}),
                _ => push["json"].clone(),
            };
            json!({"in": room, "seq": push["seq"], "said": said})
        };
        self.received[peer].push(noted);
    }

    /// The name of the room that a frame is of.
    fn room(&self, peer: usize, frame: &Value) -> String {
        let number = frame["room"].as_u64().unwrap_or(0);
        self.names[peer].get(&number).cloned().unwrap_or_default()
    }

    fn canary(&mut self, tenant: usize) -> Value {
        self.n += 1;
        json!({"canary": TENANTS[tenant], "n": self.n})
    }

    fn ids(&self, peers: &[usize]) -> Vec<u64> {
        peers.iter().map(|&peer| self.peers[peer].connection).collect()
    }

    pub(crate) async fn perform(&mut self, op: Op) {
        match op {
            Op::Subscribe { peer, room } => {
                let reply = self
                    .ask(peer, json!({"id": 1, "subscribe": {"rooms": [ROOMS[room]]}}))
                    .await;
                let position = &reply["subscribed"]["rooms"][0];
                let seq = *self.model.rooms.entry((tenant_of(peer), room)).or_insert(0);
                assert_eq!(position["seq"], seq, "{reply}");
                if !self.model.joined[peer].contains(&room) {
                    self.model.joined[peer].push(room);
                    self.model.tell_states(peer, room);
                }
                self.names[peer].insert(position["room"].as_u64().expect("a number"), ROOMS[room].into());
            }
            Op::Unsubscribe { peer, room } => {
                let reply = self
                    .ask(peer, json!({"id": 1, "unsubscribe": {"rooms": [ROOMS[room]]}}))
                    .await;
                assert!(reply["unsubscribed"].is_object(), "{reply}");
                self.model.joined[peer].retain(|&joined| joined != room);
            }
            Op::Publish {
                peer,
                room,
                mut exclude,
                myself,
            } => {
                let tenant = tenant_of(peer);
                let said = self.canary(tenant);
                let publish = json!({"id": 1, "publish": {
                    "room": ROOMS[room], "event": "e", "json": said, "exclude": self.ids(&exclude), "exclude_sender": myself, "want_receivers": true,
                }});
                let reply = self.ask(peer, publish).await;
                if ROOMS[room].starts_with('$') {
                    // These are the broker's own, whatever a token grants.
                    assert_eq!(reply["error"]["name"], "forbidden");
                    return;
                }
                let counted_out = usize::from(myself && self.model.joined[peer].contains(&room));
                exclude.extend(myself.then_some(peer));
                let (seq, listeners) = self.model.publish(tenant, room, &exclude, &json!({"said": said}));
                assert_eq!(
                    (&reply["published"]["seq"], &reply["published"]["receivers"]),
                    (&json!(seq), &json!(listeners - counted_out)),
                    "{reply}"
                );
                self.drain_tap(tenant, room, seq).await;
            }
            Op::Send {
                peer,
                to,
                mut exclude,
                myself,
            } => {
                let tenant = tenant_of(peer);
                let said = self.canary(tenant);
                let mut send = match to {
                    To::User(user) => json!({"user": USERS[user]}),
                    To::Role(role) => json!({"role": ROLES[role]}),
                    To::Peer(other) => json!({"connection": self.peers[other].connection}),
                    To::Nobody => json!({"connection": 64 * 12_345}),
                    To::Tenant => json!({"tenant": true}),
                };
                send["event"] = json!("e");
                send["json"] = said.clone();
                send["exclude"] = json!(self.ids(&exclude));
                send["exclude_sender"] = json!(myself);
                let reply = self.ask(peer, json!({"id": 1, "send": send})).await;
                // The same answer whether the connection is one's own, another tenant's, or nobody's.
                assert_eq!(reply, json!({"id": 1, "sent": {}}));
                exclude.extend(myself.then_some(peer));
                for other in (0..self.peers.len())
                    .filter(|&other| tenant_of(other) == tenant && !exclude.contains(&other))
                {
                    let (user, role) = PEERS[other % PEERS.len()];
                    let meant = match to {
                        To::User(to) => to == user,
                        To::Role(to) => to == role,
                        To::Peer(to) => to == other,
                        To::Nobody => false,
                        To::Tenant => true,
                    };
                    if meant {
                        self.model.expected[other].push(json!({"direct": said}));
                    }
                }
            }
            Op::Handle { tenant, room } => {
                let said = self.canary(tenant);
                let a = self
                    .broker
                    .server
                    .handle()
                    .tenant(TENANTS[tenant])
                    .expect("a tenant");
                let accepted = a
                    .publish(ROOMS[room], "e", Payload::json(&said).expect("JSON"))
                    .expect("published");
                let (seq, listeners) = self.model.publish(tenant, room, &[], &json!({"said": said}));
                assert_eq!((accepted.seq.0, accepted.receivers as usize), (seq, listeners));
                self.drain_tap(tenant, room, seq).await;
            }
            Op::Device { tenant } => {
                self.n += 1;
                let power = self.n as f64 + POWER_MARKS[tenant][1];
                let params = json!({"ts": 2.0, "switch:0": {"id": 0, "apower": power}});
                self.plugs[tenant]
                    .say(json!({"src": "plug-same01", "method": "NotifyStatus", "params": params}))
                    .await;
                let said = json!({"said": {"power": power}});
                self.model.power[tenant] = power;
                let (seq, _) = self.model.publish(tenant, 2, &[], &said);
                if self.model.rooms.contains_key(&(tenant, 3)) {
                    self.model.publish(tenant, 3, &[], &said);
                }
                self.drain_tap(tenant, 2, seq).await;
                pass_device(&self.broker, tenant);
            }
        }
        self.settle().await;
    }

    async fn drain_tap(&mut self, tenant: usize, room: usize, seq: u64) {
        if ROOMS[room] == "$devices" {
            let message = tokio::time::timeout(PATIENCE, self.taps[tenant].next())
                .await
                .expect("in time")
                .expect("a message");
            assert_eq!(message.seq.0, seq);
        }
    }

    /// Until the shards have delivered what they have: who leaves or joins next has nothing in between.
    async fn settle(&self) {
        while self
            .broker
            .server
            .hub()
            .shards
            .iter()
            .any(|mailbox| mailbox.used() > 0)
        {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn check(&mut self) {
        for peer in 0..self.peers.len() {
            self.ask(peer, json!({"id": 2, "ping": {}})).await;
            assert_eq!(self.received[peer], self.model.expected[peer], "peer {peer}");
        }
        let hub = self.broker.server.hub();
        for (number, tenant) in TENANTS.iter().enumerate() {
            let rooms = self
                .model
                .rooms
                .keys()
                .filter(|(tenant, _)| *tenant == number)
                .count();
            let tenant = hub.tenants.get(tenant).expect("a tenant");
            assert_eq!(
                (tenant.rooms.len(), tenant.connections(), tenant.devices_len()),
                (rooms, PEERS.len(), 1)
            );
        }
    }
}
