//! A broker inside a program of one's own: no socket between publisher and subscriber.
//!
//! `cargo run --release -p cauce-broker --example embed`

use std::time::{Duration, Instant};

use cauce_broker::config::{LoadInputs, load};
use cauce_broker::{Persistence, Server};
use cauce_protocol::Payload;

/// Messages that are published, one after the other has been heard.
const MESSAGES: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Sockets are served too, on any free port; nothing is kept on disk.
    let inputs = LoadInputs {
        flags: vec!["listen=127.0.0.1:0".to_owned()],
        ..LoadInputs::default()
    };
    let server = Server::start(&load(inputs)?.config, Persistence::Memory)?;
    println!("clients may join at ws://{}/v1/ws", server.address());

    let tenant = server.handle().tenant("default")?;
    let mut orders = tenant.subscribe("orders")?;
    let mut took = Vec::with_capacity(MESSAGES);
    for id in 0..MESSAGES {
        let payload = Payload::json(&serde_json::json!({ "id": id }))?;
        let start = Instant::now();
        let accepted = tenant.publish("orders", "order_created", payload)?;
        // It is there by now. Another thread would sleep until then, or spin for so long first; async code awaits `next`.
        let heard = orders
            .blocking_next(Duration::ZERO)
            .ok_or("the subscription was cut off")?;
        took.push(start.elapsed());
        assert_eq!(heard.seq, accepted.seq, "every message, in order");
    }
    took.sort_unstable();
    println!(
        "{MESSAGES} messages heard in order; publish to heard: p50 {:?}, p99 {:?}, max {:?}",
        took[MESSAGES / 2],
        took[MESSAGES * 99 / 100],
        took[MESSAGES - 1]
    );
    server.stop(Duration::from_secs(5));
    Ok(())
}
