//! Requests as they are put together: a value to add to, then to await. Nothing is sent before it is awaited. Dropping the
//! future afterwards gives up the answer; what was sent may be carried out.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use cauce_protocol::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use cauce_protocol::{ConnectionId, Epoch, Payload, Seq};

pub(crate) use cauce_protocol::wire::send::To as Recipient;

use crate::client::{Handle, unexpected};
use crate::connection::{Delivery, Submission};
use crate::error::{Error, ErrorKind};
use crate::options::TIME_MAX;

/// How much longer we wait than the broker was told to, so that its own answer about the time arrives.
const CALL_MARGIN: Duration = Duration::from_secs(2);

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

    /// Not to this connection, though it be subscribed.
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

/// From [`crate::Client::call_device`]. Await it for the device's answer.
#[must_use = "nothing is called before it is awaited"]
pub struct Call<'a> {
    handle: &'a Handle,
    device: String,
    method: String,
    params: serde_json::Value,
    timeout: Duration,
}

impl<'a> Call<'a> {
    pub(crate) fn new(handle: &'a Handle, device: &str, method: &str, params: serde_json::Value) -> Self {
        Self {
            handle,
            device: device.to_owned(),
            method: method.to_owned(),
            params,
            timeout: handle.request_timeout,
        }
    }

    /// How long the device may take. Default: the time for a request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIME_MAX);
        self
    }

    async fn answered(self) -> Result<serde_json::Value, Error> {
        let params = match self.params {
            serde_json::Value::Null => Vec::new(),
            object @ serde_json::Value::Object(_) => serde_json::to_vec(&object)?,
            _ => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "params of a call must be an object, or null",
                ));
            }
        };
        let request = Request::Call(wire::Call {
            device: self.device,
            method: self.method,
            params: params.into(),
            timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
            retry: false,
        });
        let timeout = self.timeout.saturating_add(CALL_MARGIN);
        match self.handle.request(request, Delivery::Once, timeout).await? {
            Outcome::Answer(answer) if answer.json.is_empty() => Ok(serde_json::Value::Null),
            Outcome::Answer(answer) => serde_json::from_slice(&answer.json).map_err(|e| {
                Error::with_source(
                    ErrorKind::Protocol,
                    format!("the device's answer is not JSON: {e}"),
                    e,
                )
            }),
            other => Err(unexpected(&other)),
        }
    }
}

impl<'a> IntoFuture for Call<'a> {
    type Output = Result<serde_json::Value, Error>;
    type IntoFuture = Answered<'a, serde_json::Value>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answered())
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

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("device", &self.device)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}
