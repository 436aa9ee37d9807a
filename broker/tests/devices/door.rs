//! The door for devices: which token opens it, for how long, and what the handshake agrees to.

use std::time::Duration;

use cauce_broker::hub::Selection;
use cauce_protocol::{Code, Refusal};
use serde_json::json;

use crate::support::raw::{Heard, Raw, masked};
use crate::support::{self, Broker};
use crate::{Plug, heard, update, watcher};

#[tokio::test]
async fn a_token_serves_its_device_and_its_tenant_only() {
    let broker = Broker::start();
    let bound = broker.device_token("a", Some("AABB07"));
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let mut wrong = Plug::dial(&broker, bound.expose(), "AABB08").await;
    wrong.full(true, 1.0).await;
    assert_eq!(wrong.closed().await, 1008);
    let mut right = Plug::dial(&broker, bound.expose(), "AABB07").await;
    right.full(true, 1.0).await;
    assert_eq!(update(&mut watcher).await["device"], "AABB07");
    // It may not change its mind later either.
    right.src = "shellyplugsg3-aabb08".into();
    right.power(50.0).await;
    right.src = "shellyplugsg3-aabb07".into();
    right.power(2.0).await;
    assert_eq!(update(&mut watcher).await["state"]["switch:0"]["apower"], 2.0);
    assert!(
        broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .device("AABB08")
            .is_none()
    );

    let mut nameless = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    nameless
        .raw
        .say(json!({"method": "NotifyFullStatus", "params": {"sys": {}}}))
        .await;
    assert_eq!(nameless.closed().await, 4101);
    let mut garbage = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    garbage.raw.write(&masked(true, 1, b"hello")).await;
    assert_eq!(garbage.closed().await, 4100);
    let mut binary = Plug::dial(&broker, broker.device_token("a", None).expose(), "").await;
    binary.raw.write(&masked(true, 2, b"{}")).await;
    assert_eq!(binary.closed().await, 1003);
}

fn revoke(broker: &Broker, id: cauce_broker::auth::secret::CredentialId) {
    broker
        .server
        .hub()
        .credentials
        .write()
        .revoke(id, 1)
        .expect("it is there");
    broker.server.hub().close(
        Selection::DeviceToken(id.as_str().into()),
        Refusal::new(Code::TokenRevoked, "the token was revoked"),
    );
}

#[tokio::test]
async fn a_revoked_token_closes_its_sockets_and_opens_none() {
    let broker = Broker::start();
    let (credential, other) = (broker.device_token("a", None), broker.device_token("a", None));
    let mut watcher = watcher(&broker, "a", &["$devices"]).await;
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB09").await;
    plug.full(true, 1.0).await;
    update(&mut watcher).await;
    let mut bystander = Plug::dial(&broker, other.expose(), "AABB0A").await;
    revoke(&broker, credential.id);
    assert_eq!(plug.closed().await, Code::TokenRevoked.number());
    let (event, status) = heard(&mut watcher).await;
    assert_eq!(
        (event.as_str(), &status["reason"]),
        ("device-offline-status", &json!("refused"))
    );
    bystander.full(true, 1.0).await;
    assert_eq!(update(&mut watcher).await["device"], "AABB0A");
    let mut again = Raw::connect(broker.address).await;
    let head = again
        .upgrade(&format!("/shelly?token={}", credential.expose()), "")
        .await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
}

/// Between the check at the door and its arrival at its shard, a socket is in nobody's list.
#[tokio::test]
async fn a_revocation_reaches_sockets_that_are_just_coming_in() {
    let broker = Broker::start();
    for round in 0..100 {
        let credential = broker.device_token("a", None);
        let mut raw = Raw::connect(broker.address).await;
        let request = format!(
            "GET /shelly?token={} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            credential.expose(),
            support::raw::KEY
        );
        raw.write(request.as_bytes()).await;
        std::thread::sleep(Duration::from_micros(round * 4));
        revoke(&broker, credential.id);
        let head = raw.head().await;
        if head.starts_with("HTTP/1.1 101") {
            assert_eq!(
                raw.hear().await,
                Heard::Close(4202, "the token was revoked".into()),
                "round {round}"
            );
        } else {
            assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        }
    }
}

#[tokio::test]
async fn the_handshake_declines_compression_and_names_a_subprotocol_only_if_offered() {
    let broker = Broker::start();
    let credential = broker.device_token("a", None);
    let target = format!("/shelly?token={}", credential.expose());
    for (offer, echoed) in [
        ("json-rpc", true),
        ("mqtt, json-rpc", true),
        ("mqtt", false),
        ("", false),
    ] {
        let mut headers = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://shelly.local\r\n".to_owned();
        if !offer.is_empty() {
            headers += &format!("Sec-WebSocket-Protocol: {offer}\r\n");
        }
        let head = Raw::connect(broker.address)
            .await
            .upgrade(&target, &headers)
            .await
            .to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        assert_eq!(
            head.contains("sec-websocket-protocol: json-rpc\r\n"),
            echoed,
            "{head}"
        );
        assert_eq!(head.contains("sec-websocket-protocol"), echoed, "{head}");
    }
    // A device that compresses all the same breaks the protocol.
    let mut plug = Plug::dial(&broker, credential.expose(), "AABB0B").await;
    let mut compressed = masked(true, 1, b"{}");
    compressed[0] |= 0x40;
    plug.raw.write(&compressed).await;
    assert_eq!(plug.closed().await, 1002);
}
