//! The client over real sockets against a broker that does what each test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::broker::{Broker, Peer, patiently, push};
use cauce_client::{
    Client, Code, Continuity, Direct, ErrorKind, Event, Options, Payload, Reconnect, Seq, SeqRange, Status,
};
use cauce_protocol::server;
use cauce_protocol::wire::{self, client_frame::Request};
use cauce_protocol::{Payload as WirePayload, Refusal};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

async fn connected(options: impl FnOnce(Options) -> Options) -> (Broker, Peer, Client) {
    let broker = Broker::start().await;
    let options = options(Options::new(broker.url()).token("secret"));
    let (peer, client) = tokio::join!(broker.welcome(), Client::connect(options));
    (broker, peer, client.unwrap())
}

/// The next event's sequence, which must be a message.
async fn message_seq(room: &mut cauce_client::Subscription) -> u64 {
    match patiently(room.next()).await {
        Some(Event::Message(message)) => message.seq.0,
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn hello_brings_token_name_and_features_and_the_welcome_ends_connect() {
    let broker = Broker::start().await;
    let options = Options::new(broker.url()).token("secret").client_name("test/1");
    let (hello, client) = tokio::join!(
        async {
            let mut peer = broker.accept().await;
            (peer.welcome().await, peer)
        },
        Client::connect(options)
    );
    assert_eq!(
        (hello.0.token.as_str(), hello.0.client.as_str()),
        ("secret", "test/1")
    );
    // Advance and gap; notifications only where they are wanted.
    assert_eq!((hello.0.version, hello.0.features), (1, 3));
    let session = client.unwrap().online().await.unwrap();
    assert_eq!((session.connection.0, session.user.as_str()), (7, "u"));
}

#[tokio::test]
async fn both_dialects_carry_everything() {
    for json_dialect in [false, true] {
        let (_broker, mut peer, client) = connected(|o| if json_dialect { o.json() } else { o }).await;
        let mut inbox = client.directs();
        let (_, room) = tokio::join!(peer.subscribed(&[(3, 1, 10)]), client.subscribe("a"));
        let mut room = room.unwrap();
        assert_eq!(room.start().seq, Seq(10));
        peer.send(&[push(3, 11, "{\"n\":1}"), push(3, 12, "2")]).await;
        let message = patiently(room.next()).await.unwrap().into_message().unwrap();
        assert_eq!(message.json::<serde_json::Value>().unwrap(), json!({"n": 1}));
        assert_eq!((message.room.as_str(), &*message.event), ("a", "e"));
        assert_eq!(message_seq(&mut room).await, 12);

        let (_, ack) = tokio::join!(
            async {
                let (id, Request::Publish(publish)) = peer.next().await else {
                    panic!()
                };
                assert!(
                    publish.exclude_sender && publish.want_receivers && !publish.idempotency_key.is_empty()
                );
                assert_eq!(publish.payload, Some(wire::publish::Payload::Text("hola".into())));
                let published = wire::Published {
                    epoch: 1,
                    seq: 13,
                    receivers: 4,
                    repeated: false,
                    durable: false,
                };
                peer.reply(id, published).await;
            },
            client
                .publish("a", "e", Payload::text("hola"))
                .exclude_self()
                .want_receivers()
        );
        let ack = ack.unwrap();
        assert_eq!((ack.seq, ack.receivers, ack.repeated), (Seq(13), Some(4), false));

        let (_, answer) = tokio::join!(
            async {
                let (id, Request::Call(call)) = peer.next().await else {
                    panic!()
                };
                assert_eq!(
                    (call.device.as_str(), call.method.as_str()),
                    ("8CBFEAA133F0", "Switch.Set")
                );
                assert_eq!(call.timeout_ms, 3000);
                peer.reply(id, wire::Answer { json: call.params }).await;
            },
            async {
                client
                    .call_device("8CBFEAA133F0", "Switch.Set", json!({"id": 0, "on": true}))
                    .timeout(Duration::from_secs(3))
                    .await
            }
        );
        assert_eq!(answer.unwrap(), json!({"id": 0, "on": true}));

        let (_, sent) = tokio::join!(
            async {
                let (id, Request::Send(send)) = peer.next().await else {
                    panic!()
                };
                assert_eq!(send.to, Some(wire::send::To::User("ana".into())));
                assert_eq!(
                    send.payload,
                    Some(wire::send::Payload::Binary(vec![0, 255].into()))
                );
                peer.reply(id, wire::Sent {}).await;
            },
            async {
                client
                    .send_to_user("ana", "e", Payload::binary(vec![0, 255]))
                    .await
            }
        );
        sent.unwrap();

        let payload = WirePayload::text("hi");
        let direct = wire::ServerFrame {
            message: Some(wire::server_frame::Message::Direct(wire::Direct {
                event: "notification".into(),
                payload: Some(wire::direct::Payload::Text("hi".into())),
            })),
        };
        peer.send(&[direct]).await;
        let Some(Direct::Message(direct)) = patiently(inbox.next()).await else {
            panic!()
        };
        assert_eq!((&*direct.event, direct.payload), ("notification", payload));

        let (_, ping) = tokio::join!(
            async {
                let (id, Request::Ping(_)) = peer.next().await else {
                    panic!()
                };
                peer.reply(id, wire::Pong { unix_ms: 1 }).await;
            },
            client.ping()
        );
        ping.unwrap();
        client
            .publish_unacknowledged("a", "e", Payload::NULL)
            .await
            .unwrap();
        let (id, Request::Publish(publish)) = peer.next().await else {
            panic!()
        };
        assert_eq!((id, publish.idempotency_key.as_str()), (0, ""));
    }
}

#[tokio::test]
async fn subscribers_of_one_room_share_it_and_the_last_to_go_leaves_it() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    let (_, first) = tokio::join!(peer.subscribed(&[(3, 1, 0)]), client.subscribe("a"));
    let (mut first, mut second) = (first.unwrap(), client.subscribe("a").await.unwrap());
    peer.send(&[push(3, 1, "1")]).await;
    assert_eq!(message_seq(&mut first).await, 1);
    assert_eq!(message_seq(&mut second).await, 1);
    drop(first);
    peer.send(&[push(3, 2, "2")]).await;
    assert_eq!(message_seq(&mut second).await, 2);
    drop(second);
    let (0, Request::Unsubscribe(left)) = peer.next().await else {
        panic!("not an unsubscribe")
    };
    assert_eq!(left.rooms, ["a"]);
}

#[tokio::test]
async fn a_subscribe_that_is_given_up_is_taken_back() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    let mut subscribe = client.subscribe("a").into_future();
    tokio::select! {
        biased;
        _ = &mut subscribe => panic!("nobody answered"),
        frame = peer.next() => assert!(matches!(frame.1, Request::Subscribe(_))),
    }
    drop(subscribe);
    assert!(matches!(peer.next().await.1, Request::Unsubscribe(_)));
}

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
async fn what_was_handed_over_is_sent_before_the_close() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    for n in 0..500 {
        client
            .publish_unacknowledged("a", "e", Payload::json(&n).unwrap())
            .await
            .unwrap();
    }
    let (_, received) = tokio::join!(client.close(), async {
        let mut received = 0;
        while peer.next_or_end().await.is_some() {
            received += 1;
        }
        received
    });
    assert_eq!(received, 500);
    assert!(matches!(
        &*client.status().borrow(),
        Status::Closed { reason: None }
    ));
}

#[tokio::test]
async fn a_stalled_application_reader_hurts_only_itself() {
    let (_broker, mut peer, client) = connected(|o| o.buffer(10, 1 << 20)).await;
    let (_, slow) = tokio::join!(peer.subscribed(&[(3, 1, 0)]), client.subscribe("a"));
    let mut slow = slow.unwrap();
    let mut quick = client.subscribe("a").await.unwrap();
    for seq in 1..=100 {
        peer.send(&[push(3, seq, "1")]).await;
        assert_eq!(message_seq(&mut quick).await, seq);
    }
    assert!(matches!(slow.next().await, Some(Event::Lagged { missed: 90 })));
    assert_eq!(message_seq(&mut slow).await, 91);
}

#[tokio::test]
async fn requests_wait_for_a_connection_that_comes() {
    let broker = Broker::start().await;
    let client = Client::start(Options::new(broker.url())).unwrap();
    let publish = async { client.publish("a", "e", Payload::NULL).await };
    let serve = async {
        let mut peer = broker.welcome().await;
        let (id, _) = peer.next().await;
        peer.reply(id, wire::Published::default()).await;
        peer
    };
    let (ack, _peer) = tokio::join!(publish, serve);
    ack.unwrap();
}

#[tokio::test]
async fn the_connection_ends_with_its_last_user() {
    let (_broker, mut peer, client) = connected(|o| o).await;
    let (_, room) = tokio::join!(peer.subscribed(&[(3, 1, 0)]), client.subscribe("a"));
    let mut room = room.unwrap();
    drop(client);
    peer.send(&[push(3, 1, "1")]).await;
    assert_eq!(message_seq(&mut room).await, 1);
    drop(room);
    // The leave may or may not go out before the end.
    while peer.next_or_end().await.is_some() {}
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

#[tokio::test]
async fn a_broker_that_does_not_read_holds_up_publishers_but_not_readers() {
    const PUBLISHES: u32 = 20_000;
    let (_broker, mut peer, client) = connected(|o| o).await;
    let (_, room) = tokio::join!(peer.subscribed(&[(3, 1, 0)]), client.subscribe("a"));
    let mut room = room.unwrap();
    let sent = Arc::new(AtomicU32::new(0));
    let publishing = tokio::spawn({
        let (client, sent) = (client.clone(), Arc::clone(&sent));
        async move {
            let payload = Payload::binary(vec![0; 50_000]);
            for _ in 0..PUBLISHES {
                client
                    .publish_unacknowledged("a", "e", payload.clone())
                    .await
                    .unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    // More than sockets hold is handed over, and then no more, while messages keep arriving.
    let mut seq = 0;
    let mut before = u32::MAX;
    while before != sent.load(Ordering::Relaxed) || before < 200 {
        before = sent.load(Ordering::Relaxed);
        for _ in 0..100 {
            seq += 1;
            peer.send(&[push(3, seq, "1")]).await;
            assert_eq!(message_seq(&mut room).await, seq);
        }
    }
    assert!(before < PUBLISHES / 2, "{before} were taken");
    // And once it reads again, they go on.
    while sent.load(Ordering::Relaxed) <= before {
        peer.next().await;
    }
    publishing.abort();
}
