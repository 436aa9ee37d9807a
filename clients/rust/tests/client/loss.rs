//! How a connection ends, or never begins, and what the client makes of it: it comes back with what it knows, or says why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cauce_client::{
    Client, Code, Continuity, ErrorKind, Event, Options, Payload, Reconnect, Seq, SeqRange, Status,
};
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::{Refusal, server, wire};
use tokio_tungstenite::tungstenite::Message;

use crate::broker::{Broker, patiently, push};
use crate::socket::{connected, message_seq};

#[tokio::test]
async fn after_a_lost_connection_rooms_are_joined_again_and_told_what_was_missed() {
    let (broker, mut peer, client) = connected(|o| o).await;
    let (_, room) = tokio::join!(peer.subscribed(&[(3, 1, 10)]), client.subscribe("a"));
    let mut room = room.unwrap();
    drop(peer);
    let mut peer = broker.welcome().await;
    peer.subscribed(&[(9, 1, 12)]).await;
    peer.send(&[push(9, 13, "1")]).await;
    let Some(Event::Resubscribed {
        position, continuity, ..
    }) = patiently(room.next()).await
    else {
        panic!()
    };
    assert_eq!(position.seq, Seq(12));
    assert_eq!(
        continuity,
        Continuity::Lost(SeqRange {
            first: Seq(11),
            last: Seq(12)
        })
    );
    assert_eq!(message_seq(&mut room).await, 13);
}

#[tokio::test]
async fn a_publish_whose_answer_was_lost_is_sent_again_with_its_key() {
    let (broker, mut peer, client) = connected(|o| o).await;
    let publishing = tokio::spawn({
        let client = client.clone();
        async move { client.publish("a", "e", Payload::text("1")).await }
    });
    let (_, Request::Publish(first)) = peer.next().await else {
        panic!()
    };
    drop(peer);
    let mut peer = broker.welcome().await;
    let (id, Request::Publish(again)) = peer.next().await else {
        panic!()
    };
    assert_eq!(first, again);
    let published = wire::Published {
        epoch: 1,
        seq: 5,
        receivers: 0,
        repeated: true,
        durable: false,
    };
    peer.reply(id, published).await;
    let ack = patiently(publishing).await.unwrap().unwrap();
    assert!(ack.repeated && ack.receivers.is_none());
}

#[tokio::test]
async fn a_call_in_flight_fails_with_its_connection() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.call_device("d", "m", serde_json::Value::Null).await }
    });
    assert!(matches!(peer.next().await.1, Request::Call(_)));
    drop(peer);
    let error = patiently(calling).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_code_that_says_never_closes_the_client_with_its_reason() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    let (_, room) = tokio::join!(peer.subscribed(&[(3, 1, 0)]), client.subscribe("a"));
    let mut room = room.unwrap();
    peer.close(Code::TenantDisabled.number(), "switched off").await;
    let Some(Event::Ended { reason }) = patiently(room.next()).await else {
        panic!()
    };
    assert_eq!(
        (reason.code(), reason.message()),
        (Some(Code::TenantDisabled), "switched off")
    );
    assert!(patiently(room.next()).await.is_none());
    let error = client.publish("a", "e", Payload::NULL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(
        matches!(&*client.status().borrow(), Status::Closed { reason: Some(r) } if r.code() == Some(Code::TenantDisabled))
    );
}

#[tokio::test]
async fn a_refused_hello_is_the_answer_of_connect() {
    let broker = Broker::start().await;
    let refuse = async {
        let mut peer = broker.accept().await;
        let (id, _) = peer.next().await;
        peer.reply(id, &Refusal::new(Code::TokenInvalid, "bad signature"))
            .await;
        peer
    };
    let (_peer, client) = tokio::join!(refuse, Client::connect(Options::new(broker.url())));
    assert_eq!(client.unwrap_err().code(), Some(Code::TokenInvalid));
}

#[tokio::test]
async fn an_expired_token_is_renewed_by_the_provider() {
    let broker = Broker::start().await;
    let count = Arc::new(AtomicU32::new(0));
    let options = Options::new(broker.url()).token_provider({
        let count = Arc::clone(&count);
        move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, std::convert::Infallible>(format!("token {n}")) }
        }
    });
    let serve = async {
        let mut peer = broker.accept().await;
        assert_eq!(peer.welcome().await.token, "token 0");
        // An ordinary loss brings the same token again.
        drop(peer);
        let mut peer = broker.accept().await;
        assert_eq!(peer.welcome().await.token, "token 0");
        peer.close(Code::TokenExpired.number(), "").await;
        let mut peer = broker.accept().await;
        assert_eq!(peer.welcome().await.token, "token 1");
        peer
    };
    let (_peer, client) = tokio::join!(serve, Client::connect(options));
    client.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_wrong_address_is_final_and_an_absent_broker_is_if_asked() {
    for url in ["http://127.0.0.1/", "ws://", "nonsense"] {
        let error = Client::connect(Options::new(url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
    }
    let port = Broker::start().await.port();
    let options = Options::new(format!("ws://127.0.0.1:{port}/v1/ws")).reconnect(Reconnect::AfterWelcome);
    let error = patiently(Client::connect(options)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
}

#[tokio::test]
async fn an_http_refusal_says_why() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (answer, kind, code) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            ErrorKind::Protocol,
            None,
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            ErrorKind::Refused,
            Some(Code::Unauthenticated),
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"error\":{\"code\":4310,\"message\":\"no\"}}",
            ErrorKind::Refused,
            Some(Code::OriginRefused),
        ),
    ] {
        let broker = Broker::start().await;
        let refuse = async {
            let mut socket = broker.accept_raw().await;
            let mut request = vec![0; 4096];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket
        };
        let (_socket, client) = tokio::join!(refuse, Client::connect(Options::new(broker.url())));
        let error = client.unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, code), "{error}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_the_protocol_end_the_connection_not_the_client() {
    let (broker, mut peer, client) = connected(|o| o).await;
    peer.send_message(Message::Binary(vec![0xff; 20].into())).await;
    assert!(peer.next_or_end().await.is_none());
    let _peer = broker.welcome().await;
    patiently(client.online()).await.unwrap();
}

#[tokio::test]
async fn goaway_is_the_reason_of_the_close_that_follows() {
    let (broker, mut peer, client) = connected(|o| o).await;
    let mut status = client.status();
    let refusal = Refusal::new(Code::GoingAway, "restart").retry_after(20);
    peer.send(&[server::goaway(&refusal)]).await;
    drop(peer);
    let waiting = patiently(status.wait_for(|s| matches!(s, Status::Waiting { .. }))).await;
    let Status::Waiting { reason, .. } = waiting.unwrap().clone() else {
        panic!()
    };
    assert_eq!(
        (reason.code(), reason.retry_after()),
        (Some(Code::GoingAway), Some(Duration::from_millis(20)))
    );
    let _peer = broker.welcome().await;
    patiently(client.online()).await.unwrap();
}

#[test]
fn whoever_waits_is_told_when_the_runtime_ends() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let (client, mut inbox) = first.block_on(async {
        let (_broker, _peer, client) = connected(|o| o).await;
        let inbox = client.directs();
        (client, inbox)
    });
    drop(first);
    runtime().block_on(async {
        assert!(patiently(inbox.next()).await.is_none());
        let error = client.publish("a", "e", Payload::NULL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
}
