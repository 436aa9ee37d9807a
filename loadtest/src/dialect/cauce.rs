//! Our own protocol. Hello and subscribe go out in one breath; positions come back with a connection.

use cauce_protocol::wire as proto;
use prost::Message as _;

use super::{Cue, Heard, Kind, Push, RoomRef, Speaker, Speech, Words};
use crate::wire;

#[derive(Debug)]
pub(crate) struct Cauce;

impl Speech for Cauce {
    #[inline]
    fn next<'a>(kind: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        if kind == Kind::Text {
            return Err("a frame that is not binary");
        }
        let mut after = *rest;
        let Some(message) = wire::take_message(&mut after) else {
            return Ok(None);
        };
        *rest = after;
        match wire::push(message) {
            Some(push) => Ok(Some(Heard::Push(Push {
                room: RoomRef::Number(push.room),
                seq: Some(push.seq),
                payload: push.payload,
            }))),
            None => told(message).map(Some),
        }
    }
}

/// Anything but a push.
#[cold]
fn told(message: &[u8]) -> Result<Heard<'static>, &'static str> {
    use proto::reply::Outcome;
    use proto::server_frame::Message;
    let frame = proto::ServerFrame::decode(message).map_err(|_| "a message that does not decode")?;
    Ok(match frame.message {
        Some(Message::Reply(reply)) => match reply.outcome {
            Some(Outcome::Error(error)) => Heard::Refused(format!("{} ({})", error.message, error.name)),
            Some(Outcome::Welcome(_)) => Heard::Answer,
            Some(Outcome::Subscribed(subscribed)) => Heard::Positions(subscribed.rooms),
            Some(Outcome::Pong(_)) => Heard::Pong,
            _ => Heard::Nothing,
        },
        Some(Message::Goaway(goaway)) => {
            let error = goaway.error.unwrap_or_default();
            Heard::Ended(format!("goaway: {} ({})", error.message, error.name))
        }
        Some(Message::Gap(gap)) => Heard::Skip {
            room: gap.room,
            seq: gap.to,
            lost: gap.to.saturating_sub(gap.from).saturating_add(1),
        },
        Some(Message::Advance(advance)) => Heard::Skip {
            room: advance.room,
            seq: advance.seq,
            lost: 0,
        },
        Some(Message::Ended(ended)) => {
            let error = ended.error.unwrap_or_default();
            Heard::Note(format!("subscription ended: {} ({})", error.message, error.name))
        }
        _ => Heard::Nothing,
    })
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    if cue != Cue::Upgraded {
        return Words::default();
    }
    let hello = proto::Hello {
        version: cauce_protocol::VERSION,
        features: (proto::Feature::Advance as u64) | (proto::Feature::Gap as u64),
        token: speaker.token.to_owned(),
        client: "loadtest".into(),
        previous: Vec::new(),
    };
    let mut words = Words {
        bytes: wire::request(1, proto::client_frame::Request::Hello(hello)),
        awaited: 1,
    };
    if !speaker.rooms.is_empty() {
        let subscriptions = speaker.rooms.iter().map(|room| proto::Subscription {
            room: room.name.to_owned(),
            epoch: room.epoch,
            seq: room.seq,
            ..proto::Subscription::default()
        });
        let subscribe = proto::Subscribe {
            subscriptions: subscriptions.collect(),
            ..proto::Subscribe::default()
        };
        words.bytes.extend(wire::request(
            2,
            proto::client_frame::Request::Subscribe(subscribe),
        ));
        words.awaited += 1;
    }
    words
}
