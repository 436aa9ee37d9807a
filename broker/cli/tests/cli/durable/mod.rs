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
use super::support::{Broker, PATIENCE, Running, cauce, printed};

/// Rounds, unless this variable of the environment says otherwise.
const ROUNDS: u32 = 10;
const ROUNDS_ENV: &str = "CAUCE_KILL_ROUNDS";

/// How long a round publishes, in milliseconds: from nothing but the first commits to several hundred.
const ROUND_MS: std::ops::Range<u64> = 20..500;

/// In so many rounds once, the broker is killed while it starts.
const KILLED_AT_START: u32 = 4;

/// How long such a start may last, in milliseconds.
const START_MS: std::ops::Range<u64> = 1..150;

/// From the start of the load to the end of a process that was told to end: the load's second, and its deadline for the rest.
const DEADLINE: Duration = Duration::from_secs(31);

/// The room that publishers share.
const ROOM: &str = "orders";

const SETS: [&str; 16] = [
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
    let options = options.connect_timeout(PATIENCE);
    Client::connect(options.buffer(1_000_000, 1 << 30)).await.unwrap()
}

#[test]
fn a_broker_that_is_killed_again_and_again_loses_doubles_and_renumbers_nothing() {
    let rounds = std::env::var(ROUNDS_ENV).map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let mut storm = Storm::prepare(dir.path());
    let began = Instant::now();
    for round in 0..rounds {
        if round % KILLED_AT_START == KILLED_AT_START - 1 {
            kill_at_start(dir.path(), round);
        }
        let time = Duration::from_millis(pick(ROUND_MS, round.into()));
        let end = storm.round(&format!("fresh-{round}"), time, "KILL");
        assert_eq!(end, None, "it was killed, and did not end by itself");
    }
    storm.repeat_in_peace();
    let ledger = storm.ledger.lock().unwrap();
    ledger.check_complete();
    println!("{rounds} rounds in {:?}: {ledger}", began.elapsed());
    assert!(
        ledger.acknowledged() > u64::from(rounds),
        "there was load: {ledger}"
    );
}

#[test]
fn a_broker_that_is_terminated_while_durable_rooms_are_written_ends_well_with_all_that_it_numbered() {
    let dir = tempfile::tempdir().unwrap();
    let mut storm = Storm::prepare(dir.path());
    let began = Instant::now();
    let end = storm.round("fresh", Duration::from_secs(1), "TERM");
    assert_eq!(end, Some(0));
    let took = began.elapsed();
    assert!(took < DEADLINE, "{took:?}");
    storm.look();
    storm.ledger.lock().unwrap().check_nothing_was_numbered_in_vain();
    storm.repeat_in_peace();
    let ledger = storm.ledger.lock().unwrap();
    ledger.check_complete();
    ledger.check_nothing_was_numbered_in_vain();
    println!("terminated: {ledger}");
}

/// One data directory, those who write to it and read from it, and what they have seen.
struct Storm<'a> {
    dir: &'a Path,
    token: String,
    publishers: Vec<Publisher>,
    ledger: Arc<Mutex<Ledger>>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Storm<'a> {
    fn prepare(dir: &'a Path) -> Self {
        Self {
            dir,
            token: prepare(dir),
            publishers: (0..PUBLISHERS).map(Publisher::new).collect(),
            ledger: Arc::default(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn start(&self) -> (Broker, String) {
        let broker = Broker::start(self.dir, &SETS);
        let url = format!("{}/v1/ws", broker.url.replace("http", "ws"));
        (broker, url)
    }

    /// Starts the broker, compares the ledgers, publishes for so long, and sends the signal. Answers the exit code.
    fn round(&mut self, fresh: &str, time: Duration, signal: &str) -> Option<i32> {
        let (mut broker, url) = self.start();
        let (ledger, token) = (&self.ledger, &self.token);
        let publishers = std::mem::take(&mut self.publishers);
        self.publishers = self.runtime.block_on(async {
            let reader = connect(&url, token).await;
            check(&reader, ledger).await;
            let follower = follow(reader, ledger).await;
            let mut load = Vec::new();
            for publisher in publishers {
                let client = connect(&url, token).await;
                load.push(tokio::spawn(publisher.run(
                    client,
                    fresh.to_owned(),
                    ledger.clone(),
                )));
            }
            tokio::time::sleep(time).await;
            broker.process.signal(signal);
            let mut publishers = Vec::new();
            for publisher in load {
                publishers.push(publisher.await.unwrap());
            }
            follower.await.unwrap();
            publishers
        });
        broker.process.end()
    }

    /// Compares the ledgers with what the broker shows after a start.
    fn look(&self) {
        let (broker, url) = self.start();
        self.runtime.block_on(async {
            check(&connect(&url, &self.token).await, &self.ledger).await;
        });
        terminate(broker);
    }

    /// The last repeats, in peace: then every message that anybody insisted on is there, once.
    fn repeat_in_peace(&mut self) {
        let (broker, url) = self.start();
        let (ledger, token) = (&self.ledger, &self.token);
        let publishers = &mut self.publishers;
        self.runtime.block_on(async {
            let reader = connect(&url, token).await;
            check(&reader, ledger).await;
            for publisher in publishers {
                let client = connect(&url, token).await;
                publisher.repeat(&client, ledger).await.unwrap();
            }
            check(&reader, ledger).await;
        });
        terminate(broker);
    }
}

fn terminate(mut broker: Broker) {
    broker.process.signal("TERM");
    assert_eq!(broker.process.end(), Some(0));
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
