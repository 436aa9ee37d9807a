//! Serving methods: calls come as a stream, and each is answered.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cauce_protocol::message::MethodPattern;
use cauce_protocol::wire::{self, respond};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::client::Handle;
use crate::connection::{Command, Control, Response, Serving};
use crate::error::{Error, ErrorKind};

/// Calls that a connection works on at once at most: the broker's bound.
pub(crate) const CONCURRENCY_MAX: u32 = 1024;

/// What the connection hands to a service.
#[derive(Debug)]
pub(crate) enum Invoked {
    Call {
        generation: u64,
        invoke: wire::Invoke,
        at: Instant,
        revoked: oneshot::Receiver<()>,
    },
    Ended(Error),
}

/// Calls of the methods that were served, from [`crate::Client::serve`]: a stream of [`Invocation`]s. It is registered again
/// after a lost connection. Dropping it ends the service; calls that it gave out may still be answered.
///
/// It keeps the client connected as long as it lives.
pub struct Service {
    id: u64,
    pattern: MethodPattern,
    invocations: mpsc::Receiver<Invoked>,
    handle: Arc<Handle>,
    reason: Option<Error>,
}

impl Service {
    pub(crate) async fn begin(handle: &Arc<Handle>, pattern: &str, concurrency: u32) -> Result<Self, Error> {
        let pattern = MethodPattern::new(pattern)?;
        if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the concurrency of a service is from 1 to {CONCURRENCY_MAX}"),
            ));
        }
        let id = handle.ticket();
        // The broker counts by connection, so one service may be given what all of them can bear; and one place more for the
        // word of its end. Places that are not used take no memory.
        let (out, invocations) = mpsc::channel(CONCURRENCY_MAX as usize + 1);
        let (served, answer) = oneshot::channel();
        // Before the command, so that a future that is dropped takes back what it asked for.
        let service = Self {
            id,
            pattern: pattern.clone(),
            invocations,
            handle: Arc::clone(handle),
            reason: None,
        };
        let serving = Serving {
            id,
            pattern,
            concurrency,
            invocations: out,
            served,
        };
        handle.command(Command::Serve(Box::new(serving))).await?;
        answer.await.map_err(|_| handle.closed())??;
        Ok(service)
    }

    /// The next call; `None` after the end. Cancel-safe: a call is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Invocation> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Why the stream has ended, if the broker refused to let it go on.
    pub fn reason(&self) -> Option<&Error> {
        self.reason.as_ref()
    }

    /// Answers every call with what `answer` makes of it, as many at once as the service was begun with. Ends with the service;
    /// dropping the future gives up what is being worked on, and the callers are told.
    ///
    /// # Errors
    /// The reason, if the broker refused to let it go on.
    pub async fn answer_with<F, Fut>(mut self, answer: F) -> Result<(), Error>
    where
        F: Fn(Request) -> Fut,
        Fut: Future<Output = Result<serde_json::Value, String>>,
    {
        use futures_util::stream::{FuturesUnordered, StreamExt};
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                next = self.next() => match next {
                    None => break,
                    Some(invocation) => {
                        let (request, reply) = invocation.split();
                        let result = answer(request);
                        working.push(async move { reply.work(result).await });
                    }
                },
                Some(()) = working.next(), if !working.is_empty() => {}
            }
        }
        while working.next().await.is_some() {}
        self.reason.take().map_or(Ok(()), Err)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Invocation>> {
        loop {
            return match std::task::ready!(self.invocations.poll_recv(cx)) {
                None => Poll::Ready(None),
                Some(Invoked::Ended(reason)) => {
                    self.reason = Some(reason);
                    self.invocations.close();
                    continue;
                }
                Some(Invoked::Call {
                    generation,
                    invoke,
                    at,
                    revoked,
                }) => Poll::Ready(Some(Invocation {
                    request: Request {
                        method: invoke.method,
                        params: invoke.params,
                        user: Some(invoke.user).filter(|user| !user.is_empty()),
                        deadline: at + Duration::from_millis(invoke.timeout_ms.into()),
                    },
                    reply: Reply {
                        generation,
                        call: invoke.call,
                        handle: Arc::clone(&self.handle),
                        revoked: Some(revoked),
                        answered: false,
                    },
                })),
            };
        }
    }
}

impl Stream for Service {
    type Item = Invocation;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Invocation>> {
        self.get_mut().poll(cx)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // First the mark, then the word: a serve that is still on its way to the connection sees the mark.
        self.invocations.close();
        self.handle.control(Control::Unserve { id: self.id });
        // Calls that nobody took are answered by being dropped.
        while let Ok(invoked) = self.invocations.try_recv() {
            if let Invoked::Call {
                generation, invoke, ..
            } = invoked
            {
                self.handle
                    .control(Control::Respond(dropped(generation, invoke.call)));
            }
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("pattern", &self.pattern)
            .finish_non_exhaustive()
    }
}

/// One call to serve: what is asked, and the place for the answer.
#[derive(Debug)]
pub struct Invocation {
    request: Request,
    reply: Reply,
}

/// What a caller asks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    pub method: String,
    /// A JSON object; empty means none.
    pub params: bytes::Bytes,
    /// Who asks; `None` is the API or the program that embeds the broker.
    pub user: Option<String>,
    /// Until when an answer is of use.
    pub deadline: Instant,
}

impl Request {
    /// The parameters as a value; none are an empty object.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if they are not of that type.
    pub fn params<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        let params: &[u8] = match self.params.is_empty() {
            true => b"{}",
            false => &self.params,
        };
        Ok(serde_json::from_slice(params)?)
    }
}

impl Invocation {
    pub fn request(&self) -> &Request {
        &self.request
    }

    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// As [`Request::params`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if they are not of that type.
    pub fn params<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        self.request.params()
    }

    /// Answers. The caller gets the value, or [`crate::Code::MethodError`] with the text. Nobody hears it if the call was
    /// revoked meanwhile.
    pub fn respond<T: Serialize>(self, result: Result<T, impl fmt::Display>) {
        self.reply.respond(result);
    }

    /// Waits until nobody wants the answer any more: the caller gave up, its time is over, or the connection is lost.
    /// Cancel-safe.
    pub async fn revoked(&mut self) {
        self.reply.revoked().await;
    }

    /// What is asked and the place for the answer, apart.
    pub fn split(self) -> (Request, Reply) {
        (self.request, self.reply)
    }
}

/// The place for the answer to an [`Invocation`]. Dropped without one, it tells the caller that there will be none.
pub struct Reply {
    generation: u64,
    call: u64,
    handle: Arc<Handle>,
    revoked: Option<oneshot::Receiver<()>>,
    answered: bool,
}

impl Reply {
    /// As [`Invocation::respond`].
    pub fn respond<T: Serialize>(mut self, result: Result<T, impl fmt::Display>) {
        let result = match result {
            Err(error) => respond::Result::Error(error.to_string()),
            Ok(value) => match serde_json::to_vec(&value) {
                Ok(json) => respond::Result::Json(json.into()),
                Err(error) => respond::Result::Error(format!("the answer cannot be JSON: {error}")),
            },
        };
        self.answered = true;
        self.handle.control(Control::Respond(Response {
            generation: self.generation,
            call: self.call,
            result,
        }));
    }

    /// As [`Invocation::revoked`].
    pub async fn revoked(&mut self) {
        if let Some(revoked) = &mut self.revoked {
            // The other end is only ever dropped.
            let _ = revoked.await;
            self.revoked = None;
        }
    }

    /// Answers with what `work` makes, unless it is revoked before.
    async fn work(mut self, work: impl Future<Output = Result<serde_json::Value, String>>) {
        let result = tokio::select! {
            result = work => Some(result),
            () = self.revoked() => None,
        };
        match result {
            Some(result) => self.respond(result),
            None => self.answered = true,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.handle
                .control(Control::Respond(dropped(self.generation, self.call)));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

fn dropped(generation: u64, call: u64) -> Response {
    Response {
        generation,
        call,
        result: respond::Result::Error("the call was dropped without an answer".to_owned()),
    }
}
