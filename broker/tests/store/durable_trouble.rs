//! Durable rooms while the database is locked, full or failing: nothing acknowledged is lost, nobody waits for ever.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cauce_broker::store::{Health, Store, StoreConfig, Trouble};
use cauce_protocol::message::Text;
use cauce_protocol::{Code, Payload, Seq};
use sqlx::Connection;

use crate::support::{
    Answers, Place, connect, first_tenant, hand_over, message, page, query, run, seqs, stop, tenant, until,
};

#[tokio::test]
async fn while_the_database_is_locked_messages_wait_in_order_and_none_is_lost() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.messages.answer_ms = 50;
    config.messages.bytes_max = 100_000;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN EXCLUSIVE").await;
    let mut answers = Answers::new();
    let mut taken = 0;
    let refused = loop {
        let row = message(&t, "r", taken + 1);
        match handle.reserve_message(&t, 1_000) {
            Ok(()) => {
                taken += 1;
                handle.message(answers.of(taken, row), 1_000);
            }
            Err(_) if handle.health() == Health::Ready => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(refused) => break refused,
        }
    };
    assert_eq!(taken, 50, "half of the bound is one tenant's");
    assert_eq!(refused.code, Code::Unavailable);
    assert!(refused.retry_after_ms > 0);
    let queued = handle.messages_queued();
    assert_eq!((queued.rows, queued.bytes), (50, 50_000));
    handle
        .reserve_message(&tenant("other"), 1_000)
        .expect("another tenant has its own share");
    handle.release_message(&tenant("other"), 1_000);

    // Nobody waits for ever, and nobody is told anything twice.
    for n in 1..=taken {
        let (at, answer) = answers.next().await;
        assert_eq!(at, n);
        let refusal = answer.expect_err("not known yet");
        assert_eq!(refusal.code, Code::Unavailable);
        assert!(refusal.message.contains("idempotency key"), "{refusal}");
    }
    assert_eq!(handle.counters().messages_late.load(Relaxed), taken);
    run(&mut other, "ROLLBACK").await;
    for n in 1..=taken {
        assert_eq!(
            answers.next().await,
            (n, Ok(())),
            "what became of it is told all the same"
        );
    }
    answers.are_over().await;
    assert_eq!(handle.health(), Health::Ready);
    assert_eq!(
        seqs(&page(&handle, &t, "r").await),
        (1..=taken).collect::<Vec<_>>()
    );
    hand_over(&handle, answers.of(taken + 1, message(&t, "r", taken + 1)));
    // The time for an answer is so short here that a busy disk may miss it; what became of the message is told all the same.
    let told = match answers.next().await {
        (_, Err(_)) => answers.next().await,
        told => told,
    };
    assert_eq!(told, (taken + 1, Ok(())));
    stop(store).await;
}

#[tokio::test]
async fn a_short_trouble_delays_the_answer_and_does_not_spoil_it() {
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let mut answers = Answers::new();
    for n in 1..=30 {
        hand_over(&handle, answers.of(n, message(&t, "r", n)));
    }
    until("an error", || handle.health() != Health::Ready).await;
    assert!(answers.is_empty());
    run(&mut other, "ROLLBACK").await;
    for n in 1..=30 {
        assert_eq!(answers.next().await, (n, Ok(())));
    }
    stop(store).await;
}

#[tokio::test]
async fn a_full_queue_without_trouble_says_overloaded_and_recovers() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.messages.bytes_max = 10_000;
    config.messages.tenant_share_percent = 100;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    for _ in 0..10 {
        handle.reserve_message(&t, 1_000).expect("reserved");
    }
    let refused = handle.reserve_message(&tenant("other"), 1).expect_err("full");
    assert_eq!(refused.code, Code::Overloaded);
    assert!(refused.retry_after_ms > 0);
    assert_eq!(
        handle
            .reserve_message(&t, 10_001)
            .expect_err("larger than all")
            .code,
        Code::TooLarge
    );
    handle.release_message(&t, 1_000);
    handle.reserve_message(&tenant("other"), 1_000).expect("a place");
    let counters = handle.counters();
    assert_eq!(counters.messages_refused_full.load(Relaxed), 1);
    assert_eq!(counters.messages_refused_too_large.load(Relaxed), 1);
    for _ in 0..9 {
        handle.release_message(&t, 1_000);
    }
    handle.release_message(&tenant("other"), 1_000);
    stop(store).await;
}

#[tokio::test]
async fn a_full_database_refuses_nothing_it_acknowledged_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.database_bytes_max = Some(600 * 1024);
    config.messages.answer_ms = 100;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut answers = Answers::new();
    let (mut n, mut acknowledged) = (0, 0);
    loop {
        n += 1;
        let mut row = message(&t, "r", n);
        row.payload = Payload::Binary(vec![7; 8_000].into());
        hand_over(&handle, answers.of(n, row));
        match answers.next().await {
            (_, Ok(())) => acknowledged = n,
            (_, Err(refusal)) => {
                assert_eq!(refusal.code, Code::Unavailable);
                break;
            }
        }
    }
    assert!(acknowledged > 10);
    assert!(matches!(handle.health(), Health::Degraded { .. }));
    let mut query = query(&t, "r");
    query.bytes_max = usize::MAX;
    let shown = handle.messages(query.clone()).await.expect("reads go on");
    assert_eq!(seqs(&shown), (1..=acknowledged).collect::<Vec<_>>());
    let mut other = connect(&config).await;
    run(&mut other, "DELETE FROM messages WHERE seq < 10").await;
    assert_eq!(answers.next().await, (n, Ok(())));
    answers.are_over().await;
    assert_eq!(handle.health(), Health::Ready);
    let shown = handle.messages(query).await.expect("a page");
    assert_eq!(seqs(&shown), (10..=n).collect::<Vec<_>>());
    other.close().await.expect("closed");
    stop(store).await;
}

const DIR: &str = "CAUCE_TEST_STORE_FAULTY_DIR";
const PASSED: &str = "came through";

/// The child, which must not be killed by the signal for files that are too large: writes fail with an error of the device.
#[tokio::test]
#[ignore = "run by the test below, in a process whose files may not grow"]
async fn child_whose_writes_fail() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let dir = std::env::var_os(DIR).expect("run by the test below");
    let mut config = StoreConfig::new(dir);
    config.messages.answer_ms = 200;
    let t = first_tenant();
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    let free = getrlimit(Resource::Fsize);
    let tight = Rlimit {
        current: Some(1024 * 1024),
        ..free
    };
    setrlimit(Resource::Fsize, tight).expect("a limit");
    let mut answers = Answers::new();
    let (mut n, mut acknowledged) = (0, 0);
    loop {
        n += 1;
        let mut row = message(&t, "r", n);
        row.payload = Payload::Binary(vec![7; 20_000].into());
        hand_over(&handle, answers.of(n, row));
        match answers.next().await {
            (_, Ok(())) => acknowledged = n,
            (_, Err(refusal)) => {
                assert_eq!(refusal.code, Code::Unavailable);
                break;
            }
        }
    }
    assert!(acknowledged > 5);
    let Health::Degraded { reason, .. } = handle.health() else {
        panic!("the store says that all is well");
    };
    assert_eq!(reason, Trouble::Io);
    let mut all = query(&t, "r");
    all.bytes_max = usize::MAX;
    let shown = handle.messages(all.clone()).await.expect("reads go on");
    assert_eq!(seqs(&shown), (1..=acknowledged).collect::<Vec<_>>());

    setrlimit(Resource::Fsize, free).expect("no limit");
    assert_eq!(answers.next().await, (n, Ok(())));
    answers.are_over().await;
    assert_eq!(handle.health(), Health::Ready);
    let shown = handle.messages(all).await.expect("a page");
    assert_eq!(seqs(&shown), (1..=n).collect::<Vec<_>>());
    stop(store).await;
    println!("{PASSED}");
}

#[test]
fn a_device_that_fails_acknowledges_nothing_and_all_goes_on_when_it_works_again() {
    let place = Place::new();
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this program"))
        .args([
            "--ignored",
            "--exact",
            "durable_trouble::child_whose_writes_fail",
            "--nocapture",
        ])
        .env(DIR, place.config().data_dir)
        .output()
        .expect("the child");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains(PASSED),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_message_the_database_would_never_take_is_given_up_alone() {
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    // So that all are in one transaction.
    let mut other = connect(&config).await;
    run(
        &mut other,
        "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN new.topic = 'poison' \
         BEGIN SELECT RAISE(ABORT, 'never'); END",
    )
    .await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let mut answers = Answers::new();
    for n in 1..=600 {
        let mut row = message(&t, "r", n);
        if n == 123 || n == 600 {
            row.topic = Text::from("poison");
        }
        hand_over(&handle, answers.of(n, row));
    }
    run(&mut other, "ROLLBACK").await;
    for n in 1..=600 {
        let (at, answer) = answers.next().await;
        assert_eq!(at, n);
        if n == 123 || n == 600 {
            assert_eq!(answer.expect_err("given up").code, Code::Invalid);
        } else {
            assert_eq!(answer, Ok(()));
        }
    }
    assert_eq!(handle.health(), Health::Ready);
    assert_eq!(handle.counters().messages_given_up.load(Relaxed), 2);
    let shown = page(&handle, &t, "r").await;
    let expected: Vec<u64> = (1..600).filter(|&n| n != 123).collect();
    assert_eq!(seqs(&shown), expected);
    other.close().await.expect("closed");
    stop(store).await;
    let (store, loaded) = place.open();
    assert_eq!(
        loaded.room_heads[0].last,
        Seq(600),
        "its number is not given again"
    );
    stop(store).await;
}

#[tokio::test]
async fn a_number_given_twice_is_refused_and_the_first_message_stays() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let mut answers = Answers::new();
    hand_over(&handle, answers.of(1, message(&t, "r", 1)));
    assert_eq!(answers.next().await, (1, Ok(())));
    let mut row = message(&t, "r", 1);
    row.payload = Payload::text("another");
    hand_over(&handle, answers.of(2, row));
    assert_eq!(answers.next().await.1.expect_err("taken").code, Code::Invalid);
    let shown = page(&handle, &t, "r").await;
    assert_eq!(shown.messages.len(), 1);
    assert_eq!(shown.messages[0].payload, message(&t, "r", 1).payload);
    stop(store).await;
}
