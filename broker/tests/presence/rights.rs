//! Who may look, and what of another tenant is seen: nothing.

use cauce_broker::auth::{Action, Actions};
use cauce_protocol::Code;
use cauce_protocol::wire::{self, client_frame::Request};
use serde_json::value::RawValue;

use crate::client::{Client, ROOM, keep, watcher};
use crate::support::{Broker, claims, sign_for, token};

#[tokio::test]
async fn pages_and_watching_need_the_right_and_a_room_that_keeps_presence() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    let mut claims = claims("eve", &["*"]);
    claims.grants[0].allow = Actions::NONE.with(Action::Subscribe).with(Action::Publish);
    let mut eve = Client::join(&broker, &sign_for("a", claims)).await;
    assert_eq!(eve.page(ROOM).await.err(), Some(Code::Forbidden));
    assert_eq!(
        eve.subscribe(ROOM, wire::Watch::Counts).await.err(),
        Some(Code::Forbidden)
    );
    eve.subscribe(ROOM, wire::Watch::None).await.expect("subscribed");

    let mut ann = Client::join(&broker, &token("a", "ann")).await;
    let page = ann.page(ROOM).await.expect("a page");
    assert_eq!(page.page[0].user, "eve", "who may not look is seen all the same");
    assert_eq!(ann.page("empty").await.expect("a page").users, 0);
    assert_eq!(ann.page("dark.1").await.err(), Some(Code::Conflict));
    assert_eq!(
        ann.subscribe("dark.1", wire::Watch::Users).await.err(),
        Some(Code::Conflict)
    );
    // Refused as a whole: nobody is in the room by it.
    let rooms = broker
        .server
        .hub()
        .tenants
        .get("a")
        .expect("a tenant")
        .rooms
        .len();
    assert_eq!(rooms, 1);
    ann.subscribe("dark.1", wire::Watch::None)
        .await
        .expect("subscribed");
    assert_eq!(broker.server.handle().present(), 1, "only eve is anywhere");
}

#[tokio::test]
async fn a_tenant_sees_nobody_of_another() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    keep(&broker, "b", 0);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    let mut foreign = Client::join(&broker, &token("b", "ann")).await;
    foreign
        .subscribe(ROOM, wire::Watch::Users)
        .await
        .expect("subscribed");
    foreign.news_until("+ann").await;
    let _own = Client::enter(&broker, "bob").await;
    let mut news = watcher.news_until("+bob").await;
    foreign.unsubscribe(ROOM).await;
    let _marker = Client::enter(&broker, "marker").await;
    news.extend(watcher.news_until("+marker").await);
    assert_eq!(news.len(), 3, "{news:?}");
    let page = watcher.page(ROOM).await.expect("a page");
    assert_eq!((page.users, page.connections), (3, 3));
    assert_eq!(foreign.page(ROOM).await.expect("a page").users, 0);
    assert!(foreign.changes.is_empty());
}

#[tokio::test]
async fn a_renewed_token_speaks_for_its_user_and_may_end_the_watching() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    let say = |info: &str| Some(RawValue::from_string(info.into()).expect("JSON"));
    let mut first = claims("ann", &["*"]);
    first.info = say("1");
    let mut ann = Client::join(&broker, &sign_for("a", first.clone())).await;
    let hello = wire::Hello {
        version: cauce_protocol::VERSION,
        features: wire::Feature::Gap as u64,
        ..wire::Hello::default()
    };
    ann.ask(Request::Hello(hello)).await.expect("welcomed");
    ann.subscribe(ROOM, wire::Watch::Users).await.expect("subscribed");
    ann.subscribe("other", wire::Watch::None)
        .await
        .expect("subscribed");
    let mut second = claims("ann", &["*"]);
    second.info = say("2");
    let refresh = |claims| {
        let token = sign_for("a", claims);
        Request::Refresh(wire::Refresh { token })
    };
    ann.ask(refresh(second)).await.expect("refreshed");
    let page = ann.page(ROOM).await.expect("a page");
    assert_eq!((&page.page[0].info[..], page.connections), (&b"2"[..], 1));

    first.grants[0].allow = Actions::NONE.with(Action::Subscribe).with(Action::Publish);
    ann.ask(refresh(first)).await.expect("refreshed");
    // It would go on hearing who comes and goes: that subscription ends, and no other.
    assert_eq!(ann.page(ROOM).await.err(), Some(Code::Forbidden));
    let mut bob = Client::enter(&broker, "bob").await;
    let page = bob.page(ROOM).await.expect("a page");
    assert_eq!((page.users, page.page[0].user.as_str()), (1, "bob"));
    assert_eq!(bob.page("other").await.expect("a page").users, 1);
}
