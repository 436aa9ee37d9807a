//! Calls: a request to a device, or to whoever serves the method. Nothing is sent before it is awaited; a call that is given
//! up is cancelled at the broker.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use tokio::sync::oneshot;

use crate::client::{Handle, unexpected};
use crate::connection::{Control, Delivery, Submission, Ticket};
use crate::error::{Error, ErrorKind};
use crate::options::TIME_MAX;

/// How much longer we wait than the broker was told to, so that its own answer about the time arrives.
const CALL_MARGIN: Duration = Duration::from_secs(2);

/// From [`crate::Client::call`] or [`crate::Client::call_device`]. Await it for the answer; dropping the future cancels the
/// call, as far as it is not carried out yet.
#[must_use = "nothing is called before it is awaited"]
pub struct Call<'a> {
    handle: &'a Handle,
    device: String,
    method: String,
    params: serde_json::Value,
    timeout: Duration,
    retry: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(handle: &'a Handle, device: &str, method: &str, params: serde_json::Value) -> Self {
        Self {
            handle,
            device: device.to_owned(),
            method: method.to_owned(),
            params,
            timeout: handle.request_timeout,
            retry: false,
        }
    }

    /// How long the answer may take. Default: the time for a request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIME_MAX);
        self
    }

    /// If the one that was asked is lost before it answers, ask another: the method may then run twice.
    pub fn retry(mut self) -> Self {
        self.retry = true;
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
            retry: self.retry,
        });
        let timeout = self.timeout.saturating_add(CALL_MARGIN);
        let handle = self.handle;
        let (answer, answered) = oneshot::channel();
        let mut patience = Patience {
            handle,
            ticket: handle.ticket(),
            answered: false,
        };
        handle
            .submit(Submission {
                request,
                answer: Some(answer),
                timeout,
                delivery: Delivery::Once,
                ticket: Some(patience.ticket),
            })
            .await?;
        let outcome = answered.await;
        patience.answered = true;
        match outcome.map_err(|_| handle.closed())?? {
            Outcome::Answer(answer) if answer.json.is_empty() => Ok(serde_json::Value::Null),
            Outcome::Answer(answer) => serde_json::from_slice(&answer.json).map_err(|e| {
                Error::with_source(ErrorKind::Protocol, format!("the answer is not JSON: {e}"), e)
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// Tells the connection when whoever called waits no longer.
struct Patience<'a> {
    handle: &'a Handle,
    ticket: Ticket,
    answered: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.handle.control(Control::GiveUp(self.ticket));
        }
    }
}

impl<'a> IntoFuture for Call<'a> {
    type Output = Result<serde_json::Value, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answered())
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
