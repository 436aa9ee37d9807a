//! A client that calls and serves, over protobuf.

use std::collections::VecDeque;

use bytes::Bytes;
use cauce_broker::hub::MethodCall;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::server_frame::Message;
use cauce_protocol::wire::{Call, Cancel, Error, Invoke, Respond, Serve, Unserve, respond};
use cauce_protocol::{Code, Refusal};

use crate::support::raw::ProtoPeer;
use crate::support::{Broker, PATIENCE, full_token};

/// For a call that is to be answered, in milliseconds: as long as a test waits for anything.
pub(crate) const CALL_MS: u32 = 60_000;

pub(crate) struct Party {
    pub(crate) peer: ProtoPeer,
    id: u32,
    /// What came while something else was waited for.
    heard: VecDeque<Message>,
}

impl Party {
    pub(crate) async fn join(broker: &Broker, tenant: &str, user: &str) -> Self {
        Self::with_token(broker, &full_token(tenant, user, "staff")).await
    }

    pub(crate) async fn with_token(broker: &Broker, token: &str) -> Self {
        Self::over(ProtoPeer::join(broker.address, token).await)
    }

    pub(crate) fn over(peer: ProtoPeer) -> Self {
        Self {
            peer,
            id: 0,
            heard: VecDeque::new(),
        }
    }

    pub(crate) async fn say(&mut self, request: Request) -> u32 {
        self.id += 1;
        self.peer.ask(self.id, request).await;
        self.id
    }

    /// The next message that fits; others are kept.
    async fn next<T>(&mut self, fits: impl Fn(&Message) -> Option<T>) -> T {
        if let Some(at) = self.heard.iter().position(|m| fits(m).is_some()) {
            let message = self.heard.remove(at).expect("it is there");
            return fits(&message).expect("it fitted");
        }
        loop {
            let message = self.peer.receive().await;
            match fits(&message) {
                Some(fitting) => return fitting,
                None => self.heard.push_back(message),
            }
        }
    }

    pub(crate) async fn outcome(&mut self, id: u32) -> Outcome {
        self.next(|message| match message {
            Message::Reply(reply) if reply.id == id => reply.outcome.clone(),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ask(&mut self, request: Request) -> Outcome {
        let id = self.say(request).await;
        self.outcome(id).await
    }

    pub(crate) async fn invoked(&mut self) -> Invoke {
        self.next(|message| match message {
            Message::Invoke(invoke) => Some(invoke.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn revoked(&mut self) -> u64 {
        self.next(|message| match message {
            Message::Revoke(revoke) => Some(revoke.call),
            _ => None,
        })
        .await
    }

    /// What came and was not asked for so far, up to the answer to a ping: everything said before it has been seen to.
    pub(crate) async fn rest(&mut self) -> Vec<Message> {
        let ping = Request::Ping(cauce_protocol::wire::Ping {});
        assert!(matches!(self.ask(ping).await, Outcome::Pong(_)));
        self.heard.drain(..).collect()
    }

    pub(crate) async fn serve(&mut self, methods: &[&str], concurrency: u32) {
        let outcome = self.ask(serve(methods, concurrency)).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub(crate) async fn unserve(&mut self, methods: &[&str]) {
        let methods = methods.iter().map(|&method| method.into()).collect();
        let outcome = self.ask(Request::Unserve(Unserve { methods })).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub(crate) async fn respond(&mut self, call: u64, json: impl Into<Bytes>) -> Outcome {
        let result = Some(respond::Result::Json(json.into()));
        self.ask(Request::Respond(Respond { call, result })).await
    }

    /// Answers every call with this, until the connection ends.
    pub(crate) async fn answer_all(mut self, json: &'static str) {
        loop {
            let call = self.invoked().await.call;
            // Whether somebody still waited is seen where it counts.
            self.respond(call, json).await;
        }
    }
}

pub(crate) fn serve(methods: &[&str], concurrency: u32) -> Request {
    let methods = methods.iter().map(|&method| method.into()).collect();
    Request::Serve(Serve { methods, concurrency })
}

pub(crate) fn call(method: &str) -> Call {
    Call {
        method: method.into(),
        params: Bytes::from_static(b"{\"n\":1}"),
        timeout_ms: CALL_MS,
        ..Call::default()
    }
}

pub(crate) fn asks(method: &str) -> Request {
    Request::Call(call(method))
}

pub(crate) fn cancel(request: u32) -> Request {
    Request::Cancel(Cancel { request })
}

/// A call from inside the process.
pub(crate) fn method(name: &str) -> MethodCall {
    MethodCall {
        timeout_ms: CALL_MS.into(),
        ..MethodCall::new(name, "{\"n\":1}")
    }
}

pub(crate) fn json(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Answer(answer) => &answer.json,
        other => panic!("not an answer: {other:?}"),
    }
}

pub(crate) fn error(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Error(error) => error,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(outcome: Outcome, code: Code) -> Error {
    let error = error(outcome);
    assert_eq!(error.code, u32::from(code.number()), "{error:?}");
    error
}

#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Refusal>, code: Code) -> Refusal {
    let refusal = result.expect_err("a refusal");
    assert_eq!(refusal.code, code, "{refusal}");
    refusal
}

/// What comes within the tests' patience.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("within the test's patience")
}
