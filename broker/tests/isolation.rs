//! Two tenants with the same rooms, users, roles and devices: whatever either does, each peer receives exactly what a model
//! of its own tenant says, and nothing of the other's.

mod support;

use std::collections::HashMap;

use cauce_broker::Subscription;
use cauce_protocol::Payload;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::raw::Raw;
use support::{Broker, PATIENCE, Peer, claims, full_token, sign_for};

const TENANTS: [&str; 2] = ["a", "b"];
const ROOMS: [&str; 4] = ["r0", "r1", "$devices", "$device:SAME01"];
const DEVICE: &str = "SAME01";
const USERS: [&str; 2] = ["u0", "u1"];
const ROLES: [&str; 2] = ["role0", "role1"];
/// What the tenants' devices say first; what they say later differs by tenant too.
const FIRST_POWER: [f64; TENANTS.len()] = [0.125, 0.375];
/// Behind the point of all that a tenant's device says.
const POWER_MARKS: [[f64; 2]; TENANTS.len()] = [[FIRST_POWER[0], 0.25], [FIRST_POWER[1], 0.5]];
/// User and role of a tenant's peers, by their number.
const PEERS: [(usize, usize); 3] = [(0, 0), (0, 0), (1, 1)];

/// Both tenants use their quotas to the full: if one counted for the other, something would be refused.
const QUOTAS: &str = "limits.rooms_per_tenant=4\nlimits.connections_per_tenant=3\nlimits.connections_per_user=2\nlimits.devices_per_tenant=1\nthreads.client_shards=3";

#[derive(Clone, Debug)]
enum To {
    User(usize),
    Role(usize),
    /// A peer of either tenant, by its number among all.
    Peer(usize),
    /// An id that nobody has.
    Nobody,
    Tenant,
}

#[derive(Clone, Debug)]
enum Op {
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

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..TENANTS.len() * PEERS.len();
    let exclude = prop::collection::vec(peer.clone(), 0..3);
    let to = prop_oneof![
        (0..USERS.len()).prop_map(To::User),
        (0..ROLES.len()).prop_map(To::Role),
        peer.clone().prop_map(To::Peer),
        Just(To::Nobody),
        Just(To::Tenant),
    ];
    let room = 0..ROOMS.len();
    prop_oneof![
        4 => (peer.clone(), room.clone()).prop_map(|(peer, room)| Op::Subscribe { peer, room }),
        1 => (peer.clone(), room.clone()).prop_map(|(peer, room)| Op::Unsubscribe { peer, room }),
        4 => (peer.clone(), room.clone(), exclude.clone(), any::<bool>())
            .prop_map(|(peer, room, exclude, myself)| Op::Publish { peer, room, exclude, myself }),
        4 => (peer, to, exclude, any::<bool>()).prop_map(|(peer, to, exclude, myself)| Op::Send { peer, to, exclude, myself }),
        1 => (0..TENANTS.len(), room).prop_map(|(tenant, room)| Op::Handle { tenant, room }),
        2 => (0..TENANTS.len()).prop_map(|tenant| Op::Device { tenant }),
    ]
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

/// Two tenants on one broker, as they are.
struct World {
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
    async fn start() -> Self {
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

    async fn perform(&mut self, op: Op) {
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
                // The device's own room is written to behind that, in one step with it under the device's lock.
                let device = self
                    .broker
                    .server
                    .hub()
                    .tenants
                    .get(TENANTS[tenant])
                    .expect("a tenant")
                    .device(DEVICE);
                drop(device.expect("the device").lock());
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

    async fn check(&mut self) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_peer_receives_what_the_model_of_its_own_tenant_says(ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::start().await;
            for op in ops {
                world.perform(op).await;
            }
            world.check().await;
        });
    }
}

#[tokio::test]
async fn one_tenants_full_quotas_leave_the_others_alone() {
    let broker = Broker::with(
        "limits.connections_per_tenant=2\nlimits.connections_per_user=1\nlimits.rooms_per_tenant=2\nlimits.devices_per_tenant=1",
    );
    let mut a = broker.join(&full_token("a", "ann", "staff")).await;
    // The user is full, then the tenant; both of the other tenant are not.
    assert_eq!(
        broker
            .knock(&full_token("a", "ann", "staff"))
            .await
            .farewell()
            .await,
        (4102, 4102)
    );
    let _bob = broker.join(&full_token("a", "bob", "staff")).await;
    assert_eq!(
        broker
            .knock(&full_token("a", "carl", "staff"))
            .await
            .farewell()
            .await,
        (4102, 4102)
    );
    let mut b = broker.join(&full_token("b", "ann", "staff")).await;
    a.subscribe(&["one", "two"]).await;
    let refused = a.ask(json!({"id": 3, "subscribe": {"rooms": ["three"]}})).await.0;
    assert_eq!(refused["error"]["name"], "quota_exceeded");
    assert_eq!(b.subscribe(&["three", "four"]).await.len(), 2);
    for tenant in TENANTS {
        let credential = broker.device_token(tenant, None);
        for (src, refused) in [("plug-d1", false), ("plug-d2", true)] {
            let mut plug = Raw::connect(broker.address).await;
            plug.upgrade(&format!("/shelly?token={}", credential.expose()), "")
                .await;
            plug.say(json!({"src": src, "method": "NotifyFullStatus", "params": {"sys": {}}}))
                .await;
            if refused {
                assert_eq!(plug.farewell().await.1, 1013);
            } else {
                assert_eq!(plug.hear_json().await["method"], "Shelly.GetDeviceInfo");
            }
        }
    }
    // A place that was left is free again.
    drop(a);
    let free = async {
        while broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .connections()
            == 2
        {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free)
        .await
        .expect("the place comes back");
    broker.join(&full_token("a", "ann", "staff")).await;
}

#[tokio::test]
async fn rights_of_one_name_are_of_one_tenant() {
    let broker = Broker::start();
    // The same user may read in one tenant and nothing in the other; keys of idempotency do not meet either.
    let mut reader = broker.join(&sign_for("a", claims("ann", &["news"]))).await;
    let mut other = broker.join(&sign_for("b", claims("ann", &["else"]))).await;
    assert_eq!(reader.subscribe(&["news"]).await.len(), 1);
    let refused = other
        .ask(json!({"id": 1, "subscribe": {"rooms": ["news"]}}))
        .await
        .0;
    assert_eq!(refused["error"]["name"], "forbidden");
    let publish =
        |room: &str| json!({"id": 2, "publish": {"room": room, "event": "e", "idempotency_key": "same"}});
    for (peer, room) in [(&mut reader, "news"), (&mut other, "else")] {
        let reply = peer.ask(publish(room)).await.0;
        assert_eq!(
            (&reply["published"]["seq"], &reply["published"]["repeated"]),
            (&json!(1), &json!(false))
        );
    }
}
