//! Who was away: a position brings exactly what was missed, or names what is lost.

use serde_json::{Value, json};

use crate::support::{claims, sign_for, token};
use crate::{keeping, publish, pushes_until, subscribe_with};

#[tokio::test]
async fn a_client_that_was_away_gets_exactly_what_it_missed_and_then_goes_on() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    publish(&broker, "r", 1);
    assert_eq!(pushes_until(&mut peer, 1).await, [1]);
    drop(peer);
    for n in 2..=40 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, before) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 1}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["seq"], &room["head"]),
        (&json!("continued"), &json!(1), &json!(40)),
        "{room}"
    );
    assert_eq!(before, Vec::<Value>::new(), "nothing comes before the answer");
    publish(&broker, "r", 41);
    assert_eq!(pushes_until(&mut peer, 41).await, (2..=41).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_from_before_the_first_message_counts() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    publish(&broker, "r", 1);
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 0}),
    )
    .await;
    assert_eq!(room["recovery"], "continued", "{room}");
    assert_eq!(pushes_until(&mut peer, 1).await, [1]);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named_exactly() {
    let broker = keeping(5, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    for n in 1..=20 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 3}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["lost_from"], &room["lost_to"]),
        (&json!("partial"), &json!(4), &json!(15)),
        "{room}"
    );
    assert_eq!(pushes_until(&mut peer, 20).await, [16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn another_numbering_or_a_number_never_given_is_a_reset() {
    let broker = keeping(5, "");
    publish(&broker, "r", 1);
    for since in [
        json!({"room": "r", "epoch": 7, "seq": 0}),
        json!({"room": "r", "epoch": 7, "seq": 99}),
    ] {
        let mut peer = broker.join(&token("a", "ann")).await;
        let (room, _) = subscribe_with(&mut peer, since).await;
        assert_eq!(
            (&room["recovery"], &room["seq"]),
            (&json!("reset"), &json!(1)),
            "{room}"
        );
        let mut other = broker.join(&token("a", "bob")).await;
        let ahead = json!({"room": "r", "epoch": room["epoch"], "seq": 2});
        assert_eq!(subscribe_with(&mut other, ahead).await.0["recovery"], "reset");
    }
}

#[tokio::test]
async fn a_newcomer_may_begin_a_few_messages_back_if_he_may_read_history() {
    use cauce_broker::auth::{Action, Actions};
    let broker = keeping(100, "");
    for n in 1..=10 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(&mut peer, json!({"room": "r", "recent": 3})).await;
    assert_eq!((&room["seq"], &room["head"]), (&json!(7), &json!(10)), "{room}");
    assert_eq!(pushes_until(&mut peer, 10).await, [8, 9, 10]);

    let mut narrow = claims("bob", &["*"]);
    narrow.grants[0].allow = [Action::Subscribe].into_iter().collect::<Actions>();
    let mut peer = broker.join(&sign_for("a", narrow)).await;
    let (reply, _) = peer
        .ask(json!({"id": 1, "subscribe": {"subscriptions": [{"room": "r", "recent": 3}]}}))
        .await;
    assert_eq!(reply["error"]["name"], "forbidden", "{reply}");
}

#[tokio::test]
async fn an_exclusion_outlives_a_reconnect_and_the_message_stays_in_history() {
    let broker = keeping(100, "");
    let mut ann = broker.join(&token("a", "ann")).await;
    let before = ann.connection;
    let position = ann.subscribe(&["r"]).await.remove(0);
    let publish = json!({"id": 2, "publish": {"room": "r", "event": "own", "exclude_sender": true}});
    assert_eq!(ann.ask(publish).await.0["published"]["seq"], 1);
    drop(ann);
    let since = json!({"room": "r", "epoch": position["epoch"], "seq": 0});

    let mut back = broker.join(&token("a", "ann")).await;
    back.ask(json!({"id": 1, "hello": {"version": 1, "features": 1, "previous": [before]}}))
        .await;
    let (room, _) = subscribe_with(&mut back, since.clone()).await;
    assert_eq!(room["recovery"], "continued", "{room}");
    let frame = back.receive().await;
    assert_eq!(
        frame["advance"]["seq"], 1,
        "it is told that the room went on: {frame}"
    );

    let mut other = broker.join(&token("a", "bob")).await;
    subscribe_with(&mut other, since).await;
    assert_eq!(other.receive().await["push"]["event"], "own");
    let (page, _) = other.ask(json!({"id": 3, "history": {"room": "r"}})).await;
    assert_eq!(page["history_page"]["entries"][0]["event"], "own", "{page}");
}
