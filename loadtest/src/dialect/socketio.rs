//! Socket.IO 4: its protocol 5 over Engine.IO 4, in the main namespace, over WebSocket from the first byte.
//!
//! What the server must do: on the event `join` with a room, join it and call the acknowledgement; on the event `message`
//! with a room and a payload, emit `message` with both to that room. The payload is a JSON value; bytes would be a second
//! WebSocket message for each first, which servers of this protocol rarely see and this reader does not read.

use super::{Cue, Heard, Kind, Push, RoomRef, Speaker, Speech, Words, until};
use crate::stamp::Form;
use crate::wire::Template;

/// Engine.IO message, Socket.IO event, our event's name and the room's opening quote.
const EVENT: &[u8] = br#"42["message",""#;
/// Engine.IO pong, masked with zeros.
const PONG: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'3'];

#[derive(Debug)]
pub(crate) struct SocketIo;

impl Speech for SocketIo {
    #[inline]
    fn next<'a>(kind: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        let packet = std::mem::take(rest);
        if kind == Kind::Binary {
            return Ok(Some(Heard::Nothing));
        }
        match push(packet) {
            Some(push) => Ok(Some(Heard::Push(push))),
            None => other(packet).map(Some),
        }
    }
}

#[inline]
fn push(packet: &[u8]) -> Option<Push<'_>> {
    let (room, rest) = until(packet.strip_prefix(EVENT)?, b'"')?;
    let payload = rest.strip_prefix(b",")?.strip_suffix(b"]")?;
    Some(Push {
        room: RoomRef::Name(room),
        seq: None,
        payload,
    })
}

#[cold]
fn other(packet: &[u8]) -> Result<Heard<'static>, &'static str> {
    let words = |from: usize| {
        let text = packet.get(from..).unwrap_or_default();
        String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned()
    };
    Ok(match packet {
        [b'0', ..] => Heard::Cue(Cue::Opened),
        [b'1', ..] => Heard::Ended("the server closed the connection".to_owned()),
        [b'2', ..] => Heard::Echo(PONG),
        [b'4', b'0', ..] => Heard::Cue(Cue::Accepted),
        [b'4', b'1', ..] => Heard::Ended("the server disconnected us from its namespace".to_owned()),
        [b'4', b'3', ..] => Heard::Answer,
        [b'4', b'4', ..] => Heard::Refused(words(2)),
        [b'3' | b'5' | b'6', ..] | [b'4', b'2' | b'5' | b'6', ..] => Heard::Nothing,
        _ => return Err("a packet that Engine.IO 4 does not know"),
    })
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    let mut words = Words::default();
    match cue {
        // The server speaks first.
        Cue::Upgraded => words.awaited = 1,
        Cue::Opened => {
            let mut connect = "40".to_owned();
            if !speaker.token.is_empty() {
                connect += &serde_json::json!({ "token": speaker.token }).to_string();
            }
            words.bytes = Kind::Text.frame(connect.as_bytes());
            words.awaited = 1;
        }
        Cue::Accepted => {
            for (id, room) in speaker.rooms.iter().enumerate() {
                Kind::Text.put(
                    &mut words.bytes,
                    format!(r#"42{id}["join","{}"]"#, room.name).as_bytes(),
                );
                words.awaited += 1;
            }
        }
    }
    words
}

pub(super) fn template(room: &str, form: Form, payload_bytes: usize) -> Template {
    let head = [EVENT, room.as_bytes(), b"\","].concat();
    Kind::Text.template(&head, form, payload_bytes, b"]")
}
