//! Calls as they arrive and what is answered to them: the forms, not the deeds.

use crate::frame::ReplyFrame;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The way a call came in; shows as `source` of a switch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// Over the connection the device dialled.
    OutboundWebSocket,
    /// Over a WebSocket to the device.
    LanWebSocket,
    /// Over HTTP to the device.
    Http,
}

impl Door {
    /// Names of RPC channels as the firmware's ancestor has them; that of the outbound one is inferred.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::OutboundWebSocket => "WS_out",
            Self::LanWebSocket => "WS_in",
            Self::Http => "HTTP_in",
        }
    }
}

/// A call as read from a frame.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's id, with its JSON type: a number stays a number.
    pub id: Value,
    /// What the caller calls itself, if it does.
    pub src: Option<String>,
    /// The method, in the caller's spelling.
    pub method: String,
    /// The arguments; empty if there were none.
    pub params: Map<String, Value>,
    /// The digest of the caller, if it signed.
    pub auth: Option<Value>,
}

impl Request {
    /// Reads a frame. `None` for everything a device ignores without an answer: what is not a JSON object, has
    /// no method (an answer to someone), or has no id (a notification).
    pub fn parse(text: &str) -> Option<Self> {
        let Ok(Value::Object(mut frame)) = serde_json::from_str(text) else {
            return None;
        };
        let id = frame.remove("id").filter(|id| id.is_number() || id.is_string())?;
        let Some(Value::String(method)) = frame.remove("method") else {
            return None;
        };
        let src = match frame.remove("src") {
            Some(Value::String(src)) if !src.is_empty() => Some(src),
            _ => None,
        };
        let params = match frame.remove("params") {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        };
        Some(Self {
            id,
            src,
            method,
            params,
            auth: frame.remove("auth"),
        })
    }

    /// The frame that answers this request.
    pub fn reply(&self, device: &str, answer: Result<Value, RpcError>) -> String {
        let (result, error) = match answer {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error.to_json())),
        };
        ReplyFrame {
            id: &self.id,
            src: device,
            dst: self.src.as_deref(),
            result,
            error,
        }
        .to_json()
    }
}

/// Why a call failed, in the codes of the firmware.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RpcError {
    /// -103: an argument is there but makes no sense.
    BadArgument(&'static str),
    /// 401: sign with this challenge, a JSON text.
    Challenge(String),
    /// 429: too many wrong signatures.
    LockedOut,
    /// -103: an argument is missing.
    MissingArgument(&'static str),
    /// 404: no such method.
    NoHandler(String),
    /// -105: no component with this number.
    NoSuchComponent(u64),
    /// -108: no room for that.
    ResourceExhausted,
    /// -109: the device is about to reboot.
    ShuttingDown(Duration),
}

impl RpcError {
    /// The code on the wire.
    pub const fn code(&self) -> i32 {
        match self {
            Self::BadArgument(_) | Self::MissingArgument(_) => -103,
            Self::Challenge(_) => 401,
            Self::LockedOut => 429,
            Self::NoHandler(_) => 404,
            Self::NoSuchComponent(_) => -105,
            Self::ResourceExhausted => -108,
            Self::ShuttingDown(_) => -109,
        }
    }

    /// The error object on the wire.
    pub fn to_json(&self) -> Value {
        let message = match self {
            Self::BadArgument(name) => format!("Invalid argument '{name}'!"),
            Self::Challenge(challenge) => challenge.clone(),
            Self::LockedOut => "Too many failed authentication attempts".to_owned(),
            Self::MissingArgument(name) => format!("Missing required argument '{name}'!"),
            Self::NoHandler(method) => format!("No handler for {method}"),
            Self::NoSuchComponent(id) => format!("Argument 'id', value {id} not found!"),
            Self::ResourceExhausted => "Resource exhausted".to_owned(),
            Self::ShuttingDown(left) => format!("shutting down in {} ms", left.as_millis()),
        };
        json!({"code": self.code(), "message": message})
    }
}
