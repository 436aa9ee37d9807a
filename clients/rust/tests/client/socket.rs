//! The client over real sockets against a broker that does what each test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::broker::{Broker, Peer, patiently, push};
use cauce_client::{Client, Direct, Event, Options, Payload, Seq, Status};
use cauce_protocol::Payload as WirePayload;
use cauce_protocol::wire::{self, client_frame::Request};
use serde_json::json;

pub(crate) async fn connected(options: impl FnOnce(Options) -> Options) -> (Broker, Peer, Client) {
    let broker = Broker::start().await;
    let options = options(Options::new(broker.url()).token("secret"));
    let (peer, client) = tokio::join!(broker.welcome(), Client::connect(options));
    (broker, peer, client.unwrap())
}

/// The next event's sequence, which must be a message.
pub(crate) async fn message_seq(room: &mut cauce_client::Subscription) -> u64 {
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
