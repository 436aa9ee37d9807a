//! Requests as they are put together: a value to add to, then to await. Nothing is sent before it is awaited. Dropping the
//! future afterwards gives up the answer; what was sent may be carried out.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use cauce_protocol::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use cauce_protocol::{ConnectionId, Epoch, Payload, Seq};

pub(crate) use cauce_protocol::wire::send::To as Recipient;

use crate::client::{Handle, unexpected};
use crate::connection::{Delivery, Submission};
use crate::error::{Error, ErrorKind};

type Answered<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + std::marker::Send + 'a>>;

/// The broker's word that a message has its place in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    pub epoch: Epoch,
    pub seq: Seq,
    /// Subscribers at that moment, if asked for.
    pub receivers: Option<u32>,
    /// The idempotency key had been seen: this is the first answer again.
    pub repeated: bool,
    /// The message is on the broker's disk.
    pub durable: bool,
}

/// When the broker acknowledges a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckLevel {
    /// [`AckLevel::Durable`] in durable rooms, [`AckLevel::Memory`] elsewhere.
    #[default]
    Room,
    /// Once the message has its number.
    Memory,
    /// Once it is committed and synced to the disk.
    Durable,
}

/// From [`crate::Client::publish`]. Await it for the [`Ack`].
#[must_use = "nothing is published before it is awaited"]
pub struct Publish<'a> {
    handle: &'a Handle,
    publish: wire::Publish,
    payload: Payload,
    key: Key,
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Automatic,
    Given,
    None,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(handle: &'a Handle, room: &str, event: &str, payload: Payload) -> Self {
        Self {
            handle,
            publish: wire::Publish {
                room: room.to_owned(),
                event: event.to_owned(),
                ..wire::Publish::default()
            },
            payload,
            key: Key::Automatic,
        }
    }

    /// A repeat with the same key by the same user in the same room is answered like the first and not sent again. At most
    /// 128 bytes.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.publish.idempotency_key = key.into();
        self.key = Key::Given;
        self
    }

    /// No key, not even an automatic one: if the connection is lost before the answer, this fails with
    /// [`ErrorKind::ConnectionLost`] rather than being sent again.
    pub fn without_idempotency_key(mut self) -> Self {
        self.publish.idempotency_key.clear();
        self.key = Key::None;
        self
    }

    /// What the message is about within its event, as an order's number: for [`crate::Policy::Latest`],
    /// [`crate::Policy::Sample`] and filters. At most 100 bytes.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.publish.key = key.into();
        self
    }

    /// When to acknowledge. Default [`AckLevel::Room`].
    pub fn ack(mut self, level: AckLevel) -> Self {
        let level = match level {
            AckLevel::Room => wire::Ack::Default,
            AckLevel::Memory => wire::Ack::Memory,
            AckLevel::Durable => wire::Ack::Durable,
        };
        self.publish.ack = level.into();
        self
    }

    /// Not to this connection, though it be subscribed; nor to the one that takes its place after a lost connection.
    pub fn exclude_self(mut self) -> Self {
        self.publish.exclude_sender = true;
        self
    }

    /// Nor to these. At most 64.
    pub fn exclude(mut self, connections: impl IntoIterator<Item = ConnectionId>) -> Self {
        self.publish.exclude.extend(connections.into_iter().map(|c| c.0));
        self
    }

    /// Count the subscribers for [`Ack::receivers`].
    pub fn want_receivers(mut self) -> Self {
        self.publish.want_receivers = true;
        self
    }

    fn finished(mut self) -> Result<(&'a Handle, wire::Publish), Error> {
        use wire::publish::Payload as P;
        self.publish.payload = Some(match checked(self.payload, self.handle.dialect)? {
            Checked::Json(json) => P::Json(json),
            Checked::Text(text) => P::Text(text),
            Checked::Binary(binary) => P::Binary(binary),
        });
        Ok((self.handle, self.publish))
    }

    async fn acknowledged(mut self) -> Result<Ack, Error> {
        if self.key == Key::Automatic
            && let Some(key) = self.handle.automatic_key()
        {
            self.publish.idempotency_key = key;
        }
        let (handle, publish) = self.finished()?;
        let want_receivers = publish.want_receivers;
        let delivery = match publish.idempotency_key.is_empty() {
            true => Delivery::Once,
            false => Delivery::Repeat,
        };
        let timeout = handle.request_timeout;
        match handle
            .request(Request::Publish(publish), delivery, timeout)
            .await?
        {
            Outcome::Published(published) => Ok(Ack {
                epoch: Epoch(published.epoch),
                seq: Seq(published.seq),
                receivers: want_receivers.then_some(published.receivers),
                repeated: published.repeated,
                durable: published.durable,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Without asking for an answer: at most once, and a refusal is only seen in the log. See
    /// [`crate::Client::publish_unacknowledged`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] or [`ErrorKind::Closed`].
    pub async fn unacknowledged(self) -> Result<(), Error> {
        let (handle, publish) = self.finished()?;
        handle
            .submit(Submission {
                request: Request::Publish(publish),
                answer: None,
                timeout: handle.request_timeout,
                delivery: Delivery::Once,
                ticket: None,
            })
            .await
    }
}

impl<'a> IntoFuture for Publish<'a> {
    type Output = Result<Ack, Error>;
    type IntoFuture = Answered<'a, Ack>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acknowledged())
    }
}

/// From the `send_to_` methods of [`crate::Client`]. Await it for the broker's word that it was sent.
#[must_use = "nothing is sent before it is awaited"]
pub struct Send<'a> {
    handle: &'a Handle,
    send: wire::Send,
    payload: Payload,
}

impl<'a> Send<'a> {
    pub(crate) fn new(handle: &'a Handle, to: Recipient, event: &str, payload: Payload) -> Self {
        Self {
            handle,
            send: wire::Send {
                to: Some(to),
                event: event.to_owned(),
                ..wire::Send::default()
            },
            payload,
        }
    }

    /// Not to this connection, though it be among the recipients.
    pub fn exclude_self(mut self) -> Self {
        self.send.exclude_sender = true;
        self
    }

    /// Nor to these. At most 64.
    pub fn exclude(mut self, connections: impl IntoIterator<Item = ConnectionId>) -> Self {
        self.send.exclude.extend(connections.into_iter().map(|c| c.0));
        self
    }

    async fn sent(mut self) -> Result<(), Error> {
        use wire::send::Payload as P;
        self.send.payload = Some(match checked(self.payload, self.handle.dialect)? {
            Checked::Json(json) => P::Json(json),
            Checked::Text(text) => P::Text(text),
            Checked::Binary(binary) => P::Binary(binary),
        });
        let timeout = self.handle.request_timeout;
        let request = Request::Send(self.send);
        match self.handle.request(request, Delivery::Once, timeout).await? {
            Outcome::Sent(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

impl<'a> IntoFuture for Send<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Answered<'a, ()>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.sent())
    }
}

/// A payload as the schema wants it.
enum Checked {
    Json(bytes::Bytes),
    Text(String),
    Binary(bytes::Bytes),
}

/// The broker checks what a payload holds. In JSON it lies inside our own text, so there it must be right before.
fn checked(payload: Payload, dialect: Dialect) -> Result<Checked, Error> {
    if dialect == Dialect::Json {
        payload.check(PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX)?;
    }
    match payload {
        Payload::Json(json) => Ok(Checked::Json(json)),
        Payload::Text(text) => match String::from_utf8(text.into()) {
            Ok(text) => Ok(Checked::Text(text)),
            Err(error) => Err(Error::with_source(
                ErrorKind::Invalid,
                "the text is not UTF-8",
                error,
            )),
        },
        Payload::Binary(binary) => Ok(Checked::Binary(binary)),
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("room", &self.publish.room)
            .field("event", &self.publish.event)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Send<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("to", &self.send.to)
            .field("event", &self.send.event)
            .finish_non_exhaustive()
    }
}
