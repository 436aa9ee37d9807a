//! Comings and goings of clients: written, shown in pages, filtered, kept apart and swept.

use std::sync::atomic::Ordering::Relaxed;

use cauce_broker::store::{
    Admission, ConnectionEvent, ConnectionEventKind, ConnectionLogQuery, ConnectionLogRow, Store,
};
use cauce_protocol::{ConnectionId, TenantId, UserId};

use crate::support::{Place, first_tenant, patiently, stop, tenant, until};

/// Far enough ahead that no sweep finds it old.
const LATER_MS: u64 = u64::MAX / 4;

/// The even ones open and the odd ones close; every third is of bob.
fn row(tenant: &TenantId, n: u64) -> ConnectionLogRow {
    let user = if n.is_multiple_of(3) { "bob" } else { "ann" };
    ConnectionLogRow {
        tenant: tenant.clone(),
        at_ms: LATER_MS + n,
        connection: ConnectionId(n),
        user: UserId::new(user).expect("a user's name"),
        address: "192.0.2.0/24".into(),
        client: n.is_multiple_of(4).then(|| "web/1".into()),
        event: if n.is_multiple_of(2) {
            ConnectionEvent::Opened
        } else {
            ConnectionEvent::Closed {
                code: (n > 1).then_some(4000),
                message: (n > 1).then(|| "maintenance".into()),
                duration_ms: n,
            }
        },
    }
}

fn all(tenant: &TenantId) -> ConnectionLogQuery {
    ConnectionLogQuery {
        tenant: tenant.clone(),
        user: None,
        event: None,
        since_ms: 0,
        until_ms: u64::MAX,
        limit: 1_000,
        before_seq: None,
    }
}

#[tokio::test]
async fn connection_logs_are_told_newest_first_by_page_and_filter_and_apart_for_tenants() {
    let place = Place::new();
    let (t, other) = (first_tenant(), tenant("other"));
    let (store, _) = place.open();
    let handle = store.handle();
    for n in 0..12 {
        assert_eq!(handle.connection_log(row(&t, n)), Admission::Accepted);
    }
    let foreign = row(&other, 100);
    assert_eq!(handle.connection_log(foreign.clone()), Admission::Accepted);
    patiently("a flush", handle.flushed()).await.expect("flushed");
    assert_eq!(handle.counters().connection_logs_written.load(Relaxed), 13);
    stop(store).await;

    let (store, _) = place.open();
    let handle = store.handle();
    let mut query = ConnectionLogQuery { limit: 5, ..all(&t) };
    let mut rows = Vec::new();
    loop {
        let page = handle.connection_logs(query.clone()).await.expect("a page");
        assert!(page.rows.len() <= 5);
        rows.extend(page.rows.into_iter().map(|numbered| numbered.row));
        query.before_seq = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..12).rev().map(|n| row(&t, n)).collect();
    assert_eq!(rows, expected, "every column comes back as it went in");

    let bob = Some(UserId::new("bob").expect("a user's name"));
    let cases: [(ConnectionLogQuery, &[u64]); 4] = [
        (
            ConnectionLogQuery {
                user: bob.clone(),
                ..all(&t)
            },
            &[9, 6, 3, 0],
        ),
        (
            ConnectionLogQuery {
                event: Some(ConnectionEventKind::Closed),
                ..all(&t)
            },
            &[11, 9, 7, 5, 3, 1],
        ),
        (
            ConnectionLogQuery {
                since_ms: LATER_MS + 4,
                until_ms: LATER_MS + 6,
                ..all(&t)
            },
            &[5, 4],
        ),
        (
            ConnectionLogQuery {
                user: bob,
                event: Some(ConnectionEventKind::Opened),
                since_ms: LATER_MS + 1,
                ..all(&t)
            },
            &[6],
        ),
    ];
    for (query, expected) in cases {
        let page = handle.connection_logs(query.clone()).await.expect("a page");
        let ids: Vec<u64> = page.rows.iter().map(|n| n.row.connection.0).collect();
        assert_eq!(ids, expected, "{query:?}");
    }
    let page = handle.connection_logs(all(&other)).await.expect("a page");
    let rows: Vec<_> = page.rows.into_iter().map(|numbered| numbered.row).collect();
    assert_eq!(rows, [foreign]);
    stop(store).await;
}

#[tokio::test]
async fn old_connection_logs_are_swept_out_and_young_ones_stay() {
    let place = Place::new();
    let t = first_tenant();
    let mut config = place.config();
    config.retention.sweep_every_ms = 10;
    let (store, _) = Store::open(config).expect("opens");
    let handle = store.handle();
    for n in 0..20 {
        let old = ConnectionLogRow {
            at_ms: 1_000,
            ..row(&t, n)
        };
        let _ = handle.connection_log(old);
    }
    let _ = handle.connection_log(row(&t, 20));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    until("the sweep", || {
        handle.counters().retention_deleted.load(Relaxed) == 20
    })
    .await;
    let counts = handle.counts(None).await.expect("counts");
    assert_eq!(counts.connection_logs, 1);
    stop(store).await;
}
