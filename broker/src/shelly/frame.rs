//! One JSON-RPC text frame of a device, read into its meaning, and the frames that go back.
//!
//! Generous in what it reads: `id`, `dst`, `ts`, `jsonrpc` and `params` may be missing, unknown members are skipped,
//! unknown methods are a variant. Strict in what it builds: method and parameters are checked before they are sent,
//! because they come from clients.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use super::error::{DeviceError, cut};
use super::identity::{Identity, IdentityError};
use super::scan::{self, FrameError};
use super::status::Object;

/// The `src` of every request we send. A device answers to it, and needs it to be there at all.
pub const CALLER: &str = "cauce";

/// Most events taken from one frame; the rest is counted. Real frames carry one or two.
pub const EVENTS_MAX: usize = 64;

/// Longest `params` of a request, in bytes. Devices of firmware 1.6 and later refuse more than a few kB themselves.
pub const PARAMS_BYTES_MAX: usize = 16 * 1024;

/// Longest `id` of a device's own call that is echoed, in bytes of JSON.
const ID_BYTES_MAX: usize = 128;

/// Longest method name, ours or the device's, in bytes.
const METHOD_BYTES_MAX: usize = 64;

/// Longest component and event names kept of an event, in bytes.
const EVENT_NAME_BYTES_MAX: usize = 128;

/// A frame and who sent it.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The sender's name as it stands, unchecked; `None` if missing or not a string.
    pub src: Option<Cow<'a, str>>,
    /// What it says.
    pub body: Body<'a>,
    /// Whether non-finite numbers had to be read as null to make JSON of it.
    pub repaired: bool,
}

/// The kinds of frame.
#[derive(Debug)]
pub enum Body<'a> {
    /// The device calls us: method *and* id. Its parameters are not read, whatever the method says.
    Call(Call<'a>),
    /// Method without id.
    Notification(Notification),
    /// An answer to a request of ours.
    Response(Response),
}

/// What a device tells unasked. `ts` is `params.ts` as sent: seconds, since 1970 or since boot.
#[derive(Debug)]
pub enum Notification {
    /// Things that happened.
    Event {
        /// The frame's time.
        ts: Option<f64>,
        /// The events, in the device's order, at most [`EVENTS_MAX`].
        events: Vec<DeviceEvent>,
        /// Slots that were no objects, or too many.
        skipped: u32,
    },
    /// The whole status: replaces everything known.
    FullStatus {
        /// The frame's time.
        ts: Option<f64>,
        /// Component key to component.
        components: Object,
    },
    /// A part of the status: lies over what is known.
    Status {
        /// The frame's time.
        ts: Option<f64>,
        /// Component key to what changed of it.
        components: Object,
    },
    /// A method we do not know, or an object that is no RPC frame.
    Unknown,
}

/// One event of a `NotifyEvent`: whole, with the two members picked out that nearly every reader needs.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceEvent {
    /// `component`, such as `input:0` or `sys`; empty if absent.
    pub component: String,
    /// `event`, such as `double_push` or `sleep`; empty if absent.
    pub event: String,
    /// The whole event, `component` and `event` included.
    pub data: Object,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The id it answers, as one of ours; `None` if it cannot be one. Numbers and digits in a string both count.
    pub id: Option<u64>,
    /// The `result` as JSON, verbatim (`null` is a success), or the device's error.
    pub result: Result<Bytes, DeviceError>,
}

/// A call the device makes to us.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method's name.
    pub method: Cow<'a, str>,
    /// Its id as JSON, for the answer keeps the type; `None` if absurdly long.
    pub id: Option<Box<str>>,
}

impl<'a> Frame<'a> {
    /// Reads one text message.
    ///
    /// # Errors
    /// [`FrameError`] if the text breaks a bound or is no JSON object. Everything else is some [`Body`].
    pub fn parse(text: &'a [u8]) -> Result<Self, FrameError> {
        scan::check(text)?;
        let text = std::str::from_utf8(text).map_err(|_| FrameError::NotJson)?;
        // A derived struct would also take an array, member by member.
        if !text.trim_ascii_start().starts_with('{') {
            let other = serde_json::from_str::<IgnoredAny>(text);
            return Err(other.map_or(FrameError::NotJson, |_| FrameError::NotObject));
        }
        match serde_json::from_str::<Envelope<'_>>(text) {
            Ok(envelope) => Ok(envelope.open(false)),
            Err(_) => {
                let repaired = scan::without_non_finite(text).ok_or(FrameError::NotJson)?;
                let envelope: Envelope<'_> =
                    serde_json::from_str(&repaired).map_err(|_| FrameError::NotJson)?;
                Ok(envelope.open(true).into_owned())
            }
        }
    }

    /// The device that sent it.
    ///
    /// # Errors
    /// [`IdentityError`] if there is no `src`, or none that can be a device's.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::parse(self.src.as_deref().ok_or(IdentityError::Missing)?)
    }

    fn into_owned(self) -> Frame<'static> {
        Frame {
            src: self.src.map(|src| Cow::Owned(src.into_owned())),
            body: match self.body {
                Body::Call(Call { method, id }) => Body::Call(Call {
                    method: Cow::Owned(method.into_owned()),
                    id,
                }),
                Body::Notification(notification) => Body::Notification(notification),
                Body::Response(response) => Body::Response(response),
            },
            repaired: self.repaired,
        }
    }
}

/// The members that matter. All but `params` are taken raw, so that an odd type in one of them never costs the frame.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    src: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(default)]
    params: Value,
    /// `Some` for a null too: `"result":null` is how some methods say that all went well.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Envelope<'a> {
    fn open(self, repaired: bool) -> Frame<'a> {
        let body = match (self.method.and_then(text_of), self.id) {
            (Some(method), Some(id)) => {
                let id = Some(id.get())
                    .filter(|id| id.len() <= ID_BYTES_MAX)
                    .map(Box::from);
                Body::Call(Call { method, id })
            }
            (Some(method), None) => Body::Notification(Notification::read(&method, self.params)),
            (None, id) => {
                let result = match (self.error, self.result) {
                    (Some(error), _) => Some(Err(DeviceError::read(error))),
                    (None, Some(result)) => Some(Ok(Bytes::copy_from_slice(result.get().as_bytes()))),
                    (None, None) => None,
                };
                match result {
                    Some(result) => Body::Response(Response {
                        id: id.and_then(own_id),
                        result,
                    }),
                    None => Body::Notification(Notification::Unknown),
                }
            }
        };
        Frame {
            src: self.src.and_then(text_of),
            body,
            repaired,
        }
    }
}

impl Notification {
    fn read(method: &str, params: Value) -> Self {
        let mut components = match params {
            Value::Object(members) => members,
            _ => Object::new(),
        };
        // Method names are compared without case throughout the protocol.
        if method.eq_ignore_ascii_case("NotifyStatus") {
            Self::Status {
                ts: take_ts(&mut components),
                components,
            }
        } else if method.eq_ignore_ascii_case("NotifyFullStatus") {
            Self::FullStatus {
                ts: take_ts(&mut components),
                components,
            }
        } else if method.eq_ignore_ascii_case("NotifyEvent") {
            let ts = take_ts(&mut components);
            let (events, skipped) = DeviceEvent::read(components.remove("events"));
            Self::Event { ts, events, skipped }
        } else {
            Self::Unknown
        }
    }
}

impl DeviceEvent {
    fn read(slots: Option<Value>) -> (Vec<Self>, u32) {
        let Some(Value::Array(slots)) = slots else {
            return (Vec::new(), 0);
        };
        let total = slots.len();
        let objects = slots.into_iter().filter_map(|slot| match slot {
            Value::Object(data) => Some(data),
            _ => None,
        });
        let events: Vec<Self> = objects.take(EVENTS_MAX).map(Self::of).collect();
        let skipped = u32::try_from(total - events.len()).unwrap_or(u32::MAX);
        (events, skipped)
    }

    fn of(data: Object) -> Self {
        let name = |member: &str| {
            let name = data.get(member).and_then(Value::as_str).unwrap_or_default();
            cut(name.to_owned(), EVENT_NAME_BYTES_MAX)
        };
        Self {
            component: name("component"),
            event: name("event"),
            data,
        }
    }
}

/// Builds a request. `dst` needs no escaping: only an [`Identity`] holds one.
///
/// # Errors
/// [`RequestError`] if the method or the parameters cannot be sent.
pub(super) fn request(
    id: u64,
    to: &Identity,
    method: &str,
    params: Option<&[u8]>,
) -> Result<Bytes, RequestError> {
    let method_fits = (1..=METHOD_BYTES_MAX).contains(&method.len())
        && method
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !method_fits {
        return Err(RequestError::Method);
    }
    let params = params.map(check_params).transpose()?;
    let head = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"src":"{CALLER}","dst":"{}","method":"{method}""#,
        to.src()
    );
    let mut frame = Vec::with_capacity(head.len() + params.map_or(0, |p| p.get().len() + 11) + 1);
    frame.extend_from_slice(head.as_bytes());
    if let Some(params) = params {
        frame.extend_from_slice(br#","params":"#);
        frame.extend_from_slice(params.get().as_bytes());
    }
    frame.push(b'}');
    Ok(frame.into())
}

/// Builds the answer to a device's own call: we serve no methods.
pub(super) fn refusal(id: &str, to: &Identity, method: &str) -> Bytes {
    let method = cut(method.to_owned(), METHOD_BYTES_MAX);
    let error = serde_json::json!({ "code": 404, "message": format!("No handler for {method}") });
    format!(
        r#"{{"id":{id},"src":"{CALLER}","dst":"{}","error":{error}}}"#,
        to.src()
    )
    .into()
}

/// Why a request is not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    Method,
    Params,
    ParamsTooLarge,
}

fn check_params(params: &[u8]) -> Result<&RawValue, RequestError> {
    if params.len() > PARAMS_BYTES_MAX {
        return Err(RequestError::ParamsTooLarge);
    }
    scan::check(params).map_err(|_| RequestError::Params)?;
    let params: &RawValue = serde_json::from_slice(params).map_err(|_| RequestError::Params)?;
    if params.get().starts_with('{') {
        Ok(params)
    } else {
        Err(RequestError::Params)
    }
}

/// Takes `ts` out of the parameters: it stands among the components but is none.
fn take_ts(params: &mut Object) -> Option<f64> {
    params.remove("ts")?.as_f64()
}

/// The text of a JSON string, borrowed unless it has escapes; `None` for other types.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// An answer's id as one of ours. Some peers turn numbers into floats or strings; ours are whole and small.
fn own_id(raw: &RawValue) -> Option<u64> {
    let text = raw.get().trim_matches('"');
    text.parse()
        .ok()
        .or_else(|| text.strip_suffix(".0")?.parse().ok())
}
