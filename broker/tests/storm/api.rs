//! A flood through the API: it is held back by what waits of its own tenant, before the queue of a shard fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cauce_protocol::Payload;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::raw::Raw;
use crate::support::{Broker, token};
use crate::{PATIENCE, alone, quantiles};

/// Readers of the flood, so that what is published in a moment takes a while to deliver.
const READERS: usize = 50;

/// Callers at once, and messages of each request: together far more than the queue takes.
const CALLERS: usize = 16;
const BATCH: usize = 100;
const BATCHES: usize = 10;

/// The tenant's own bound, and what the turn that is under way has taken and not given back.
const QUEUE_BYTES: usize = 512 * 1024;

#[tokio::test]
async fn a_flood_through_the_api_is_paced_before_the_queue_of_a_shard_fills() {
    let _alone = alone().await;
    let broker = Broker::with("threads.client_shards=1\nlimits.mailbox_bytes=64MiB");
    for n in 0..READERS {
        let mut reader = Raw::connect(broker.address).await;
        reader
            .upgrade(&format!("/v1/ws?token={}", token("a", &format!("r{n}"))), "")
            .await;
        reader.hear_json().await;
        reader
            .say(json!({"id": 1, "subscribe": {"rooms": ["flood"]}}))
            .await;
        assert!(reader.hear_json().await["reply"]["subscribed"].is_object());
        // Taken unread, on a thread of its own: this test must not be what makes it slow.
        let socket = reader.stream.into_std().expect("a socket");
        socket.set_nonblocking(false).expect("it can wait");
        std::thread::spawn(move || std::io::copy(&mut &socket, &mut std::io::sink()));
    }
    let mut witness = broker.join(&token("b", "witness")).await;
    witness.subscribe(&["quiet"]).await;

    let mailbox = broker.server.hub().shards[0].clone();
    let (most, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (watched, end) = (most.clone(), ended.clone());
    let watching = std::thread::spawn(move || {
        while !end.load(Relaxed) {
            watched.fetch_max(mailbox.used(), Relaxed);
            std::thread::yield_now();
        }
    });

    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let client = client.expect("a client");
    let key = broker.server.admin().operator_key().expect("a first key");
    let message = json!({"room": "flood", "event": "e", "text": "x".repeat(200)});
    let body = json!({"messages": vec![message; BATCH]}).to_string();
    let url = format!("http://{}/v1/publish/batch?tenant=a", broker.address);
    let (accepted, limited) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let flood: Vec<_> = (0..CALLERS)
        .map(|_| {
            let request = client
                .post(&url)
                .bearer_auth(key.expose_secret())
                .body(body.clone());
            let (accepted, limited) = (accepted.clone(), limited.clone());
            tokio::spawn(async move {
                for _ in 0..BATCHES {
                    let request = request.try_clone().expect("a body that can be read again");
                    let answer = request
                        .send()
                        .await
                        .expect("an answer")
                        .text()
                        .await
                        .expect("text");
                    let answer: Value = serde_json::from_str(&answer).expect("JSON");
                    for result in answer["results"].as_array().expect("results") {
                        match result["error"]["name"].as_str() {
                            None => accepted.fetch_add(1, Relaxed),
                            Some("rate_limited") => limited.fetch_add(1, Relaxed),
                            Some(_) => panic!("{result}"),
                        };
                    }
                }
            })
        })
        .collect();
    // Meanwhile a neighbour says something now and then.
    let b = broker.server.handle().tenant("b").expect("tenant b");
    let mut took_ms = Vec::new();
    while !flood.iter().all(tokio::task::JoinHandle::is_finished) {
        let began = Instant::now();
        b.publish("quiet", "e", Payload::NULL).expect("there is room");
        witness.receive().await;
        took_ms.push(began.elapsed().as_millis());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for caller in flood {
        caller.await.expect("no panic");
    }
    ended.store(true, Relaxed);
    watching.join().expect("it watches");
    let (accepted, limited) = (accepted.load(Relaxed), limited.load(Relaxed));
    println!(
        "{accepted} accepted, {limited} told to wait; at most {} bytes waited; the neighbour's message took {:?} ms",
        most.load(Relaxed),
        quantiles(took_ms)
    );
    assert_eq!((accepted + limited) as usize, CALLERS * BATCHES * BATCH);
    assert!(accepted > 0);
    assert_eq!(broker.server.hub().shards[0].refused(), 0);
    let most = most.load(Relaxed);
    assert!(
        (1..QUEUE_BYTES).contains(&most),
        "{most} bytes waited: what others say waits behind that"
    );
}
