//! The HTTP head that opens a connection: parsed within bounds, judged, answered.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Headers that a request may have.
pub const HEADERS_MAX: usize = 64;

/// The request line and the headers that matter here, borrowed from the bytes read.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub upgrade: Option<Upgrade<'a>>,
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// Offered subprotocols, in the client's order, commas between.
    pub subprotocols: Vec<&'a str>,
    /// Bytes of the head; what follows belongs to the connection.
    pub len: usize,
}

/// A request to speak WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    pub key: &'a str,
}

/// Why a head is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP/1.1.
    Malformed,
    TooManyHeaders,
    /// An upgrade that RFC 6455 does not allow.
    BadUpgrade(&'static str),
}

impl HeadError {
    /// HTTP status and words for it.
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Malformed => (400, "this is not HTTP/1.1"),
            Self::TooManyHeaders => (431, "too many headers"),
            Self::BadUpgrade(why) => (400, why),
        }
    }
}

/// Whether `input`, of which the first `looked_at` bytes held no end, may hold the end of a head: an empty line.
pub fn may_end(input: &[u8], looked_at: usize) -> bool {
    // The end may have begun in what was looked at: three bytes of `\r\n\r\n`.
    let new = &input[looked_at.saturating_sub(3).min(input.len())..];
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// The head at the front of `input`; `None` until it is whole.
///
/// # Errors
/// If it is not a head of HTTP/1.1 within bounds, or asks for WebSocket in a way that the RFC forbids.
pub fn parse(input: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(HeadError::Malformed);
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut head = Head {
        method,
        path,
        query,
        upgrade: None,
        origin: None,
        host: None,
        authorization: None,
        subprotocols: Vec::new(),
        len,
    };
    let (mut key, mut version, mut upgrades, mut connection) = (None, None, false, false);
    for header in request.headers.iter() {
        // Only ASCII can matter in the headers that we read.
        let Ok(value) = std::str::from_utf8(header.value) else {
            continue;
        };
        let value = value.trim();
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        if named("upgrade") {
            upgrades |= has_token(value, "websocket");
        } else if named("connection") {
            connection |= has_token(value, "upgrade");
        } else if named("sec-websocket-key") {
            key = Some(value);
        } else if named("sec-websocket-version") {
            version = Some(value);
        } else if named("sec-websocket-protocol") {
            head.subprotocols
                .extend(value.split(',').map(str::trim).filter(|p| !p.is_empty()));
        } else if named("origin") {
            head.origin = Some(value);
        } else if named("host") {
            head.host = Some(value);
        } else if named("authorization") {
            head.authorization = Some(value);
        }
    }
    if upgrades {
        head.upgrade = Some(judge(method, request.version, connection, version, key)?);
    }
    Ok(Some(head))
}

fn judge<'a>(
    method: &str,
    http: Option<u8>,
    connection: bool,
    version: Option<&str>,
    key: Option<&'a str>,
) -> Result<Upgrade<'a>, HeadError> {
    if method != "GET" || http != Some(1) {
        return Err(HeadError::BadUpgrade("WebSocket begins with GET over HTTP/1.1"));
    }
    if !connection {
        return Err(HeadError::BadUpgrade(
            "the header `Connection: Upgrade` is missing",
        ));
    }
    if version != Some("13") {
        return Err(HeadError::BadUpgrade("this broker speaks WebSocket version 13"));
    }
    let key = key.ok_or(HeadError::BadUpgrade("the header `Sec-WebSocket-Key` is missing"))?;
    match BASE64.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(Upgrade { key }),
        _ => Err(HeadError::BadUpgrade(
            "the header `Sec-WebSocket-Key` is not 16 bytes in base64",
        )),
    }
}

fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The answer that opens the connection. `subprotocol` must be one of those offered.
pub fn accept(upgrade: Upgrade<'_>, subprotocol: Option<&str>) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(upgrade.key.as_bytes());
    // The constant of RFC 6455, 1.3.
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut out = String::with_capacity(192);
    out.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    BASE64.encode_string(hash.finish(), &mut out);
    if let Some(subprotocol) = subprotocol {
        out.push_str("\r\nSec-WebSocket-Protocol: ");
        out.push_str(subprotocol);
    }
    out.push_str("\r\n\r\n");
    out
}

/// A refusal over HTTP, in the API's one error shape, after which the connection is closed.
pub fn refuse(status: u16, error: &cauce_protocol::Refusal) -> String {
    let phrase = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let body = serde_json::json!({ "error": cauce_protocol::wire::Error::from(error) }).to_string();
    let mut out = String::with_capacity(256 + body.len());
    // Writing into a `String` cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    if error.retry_after_ms > 0 {
        let _ = write!(out, "Retry-After: {}\r\n", error.retry_after_ms.div_ceil(1000));
    }
    if status == 426 {
        out.push_str("Upgrade: websocket\r\n");
    }
    out.push_str("\r\n");
    out.push_str(&body);
    out
}

/// The value of `name` in a query, decoded. The first one counts.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    let (_, value) = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)?;
    percent_decoded(value)
}

fn percent_decoded(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                out.push(high << 4 | low);
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// Entry for the fuzzer: a head is the same however much follows it, is waited for while it is not whole, and what is answered
/// to it is one head itself, whatever the peer wrote.
#[doc(hidden)]
pub fn fuzz_handshake(data: &[u8]) {
    let Ok(Some(head)) = parse(data) else { return };
    assert!(head.len <= data.len());
    for end in [0, head.len / 2, head.len - 1] {
        assert_eq!(
            parse(&data[..end]),
            Ok(None),
            "a beginning was taken for the whole"
        );
    }
    assert_eq!(
        parse(&data[..head.len]).as_ref().map(Option::as_ref),
        Ok(Some(&head))
    );
    if let Some(query) = head.query {
        let _ = query_value(query, "token");
    }
    let Some(upgrade) = head.upgrade else { return };
    for subprotocol in head.subprotocols.iter().copied().map(Some).chain([None]) {
        let answer = accept(upgrade, subprotocol);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        assert_eq!(
            response.parse(answer.as_bytes()),
            Ok(httparse::Status::Complete(answer.len()))
        );
        assert_eq!(
            response.headers.len(),
            3 + usize::from(subprotocol.is_some()),
            "the peer wrote a header of ours"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_damaged_head_is_read_without_harm(at in 0..SAMPLE.len(), byte: u8, cut in 0..SAMPLE.len()) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            fuzz_handshake(&bytes);
            fuzz_handshake(&bytes[..cut]);
        }
    }

    const SAMPLE: &str = "GET /v1/ws?token=a%2Eb&x=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nOrigin: http://example.com\r\n\r\nrest";

    #[test]
    fn the_sample_of_the_rfc_is_accepted_with_its_answer() {
        let head = parse(SAMPLE.as_bytes()).unwrap().unwrap();
        assert_eq!((head.path, head.query), ("/v1/ws", Some("token=a%2Eb&x=1")));
        assert_eq!(head.subprotocols, ["chat", "superchat"]);
        assert_eq!(&SAMPLE[head.len..], "rest");
        let answer = accept(head.upgrade.unwrap(), Some("chat"));
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        assert!(answer.ends_with("Sec-WebSocket-Protocol: chat\r\n\r\n"));
    }

    #[test]
    fn a_head_in_pieces_is_waited_for() {
        for end in 0..SAMPLE.len() - 4 {
            assert_eq!(parse(&SAMPLE.as_bytes()[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_seen_wherever_it_is_cut() {
        for text in [SAMPLE.to_owned(), SAMPLE.replace("\r\n", "\n")] {
            let len = parse(text.as_bytes()).unwrap().unwrap().len;
            for cut in 0..len {
                let head = &text.as_bytes()[..len];
                assert!(may_end(head, cut), "{cut}");
                assert!(!may_end(&head[..cut], 0), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_upgrade_of_the_rfc_is_refused_with_a_reason() {
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("keep-alive, Upgrade", "close"),
            ("Version: 13", "Version: 8"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            ("Sec-WebSocket-Key", "X-Key"),
        ] {
            let text = SAMPLE.replacen(from, to, 1);
            assert!(
                matches!(parse(text.as_bytes()), Err(HeadError::BadUpgrade(_))),
                "{to}"
            );
        }
        assert_eq!(parse(b"\x16\x03\x01\x02\x00"), Err(HeadError::Malformed));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()), Err(HeadError::TooManyHeaders));
    }

    #[test]
    fn query_values_are_decoded_and_bad_ones_are_none() {
        assert_eq!(
            query_value("a=1&token=x%20y%2Fz", "token").as_deref(),
            Some("x y/z")
        );
        assert_eq!(query_value("token=%zz", "token"), None);
        assert_eq!(query_value("token=%", "token"), None);
        assert_eq!(query_value("tokens=1", "token"), None);
        assert_eq!(query_value("token=%ff", "token"), None);
    }
}
