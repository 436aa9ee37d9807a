//! Messages of durable rooms: order, answers, restarts, epochs.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use cauce_broker::rooms::Keep;
use cauce_broker::store::{LEASE_AHEAD, Store};
use cauce_protocol::{Code, Epoch, Seq};
use sqlx::Connection;

use crate::support::{
    Answers, KEEP_ALL, Place, connect, first_tenant, hand_over, message, page, patiently, query, run, seqs,
    stop, tenant_row, until,
};

#[tokio::test]
async fn an_answered_message_is_on_the_disk_for_another_process() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let mut other = connect(&place.config()).await;
    let mut answers = Answers::new();
    for n in 1..=20 {
        hand_over(&handle, answers.of(n, message(&t, "r", n)));
        assert_eq!(answers.next().await, (n, Ok(())));
        let last: i64 = sqlx::query_scalar("SELECT max(seq) FROM messages")
            .fetch_one(&mut other)
            .await
            .expect("read");
        assert_eq!(last as u64, n);
    }
    assert_eq!(handle.counters().messages_written.load(Relaxed), 20);
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn answers_come_once_each_and_in_the_order_of_the_numbers() {
    const MESSAGES: u64 = 5_000;
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let mut answers = Answers::new();
    for n in 1..=MESSAGES {
        hand_over(&handle, answers.of(n, message(&t, "r", n)));
    }
    for n in 1..=MESSAGES {
        assert_eq!(answers.next().await, (n, Ok(())));
    }
    answers.are_over().await;
    let commits = handle.counters().commits.load(Relaxed);
    assert!(
        commits < MESSAGES / 10,
        "{commits} commits for {MESSAGES} messages"
    );
    let queued = handle.messages_queued();
    assert_eq!((queued.rows, queued.bytes), (0, 0));
    stop(store).await;
}

#[tokio::test]
async fn numbering_goes_on_behind_the_last_after_a_stop_and_behind_the_lease_after_a_crash() {
    let place = Place::new();
    let t = first_tenant();
    let (store, loaded) = place.open();
    assert_eq!(loaded.room_heads, []);
    let handle = store.handle();
    let mut answers = Answers::new();
    for n in 1..=3 {
        let mut row = message(&t, "r", n);
        row.lease = Seq(n + 100);
        hand_over(&handle, answers.of(n, row));
        assert_eq!(answers.next().await, (n, Ok(())));
    }
    // What a crash would leave behind.
    let crashed = place.copy().await;
    stop(store).await;

    let (store, loaded) = place.open();
    let head = &loaded.room_heads[0];
    assert_eq!((head.room.as_str(), head.epoch), ("r", Epoch(7)));
    assert_eq!((head.last, head.given, head.lease), (Seq(3), Seq(3), Seq(103)));
    drop(store);

    let (store, loaded) = crashed.open();
    let head = &loaded.room_heads[0];
    assert_eq!((head.last, head.given), (Seq(3), Seq(103)));
    assert_eq!(
        head.lease,
        Seq(103 + LEASE_AHEAD),
        "new numbers may be given at once"
    );
    // The new lease is on the disk before anything is accepted: another crash goes on behind it.
    let again = crashed.copy().await;
    stop(store).await;
    let (store, loaded) = again.open();
    assert_eq!(loaded.room_heads[0].given, Seq(103 + LEASE_AHEAD));
    stop(store).await;
}

#[tokio::test]
async fn a_stop_that_leaves_a_message_behind_is_no_clean_stop() {
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut answers = Answers::new();
    let mut row = message(&t, "r", 1);
    row.lease = Seq(50);
    hand_over(&handle, answers.of(1, row));
    assert_eq!(answers.next().await, (1, Ok(())));
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    hand_over(&handle, answers.of(2, message(&t, "r", 2)));
    let left = patiently("the deadline", store.shutdown(Duration::from_millis(50))).await;
    assert_eq!(left.rows, 1);
    let (n, answer) = answers.next().await;
    assert_eq!(
        (n, answer.expect_err("not committed").code),
        (2, Code::Unavailable)
    );
    run(&mut other, "ROLLBACK").await;
    other.close().await.expect("closed");
    let (store, loaded) = place.open();
    assert_eq!(loaded.room_heads[0].given, Seq(50));
    stop(store).await;

    // A number may have been given for what was reserved and never came.
    let (store, _) = place.open();
    store.handle().reserve_message(&t, 100).expect("reserved");
    let left = patiently("the stop", store.shutdown(Duration::from_secs(5))).await;
    assert_eq!(left.rows, 0);
    let (store, loaded) = place.open();
    assert_eq!(loaded.room_heads[0].given, Seq(50 + LEASE_AHEAD));
    stop(store).await;
}

#[tokio::test]
async fn after_the_end_whoever_waits_is_told_on_another_thread() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    handle.reserve_message(&t, 100).expect("reserved");
    let _ = patiently("the stop", store.shutdown(Duration::from_secs(5))).await;
    assert_eq!(
        handle.reserve_message(&t, 100).expect_err("closed").code,
        Code::Unavailable
    );
    let mut answers = Answers::new();
    handle.message(answers.of(1, message(&t, "r", 1)), 100);
    let (n, answer) = answers.next().await;
    assert_eq!(
        (n, answer.expect_err("not committed").code),
        (1, Code::Unavailable)
    );
    answers.are_over().await;
}

#[tokio::test]
async fn admin_changes_and_telemetry_have_their_turn_beside_a_stream_of_messages() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let stream = {
        let (handle, t) = (handle.clone(), t.clone());
        tokio::spawn(async move {
            let mut answers = Answers::new();
            for n in 1..=3_000 {
                hand_over(&handle, answers.of(n, message(&t, "r", n)));
                if n > 20 {
                    assert_eq!(answers.next().await.1, Ok(()));
                }
            }
        })
    };
    for n in 0..20 {
        let _ = handle.reading(crate::support::reading(&t, "d", n));
        patiently("a flush", handle.flushed()).await.expect("flushed");
        let change = handle.create_tenant(tenant_row(&format!("t{n}")));
        patiently("a change", change).await.expect("created");
    }
    patiently("the stream", stream).await.expect("no panic");
    stop(store).await;
}

#[tokio::test]
async fn an_epoch_that_ends_takes_its_messages_with_it() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.messages.trim_every_ms = 10;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let answers = Answers::new();
    for n in 1..=2_500 {
        hand_over(&handle, answers.of(n, message(&t, "r", n)));
    }
    for n in 1..=40 {
        let mut row = message(&t, "r", n);
        row.epoch = Epoch(8);
        hand_over(&handle, answers.of(10_000 + n, row));
    }
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert!(
        page(&handle, &t, "r").await.messages.is_empty(),
        "of the epoch that ended"
    );
    let mut new = query(&t, "r");
    new.epoch = Epoch(8);
    let shown = handle.messages(new).await.expect("a page");
    assert_eq!(seqs(&shown), (1..=40).collect::<Vec<_>>());
    until("the old messages to go", || {
        handle.counters().messages_trimmed.load(Relaxed) == 2_500
    })
    .await;
    let mut other = connect(&config).await;
    let left: (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM room_epochs_ended)")
            .fetch_one(&mut other)
            .await
            .expect("counted");
    assert_eq!(left, (40, 0));
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
#[ignore = "a measurement: run with --ignored --nocapture, in release for numbers that count"]
async fn commits_a_second_by_messages_in_flight() {
    let t = first_tenant();
    for (delay_ms, in_flight) in [0, 1, 2]
        .into_iter()
        .flat_map(|delay| [1_u64, 10, 100, 1_000].map(|n| (delay, n)))
    {
        let place = Place::new();
        let mut config = place.config();
        config.messages.commit_delay_ms = delay_ms;
        let (store, _) = Store::open(config).expect("opens");
        let handle = store.handle();
        let total = 2_000 * in_flight.min(50);
        let mut answers = Answers::new();
        let before = handle.counters().commits.load(Relaxed);
        let begun = Instant::now();
        for n in 0..total + in_flight - 1 {
            if n < total {
                let mut row = message(&t, "r", n + 1);
                row.keep = Keep {
                    messages: 10_000,
                    ..KEEP_ALL
                };
                hand_over(&handle, answers.of(n + 1, row));
            }
            if n + 1 >= in_flight {
                assert_eq!(answers.next().await.1, Ok(()));
            }
        }
        let took = begun.elapsed();
        let commits = handle.counters().commits.load(Relaxed) - before;
        println!(
            "delay {delay_ms} ms, {in_flight:>5} in flight: {:>8.0} messages/s, {:>6.0} commits/s, {:>6.1} messages a commit",
            total as f64 / took.as_secs_f64(),
            commits as f64 / took.as_secs_f64(),
            total as f64 / commits as f64,
        );
        stop(store).await;
    }
}
