//! Who finds what: kept for who is away, told to all tabs of a user, seen and marked by nobody else.

use std::time::Duration;

use cauce_protocol::Code;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::message::{Audience, NotificationKind, Priority};
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::server_frame::Message;
use cauce_protocol::wire::{self, notify};

use crate::support::{Broker, claims, full_token, sign_for, token};
use crate::tab::Tab;
use crate::{leave, notice, role, start, stop, tenant, titles, user};

#[tokio::test]
async fn a_user_who_was_away_finds_it_later_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let mut sender = Tab::deaf(&broker, &full_token("a", "bo", "staff")).await;
    let request = wire::Notify {
        to: Some(notify::To::User("ana".to_owned())),
        kind: NotificationKind::Alert as i32,
        title: "Stock".to_owned(),
        message: "Low".to_owned(),
        json: br#"{"sku":7}"#.as_slice().into(),
        priority: Priority::High as i32,
        expires_in_ms: 60_000,
        idempotency_key: "once".to_owned(),
    };
    let first = match sender.ask(Request::Notify(request.clone())).await {
        Outcome::Notified(notified) => notified.id,
        other => panic!("{other:?}"),
    };
    stop(broker).await;

    let broker = start(dir.path(), "");
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    let page = ana.all().await;
    assert_eq!((page.unread, page.more, page.notifications.len()), (1, false, 1));
    let found = &page.notifications[0];
    assert_eq!(
        (found.id, found.title.as_str(), found.message.as_str()),
        (first, "Stock", "Low")
    );
    assert_eq!(
        (found.kind(), found.priority()),
        (NotificationKind::Alert, Priority::High)
    );
    assert_eq!(&found.json[..], br#"{"sku":7}"#);
    assert_eq!(found.expires_unix_ms - found.created_unix_ms, 60_000);
    assert!(!found.read);

    // The sender did not hear the answer and asks again, of another broker than the one that answered.
    let mut sender = Tab::deaf(&broker, &full_token("a", "bo", "staff")).await;
    match sender.ask(Request::Notify(request)).await {
        Outcome::Notified(notified) => assert_eq!(notified.id, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(leave(&tenant(&broker, "a"), user("ana"), "next").await, first + 1);
    assert_eq!(ana.read(&[], first).await.unread, 1);
    assert_eq!(titles(&ana.all().await), ["next", "Stock"]);
}

#[tokio::test]
async fn all_tabs_are_told_what_one_has_read_and_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut left_tab = Tab::open(&broker, &token("a", "ana")).await;
    let mut right_tab = Tab::open(&broker, &token("a", "ana")).await;
    let mut old_tab = Tab::deaf(&broker, &token("a", "ana")).await;
    let mut ids = Vec::new();
    for title in ["one", "two", "three"] {
        ids.push(leave(&a, user("ana"), title).await);
    }
    for tab in [&mut left_tab, &mut right_tab] {
        for &id in &ids {
            let notified = tab.notified().await;
            assert_eq!((notified.id, notified.read), (id, false));
        }
    }
    let read = left_tab.read(&[ids[1], ids[1], 9_999], 0).await;
    assert_eq!((read.ids.as_slice(), read.up_to, read.unread), (&ids[1..2], 0, 2));
    assert_eq!(right_tab.told().await, Message::NotificationsRead(read));
    // To read it once more changes nothing.
    assert_eq!(right_tab.read(&[ids[1]], 0).await.unread, 2);
    let again = wire::NotificationsRead {
        ids: vec![ids[1]],
        up_to: 0,
        unread: 2,
    };
    assert_eq!(left_tab.told().await, Message::NotificationsRead(again));
    // All: as far as there are any, and not what comes later.
    let read = right_tab.read(&[], INTEGER_MAX).await;
    assert_eq!((read.ids.len(), read.up_to, read.unread), (0, ids[2], 0));
    assert_eq!(left_tab.told().await, Message::NotificationsRead(read));
    leave(&a, user("ana"), "four").await;
    let page = left_tab
        .list(wire::Notifications {
            unread_only: true,
            ..Default::default()
        })
        .await;
    assert_eq!((titles(&page), page.unread), (vec!["four"], 1));
    assert!(left_tab.all().await.notifications.iter().skip(1).all(|n| n.read));
    // Whoever does not understand these pushes gets none, but may ask.
    assert_eq!(old_tab.told_so_far().await, []);
    assert_eq!(old_tab.all().await.unread, 1);
}

#[tokio::test]
async fn a_connection_in_other_roles_is_told_its_own_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut staff_tab = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let mut plain_tab = Tab::open(&broker, &token("a", "ana")).await;
    let own = leave(&a, user("ana"), "own").await;
    leave(&a, role("staff"), "staff").await;
    assert_eq!(plain_tab.notified().await.title, "own");
    let read = staff_tab.read(&[own], 0).await;
    assert_eq!(read.unread, 1);
    let elsewhere = wire::NotificationsRead { unread: 0, ..read };
    assert_eq!(plain_tab.told().await, Message::NotificationsRead(elsewhere));
}

#[tokio::test]
async fn nobody_sees_or_marks_what_is_not_for_him() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let (a, b) = (tenant(&broker, "a"), tenant(&broker, "b"));
    let mut ana = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let mut bo = Tab::open(&broker, &token("a", "bo")).await;
    let mut namesake = Tab::open(&broker, &full_token("b", "ana", "staff")).await;
    let own = leave(&a, user("ana"), "ana of a").await;
    let staff = leave(&a, role("staff"), "staff of a").await;
    leave(&a, Audience::Tenant, "all of a").await;
    leave(&b, Audience::Tenant, "all of b").await;

    assert_eq!(titles(&ana.all().await), ["all of a", "staff of a", "ana of a"]);
    assert_eq!(titles(&bo.all().await), ["all of a"]);
    assert_eq!(titles(&namesake.all().await), ["all of b"]);
    for (tab, expected) in [
        (&mut ana, vec!["ana of a", "staff of a", "all of a"]),
        (&mut bo, vec!["all of a"]),
        (&mut namesake, vec!["all of b"]),
    ] {
        let told = tab.told_so_far().await;
        let told: Vec<&str> = told
            .iter()
            .map(|told| match told {
                Message::Notification(notification) => notification.title.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, expected);
    }
    // What one may not see answers like what is not there.
    assert_eq!(bo.read(&[own, staff], 0).await, bo.read(&[77_777], 0).await);
    assert_eq!(
        namesake.read(&[own, staff], 0).await.ids.len(),
        1,
        "id 1 of its own tenant alone"
    );
    assert_eq!(ana.all().await.unread, 3);
    // Rights are those of the token at hand: the same user without the role.
    let mut plain = Tab::open(&broker, &token("a", "ana")).await;
    assert_eq!(titles(&plain.all().await), ["all of a", "ana of a"]);
    // And to leave one for others is a right of its own.
    let foreign = wire::Notify {
        to: Some(notify::To::Tenant(true)),
        title: "spam".to_owned(),
        ..Default::default()
    };
    match plain.ask(Request::Notify(foreign)).await {
        Outcome::Error(error) => assert_eq!(error.name, Code::Forbidden.name()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_list_comes_in_pages_without_gaps_while_more_are_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "notifications.per_audience=25");
    let a = tenant(&broker, "a");
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(leave(&a, user("ana"), &n.to_string()).await);
    }
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    let (mut before, mut seen) = (0, Vec::new());
    loop {
        let page = ana
            .list(wire::Notifications {
                before,
                limit: 7,
                ..Default::default()
            })
            .await;
        assert!(page.notifications.len() <= 7);
        seen.extend(page.notifications.iter().map(|n| n.id));
        if !page.more {
            break;
        }
        before = *seen.last().expect("a page with more is not empty");
        leave(&a, Audience::Tenant, "meanwhile").await;
    }
    seen.reverse();
    assert_eq!(seen, ids[5..], "the newest 25, each once");
}

#[tokio::test]
async fn what_has_expired_is_neither_listed_nor_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut short = notice(user("ana"), "short", Priority::Normal);
    short.expires_in_ms = 1;
    a.notify(short).await.expect("left");
    leave(&a, user("ana"), "long").await;
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    // Time must pass; that is all this waits for.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let page = ana.all().await;
    assert_eq!((titles(&page), page.unread), (vec!["long"], 1));
    let mut for_ever = notice(user("ana"), "for ever", Priority::Normal);
    for_ever.expires_in_ms = u64::MAX;
    assert_eq!(
        a.notify(for_ever).await.expect_err("too long").code,
        Code::Invalid
    );
}

#[tokio::test]
async fn without_a_database_there_are_no_notifications_and_it_says_so() {
    let broker = Broker::start();
    let mut ana = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let requests = [
        Request::Notify(wire::Notify {
            to: Some(notify::To::User("ana".to_owned())),
            title: "t".to_owned(),
            ..Default::default()
        }),
        Request::Notifications(wire::Notifications::default()),
        Request::MarkRead(wire::MarkRead {
            ids: vec![1],
            up_to: 0,
        }),
    ];
    for request in requests {
        match ana.ask(request).await {
            Outcome::Error(error) => {
                assert_eq!(error.name, Code::Unsupported.name());
                assert!(error.message.contains("without a database"), "{}", error.message);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_of_one_right_leaves_notifications_there_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let mut bo = Tab::deaf(&broker, &sign_for("a", claims("bo", &["$user:ana"]))).await;
    for (to, allowed) in [
        (notify::To::User("ana".to_owned()), true),
        (notify::To::User("bo".to_owned()), true),
        (notify::To::User("cy".to_owned()), false),
        (notify::To::Role("staff".to_owned()), false),
        (notify::To::Tenant(true), false),
    ] {
        let request = wire::Notify {
            to: Some(to.clone()),
            title: "t".to_owned(),
            ..Default::default()
        };
        let outcome = bo.ask(Request::Notify(request)).await;
        assert_eq!(
            matches!(outcome, Outcome::Notified(_)),
            allowed,
            "{to:?}: {outcome:?}"
        );
    }
}
