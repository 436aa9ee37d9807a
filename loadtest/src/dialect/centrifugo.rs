//! Centrifugo's bidirectional protocol in protobuf: messages with their length before them, many to a WebSocket message.
//!
//! Connect and the subscriptions go out in one breath, as its own JavaScript client does. Every publish is answered, because
//! this protocol has no other. An empty message is a ping, and its answer. Publications of the channel's history have
//! offsets; they are not counted as a sequence, because channels without history have none.

use prost::Message;

use super::{Cue, Heard, Kind, Push, RoomRef, Speaker, Speech, Words};
use crate::stamp::Form;
use crate::wire::{self, Field, Template};

/// The id of every publish; those below are of connect and the subscriptions.
const PUBLISH_ID: u32 = u32::MAX;
/// An empty message in a masked frame.
const PONG: &[u8] = &[0x82, 0x81, 0, 0, 0, 0, 0];

const REPLY_PUSH: u64 = 4;
const PUSH_CHANNEL: u64 = 2;
const PUSH_PUBLICATION: u64 = 4;
const PUBLICATION_DATA: u64 = 4;

/// What we send, of what the protocol has.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Command {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "4")]
    pub(super) connect: Option<Connect>,
    #[prost(message, optional, tag = "5")]
    pub(super) subscribe: Option<Subscribe>,
    #[prost(message, optional, tag = "7")]
    pub(super) publish: Option<Publish>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Connect {
    #[prost(string, tag = "1")]
    pub(super) token: String,
    #[prost(string, tag = "4")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Subscribe {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Publish {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
}

/// What we read of what comes back, apart from publications.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) error: Option<Error>,
    #[prost(message, optional, tag = "4")]
    pub(super) push: Option<ServerPush>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Error {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerPush {
    #[prost(string, tag = "2")]
    pub(super) channel: String,
    #[prost(message, optional, tag = "4")]
    pub(super) publication: Option<Publication>,
    #[prost(message, optional, tag = "7")]
    pub(super) unsubscribe: Option<Parting>,
    #[prost(message, optional, tag = "11")]
    pub(super) disconnect: Option<Disconnect>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Publication {
    #[prost(bytes = "vec", tag = "4")]
    pub(super) data: Vec<u8>,
    #[prost(uint64, tag = "6")]
    pub(super) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Parting {
    #[prost(uint32, tag = "2")]
    pub(super) code: u32,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Disconnect {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
}

#[derive(Debug)]
pub(crate) struct Centrifugo;

impl Speech for Centrifugo {
    #[inline]
    fn next<'a>(kind: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        if kind == Kind::Text {
            return Err("text: the server speaks JSON where protobuf was asked for");
        }
        let mut after = *rest;
        let Some(message) = wire::take_message(&mut after) else {
            return Ok(None);
        };
        *rest = after;
        if message.is_empty() {
            return Ok(Some(Heard::Echo(PONG)));
        }
        match publication(message) {
            Some(push) => Ok(Some(Heard::Push(push))),
            None => other(message).map(Some),
        }
    }
}

/// The publication in a reply that is a push; None if it is something else.
#[inline]
fn publication(mut reply: &[u8]) -> Option<Push<'_>> {
    let Some(Field::Bytes(REPLY_PUSH, mut push)) = wire::field(&mut reply) else {
        return None;
    };
    let (mut channel, mut publication) = (None, None);
    while !push.is_empty() {
        match wire::field(&mut push)? {
            Field::Bytes(PUSH_CHANNEL, name) => channel = Some(name),
            Field::Bytes(PUSH_PUBLICATION, found) => publication = Some(found),
            _ => {}
        }
    }
    let mut publication = publication?;
    let mut payload: &[u8] = &[];
    while !publication.is_empty() {
        if let Field::Bytes(PUBLICATION_DATA, data) = wire::field(&mut publication)? {
            payload = data;
        }
    }
    Some(Push {
        room: RoomRef::Name(channel?),
        seq: None,
        payload,
    })
}

#[cold]
fn other(message: &[u8]) -> Result<Heard<'static>, &'static str> {
    let reply = Reply::decode(message).map_err(|_| "a reply that does not decode")?;
    if let Some(error) = reply.error {
        return Ok(Heard::Refused(format!("{} ({})", error.message, error.code)));
    }
    if let Some(push) = reply.push {
        return Ok(match (push.disconnect, push.unsubscribe) {
            (Some(end), _) => Heard::Ended(format!("disconnect: {} ({})", end.reason, end.code)),
            (None, Some(end)) => Heard::Note(format!("subscription ended: {} ({})", end.reason, end.code)),
            (None, None) => Heard::Nothing,
        });
    }
    Ok(match reply.id {
        0 | PUBLISH_ID => Heard::Nothing,
        _ => Heard::Answer,
    })
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    if cue != Cue::Upgraded {
        return Words::default();
    }
    let connect = Command {
        id: 1,
        connect: Some(Connect {
            token: speaker.token.to_owned(),
            name: "loadtest".to_owned(),
        }),
        ..Command::default()
    };
    let mut message = connect.encode_length_delimited_to_vec();
    let mut awaited = 1;
    for room in speaker.rooms {
        awaited += 1;
        let subscribe = Command {
            id: awaited,
            subscribe: Some(Subscribe {
                channel: room.name.to_owned(),
            }),
            ..Command::default()
        };
        message.extend(subscribe.encode_length_delimited_to_vec());
    }
    Words {
        bytes: Kind::Binary.frame(&message),
        awaited,
    }
}

pub(super) fn template(room: &str, form: Form, payload_bytes: usize) -> Template {
    let payload = form.blank(payload_bytes.max(form.bytes_min()));
    let len = payload.len();
    let command = Command {
        id: PUBLISH_ID,
        publish: Some(Publish {
            channel: room.to_owned(),
            data: payload,
        }),
        ..Command::default()
    };
    let frame = Kind::Binary.frame(&command.encode_length_delimited_to_vec());
    // Fields are written in the order of their numbers, and the data is the last of the last.
    Template {
        payload: frame.len() - len..frame.len(),
        frame,
    }
}
