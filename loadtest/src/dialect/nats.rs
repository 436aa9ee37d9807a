//! NATS over WebSocket: lines of text, of which MSG and PUB have a payload behind them. WebSocket messages cut this stream
//! anywhere.
//!
//! A subscription's number is the place of its room among the connection's rooms, from 1; it comes back in every message.

use super::{Cue, Heard, Kind, Push, RoomRef, SAID_BYTES_MAX, Speaker, Speech, Words};
use crate::stamp::Form;
use crate::wire::Template;

/// Longest line, in bytes; the longest of a server is its INFO, which may name the addresses of a cluster.
const LINE_BYTES_MAX: usize = 32 * 1024;
/// PONG in a masked frame.
const PONG: &[u8] = &[0x82, 0x86, 0, 0, 0, 0, b'P', b'O', b'N', b'G', b'\r', b'\n'];

#[derive(Debug)]
pub(crate) struct Nats;

impl Speech for Nats {
    const STREAM: bool = true;

    #[inline]
    fn next<'a>(_: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() > LINE_BYTES_MAX {
                Err("a line that does not end")
            } else {
                Ok(None)
            };
        };
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let after = &rest[end + 1..];
        if let Some(arguments) = line.strip_prefix(b"MSG ") {
            let (sid, len) = message(arguments).ok_or("a MSG that does not parse")?;
            if len > SAID_BYTES_MAX {
                return Err("a message longer than this generator reads");
            }
            // Behind the payload comes the end of a line.
            let Some((payload, after)) = after.split_at_checked(len) else {
                return Ok(None);
            };
            let Some((end, after)) = after.split_first_chunk::<2>() else {
                return Ok(None);
            };
            if end != b"\r\n" {
                return Err("a payload that is longer than its MSG says");
            }
            *rest = after;
            return Ok(Some(Heard::Push(Push {
                room: RoomRef::Number(sid),
                seq: None,
                payload,
            })));
        }
        *rest = after;
        other(line).map(Some)
    }
}

/// The subscription and the payload's length: the second and the last of three or four words.
#[inline]
fn message(arguments: &[u8]) -> Option<(u64, usize)> {
    let mut words = arguments
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    let (_subject, sid, third) = (words.next()?, words.next()?, words.next()?);
    let len = words.next().unwrap_or(third);
    if words.next().is_some() {
        return None;
    }
    Some((number(sid)?, usize::try_from(number(len)?).ok()?))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cold]
fn other(line: &[u8]) -> Result<Heard<'static>, &'static str> {
    Ok(match line {
        b"PING" => Heard::Echo(PONG),
        b"PONG" => Heard::Answer,
        b"+OK" | b"" => Heard::Nothing,
        _ if line.starts_with(b"INFO ") => Heard::Cue(Cue::Opened),
        _ if line.starts_with(b"-ERR") => {
            let words = &line[4..];
            Heard::Refused(
                String::from_utf8_lossy(&words[..words.len().min(200)])
                    .trim()
                    .to_owned(),
            )
        }
        _ => return Err("a line that is not of the NATS protocol"),
    })
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    match cue {
        // The server speaks first.
        Cue::Upgraded => Words {
            bytes: Vec::new(),
            awaited: 1,
        },
        Cue::Opened => {
            let mut options = serde_json::json!({
                "verbose": false, "pedantic": false, "echo": true, "headers": false, "protocol": 1,
                "name": "loadtest", "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
            });
            if !speaker.token.is_empty() {
                options["auth_token"] = speaker.token.into();
            }
            let mut lines = format!("CONNECT {options}\r\n");
            for (place, room) in speaker.rooms.iter().enumerate() {
                lines += &format!("SUB {} {}\r\n", room.name, place + 1);
            }
            // Its answer comes when all before it has been read.
            lines += "PING\r\n";
            Words {
                bytes: Kind::Binary.frame(lines.as_bytes()),
                awaited: 1,
            }
        }
        Cue::Accepted => Words::default(),
    }
}

pub(super) fn template(room: &str, form: Form, payload_bytes: usize) -> Template {
    let head = format!("PUB {room} {}\r\n", payload_bytes.max(form.bytes_min()));
    Kind::Binary.template(head.as_bytes(), form, payload_bytes, b"\r\n")
}
