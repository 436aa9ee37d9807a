//! What is kept of durable rooms, and what goes: by number, size and age, a step at a time.

use cauce_broker::rooms::Keep;
use cauce_broker::store::{Committed, HEAD_IDLE_MS, MessageRow, Store, StoreHandle, TRIM_STEP_ROWS};
use cauce_protocol::{Payload, Seq};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::support::{
    Answers, KEEP_ALL, Place, connect, first_tenant, hand_over, message, now_ms, patiently, query, run, seqs,
    stop, until,
};

fn keeping(mut row: MessageRow, keep: Keep) -> MessageRow {
    row.keep = keep;
    row
}

async fn flush(handle: &StoreHandle) {
    patiently("a flush", handle.flushed()).await.expect("flushed");
}

/// Messages of a room on the disk, and what its head says: kept, bytes.
async fn on_disk(c: &mut SqliteConnection, room: &str) -> (Vec<i64>, i64, i64) {
    let seqs = sqlx::query_scalar("SELECT seq FROM messages WHERE room = ? ORDER BY seq")
        .bind(room)
        .fetch_all(&mut *c)
        .await
        .expect("read");
    let (kept, bytes) = sqlx::query_as("SELECT kept, bytes FROM room_heads WHERE room = ?")
        .bind(room)
        .fetch_one(c)
        .await
        .expect("read");
    (seqs, kept, bytes)
}

async fn trimmed(handle: &StoreHandle, messages: u64) {
    until("the retention", || {
        handle.counters().messages_trimmed.load(Relaxed) >= messages
    })
    .await;
    assert_eq!(handle.counters().messages_trimmed.load(Relaxed), messages);
}

#[tokio::test]
async fn a_room_keeps_as_many_messages_as_its_class_says() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let keep = Keep {
        messages: 40,
        ..KEEP_ALL
    };
    for n in 1..=57 {
        hand_over(&handle, keeping(message(&t, "r", n), keep));
        hand_over(&handle, message(&t, "whole", n));
    }
    flush(&handle).await;
    // More than are kept are never shown, whether they are still there or not.
    let page = handle.messages(query(&t, "r")).await.expect("a page");
    assert_eq!((seqs(&page), page.first), ((18..=57).collect(), Seq(18)));
    trimmed(&handle, 17).await;
    let mut other = connect(&place.config()).await;
    let (seqs, kept, bytes) = on_disk(&mut other, "r").await;
    assert_eq!((seqs, kept), ((18..=57).collect(), 40));
    assert_eq!(bytes, 40 * (256 + "number 57".len() as i64));
    assert_eq!(on_disk(&mut other, "whole").await.1, 57);
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn a_room_keeps_as_many_bytes_as_its_class_says_also_of_huge_messages() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 1..=30 {
        let mut row = message(&t, "r", n);
        row.payload = Payload::Binary(vec![1; 1_000_000].into());
        row.keep.bytes = 5_100_000;
        hand_over(&handle, row);
        flush(&handle).await;
    }
    until("the retention", || {
        handle.counters().messages_trimmed.load(Relaxed) >= 25
    })
    .await;
    let mut other = connect(&place.config()).await;
    let (seqs, kept, bytes) = on_disk(&mut other, "r").await;
    assert_eq!((seqs, kept, bytes), ((26..=30).collect(), 5, 5 * 1_000_256));
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn what_is_too_old_is_not_shown_and_soon_gone() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    // So that the page comes before the retention.
    config.messages.trim_every_ms = 200;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    let hour_ago = now_ms() - 3_600_000;
    for n in 1..=100 {
        let mut row = message(&t, "r", n);
        row.keep.age_ms = 1_800_000;
        if n <= 60 {
            row.unix_ms = hour_ago;
        }
        hand_over(&handle, row);
        let mut row = message(&t, "for ever", n);
        row.unix_ms = hour_ago;
        hand_over(&handle, row);
    }
    flush(&handle).await;
    let page = handle.messages(query(&t, "r")).await.expect("a page");
    assert_eq!((seqs(&page), page.first), ((61..=100).collect(), Seq(61)));
    trimmed(&handle, 60).await;
    let page = handle.messages(query(&t, "r")).await.expect("a page");
    assert_eq!((seqs(&page), page.first), ((61..=100).collect(), Seq(61)));
    let page = handle.messages(query(&t, "for ever")).await.expect("a page");
    assert_eq!(page.messages.len(), 100);
    stop(store).await;
}

#[tokio::test]
async fn a_class_that_keeps_nothing_leaves_nothing() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 1..=3 {
        let mut row = message(&t, "r", n);
        row.keep = Keep::NONE;
        hand_over(&handle, row);
    }
    flush(&handle).await;
    trimmed(&handle, 3).await;
    stop(store).await;
    let (store, loaded) = place.open();
    assert_eq!(
        loaded.room_heads[0].last,
        Seq(3),
        "numbering goes on all the same"
    );
    stop(store).await;
}

#[tokio::test]
async fn a_room_that_is_empty_and_was_not_written_to_for_long_is_forgotten() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.messages.trim_every_ms = 10;
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let long_ago = now_ms() - HEAD_IDLE_MS - 1_000;
    for (room, unix_ms, age_ms) in [
        ("empty and long ago", long_ago, 1_000),
        ("empty since lately", long_ago + 60_000, 1_000),
        ("long ago, but kept", long_ago, 0),
    ] {
        let mut row = message(&t, room, 1);
        row.unix_ms = unix_ms;
        row.keep.age_ms = age_ms;
        hand_over(&handle, row);
    }
    flush(&handle).await;
    until("the retention", || {
        handle.counters().rooms_forgotten.load(Relaxed) == 1
    })
    .await;
    stop(store).await;
    let (store, loaded) = Store::open(config).expect("opens");
    let rooms: Vec<&str> = loaded.room_heads.iter().map(|head| head.room.as_str()).collect();
    assert_eq!(rooms, ["empty since lately", "long ago, but kept"]);
    stop(store).await;
}

#[tokio::test]
async fn a_large_backlog_of_retention_goes_in_steps_and_commits_go_on_between_them() {
    const OLD: u64 = 20_000;
    const BESIDE: u64 = 40_000;
    let place = Place::new();
    let t = first_tenant();
    let config = place.config();
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    for n in 1..=OLD {
        hand_over(&handle, message(&t, "r", n));
    }
    flush(&handle).await;
    // The class changes, and nearly all of it has to go; many other messages wait meanwhile.
    let mut other = connect(&config).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let mut row = message(&t, "r", OLD + 1);
    row.keep.messages = 10;
    hand_over(&handle, row);
    let (tell, told) = std::sync::mpsc::channel();
    for n in 1..=BESIDE {
        let (tell, counters) = (tell.clone(), handle.clone());
        let mut row = message(&t, "other", n);
        row.committed = Committed(Some(Box::new(move |answer| {
            let gone = counters.counters().messages_trimmed.load(Relaxed);
            tell.send((answer, gone)).expect("the test waits");
        })));
        hand_over(&handle, row);
    }
    drop(tell);
    run(&mut other, "ROLLBACK").await;
    flush(&handle).await;
    let mut before = 0;
    for (answer, gone) in &told {
        assert_eq!(answer, Ok(()));
        assert!(gone - before <= TRIM_STEP_ROWS, "{before} and then {gone}");
        before = gone;
    }
    trimmed(&handle, OLD - 9).await;
    let page = handle.messages(query(&t, "r")).await.expect("a page");
    assert_eq!(seqs(&page), (OLD - 8..=OLD + 1).collect::<Vec<_>>());
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn many_rooms_that_are_full_stay_near_their_bound_while_they_are_written_to() {
    const ROOMS: u64 = 200;
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 1..=100 {
        for room in 0..ROOMS {
            let mut row = message(&t, &format!("r{room}"), n);
            row.keep.messages = 10;
            hand_over(&handle, row);
        }
        flush(&handle).await;
    }
    let mut other = connect(&place.config()).await;
    // 26 is the high mark.
    let over = "SELECT count(*) FROM room_heads WHERE kept > 26";
    patiently("the retention", async {
        while sqlx::query_scalar::<_, i64>(over)
            .fetch_one(&mut other)
            .await
            .expect("counted")
            > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM room_heads h WHERE (kept, bytes) <> \
         (SELECT count(*), sum(cost) FROM messages m WHERE m.tenant = h.tenant AND m.room = h.room)",
    )
    .fetch_one(&mut other)
    .await
    .expect("counted");
    assert_eq!(wrong, 0, "every head counts what is there");
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn a_full_database_makes_room_by_what_need_not_be_kept() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.database_bytes_max = Some(700 * 1024);
    let (store, _) = Store::open(config.clone()).expect("opens");
    let handle = store.handle();
    let mut answers = Answers::new();
    // Too many for the file, if the older ones stayed.
    for n in 1..=300 {
        let mut row = message(&t, "r", n);
        row.payload = Payload::Binary(vec![7; 8_000].into());
        row.keep.messages = 20;
        hand_over(&handle, answers.of(n, row));
        assert_eq!(answers.next().await, (n, Ok(())));
    }
    stop(store).await;
}

#[tokio::test]
async fn retention_reads_only_the_rooms_that_it_has_something_to_do_for() {
    let place = Place::new();
    let (store, _) = place.open();
    stop(store).await;
    let mut other = connect(&place.config()).await;
    for (statement, index) in [
        (
            "EXPLAIN QUERY PLAN SELECT room FROM room_heads INDEXED BY room_heads_over \
             WHERE kept > kept_high OR (bytes > bytes_high AND kept > 1) LIMIT 1",
            "USING INDEX room_heads_over",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT seq, cost, unix_ms FROM messages \
             WHERE tenant = 't' AND room = 'r' AND epoch = 1 ORDER BY seq LIMIT 1",
            "(tenant=? AND room=? AND epoch=?)",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT room FROM room_heads INDEXED BY room_heads_by_age \
             WHERE keep_age_ms > 0 AND kept > 0 AND oldest_ms + keep_age_ms < 5 ORDER BY oldest_ms + keep_age_ms LIMIT 1",
            "room_heads_by_age (<expr><?)",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT room FROM room_heads INDEXED BY room_heads_empty \
             WHERE kept = 0 AND written_ms < 5 ORDER BY written_ms LIMIT 1",
            "room_heads_empty (written_ms<?)",
        ),
    ] {
        let plan: (i64, i64, i64, String) = sqlx::query_as(statement)
            .fetch_one(&mut other)
            .await
            .expect("a plan");
        assert!(plan.3.contains(index), "{}", plan.3);
    }
    other.close().await.expect("closed");
}
