//! One connection of the bare server, and its handshake.

use std::io;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::poll::Interest;
use crate::socket::Socket;

/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How every upgrade begins.
const METHOD: &[u8] = b"GET ";
/// Of RFC 6455.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: Socket,
    pub(super) interest: Interest,
    pub(super) upgraded: bool,
    pub(super) rooms: Vec<usize>,
}

impl Peer {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            interest: Interest::Read,
            upgraded: false,
            rooms: Vec::new(),
        }
    }
}

/// Where the request ends, and the answer to it; None while it is incomplete.
///
/// # Errors
/// If it is no upgrade, or does not end.
pub(super) fn upgrade(input: &[u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    if !METHOD.starts_with(&input[..input.len().min(METHOD.len())]) {
        return Err(io::Error::other("this is no HTTP"));
    }
    let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
        if input.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("a request head that does not end"));
        }
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]);
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let key = header("sec-websocket-key").ok_or_else(|| io::Error::other("no WebSocket handshake"))?;
    let accept = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{MAGIC}").as_bytes(),
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        STANDARD.encode(accept),
        cauce_protocol::SUBPROTOCOL_PROTO
    );
    Ok(Some((end + 4, answer.into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_answered_as_the_standard_shows() {
        let request = b"GET /v1/ws HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nrest";
        let (end, answer) = upgrade(request).unwrap().unwrap();
        assert_eq!(&request[end..], b"rest");
        assert!(
            String::from_utf8(answer)
                .unwrap()
                .contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert!(upgrade(b"GET / HTTP/1.1\r\n").unwrap().is_none());
        assert!(upgrade(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(upgrade(&[0x16, 3, 1]).is_err(), "a ClientHello of TLS");
    }
}
