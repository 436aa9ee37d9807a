use proptest::prelude::*;

use super::*;

fn kept(messages: u64, bytes: u64, keep: Keep) -> Kept {
    Kept {
        tenant: TenantId::new("t").unwrap(),
        room: RoomName::new("r").unwrap(),
        epoch: Epoch(1),
        messages,
        bytes,
        keep,
    }
}

fn oldest(costs: &[u64]) -> Vec<Oldest> {
    (1..)
        .zip(costs)
        .map(|(n, &cost)| Oldest {
            seq: Seq(n * 10),
            cost,
            unix_ms: n * 100,
        })
        .collect()
}

const ALL: Keep = Keep {
    messages: 1_000_000,
    age_ms: 0,
    bytes: 0,
};

#[test]
fn the_high_marks_are_a_little_above_what_is_kept() {
    let of = |messages, bytes| {
        HighMarks::of(&Keep {
            messages,
            bytes,
            age_ms: 0,
        })
    };
    assert_eq!(of(10, 0).messages, 26);
    assert_eq!(of(1_000, 0).messages, 1_125);
    assert_eq!(of(1_000_000, 0).messages, 1_001_000);
    assert_eq!(of(0, 0).messages, 0, "what keeps nothing is not kept for a while");
    assert_eq!(of(1, 0).bytes, u64::MAX);
    assert_eq!(of(1, 800).bytes, 900);
    assert_eq!(of(1, 1 << 40).bytes, (1 << 40) + SLACK_BYTES_MAX);
}

#[test]
fn the_oldest_go_down_to_the_number_that_is_kept() {
    let keep = Keep { messages: 2, ..ALL };
    let gone = surplus(&kept(5, 50, keep), &oldest(&[10; 5]), Budget::STEP, 0);
    assert_eq!((gone.up_to, gone.rows, gone.freed), (Seq(30), 3, 30));
    assert_eq!((gone.messages, gone.bytes, gone.oldest_ms), (2, 20, 400));
}

#[test]
fn bytes_are_kept_up_to_the_bound_and_one_message_whatever_its_size() {
    let keep = Keep { bytes: 25, ..ALL };
    let gone = surplus(&kept(3, 60, keep), &oldest(&[10, 40, 10]), Budget::STEP, 0);
    assert_eq!((gone.up_to, gone.bytes), (Seq(20), 10));
    let gone = surplus(&kept(2, 80, keep), &oldest(&[10, 70]), Budget::STEP, 0);
    assert_eq!((gone.up_to, gone.messages, gone.bytes), (Seq(10), 1, 70));
}

#[test]
fn messages_go_when_they_are_older_than_the_age() {
    let keep = Keep { age_ms: 1_000, ..ALL };
    let gone = |now_ms| surplus(&kept(3, 30, keep), &oldest(&[10; 3]), Budget::STEP, now_ms).messages;
    assert_eq!([gone(1_100), gone(1_101), gone(1_201), gone(1_302)], [3, 2, 1, 0]);
}

#[test]
fn a_head_that_counted_wrong_is_corrected_once_all_messages_are_seen() {
    let gone = surplus(&kept(9, 900, ALL), &oldest(&[10; 3]), Budget::STEP, 0);
    assert_eq!(
        (gone.rows, gone.messages, gone.bytes, gone.oldest_ms),
        (0, 3, 30, 100)
    );
    let gone = surplus(&kept(9, 900, ALL), &[], Budget::STEP, 0);
    assert_eq!((gone.rows, gone.messages, gone.bytes), (0, 0, 0));
}

proptest! {
    /// Steps of any size come to the same end as a list that is cut at once, and each gets on.
    #[test]
    fn steps_come_to_what_the_class_says_to_keep(
        costs in prop::collection::vec(0..50u64, 0..60),
        messages in 0..40u32,
        bytes in prop_oneof![Just(0), 1..800u64],
        age_ms in prop_oneof![Just(0), 1..4_000u64],
        budget_rows in 1..20u64,
        budget_bytes in 1..200u64,
    ) {
        let keep = Keep { messages, age_ms, bytes };
        let now_ms = 6_000;
        let mut list = oldest(&costs);
        let mut head = kept(list.len() as u64, costs.iter().sum(), keep);
        let budget = Budget { rows: budget_rows, bytes: budget_bytes };
        loop {
            let seen = &list[..list.len().min(budget_rows as usize + 1)];
            let gone = surplus(&head, seen, budget, now_ms);
            prop_assert!(gone.rows <= budget_rows);
            list.retain(|message| message.seq > gone.up_to);
            head.messages = gone.messages;
            head.bytes = gone.bytes;
            prop_assert_eq!(gone.messages, list.len() as u64);
            prop_assert_eq!(gone.bytes, list.iter().map(|m| m.cost).sum::<u64>());
            prop_assert_eq!(gone.oldest_ms, list.first().map_or(0, |m| m.unix_ms));
            if gone.rows == 0 {
                break;
            }
        }
        let mut expected = oldest(&costs);
        while let Some(first) = expected.first() {
            let sum: u64 = expected.iter().map(|m| m.cost).sum();
            let over = expected.len() as u64 > u64::from(messages)
                || (bytes > 0 && sum > bytes && expected.len() > 1)
                || (age_ms > 0 && first.unix_ms + age_ms < now_ms);
            if !over {
                break;
            }
            expected.remove(0);
        }
        prop_assert_eq!(list, expected);
    }
}
