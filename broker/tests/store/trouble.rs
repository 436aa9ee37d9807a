//! The database is locked, full, or slow: nothing accepted is lost, everyone is told, and it recovers by itself.

use std::time::Duration;

use cauce_broker::store::{
    ADMIN_SLOTS, Admission, Health, Store, StoreError, TenantChange, Trouble, Unavailable,
};
use futures_util::future::join_all;
use sqlx::Connection;

use crate::support::{
    Place, all_readings, connect, first_tenant, patiently, reading, run, state, stop, tenant_row, until,
    watts,
};

fn trouble(health: &Health) -> Option<Trouble> {
    match health {
        Health::Degraded {
            reason,
            since_unix_ms,
        } => {
            assert!(*since_unix_ms > 1_600_000_000_000);
            Some(*reason)
        }
        Health::Ready | Health::Closed => None,
    }
}

#[tokio::test]
async fn a_database_locked_for_long_delays_rows_and_loses_none() {
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN EXCLUSIVE").await;
    for n in 0..3_000 {
        assert_eq!(handle.reading(reading(&t, "d", n)), Admission::Accepted);
        if n % 1_000 == 0 {
            until("an error", || trouble(&handle.health()) == Some(Trouble::Locked)).await;
        }
    }
    until("several attempts", || {
        handle
            .counters()
            .retries
            .load(std::sync::atomic::Ordering::Relaxed)
            >= 3
    })
    .await;

    // Meanwhile: whoever administers is told to come again, whoever reads is served.
    let error = handle
        .create_tenant(tenant_row("late"))
        .await
        .expect_err("locked");
    assert_eq!(error.code(), "store_locked");
    assert!(matches!(
        error,
        StoreError::Unavailable {
            retry_after_ms: 1..,
            reason: Unavailable::Database(Trouble::Locked)
        }
    ));
    assert_eq!(handle.counts(None).await.expect("reads go on").device_readings, 0);

    run(&mut other, "ROLLBACK").await;
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(handle.health(), Health::Ready);
    assert_eq!(
        watts(&all_readings(&handle, &t, "d").await),
        (0..3_000).collect::<Vec<_>>()
    );
    handle
        .create_tenant(tenant_row("late"))
        .await
        .expect("works again");
    stop(store).await;
}

#[tokio::test]
async fn shutdown_gives_up_at_its_deadline_and_says_what_is_left() {
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    for n in 0..10 {
        let _ = handle.reading(reading(&t, "d", n));
    }
    let waiter = tokio::spawn({
        let handle = handle.clone();
        async move { handle.flushed().await }
    });
    let left = patiently("the deadline", store.shutdown(Duration::from_millis(100))).await;
    assert_eq!(left.rows, 10);
    assert!(!left.checkpointed, "the other connection keeps the log");
    assert!(left.bytes > 0);
    let answer = patiently("the waiter", waiter).await.expect("no panic");
    assert!(matches!(
        answer,
        Err(StoreError::Unavailable {
            reason: Unavailable::Closed,
            ..
        })
    ));
    run(&mut other, "ROLLBACK").await;
    other.close().await.expect("closed");
    let (store, _) = place.open();
    stop(store).await;
}

#[tokio::test]
async fn a_full_disk_is_reported_reads_go_on_and_it_recovers_when_there_is_room() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.database_bytes_max = Some(400 * 1024);
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut pushed = 0;
    while handle.health() == Health::Ready {
        for _ in 0..200 {
            assert_eq!(handle.reading(reading(&t, "d", pushed)), Admission::Accepted);
            pushed += 1;
        }
        // Either it is written or the disk is full.
        let _ = tokio::time::timeout(Duration::from_millis(50), handle.flushed()).await;
    }
    assert_eq!(trouble(&handle.health()), Some(Trouble::DiskFull));
    let written = all_readings(&handle, &t, "d").await;
    assert!(!written.is_empty() && (written.len() as u64) < pushed);
    assert_eq!(
        watts(&written),
        (0..written.len() as u64).collect::<Vec<_>>(),
        "whole and in order so far"
    );

    let mut other = connect(&config).await;
    run(&mut other, "DELETE FROM device_readings").await;
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(handle.health(), Health::Ready);
    let rest = all_readings(&handle, &t, "d").await;
    assert_eq!(watts(&rest), (written.len() as u64..pushed).collect::<Vec<_>>());
    stop(store).await;
}

#[tokio::test]
async fn more_admin_operations_than_slots_are_told_to_come_again() {
    let place = Place::new();
    let mut config = place.config();
    config.busy_timeout_ms = 300;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let names: Vec<String> = (0..ADMIN_SLOTS + 5).map(|n| format!("t{n}")).collect();
    let calls = names.iter().map(|name| handle.create_tenant(tenant_row(name)));
    let answers = async {
        let answers = join_all(calls).await;
        answers
            .into_iter()
            .filter(|a| matches!(a, Err(e) if e.code() == "store_busy"))
            .count()
    };
    let release = async {
        until("the slots to be taken", || {
            handle
                .counters()
                .admin_refused
                .load(std::sync::atomic::Ordering::Relaxed)
                >= 5
        })
        .await;
        run(&mut other, "ROLLBACK").await;
    };
    let (busy, ()) = patiently("all answers", async { tokio::join!(answers, release) }).await;
    assert!(busy >= 5, "{busy}");
    handle
        .update_tenant(first_tenant(), TenantChange::default(), 5)
        .await
        .expect("slots are free again");
    stop(store).await;
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_no_transaction_open() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    // Longer than a busy machine keeps this test from letting go of the lock.
    config.busy_timeout_ms = 30_000;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let given_up = tokio::time::timeout(
        Duration::from_millis(30),
        handle.create_tenant(tenant_row("orphan")),
    )
    .await;
    assert!(given_up.is_err());
    run(&mut other, "ROLLBACK").await;
    let _ = handle.device_state(state(&t, "d", 1, "{}"));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    // The change had begun, so it was finished.
    patiently("the change", async {
        while handle.tenant(crate::support::tenant("orphan")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    stop(store).await;
}
