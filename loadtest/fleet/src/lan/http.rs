//! The little HTTP a device speaks, pure: one request per connection, no keep-alive, small heads and bodies.

use crate::rpc::RpcError;
use serde_json::{Map, Value};

/// Longest request line and headers together.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest body; newer firmware limits its own to less.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Most headers in a request.
const HEADERS_MAX: usize = 64;

/// The head of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query, as in the request line: what a digest signs.
    pub(crate) uri: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body_bytes: usize,
    pub(crate) upgrade: Option<Upgrade>,
}

/// A request to speak WebSocket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Upgrade {
    pub(crate) key: String,
    pub(crate) offers_json_rpc: bool,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Route {
    /// `GET /shelly`
    Info,
    /// `POST /rpc`: a frame in the body.
    Frame,
    /// `/rpc/<Method>`: arguments in the query, and for POST in the body.
    Method {
        name: String,
        params: Map<String, Value>,
    },
    /// `/rpc` with an upgrade.
    WebSocket(Upgrade),
    /// Nothing here, with the status that says so.
    Nothing(u16),
}

/// Reads a head. `Ok(None)`: not complete yet. Otherwise the head and its length, or the status to refuse with.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    };
    let (Some(method), Some(uri)) = (request.method, request.path) else {
        return Err(400);
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let holds = |name: &str, word: &str| {
        header(name).is_some_and(|value| {
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let body_bytes = match header("content-length").map(str::parse) {
        None => 0,
        Some(Ok(length)) if length <= BODY_BYTES_MAX => length,
        Some(Ok(_)) => return Err(413),
        Some(Err(_)) => return Err(400),
    };
    if header("transfer-encoding").is_some() {
        return Err(501);
    }
    let upgrade = match header("sec-websocket-key") {
        Some(key) if holds("upgrade", "websocket") && holds("connection", "upgrade") => Some(Upgrade {
            key: key.to_owned(),
            offers_json_rpc: holds("sec-websocket-protocol", "json-rpc"),
        }),
        _ => None,
    };
    let authorization = header("authorization").map(str::to_owned);
    Ok(Some((
        Head {
            method: method.to_owned(),
            uri: uri.to_owned(),
            authorization,
            body_bytes,
            upgrade,
        },
        length,
    )))
}

/// What `head` and its body ask for.
pub(crate) fn route(head: &Head, body: &[u8]) -> Route {
    let (path, query) = head.uri.split_once('?').unwrap_or((&head.uri, ""));
    match (head.method.as_str(), path, &head.upgrade) {
        ("GET", "/rpc", Some(upgrade)) => Route::WebSocket(upgrade.clone()),
        ("GET", "/shelly", _) => Route::Info,
        ("POST", "/rpc", _) => Route::Frame,
        ("GET" | "POST", _, _) => match path.strip_prefix("/rpc/") {
            Some(name) if !name.is_empty() => {
                let mut params = query_params(query);
                if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
                    params.extend(fields);
                }
                Route::Method {
                    name: name.to_owned(),
                    params,
                }
            }
            _ => Route::Nothing(404),
        },
        _ => Route::Nothing(405),
    }
}

/// Arguments from a query: values that are JSON are taken as such, others as text. The same name twice: the last.
fn query_params(query: &str) -> Map<String, Value> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value);
            (
                percent_decode(name),
                serde_json::from_str(&value).unwrap_or(Value::String(value)),
            )
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match (first, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) challenge: Option<String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) const fn ok(body: String) -> Self {
        Self {
            status: 200,
            challenge: None,
            body,
        }
    }

    pub(crate) const fn empty(status: u16) -> Self {
        Self {
            status,
            challenge: None,
            body: String::new(),
        }
    }

    /// An error of a call that was not in a frame: the bare error object, and a status.
    pub(crate) fn error(error: &RpcError) -> Self {
        let status = match error.code() {
            code @ (401 | 404 | 429) => code.unsigned_abs() as u16,
            _ => 500,
        };
        Self {
            status,
            challenge: None,
            body: error.to_json().to_string(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let challenge = self
            .challenge
            .as_ref()
            .map_or_else(String::new, |value| format!("WWW-Authenticate: {value}\r\n"));
        format!(
            "HTTP/1.1 {} {reason}\r\nServer: ShellyHTTP/1.0.0\r\nContent-Type: application/json\r\n{challenge}\
             Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes()).expect("valid").expect("complete").0
    }

    #[test]
    fn routes_are_those_of_a_device() {
        let route_of = |line: &str, body: &str| {
            route(
                &head(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")),
                body.as_bytes(),
            )
        };
        assert_eq!(route_of("GET /shelly", ""), Route::Info);
        assert_eq!(route_of("POST /rpc", "{}"), Route::Frame);
        assert_eq!(route_of("GET /", ""), Route::Nothing(404));
        assert_eq!(route_of("GET /rpc", ""), Route::Nothing(404));
        assert_eq!(route_of("DELETE /shelly", ""), Route::Nothing(405));
        let Route::Method { name, params } = route_of("GET /rpc/Switch.Set?id=0&on=true&x=a%20b+c&y=%zz", "")
        else {
            panic!("a method")
        };
        assert_eq!(
            (name.as_str(), Value::Object(params)),
            (
                "Switch.Set",
                json!({"id": 0, "on": true, "x": "a b c", "y": "%zz"})
            )
        );
        let Route::Method { params, .. } = route_of("POST /rpc/Switch.Set?id=1", r#"{"on":false}"#) else {
            panic!("a method")
        };
        assert_eq!(Value::Object(params), json!({"id": 1, "on": false}));
    }

    #[test]
    fn an_upgrade_needs_all_its_headers() {
        let full = "GET /rpc HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Protocol: x, json-rpc\r\n\r\n";
        assert_eq!(
            route(&head(full), b""),
            Route::WebSocket(Upgrade {
                key: "abc".into(),
                offers_json_rpc: true
            })
        );
        assert_eq!(head(&full.replace("Upgrade: WebSocket\r\n", "")).upgrade, None);
    }

    #[test]
    fn heads_arrive_in_pieces_and_may_not_grow_for_ever() {
        let whole = b"GET /shelly HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse_head(&whole[..cut]), Ok(None));
        }
        assert_eq!(
            parse_head(whole).expect("valid").expect("complete").1,
            whole.len()
        );
        let endless = [b"GET /shelly HTTP/1.1\r\nX: ".as_slice(), &[b'a'; HEAD_BYTES_MAX]].concat();
        assert_eq!(parse_head(&endless), Err(431));
        assert_eq!(
            parse_head(b"POST /rpc HTTP/1.1\r\nContent-Length: 999999\r\n\r\n"),
            Err(413)
        );
        assert_eq!(
            parse_head(b"POST /rpc HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
            Err(400)
        );
        assert_eq!(
            parse_head(b"POST /rpc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(501)
        );
        assert_eq!(parse_head(b"\x00\x01\x02 nonsense\r\n\r\n"), Err(400));
    }

    #[test]
    fn answers_close_the_connection() {
        let text = String::from_utf8(Response::ok("{}".into()).to_bytes()).expect("text");
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n")
                && text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n{}")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300), uri in "/[!-~]{0,40}") {
            let _ = parse_head(&bytes);
            let head = Head { method: "GET".into(), uri, authorization: None, body_bytes: 0, upgrade: None };
            let _ = route(&head, &bytes);
        }
    }
}
