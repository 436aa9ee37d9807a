//! What a connection says and hears: our own protocol, and those of the servers that people compare us with. Pure: bytes in,
//! bytes and meanings out; sockets, ledgers and clocks are the engine's.
//!
//! What must stay true: whatever a server sends, a reader answers, asks for more or refuses, and never panics; a push is read
//! where it lies, without an allocation; the engine's loop is compiled once for each dialect, so that none pays for another.

mod cauce;
mod centrifugo;
mod mqtt;
mod nats;
mod plain;
mod socketio;

use std::net::SocketAddr;

pub(crate) use cauce::Cauce;
use cauce_protocol::wire as proto;
pub(crate) use centrifugo::Centrifugo;
pub(crate) use mqtt::Mqtt;
pub(crate) use nats::Nats;
pub(crate) use plain::Plain;
pub(crate) use socketio::SocketIo;

use crate::scenario::{Scenario, Shape};
use crate::socket::READ_BYTES;
use crate::stamp::Form;
use crate::wire::{self, Template};

/// Longest thing that a server may say at once, in bytes; with its frame's head it fits the read buffer.
pub(crate) const SAID_BYTES_MAX: usize = READ_BYTES - 16;

/// Whose protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// Our own.
    #[default]
    Cauce,
    /// A WebSocket server that hands each message on to its room, as it is.
    Plain,
    /// Socket.IO 4 (Engine.IO 4), over WebSocket alone.
    #[value(name = "socketio")]
    SocketIo,
    /// Centrifugo and servers made with Centrifuge, in protobuf.
    Centrifugo,
    /// NATS over WebSocket.
    Nats,
    /// MQTT 3.1.1 over WebSocket, QoS 0.
    Mqtt,
}

/// Whether a WebSocket message is text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Self::Text => wire::TEXT,
            Self::Binary => wire::BINARY,
        }
    }

    /// A client's WebSocket message.
    fn frame(self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + 14);
        self.put(&mut out, payload);
        out
    }

    fn put(self, out: &mut Vec<u8>, payload: &[u8]) {
        wire::put_client_frame(out, self.opcode(), payload);
    }

    /// A client's message that is `head`, a blank payload of `form` and `tail`.
    fn template(self, head: &[u8], form: Form, payload_bytes: usize, tail: &[u8]) -> Template {
        let payload = form.blank(payload_bytes.max(form.bytes_min()));
        let frame = self.frame(&[head, &payload, tail].concat());
        let end = frame.len() - tail.len();
        Template {
            payload: end - payload.len()..end,
            frame,
        }
    }
}

/// How a server names a room in a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoomRef<'a> {
    /// By the number that it gave, or that we gave when we subscribed.
    Number(u64),
    Name(&'a [u8]),
}

/// A message of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Push<'a> {
    pub(crate) room: RoomRef<'a>,
    /// The room's own number for it, where the protocol has one.
    pub(crate) seq: Option<u64>,
    pub(crate) payload: &'a [u8],
}

/// When a connection has something to say, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cue {
    /// The server speaks WebSocket now.
    Upgraded,
    /// It has introduced itself.
    Opened,
    /// It has let us in.
    Accepted,
}

/// What a server said.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard<'a> {
    Push(Push<'a>),
    /// It is our turn.
    Cue(Cue),
    /// One of the answers that joining awaits.
    Answer,
    /// The same, with where in their rooms we are.
    Positions(Vec<proto::RoomPosition>),
    /// It wants this WebSocket frame back.
    Echo(&'static [u8]),
    /// The room goes on behind `seq`; so many of its messages will not come.
    Skip {
        room: u64,
        seq: u64,
        lost: u64,
    },
    Pong,
    /// It does not do what we asked.
    Refused(String),
    /// Worth a word.
    Note(String),
    /// It is about to close.
    Ended(String),
    /// Nothing that concerns a load test.
    Nothing,
}

/// A reader of what a server says.
pub(crate) trait Speech {
    /// A WebSocket message may hold the beginning, the middle or the end of what is said.
    const STREAM: bool = false;

    /// Takes the next thing off the front of a message, which is not empty. None, and nothing taken, while it is incomplete.
    ///
    /// # Errors
    /// If it is not of this dialect.
    fn next<'a>(kind: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str>;
}

/// A room that a connection wants to be in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// Where it was before, if it was.
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// Who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaker<'a> {
    pub(crate) run: &'a str,
    pub(crate) seat: u32,
    /// Empty where there is none.
    pub(crate) token: &'a str,
    pub(crate) rooms: &'a [Wanted<'a>],
}

/// What is said on a cue, as WebSocket frames.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Words {
    pub(crate) bytes: Vec<u8>,
    /// Answers, or the next cue, until which the connection is not ready.
    pub(crate) awaited: u32,
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Cauce => "cauce",
            Self::Plain => "plain",
            Self::SocketIo => "socketio",
            Self::Centrifugo => "centrifugo",
            Self::Nats => "nats",
            Self::Mqtt => "mqtt",
        }
    }

    /// How results name the server.
    pub(crate) fn label(self) -> &'static str {
        if self == Self::Cauce {
            "target"
        } else {
            self.name()
        }
    }

    /// Rooms have a sequence, positions and a history that the generator knows of.
    pub(crate) fn has_positions(self) -> bool {
        self == Self::Cauce
    }

    /// What a WebSocket pong answers: here, that the server has read everything before the ping.
    pub(crate) fn joins_by_pong(self) -> bool {
        self == Self::Plain
    }

    /// The form that payloads take if `wanted` is asked for.
    pub(crate) fn carries(self, wanted: Form) -> Form {
        match (self, wanted) {
            // Within JSON, bytes would have to be text, and text would have to be escaped.
            (Self::SocketIo, _) | (Self::Plain, Form::Text) => Form::Json,
            _ => wanted,
        }
    }

    pub(crate) fn room_name(self, run: &str, room: u32) -> String {
        match self {
            Self::Cauce | Self::Plain | Self::SocketIo => format!("loadtest:{run}:{room}"),
            // A colon would ask for a namespace.
            Self::Centrifugo => format!("loadtest-{run}-{room}"),
            Self::Nats => format!("loadtest.{run}.{room}"),
            Self::Mqtt => format!("loadtest/{run}/{room}"),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Cauce => "/v1/ws",
            Self::Plain | Self::Nats => "/",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Centrifugo => "/connection/websocket?format=protobuf",
            Self::Mqtt => "/mqtt",
        }
    }

    fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Cauce => Some(cauce_protocol::SUBPROTOCOL_PROTO),
            Self::Centrifugo => Some("centrifuge-protobuf"),
            Self::Mqtt => Some("mqtt"),
            Self::Plain | Self::SocketIo | Self::Nats => None,
        }
    }

    /// The HTTP request that asks for WebSocket, at `path` or where such servers usually are.
    pub(crate) fn request(self, target: SocketAddr, path: Option<&str>, token: &str) -> String {
        let path = path.unwrap_or_else(|| self.path());
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        );
        if let Some(subprotocol) = self.subprotocol() {
            head += &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
        }
        // The others have a place for it in what they say first.
        if self == Self::Plain && !token.is_empty() {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        head + "\r\n"
    }

    /// What a connection says on a cue.
    pub(crate) fn words(self, cue: Cue, speaker: &Speaker<'_>) -> Words {
        match self {
            Self::Cauce => cauce::words(cue, speaker),
            Self::Plain => plain::words(cue, speaker),
            Self::SocketIo => socketio::words(cue, speaker),
            Self::Centrifugo => centrifugo::words(cue, speaker),
            Self::Nats => nats::words(cue, speaker),
            Self::Mqtt => mqtt::words(cue, speaker),
        }
    }

    /// A publish to `room`, to be stamped.
    pub(crate) fn template(self, room: &str, form: Form, payload_bytes: usize) -> Template {
        match self {
            Self::Cauce => Template::new(room, "m", form, payload_bytes),
            Self::Plain => plain::template(room, form, payload_bytes),
            Self::SocketIo => socketio::template(room, form, payload_bytes),
            Self::Centrifugo => centrifugo::template(room, form, payload_bytes),
            Self::Nats => nats::template(room, form, payload_bytes),
            Self::Mqtt => mqtt::template(room, form, payload_bytes),
        }
    }

    /// The scenario as servers of this dialect can run it: without recovery, and with payloads that they carry.
    ///
    /// # Errors
    /// If they cannot; in words for people.
    pub(crate) fn suit(self, scenario: &mut Scenario) -> Result<(), String> {
        if self == Self::Cauce {
            return Ok(());
        }
        match &mut scenario.shape {
            Shape::Noisy { .. } => {
                return Err("noisy floods from another tenant, and only cauce has tenants".to_owned());
            }
            Shape::Devices { .. } => {
                return Err("devices emulates plugs, and only cauce takes their frames".to_owned());
            }
            Shape::Storm { missed, .. } => *missed = 0,
            Shape::Soak { churn_per_second, .. } => *churn_per_second = 0.0,
            _ => {}
        }
        let load = &mut scenario.load;
        load.payload = self.carries(load.payload);
        let least = load.payload.bytes_min();
        if load.payload_bytes < least {
            return Err(format!(
                "load.payload_bytes must be at least {least} for what this protocol carries"
            ));
        }
        Ok(())
    }
}

/// Splits off the text before `end`, and drops `end`.
fn until(input: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|byte| *byte == end)?;
    Some((&input[..at], &input[at + 1..]))
}

#[cfg(test)]
mod tests;
