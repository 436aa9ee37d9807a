//! Two tenants with the same rooms, users, roles and devices: whatever either does, each peer receives exactly what a model
//! of its own tenant says, and nothing of the other's.

#[path = "../support/mod.rs"]
mod support;

mod world;

use proptest::prelude::*;
use serde_json::json;
use support::raw::Raw;
use support::{Broker, PATIENCE, claims, full_token, sign_for};

use crate::world::{Op, PEERS, ROLES, ROOMS, TENANTS, To, USERS, World};

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..TENANTS.len() * PEERS.len();
    let exclude = prop::collection::vec(peer.clone(), 0..3);
    let to = prop_oneof![
        (0..USERS.len()).prop_map(To::User),
        (0..ROLES.len()).prop_map(To::Role),
        peer.clone().prop_map(To::Peer),
        Just(To::Nobody),
        Just(To::Tenant),
    ];
    let room = 0..ROOMS.len();
    prop_oneof![
        4 => (peer.clone(), room.clone()).prop_map(|(peer, room)| Op::Subscribe { peer, room }),
        1 => (peer.clone(), room.clone()).prop_map(|(peer, room)| Op::Unsubscribe { peer, room }),
        4 => (peer.clone(), room.clone(), exclude.clone(), any::<bool>())
            .prop_map(|(peer, room, exclude, myself)| Op::Publish { peer, room, exclude, myself }),
        4 => (peer, to, exclude, any::<bool>()).prop_map(|(peer, to, exclude, myself)| Op::Send { peer, to, exclude, myself }),
        1 => (0..TENANTS.len(), room).prop_map(|(tenant, room)| Op::Handle { tenant, room }),
        2 => (0..TENANTS.len()).prop_map(|tenant| Op::Device { tenant }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_peer_receives_what_the_model_of_its_own_tenant_says(ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::start().await;
            for op in ops {
                world.perform(op).await;
            }
            world.check().await;
        });
    }
}

#[tokio::test]
async fn one_tenants_full_quotas_leave_the_others_alone() {
    let broker = Broker::with(
        "limits.connections_per_tenant=2\nlimits.connections_per_user=1\nlimits.rooms_per_tenant=2\nlimits.devices_per_tenant=1",
    );
    let mut a = broker.join(&full_token("a", "ann", "staff")).await;
    // The user is full, then the tenant; both of the other tenant are not.
    assert_eq!(
        broker
            .knock(&full_token("a", "ann", "staff"))
            .await
            .farewell()
            .await,
        (4102, 4102)
    );
    let _bob = broker.join(&full_token("a", "bob", "staff")).await;
    assert_eq!(
        broker
            .knock(&full_token("a", "carl", "staff"))
            .await
            .farewell()
            .await,
        (4102, 4102)
    );
    let mut b = broker.join(&full_token("b", "ann", "staff")).await;
    a.subscribe(&["one", "two"]).await;
    let refused = a.ask(json!({"id": 3, "subscribe": {"rooms": ["three"]}})).await.0;
    assert_eq!(refused["error"]["name"], "quota_exceeded");
    assert_eq!(b.subscribe(&["three", "four"]).await.len(), 2);
    for tenant in TENANTS {
        let credential = broker.device_token(tenant, None);
        for (src, refused) in [("plug-d1", false), ("plug-d2", true)] {
            let mut plug = Raw::connect(broker.address).await;
            plug.upgrade(&format!("/shelly?token={}", credential.expose()), "")
                .await;
            plug.say(json!({"src": src, "method": "NotifyFullStatus", "params": {"sys": {}}}))
                .await;
            if refused {
                assert_eq!(plug.farewell().await.1, 1013);
            } else {
                assert_eq!(plug.hear_json().await["method"], "Shelly.GetDeviceInfo");
            }
        }
    }
    // A place that was left is free again.
    drop(a);
    let free = async {
        while broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .connections()
            == 2
        {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free)
        .await
        .expect("the place comes back");
    broker.join(&full_token("a", "ann", "staff")).await;
}

#[tokio::test]
async fn rights_of_one_name_are_of_one_tenant() {
    let broker = Broker::start();
    // The same user may read in one tenant and nothing in the other; keys of idempotency do not meet either.
    let mut reader = broker.join(&sign_for("a", claims("ann", &["news"]))).await;
    let mut other = broker.join(&sign_for("b", claims("ann", &["else"]))).await;
    assert_eq!(reader.subscribe(&["news"]).await.len(), 1);
    let refused = other
        .ask(json!({"id": 1, "subscribe": {"rooms": ["news"]}}))
        .await
        .0;
    assert_eq!(refused["error"]["name"], "forbidden");
    let publish =
        |room: &str| json!({"id": 2, "publish": {"room": room, "event": "e", "idempotency_key": "same"}});
    for (peer, room) in [(&mut reader, "news"), (&mut other, "else")] {
        let reply = peer.ask(publish(room)).await.0;
        assert_eq!(
            (&reply["published"]["seq"], &reply["published"]["repeated"]),
            (&json!(1), &json!(false))
        );
    }
}
