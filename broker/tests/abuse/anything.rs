//! Every request there is, with values that no honest client would send, in any order, by many at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use cauce_broker::auth::Pattern;
use cauce_broker::hub::{ClassRule, RoomClasses, TenantSettings};
use cauce_broker::rooms::{Durability, Keep, PresenceMode, RoomClass};
use cauce_broker::{Persistence, Server};
use serde_json::{Map, Value, json};

use crate::Neighbours;
use crate::support::{Broker, Peer, claims, config, full_token, sign_for};

/// Requests of one peer.
const REQUESTS: u32 = 1_000;

/// The rooms that strange requests name: few, so that they meet.
const ROOMS: [&str; 7] = ["d1", "d2", "m1", "m2", "$devices", "$device:AABB01", "$admin"];

/// Numbers that are the same in every run: what fails can be made to fail again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("small")
    }

    fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.roll(values.len())]
    }

    fn number(&mut self) -> u64 {
        let odd = [
            0,
            1,
            2,
            7,
            99,
            1_000,
            1_001,
            u64::from(u32::MAX),
            (1 << 53) - 1,
            (1 << 53) - 2,
        ];
        match self.roll(4) {
            0 => self.roll(300) as u64,
            _ => *self.one_of(&odd),
        }
    }

    fn small(&mut self) -> u64 {
        match self.roll(3) {
            0 => u64::from(u32::MAX),
            1 => self.roll(20) as u64,
            _ => 0,
        }
    }

    fn room(&mut self) -> String {
        match self.roll(20) {
            0 => "é☃\u{1F980}\u{202E}".into(),
            1 => "x".repeat(200),
            2 => "x".repeat(201),
            3 => String::new(),
            4 => "$method:m".into(),
            5 => "$operator".into(),
            _ => (*self.one_of(&ROOMS)).into(),
        }
    }

    fn rooms(&mut self) -> Vec<String> {
        (0..1 + self.roll(3)).map(|_| self.room()).collect()
    }

    fn user(&mut self) -> String {
        (*self.one_of(&["fuzz-0", "fuzz-1", "reader", "nobody", "", "\u{0}", "ñandú"])).into()
    }

    fn method(&mut self) -> String {
        (*self.one_of(&["m", "m.n", "m*", "*", "**", "", "m m", "Switch.Set"])).into()
    }

    fn payload(&mut self, request: &mut Value) {
        match self.roll(6) {
            0 => request["text"] = "\u{1}\u{2028}😀".repeat(1 + self.roll(200)).into(),
            1 => request["binary"] = "AAECAw==".into(),
            2 => request["json"] = json!([{"a": [null, 1e300, -0.0, "x"]}]),
            3 => request["json"] = json!("x".repeat(1 + self.roll(50_000))),
            _ => request["json"] = json!({"n": self.number()}),
        }
    }

    fn subscription(&mut self, epochs: &BTreeMap<String, u64>) -> Value {
        let room = self.room();
        let mut wanted = json!({"room": room});
        match self.roll(4) {
            0 => {
                let epoch = epochs.get(&room).copied().unwrap_or(5);
                wanted["epoch"] = epoch.into();
                wanted["seq"] = self.number().into();
            }
            1 => wanted["recent"] = self.small().into(),
            _ => {}
        }
        if self.roll(3) == 0 {
            let policies = ["reliable", "latest", "drop_oldest", "sample"];
            wanted["delivery"] = (*self.one_of(&policies)).into();
            wanted["sample_ms"] = (*self.one_of(&[0, 9, 10, 50, 3_600_000, 3_600_001])).into();
        }
        if self.roll(4) == 0 {
            wanted["events"] = json!(["e", "f"]);
            wanted["keys"] = json!(["k1"]);
        }
        if self.roll(3) == 0 {
            wanted["presence"] = (*self.one_of(&["none", "counts", "users"])).into();
        }
        wanted
    }

    /// A request, by its name.
    fn request(&mut self, epochs: &BTreeMap<String, u64>) -> (&'static str, Value) {
        match self.roll(19) {
            0 | 1 => {
                let wanted: Vec<Value> = (0..1 + self.roll(3)).map(|_| self.subscription(epochs)).collect();
                ("subscribe", json!({"subscriptions": wanted}))
            }
            2 => ("subscribe", json!({"rooms": self.rooms()})),
            3 => ("unsubscribe", json!({"rooms": self.rooms()})),
            4..=7 => {
                let mut publish = json!({
                    "room": self.room(), "event": self.one_of(&["e", "f", ""]), "key": self.one_of(&["", "k1", "k2"]),
                    "idempotency_key": self.one_of(&["", "", "same"]), "exclude_sender": self.roll(2) == 0,
                    "exclude": [self.number()], "want_receivers": self.roll(2) == 0,
                    "ack": self.one_of(&["default", "memory", "durable"]),
                });
                self.payload(&mut publish);
                ("publish", publish)
            }
            8 => {
                let to = match self.roll(4) {
                    0 => json!({"user": self.user()}),
                    1 => json!({"connection": self.number()}),
                    2 => json!({"role": "r"}),
                    _ => json!({"tenant": true}),
                };
                let mut send = to;
                send["event"] = "e".into();
                self.payload(&mut send);
                ("send", send)
            }
            9 => {
                let mut call =
                    json!({"method": self.method(), "timeout_ms": self.small(), "retry": self.roll(2) == 0});
                if self.roll(3) == 0 {
                    call["device"] = "AABB01".into();
                }
                ("call", call)
            }
            10 => (
                "history",
                json!({"room": self.room(), "epoch": epochs.get("d1"), "from": self.number(),
                       "backwards": self.roll(2) == 0, "limit": self.small()}),
            ),
            11 => (
                "presence",
                json!({"room": self.room(), "after": self.user(), "limit": self.small(), "counts_only": self.roll(2) == 0}),
            ),
            12 => (
                "serve",
                json!({"methods": [self.method()], "concurrency": self.small()}),
            ),
            13 => ("unserve", json!({"methods": [self.method()]})),
            14 => match self.roll(2) {
                0 => ("respond", json!({"call": self.number(), "json": 1})),
                _ => ("cancel", json!({"request": self.number() & 0xffff})),
            },
            15 => (
                "notify",
                json!({"user": self.user(), "kind": "alert", "title": "t".repeat(self.roll(250)), "message": "m",
                       "priority": "high", "expires_in_ms": self.number()}),
            ),
            16 => (
                "notifications",
                json!({"before": self.number(), "limit": self.small(), "unread_only": self.roll(2) == 0}),
            ),
            17 => (
                "mark_read",
                json!({"ids": [self.number()], "up_to": self.number()}),
            ),
            _ => (
                "refresh",
                json!({"token": sign_for("b", claims("fuzz-0", &["*"]))}),
            ),
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect::<Map<_, _>>(),
        ),
        other => other,
    }
}

/// How often there was which answer.
type Answers = BTreeMap<String, u32>;

/// The last number of each subscription, by the room's number: none comes twice or late, whatever was asked.
#[derive(Default)]
struct Seen {
    after: BTreeMap<u64, u64>,
}

impl Seen {
    fn hears(&mut self, frame: &Value) {
        let number = |value: &Value| value.as_u64().expect("a number");
        if !frame["push"].is_null() {
            let (room, seq) = (number(&frame["push"]["room"]), number(&frame["push"]["seq"]));
            if let Some(after) = self.after.get_mut(&room) {
                assert!(seq > *after, "{seq} after {after}: {frame}");
                *after = seq;
            }
        }
    }
}

async fn asks_anything(broker: &Broker, n: u64) -> (Peer, Answers) {
    let mut peer = broker
        .join(&full_token("a", &format!("fuzz-{}", n % 3), "r"))
        .await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 7, "previous": [n, 5]}}))
        .await;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (n + 1));
    let (mut epochs, mut answers) = (BTreeMap::new(), Answers::new());
    let mut seen = Seen::default();
    let mut id = 10;
    while id < 10 + REQUESTS {
        // Some at once, so that answers overtake questions.
        let burst = 1 + dice.roll(8) as u32;
        for _ in 0..burst {
            let (name, request) = dice.request(&epochs);
            let mut message = json!({"id": id});
            message[name] = without_nulls(request);
            peer.say(message).await;
            id += 1;
        }
        let mut waits = burst;
        while waits > 0 {
            let frame = peer.receive().await;
            assert!(
                frame["close"].is_null() && frame["lost"].is_null() && frame["goaway"].is_null(),
                "peer {n} was sent away at {id}: {frame}"
            );
            seen.hears(&frame);
            for room in frame["reply"]["subscribed"]["rooms"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let name = room["name"].as_str().expect("a name").to_owned();
                epochs.insert(name, room["epoch"].as_u64().expect("a number"));
                let (id, seq) = (room["room"].as_u64(), room["seq"].as_u64());
                seen.after.insert(id.expect("a number"), seq.expect("a number"));
            }
            if frame["reply"]["id"].as_u64().is_some_and(|id| id >= 10) {
                waits -= 1;
                let outcome = frame["reply"].as_object().into_iter().flatten();
                let name = outcome.map(|(name, _)| name).find(|name| *name != "id");
                *answers.entry(name.expect("an outcome").clone()).or_default() += 1;
            }
        }
    }
    (peer, answers)
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

fn class(durability: Durability) -> Arc<RoomClass> {
    Arc::new(RoomClass {
        durability,
        history: Keep {
            messages: 50,
            age_ms: 60_000,
            bytes: 100_000,
        },
        presence: PresenceMode::On { grace_ms: 100 },
        ..RoomClass::default()
    })
}

#[tokio::test]
async fn whatever_is_asked_is_answered_once_and_nobody_else_suffers() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = format!(
        "data_dir={}\nlimits.call_timeout=200ms\nlimits.mailbox_bytes=64MiB",
        dir.path().display()
    );
    let server = Server::start(&config(&lines), Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    let durable = ClassRule::from((pattern("d*"), class(Durability::Durable)));
    let rest = ClassRule::from((pattern("m*"), class(Durability::Memory)));
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(vec![durable, rest], Arc::default()),
        ..(*tenant.settings()).clone()
    });
    let neighbours = Neighbours::move_in(&broker).await;
    let all = futures_util::future::join_all((0..8).map(|n| asks_anything(&broker, n))).await;
    let mut sum = Answers::new();
    for (mut peer, answers) in all {
        assert!(answers.values().sum::<u32>() >= REQUESTS);
        answers
            .into_iter()
            .for_each(|(name, count)| *sum.entry(name).or_default() += count);
        let pong = peer.ask(json!({"id": 5, "ping": {}})).await.0;
        assert!(pong["pong"].is_object(), "{pong}");
    }
    for name in [
        "error",
        "subscribed",
        "published",
        "history_page",
        "presence_page",
        "done",
        "notification_page",
    ] {
        assert!(sum.get(name) > Some(&10), "too few {name}: {sum:?}");
    }
    neighbours.assert_undisturbed().await;
}
