//! kill -9 in the middle of writing, again and again on the same directory.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use cauce_broker::store::{LEASE_AHEAD, Store, StoreConfig};
use cauce_protocol::Seq;
use sqlx::Connection;

use crate::support::{
    Answers, Place, all_readings, connect, first_tenant, hand_over, message, patiently, query, reading, seqs,
    state, stop, watts,
};

const DIR: &str = "CAUCE_TEST_STORE_DIR";
const FIRST: &str = "CAUCE_TEST_STORE_FIRST";
const COMMITTED: &str = "committed ";

/// The child: writes a state and a reading for each number, and tells which are committed.
#[tokio::test]
#[ignore = "run by the test below, in a process that is killed"]
async fn child_writes_until_killed() {
    let dir = std::env::var_os(DIR).expect("run by the test below");
    let first: u64 = std::env::var(FIRST)
        .expect("run by the test below")
        .parse()
        .expect("a number");
    let mut config = StoreConfig::new(dir);
    config.limits.flush_age_ms = 1;
    config.limits.flush_rows = 20;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    let t = first_tenant();
    for n in first.. {
        let _ = handle.reading(reading(&t, "d", n));
        let _ = handle.device_state(state(&t, "d", n, &format!("{{\"n\":{n}}}")));
        if n % 25 == 24 {
            handle.flushed().await.expect("flushed");
            println!("\n{COMMITTED}{n}");
        }
    }
}

#[tokio::test]
async fn what_was_committed_survives_kill_9_and_the_database_opens_again() {
    const ROUNDS: u64 = 6;
    let place = Place::new();
    let config = place.config();
    let t = first_tenant();
    let mut first = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--ignored",
                "--exact",
                "crash::child_writes_until_killed",
                "--nocapture",
            ])
            .env(DIR, &config.data_dir)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the child");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let committed: u64 = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix(COMMITTED).and_then(|n| n.parse().ok()))
            .nth(3)
            .expect("the child commits until it is killed");
        // Somewhere else in its work each time.
        std::thread::sleep(Duration::from_micros(700 * round));
        child.kill().expect("killed");
        child.wait().expect("gone");

        let mut other = connect(&config).await;
        let check: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&mut other)
            .await
            .expect("checked");
        assert_eq!(check, "ok");
        other.close().await.expect("closed");

        let (store, loaded) = place.open();
        assert_eq!(loaded.boot, 2 * (round + 1));
        let last = loaded.devices[0].last.as_ref().expect("a state");
        assert!(
            last.seq >= committed,
            "state {} was committed, {} is there",
            committed,
            last.seq
        );
        assert_eq!(last.state.as_ref(), format!("{{\"n\":{}}}", last.seq).as_bytes());
        let all = watts(&patiently("readings", all_readings(&store.handle(), &t, "d")).await);
        assert!(all.len() as u64 > committed);
        assert_eq!(
            all,
            (0..all.len() as u64).collect::<Vec<_>>(),
            "no gap, nothing twice"
        );
        first = all.len() as u64;
        stop(store).await;
    }
}

/// Messages that the child below has under way at a time.
const IN_FLIGHT: u64 = 50;

/// The child: publishes in one room from where it stood, and tells which numbers it has given and which were answered.
#[tokio::test]
#[ignore = "run by the test below, in a process that is killed"]
async fn child_publishes_until_killed() {
    let dir = std::env::var_os(DIR).expect("run by the test below");
    let (store, loaded) = Store::open(StoreConfig::new(dir)).expect("opens");
    let head = loaded.room_heads.first();
    let (given, mut lease) = head.map_or((0, 0), |head| (head.given.0, head.lease.0));
    let handle = store.handle();
    let t = first_tenant();
    let mut answers = Answers::new();
    println!("\n{GIVEN}{}", given + 1);
    for n in given + 1.. {
        let mut row = message(&t, "r", n);
        if n + LEASE_AHEAD / 2 > lease {
            lease = n + LEASE_AHEAD;
        }
        row.lease = Seq(lease);
        hand_over(&handle, answers.of(n, row));
        if n > given + IN_FLIGHT {
            let (answered, answer) = answers.next().await;
            answer.expect("committed");
            println!("\n{COMMITTED}{answered}");
        }
    }
}

const GIVEN: &str = "given from ";

#[tokio::test]
async fn answered_messages_survive_kill_9_and_no_number_is_given_twice() {
    const ROUNDS: u64 = 10;
    let place = Place::new();
    let config = place.config();
    let t = first_tenant();
    // Numbers that were answered, and the largest that was given in a round at most.
    let mut answered: Vec<u64> = Vec::new();
    let mut given = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--ignored",
                "--exact",
                "crash::child_publishes_until_killed",
                "--nocapture",
            ])
            .env(DIR, &config.data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the child");
        let mut lines = BufReader::new(child.stdout.take().expect("its output"))
            .lines()
            .map_while(Result::ok);
        let first: u64 = lines
            .by_ref()
            .find_map(|line| line.strip_prefix(GIVEN).and_then(|n| n.parse().ok()))
            .expect("the child begins");
        assert!(first > given, "{first} may have been given before: {given}");
        let committed = |line: String| line.strip_prefix(COMMITTED).and_then(|n| n.parse::<u64>().ok());
        answered.extend(lines.by_ref().filter_map(committed).take(200));
        // Somewhere else in its work each time.
        std::thread::sleep(Duration::from_micros(700 * round));
        child.kill().expect("killed");
        child.wait().expect("gone");
        answered.extend(lines.filter_map(committed));
        given = answered.last().expect("an answer") + IN_FLIGHT;
    }
    let (store, loaded) = place.open();
    let head = &loaded.room_heads[0];
    assert!(
        head.given.0 >= given,
        "{} was given, {} is known",
        given,
        head.given
    );
    let handle = store.handle();
    let mut kept = Vec::new();
    let mut query = query(&t, "r");
    loop {
        let page = patiently("a page", handle.messages(query.clone()))
            .await
            .expect("a page");
        kept.extend(seqs(&page));
        if !page.more {
            break;
        }
        query.from = Seq(*kept.last().expect("a message"));
    }
    assert_eq!(kept.last(), Some(&head.last.0));
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
    let lost: Vec<&u64> = answered
        .iter()
        .filter(|n| kept.binary_search(n).is_err())
        .collect();
    assert_eq!(lost, Vec::<&u64>::new(), "answered and not there");
    stop(store).await;
}
