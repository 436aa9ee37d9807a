//! Histograms grow by what happened, no more and no less.

use cauce_fleet::{Fleet, FleetOptions, Tokens};
use cauce_protocol::Payload;
use serde_json::json;

use crate::support::{Broker, full_token, token};
use crate::{Scrape, client, stored};

const DELIVERED: &str = "cauce_delivery_latency_seconds";

fn count(scrape: &Scrape, source: &str) -> f64 {
    scrape.value(&format!("{DELIVERED}_count{{source=\"{source}\"}}"))
}

/// Buckets rise, the last holds all, and the sum lies between what the buckets allow.
fn is_sound(scrape: &Scrape, name: &str, labels: &str) {
    let buckets = scrape.buckets(name, labels);
    assert!(buckets.len() > 50, "{name}: {buckets:?}");
    assert!(
        buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
        "{buckets:?}"
    );
    let braced = |suffix: &str| match labels {
        "" => format!("{name}_{suffix}"),
        labels => format!("{name}_{suffix}{{{labels}}}"),
    };
    let (sum, count) = (scrape.value(&braced("sum")), scrape.value(&braced("count")));
    let (bound, all) = *buckets.last().expect("a bucket");
    assert_eq!((bound, all), (f64::INFINITY, count));
    let (mut before, mut least, mut most) = ((0.0, 0.0), 0.0, 0.0);
    for &(bound, cumulative) in &buckets {
        least += (cumulative - before.1) * before.0;
        most += (cumulative - before.1) * bound.min(1e6);
        before = (bound, cumulative);
    }
    assert!(least <= sum && sum <= most, "{name}: {least} <= {sum} <= {most}");
}

#[tokio::test]
async fn each_delivery_is_timed_once_by_where_its_message_came_from() {
    let broker = Broker::start();
    let mut readers = Vec::new();
    for user in ["ann", "bob", "eve"] {
        let mut reader = broker.join(&token("a", user)).await;
        reader.subscribe(&["r"]).await;
        readers.push(reader);
    }
    let mut publisher = broker.join(&token("a", "pub")).await;
    for n in 0..5 {
        let publish = json!({"id": 10 + n, "publish": {"room": "r", "event": "e", "json": n}});
        assert!(publisher.ask(publish).await.0["published"].is_object());
    }
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for _ in 0..2 {
        a.publish("r", "e", Payload::NULL).expect("published");
    }
    for reader in &mut readers {
        for _ in 0..7 {
            assert!(reader.receive().await["push"].is_object());
        }
    }
    let scrape = Scrape::until(&broker, "21 deliveries", |scrape| {
        count(scrape, "client") + count(scrape, "api") >= 21.0
    })
    .await;
    let counts = ["client", "api", "device"].map(|source| count(&scrape, source));
    assert_eq!(counts, [15.0, 6.0, 0.0]);
    assert_eq!(scrape.value("cauce_deliveries_total"), 21.0);
    for source in ["client", "api"] {
        is_sound(&scrape, DELIVERED, &format!("source=\"{source}\""));
    }
    assert!(scrape.value("cauce_delivery_latency_seconds_sum{source=\"client\"}") > 0.0);
}

#[tokio::test]
async fn what_devices_say_is_timed_apart_up_to_the_last_watcher() {
    let broker = Broker::start();
    let mut watchers = Vec::new();
    for user in ["ann", "bob"] {
        let mut watcher = broker.join(&full_token("a", user, "staff")).await;
        watcher.subscribe(&["$devices"]).await;
        watchers.push(watcher);
    }
    let credential = broker.device_token("a", None);
    let (url, tokens) = (
        format!("ws://{}/shelly", broker.address),
        Tokens::Shared(credential.expose().to_owned()),
    );
    let mut options = FleetOptions::outbound(url, tokens, 3).expect("a fleet");
    options.rate = Some(10.0);
    let fleet = Fleet::start(options).expect("a fleet");
    // Each plug says what it is and then reports: more than one message each.
    let scrape = Scrape::until(&broker, "deliveries of devices", |scrape| {
        count(scrape, "device") >= 12.0
    })
    .await;
    fleet.stop().await;
    is_sound(&scrape, DELIVERED, "source=\"device\"");
    assert_eq!(count(&scrape, "client") + count(&scrape, "api"), 0.0);
    assert!(scrape.value("cauce_device_frames_total") > 0.0);
    let device = count(&scrape, "device");
    assert!(device <= scrape.value("cauce_deliveries_total"));
}

#[tokio::test]
async fn a_commit_and_the_wait_for_it_are_timed_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = stored(dir.path());
    let b = broker.server.handle().tenant("b").expect("tenant b");
    let publishes: Vec<_> = (0..40u64)
        .map(|n| {
            let b = b.clone();
            tokio::spawn(async move {
                b.publish_durably("r", "e", Payload::text(n.to_string()), None)
                    .await
            })
        })
        .collect();
    for publish in publishes {
        publish.await.expect("it runs").expect("committed");
    }
    let scrape = Scrape::of(&broker).await;
    assert_eq!(scrape.value("cauce_durable_latency_seconds_count"), 40.0);
    let commits = scrape.value("cauce_store_commits_total");
    assert_eq!(scrape.value("cauce_store_commit_duration_seconds_count"), commits);
    assert!((1.0..=40.0).contains(&commits));
    is_sound(&scrape, "cauce_durable_latency_seconds", "");
    is_sound(&scrape, "cauce_store_commit_duration_seconds", "");
    // Who waits, waits for a commit at least.
    let sum = |name: &str| scrape.value(&format!("{name}_sum"));
    assert!(sum("cauce_durable_latency_seconds") >= sum("cauce_store_commit_duration_seconds"));
}

#[tokio::test]
async fn refusals_are_counted_by_their_code_at_both_doors() {
    let broker = Broker::start();
    let mut peer = broker.join(&token("a", "ann")).await;
    for n in 0..3 {
        let publish = json!({"id": 10 + n, "publish": {"room": "$devices", "event": "e"}});
        let (reply, _) = peer.ask(publish).await;
        assert_eq!(reply["error"]["name"], "forbidden", "{reply}");
    }
    let asked = client().get(format!("http://{}/v1/rooms", broker.address)).send();
    assert_eq!(asked.await.expect("an answer").status(), 401);
    let scrape = Scrape::of(&broker).await;
    assert_eq!(
        scrape.value("cauce_requests_refused_total{code=\"forbidden\"}"),
        3.0
    );
    assert_eq!(
        scrape.value("cauce_requests_refused_total{code=\"overloaded\"}"),
        0.0
    );
    let refused = ["unauthenticated", "token_invalid"]
        .map(|code| scrape.value(&format!("cauce_http_requests_refused_total{{code=\"{code}\"}}")));
    assert_eq!(refused.iter().sum::<f64>(), 1.0);
}
