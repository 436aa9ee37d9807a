//! A signal to a broker under load: everybody is sent away in order, and the process ends well and in time.

use std::time::{Duration, Instant};

use cauce_client::{Client, Code, Event, Options, Payload, Reconnect};

use super::support::{Broker, printed};

const READERS: usize = 50;
const PUBLISHERS: usize = 4;

#[test]
fn terminating_under_load_sends_everybody_away_without_a_gap_and_ends_well_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "--set",
        "drain.deadline=30s",
        "--set",
        "drain.spread=1s",
        "--set",
        "limits.connections_per_user=1000",
        "--set",
        "limits.requests_per_second=100000",
        "--set",
        "limits.requests_burst=100000",
    ];
    let mut broker = Broker::start(dir.path(), &sets);
    let access = broker.access(dir.path());
    let mut command: Vec<std::ffi::OsString> = vec!["token".into(), "--user".into(), "ana".into()];
    command.extend(access.iter().map(|&arg| arg.to_owned()));
    let token = printed(command).trim().to_owned();
    let url = format!("{}/v1/ws", broker.url.replace("http", "ws"));
    let (loaded, under_load) = std::sync::mpsc::channel();
    let load = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(load(&url, &token, || loaded.send(()).unwrap()));
    });
    under_load.recv_timeout(super::support::PATIENCE).unwrap();
    let signalled = Instant::now();
    broker.process.signal("TERM");
    assert_eq!(broker.process.end(), Some(0));
    assert!(
        signalled.elapsed() < Duration::from_secs(30),
        "{:?}",
        signalled.elapsed()
    );
    load.join().expect("everybody got everything and was told");
    let said = broker.process.err.rest().join("\n");
    assert!(said.contains("draining") && said.contains("stopped"), "{said}");
    assert!(!said.contains("panic"), "{said}");
}

/// Readers and publishers, until the broker has sent all of them away.
async fn load(url: &str, token: &str, under_load: impl FnOnce()) {
    let connect = || {
        let options = Options::new(url).token(token).reconnect(Reconnect::Never);
        let options = options.connect_timeout(super::support::PATIENCE);
        Client::connect(options.buffer(100_000, 64 << 20))
    };
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let client = connect().await.unwrap();
        let mut room = client.subscribe("orders").await.unwrap();
        readers.push(tokio::spawn(async move {
            let start = room.start().seq.0;
            let mut last = start;
            loop {
                match room.next().await {
                    Some(Event::Message(message)) => {
                        assert_eq!(message.seq.0, last + 1, "no gap to the last word");
                        last += 1;
                    }
                    Some(Event::Ended { reason }) => {
                        assert_eq!(reason.code(), Some(Code::GoingAway), "{reason}");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            drop(client);
            last - start
        }));
    }
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        let client = connect().await.unwrap();
        publishers.push(tokio::spawn(async move {
            let mut acknowledged = 0_u64;
            while client.publish("orders", "made", Payload::text("x")).await.is_ok() {
                acknowledged += 1;
            }
            acknowledged
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    under_load();
    for publisher in publishers {
        assert!(publisher.await.unwrap() > 0, "there was load");
    }
    for reader in readers {
        assert!(reader.await.unwrap() > 0, "there was load");
    }
}
