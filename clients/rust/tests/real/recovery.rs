//! What a subscriber sees when the network, the broker or its own program goes away.

use cauce_client::{
    Client, Continuity, Error, Event, Message, Payload, Position, Seq, SeqRange, Status, Subscription,
};
use std::time::Duration;

use crate::world::{Wire, World, patiently};

async fn publish(client: &Client, room: &str, from: u64, to: u64) {
    for n in from..=to {
        let payload = Payload::json(&n).unwrap();
        patiently(client.publish(room, "counted", payload)).await.unwrap();
    }
}

async fn message(room: &mut Subscription) -> Message {
    match patiently(room.next()).await {
        Some(Event::Message(message)) => message,
        other => panic!("not a message: {other:?}"),
    }
}

async fn resubscribed(room: &mut Subscription) -> (Position, Continuity) {
    match patiently(room.next()).await {
        Some(Event::Resubscribed {
            position, continuity, ..
        }) => (position, continuity),
        other => panic!("not resubscribed: {other:?}"),
    }
}

async fn offline(client: &Client) {
    let mut status = client.status();
    let waiting = status.wait_for(|status| !matches!(status, Status::Online(_)));
    patiently(waiting).await.unwrap();
}

#[tokio::test]
async fn what_was_published_while_the_network_was_away_follows_once_and_in_order() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let reader = world.client_with("ana", &wire.url(), |options| options).await;
    let writer = world.client("luis").await;
    let mut room = patiently(reader.subscribe("orders")).await.unwrap();
    publish(&writer, "orders", 1, 2).await;
    assert_eq!(message(&mut room).await.seq, Seq(1));
    wire.cut();
    offline(&reader).await;
    publish(&writer, "orders", 3, 50).await;
    wire.mend();
    let mut numbers = Vec::new();
    let mut joined_again = 0;
    while numbers.last() != Some(&50u64) {
        match patiently(room.next()).await.unwrap() {
            Event::Message(message) => numbers.push(message.json().unwrap()),
            Event::Resubscribed { continuity, head, .. } => {
                assert_eq!((continuity, head), (Continuity::Continued, Seq(50)));
                joined_again += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers, (2..=50).collect::<Vec<u64>>());
    assert_eq!(joined_again, 1);
}

#[tokio::test]
async fn recovery_works_before_the_first_message() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let reader = world.client_with("ana", &wire.url(), |options| options).await;
    let writer = world.client("luis").await;
    let mut room = patiently(reader.subscribe("orders")).await.unwrap();
    assert_eq!(room.start().seq, Seq(0));
    wire.cut();
    offline(&reader).await;
    publish(&writer, "orders", 1, 1).await;
    wire.mend();
    assert_eq!(resubscribed(&mut room).await.1, Continuity::Continued);
    assert_eq!(message(&mut room).await.seq, Seq(1));
}

#[tokio::test]
async fn what_the_room_no_longer_keeps_is_told_exactly() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let reader = world.client_with("ana", &wire.url(), |options| options).await;
    let writer = world.client("luis").await;
    let mut room = patiently(reader.subscribe("short.news")).await.unwrap();
    publish(&writer, "short.news", 1, 1).await;
    message(&mut room).await;
    wire.cut();
    offline(&reader).await;
    publish(&writer, "short.news", 2, 10).await;
    wire.mend();
    let lost = SeqRange {
        first: Seq(2),
        last: Seq(7),
    };
    assert_eq!(resubscribed(&mut room).await.1, Continuity::Lost(lost));
    for seq in 8..=10 {
        assert_eq!(message(&mut room).await.seq, Seq(seq));
    }
}

#[tokio::test]
async fn a_broker_that_starts_anew_resets_the_room_and_goes_on() {
    let mut world = World::start().await;
    let reader = world.client("ana").await;
    let mut room = patiently(reader.subscribe("orders")).await.unwrap();
    publish(&reader, "orders", 1, 3).await;
    for seq in 1..=3 {
        assert_eq!(message(&mut room).await.seq, Seq(seq));
    }
    world.restart().await;
    let (position, continuity) = resubscribed(&mut room).await;
    assert_eq!(continuity, Continuity::Reset);
    publish(&reader, "orders", 4, 4).await;
    let next = message(&mut room).await;
    assert_eq!((next.epoch, next.seq.0), (position.epoch, position.seq.0 + 1));
}

#[tokio::test]
async fn a_program_that_starts_again_goes_on_where_it_stood() -> Result<(), Error> {
    let world = World::start().await;
    let writer = world.client("luis").await;
    let first = world.client("ana").await;
    let mut room = patiently(first.subscribe("orders")).await?;
    publish(&writer, "orders", 1, 2).await;
    message(&mut room).await;
    let kept = serde_json::to_string(&message(&mut room).await.position())?;
    drop(room);
    first.close().await;
    publish(&writer, "orders", 3, 4).await;

    let second = world.client("ana").await;
    let position: Position = serde_json::from_str(&kept)?;
    let mut room = patiently(second.subscribe("orders").since(position)).await?;
    assert_eq!(resubscribed(&mut room).await, (position, Continuity::Continued));
    assert_eq!(message(&mut room).await.seq, Seq(3));
    assert_eq!(message(&mut room).await.seq, Seq(4));
    Ok(())
}

#[tokio::test]
async fn an_exclusion_outlives_a_reconnect() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let reader = world.client_with("ana", &wire.url(), |options| options).await;
    let writer = world.client("luis").await;
    let excluded = reader.online().await.unwrap().connection;
    let mut room = patiently(reader.subscribe("orders")).await.unwrap();
    wire.cut();
    offline(&reader).await;
    wire.mend();
    assert_eq!(resubscribed(&mut room).await.1, Continuity::Continued);
    assert_ne!(reader.online().await.unwrap().connection, excluded);
    let publish_not_to = writer
        .publish("orders", "counted", Payload::text("not for ana"))
        .exclude([excluded]);
    patiently(publish_not_to).await.unwrap();
    publish(&writer, "orders", 2, 2).await;
    assert_eq!(message(&mut room).await.seq, Seq(2));
}

#[tokio::test]
async fn a_token_is_renewed_on_the_connection_that_lives() {
    let world = World::start().await;
    let token = world.token("ana", Duration::from_secs(5)).await;
    let long = world.token("ana", Duration::from_secs(3600)).await;
    let mut first = Some(token);
    let tokens = std::sync::Mutex::new(std::iter::from_fn(move || {
        first.take().or_else(|| Some(long.clone()))
    }));
    let options = cauce_client::Options::new(world.url()).token_provider(move || {
        let token = tokens.lock().unwrap().next();
        async move { token.ok_or("no token") }
    });
    let client = patiently(Client::connect(options)).await.unwrap();
    let before = client.online().await.unwrap();
    let mut status = client.status();
    let renewed = status.wait_for(|status| match status {
        Status::Online(session) => session.token_expires > before.token_expires,
        other => panic!("the connection was lost: {other:?}"),
    });
    patiently(renewed).await.unwrap();
    assert_eq!(client.online().await.unwrap().connection, before.connection);
}

#[tokio::test]
async fn services_notifications_and_presence_come_back_with_the_connection() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let ana = world
        .client_with("ana", &wire.url(), cauce_client::Options::notifications)
        .await;
    let luis = world.client("luis").await;
    let service = patiently(ana.serve("echo.*", 4)).await.unwrap();
    tokio::spawn(
        service.answer_with(|request| async move { request.params().map_err(|e: Error| e.to_string()) }),
    );
    let mut notifications = ana.notifications().unwrap();
    let mut view = patiently(ana.presence("lobby").watch()).await.unwrap();
    while !view.is_loaded() {
        patiently(view.next()).await.unwrap();
    }
    assert!(view.is_present("ana") && !view.is_present("luis"));
    let hello = serde_json::json!({"text": "hello"});
    let answer = patiently(luis.call("echo.text", hello.clone())).await.unwrap();
    assert_eq!(answer, hello);
    let to_ana = || cauce_client::Audience::User("ana".into());
    let seen = tokio::spawn(async move {
        let mut titles = Vec::new();
        while titles.len() < 2 {
            if let Some(cauce_client::NotificationEvent::New(new)) = notifications.next().await {
                titles.push(new.title);
            }
        }
        titles
    });
    let mut unread = ana.unread();
    patiently(unread.wait_for(Option::is_some)).await.unwrap();
    patiently(luis.notify(to_ana(), "first")).await.unwrap();
    patiently(unread.wait_for(|unread| *unread == Some(1)))
        .await
        .unwrap();

    wire.cut();
    offline(&ana).await;
    patiently(luis.notify(to_ana(), "second")).await.unwrap();
    let _joined = patiently(luis.subscribe("lobby")).await.unwrap();
    wire.mend();
    assert_eq!(patiently(seen).await.unwrap(), ["first", "second"]);
    patiently(unread.wait_for(|unread| *unread == Some(2)))
        .await
        .unwrap();
    while !view.is_present("luis") {
        patiently(view.next()).await.unwrap();
    }
    let again = patiently(async {
        loop {
            match luis.call("echo.text", hello.clone()).await {
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                answered => return answered,
            }
        }
    });
    assert_eq!(again.await.unwrap(), hello);
}
