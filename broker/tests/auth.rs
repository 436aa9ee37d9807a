//! Who may not come in, is not let in: whatever is wrong with a token, and however it is brought, the code is the same in the
//! goaway and in the close, and the token is in no log.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use cauce_broker::hub::TenantSettings;
use cauce_protocol::Code;
use serde_json::{Value, json};
use support::pace::with_longer;
use support::raw::{Heard, Raw};
use support::{Broker, claims, secret, sign_for, token, unix_seconds};

/// Everything that the process logs, at every level.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn start() -> Self {
        let logged = Self::default();
        let writer = logged.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        logged
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("a log")).into_owned()
    }
}

/// A token put together by hand, signed with HS256 by any bytes.
fn forge(header: &Value, claims: &Value, key: &[u8]) -> String {
    let part = |value: &Value| BASE64URL.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(tag))
}

fn fresh(tenant: &str) -> Value {
    json!({"sub": "mallory", "tenant": tenant, "iat": unix_seconds(), "exp": unix_seconds() + 600})
}

/// The ways to bring a token.
#[derive(Clone, Copy, Debug)]
enum Way {
    Hello,
    Header,
    Subprotocol,
    Query,
}

const WAYS: [Way; 4] = [Way::Hello, Way::Header, Way::Subprotocol, Way::Query];

/// Brings the token and answers what the broker says until it closes.
async fn bring(broker: &Broker, way: Way, token: &str) -> Raw {
    let mut peer = Raw::connect(broker.address).await;
    let json = "Sec-WebSocket-Protocol: cauce.v1.json";
    let head = match way {
        Way::Hello => peer.upgrade("/v1/ws", &format!("{json}\r\n")).await,
        Way::Header => {
            peer.upgrade("/v1/ws", &format!("{json}\r\nAuthorization: Bearer {token}\r\n"))
                .await
        }
        Way::Subprotocol => {
            peer.upgrade("/v1/ws", &format!("{json}, cauce.token.{token}\r\n"))
                .await
        }
        Way::Query => {
            peer.upgrade(&format!("/v1/ws?token={token}"), &format!("{json}\r\n"))
                .await
        }
    };
    assert!(head.starts_with("HTTP/1.1 101"), "{way:?}: {head}");
    assert!(
        token.is_empty() || !head.contains(token),
        "{way:?}: the answer repeats the token"
    );
    if let Way::Hello = way {
        peer.say(json!({"id": 1, "hello": {"version": 1, "token": token}}))
            .await;
    }
    peer
}

fn pem_of_a_public_key() -> (String, tempfile::NamedTempFile) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
    let pem = pair.public_key_pem();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &pem).expect("a file");
    (pem, file)
}

/// A broker with a tenant `p` whose tokens are signed by key pair.
fn broker_with_a_public_key(file: &tempfile::NamedTempFile) -> Broker {
    let path = file.path().display();
    Broker::with_file(
        "",
        &format!(
            "[[auth.keys]]\ntenant = \"p\"\nkid = \"p1\"\nalg = \"ES256\"\npublic_key_file = \"{path}\"\n"
        ),
    )
}

#[tokio::test]
async fn bad_tokens_are_refused_with_their_code_over_every_way_and_are_in_no_log() {
    let logged = Logged::start();
    let (pem, file) = pem_of_a_public_key();
    let broker = broker_with_a_public_key(&file);
    let hub = broker.server.hub();
    let disabled = TenantSettings {
        disabled: true,
        ..TenantSettings::default()
    };
    hub.tenants.get("b").expect("tenant b").configure(disabled);

    let now = unix_seconds();
    let mut expired = claims("ann", &["*"]);
    (expired.iat, expired.exp) = (now - 900, Some(now - 300));
    let mut early = claims("ann", &["*"]);
    early.nbf = Some(now + 300);
    let mut endless = claims("ann", &["*"]);
    endless.exp = None;
    let good = token("a", "ann");
    let (message, signature) = good.rsplit_once('.').expect("a token");
    let other_bytes = BASE64URL.encode([7; 32]);
    let header = json!({"alg": "HS256", "kid": "a1"});
    let none = json!({"alg": "none"});
    let unsigned = format!(
        "{}.{}.",
        BASE64URL.encode(none.to_string()),
        BASE64URL.encode(fresh("a").to_string())
    );
    let cases: Vec<(&str, String, Code)> = vec![
        ("expired", sign_for("a", expired), Code::TokenExpired),
        ("not yet valid", sign_for("a", early), Code::TokenNotYetValid),
        ("endless", sign_for("a", endless), Code::TokenInvalid),
        (
            "another signature",
            format!("{message}.{other_bytes}"),
            Code::TokenInvalid,
        ),
        (
            "signature of another message",
            format!(
                "{}.{signature}",
                token("a", "eve").rsplit_once('.').expect("a token").0
            ),
            Code::TokenInvalid,
        ),
        (
            "of a's key for tenant b",
            forge(&header, &fresh("b"), secret("a").as_bytes()),
            Code::TokenInvalid,
        ),
        (
            "of a's key, named as b's, for b",
            forge(
                &json!({"alg": "HS256", "kid": "b1"}),
                &fresh("b"),
                secret("a").as_bytes(),
            ),
            Code::TokenInvalid,
        ),
        ("no algorithm and no signature", unsigned, Code::TokenInvalid),
        (
            "no algorithm, signed all the same",
            forge(&none, &fresh("a"), secret("a").as_bytes()),
            Code::TokenInvalid,
        ),
        (
            "another algorithm than the key's",
            forge(
                &json!({"alg": "HS512", "kid": "a1"}),
                &fresh("a"),
                secret("a").as_bytes(),
            ),
            Code::TokenInvalid,
        ),
        (
            "the public key as a secret",
            forge(&json!({"alg": "HS256", "kid": "p1"}), &fresh("p"), pem.as_bytes()),
            Code::TokenInvalid,
        ),
        (
            "the same, said to be of the pair",
            forge(&json!({"alg": "ES256", "kid": "p1"}), &fresh("p"), pem.as_bytes()),
            Code::TokenInvalid,
        ),
        (
            "brings its own key",
            forge(
                &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}),
                &fresh("a"),
                &[0; 3],
            ),
            Code::TokenInvalid,
        ),
        (
            "unknown tenant",
            forge(&header, &fresh("nobody"), secret("a").as_bytes()),
            Code::TokenInvalid,
        ),
        (
            "unknown kid",
            forge(
                &json!({"alg": "HS256", "kid": "zz"}),
                &fresh("a"),
                secret("a").as_bytes(),
            ),
            Code::TokenInvalid,
        ),
        ("disabled tenant", token("b", "ann"), Code::TenantDisabled),
        ("garbage", "this-is-not-a-token".into(), Code::TokenInvalid),
        ("too long", "x".repeat(9 * 1024), Code::TokenInvalid),
    ];
    let mut report = Vec::new();
    for (what, token, code) in &cases {
        for way in WAYS {
            let (told, close) = bring(&broker, way, token).await.farewell().await;
            // A field longer than any token is refused before it is looked at.
            let code = if *what == "too long" && matches!(way, Way::Hello) {
                &Code::TooLarge
            } else {
                code
            };
            if told != [u64::from(code.number())] || close != code.number() {
                report.push(format!(
                    "{what}, {way:?}: goaway {told:?}, close {close}, expected {code}"
                ));
            }
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));

    // Only the good one goes in.
    for way in WAYS {
        let welcome = bring(&broker, way, &good).await.hear_json().await;
        assert_eq!(welcome["reply"]["welcome"]["tenant"], "a", "{way:?}");
    }
    // A device's door refuses tokens before the upgrade, and logs them as little.
    let device = broker.device_token("a", None);
    for token in [
        device.expose().replacen("cd_", "ck_", 1),
        format!("{}x", &device.expose()[..62]),
        good.clone(),
    ] {
        let mut peer = Raw::connect(broker.address).await;
        let head = peer.upgrade(&format!("/shelly?token={token}"), "").await;
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    }
    let mut peer = Raw::connect(broker.address).await;
    assert!(
        peer.upgrade(&format!("/shelly?token={}", device.expose()), "")
            .await
            .starts_with("HTTP/1.1 101")
    );
    drop(broker);

    let text = logged.text();
    assert!(text.contains("closing"), "the log was captured: {text}");
    let secret_part = |token: &str| token.rsplit(['.', '_']).next().unwrap_or_default().to_owned();
    let mut secrets: Vec<String> = cases
        .iter()
        .map(|(_, token, _)| token.clone())
        .chain([good, device.expose().into()])
        .collect();
    secrets.extend(
        secrets
            .clone()
            .iter()
            .map(|token| secret_part(token))
            .filter(|part| part.len() > 20),
    );
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(!text.contains(secret.as_str()), "a token is in the log: {secret}");
    }
}

#[tokio::test]
async fn a_token_that_is_missing_or_empty_is_told_so() {
    let broker = Broker::start();
    for hello in [
        json!({"version": 1}),
        json!({"version": 1, "token": ""}),
        json!({"version": 1, "token": null}),
    ] {
        let mut peer = Raw::connect(broker.address).await;
        peer.upgrade("/v1/ws", "").await;
        peer.say(json!({"id": 1, "hello": hello})).await;
        let code = Code::Unauthenticated.number();
        let (told, close) = peer.farewell().await;
        // `null` may count as a wrong type just as well: what matters is that it lets nobody in.
        assert!(
            close == code && told == [u64::from(code)] || close == Code::Malformed.number(),
            "{hello}: {told:?} {close}"
        );
    }
    for (target, headers) in [
        ("/v1/ws?token=", ""),
        (
            "/v1/ws",
            "Sec-WebSocket-Protocol: cauce.v1.json, cauce.token.\r\n",
        ),
    ] {
        let mut peer = Raw::connect(broker.address).await;
        assert!(peer.upgrade(target, headers).await.starts_with("HTTP/1.1 101"));
        assert_eq!(peer.farewell().await, (vec![4200], 4200), "{target} {headers}");
    }
}

#[tokio::test]
async fn silence_after_the_upgrade_ends_with_the_handshake_time() {
    with_longer(300, silence).await;
}

async fn silence(handshake_ms: u64) {
    let broker = Broker::with(&format!("limits.handshake_timeout={handshake_ms}ms"));
    let mut silent = Raw::connect(broker.address).await;
    silent.upgrade("/v1/ws", "").await;
    assert_eq!(silent.farewell().await, (vec![4005], 4005));
    // Pings do not count as a hello.
    let mut pinging = Raw::connect(broker.address).await;
    pinging.upgrade("/v1/ws", "").await;
    pinging.write(&support::raw::masked(true, 9, b"still here")).await;
    assert_eq!(pinging.hear().await, Heard::Pong);
    assert_eq!(pinging.farewell().await, (vec![4005], 4005));
}

#[tokio::test]
async fn nothing_but_a_hello_of_our_version_comes_first() {
    let broker = Broker::start();
    let cases = [
        (json!({"id": 1, "subscribe": {"rooms": ["r"]}}), 4200),
        (json!({"id": 1, "ping": {}}), 4200),
        (
            json!({"id": 1, "hello": {"version": 2, "token": token("a", "ann")}}),
            4301,
        ),
        (
            json!({"id": 1, "hello": {"version": 0, "token": token("a", "ann")}}),
            4301,
        ),
        (json!({"id": 1}), 4301),
        (json!([1]), 4300),
    ];
    for (message, code) in cases {
        let mut peer = Raw::connect(broker.address).await;
        peer.upgrade("/v1/ws", "").await;
        peer.say(message.clone()).await;
        assert_eq!(peer.farewell().await, (vec![code], code as u16), "{message}");
    }
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
async fn a_second_hello_is_refused_and_the_connection_goes_on() {
    let broker = Broker::start();
    let hello = |id: u32, token: &str| json!({"id": id, "hello": {"version": 1, "token": token}});
    let mut peer = bring(&broker, Way::Hello, &token("a", "ann")).await;
    assert!(peer.hear_json().await["reply"]["welcome"].is_object());
    // It may still tell its features, once; another token it may not bring.
    peer.say(hello(2, &token("b", "ann"))).await;
    assert_eq!(peer.hear_json().await["reply"]["error"]["code"], 4309);
    peer.say(hello(3, "")).await;
    assert_eq!(peer.hear_json().await["reply"]["error"]["code"], 4309);
    peer.say(json!({"id": 4, "ping": {}})).await;
    assert!(peer.hear_json().await["reply"]["pong"].is_object());
}

#[tokio::test]
async fn only_listed_pages_may_connect() {
    let broker = Broker::with("origins=https://app.example.com");
    for (origin, status) in [
        ("https://app.example.com", "101"),
        ("https://app.example.com.evil.example", "403"),
        ("https://evil.example", "403"),
        ("http://app.example.com", "403"),
        ("https://app.example.com:8443", "403"),
        ("null", "403"),
    ] {
        let mut peer = Raw::connect(broker.address).await;
        let head = peer.upgrade("/v1/ws", &format!("Origin: {origin}\r\n")).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{origin}");
        if status == "403" {
            let body: Value = serde_json::from_slice(&peer.rest().await).expect("JSON");
            assert_eq!(body["error"]["name"], "origin_refused");
        }
    }
    // Programs send none.
    assert!(
        Raw::connect(broker.address)
            .await
            .upgrade("/v1/ws", "")
            .await
            .starts_with("HTTP/1.1 101")
    );
}

#[tokio::test]
async fn what_is_no_websocket_or_no_door_is_refused_over_http() {
    let broker = Broker::start();
    let mut peer = Raw::connect(broker.address).await;
    assert!(peer.upgrade("/v2/ws", "").await.starts_with("HTTP/1.1 404"));
    let body: Value = serde_json::from_slice(&peer.rest().await).expect("JSON");
    assert_eq!(
        (&body["error"]["name"], &body["error"]["code"]),
        (&json!("not_found"), &json!(4308))
    );
    for path in ["/v1/ws", "/shelly"] {
        let mut peer = Raw::connect(broker.address).await;
        peer.write(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
            .await;
        let head = peer.head().await;
        assert!(
            head.starts_with("HTTP/1.1 426") && head.contains("Upgrade: websocket"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_token_that_ends_while_its_bearer_is_connected_ends_the_connection() {
    with_longer(2, end_with_the_token).await;
}

async fn end_with_the_token(seconds: u64) {
    let broker = Broker::with("auth.leeway=0ms");
    let mut short = claims("ann", &["*"]);
    short.exp = Some(unix_seconds() + seconds);
    let mut peer = bring(&broker, Way::Header, &sign_for("a", short)).await;
    let welcome = peer.hear_json().await;
    let left = welcome["reply"]["welcome"]["expires_in_ms"].as_u64();
    assert!(
        left.is_some_and(|ms| (1..=seconds * 1_000).contains(&ms)),
        "{welcome}"
    );
    assert_eq!(peer.farewell().await, (vec![4201], 4201));
}

#[tokio::test]
async fn who_is_let_in_within_the_leeway_may_stay_as_long() {
    let broker = Broker::with("auth.leeway=5m");
    let mut late = claims("ann", &["*"]);
    (late.iat, late.exp) = (unix_seconds() - 100, Some(unix_seconds() - 30));
    let mut peer = bring(&broker, Way::Header, &sign_for("a", late)).await;
    assert!(peer.hear_json().await["reply"]["welcome"].is_object());
    for n in 1..=6 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        peer.say(json!({"id": n, "ping": {}})).await;
        let answer = peer.hear_json().await;
        assert!(
            answer["reply"]["pong"].is_object(),
            "let in, and put out at once: {answer}"
        );
    }
}
