//! Devices on the outbound WebSocket: what they say becomes updates, and their comings and goings are told at once.

mod support;

use std::time::Duration;

use cauce_broker::hub::Selection;
use cauce_fleet::{Fleet, FleetOptions, Tokens};
use cauce_protocol::{Code, Refusal};
use serde_json::{Value, json};
use support::raw::{Heard, Raw, masked};
use support::{Broker, PATIENCE, Peer, full_token, token};

/// A plug that says exactly what a test wants said.
struct Plug {
    raw: Raw,
    src: String,
}

impl Plug {
    async fn dial(broker: &Broker, token: &str, id: &str) -> Self {
        let mut raw = Raw::connect(broker.address).await;
        let head = raw.upgrade(&format!("/shelly?token={token}"), "").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self {
            raw,
            src: format!("shellyplugsg3-{}", id.to_lowercase()),
        }
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.raw
            .say(json!({"src": self.src, "dst": "cauce", "method": method, "params": params}))
            .await;
    }

    async fn full(&mut self, output: bool, power: f64) {
        let switch = json!({"id": 0, "output": output, "apower": power, "voltage": 230.1, "aenergy": {"total": 1000.5}});
        self.notify(
            "NotifyFullStatus",
            json!({"ts": 1_700_000_000.5, "sys": {"mac": "X"}, "switch:0": switch}),
        )
        .await;
    }

    async fn power(&mut self, power: f64) {
        self.notify(
            "NotifyStatus",
            json!({"ts": 1_700_000_001.5, "switch:0": {"id": 0, "apower": power}}),
        )
        .await;
    }

    /// The next request of the broker with this method; others are passed over.
    async fn asked(&mut self, method: &str) -> Value {
        loop {
            let request = self.raw.hear_json().await;
            if request["method"] == method {
                return request;
            }
        }
    }

    async fn answer(&mut self, request: &Value, outcome: Value) {
        let mut reply = json!({"id": request["id"], "src": self.src, "dst": request["src"]});
        reply
            .as_object_mut()
            .expect("an object")
            .extend(outcome.as_object().expect("an object").clone());
        self.raw.say(reply).await;
    }

    /// The code that the broker closes with.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.raw.hear().await {
                Heard::Close(code, _) => return code,
                Heard::End => panic!("ended without a close"),
                _ => {}
            }
        }
    }
}

async fn watcher(broker: &Broker, tenant: &str, rooms: &[&str]) -> Peer {
    let mut peer = broker.join(&full_token(tenant, "watcher", "staff")).await;
    peer.subscribe(rooms).await;
    peer
}

/// The next message of a room as its event and payload.
async fn heard(peer: &mut Peer) -> (String, Value) {
    let push = peer.receive().await["push"].clone();
    (
        push["event"]
            .as_str()
            .unwrap_or_else(|| panic!("not a push: {push}"))
            .to_owned(),
        push["json"].clone(),
    )
}

/// The next message that is not about make and firmware alone.
async fn update(peer: &mut Peer) -> Value {
    let (event, update) = heard(peer).await;
    assert_eq!(event, "device-update", "{update}");
    update
}

#[tokio::test]
async fn frames_become_updates_in_both_rooms() {
    let broker = Broker::start();
    let credential = broker.device_token("a", None);
    let mut all = watcher(&broker, "a", &["$devices"]).await;
    let mut one = watcher(&broker, "a", &["$device:AABB01"]).await;
    let mut namesake = watcher(&broker, "b", &["$devices", "$device:AABB01"]).await;
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB01").await;
    plug.full(true, 12.5).await;
    plug.power(13.0).await;
    let mut other = Plug::dial(&broker, credential.expose(), "AABB02").await;
    for peer in [&mut all, &mut one] {
        let first = update(peer).await;
        assert_eq!(
            (&first["device"], &first["online"], &first["stale"]),
            (&json!("AABB01"), &json!(true), &json!(false))
        );
        assert_eq!(first["state"]["switch:0"]["apower"], 12.5);
        assert_eq!(first["readings"][0]["power_w"], 12.5);
        let second = update(peer).await;
        assert_eq!(second["changed"], json!({"switch:0": {"apower": 13.0}}));
        assert_eq!(
            (
                &second["state"]["switch:0"]["apower"],
                &second["state"]["switch:0"]["voltage"]
            ),
            (&json!(13.0), &json!(230.1))
        );
        assert_eq!(second["seq"], first["seq"].as_u64().expect("a number") + 1);
    }
    // What has not changed is not told again; garbage in between is counted and harmless.
    plug.power(13.0).await;
    plug.raw.write(&masked(true, 1, b"not json")).await;
    plug.notify(
        "NotifyEvent",
        json!({"ts": 1.0, "events": [{"component": "input:0", "event": "single_push"}]}),
    )
    .await;
    assert_eq!(heard(&mut one).await.0, "device-event");
    other.full(false, 0.0).await;
    assert_eq!(heard(&mut all).await.0, "device-event");
    assert_eq!(update(&mut all).await["device"], "AABB02");
    // The other device is in the common room only; the other tenant has neither.
    for peer in [&mut one, &mut namesake] {
        assert_eq!(
            peer.ask(json!({"id": 5, "ping": {}})).await.1,
            Vec::<Value>::new()
        );
    }
    assert_eq!(
        broker
            .server
            .handle()
            .metrics()
            .total(|shard| &shard.device_frames_malformed),
        1
    );
}

#[tokio::test]
async fn a_lost_socket_is_told_at_once_and_a_return_too() {
    let broker = Broker::start();
    let credential = broker.device_token("a", None);
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    for round in 0..2 {
        let mut plug = Plug::dial(&broker, credential.expose(), "AABB03").await;
        plug.full(true, 5.0).await;
        assert_eq!(update(&mut watcher).await["online"], true);
        if round == 0 {
            drop(plug);
        } else {
            plug.raw.write(&masked(true, 8, &1000_u16.to_be_bytes())).await;
            assert_eq!(plug.closed().await, 1000);
        }
        let (event, status) = heard(&mut watcher).await;
        assert_eq!(
            (event.as_str(), &status["online"], &status["reason"]),
            ("device-offline-status", &json!(false), &json!("closed"))
        );
    }
}

#[tokio::test]
async fn a_new_connection_wins_over_the_late_close_of_the_old_one() {
    the_new_connection_wins("threads.ingest_shards=3").await;
}

#[tokio::test]
async fn devices_without_shards_of_their_own_live_among_the_clients() {
    the_new_connection_wins("threads.ingest_shards=0\nthreads.client_shards=3").await;
}

async fn the_new_connection_wins(threads: &str) {
    let broker = Broker::with(threads);
    let credential = broker.device_token("a", None);
    let mut watcher = watcher(&broker, "a", &["$device:AABB04"]).await;
    let mut old = Plug::dial(&broker, credential.expose(), "AABB04").await;
    old.full(true, 1.0).await;
    update(&mut watcher).await;
    for round in 2..12 {
        let mut new = Plug::dial(&broker, credential.expose(), "AABB04").await;
        new.full(true, f64::from(round)).await;
        // The old one says something more, is told to go, and goes.
        old.power(999.0).await;
        assert_eq!(old.closed().await, Code::Replaced.number());
        drop(old);
        loop {
            let update = update(&mut watcher).await;
            assert_eq!(
                update["online"], true,
                "a device that has connected anew was said to be gone"
            );
            if update["state"]["switch:0"]["apower"] == f64::from(round) {
                break;
            }
        }
        old = new;
    }
    drop(old);
    assert_eq!(heard(&mut watcher).await.0, "device-offline-status");
}

#[tokio::test]
async fn a_sleeper_that_closes_sleeps() {
    let broker = Broker::start();
    let credential = broker.device_token("a", None);
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let mut sensor = Plug::dial(&broker, credential.expose(), "AABB05").await;
    let params = json!({"ts": 1.0, "sys": {"wakeup_period": 7200}, "temperature:0": {"id": 0, "tC": 21.5}});
    sensor.notify("NotifyFullStatus", params).await;
    assert_eq!(update(&mut watcher).await["presence"], "online");
    drop(sensor);
    let asleep = update(&mut watcher).await;
    assert_eq!(
        (&asleep["presence"], &asleep["online"]),
        (&json!("asleep"), &json!(true))
    );
    assert!(
        watcher.ask(json!({"id": 5, "ping": {}})).await.1.is_empty(),
        "it is not said to be offline"
    );
    let call = json!({"id": 6, "call": {"device": "AABB05", "method": "Sys.GetStatus"}});
    assert_eq!(watcher.ask(call).await.0["error"]["name"], "device_offline");
}

#[tokio::test]
async fn a_call_is_answered_by_the_device_or_told_why_not() {
    let broker = Broker::with("limits.calls_outstanding=3");
    let credential = broker.device_token("a", None);
    let mut ann = broker.join(&full_token("a", "ann", "staff")).await;
    let call = |id: u32, device: &str, timeout_ms: u32| json!({"id": id, "call": {"device": device, "method": "Switch.Set", "params": {"id": 0, "on": true}, "timeout_ms": timeout_ms}});
    let error = |reply: &Value| reply["error"]["name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(error(&ann.ask(call(1, "NOSUCH", 0)).await.0), "not_found");
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB06").await;
    plug.full(true, 1.0).await;
    plug.asked("Shelly.GetDeviceInfo").await;

    // Two at once, answered the other way round.
    ann.say(call(2, "AABB06", 5_000)).await;
    ann.say(call(3, "AABB06", 5_000)).await;
    let (second, third) = (plug.asked("Switch.Set").await, plug.asked("Switch.Set").await);
    assert_eq!(second["params"], json!({"id": 0, "on": true}));
    plug.answer(&third, json!({"result": {"was_on": true}})).await;
    plug.answer(
        &second,
        json!({"error": {"code": -103, "message": "Argument 'id', value 7 not found!"}}),
    )
    .await;
    let reply = ann.receive().await["reply"].clone();
    assert_eq!(
        (&reply["id"], &reply["answer"]["json"]),
        (&json!(3), &json!({"was_on": true}))
    );
    let reply = ann.receive().await["reply"].clone();
    assert_eq!(
        (reply["id"].as_u64(), error(&reply).as_str()),
        (Some(2), "device_error")
    );
    assert!(
        reply["error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("-103") && m.contains("value 7")),
        "{reply}"
    );

    // No answer in time; one that comes late goes nowhere.
    ann.say(call(4, "AABB06", 200)).await;
    let late = plug.asked("Switch.Set").await;
    let reply = ann.receive().await["reply"].clone();
    assert_eq!(
        (reply["id"].as_u64(), error(&reply).as_str()),
        (Some(4), "timeout")
    );
    plug.answer(&late, json!({"result": {}})).await;
    assert!(ann.ask(json!({"id": 5, "ping": {}})).await.1.is_empty());

    // Only so many wait, and places come back.
    for id in 6..10 {
        ann.say(call(id, "AABB06", 60_000)).await;
    }
    let reply = ann.receive().await["reply"].clone();
    assert_eq!(
        (reply["id"].as_u64(), error(&reply).as_str()),
        (Some(9), "rate_limited")
    );
    // The device goes: all who wait are told at once.
    drop(plug);
    let mut told: Vec<_> = Vec::new();
    for _ in 0..3 {
        let reply = ann.receive().await["reply"].clone();
        assert_eq!(error(&reply), "device_offline");
        told.push(reply["id"].as_u64());
    }
    told.sort_unstable();
    assert_eq!(told, [Some(6), Some(7), Some(8)]);
    assert_eq!(error(&ann.ask(call(10, "AABB06", 0)).await.0), "device_offline");

    // Without the right, it is not even said whether there is such a device.
    let mut bob = broker.join(&token("a", "bob")).await;
    for device in ["AABB06", "NOSUCH"] {
        assert_eq!(error(&bob.ask(call(1, device, 0)).await.0), "forbidden");
    }
    let mut stranger = broker.join(&full_token("b", "ann", "staff")).await;
    assert_eq!(error(&stranger.ask(call(1, "AABB06", 0)).await.0), "not_found");
}

#[tokio::test]
async fn a_token_serves_its_device_and_its_tenant_only() {
    let broker = Broker::start();
    let bound = broker.device_token("a", Some("AABB07"));
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let mut wrong = Plug::dial(&broker, bound.expose(), "AABB08").await;
    wrong.full(true, 1.0).await;
    assert_eq!(wrong.closed().await, 1008);
    let mut right = Plug::dial(&broker, bound.expose(), "AABB07").await;
    right.full(true, 1.0).await;
    assert_eq!(update(&mut watcher).await["device"], "AABB07");
    // It may not change its mind later either.
    right.src = "shellyplugsg3-aabb08".into();
    right.power(50.0).await;
    right.src = "shellyplugsg3-aabb07".into();
    right.power(2.0).await;
    assert_eq!(update(&mut watcher).await["state"]["switch:0"]["apower"], 2.0);
    assert!(
        broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .device("AABB08")
            .is_none()
    );

    let mut nameless = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    nameless
        .raw
        .say(json!({"method": "NotifyFullStatus", "params": {"sys": {}}}))
        .await;
    assert_eq!(nameless.closed().await, 4101);
    let mut garbage = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    garbage.raw.write(&masked(true, 1, b"hello")).await;
    assert_eq!(garbage.closed().await, 4100);
    let mut binary = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    binary.raw.write(&masked(true, 2, b"{}")).await;
    assert_eq!(binary.closed().await, 1003);
}

fn revoke(broker: &Broker, id: cauce_broker::auth::secret::CredentialId) {
    broker
        .server
        .hub()
        .credentials
        .write()
        .revoke(id, 1)
        .expect("it is there");
    broker.server.hub().close(
        Selection::DeviceToken(id.as_str().into()),
        Refusal::new(Code::TokenRevoked, "the token was revoked"),
    );
}

#[tokio::test]
async fn a_revoked_token_closes_its_sockets_and_opens_none() {
    let broker = Broker::start();
    let (credential, other) = (broker.device_token("a", None), broker.device_token("a", None));
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB09").await;
    plug.full(true, 1.0).await;
    update(&mut watcher).await;
    let mut bystander = Plug::dial(&broker, other.expose(), "AABB0A").await;
    revoke(&broker, credential.id);
    assert_eq!(plug.closed().await, Code::TokenRevoked.number());
    let (event, status) = heard(&mut watcher).await;
    assert_eq!(
        (event.as_str(), &status["reason"]),
        ("device-offline-status", &json!("refused"))
    );
    bystander.full(true, 1.0).await;
    assert_eq!(update(&mut watcher).await["device"], "AABB0A");
    let mut again = Raw::connect(broker.address).await;
    let head = again
        .upgrade(&format!("/shelly?token={}", credential.expose()), "")
        .await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
}

/// Between the check at the door and its arrival at its shard, a socket is in nobody's list.
#[tokio::test]
async fn a_revocation_reaches_sockets_that_are_just_coming_in() {
    let broker = Broker::start();
    for round in 0..100 {
        let credential = broker.device_token("a", None);
        let mut raw = Raw::connect(broker.address).await;
        let request = format!(
            "GET /shelly?token={} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            credential.expose(),
            support::raw::KEY
        );
        raw.write(request.as_bytes()).await;
        std::thread::sleep(Duration::from_micros(round * 4));
        revoke(&broker, credential.id);
        let head = raw.head().await;
        if head.starts_with("HTTP/1.1 101") {
            assert_eq!(
                raw.hear().await,
                Heard::Close(4202, "the token was revoked".into()),
                "round {round}"
            );
        } else {
            assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        }
    }
}

#[tokio::test]
async fn the_handshake_declines_compression_and_names_a_subprotocol_only_if_offered() {
    let broker = Broker::start();
    let credential = broker.device_token("a", None);
    let target = format!("/shelly?token={}", credential.expose());
    for (offer, echoed) in [
        ("json-rpc", true),
        ("mqtt, json-rpc", true),
        ("mqtt", false),
        ("", false),
    ] {
        let mut headers = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://shelly.local\r\n".to_owned();
        if !offer.is_empty() {
            headers += &format!("Sec-WebSocket-Protocol: {offer}\r\n");
        }
        let head = Raw::connect(broker.address)
            .await
            .upgrade(&target, &headers)
            .await
            .to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        assert_eq!(
            head.contains("sec-websocket-protocol: json-rpc\r\n"),
            echoed,
            "{head}"
        );
        assert_eq!(head.contains("sec-websocket-protocol"), echoed, "{head}");
    }
    // A device that compresses all the same breaks the protocol.
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB0B").await;
    let mut compressed = masked(true, 1, b"{}");
    compressed[0] |= 0x40;
    plug.raw.write(&compressed).await;
    assert_eq!(plug.closed().await, 1002);
}

#[tokio::test]
async fn a_device_that_floods_is_sent_away_and_its_neighbour_is_not() {
    let broker = Broker::with("limits.device_messages_per_minute=60\nlimits.device_messages_burst=20");
    let credential = broker.device_token("a", None);
    let mut watcher = watcher(&broker, "a", &["$device:AABB0D"]).await;
    let mut neighbour = Plug::dial(&broker, credential.expose(), "AABB0D").await;
    let mut flood = Plug::dial(&broker, credential.expose(), "AABB0C").await;
    for n in 0..200 {
        flood.power(f64::from(n)).await;
    }
    assert_eq!(flood.closed().await, 1013);
    neighbour.full(true, 7.0).await;
    assert_eq!(update(&mut watcher).await["state"]["switch:0"]["apower"], 7.0);
    let metrics = broker.server.handle();
    assert_eq!(metrics.metrics().total(|shard| &shard.device_frames_throttled), 1);
}

#[tokio::test]
async fn every_change_of_a_fleet_is_an_update_at_its_subscriber() {
    let broker = Broker::with(
        "limits.device_messages_per_minute=100000\nlimits.device_messages_burst=10000\nlimits.outbox_bytes=32MiB",
    );
    let credential = broker.device_token("a", None);
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let counting = tokio::spawn(async move {
        let (mut updates, mut offline, mut seqs) = (0_u64, 0, std::collections::HashMap::new());
        while offline < 20 {
            let (event, json) = heard(&mut watcher).await;
            let seq = json["seq"].as_u64();
            match event.as_str() {
                "device-update" => updates += 1,
                "device-offline-status" => offline += 1,
                _ => continue,
            }
            let before = seqs.insert(json["device"].as_str().unwrap_or_default().to_owned(), seq);
            if let (Some(Some(before)), Some(seq)) = (before, seq) {
                assert_eq!(seq, before + 1, "a message of {} is missing", json["device"]);
            }
        }
        updates
    });
    let url = format!("ws://{}/shelly", broker.address);
    let mut options =
        FleetOptions::outbound(url, Tokens::Shared(credential.expose().to_owned()), 20).expect("a fleet");
    options.rate = Some(10.0);
    options.ramp = Duration::from_millis(200);
    let fleet = Fleet::start(options).expect("a fleet");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stats = fleet.stop().await.totals;
    let updates = tokio::time::timeout(PATIENCE, counting)
        .await
        .expect("all of them go offline")
        .expect("no gap");
    let handle = broker.server.handle();
    let frames = handle.metrics().total(|shard| &shard.device_frames);
    let changes = handle.metrics().total(|shard| &shard.device_changes);
    assert!(stats.status_frames > 300, "{stats:?}");
    assert_eq!(
        frames,
        stats.frames_sent(),
        "frames sent and frames taken: {stats:?}"
    );
    assert_eq!(updates, changes, "changes and updates received");
    let telling = stats.full_frames + stats.greeting_frames + stats.status_frames;
    assert!(
        (telling..=telling + stats.reply_frames).contains(&updates),
        "{updates} updates of {stats:?}"
    );
    assert_eq!(handle.metrics().total(|shard| &shard.device_frames_malformed), 0);
}
