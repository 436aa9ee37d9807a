//! Users and tokens revoked while clients are connected, and while they come back.
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cauce_broker::admin::{Actor, Lasts, NewRevocation};
use cauce_broker::auth::Revoked;
use cauce_broker::{Persistence, Server};
use cauce_protocol::{Refusal, TenantId, UserId};
use serde_json::json;
use support::{Broker, Peer, claims, config, sign_for, token, unix_seconds};

const REVOKED: (u64, u64) = (4202, 4202);

fn user(name: &str) -> Revoked {
    Revoked::User(UserId::new(name).expect("a name"))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a name")
}

async fn revoke(server: &Server, of: &str, revoked: Revoked, lasts: Lasts) -> Result<(), Refusal> {
    let new = NewRevocation {
        revoked,
        lasts,
        reason: "test".to_owned(),
    };
    let (actor, of) = (Actor::local("test"), tenant(of));
    server.admin().revoke(&actor, &of, new).await.map(drop)
}

/// A token issued after whatever was revoked until now: `iat` counts whole seconds.
fn later_token(of: &str, name: &str) -> String {
    let mut claims = claims(name, &["*"]);
    claims.iat = unix_seconds() + 1;
    sign_for(of, claims)
}

fn token_with_id(name: &str, jti: &str) -> String {
    let mut claims = claims(name, &["*"]);
    claims.jti = Some(jti.to_owned());
    sign_for("a", claims)
}

async fn is_alive(peer: &mut Peer) -> bool {
    peer.ask(json!({ "id": 9, "ping": {} })).await.0["pong"].is_object()
}

#[tokio::test]
async fn a_revoked_user_is_out_at_once_and_nobody_else_is() {
    let broker = Broker::start();
    let old = token("a", "ann");
    let mut anns = Vec::new();
    for _ in 0..6 {
        // On both shards.
        anns.push(broker.join(&old).await);
    }
    let mut bob = broker.join(&token("a", "bob")).await;
    let namesake_token = token("b", "ann");
    let mut namesake = broker.join(&namesake_token).await;
    revoke(&broker.server, "a", user("ann"), Lasts::default())
        .await
        .unwrap();
    for ann in &mut anns {
        assert_eq!(ann.farewell().await, REVOKED);
    }
    assert!(is_alive(&mut bob).await && is_alive(&mut namesake).await);
    // Both shards remember the token; neither takes it.
    for _ in 0..4 {
        assert_eq!(broker.knock(&old).await.farewell().await, REVOKED);
    }
    broker.join(&namesake_token).await;
    broker.join(&later_token("a", "ann")).await;
}

#[tokio::test]
async fn a_token_that_does_not_say_when_it_was_issued_counts_as_an_old_one() {
    let broker = Broker::start();
    revoke(&broker.server, "a", user("ann"), Lasts::default())
        .await
        .unwrap();
    let claims = json!({ "sub": "ann", "tenant": "a", "exp": unix_seconds() + 60 });
    let key = cauce_broker::auth::sign::SigningKey::from_secret(
        cauce_broker::config::Algorithm::Hs256,
        Some("a1".to_owned()),
        support::secret("a").as_bytes(),
    );
    let silent = cauce_broker::auth::sign::sign(&claims, &key.unwrap()).unwrap();
    assert_eq!(broker.knock(&silent).await.farewell().await, REVOKED);
}

#[tokio::test]
async fn a_revoked_token_is_out_and_another_of_the_same_user_is_not() {
    let broker = Broker::start();
    let (first, second) = (token_with_id("ann", "t1"), token_with_id("ann", "t2"));
    let mut out = broker.join(&first).await;
    let mut other = broker.join(&second).await;
    let mut renewed = broker.join(&first).await;
    let refresh = |token: &str| json!({ "id": 3, "refresh": { "token": token } });
    assert!(renewed.ask(refresh(&second)).await.0["refreshed"].is_object());
    revoke(
        &broker.server,
        "a",
        Revoked::token("t1").unwrap(),
        Lasts::default(),
    )
    .await
    .unwrap();
    assert_eq!(out.farewell().await, REVOKED);
    assert!(is_alive(&mut other).await && is_alive(&mut renewed).await);
    assert_eq!(broker.knock(&first).await.farewell().await, REVOKED);
    // Neither does it renew anything.
    let answer = other.ask(refresh(&first)).await.0;
    assert_eq!(answer["error"]["name"], "token_revoked");
    assert!(is_alive(&mut other).await);
}

#[tokio::test]
async fn what_is_taken_back_is_good_again_and_a_repeat_never_means_less() {
    let broker = Broker::start();
    let admin = broker.server.admin();
    let (actor, a) = (Actor::local("test"), tenant("a"));
    let old = token("a", "ann");
    revoke(&broker.server, "a", user("ann"), Lasts::For(3_600_000))
        .await
        .unwrap();
    revoke(&broker.server, "a", user("ann"), Lasts::For(60_000))
        .await
        .unwrap();
    let list = admin.revocations(&a, None, 10).unwrap();
    assert_eq!(list.len(), 1);
    let lasts = list[0].1.until_unix_ms.unwrap() - list[0].1.revoked_unix_ms;
    assert!(lasts > 3_500_000, "{lasts}");
    assert_eq!(broker.knock(&old).await.farewell().await, REVOKED);
    admin.reinstate(&actor, &a, &user("ann")).await.unwrap();
    broker.join(&old).await;
    let missing = admin.reinstate(&actor, &a, &user("ann")).await.unwrap_err();
    assert_eq!(missing.code.name(), "not_found");
    let past = revoke(&broker.server, "a", user("ann"), Lasts::Until(1)).await;
    assert_eq!(past.unwrap_err().code.name(), "invalid");
    let nowhere = revoke(&broker.server, "none", user("ann"), Lasts::default()).await;
    assert_eq!(nowhere.unwrap_err().code.name(), "not_found");
    broker.join(&old).await;
}

#[tokio::test]
async fn a_revocation_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&format!("data_dir={}", dir.path().display()));
    let start = |config| {
        let server = Server::start(config, Persistence::Store).unwrap_or_else(|e| panic!("{e}"));
        let address = server.address();
        Broker { server, address }
    };
    let stop = async |broker: Broker| {
        let stop = move || broker.server.stop(support::PATIENCE);
        tokio::task::spawn_blocking(stop).await.unwrap()
    };
    let broker = start(&config);
    let (ann, bob) = (token("a", "ann"), token("a", "bob"));
    revoke(&broker.server, "a", user("ann"), Lasts::default())
        .await
        .unwrap();
    revoke(&broker.server, "a", user("bob"), Lasts::default())
        .await
        .unwrap();
    let actor = Actor::local("test");
    broker
        .server
        .admin()
        .reinstate(&actor, &tenant("a"), &user("bob"))
        .await
        .unwrap();
    stop(broker).await;
    let broker = start(&config);
    assert_eq!(broker.knock(&ann).await.farewell().await, REVOKED);
    broker.join(&bob).await;
    stop(broker).await;
}

#[tokio::test]
async fn a_user_who_keeps_coming_back_is_out_for_good_once_revoked() {
    const COMERS: usize = 8;
    let broker = Arc::new(Broker::start());
    let (ann, bob) = (token("a", "ann"), token("a", "bob"));
    let mut bystander = broker.join(&bob).await;
    bystander.subscribe(&["room"]).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let comers: Vec<_> = (0..COMERS)
        .map(|_| {
            let (broker, ann, revoked) = (broker.clone(), ann.clone(), revoked.clone());
            tokio::spawn(async move {
                let mut welcomed = 0;
                loop {
                    let late = revoked.load(Ordering::SeqCst);
                    let mut peer = broker.knock(&ann).await;
                    let first = peer.receive().await;
                    if first["reply"]["welcome"].is_object() {
                        assert!(!late, "let in after the revocation had been answered");
                        welcomed += 1;
                        // Stays, and keeps the broker busy, until it is told to go.
                        if welcomed % 4 == 0 {
                            assert_eq!(peer.farewell().await, REVOKED);
                        }
                    } else {
                        assert_eq!(first["goaway"]["error"]["code"], 4202, "{first}");
                        if late {
                            return welcomed;
                        }
                    }
                }
            })
        })
        .collect();
    let publishing = broker.server.handle().tenant("a").unwrap();
    let tenant = broker.server.hub().tenants.get("a").unwrap();
    // Every comer has one connection that stays, and the bystander has his.
    while tenant.connections() < COMERS + 1 {
        publishing
            .publish("room", "e", cauce_protocol::Payload::NULL)
            .unwrap();
        assert!(bystander.receive().await["push"].is_object());
    }
    revoke(&broker.server, "a", user("ann"), Lasts::default())
        .await
        .unwrap();
    revoked.store(true, Ordering::SeqCst);
    for comer in comers {
        assert!(comer.await.unwrap() > 0);
    }
    // The bystander is the only one left, and was never disturbed.
    let alone = async {
        while tenant.connections() > 1 {
            assert!(is_alive(&mut bystander).await);
        }
    };
    tokio::time::timeout(support::PATIENCE, alone)
        .await
        .expect("nobody else is left");
    assert!(is_alive(&mut bystander).await);
}
