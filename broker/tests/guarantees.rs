//! Promises of docs/GUARANTEES.md that belong to no single feature, each by itself.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::hub::{RoomClasses, ShardMailbox, TenantSettings};
use cauce_broker::publication::Draft;
use cauce_broker::rooms::{
    Durability, Journal, JournalEntry, Keep, LEASE_NUMBERS, Listener, Manner, OnCommit, Repeat, RoomClass,
    RoomTable, Start, TableLimits, Tap, Written,
};
use cauce_broker::{Persistence, Server};
use cauce_protocol::message::{Ack, Text};
use cauce_protocol::{Code, Payload, Refusal, RoomName};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use support::raw::Raw;
use support::{Broker, PATIENCE, claims, config, full_token, sign_for, token};

const KEEP: Keep = Keep {
    messages: 10_000,
    age_ms: 0,
    bytes: 0,
};

/// A broker on this directory whose tenant `a` has durable rooms only.
fn durable(dir: &Path) -> Broker {
    let config = config(&format!("data_dir={}", dir.display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    classify(
        &broker,
        RoomClass {
            durability: Durability::Durable,
            history: KEEP,
            ..RoomClass::default()
        },
    );
    broker
}

fn classify(broker: &Broker, class: RoomClass) {
    let hub = broker.server.hub();
    let tenant = hub.tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    hub.reclassify(&tenant);
}

async fn stop(broker: Broker) {
    let stopped = tokio::task::spawn_blocking(move || broker.server.stop(PATIENCE))
        .await
        .expect("it stops");
    assert_eq!(stopped.unwritten_rows, 0);
}

/// The database of a broker, for what happens to it from outside.
async fn database(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("cauce.db"))
        .busy_timeout(PATIENCE);
    options.connect().await.expect("a second connection")
}

async fn run(database: &mut SqliteConnection, statement: &'static str) {
    database.execute(statement).await.expect(statement);
}

async fn subscribe_since(peer: &mut support::Peer, epoch: &Value, seq: u64) -> Value {
    let since = json!({"room": "r", "epoch": epoch, "seq": seq});
    let (reply, _) = peer
        .ask(json!({"id": 9, "subscribe": {"subscriptions": [since]}}))
        .await;
    reply["subscribed"]["rooms"][0].clone()
}

#[tokio::test]
async fn subscribers_do_not_wait_for_the_disk_and_the_publisher_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path());
    let mut reader = broker.join(&token("a", "reader")).await;
    reader.subscribe(&["r"]).await;
    let mut writer = broker.join(&token("a", "writer")).await;
    let mut database = database(dir.path()).await;
    run(&mut database, "BEGIN EXCLUSIVE").await;
    writer
        .say(json!({"id": 1, "publish": {"room": "r", "event": "e"}}))
        .await;
    assert_eq!(reader.receive().await["push"]["seq"], 1);
    // The next request is answered, so the publish before it has been read, and has no answer yet.
    writer.say(json!({"id": 2, "ping": {}})).await;
    assert!(writer.receive().await["reply"]["pong"].is_object());
    run(&mut database, "ROLLBACK").await;
    let answer = writer.receive().await;
    assert_eq!(answer["reply"]["published"]["durable"], true, "{answer}");
    stop(broker).await;
}

#[tokio::test]
async fn numbers_that_a_crash_may_have_given_are_named_as_lost_and_never_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path());
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for _ in 0..5 {
        a.publish_durably("r", "e", Payload::NULL, None)
            .await
            .expect("committed");
    }
    drop(peer);
    stop(broker).await;
    // What a stop leaves behind and a crash does not.
    let mut database = database(dir.path()).await;
    run(&mut database, "DELETE FROM meta WHERE name = 'clean'").await;
    database.close().await.expect("closed");

    let broker = durable(dir.path());
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    let room = subscribe_since(&mut peer, &epoch, 3).await;
    assert_eq!(
        (&room["recovery"], &room["seq"], &room["lost_from"]),
        (&json!("partial"), &json!(3), &json!(6)),
        "{room}"
    );
    let lease = room["lost_to"].as_u64().expect("a number");
    assert!(lease > 5 && room["head"] == lease, "{room}");
    // What lies before the loss comes first, and the loss in its place.
    for n in [4, 5] {
        assert_eq!(peer.receive().await["push"]["seq"], n);
    }
    let gap = peer.receive().await;
    assert_eq!(
        (&gap["gap"]["from"], &gap["gap"]["to"]),
        (&json!(6), &json!(lease)),
        "{gap}"
    );
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let accepted = a.publish_durably("r", "e", Payload::NULL, None).await;
    let accepted = accepted.expect("committed");
    assert_eq!((json!(accepted.epoch.0), accepted.seq.0), (epoch, lease + 1));
    assert_eq!(peer.receive().await["push"]["seq"], lease + 1);
    stop(broker).await;
}

#[tokio::test]
async fn a_restored_backup_whose_numbers_are_raised_gives_none_again_and_keeps_its_past() {
    let page = include_str!("../../docs/OPERATING.md");
    let raise = "DELETE FROM meta WHERE name = 'clean'; UPDATE room_heads SET lease = lease + 1000000000;";
    assert!(page.contains(raise), "the page for operators says how");
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path());
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for _ in 0..5 {
        a.publish_durably("r", "e", Payload::NULL, None)
            .await
            .expect("committed");
    }
    let backup = dir.path().join("backup.db");
    let mut database = database(dir.path()).await;
    let copy = sqlx::query("VACUUM INTO ?").bind(backup.to_str().expect("UTF-8"));
    copy.execute(&mut database).await.expect("a copy");
    database.close().await.expect("closed");
    // The original goes on beyond what its lease was at the time of the copy.
    let mut last = None;
    for n in 0..LEASE_NUMBERS + 10 {
        if n % 1_000 == 0 {
            // New leases reach the disk meanwhile.
            let committed = a.publish_durably("r", "e", Payload::NULL, None).await;
            committed.expect("committed");
        }
        last = Some(a.publish("r", "e", Payload::NULL).expect("published"));
    }
    let last = last.expect("a message");
    stop(broker).await;

    for beside in ["cauce.db", "cauce.db-wal", "cauce.db-shm"] {
        // The log may have gone with the stop.
        let _ = std::fs::remove_file(dir.path().join(beside));
    }
    std::fs::rename(&backup, dir.path().join("cauce.db")).expect("restored");
    let mut database = self::database(dir.path()).await;
    run(&mut database, raise).await;
    database.close().await.expect("closed");
    let broker = durable(dir.path());
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    let room = subscribe_since(&mut peer, &json!(last.epoch.0), 3).await;
    assert_eq!(room["recovery"], "partial", "{room}");
    assert_eq!(peer.receive().await["push"]["seq"], 4);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let next = a.publish_durably("r", "e", Payload::NULL, None).await;
    let next = next.expect("committed");
    assert!(
        next.epoch == last.epoch && next.seq > last.seq,
        "{next:?} after {last:?}"
    );
    stop(broker).await;
}

#[tokio::test]
async fn without_the_right_to_history_a_position_reaches_back_as_far_as_the_window() {
    use cauce_broker::auth::{Action, Actions};
    let kept = RoomClass {
        history: Keep {
            age_ms: 600_000,
            ..KEEP
        },
        ..RoomClass::default()
    };
    let narrow = || {
        let mut claims = claims("narrow", &["*"]);
        claims.grants[0].allow = [Action::Subscribe].into_iter().collect::<Actions>();
        sign_for("a", claims)
    };
    for (window, recovery) in [("0ms", "partial"), ("5m", "continued")] {
        let broker = Broker::with(&format!("rooms.recovery_window={window}"));
        classify(&broker, kept.clone());
        let a = broker.server.handle().tenant("a").expect("tenant a");
        let epoch = json!(a.publish("r", "e", Payload::NULL).expect("published").epoch.0);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut may = broker.join(&token("a", "ann")).await;
        assert_eq!(
            subscribe_since(&mut may, &epoch, 0).await["recovery"],
            "continued"
        );
        let mut may_not = broker.join(&narrow()).await;
        let room = subscribe_since(&mut may_not, &epoch, 0).await;
        assert_eq!(room["recovery"], recovery, "{room}");
        let (page, _) = may_not.ask(json!({"id": 3, "history": {"room": "r"}})).await;
        assert_eq!(page["error"]["name"], "forbidden", "{page}");
    }
}

#[tokio::test]
async fn who_joins_a_room_of_devices_is_told_first_what_they_are_like() {
    let broker = Broker::start();
    let issued = broker.device_token("a", None);
    let mut plug = Raw::connect(broker.address).await;
    plug.upgrade(&format!("/shelly?token={}", issued.text.expose_secret()), "")
        .await;
    let status = |output: bool| {
        json!({"src": "shellyplugsg3-aabbccddeeff", "dst": "cauce", "method": "NotifyFullStatus",
            "params": {"ts": 1_700_000_000.5, "switch:0": {"id": 0, "output": output}}})
    };
    plug.say(status(true)).await;
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    let seen = async {
        while tenant.devices_len() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("it is seen");
    for room in ["$devices", "$device:AABBCCDDEEFF"] {
        let mut peer = broker.join(&full_token("a", "ann", "r")).await;
        let id = peer.subscribe(&[room]).await[0]["room"].clone();
        let first = peer.receive().await;
        assert_eq!(
            (&first["state"]["room"], &first["state"]["key"]),
            (&id, &json!("AABBCCDDEEFF")),
            "{first}"
        );
        assert_eq!(
            first["state"]["json"]["state"]["switch:0"]["output"], true,
            "{first}"
        );
    }
}

const LIMITS: TableLimits = TableLimits {
    rooms_max: 10,
    linger_ms: 60_000,
    history_bytes_max: usize::MAX,
};

const NOBODY: [Arc<ShardMailbox>; 0] = [];

fn table(class: RoomClass) -> RoomTable {
    let table = RoomTable::new(LIMITS, Arc::default());
    let class = Arc::new(class);
    table.set_classify(Arc::new(move |_| class.clone()));
    table
}

fn draft() -> Draft {
    Draft::new(Text::from("e"), Payload::NULL)
}

#[test]
fn a_room_stays_while_what_it_keeps_is_fresh_and_goes_after() {
    let table = table(RoomClass {
        history: Keep {
            messages: 10,
            age_ms: 600_000,
            bytes: 0,
        },
        ..RoomClass::default()
    });
    let publish = |now_ms| {
        table
            .publish("r", draft(), Manner::default(), now_ms, &NOBODY)
            .expect("published")
    };
    let first = publish(1_000);
    for now_ms in (1_000..=590_000).step_by(1_000) {
        table.sweep(now_ms);
    }
    assert_eq!(publish(590_000).epoch, first.epoch, "ten times the linger time");
    for now_ms in (590_000..=1_400_000).step_by(1_000) {
        table.sweep(now_ms);
    }
    assert!(table.is_empty());
    // One without history has only the linger time.
    let table = self::table(RoomClass::default());
    let name: RoomName = "r".parse().expect("a name");
    let tap = Arc::new(Tap::new(1 << 20));
    let joined = table
        .join(&name, Listener::Tap(&tap), Start::Now, 1_000)
        .expect("joined");
    table.leave_tap(&joined.room, &tap, 1_000);
    for now_ms in (1_000..=60_000).step_by(1_000) {
        table.sweep(now_ms);
        assert!(!table.is_empty(), "at {now_ms}");
    }
    for now_ms in (61_000..=200_000).step_by(1_000) {
        table.sweep(now_ms);
    }
    assert!(table.is_empty());
}

/// A disk that writes when it is told to.
#[derive(Default)]
struct Disk(std::cell::RefCell<Vec<JournalEntry>>);

impl Journal for Disk {
    fn reserve(&self, _: usize) -> Result<(), Refusal> {
        Ok(())
    }

    fn append(&self, entry: JournalEntry, _: usize) {
        self.0.borrow_mut().push(entry);
    }
}

fn durable_table() -> RoomTable {
    table(RoomClass {
        durability: Durability::Durable,
        history: KEEP,
        ..RoomClass::default()
    })
}

#[test]
fn no_number_is_given_beyond_the_lease_that_is_on_the_disk() {
    let (table, disk) = (durable_table(), Disk::default());
    let publish = || {
        let manner = Manner {
            ack: Ack::Memory,
            journal: Some(&disk),
            ..Manner::default()
        };
        table.publish("r", draft(), manner, 0, &NOBODY)
    };
    for n in 1..=LEASE_NUMBERS {
        assert_eq!(publish().expect("covered by the lease").seq.0, n);
    }
    let refusal = publish().expect_err("the disk has no lease for it");
    assert_eq!(refusal.code, Code::Unavailable);
    assert!(refusal.retry_after_ms > 0);
    // With the rows comes their lease, and numbers go on where they stood.
    for entry in disk.0.take() {
        (entry.committed)(Ok(()));
    }
    assert_eq!(publish().expect("covered").seq.0, LEASE_NUMBERS + 1);
}

#[test]
fn a_repeat_of_a_message_that_the_disk_refused_is_refused_too() {
    let (table, disk) = (durable_table(), Disk::default());
    let answers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let on_commit = || -> OnCommit {
        let answers = answers.clone();
        Box::new(move |accepted, result| {
            answers
                .lock()
                .expect("no panic")
                .push((accepted.seq.0, result.is_ok()));
        })
    };
    let publish = |key| {
        let repeat = Repeat {
            publisher: "ann",
            key,
            now_ms: 0,
            window_ms: 1_000,
            keys_max: 10,
        };
        let manner = Manner {
            repeat: Some(repeat),
            journal: Some(&disk),
            on_commit: Some(&on_commit),
            ..Manner::default()
        };
        table.publish("r", draft(), manner, 0, &NOBODY)
    };
    assert_eq!(publish("bad").expect("numbered").written, Written::Awaited);
    assert_eq!(publish("good").expect("numbered").written, Written::Awaited);
    let mut entries = disk.0.take().into_iter();
    let refusal = Refusal::new(Code::Invalid, "never");
    (entries.next().expect("the first").committed)(Err(refusal));
    (entries.next().expect("the second").committed)(Ok(()));
    assert_eq!(*answers.lock().expect("no panic"), [(1, false), (2, true)]);
    assert_eq!(publish("bad").expect_err("not written").code, Code::Invalid);
    let again = publish("good").expect("written");
    assert_eq!(
        (again.seq.0, again.repeated, again.written),
        (2, true, Written::Yes)
    );
}
