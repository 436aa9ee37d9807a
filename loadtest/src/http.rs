//! The few requests that a scenario has for the broker's API and for what it counts: one connection each, and answers of a bounded size.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::tls::{self, Credentials};

/// For connecting, and between two bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: a broker's figures are some 30 KiB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where the requests go, and whether over TLS. Later requests resume the session of earlier ones.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    tls: Option<Credentials>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl Door {
    pub(crate) fn new(address: SocketAddr, tls: Option<Credentials>) -> Self {
        Self { address, tls }
    }

    /// Sends one request. The key is shown to the server and to nobody else: no error repeats it.
    ///
    /// # Errors
    /// If there is no answer, or none that can be read; in words for people.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Result<Answer, String> {
        let failed = |what: &dyn fmt::Display| format!("{method} {self}{path}: {what}");
        // With 1.0 the answer comes in one piece and ends with the connection.
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        if let Some(key) = key {
            request.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let answer = self.exchange(request.as_bytes()).map_err(|e| failed(&e))?;
        if answer.first() == Some(&tls::ALERT) {
            return Err(failed(&tls::UNEXPECTED));
        }
        parse(&answer).ok_or_else(|| failed(&"the answer is no HTTP that this program reads"))
    }

    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        let words = |e: io::Error| e.to_string();
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).map_err(words)?;
        let timeouts = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        timeouts.map_err(words)?;
        let Some(tls) = &self.tls else {
            return talk(&mut stream, request).map_err(words);
        };
        let mut secured = tls.shake_hands(stream)?;
        talk(&mut secured, request).map_err(words)
    }
}

/// Sends the request, and reads until the server has ended the connection.
fn talk(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
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
