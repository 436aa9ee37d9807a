//! A WebSocket server of ten lines, which hands messages on.
//!
//! What it must do: join the sender of the text `{"join":"room"}` to that room; send any other message, unchanged, to all who
//! have joined the message's room. A text message names its room as `{"room":"…","data":…}`, a binary one in its first bytes:
//! the name's length as one byte, then the name. WebSocket pings are answered by every WebSocket library; the answer to the
//! one behind the joins tells that these have been read.

use super::{Cue, Heard, Kind, Push, RoomRef, Speaker, Speech, Words, until};
use crate::stamp::Form;
use crate::wire::{self, Template};

const ROOM: &[u8] = br#"{"room":""#;
const DATA: &[u8] = br#","data":"#;

#[derive(Debug)]
pub(crate) struct Plain;

impl Speech for Plain {
    #[inline]
    fn next<'a>(kind: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        let message = std::mem::take(rest);
        let push = match kind {
            Kind::Text => text(message),
            Kind::Binary => binary(message),
        };
        // Servers may greet, count and chat; only what we sent concerns us.
        Ok(Some(push.map_or(Heard::Nothing, Heard::Push)))
    }
}

fn text(message: &[u8]) -> Option<Push<'_>> {
    let (room, rest) = until(message.strip_prefix(ROOM)?, b'"')?;
    let payload = rest.strip_prefix(DATA)?.strip_suffix(b"}")?;
    Some(push(room, payload))
}

fn binary(message: &[u8]) -> Option<Push<'_>> {
    let (len, rest) = message.split_first()?;
    let (room, payload) = rest.split_at_checked(usize::from(*len))?;
    Some(push(room, payload))
}

fn push<'a>(room: &'a [u8], payload: &'a [u8]) -> Push<'a> {
    Push {
        room: RoomRef::Name(room),
        seq: None,
        payload,
    }
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    let mut words = Words::default();
    if cue == Cue::Upgraded {
        for room in speaker.rooms {
            Kind::Text.put(
                &mut words.bytes,
                format!(r#"{{"join":"{}"}}"#, room.name).as_bytes(),
            );
        }
        wire::put_client_frame(&mut words.bytes, wire::PING, b"");
        words.awaited = 1;
    }
    words
}

pub(super) fn template(room: &str, form: Form, payload_bytes: usize) -> Template {
    match form {
        Form::Binary => {
            // Our names are some forty bytes.
            let len = u8::try_from(room.len()).unwrap_or(u8::MAX);
            let head = [&[len], &room.as_bytes()[..usize::from(len)]].concat();
            Kind::Binary.template(&head, form, payload_bytes, b"")
        }
        Form::Json | Form::Text => {
            let head = [ROOM, room.as_bytes(), b"\"", DATA].concat();
            Kind::Text.template(&head, form, payload_bytes, b"}")
        }
    }
}
