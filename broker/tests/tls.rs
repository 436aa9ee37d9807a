//! The same broker behind a certificate.

mod support;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::{Persistence, Server};
use cauce_client::{Client, Options, Payload};
use cauce_fleet::{Fleet, FleetOptions, Reach, Tokens, Trust};
use rustls::pki_types::ServerName;
use serde_json::json;
use support::raw::{KEY, Raw};
use support::tls::{certify, settings, trusting};
use support::{Broker, PATIENCE, config, token};
use tempfile::TempDir;

/// From now on those who say nothing are waited for no longer than this. Whoever was in before had all the time in the world.
async fn hurry(broker: &Broker, folder: &TempDir) {
    let settings = settings(folder.path()) + "limits.handshake_timeout=500ms";
    let reload = || {
        broker
            .server
            .reload(&config(&settings))
            .expect("a good configuration");
    };
    broker.tune(reload).await;
}

fn start() -> (Broker, TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = certify(folder.path());
    let server =
        Server::start(&config(&settings(folder.path())), Persistence::Memory).expect("the broker starts");
    let address = server.address();
    assert!(server.has_tls());
    (Broker { server, address }, folder, pem)
}

async fn client(broker: &Broker, pem: &str, user: &str) -> Result<Client, cauce_client::Error> {
    let url = format!("wss://127.0.0.1:{}/v1/ws", broker.address.port());
    let options = Options::new(url)
        .token(token("a", user))
        .roots_pem(pem)
        .connect_timeout(PATIENCE)
        .reconnect(cauce_client::Reconnect::Never);
    Client::connect(options).await
}

/// Says something over TLS and answers what comes until the end. Blocks.
fn exchange(address: SocketAddr, pem: &str, request: &[u8]) -> String {
    let config = trusting(pem);
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut socket = std::net::TcpStream::connect(address).expect("the broker listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.write_all(request).expect("the broker reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a proper end of TLS");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn clients_speak_over_tls_with_messages_of_every_size() {
    let (broker, _folder, pem) = start();
    let ann = client(&broker, &pem, "ann").await.expect("connected");
    let bob = client(&broker, &pem, "bob").await.expect("connected");
    let mut room = bob.subscribe("r").await.expect("joined");
    for size in [0, 1, 125, 126, 5_000, 16_384, 16_385, 60_000] {
        let payload = Payload::binary((0..size).map(|n| n as u8).collect::<Vec<_>>());
        ann.publish("r", "e", payload.clone()).await.expect("published");
        let Some(cauce_client::Event::Message(message)) = room.next().await else {
            panic!("no message of {size} bytes")
        };
        assert_eq!(message.payload, payload);
    }
    // A burst that is more than TLS and the kernel hold.
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 0..40_u64 {
        a.publish("r", "burst", Payload::text(format!("{n:0>20000}")))
            .expect("published");
    }
    for n in 0..40_u64 {
        let Some(cauce_client::Event::Message(message)) = room.next().await else {
            panic!("no message {n}")
        };
        assert_eq!(message.payload.as_text(), Some(format!("{n:0>20000}").as_str()));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_not_spoken_to() {
    let (broker, _folder, _pem) = start();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".into()])
        .expect("a certificate")
        .cert
        .pem();
    assert!(client(&broker, &other, "ann").await.is_err());
    assert_eq!(
        broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .connections(),
        0
    );
}

#[tokio::test]
async fn devices_cross_threads_with_their_tls() {
    let (broker, _folder, pem) = start();
    let credential = broker.device_token("a", None);
    let mut tap = broker
        .server
        .handle()
        .tenant("a")
        .expect("tenant a")
        .subscribe("$devices")
        .expect("a tap");
    let url = format!("wss://127.0.0.1:{}/shelly", broker.address.port());
    let mut options =
        FleetOptions::outbound(url, Tokens::Shared(credential.expose().to_owned()), 3).expect("a fleet");
    let Reach::Outbound { trust, .. } = &mut options.reach else {
        panic!("an outbound fleet")
    };
    *trust = Trust::Authorities(pem.into_bytes());
    options.rate = Some(20.0);
    options.ramp = Duration::ZERO;
    let fleet = Fleet::start(options).expect("a fleet");
    let mut seen = std::collections::HashMap::new();
    while seen.len() < 3 || seen.values().any(|&updates| updates < 5) {
        let message = tokio::time::timeout(PATIENCE, tap.next())
            .await
            .expect("updates")
            .expect("the tap keeps up");
        let update: serde_json::Value = message.payload.parse().expect("JSON");
        *seen.entry(update["device"].to_string()).or_insert(0) += 1;
    }
    let stats = fleet.stop().await.totals;
    assert_eq!((stats.connects, stats.connect_failures), (3, 0));
}

#[tokio::test]
async fn http_over_tls_is_answered_and_ended_properly() {
    let (broker, folder, pem) = start();
    let (address, of_the_silent) = (broker.address, pem.clone());
    let answer = tokio::task::spawn_blocking(move || {
        let plain = exchange(address, &pem, b"GET /v1/ws HTTP/1.1\r\nHost: test\r\n\r\n");
        let lost = exchange(
            address,
            &pem,
            format!("GET /lost HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n").as_bytes(),
        );
        (plain, lost)
    });
    let (plain, lost) = answer.await.expect("no panic");
    hurry(&broker, &folder).await;
    // Silence inside TLS is refused inside TLS.
    let silent = tokio::task::spawn_blocking(move || exchange(address, &of_the_silent, b""));
    let silent = silent.await.expect("no panic");
    assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    assert!(lost.starts_with("HTTP/1.1 404"), "{lost}");
    assert!(
        silent.starts_with("HTTP/1.1 408") || silent.is_empty(),
        "{silent}"
    );
}

#[tokio::test]
async fn plain_bytes_and_silence_on_the_tls_port_end_and_disturb_nobody() {
    let (broker, folder, pem) = start();
    let ann = client(&broker, &pem, "ann").await.expect("connected");
    let mut room = ann.subscribe("r").await.expect("joined");
    hurry(&broker, &folder).await;
    for bytes in [
        &b"GET /v1/ws HTTP/1.1\r\nHost: test\r\n\r\n"[..],
        &[0; 300],
        b"",
        &[0x16, 0x03, 0x01, 0xff, 0xff],
    ] {
        let mut raw = Raw::connect(broker.address).await;
        raw.write(bytes).await;
        let rest = raw.rest().await;
        // An alert of TLS, or nothing: never an answer in plain text.
        assert!(
            rest.is_empty() || rest[0] == 0x15,
            "{:?}",
            String::from_utf8_lossy(&rest)
        );
    }
    ann.publish("r", "e", Payload::text("still here"))
        .await
        .expect("published");
    assert!(matches!(room.next().await, Some(cauce_client::Event::Message(_))));
    let only_ann = async {
        while broker.server.handle().connections() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, only_ann)
        .await
        .expect("the others are gone");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_go_on() {
    let (broker, folder, old) = start();
    let ann = client(&broker, &old, "ann").await.expect("connected");
    let mut room = ann.subscribe("r").await.expect("joined");
    let config = config(&settings(folder.path()));

    // What cannot be used is refused, and the old one stays.
    std::fs::write(folder.path().join("cert.pem"), "not a certificate").expect("a file");
    assert!(broker.server.reload(&config).is_err());
    let bob = client(&broker, &old, "bob")
        .await
        .expect("the old certificate is still in use");

    let new = certify(folder.path());
    broker.server.reload(&config).expect("a good certificate");
    let carl = client(&broker, &new, "carl")
        .await
        .expect("the new certificate is in use");
    assert!(client(&broker, &old, "dora").await.is_err(), "the old one is not");
    for (n, sender) in [&ann, &bob, &carl].into_iter().enumerate() {
        sender
            .publish("r", "e", Payload::json(&json!(n)).expect("JSON"))
            .await
            .expect("published");
        let Some(cauce_client::Event::Message(message)) = room.next().await else {
            panic!("the connection from before is gone")
        };
        assert_eq!(message.seq.0, n as u64 + 1);
    }
    assert_eq!(
        broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .connections(),
        3
    );
}
