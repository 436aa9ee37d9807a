use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use cauce_protocol::message::Text;
use cauce_protocol::{Code, Payload, Refusal};
use proptest::prelude::*;

use super::*;
use crate::publication::Excluded;
use crate::store::messages::{Committed, Late};

fn tenant(n: u8) -> TenantId {
    TenantId::new(&format!("t{n}")).unwrap()
}

fn row(t: u8, room: u8, epoch: u64, seq: u64) -> MessageRow {
    MessageRow {
        tenant: tenant(t),
        room: RoomName::new(&format!("r{room}")).unwrap(),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        event: Text::from_static("e"),
        payload: Payload::NULL,
        topic: Text::default(),
        user: None,
        excluded: Excluded::new(),
        unix_ms: seq,
        repeat: None,
        lease: Seq(seq + 100),
        keep: Keep::NONE,
        committed: Committed(None),
        late: Late::default(),
    }
}

fn awaited(mut row: MessageRow) -> MessageRow {
    row.committed = Committed(Some(Box::new(drop)));
    row.late = Late(Some(Box::new(drop)));
    row
}

fn limits() -> MessageLimits {
    MessageLimits {
        bytes_max: 1_000,
        tenant_share_percent: 50,
        commit_delay_ms: 2,
        answer_ms: 5_000,
        trim_every_ms: 1,
    }
}

fn push(queue: &mut MessageQueue, row: MessageRow, mono_ms: u64) -> Wakes {
    let pushed = queue.push(Box::new(row), 100, mono_ms, Instant::now());
    pushed.unwrap_or_else(|_| panic!("the queue has not ended"))
}

fn cut_all(queue: &mut MessageQueue) -> Vec<Piece> {
    let mut backlog = queue.take();
    std::iter::from_fn(|| Piece::cut(&mut backlog)).collect()
}

#[test]
fn the_first_message_wakes_the_writer_and_is_due_after_the_delay() {
    let mut queue = MessageQueue::new(limits());
    assert_eq!(queue.due_ms(), None);
    assert_eq!(
        push(&mut queue, row(0, 0, 1, 1), 10),
        Wakes {
            writer: true,
            watch: false
        }
    );
    assert!(!push(&mut queue, row(0, 0, 1, 2), 11).writer);
    assert_eq!(queue.due_ms(), Some(12));
    queue.close();
    assert_eq!(queue.due_ms(), Some(10), "nobody waits for more at the end");
    assert_eq!(cut_all(&mut queue).len(), 1);
    assert_eq!(queue.due_ms(), None);
}

#[test]
fn as_many_as_a_commit_takes_are_due_at_once() {
    let mut queue = MessageQueue::new(limits());
    for seq in 1..COMMIT_ROWS_MAX as u64 {
        let _ = push(&mut queue, row(0, 0, 1, seq), 10);
    }
    assert_eq!(queue.due_ms(), Some(12));
    assert!(push(&mut queue, row(0, 0, 1, COMMIT_ROWS_MAX as u64), 11).writer);
    assert_eq!(queue.due_ms(), Some(10));
}

#[test]
fn the_watch_is_woken_once_until_it_finds_nobody() {
    let mut queue = MessageQueue::new(limits());
    assert!(push(&mut queue, awaited(row(0, 0, 1, 1)), 0).watch);
    assert!(!push(&mut queue, awaited(row(0, 0, 1, 2)), 7).watch);
    for (now_ms, late, next_ms) in [
        (4_999, 0, Some(5_000)),
        (5_000, 1, Some(5_007)),
        (5_001, 0, Some(5_007)),
        (9_000, 1, None),
        (9_000, 0, None),
    ] {
        let found = queue.late(now_ms);
        assert_eq!((found.0.len(), found.1), (late, next_ms), "at {now_ms}");
    }
    assert_eq!(queue.rows(), 2, "who is told has no say in what is written");
    assert!(push(&mut queue, awaited(row(0, 0, 1, 3)), 9_001).watch);
}

#[test]
fn a_commit_is_bounded_in_rows_and_bytes() {
    let mut queue = MessageQueue::new(MessageLimits {
        bytes_max: usize::MAX,
        ..limits()
    });
    for seq in 1..=2_500 {
        let _ = push(&mut queue, row(0, 0, 1, seq), 0);
    }
    let sizes: Vec<usize> = cut_all(&mut queue).iter().map(|piece| piece.rows.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    for (seq, bytes) in [(1, 3 << 20), (2, 1 << 20), (3, 1), (4, 9 << 20), (5, 1)] {
        let pushed = queue.push(Box::new(row(0, 0, 1, seq)), bytes, 0, Instant::now());
        assert!(pushed.is_ok());
    }
    let sizes: Vec<usize> = cut_all(&mut queue).iter().map(|piece| piece.rows.len()).collect();
    assert_eq!(sizes, [2, 1, 1, 1], "a message larger than the bound goes alone");
}

#[test]
fn a_room_has_one_epoch_in_a_commit() {
    let mut queue = MessageQueue::new(limits());
    for message in [row(0, 0, 1, 8), row(1, 0, 2, 1), row(0, 0, 2, 1), row(0, 0, 2, 2)] {
        let _ = push(&mut queue, message, 0);
    }
    let pieces = cut_all(&mut queue);
    let epochs: Vec<Vec<u64>> = pieces
        .iter()
        .map(|piece| piece.heads.iter().map(|head| head.epoch.0).collect())
        .collect();
    assert_eq!(epochs, [vec![1, 2], vec![2]]);
}

#[test]
fn a_head_counts_what_is_kept_and_passes_over_what_is_given_up() {
    let mut queue = MessageQueue::new(limits());
    for message in [row(0, 0, 1, 1), row(0, 1, 1, 5), row(0, 0, 1, 2), row(0, 0, 1, 3)] {
        let _ = push(&mut queue, message, 0);
    }
    let piece = cut_all(&mut queue).remove(0);
    let told = |heads: &[HeadRow]| -> Vec<(u64, u64, u64, u64)> {
        heads
            .iter()
            .map(|head| (head.last.0, head.lease.0, head.kept, head.bytes))
            .collect()
    };
    assert_eq!(told(&piece.heads), [(3, 103, 3, 300), (5, 105, 1, 100)]);
    assert_eq!(
        told(&piece.heads_without(&[0, 1, 3])),
        [(3, 103, 1, 100), (5, 105, 0, 0)]
    );
}

#[test]
fn after_the_end_nothing_is_taken() {
    let mut queue = MessageQueue::new(limits());
    let _ = push(&mut queue, awaited(row(0, 0, 1, 1)), 0);
    queue.close();
    assert_eq!(queue.reserve(&tenant(0), 1), Err(NotReserved::Closed));
    let _ = push(&mut queue, awaited(row(0, 0, 1, 2)), 0);
    assert!(!queue.is_clean());
    assert_eq!(queue.end().len(), 2);
    assert_eq!(queue.end().len(), 0);
    let late = queue.push(Box::new(awaited(row(0, 0, 1, 3))), 1, 0, Instant::now());
    assert!(matches!(late, Err(Some(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { t: u8, bytes: usize },
    Release,
    Message { room: u8, awaited: bool },
    Commit,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3u8, 1..300usize).prop_map(|(t, bytes)| Step::Reserve { t, bytes }),
        1 => Just(Step::Release),
        5 => (0..2u8, any::<bool>()).prop_map(|(room, awaited)| Step::Message { room, awaited }),
        2 => Just(Step::Commit),
        1 => (1..4_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Against a naive model: bounds hold, everybody is answered once, messages leave in order.
    #[test]
    fn everybody_is_answered_once_and_messages_leave_in_order(steps in prop::collection::vec(step(), 1..200)) {
        let mut queue = MessageQueue::new(limits());
        let answers: Arc<Mutex<BTreeMap<u64, Result<(), Code>>>> = Arc::default();
        let told_late: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
        let mut reserved: Vec<(u8, usize)> = Vec::new();
        let mut handed: VecDeque<(u64, u8, usize)> = VecDeque::new();
        let mut asked: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut now_ms, mut last, mut written) = (0, 0, Vec::new());
        let mut late = BTreeSet::new();

        for step in steps {
            match step {
                Step::Reserve { t, bytes } => {
                    let held = |all: bool| -> usize {
                        let of = |at: u8, bytes: usize| if all || at == t { bytes } else { 0 };
                        reserved.iter().map(|&(at, bytes)| of(at, bytes)).sum::<usize>()
                            + handed.iter().map(|&(_, at, bytes)| of(at, bytes)).sum::<usize>()
                    };
                    let expected = if held(true) + bytes > 1_000 {
                        Err(NotReserved::Full)
                    } else if held(false) + bytes > 500 {
                        Err(NotReserved::TenantFull)
                    } else {
                        Ok(())
                    };
                    prop_assert_eq!(queue.reserve(&tenant(t), bytes), expected);
                    if expected.is_ok() {
                        reserved.push((t, bytes));
                    }
                }
                Step::Release => {
                    if let Some((t, bytes)) = reserved.pop() {
                        queue.release(&tenant(t), bytes);
                    }
                }
                Step::Message { room, awaited } => {
                    let Some((t, bytes)) = reserved.pop() else { continue };
                    last += 1;
                    let mut row = row(t, room, 1, last);
                    if awaited {
                        asked.insert(last, now_ms + 5_000);
                        let (done, told, n) = (answers.clone(), told_late.clone(), last);
                        row.late = Late(Some(Box::new(move |_| {
                            assert!(!done.lock().unwrap().contains_key(&n), "late after the answer");
                            assert!(told.lock().unwrap().insert(n), "told twice");
                        })));
                        let (answers, n) = (answers.clone(), last);
                        row.committed = Committed(Some(Box::new(move |answer| {
                            let before = answers.lock().unwrap().insert(n, answer.map_err(|r| r.code));
                            assert_eq!(before, None, "answered twice");
                        })));
                    }
                    prop_assert!(queue.push(Box::new(row), bytes, now_ms, Instant::now()).is_ok());
                    handed.push_back((last, t, bytes));
                }
                Step::Commit => {
                    for piece in cut_all(&mut queue) {
                        let rows = piece.rows.len() as u64;
                        let held = piece.held();
                        for (ticket, callback) in queue.settled(piece.last_ticket(), rows, held.into_iter()) {
                            prop_assert!(piece.rows.iter().any(|waiting| waiting.ticket == ticket));
                            callback(Ok(()));
                        }
                        for waiting in &piece.rows {
                            written.push(waiting.row.seq.0);
                            handed.pop_front();
                        }
                    }
                }
                Step::Wait(ms) => {
                    now_ms += ms;
                    for tell in queue.late(now_ms).0.into_iter().filter_map(|late| late.0) {
                        tell(Refusal::new(Code::Unavailable, "late"));
                    }
                    late.extend(
                        handed.iter().map(|&(n, ..)| n).filter(|n| asked.get(n).is_some_and(|&at| at <= now_ms)),
                    );
                }
            }
            prop_assert!(queue.bytes() <= 1_000);
            prop_assert_eq!(queue.rows(), handed.len() as u64);
            prop_assert_eq!(queue.is_clean(), handed.is_empty() && reserved.is_empty());
        }
        for callback in queue.end() {
            callback(Err(Refusal::new(Code::GoingAway, "the end")));
        }
        prop_assert_eq!(&written, &(1..=written.len() as u64).collect::<Vec<_>>());
        let answers = answers.lock().unwrap();
        for &n in asked.keys() {
            let expected = if n <= written.len() as u64 {
                Ok(())
            } else {
                Err(Code::GoingAway)
            };
            prop_assert_eq!(answers.get(&n), Some(&expected), "message {}", n);
        }
        prop_assert_eq!(answers.len(), asked.len());
        prop_assert_eq!(&*told_late.lock().unwrap(), &late);
    }
}
