//! A device that is connected: its frames, its calls, its sleep and its loss.

use std::time::Duration;

use cauce_fleet::{Fleet, FleetOptions, Tokens};
use cauce_protocol::Code;
use serde_json::{Value, json};

use crate::support::raw::masked;
use crate::support::{Broker, PATIENCE, full_token, token};
use crate::{Plug, heard, update, watcher};

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
    let handle = broker.server.handle();
    let reports = async {
        while handle.metrics().total(|shard| &shard.device_frames) < 600 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reports)
        .await
        .expect("the fleet reports");
    let stats = fleet.stop().await.totals;
    let updates = tokio::time::timeout(PATIENCE, counting)
        .await
        .expect("all of them go offline")
        .expect("no gap");
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
