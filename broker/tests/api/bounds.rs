//! Requests that are wrong, too large, too slow or for something else.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Broker, PATIENCE, read};

#[tokio::test]
async fn malformed_json_is_refused_with_its_place() {
    let broker = Broker::in_memory();
    for (body, name, place) in [
        ("{\"room\": \"r\",\n \"event\" 1}", "malformed", "line 2 column"),
        ("{\"room\": \"r\"", "malformed", "line 1 column"),
        ("", "malformed", "line 1 column 0"),
        ("[]", "invalid", "line 1 column"),
        (r#"["r","e"]"#, "invalid", "expected an object"),
        (
            "{\"room\":\"r\",\"event\":\"e\",\"colour\":1}",
            "invalid",
            "colour",
        ),
        (
            "{\"room\":\"r\",\"room\":\"r\",\"event\":\"e\"}",
            "invalid",
            "duplicate",
        ),
        ("{\"room\":\"r\",\"event\":\"e\"} x", "malformed", "trailing"),
    ] {
        let request = broker.client.post(format!("{}/v1/publish", broker.base));
        let request = request
            .bearer_auth(&broker.operator)
            .header(CONTENT_TYPE, "application/json");
        let answer = read(request.body(body)).await;
        assert_eq!(answer.refusal(), (400, name), "{body}");
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(place), "{message}");
    }
    let invalid_utf8 = broker
        .client
        .post(format!("{}/v1/publish", broker.base))
        .bearer_auth(&broker.operator);
    let answer = read(invalid_utf8.body(b"{\"room\":\"\xff\",\"event\":\"e\"}".to_vec())).await;
    assert_eq!(answer.status, 400);
    broker.stop().await;
}

#[tokio::test]
async fn json_that_nests_too_deep_is_refused_and_disturbs_nobody() {
    let broker = Broker::in_memory();
    for depth in [17, 1_000, 100_000] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"room":"r","event":"e","json":{deep}}}"#);
        let request = broker.client.post(format!("{}/v1/publish", broker.base));
        let answer = read(request.bearer_auth(&broker.operator).body(body)).await;
        assert!(matches!(answer.status, 400 | 413), "{depth}: {answer:?}");
        answer.refusal();
    }
    broker.get("/v1/rooms").await.ok();
    broker.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_announced_or_not() {
    let broker = Broker::in_memory();
    let url = format!("{}/v1/publish", broker.base);
    let large = vec![b' '; 4 * 1024 * 1024 + 1];
    let announced = broker.client.post(&url).bearer_auth(&broker.operator).body(large);
    assert_eq!(read(announced).await.refusal(), (413, "too_large"));
    // In pieces, without a length.
    let mut socket = TcpStream::connect(broker.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        broker.operator
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let piece = [
        format!("{:x}\r\n", 256 * 1024).as_bytes(),
        &vec![b' '; 256 * 1024],
        b"\r\n",
    ]
    .concat();
    let writing = tokio::spawn(async move {
        for _ in 0..20 {
            // Refused while it is being sent.
            if writer.write_all(&piece).await.is_err() {
                break;
            }
        }
        writer
    });
    let mut answer = vec![0; 4_096];
    let n = tokio::time::timeout(PATIENCE, reader.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer[..n].starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&answer[..n])
    );
    writing.abort();
    broker.stop().await;
}

/// A body that has not come by then is given up; a little less, for clocks that count in milliseconds.
const BODY_TIME: Duration = Duration::from_millis(9_990);

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_holds_nobody_up() {
    let broker = Broker::in_memory();
    let mut slow = TcpStream::connect(broker.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        broker.operator
    );
    let began = std::time::Instant::now();
    slow.write_all(head.as_bytes()).await.unwrap();
    broker.get("/v1/rooms").await.ok();
    // Answered while the other was still waited for.
    let early = slow.try_read(&mut [0]);
    assert!(
        early.is_err() || began.elapsed() >= BODY_TIME,
        "the slow one was answered first"
    );
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(began.elapsed() >= BODY_TIME);
    broker.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_one_form_too() {
    let broker = Broker::in_memory();
    for path in [
        "/nothing",
        "/v1",
        "/v1/nothing",
        "/v1/rooms/a/b",
        "//v1/rooms",
        "/v1/rooms/",
    ] {
        assert_eq!(broker.get(path).await.refusal(), (404, "not_found"), "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/v1/rooms"),
        (Method::GET, "/v1/publish"),
        (Method::OPTIONS, "/v1/publish"),
        (Method::TRACE, "/v1/devices"),
        (Method::POST, "/health"),
    ] {
        let answer = broker.ask(&broker.operator, method, path, None).await;
        assert_eq!(answer.refusal(), (405, "unsupported"), "{path}");
        assert!(answer.headers.contains_key("allow"), "{path}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_get_no_permission() {
    let broker = Broker::in_memory();
    let request = broker
        .client
        .get(format!("{}/v1/rooms", broker.base))
        .bearer_auth(&broker.operator);
    let answer = read(request.header("origin", "https://evil.example")).await;
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control"))
    );
    broker.stop().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_pipelined_ones_in_order() {
    let broker = Broker::in_memory();
    let mut socket = TcpStream::connect(broker.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let last = "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned();
    let all = [ask("/"), ask("/health"), last].concat();
    socket.write_all(all.as_bytes()).await.unwrap();
    let mut answers = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answers))
        .await
        .unwrap()
        .unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_request_is_carried_through_though_its_sender_hangs_up() {
    let broker = Broker::in_memory();
    let body = json!({ "id": "acme" }).to_string();
    let mut socket = TcpStream::connect(broker.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let request = format!(
        "POST /v1/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        broker.operator,
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    drop(socket);
    let made = async {
        while broker.get("/v1/tenants/acme").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
    broker.stop().await;
}
