//! What the broker says, as JSON.

use std::borrow::Cow;

use base64::Engine as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{BASE64, at, from_base64, is_zero, to_string, value};
use crate::frame::DecodeError;
use crate::payload::Payload;
use crate::server;
use crate::wire;
use crate::wire::reply::Outcome;
use crate::wire::server_frame::Message;

/// A frame as it is read: of the messages, the first that is there counts.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    push: Option<Push<'a>>,
    reply: Option<Reply>,
    #[serde(borrow)]
    direct: Option<Direct<'a>>,
    advance: Option<wire::Advance>,
    goaway: Option<wire::Goaway>,
    gap: Option<wire::Gap>,
    ended: Option<wire::Ended>,
    presence_change: Option<wire::PresenceChange>,
    invoke: Option<wire::Invoke>,
    revoke: Option<wire::Revoke>,
    notification: Option<wire::Notification>,
    notifications_read: Option<wire::NotificationsRead>,
    state: Option<wire::State>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Push<'a> {
    room: u64,
    seq: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "is_zero")]
    key: Cow<'a, str>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Direct<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct HistoryEntry<'a> {
    seq: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "is_zero")]
    key: Cow<'a, str>,
    unix_ms: u64,
    #[serde(borrow, skip_serializing_if = "is_zero")]
    user: Cow<'a, str>,
}

/// A reply as it is read: of the outcomes, the first that is there counts.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: u32,
    error: Option<wire::Error>,
    welcome: Option<wire::Welcome>,
    subscribed: Option<wire::Subscribed>,
    unsubscribed: Option<wire::Unsubscribed>,
    published: Option<wire::Published>,
    sent: Option<wire::Sent>,
    answer: Option<wire::Answer>,
    pong: Option<wire::Pong>,
    refreshed: Option<wire::Refreshed>,
    history_page: Option<wire::HistoryPage>,
    presence_page: Option<wire::PresencePage>,
    done: Option<wire::Done>,
    notified: Option<wire::Notified>,
    notification_page: Option<wire::NotificationPage>,
    notifications_read: Option<wire::NotificationsRead>,
}

/// # Errors
/// If it is not JSON of this form.
pub fn decode_server(text: &[u8]) -> Result<wire::ServerFrame, DecodeError> {
    let frame: Frame<'_> = serde_json::from_slice(text).map_err(|e| at(&e))?;
    let messages = [
        frame.push.map(Push::read).transpose()?,
        frame.direct.map(Direct::read).transpose()?,
        frame.reply.map(Reply::read),
        frame.advance.map(Message::Advance),
        frame.goaway.map(Message::Goaway),
        frame.gap.map(Message::Gap),
        frame.ended.map(Message::Ended),
        frame.presence_change.map(Message::PresenceChange),
        frame.invoke.map(Message::Invoke),
        frame.revoke.map(Message::Revoke),
        frame.notification.map(Message::Notification),
        frame.notifications_read.map(Message::NotificationsRead),
        frame.state.map(Message::State),
    ];
    let message = messages.into_iter().flatten().next();
    Ok(wire::ServerFrame { message })
}

impl Reply {
    fn read(self) -> Message {
        let outcomes = [
            self.error.map(Outcome::Error),
            self.welcome.map(Outcome::Welcome),
            self.subscribed.map(Outcome::Subscribed),
            self.unsubscribed.map(Outcome::Unsubscribed),
            self.published.map(Outcome::Published),
            self.sent.map(Outcome::Sent),
            self.answer.map(Outcome::Answer),
            self.pong.map(Outcome::Pong),
            self.refreshed.map(Outcome::Refreshed),
            self.history_page.map(Outcome::HistoryPage),
            self.presence_page.map(Outcome::PresencePage),
            self.done.map(Outcome::Done),
            self.notified.map(Outcome::Notified),
            self.notification_page.map(Outcome::NotificationPage),
            self.notifications_read.map(Outcome::NotificationsRead),
        ];
        let (id, outcome) = (self.id, outcomes.into_iter().flatten().next());
        Message::Reply(wire::Reply { id, outcome })
    }
}

impl<'a> Push<'a> {
    fn read(self) -> Result<Message, DecodeError> {
        Ok(Message::Push(wire::Push {
            room: self.room,
            seq: self.seq,
            payload: payload_from!(self, wire::push::Payload),
            event: self.event.into_owned(),
            key: self.key.into_owned(),
        }))
    }

    fn of(push: &'a wire::Push) -> Self {
        let mut twin = Self {
            room: push.room,
            seq: push.seq,
            event: Cow::Borrowed(&push.event),
            key: Cow::Borrowed(&push.key),
            ..Self::default()
        };
        payload_into!(&push.payload, wire::push::Payload, twin);
        twin
    }
}

impl<'a> Direct<'a> {
    fn read(self) -> Result<Message, DecodeError> {
        Ok(Message::Direct(wire::Direct {
            payload: payload_from!(self, wire::direct::Payload),
            event: self.event.into_owned(),
        }))
    }

    fn of(direct: &'a wire::Direct) -> Self {
        let mut twin = Self {
            event: Cow::Borrowed(&direct.event),
            ..Self::default()
        };
        payload_into!(&direct.payload, wire::direct::Payload, twin);
        twin
    }
}

impl<'a> HistoryEntry<'a> {
    fn read(self) -> Result<wire::HistoryEntry, DecodeError> {
        Ok(wire::HistoryEntry {
            seq: self.seq,
            payload: payload_from!(self, wire::history_entry::Payload),
            event: self.event.into_owned(),
            key: self.key.into_owned(),
            unix_ms: self.unix_ms,
            user: self.user.into_owned(),
        })
    }

    fn of(entry: &'a wire::HistoryEntry) -> Self {
        let mut twin = Self {
            seq: entry.seq,
            event: Cow::Borrowed(&entry.event),
            key: Cow::Borrowed(&entry.key),
            unix_ms: entry.unix_ms,
            user: Cow::Borrowed(&entry.user),
            ..Self::default()
        };
        payload_into!(&entry.payload, wire::history_entry::Payload, twin);
        twin
    }
}

// Entries stand in a list of a message that is simply its fields, so the generated type itself reads and writes them.

impl Serialize for wire::HistoryEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HistoryEntry::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for wire::HistoryEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = HistoryEntry::deserialize(deserializer)?;
        entry.read().map_err(serde::de::Error::custom)
    }
}

/// Writes a broker's frame as JSON.
pub fn encode_server(frame: &wire::ServerFrame) -> String {
    to_string(&WrittenFrame(frame))
}

struct WrittenFrame<'a>(&'a wire::ServerFrame);

impl Serialize for WrittenFrame<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.message {
            None => {}
            Some(Message::Push(push)) => map.serialize_entry("push", &Push::of(push))?,
            Some(Message::Reply(reply)) => map.serialize_entry("reply", &WrittenReply(reply))?,
            Some(Message::Direct(direct)) => map.serialize_entry("direct", &Direct::of(direct))?,
            Some(Message::Advance(advance)) => map.serialize_entry("advance", advance)?,
            Some(Message::Goaway(goaway)) => map.serialize_entry("goaway", goaway)?,
            Some(Message::Gap(gap)) => map.serialize_entry("gap", gap)?,
            Some(Message::Ended(ended)) => map.serialize_entry("ended", ended)?,
            Some(Message::PresenceChange(change)) => map.serialize_entry("presence_change", change)?,
            Some(Message::Invoke(invoke)) => map.serialize_entry("invoke", invoke)?,
            Some(Message::Revoke(revoke)) => map.serialize_entry("revoke", revoke)?,
            Some(Message::Notification(notification)) => map.serialize_entry("notification", notification)?,
            Some(Message::NotificationsRead(read)) => map.serialize_entry("notifications_read", read)?,
            Some(Message::State(state)) => map.serialize_entry("state", state)?,
        }
        map.end()
    }
}

struct WrittenReply<'a>(&'a wire::Reply);

impl Serialize for WrittenReply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.0.id)?;
        match &self.0.outcome {
            None => {}
            Some(Outcome::Error(error)) => map.serialize_entry("error", error)?,
            Some(Outcome::Welcome(welcome)) => map.serialize_entry("welcome", welcome)?,
            Some(Outcome::Subscribed(subscribed)) => map.serialize_entry("subscribed", subscribed)?,
            Some(Outcome::Unsubscribed(unsubscribed)) => map.serialize_entry("unsubscribed", unsubscribed)?,
            Some(Outcome::Published(published)) => map.serialize_entry("published", published)?,
            Some(Outcome::Sent(sent)) => map.serialize_entry("sent", sent)?,
            Some(Outcome::Answer(answer)) => map.serialize_entry("answer", answer)?,
            Some(Outcome::Pong(pong)) => map.serialize_entry("pong", pong)?,
            Some(Outcome::Refreshed(refreshed)) => map.serialize_entry("refreshed", refreshed)?,
            Some(Outcome::HistoryPage(page)) => map.serialize_entry("history_page", page)?,
            Some(Outcome::PresencePage(page)) => map.serialize_entry("presence_page", page)?,
            Some(Outcome::Done(done)) => map.serialize_entry("done", done)?,
            Some(Outcome::Notified(notified)) => map.serialize_entry("notified", notified)?,
            Some(Outcome::NotificationPage(page)) => map.serialize_entry("notification_page", page)?,
            Some(Outcome::NotificationsRead(read)) => map.serialize_entry("notifications_read", read)?,
        }
        map.end()
    }
}

/// A push, written once for all JSON subscribers. The payload has been checked, so its bytes are copied, not parsed again.
pub(crate) fn push(push: &server::Push<'_>) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(64 + push.event.len() + push.key.len() + push.payload.len() * 4 / 3);
    // Writing into a `String` cannot fail.
    let _ = write!(out, "{{\"push\":{{\"room\":{},\"seq\":{},", push.room, push.seq);
    put_event_and_payload(&mut out, push.event, push.payload);
    if !push.key.is_empty() {
        out.push_str(",\"key\":");
        out.push_str(&to_string(push.key));
    }
    out.push_str("}}");
    out
}

/// A direct message, in the same manner.
pub(crate) fn direct(direct: &server::Direct<'_>) -> String {
    let mut out = String::with_capacity(40 + direct.event.len() + direct.payload.len() * 4 / 3);
    out.push_str("{\"direct\":{");
    put_event_and_payload(&mut out, direct.event, direct.payload);
    out.push_str("}}");
    out
}

fn put_event_and_payload(out: &mut String, event: &str, payload: &Payload) {
    out.push_str("\"event\":");
    out.push_str(&to_string(event));
    match payload {
        Payload::Json(json) => {
            out.push_str(",\"json\":");
            out.push_str(std::str::from_utf8(json).unwrap_or("null"));
        }
        Payload::Text(text) => {
            out.push_str(",\"text\":");
            out.push_str(&to_string(std::str::from_utf8(text).unwrap_or_default()));
        }
        Payload::Binary(binary) => {
            out.push_str(",\"binary\":\"");
            BASE64.encode_string(binary, out);
            out.push('"');
        }
    }
}
