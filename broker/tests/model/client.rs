//! A client of either dialect that gives every message of the broker in one form.

use std::collections::VecDeque;

use cauce_protocol::json;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};

use crate::support::raw::{Heard, Raw, masked, proto, server_frames};
use crate::support::{Broker, PATIENCE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Json,
    Proto,
}

pub(crate) struct Client {
    raw: Raw,
    dialect: Dialect,
    waiting: VecDeque<Message>,
    next_id: u32,
    pub(crate) connection: u64,
}

impl Client {
    /// Says hello after the welcome. `narrow` has a receive buffer as small as can be.
    pub(crate) async fn connect(
        broker: &Broker,
        token: &str,
        dialect: Dialect,
        narrow: bool,
        hello: wire::Hello,
    ) -> Self {
        let mut raw = match narrow {
            true => Raw::connect_narrow(broker.address).await,
            false => Raw::connect(broker.address).await,
        };
        let protocol = match dialect {
            Dialect::Json => "cauce.v1.json",
            Dialect::Proto => "cauce.v1.proto",
        };
        let headers = format!("Sec-WebSocket-Protocol: {protocol}\r\nAuthorization: Bearer {token}\r\n");
        let head = raw.upgrade("/v1/ws", &headers).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut client = Self {
            raw,
            dialect,
            waiting: VecDeque::new(),
            next_id: 1,
            connection: 0,
        };
        let welcome = client.receive().await;
        assert!(
            matches!(&welcome, Message::Reply(wire::Reply { id: 0, .. })),
            "{welcome:?}"
        );
        let (outcome, before) = client.ask(Request::Hello(hello)).await;
        assert!(before.is_empty());
        match outcome {
            Outcome::Welcome(welcome) => client.connection = welcome.connection,
            other => panic!("{other:?}"),
        }
        client
    }

    /// Asks; what comes before the answer is given with it.
    pub(crate) async fn ask(&mut self, request: Request) -> (Outcome, Vec<Message>) {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = match self.dialect {
            Dialect::Proto => masked(true, 2, &proto(id, request)),
            Dialect::Json => {
                let request = Some(request);
                masked(
                    true,
                    1,
                    json::encode_client(&wire::ClientFrame { id, request }).as_bytes(),
                )
            }
        };
        assert!(
            self.raw.write(&bytes).await,
            "the broker has closed the connection"
        );
        let mut before = Vec::new();
        loop {
            match self.receive().await {
                Message::Reply(reply) if reply.id == id => {
                    return (reply.outcome.expect("an outcome"), before);
                }
                other => before.push(other),
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Message {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return message;
            }
            let heard = tokio::time::timeout(PATIENCE, self.raw.hear()).await;
            match heard.expect("what is owed comes within the test's patience") {
                Heard::Binary(bytes) => {
                    let frames = server_frames(&bytes).into_iter();
                    self.waiting
                        .extend(frames.map(|frame| frame.message.expect("a message")));
                }
                Heard::Text(text) => {
                    let frame = json::decode_server(text.as_bytes()).expect("the broker speaks JSON");
                    self.waiting.extend(frame.message);
                }
                Heard::Ping | Heard::Pong => {}
                other => panic!("expected a message, heard {other:?}"),
            }
        }
    }
}
