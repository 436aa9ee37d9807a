//! Messages of durable rooms: order, answers, restarts, trouble, pages.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use cauce_broker::rooms::Keep;
use cauce_broker::store::{Health, LEASE_AHEAD, MessagePage, Store, StoreHandle};
use cauce_protocol::message::{Direction, Text};
use cauce_protocol::{Code, ConnectionId, Epoch, Payload, Seq, TenantId, UserId};
use proptest::prelude::*;
use sqlx::Connection;

use crate::support::{
    Answers, KEEP_ALL, Place, connect, first_tenant, hand_over, message, patiently, query, run, seqs, stop,
    tenant, tenant_row, until,
};

async fn page(handle: &StoreHandle, t: &TenantId, room: &str) -> MessagePage {
    handle.messages(query(t, room)).await.expect("a page")
}

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
    assert!(answers.is_over());
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
async fn every_column_comes_back_as_it_went_in() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let mut answers = Answers::new();
    let payloads = [
        Payload::Json("{\"a\":1}".into()),
        Payload::Text("nul \0 and ñ".into()),
        Payload::Binary(vec![0, 255, 7].into()),
        Payload::Binary(vec![].into()),
    ];
    for (n, payload) in (1..).zip(&payloads) {
        let mut row = message(&t, "a\u{f1}o/1", n);
        row.payload = payload.clone();
        row.topic = Text::from("task-7");
        row.unix_ms = u64::MAX / 4 + n;
        if n % 2 == 0 {
            row.user = Some(UserId::new("anna").expect("a name"));
            row.repeat = Some("anna\0key".into());
            row.excluded = [ConnectionId(u64::MAX), ConnectionId(3)].into_iter().collect();
        }
        hand_over(&handle, answers.of(n, row));
    }
    for n in 1..=4 {
        assert_eq!(answers.next().await, (n, Ok(())));
    }
    let page = page(&handle, &t, "a\u{f1}o/1").await;
    assert_eq!((page.first, page.more), (Seq(1), false));
    for (n, (stored, payload)) in (1..).zip(page.messages.iter().zip(&payloads)) {
        assert_eq!(stored.seq, Seq(n));
        assert_eq!(&stored.payload, payload);
        assert_eq!(
            (stored.event.as_str(), stored.topic.as_str()),
            ("task_event", "task-7")
        );
        assert_eq!(stored.unix_ms, u64::MAX / 4 + n);
        assert_eq!(stored.user.is_some(), n % 2 == 0);
        let even: &[ConnectionId] = if n % 2 == 0 {
            &[ConnectionId(u64::MAX), ConnectionId(3)]
        } else {
            &[]
        };
        assert_eq!(&stored.excluded[..], even);
        assert_eq!(stored.repeat.as_deref(), (n % 2 == 0).then_some("anna\0key"));
    }
    stop(store).await;
}

#[tokio::test]
async fn rooms_of_the_same_name_belong_to_their_tenants() {
    let place = Place::new();
    let (store, _) = place.open();
    let handle = store.handle();
    let (a, b) = (tenant("a"), tenant("b"));
    let mut answers = Answers::new();
    hand_over(&handle, answers.of(1, message(&a, "r", 1)));
    assert_eq!(answers.next().await, (1, Ok(())));
    assert_eq!(page(&handle, &a, "r").await.messages.len(), 1);
    let foreign = page(&handle, &b, "r").await;
    let missing = page(&handle, &b, "never").await;
    assert!(foreign.messages.is_empty() && missing.messages.is_empty());
    assert_eq!((foreign.first, foreign.more), (missing.first, missing.more));
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
        answers.next().await;
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
    assert!(answers.is_over());
}

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
    assert_eq!(handle.counters().messages_unanswered.load(Relaxed), taken);
    run(&mut other, "ROLLBACK").await;
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert!(answers.is_over());
    assert_eq!(handle.health(), Health::Ready);
    assert_eq!(
        seqs(&page(&handle, &t, "r").await),
        (1..=taken).collect::<Vec<_>>()
    );
    hand_over(&handle, answers.of(taken + 1, message(&t, "r", taken + 1)));
    assert_eq!(answers.next().await, (taken + 1, Ok(())));
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
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(handle.health(), Health::Ready);
    let shown = handle.messages(query).await.expect("a page");
    assert_eq!(seqs(&shown), (10..=n).collect::<Vec<_>>());
    other.close().await.expect("closed");
    stop(store).await;
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
                    answers.next().await;
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
    let mut answers = Answers::new();
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

#[test]
fn pages_show_what_a_list_would() {
    #[derive(Clone, Debug)]
    struct Ask {
        from: u64,
        backwards: bool,
        limit: u32,
        bytes_max: usize,
    }
    let ask = (0..80_u64, any::<bool>(), 1..30_u32, 0..3_000_usize).prop_map(
        |(from, backwards, limit, bytes_max)| Ask {
            from,
            backwards,
            limit,
            bytes_max,
        },
    );
    let strategy = (
        prop::collection::btree_map(1..80_u64, 0..400_usize, 0..50),
        prop::sample::select(vec![3_u32, 20, 1_000]),
        prop::collection::vec(ask, 1..12),
    );
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an executor");
    let mut rooms = 0;
    let runner_config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(runner_config);
    let rooms = std::cell::Cell::new(std::mem::take(&mut rooms));
    runner
        .run(&strategy, |(messages, keep, asks)| {
            rooms.set(rooms.get() + 1);
            let room = format!("room {}", rooms.get());
            runtime.block_on(async {
                for (&seq, &size) in &messages {
                    let mut row = message(&t, &room, seq);
                    row.payload = Payload::Binary(vec![b'x'; size].into());
                    row.keep.messages = keep;
                    hand_over(&handle, row);
                }
                handle.flushed().await.expect("flushed");
            });
            let all: Vec<(u64, usize)> = messages.iter().map(|(&seq, &size)| (seq, size)).collect();
            let kept = &all[all.len().saturating_sub(keep as usize)..];
            for ask in asks {
                let mut query = query(&t, &room);
                query.from = Seq(ask.from);
                query.limit = ask.limit;
                query.bytes_max = ask.bytes_max;
                let beyond: Vec<(u64, usize)> = if ask.backwards {
                    query.direction = Direction::Backwards;
                    let before = |&&(seq, _): &&(u64, usize)| ask.from == 0 || seq < ask.from;
                    kept.iter().rev().filter(before).copied().collect()
                } else {
                    kept.iter().filter(|(seq, _)| *seq > ask.from).copied().collect()
                };
                let mut expected = Vec::new();
                let mut bytes = 0;
                for &(seq, size) in beyond.iter().take(ask.limit as usize) {
                    bytes += size;
                    if !expected.is_empty() && bytes > ask.bytes_max {
                        break;
                    }
                    expected.push(seq);
                }
                let page = runtime.block_on(handle.messages(query)).expect("a page");
                prop_assert_eq!(seqs(&page), expected.clone());
                prop_assert_eq!(page.more, beyond.len() > expected.len());
                prop_assert_eq!(page.first.0, kept.first().map_or(0, |(seq, _)| *seq));
            }
            Ok(())
        })
        .expect("pages as of a list");
    runtime.block_on(stop(store));
}

#[tokio::test]
#[ignore = "a measurement: run with --ignored --nocapture, in release for numbers that count"]
async fn commits_a_second_by_messages_in_flight() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let mut first = 0;
    for in_flight in [1_u64, 10, 100, 1_000] {
        let total = 2_000 * in_flight.min(50);
        let mut answers = Answers::new();
        let before = handle.counters().commits.load(Relaxed);
        let begun = Instant::now();
        for n in 0..total + in_flight {
            if n < total {
                let mut row = message(&t, "r", first + n + 1);
                row.keep = Keep {
                    messages: 10_000,
                    ..KEEP_ALL
                };
                hand_over(&handle, answers.of(first + n + 1, row));
            }
            if n >= in_flight {
                assert_eq!(answers.next().await.1, Ok(()));
            }
        }
        first += total;
        let took = begun.elapsed();
        let commits = handle.counters().commits.load(Relaxed) - before;
        println!(
            "{in_flight:>5} in flight: {:>8.0} messages/s, {:>6.0} commits/s, {:>6.1} messages a commit",
            total as f64 / took.as_secs_f64(),
            commits as f64 / took.as_secs_f64(),
            total as f64 / commits as f64,
        );
    }
    stop(store).await;
}
