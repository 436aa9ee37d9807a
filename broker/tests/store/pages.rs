//! Pages of durable rooms.

use cauce_protocol::message::{Direction, Text};
use cauce_protocol::{ConnectionId, Payload, Seq, UserId};
use proptest::prelude::*;

use crate::support::{Answers, Place, first_tenant, hand_over, message, page, query, seqs, stop, tenant};

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
    let runner_config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(runner_config);
    let rooms = std::cell::Cell::new(0);
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
