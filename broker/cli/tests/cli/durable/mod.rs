//! `kill -9` again and again while durable rooms are being written: nothing that was acknowledged is lost, doubled or out of
//! order, and no number that anybody has seen is given to another message.
//!
//! Three ledgers are compared: what publishers were told, what a subscriber saw live, and what the broker shows after its next
//! start.

mod ledger;
mod load;

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cauce_client::{Client, Options, Reconnect};
use serde_json::json;

use self::ledger::Ledger;
use self::load::{PUBLISHERS, Publisher, follow, read_all};
use super::support::{Broker, Running, cauce, printed};

/// Rounds, unless this variable of the environment says otherwise.
const ROUNDS: u32 = 10;
const ROUNDS_ENV: &str = "CAUCE_KILL_ROUNDS";

/// How long a round publishes, in milliseconds: from nothing but the first commits to several hundred.
const ROUND_MS: std::ops::Range<u64> = 20..500;

/// In so many rounds once, the broker is killed while it starts.
const KILLED_AT_START: u32 = 4;

/// How long such a start may last, in milliseconds.
const START_MS: std::ops::Range<u64> = 1..150;

/// The room that publishers share.
const ROOM: &str = "orders";

const SETS: [&str; 12] = [
    "--set",
    "limits.connections_per_user=1000",
    "--set",
    "limits.requests_per_second=100000",
    "--set",
    "limits.requests_burst=100000",
    "--set",
    "limits.publishes_burst_per_user=1000000",
    "--set",
    "rooms.dedup_keys=1000000",
    "--set",
    "rooms.dedup_window=1h",
];

/// A number that looks random and is the same in every run.
fn pick(range: std::ops::Range<u64>, seed: u64) -> u64 {
    let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ seed;
    range.start + mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) % (range.end - range.start)
}

fn access(broker: &Broker, dir: &Path, args: &[&str]) -> Vec<OsString> {
    let access = broker.access(dir).map(ToOwned::to_owned);
    args.iter().map(Into::into).chain(access).collect()
}

/// All rooms of the tenant are durable. Answers a token that outlives the test.
fn prepare(dir: &Path) -> String {
    let broker = Broker::start(dir, &SETS);
    let classes = dir.join("classes.json");
    let class = json!([{ "rooms": "*", "durable": true, "history": { "messages": 1_000_000 } }]);
    std::fs::write(&classes, class.to_string()).unwrap();
    let path = classes.to_str().unwrap();
    let update = ["tenant", "update", "default", "--room-classes", path];
    printed(access(&broker, dir, &update));
    let rights = "subscribe,publish,history";
    let token = [
        "token",
        "--user",
        "ana",
        "--expires",
        "12h",
        "--room",
        "*",
        "--allow",
        rights,
    ];
    printed(access(&broker, dir, &token)).trim().to_owned()
}

/// A connection that is lost for good when the broker dies.
async fn connect(url: &str, token: &str) -> Client {
    let options = Options::new(url).token(token).reconnect(Reconnect::Never);
    Client::connect(options.buffer(1_000_000, 1 << 30)).await.unwrap()
}

#[test]
fn a_broker_that_is_killed_again_and_again_loses_doubles_and_renumbers_nothing() {
    let rounds = std::env::var(ROUNDS_ENV).map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let token = prepare(dir.path());
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(Publisher::new).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    for round in 0..rounds {
        if round % KILLED_AT_START == KILLED_AT_START - 1 {
            kill_at_start(dir.path(), round);
        }
        let broker = Broker::start(dir.path(), &SETS);
        let url = format!("{}/v1/ws", broker.url.replace("http", "ws"));
        publishers = runtime.block_on(async {
            let reader = connect(&url, &token).await;
            check(&reader, &ledger).await;
            let follower = follow(reader, &ledger).await;
            let fresh = format!("fresh-{round}");
            let mut load = Vec::new();
            for publisher in publishers.drain(..) {
                let client = connect(&url, &token).await;
                load.push(tokio::spawn(publisher.run(client, fresh.clone(), ledger.clone())));
            }
            tokio::time::sleep(Duration::from_millis(pick(ROUND_MS, round.into()))).await;
            broker.process.signal("KILL");
            let mut publishers = Vec::new();
            for publisher in load {
                publishers.push(publisher.await.unwrap());
            }
            follower.await.unwrap();
            publishers
        });
        let mut broker = broker;
        assert_eq!(
            broker.process.end(),
            None,
            "it was killed, and did not end by itself"
        );
    }
    // The last repeats, in peace: then every message that anybody insisted on is there, once.
    let broker = Broker::start(dir.path(), &SETS);
    let url = format!("{}/v1/ws", broker.url.replace("http", "ws"));
    runtime.block_on(async {
        let reader = connect(&url, &token).await;
        check(&reader, &ledger).await;
        for publisher in &mut publishers {
            let client = connect(&url, &token).await;
            publisher.repeat(&client, &ledger).await.unwrap();
        }
        check(&reader, &ledger).await;
    });
    let ledger = ledger.lock().unwrap();
    ledger.check_complete();
    println!("{rounds} rounds in {:?}: {ledger}", began.elapsed());
    assert!(
        ledger.acknowledged() > u64::from(rounds),
        "there was load: {ledger}"
    );
}

/// What is kept of every room agrees with what anybody was told or saw.
async fn check(reader: &Client, ledger: &Mutex<Ledger>) {
    let rooms = ledger.lock().unwrap().rooms();
    for room in rooms {
        let (epoch, kept) = read_all(reader, &room).await;
        ledger.lock().unwrap().kept(&room, epoch, kept);
    }
}

/// Starts the broker and kills it, wherever it is by then.
fn kill_at_start(dir: &Path, round: u32) {
    let mut command = cauce(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir).args(SETS);
    let mut process = Running::start(command);
    std::thread::sleep(Duration::from_millis(pick(START_MS, round.into())));
    process.signal("KILL");
    assert_eq!(process.end(), None);
}
