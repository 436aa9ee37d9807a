//! The few requests that a scenario has for the broker's API and for what it counts: one connection each, and answers of a bounded size.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For connecting, and between two bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: a broker's figures are some 30 KiB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends one request. The key is shown to the server and to nobody else: no error repeats it.
///
/// # Errors
/// If there is no answer, or none that can be read; in words for people.
pub(crate) fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> Result<Answer, String> {
    let failed = |what: &dyn std::fmt::Display| format!("{method} http://{server}{path}: {what}");
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(|e| failed(&e))?;
    let timeouts = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    timeouts.map_err(|e| failed(&e))?;
    // With 1.0 the answer comes in one piece and ends with the connection.
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n");
    if let Some(key) = key {
        head.push_str(&format!("Authorization: Bearer {key}\r\n"));
    }
    if !body.is_empty() {
        head.push_str("Content-Type: application/json\r\n");
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes()).map_err(|e| failed(&e))?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .map_err(|e| failed(&e))?;
    parse(&answer).ok_or_else(|| failed(&"the answer is no HTTP that this program reads"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let chunked = lines.any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:"));
    (!chunked).then(|| Answer {
        status,
        body: String::from_utf8_lossy(&answer[end + 4..]).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = parse(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "hi"));
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ] {
            assert!(parse(answer).is_none());
        }
    }
}
