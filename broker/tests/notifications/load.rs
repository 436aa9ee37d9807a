//! Many at once: they share commits, keep the order of their ids, go by their urgency, and one tenant's do not keep out another's.

use std::time::Duration;

use cauce_protocol::message::{Priority, Recipient};
use cauce_protocol::wire::server_frame::Message;
use cauce_protocol::{Code, Payload, UserId};

use crate::support::{PATIENCE, token};
use crate::tab::Tab;
use crate::{leave, notice, start, tenant, titles, user};

#[tokio::test]
async fn thousands_left_at_once_share_transactions_and_are_pushed_in_the_order_of_their_ids() {
    const COUNT: u64 = 2_000;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "notifications.per_audience=5000");
    let a = tenant(&broker, "a");
    let mut ana = Tab::open(&broker, &token("a", "ana")).await;
    let begun = std::time::Instant::now();
    let leaving: Vec<_> = (0..COUNT)
        .map(|n| {
            let a = a.clone();
            tokio::spawn(async move { leave(&a, user("ana"), &n.to_string()).await })
        })
        .collect();
    let mut ids = Vec::new();
    for left in leaving {
        ids.push(left.await.expect("a task"));
    }
    let took = begun.elapsed();
    for id in 1..=COUNT {
        assert_eq!(ana.notified().await.id, id);
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=COUNT));
    assert_eq!(ana.all().await.unread, u32::try_from(COUNT).expect("a few"));
    println!("{COUNT} notifications were committed in {took:?}");
}

#[tokio::test]
async fn high_overtakes_what_waits_for_a_slow_reader_and_low_gives_way() {
    const LETTERS: usize = 36;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(
        dir.path(),
        "limits.outbox_bytes=20MiB\nlimits.mailbox_bytes=64MiB\nlimits.frame_bytes=1MiB\nlimits.payload_bytes=600KiB",
    );
    let a = tenant(&broker, "a");
    let mut slow = Tab::open(&broker, &token("a", "ana")).await;
    // It reads nothing for a while, and some megabytes wait for it.
    let letter = Payload::text("x".repeat(500 * 1024));
    for _ in 0..LETTERS {
        let to = Recipient::User(UserId::new("ana").expect("a name"));
        a.send(to, "letter", letter.clone()).expect("sent");
    }
    for (title, priority) in [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
        ("higher", Priority::High),
    ] {
        a.notify(notice(user("ana"), title, priority))
            .await
            .expect("left");
    }
    let handle = broker.server.handle();
    let metrics = || {
        let metrics = handle.metrics();
        let pushed = metrics.total(|m| &m.notices_pushed);
        (pushed, metrics.total(|m| &m.notices_gave_way))
    };
    let all_handed_over = async {
        while metrics() != (3, 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_handed_over)
        .await
        .expect("they reach the outbox");

    let mut heard = Vec::new();
    while heard.len() < LETTERS + 3 {
        heard.push(match slow.told().await {
            Message::Direct(_) => "letter".to_owned(),
            Message::Notification(notification) => notification.title,
            other => panic!("{other:?}"),
        });
    }
    let at = |title: &str| heard.iter().position(|heard| heard == title).expect(title);
    assert_eq!(at("higher"), at("high") + 1, "in the order of their ids");
    assert!(at("high") < LETTERS, "it overtook: {}", at("high"));
    assert_eq!(at("normal"), LETTERS + 2, "behind every letter that waited");
    let mut tab = Tab::deaf(&broker, &token("a", "ana")).await;
    assert_eq!(
        titles(&tab.all().await),
        ["higher", "high", "normal", "low"],
        "nothing is lost"
    );
}

#[tokio::test]
async fn a_flood_of_one_tenant_is_told_to_wait_and_does_not_keep_out_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let (a, b) = (tenant(&broker, "a"), tenant(&broker, "b"));
    let flood: Vec<_> = (0..2 * cauce_broker::store::CHANGES_PER_TENANT_MAX)
        .map(|n| {
            let a = a.clone();
            async move {
                a.notify(notice(user("ana"), &n.to_string(), Priority::Normal))
                    .await
            }
        })
        .collect();
    // All of them are asked before the runtime looks at any answer; the other tenant asks behind them.
    let mut flood = Box::pin(futures_util::future::join_all(flood));
    assert!(futures_util::poll!(flood.as_mut()).is_pending());
    let b_waited = tokio::time::timeout(PATIENCE, leave(&b, user("ana"), "quiet"));
    assert_eq!(b_waited.await.expect("in time"), 1);
    let answers = flood.await;
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(!refused.is_empty());
    for refusal in &refused {
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(refusal.retry_after_ms > 0);
    }
    // Nothing that was refused is there, nothing that was acknowledged got another's id.
    let mut ids: Vec<u64> = answers
        .iter()
        .filter_map(|answer| Some(answer.as_ref().ok()?.id))
        .collect();
    let in_order = ids.is_sorted();
    ids.sort_unstable();
    assert!(in_order && ids.iter().copied().eq(1..=ids.len() as u64));
}
