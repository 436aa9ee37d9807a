//! The whole program over TLS, against the bare server and against servers that are not what they should be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cauce_loadtest::limit::{Faults, LimitServer, Stop, Writing};
use cauce_loadtest::tls::Identity;
use tempfile::TempDir;

/// A bare server with TLS, and its certificate in a file.
struct Server {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl Server {
    fn start(writing: Writing) -> Self {
        Self::with(Identity::self_signed().unwrap(), writing)
    }

    fn with(identity: Identity, writing: Writing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), pem(&identity)).unwrap();
        let server = LimitServer::bind("127.0.0.1:0".parse().unwrap(), writing, Faults::default());
        let server = server.unwrap().with_tls(identity);
        let (address, stop) = (server.address().unwrap(), server.stopper());
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            server.run(&stopping).unwrap();
        });
        Self {
            address,
            stop,
            thread: Some(thread),
            folder,
        }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Runs with its certificate named.
    fn load(&self, arguments: &[&str]) -> serde_json::Value {
        self.load_for("0.5", arguments)
    }

    fn load_for(&self, seconds: &str, arguments: &[&str]) -> serde_json::Value {
        let certificate = self.certificate();
        let named = [&["--ca", certificate.to_str().unwrap()], arguments].concat();
        outcome(&run_for(seconds, self.address, &named))
    }

    /// The same, longer where the machine is too busy to do enough in half a second.
    fn load_until(
        &self,
        arguments: &[&str],
        enough: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut runs = ["0.5", "2.5", "12"]
            .into_iter()
            .map(|seconds| self.load_for(seconds, arguments));
        runs.find(enough).expect("enough is done within twelve seconds")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn pem(identity: &Identity) -> String {
    let text = STANDARD.encode(identity.certificate());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn run(target: SocketAddr, arguments: &[&str]) -> Output {
    run_for("0.5", target, arguments)
}

/// A run that is measured for so many seconds.
fn run_for(seconds: &str, target: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
        .env_remove("LOADTEST_KEY")
        .args(["run", "--quiet", "--json", "-", "--target", &target.to_string()])
        .args(["--warmup", "0.1", "--seconds", seconds])
        .args(["--set", "load.drain_seconds=20"])
        .args(arguments)
        .output()
        .unwrap()
}

fn outcome(output: &Output) -> serde_json::Value {
    let words = String::from_utf8_lossy(&output.stderr);
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
    document["outcomes"][0].clone()
}

fn metric(outcome: &serde_json::Value, name: &str) -> Option<f64> {
    let metrics = outcome["metrics"].as_array().unwrap();
    metrics.iter().find(|m| m["name"] == name)?["value"].as_f64()
}

fn figure(outcome: &serde_json::Value, name: &str) -> f64 {
    metric(outcome, name).unwrap_or_else(|| panic!("no {name}"))
}

/// What a run that could not be made says.
fn refusal(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    words
}

#[test]
fn every_message_comes_through_tls_once_whatever_its_size_and_however_it_is_written() {
    for writing in [Writing::OneByOne, Writing::Coalesced] {
        let server = Server::start(writing);
        for bytes in ["128", "20000", "100000"] {
            let payload = format!("load.payload_bytes={bytes}");
            let found = server.load(&[
                "fanout",
                "--set",
                "shape.subscribers=10",
                "--outstanding",
                "4",
                "--set",
                &payload,
            ]);
            assert!(figure(&found, "sent") > 0.0);
            assert_eq!(
                figure(&found, "received"),
                figure(&found, "sent") * 10.0,
                "{found}"
            );
            for fault in ["lost", "duplicates", "reordered", "disconnected"] {
                assert_eq!(figure(&found, fault), 0.0, "{fault} at {bytes} bytes: {found}");
            }
            assert_eq!(found["tls"]["version"], "1.3");
            assert_eq!(found["tls"]["full"], 11);
            assert_eq!(found["tls"]["verified"], true);
        }
    }
}

#[test]
fn who_comes_back_resumes_its_session_and_who_comes_first_cannot() {
    let server = Server::start(Writing::Coalesced);
    let soak = [
        "soak",
        "--set",
        "shape.rooms=1",
        "--set",
        "shape.subscribers=5",
        "--set",
        "shape.churn_per_second=40",
        "--set",
        "load.drain_seconds=0.5",
        "--rate",
        "100",
    ];
    let found = server.load_until(&soak, |found| metric(found, "churned") >= Some(6.0));
    let churned = figure(&found, "churned");
    assert_eq!(figure(&found, "handshakes_full"), 6.0, "{found}");
    assert!(figure(&found, "handshakes_resumed") >= churned - 5.0, "{found}");

    // One of those who were cut has come back.
    let full = [&soak[..], &["--full-handshakes"]].concat();
    let found = server.load_until(&full, |found| figure(found, "handshakes_full") > 6.0);
    assert_eq!(figure(&found, "handshakes_resumed"), 0.0, "{found}");
}

#[test]
fn a_certificate_that_nobody_named_is_refused_with_its_fingerprint_and_what_to_do() {
    let server = Server::start(Writing::Coalesced);
    let words = refusal(&run(server.address, &["echo", "--tls"]));
    assert!(words.contains("is not trusted for 127.0.0.1"), "{words}");
    assert!(
        words.contains("--ca FILE") && words.contains("SHA-256"),
        "{words}"
    );

    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("other.pem");
    std::fs::write(&file, pem(&Identity::self_signed().unwrap())).unwrap();
    for scenario in ["echo", "storm"] {
        let words = refusal(&run(server.address, &[scenario, "--ca", file.to_str().unwrap()]));
        assert!(words.contains("is not trusted for 127.0.0.1"), "{words}");
    }
}

#[test]
fn a_name_that_the_certificate_does_not_have_is_refused_and_a_right_one_is_not() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["cauce.example".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    let roots = file("ca.pem", authority.pem());
    let identity = Identity::load(
        &file("leaf.pem", leaf.pem()),
        &file("key.pem", key.serialize_pem()),
    );
    let server = Server::with(identity.unwrap(), Writing::Coalesced);
    let ca = ["echo", "--ca", roots.to_str().unwrap()];
    let words = refusal(&run(server.address, &ca));
    assert!(
        words.contains("--server-name") && words.contains("cauce.example"),
        "{words}"
    );
    let named = [&ca[..], &["--server-name", "cauce.example"]].concat();
    let found = outcome(&run(server.address, &named));
    assert_eq!(figure(&found, "lost"), 0.0, "{found}");
}

#[test]
fn a_certificate_goes_unseen_only_by_a_flag_that_says_so_and_the_result_tells() {
    let server = Server::start(Writing::Coalesced);
    let output = run(server.address, &["echo", "--tls-without-verification"]);
    assert_eq!(outcome(&output)["tls"]["verified"], false);
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_not_trusted() {
    // One that answers in plain text, as HTTP servers do, and one that hangs up.
    for answer in [&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        let words = refusal(&run(address, &["echo", "--tls"]));
        assert!(words.contains("does not answer with TLS"), "{words}");
        thread.join().unwrap();
    }
    let plain = LimitServer::bind(
        "127.0.0.1:0".parse().unwrap(),
        Writing::Coalesced,
        Faults::default(),
    );
    let plain = plain.unwrap();
    let (address, stop) = (plain.address().unwrap(), plain.stopper());
    let stopping = stop.clone();
    let thread = std::thread::spawn(move || plain.run(&stopping).unwrap());
    let words = refusal(&run(address, &["echo", "--tls"]));
    assert!(words.contains("does not answer with TLS"), "{words}");
    stop.stop();
    thread.join().unwrap();
}

#[test]
fn a_server_with_tls_is_not_measured_without() {
    let server = Server::start(Writing::Coalesced);
    let words = refusal(&run(server.address, &["echo"]));
    assert!(words.contains("the server speaks TLS"), "{words}");
}

#[test]
fn a_handshake_in_small_pieces_is_a_handshake() {
    let server = Server::start(Writing::Coalesced);
    let target = server.address;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A relay that hands on a few bytes at a time. The first connection is the trial's.
    let relay = std::thread::spawn(move || {
        let pairs = (0..3).map(|_| {
            let (near, _) = listener.accept().unwrap();
            let far = TcpStream::connect(target).unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
            [
                std::thread::spawn(move || crumble(near, far)),
                std::thread::spawn(move || crumble(back.0, back.1)),
            ]
        });
        for thread in pairs.collect::<Vec<_>>().into_iter().flatten() {
            thread.join().unwrap();
        }
    });
    let certificate = server.certificate();
    let output = run(
        address,
        &[
            "echo",
            "--set",
            "shape.pairs=1",
            "--ca",
            certificate.to_str().unwrap(),
        ],
    );
    let found = outcome(&output);
    assert!(figure(&found, "sent") > 0.0, "{found}");
    assert_eq!(figure(&found, "lost"), 0.0, "{found}");
    assert_eq!(found["tls"]["full"], 2, "{found}");
    relay.join().unwrap();
}

/// Copies until either end is gone, seven bytes a write.
fn crumble(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        for piece in buffer[..count].chunks(7) {
            if to.write_all(piece).is_err() {
                return;
            }
        }
    }
    // The other direction ends with it.
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

#[test]
fn the_bare_server_beside_speaks_tls_when_the_target_does() {
    let server = Server::start(Writing::Coalesced);
    let certificate = server.certificate();
    let output = run(
        server.address,
        &[
            "echo",
            "--set",
            "shape.pairs=1",
            "--limit",
            "one-write",
            "--ca",
            certificate.to_str().unwrap(),
        ],
    );
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [target, limit] = [&document["outcomes"][0], &document["outcomes"][1]];
    assert_eq!(limit["server"], "limit, one write");
    for what in ["version", "cipher", "key_exchange", "full"] {
        assert!(!target["tls"][what].is_null(), "{document}");
        assert_eq!(target["tls"][what], limit["tls"][what]);
    }
}
