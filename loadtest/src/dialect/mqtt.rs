//! MQTT 3.1.1 over WebSocket, at most once (QoS 0). WebSocket messages cut the stream of packets anywhere.
//!
//! Connect and subscribe go out in one breath, which the standard allows. The keep-alive is 0: the server waits for as long
//! as the run lasts, and is not pinged.

use super::{Cue, Heard, Kind, Push, RoomRef, SAID_BYTES_MAX, Speaker, Speech, Words};
use crate::stamp::Form;
use crate::wire::Template;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
/// With the flags that the standard wants.
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;

const CLEAN_SESSION: u8 = 0x02;
const WITH_USER_AND_PASSWORD: u8 = 0xc0;
/// From here on, a code of a SUBACK is a refusal.
const FAILURE: u8 = 0x80;
/// Bytes of a packet's length at most.
const LENGTH_BYTES_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Mqtt;

impl Speech for Mqtt {
    const STREAM: bool = true;

    #[inline]
    fn next<'a>(_: Kind, rest: &mut &'a [u8]) -> Result<Option<Heard<'a>>, &'static str> {
        let Some((&head, after)) = rest.split_first() else {
            return Ok(None);
        };
        let Some((len, after)) = length(after)? else {
            return Ok(None);
        };
        if len > SAID_BYTES_MAX {
            return Err("a packet longer than this generator reads");
        }
        let Some((body, after)) = after.split_at_checked(len) else {
            return Ok(None);
        };
        *rest = after;
        match head >> 4 {
            PUBLISH => publication(head, body)
                .map(|push| Some(Heard::Push(push)))
                .ok_or("a PUBLISH that ends in the middle"),
            kind => other(kind, body).map(Some),
        }
    }
}

/// A packet's length, and what is behind it; None while it is incomplete.
#[inline]
fn length(input: &[u8]) -> Result<Option<(usize, &[u8])>, &'static str> {
    let mut value = 0;
    for (at, byte) in input.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &input[at + 1..])));
        }
    }
    if input.len() < LENGTH_BYTES_MAX {
        return Ok(None);
    }
    Err("a packet's length of more than four bytes")
}

#[inline]
fn publication(head: u8, body: &[u8]) -> Option<Push<'_>> {
    let (len, rest) = body.split_first_chunk::<2>()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    // Behind the topic of a message that is to be acknowledged comes its number.
    let payload = if head & 0x06 == 0 { rest } else { rest.get(2..)? };
    Some(Push {
        room: RoomRef::Name(topic),
        seq: None,
        payload,
    })
}

#[cold]
fn other(kind: u8, body: &[u8]) -> Result<Heard<'static>, &'static str> {
    Ok(match (kind, body) {
        (CONNACK, [_, 0]) => Heard::Answer,
        (CONNACK, [_, code]) => Heard::Refused(format!("{} (CONNACK {code})", refusal(*code))),
        (SUBACK, [_, _, codes @ ..]) => match codes.iter().find(|code| **code >= FAILURE) {
            None => Heard::Answer,
            Some(code) => Heard::Refused(format!("a subscription (SUBACK {code:#x})")),
        },
        (CONNACK | SUBACK, _) => return Err("an answer that ends in the middle"),
        (PINGRESP, _) => Heard::Pong,
        (0 | 15, _) => return Err("a packet that MQTT 3.1.1 does not know"),
        _ => Heard::Nothing,
    })
}

fn refusal(code: u8) -> &'static str {
    match code {
        1 => "the server does not speak MQTT 3.1.1",
        2 => "it does not like the client's name",
        3 => "it is not available",
        4 => "bad user or password",
        5 => "not authorised",
        _ => "refused",
    }
}

pub(super) fn words(cue: Cue, speaker: &Speaker<'_>) -> Words {
    if cue != Cue::Upgraded {
        return Words::default();
    }
    let mut connect = Vec::new();
    put_text(&mut connect, "MQTT");
    let authenticated = if speaker.token.is_empty() {
        0
    } else {
        WITH_USER_AND_PASSWORD
    };
    // Level 4 is 3.1.1; the last two are the keep-alive.
    connect.extend([4, CLEAN_SESSION | authenticated, 0, 0]);
    put_text(&mut connect, &format!("{}-{:x}", speaker.run, speaker.seat));
    if authenticated != 0 {
        put_text(&mut connect, &format!("loadtest-{}", speaker.seat));
        put_text(&mut connect, speaker.token);
    }
    let mut words = Words {
        bytes: Kind::Binary.frame(&packet(CONNECT, &connect)),
        awaited: 1,
    };
    if !speaker.rooms.is_empty() {
        let mut subscribe = vec![0, 1];
        for room in speaker.rooms {
            put_text(&mut subscribe, room.name);
            subscribe.push(0);
        }
        Kind::Binary.put(&mut words.bytes, &packet(SUBSCRIBE, &subscribe));
        words.awaited += 1;
    }
    words
}

pub(super) fn template(room: &str, form: Form, payload_bytes: usize) -> Template {
    let mut topic = Vec::new();
    put_text(&mut topic, room);
    let mut head = vec![PUBLISH << 4];
    put_length(&mut head, topic.len() + payload_bytes.max(form.bytes_min()));
    head.extend(topic);
    Kind::Binary.template(&head, form, payload_bytes, b"")
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    put_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn put_length(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Text with its length before it; what is too long is cut, which only a token of 64 KiB can be.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(len.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
}
