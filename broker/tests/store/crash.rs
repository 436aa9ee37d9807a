//! kill -9 in the middle of writing, again and again on the same directory.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use cauce_broker::store::{Store, StoreConfig};

use sqlx::Connection;

use crate::support::{Place, all_readings, connect, first_tenant, patiently, reading, state, stop, watts};

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
