//! The tables of notifications; the time is ours.

mod model;

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::UserId;
use sqlx::{ConnectOptions, Executor};

use super::*;
use crate::store::notifications::{Done, NOTIFICATION_KEPT_MS_MAX, NOTIFICATION_KEY_MS_MAX};

const LIMITS: NotificationLimits = NotificationLimits {
    per_audience_max: 4,
    per_tenant_max: 9,
};

/// How far back a repeat is recognised, in milliseconds.
const WINDOW_MS: u64 = 50;

/// Who there is.
const TENANTS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Wish {
    Leave {
        tenant: usize,
        audience: Audience,
        /// Too short for some, to expire before they are read.
        kept_ms: u64,
        sender: usize,
        key: Option<u8>,
    },
    Read {
        tenant: usize,
        reader: Reader,
        ids: Vec<u64>,
        up_to: u64,
    },
}

fn tenant(index: usize) -> TenantId {
    TenantId::new(TENANTS[index]).unwrap()
}

fn change(wish: &Wish, now_ms: u64) -> Change {
    match wish.clone() {
        Wish::Leave {
            tenant: of,
            audience,
            kept_ms,
            sender,
            key,
        } => {
            let row = NotificationRow {
                tenant: tenant(of),
                audience,
                sender: [Sender::Api, Sender::User(UserId::new("api").unwrap())][sender].clone(),
                idempotency_key: key.map_or_else(String::new, |key| key.to_string()).into(),
                window_ms: WINDOW_MS,
                kind: NotificationKind::Alert,
                title: "title".to_owned(),
                message: "message".to_owned(),
                json: Bytes::from_static(b"{\"n\":1}"),
                priority: Priority::High,
                created_ms: now_ms,
                expires_ms: now_ms + kept_ms,
            };
            Change::Leave(Arc::new(row), Done::new(|_| {}))
        }
        Wish::Read {
            tenant: of,
            reader,
            ids,
            up_to,
        } => {
            let row = ReadRow {
                tenant: tenant(of),
                reader,
                ids,
                up_to,
                at_ms: now_ms,
            };
            Change::Read(row, Done::new(|_| {}))
        }
    }
}

async fn database(dir: &tempfile::TempDir) -> SqliteConnection {
    let config = crate::store::config::StoreConfig::new(dir.path());
    let options = crate::store::sql::writer_options(&config).create_if_missing(true);
    // What a power failure would do is not the question here.
    let mut c = options
        .synchronous(sqlx::sqlite::SqliteSynchronous::Off)
        .connect()
        .await
        .unwrap();
    let text = include_str!("../../../../../migrations/sqlite/0003_notifications.sql");
    c.execute(text).await.unwrap();
    c
}

async fn number(c: &mut SqliteConnection, text: &'static str) -> i64 {
    sqlx::query_scalar(text).fetch_one(c).await.unwrap()
}

fn left(audience: Audience, now_ms: u64) -> Change {
    let wish = Wish::Leave {
        tenant: 0,
        audience,
        kept_ms: 100,
        sender: 0,
        key: None,
    };
    change(&wish, now_ms)
}

#[tokio::test]
async fn a_page_holds_as_many_bytes_as_it_may_and_at_least_one_notification() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    let changes: Vec<Change> = (0..4).map(|_| left(Audience::Tenant, 1)).collect();
    change_notifications(&mut c, &changes, LIMITS).await.unwrap();
    // "title", "message" and {"n":1}
    let one = 5 + 7 + 7;
    for (bytes_max, expected) in [(0, vec![4]), (one, vec![4]), (3 * one, vec![4, 3, 2])] {
        let query = NotificationQuery {
            tenant: tenant(0),
            reader: Reader {
                user: UserId::new("ana").unwrap(),
                roles: Box::default(),
            },
            before: 0,
            limit: 10,
            unread_only: false,
            bytes_max,
            now_ms: 2,
        };
        let page = notifications(&mut c, &query).await.unwrap();
        let ids: Vec<u64> = page.notifications.iter().map(|n| n.id).collect();
        assert_eq!((ids, page.more, page.unread), (expected, true, 4));
    }
}

#[tokio::test]
async fn any_text_comes_back_as_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    for (title, json) in [
        ("a\0b", "\"a\\u0000b\""),
        ("'; --", ""),
        ("\u{1f514}\u{202e}", "null"),
    ] {
        let row = NotificationRow {
            tenant: tenant(0),
            audience: Audience::Tenant,
            sender: Sender::Program,
            idempotency_key: title.into(),
            window_ms: WINDOW_MS,
            kind: NotificationKind::Success,
            title: title.to_owned(),
            message: title.repeat(2),
            json: Bytes::from(json),
            priority: Priority::Low,
            created_ms: 1,
            expires_ms: 100,
        };
        let row = Arc::new(row);
        let changes = [0, 1].map(|_| Change::Leave(row.clone(), Done::new(|_| {})));
        let changed = change_notifications(&mut c, &changes, LIMITS).await.unwrap();
        assert!(matches!(changed[1], Changed::Left(Left { repeated: true, .. })));
        let query = NotificationQuery {
            tenant: tenant(0),
            reader: Reader {
                user: UserId::new("ana").unwrap(),
                roles: Box::default(),
            },
            before: 0,
            limit: 1,
            unread_only: false,
            bytes_max: 1_000,
            now_ms: 2,
        };
        let page = notifications(&mut c, &query).await.unwrap();
        let found = &page.notifications[0];
        assert_eq!(
            (&found.title, &found.message, &found.json),
            (&row.title, &row.message, &row.json)
        );
        assert_eq!((found.kind, found.priority), (row.kind, row.priority));
    }
}

#[tokio::test]
async fn what_is_too_much_after_a_limit_was_lowered_goes_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    let all = u64::from(RETENTION_STEP_ROWS) + 50;
    let wide = NotificationLimits {
        per_audience_max: u32::MAX,
        per_tenant_max: u64::MAX,
    };
    let mut t = c.begin().await.unwrap();
    let changes: Vec<Change> = (0..all).map(|_| left(Audience::Tenant, 1)).collect();
    change_notifications(&mut t, &changes, wide).await.unwrap();
    t.commit().await.unwrap();
    for expected in [
        all + 1 - u64::from(RETENTION_STEP_ROWS),
        LIMITS.per_audience_max.into(),
    ] {
        change_notifications(&mut c, &[left(Audience::Tenant, 1)], LIMITS)
            .await
            .unwrap();
        assert_eq!(head(&mut c, &tenant(0)).await.unwrap().kept, expected);
    }
}

#[tokio::test]
async fn keys_and_marks_go_when_they_can_no_longer_matter() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    let now_ms = 10 * NOTIFICATION_KEPT_MS_MAX;
    let leave = Wish::Leave {
        tenant: 0,
        audience: Audience::Tenant,
        kept_ms: 100,
        sender: 0,
        key: Some(1),
    };
    let read = Wish::Read {
        tenant: 0,
        reader: Reader {
            user: UserId::new("ana").unwrap(),
            roles: Box::default(),
        },
        ids: vec![1],
        up_to: 1,
    };
    let changes = [change(&leave, now_ms), change(&read, now_ms)];
    change_notifications(&mut c, &changes, LIMITS).await.unwrap();
    let keys = "SELECT COUNT(*) FROM notification_keys";
    let marks = "SELECT COUNT(*) FROM notification_marks";
    for (at_ms, expected) in [
        (now_ms + NOTIFICATION_KEY_MS_MAX, (1, 1)),
        (now_ms + NOTIFICATION_KEY_MS_MAX + 1, (0, 1)),
        (now_ms + NOTIFICATION_KEPT_MS_MAX, (0, 1)),
        (now_ms + NOTIFICATION_KEPT_MS_MAX + 1, (0, 0)),
    ] {
        sweep(&mut c, at_ms, 100).await.unwrap();
        assert_eq!(
            (number(&mut c, keys).await, number(&mut c, marks).await),
            expected
        );
    }
    assert_eq!(number(&mut c, "SELECT COUNT(*) FROM notification_reads").await, 0);
    let head = head(&mut c, &tenant(0)).await.unwrap();
    assert_eq!((head.last, head.kept), (1, 0), "the next one is still the second");
}

#[tokio::test]
async fn what_many_have_read_goes_in_small_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    change_notifications(&mut c, &[left(Audience::Tenant, 1)], LIMITS)
        .await
        .unwrap();
    let readers: Vec<Change> = (0..25)
        .map(|n| {
            let row = ReadRow {
                tenant: tenant(0),
                reader: Reader {
                    user: UserId::new(&format!("user-{n}")).unwrap(),
                    roles: Box::default(),
                },
                ids: vec![1],
                up_to: 0,
                at_ms: 2,
            };
            Change::Read(row, Done::new(|_| {}))
        })
        .collect();
    change_notifications(&mut c, &readers, LIMITS).await.unwrap();
    let reads = "SELECT COUNT(*) FROM notification_reads";
    let mut left = number(&mut c, reads).await;
    assert_eq!(left, 25);
    loop {
        let gone = sweep(&mut c, 1_000, 10).await.unwrap();
        assert!(gone <= 10, "{gone}");
        let now = number(&mut c, reads).await;
        assert!(left - now <= 10);
        left = now;
        if gone < 10 {
            break;
        }
    }
    assert_eq!(left, 0);
    assert_eq!(
        number(&mut c, "SELECT COUNT(*) FROM notification_leavings").await,
        0
    );
}

#[tokio::test]
async fn counting_and_paging_walk_the_index_of_the_audience() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    // `INDEXED BY` makes a statement fail that could not use it; that it is searched, and not walked from end to end, is for the
    // plan to say.
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(
        "EXPLAIN QUERY PLAN SELECT id FROM notifications AS m INDEXED BY notifications_by_audience \
         WHERE tenant = 'a' AND audience IN (SELECT value FROM json_each('[\"t\"]')) AND id < 9 AND expires_ms > 1 \
         ORDER BY id DESC LIMIT 3",
    )
    .fetch_all(&mut c)
    .await
    .unwrap();
    let plan: Vec<&str> = plan.iter().map(|(.., detail)| detail.as_str()).collect();
    let searched =
        "SEARCH m USING COVERING INDEX notifications_by_audience (tenant=? AND audience=? AND id<?)";
    assert!(plan.contains(&searched), "{plan:?}");
}
