//! The store alone, in trouble: what it acknowledged is there, and what it refused is not.

use std::sync::Arc;

use cauce_broker::store::{
    Done, NotificationQuery, NotificationRow, Reader, Sender, Store, StoreConfig, StoreHandle,
};
use cauce_protocol::message::{Audience, NotificationKind, Priority};
use cauce_protocol::{Code, TenantId, UserId};

use crate::support::PATIENCE;

fn store_row(n: u64, json_bytes: usize) -> Arc<NotificationRow> {
    Arc::new(NotificationRow {
        tenant: TenantId::new("default").expect("a name"),
        audience: Audience::Tenant,
        sender: Sender::Program,
        idempotency_key: "".into(),
        window_ms: 0,
        kind: NotificationKind::Info,
        title: n.to_string(),
        message: String::new(),
        json: format!("\"{}\"", "x".repeat(json_bytes)).into(),
        priority: Priority::Normal,
        created_ms: n,
        expires_ms: u64::MAX / 4,
    })
}

/// The titles of all that are kept, oldest first.
async fn kept(store: &StoreHandle) -> Vec<String> {
    let query = NotificationQuery {
        tenant: TenantId::new("default").expect("a name"),
        reader: Reader {
            user: UserId::new("ana").expect("a name"),
            roles: Box::default(),
        },
        before: 0,
        limit: 1_000,
        unread_only: false,
        bytes_max: usize::MAX,
        now_ms: 0,
    };
    let page = store.notifications(query).await.expect("a page");
    assert!(!page.more);
    page.notifications.into_iter().rev().map(|n| n.title).collect()
}

#[tokio::test]
async fn when_the_disk_is_full_nothing_is_acknowledged_and_what_was_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = StoreConfig::new(dir.path());
    config.database_bytes_max = Some(1024 * 1024);
    let (store, _) = Store::open(config).expect("the store opens");
    let handle = store.handle();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let n = acknowledged.len() as u64;
        assert!(n < 100, "a megabyte holds no more than a hundred of these");
        let (done, left) = Done::awaited();
        handle.leave_notification(store_row(n, 50_000), done);
        match left.await {
            Ok(_) => acknowledged.push(n.to_string()),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused.code, Code::Unavailable);
    assert!(
        refused.retry_after_ms > 0 && refused.message.contains("full"),
        "{refused}"
    );
    assert!(!acknowledged.is_empty());
    assert_eq!(kept(&handle).await, acknowledged);
    store.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_store_that_stops_answers_everyone_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(StoreConfig::new(dir.path())).expect("the store opens");
    let handle = store.handle();
    let mut answers = Vec::new();
    for n in 0..900 {
        let (done, left) = Done::awaited();
        handle.leave_notification(store_row(n, 10), done);
        answers.push(left);
    }
    // Some are committed before it stops, some wait.
    answers.remove(0).await.expect("the first is left");
    let (left, answers) = tokio::join!(store.shutdown(PATIENCE), futures_util::future::join_all(answers));
    assert!(left.checkpointed);
    let mut acknowledged = vec!["0".to_owned()];
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => acknowledged.push((n + 1).to_string()),
            Err(refusal) => assert_eq!(refusal.code, Code::Unavailable),
        }
    }
    let (store, _) = Store::open(StoreConfig::new(dir.path())).expect("the store opens again");
    assert_eq!(kept(&store.handle()).await, acknowledged);
    store.shutdown(PATIENCE).await;
}
