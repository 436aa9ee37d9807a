//! TLS 1.3 after the handshake, which the broker speaks itself, against clients that nobody here wrote.

mod support;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use support::tls::{certify, settings, trusting_with};
use support::{Broker, PATIENCE};

const REQUEST: &str = "GET /v1/nothing HTTP/1.1\r\nHost: test\r\n\r\n";
/// What every answer to it has.
const ANSWER: &str = "HTTP/1.1 404";

const SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// `openssl s_client`, spoken to as one would at a terminal.
struct Openssl {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Openssl {
    fn connect(broker: &Broker, folder: &Path, suite: &str) -> Self {
        let mut process = Command::new("openssl")
            .args([
                "s_client",
                "-tls1_3",
                "-msg",
                "-verify_return_error",
                "-ciphersuites",
                suite,
            ])
            .args(["-servername", "localhost", "-connect"])
            .arg(broker.address.to_string())
            .arg("-CAfile")
            .arg(folder.join("cert.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed: scripts/install-tools.sh");
        let input = process.stdin.take().expect("a pipe");
        let (said, lines) = channel();
        let out = process.stdout.take().expect("a pipe");
        let err = process.stderr.take().expect("a pipe");
        for pipe in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let said = said.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(pipe);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                    // Nobody listens any more once the test is over.
                    let _ = said.send(String::from_utf8_lossy(&line).into_owned());
                    line.clear();
                }
            });
        }
        Self {
            process,
            input,
            lines,
        }
    }

    /// Waits for a line with this in it.
    fn expect(&mut self, text: &str) {
        let mut heard = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => heard += &line,
                Err(_) => panic!("no {text:?} in:\n{heard}"),
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("openssl reads");
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start() -> (Broker, tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = certify(folder.path());
    let broker = Broker::with(&settings(folder.path()));
    (broker, folder, pem)
}

#[test]
fn openssl_speaks_and_changes_keys_under_every_suite() {
    let (broker, folder, _) = start();
    for suite in SUITES {
        let mut openssl = Openssl::connect(&broker, folder.path(), suite);
        openssl.expect(suite);
        openssl.expect("NewSessionTicket");
        openssl.say(REQUEST);
        openssl.expect(ANSWER);
        // Its key alone.
        openssl.say("k\n");
        openssl.expect("KEYUPDATE");
        openssl.say(REQUEST);
        openssl.expect(ANSWER);
        for _ in 0..3 {
            // Its key, and it asks for ours; `<<<` is what came from us.
            openssl.say("K\n");
            openssl.expect("KEYUPDATE");
            openssl.say(REQUEST);
            openssl.expect("<<< TLS 1.3, Handshake [length 0005], KeyUpdate");
            openssl.expect(ANSWER);
        }
    }
}

#[test]
fn rustls_speaks_and_changes_keys_under_every_suite() {
    let (broker, _folder, pem) = start();
    for &suite in aws_lc_rs::DEFAULT_CIPHER_SUITES {
        // Our certificate has a key on a curve.
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        let config = trusting_with(&pem, &[suite]);
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let socket = TcpStream::connect(broker.address).expect("the broker listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut stream = StreamOwned::new(connection, socket);
        let mut heard = Vec::new();
        for n in 1..=5 {
            stream.write_all(REQUEST.as_bytes()).expect("the broker reads");
            while String::from_utf8_lossy(&heard).matches(ANSWER).count() < n {
                let mut buffer = [0; 1_024];
                let bytes = stream.read(&mut buffer).expect("an answer");
                assert!(bytes > 0, "{suite:?}: the broker has closed");
                heard.extend_from_slice(&buffer[..bytes]);
            }
            if suite.tls13().is_some() {
                // Which asks the broker for its own.
                stream.conn.refresh_traffic_keys().expect("the handshake is over");
            }
        }
        stream.conn.send_close_notify();
        stream.flush().expect("the broker reads");
        // Without the broker's own goodbye this is an error.
        stream.read_to_end(&mut heard).expect("a proper end of TLS");
    }
}
