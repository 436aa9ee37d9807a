//! The hot path into the database.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use cauce_broker::store::{
    Admission, AuditQuery, AuditRow, Health, OpenError, ReadingQuery, Store, StoreError, Unwritten,
};

use crate::support::{
    Place, all_readings, connect, device, event, first_tenant, patiently, reading, run, state, stop, tenant,
    until, watts,
};

#[tokio::test]
async fn what_was_flushed_is_there_after_a_restart() {
    let place = Place::new();
    let t = first_tenant();
    let (store, loaded) = place.open();
    assert!(loaded.devices.is_empty());
    let handle = store.handle();
    assert_eq!(
        handle.device_state(state(&t, "d", 7, r#"{"a":1}"#)),
        Admission::Accepted
    );
    patiently("a flush", handle.flushed()).await.expect("flushed");
    stop(store).await;

    let (store, loaded) = place.open();
    let last = loaded.devices[0].last.clone().expect("a state");
    assert_eq!((last.seq, last.received_ms), (7, 1_007));
    assert_eq!(last.state.as_ref(), br#"{"a":1}"#);
    assert_eq!(last.model.as_deref(), Some("SNPL-00112EU"));
    assert_eq!(last.src, "shellyplusplugs-8cbfeaa133f0");
    stop(store).await;
}

#[tokio::test]
async fn shutdown_writes_what_still_waits() {
    let place = Place::new();
    let mut config = place.config();
    config.limits.flush_age_ms = 60_000;
    config.limits.flush_rows = 1_000_000;
    let t = first_tenant();
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    for n in 0..5_000 {
        assert_eq!(handle.reading(reading(&t, "d", n)), Admission::Accepted);
    }
    stop(store).await;
    assert_eq!(
        handle.reading(reading(&t, "d", 0)),
        Admission::Refused(Unwritten::Closed)
    );
    assert_eq!(handle.health(), Health::Closed);
    assert_eq!(handle.counters().refused_closed.load(Relaxed), 1);
    assert!(matches!(
        handle.counts(None).await,
        Err(StoreError::Unavailable { .. })
    ));

    let (store, _) = place.open();
    let all = all_readings(&store.handle(), &t, "d").await;
    assert_eq!(watts(&all), (0..5_000).collect::<Vec<_>>());
    stop(store).await;
}

#[tokio::test]
async fn a_store_that_is_dropped_without_a_word_still_writes_what_waits() {
    let place = Place::new();
    let mut config = place.config();
    config.limits.flush_age_ms = 60_000;
    let t = first_tenant();
    let (store, _) = Store::open(config).expect("opens");
    for n in 0..100 {
        assert_eq!(store.handle().reading(reading(&t, "d", n)), Admission::Accepted);
    }
    drop(store);
    let (store, _) = patiently("the directory", async {
        loop {
            match Store::open(place.config()) {
                Ok(opened) => return opened,
                Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    assert_eq!(
        watts(&all_readings(&store.handle(), &t, "d").await),
        (0..100).collect::<Vec<_>>()
    );
    stop(store).await;
}

#[tokio::test]
async fn readings_and_events_keep_all_and_their_order_across_batches_and_restarts() {
    let place = Place::new();
    let t = first_tenant();
    for run in 0..3 {
        let (store, _) = place.open();
        let handle = store.handle();
        for n in run * 700..(run + 1) * 700 {
            assert_eq!(handle.reading(reading(&t, "d", n)), Admission::Accepted);
            assert_eq!(handle.device_event(event(&t, "d", n)), Admission::Accepted);
            if n % 97 == 0 {
                patiently("a flush", handle.flushed()).await.expect("flushed");
            }
        }
        patiently("a flush", handle.flushed()).await.expect("flushed");
        assert_eq!(handle.counters().readings_written.load(Relaxed), 700);
        assert!(handle.counters().batches.load(Relaxed) > 1);
        stop(store).await;
    }
    let (store, _) = place.open();
    let handle = store.handle();
    let all = all_readings(&handle, &t, "d").await;
    assert_eq!(watts(&all), (0..2_100).collect::<Vec<_>>());
    assert!(all.windows(2).all(|w| w[0].seq < w[1].seq));
    let expected = reading(&t, "d", 4);
    assert_eq!(all[4].row, expected, "every column comes back as it went in");

    let mut events = Vec::new();
    let mut before = None;
    loop {
        let page = handle
            .device_events(t.clone(), device("d"), before, 1_000)
            .await
            .expect("events");
        events.extend(page.rows);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let times: Vec<u64> = events.iter().map(|e| e.row.ts_ms).collect();
    assert_eq!(times, (0..2_100).rev().collect::<Vec<_>>());
    stop(store).await;
}

#[tokio::test]
async fn readings_are_asked_for_by_time() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 0..30 {
        let _ = handle.reading(reading(&t, "d", n));
    }
    patiently("a flush", handle.flushed()).await.expect("flushed");
    // Three readings a millisecond.
    let query = ReadingQuery {
        tenant: t.clone(),
        device: device("d"),
        from_ms: 2,
        to_ms: 5,
        limit: 1_000,
        after: None,
    };
    let page = handle.readings(query).await.expect("readings");
    assert_eq!(watts(&page.rows), (6..15).collect::<Vec<_>>());
    assert_eq!(page.next, None);
    stop(store).await;
}

#[tokio::test]
async fn an_older_state_never_replaces_a_newer_one_but_a_new_run_begins_anew() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let _ = handle.device_state(state(&t, "d", 9, "\"nine\""));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    // Accepted, since the queue no longer knows better; the database does.
    assert_eq!(
        handle.device_state(state(&t, "d", 8, "\"eight\"")),
        Admission::Accepted
    );
    patiently("a flush", handle.flushed()).await.expect("flushed");
    let row = handle.device(t.clone(), device("d")).await.expect("the device");
    assert_eq!(row.last.expect("a state").state.as_ref(), b"\"nine\"");
    stop(store).await;

    let (store, _) = place.open();
    let handle = store.handle();
    let _ = handle.device_state(state(&t, "d", 1, "\"one\""));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    let row = handle.device(t.clone(), device("d")).await.expect("the device");
    assert_eq!(row.last.expect("a state").state.as_ref(), b"\"one\"");
    stop(store).await;
}

#[tokio::test]
async fn a_row_the_database_would_never_take_is_given_up_alone() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.limits.flush_age_ms = 100;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    for n in 0..300 {
        let _ = handle.device_state(state(&t, &format!("d{n}"), 1, "{}"));
        let mut row = event(&t, "d", n);
        if n == 123 || n == 124 {
            row.data = Bytes::from_static(b"\xff\xfe");
        }
        let _ = handle.device_event(row);
    }
    let _ = handle.device_state(state(&tenant("nobody"), "d", 1, "{}"));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(handle.counters().refused_by_database.load(Relaxed), 3);
    assert_eq!(handle.health(), Health::Ready);
    let counts = handle.counts(None).await.expect("counts");
    assert_eq!((counts.devices, counts.device_events), (300, 298));
    stop(store).await;
}

#[tokio::test]
async fn the_bound_holds_while_the_database_is_away_and_all_that_was_accepted_is_written() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.limits.rows_max = 50;
    config.limits.tenant_share_percent = 100;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let mut accepted = Vec::new();
    for n in 0..80 {
        match handle.reading(reading(&t, "d", n)) {
            Admission::Accepted => accepted.push(n),
            Admission::Refused(Unwritten::Full) => {}
            other => panic!("{other:?}"),
        }
        let _ = handle.device_state(state(&t, "d", n, &format!("{n}")));
        assert!(handle.queued().rows <= 50 + 2);
        if n == 20 {
            // So that some are in hand and others wait.
            until("an error", || handle.health() != Health::Ready).await;
        }
    }
    assert_eq!(accepted.len(), 50);
    assert_eq!(handle.counters().refused_full.load(Relaxed), 30);
    run(&mut other, "ROLLBACK").await;
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(watts(&all_readings(&handle, &t, "d").await), accepted);
    let row = handle.device(t.clone(), device("d")).await.expect("the device");
    assert_eq!(row.last.expect("a state").seq, 79);
    assert_eq!(handle.queued().rows, 0);
    stop(store).await;
}

#[tokio::test]
async fn old_rows_are_swept_out_in_steps_and_young_ones_stay() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.retention.sweep_every_ms = 10;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    for n in 0..2_500 {
        let mut old = reading(&t, "old", n);
        old.received_ms = 1_000;
        let _ = handle.reading(old);
        let _ = handle.reading(reading(&t, "young", n));
    }
    let mut old = event(&t, "old", 1);
    old.received_ms = 1_000;
    let _ = handle.device_event(old);
    let _ = handle.audit(AuditRow {
        tenant: None,
        at_ms: 1_000,
        actor: Arc::from("k1"),
        action: Arc::from("tenant.create"),
        target: Arc::from("t"),
        detail: Bytes::new(),
    });
    patiently("a flush", handle.flushed()).await.expect("flushed");
    until("the sweep", || {
        handle.counters().retention_deleted.load(Relaxed) == 2_502
    })
    .await;
    let counts = handle.counts(None).await.expect("counts");
    assert_eq!(
        (counts.device_readings, counts.device_events, counts.audit),
        (2_500, 0, 0)
    );
    assert!(all_readings(&handle, &t, "old").await.is_empty());
    stop(store).await;
}

#[tokio::test]
async fn audit_is_told_newest_first_and_apart_for_operator_and_tenant() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 0..10_u64 {
        let _ = handle.audit(AuditRow {
            tenant: (n % 2 == 0).then(|| t.clone()),
            at_ms: u64::MAX / 4 + n,
            actor: Arc::from("k1"),
            action: Arc::from("device.assign"),
            target: Arc::from("d"),
            detail: Bytes::from(format!("{n}")),
        });
    }
    patiently("a flush", handle.flushed()).await.expect("flushed");
    for (owner, expected) in [
        (Some(t), ["8", "6", "4", "2", "0"]),
        (None, ["9", "7", "5", "3", "1"]),
    ] {
        let mut query = AuditQuery {
            tenant: owner.clone(),
            limit: 3,
            before_seq: None,
        };
        let first = handle.audit_rows(query.clone()).await.expect("audit");
        query.before_seq = first.next;
        let second = handle.audit_rows(query).await.expect("audit");
        assert_eq!(second.next, None);
        let rows: Vec<_> = first.rows.into_iter().chain(second.rows).collect();
        assert!(rows.iter().all(|r| r.row.tenant == owner));
        let details: Vec<&[u8]> = rows.iter().map(|r| r.row.detail.as_ref()).collect();
        assert_eq!(details, expected.map(str::as_bytes));
    }
    stop(store).await;
}

#[test]
fn the_hot_path_needs_no_executor_and_works_from_many_threads() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (handle, t) = (handle.clone(), t.clone());
            scope.spawn(move || {
                for n in 0..1_000 {
                    assert_eq!(
                        handle.reading(reading(&t, &format!("d{thread}"), n)),
                        Admission::Accepted
                    );
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an executor");
    runtime.block_on(async {
        tokio::time::timeout(crate::support::PATIENCE, handle.flushed())
            .await
            .expect("in time")
            .expect("flushed");
        for thread in 0..4 {
            let all = all_readings(&handle, &t, &format!("d{thread}")).await;
            assert_eq!(watts(&all), (0..1_000).collect::<Vec<_>>());
        }
        stop(store).await;
    });
}
