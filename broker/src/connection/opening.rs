//! Before authentication. A stranger may send one hello within the handshake time and nothing else, so there is nothing to
//! bound but that.

use cauce_protocol::message::Hello;
use cauce_protocol::{ClientMessage, Code, Refusal, Request, VERSION};

use crate::clock::Now;

/// A connection whose token has not been seen.
#[derive(Debug)]
pub struct Opening {
    /// When the handshake must be over, monotonic milliseconds.
    pub deadline_ms: u64,
}

/// What follows from a stranger's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Verify the token; answer under this id.
    Authenticate { id: u32, hello: Hello },
    /// Close.
    Refuse(Refusal),
}

impl Opening {
    pub fn handle_message(&self, message: ClientMessage) -> Step {
        let ClientMessage { id, request } = message;
        let Request::Hello(hello) = request else {
            return Step::Refuse(Refusal::new(
                Code::Unauthenticated,
                "say hello with a token first, or bring one in the handshake",
            ));
        };
        if let Err(refusal) = check_version(hello.version) {
            return Step::Refuse(refusal);
        }
        if hello.token.is_empty() {
            return Step::Refuse(Refusal::new(Code::Unauthenticated, "hello has no token"));
        }
        Step::Authenticate { id, hello }
    }

    pub fn handle_timeout(&self, now: Now) -> Option<Refusal> {
        (now.mono_ms >= self.deadline_ms)
            .then(|| Refusal::new(Code::HandshakeTimeout, "no hello came within the handshake time"))
    }
}

/// # Errors
/// `unsupported`, with the version to speak.
pub(super) fn check_version(version: u32) -> Result<(), Refusal> {
    if version == VERSION {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Unsupported,
        format!("this broker speaks version {VERSION}, not {version}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening { deadline_ms: 5_000 }
    }

    fn hello(version: u32, token: &str) -> ClientMessage {
        let hello = Hello {
            version,
            features: 0,
            token: token.into(),
            client: String::new(),
            previous: Vec::new(),
        };
        ClientMessage {
            id: 1,
            request: Request::Hello(hello),
        }
    }

    fn refused(message: ClientMessage) -> Code {
        match opening().handle_message(message) {
            Step::Refuse(refusal) => refusal.code,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn only_a_hello_with_a_token_of_our_version_goes_on() {
        assert_eq!(
            refused(ClientMessage {
                id: 1,
                request: Request::Ping
            }),
            Code::Unauthenticated
        );
        assert_eq!(refused(hello(1, "")), Code::Unauthenticated);
        assert_eq!(refused(hello(2, "t")), Code::Unsupported);
        assert!(matches!(
            opening().handle_message(hello(1, "t")),
            Step::Authenticate { id: 1, .. }
        ));
    }

    #[test]
    fn the_deadline_is_kept_to_the_millisecond() {
        let at = |mono_ms| {
            opening()
                .handle_timeout(Now { mono_ms, unix_ms: 0 })
                .map(|r| r.code)
        };
        assert_eq!(at(4_999), None);
        assert_eq!(at(5_000), Some(Code::HandshakeTimeout));
    }
}
