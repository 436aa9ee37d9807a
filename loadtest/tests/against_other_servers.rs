//! The whole program against real servers of other kinds, on free ports of loopback, with TLS and without. What is checked are
//! counts, which do not depend on how busy the machine is.
//!
//! These tests want Node with the packages of `loadtest/peers`, mosquitto and nats-server, and are ignored unless asked for:
//! `scripts/check-peers.sh` gets what is missing and asks. A server that does not start fails its test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// How often a program is started whose port somebody else has taken.
const STARTS_MAX: u32 = 5;

struct Peer {
    child: Child,
    address: SocketAddr,
    /// What it shows over TLS.
    certified: Option<Certified>,
    /// What was written for it, to be removed.
    settings: Option<PathBuf>,
}

/// A certificate for loopback that nobody has signed, and its key, in files.
struct Certified(tempfile::TempDir);

impl Certified {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Mosquitto gives up root, and reads them only then. They are good for nothing but this test.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn certificate(&self) -> PathBuf {
        self.0.path().join("cert.pem")
    }

    fn files(&self) -> [PathBuf; 2] {
        [self.certificate(), self.0.path().join("key.pem")]
    }
}

fn peers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Peer {
    /// A script that says where it listens.
    fn node(script: &str) -> Self {
        Self::node_with(&[], script, None)
    }

    fn node_with(options: &[&str], script: &str, certified: Option<Certified>) -> Self {
        let mut child = Command::new("node")
            .args(options)
            .arg(peers().join(script))
            .arg("0")
            .args(certified.iter().flat_map(Certified::files))
            .stdout(Stdio::piped())
            .spawn()
            .expect("node: run scripts/check-peers.sh");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse();
        Self {
            address: address.unwrap_or_else(|_| panic!("{script} did not start: {line:?}")),
            child,
            certified,
            settings: None,
        }
    }

    fn nats() -> Self {
        Self::with_settings("nats-server", "nats.conf", &["8222"], || None)
    }

    fn mosquitto() -> Self {
        Self::with_settings("mosquitto", "mosquitto.conf", &["8083", "1883"], || None)
    }

    /// A program with the settings that we ship, at other ports; over TLS, with what they name for it in a comment. Between the ports' choice
    /// and its start somebody else may take one; then it ends, and is started at others.
    fn with_settings(
        program: &str,
        file: &str,
        ports: &[&str],
        certified: impl Fn() -> Option<Certified>,
    ) -> Self {
        let mut tries = (0..STARTS_MAX).map(|_| Self::at_free_ports(program, file, ports, certified()));
        tries
            .find_map(Result::ok)
            .unwrap_or_else(|| panic!("{program} ended each time"))
    }

    /// # Errors
    /// With how it ended, if it did before it listened.
    fn at_free_ports(
        program: &str,
        file: &str,
        ports: &[&str],
        certified: Option<Certified>,
    ) -> Result<Self, ExitStatus> {
        let mut settings = std::fs::read_to_string(peers().join(file)).unwrap();
        let mut first = None;
        for port in ports {
            let free = free_port();
            assert!(settings.contains(port), "{file} names {port}");
            settings = settings.replace(port, &free.to_string());
            first.get_or_insert(free);
        }
        if let Some(certified) = &certified {
            settings = settings.replace("no_tls: true", "");
            for (name, path) in ["cert.pem", "key.pem"].iter().zip(certified.files()) {
                assert!(settings.contains(name), "{file} names {name}");
                settings = settings.replace(name, path.to_str().unwrap());
            }
            for of_tls in ["tls {", "certfile", "keyfile"] {
                settings = settings.replace(&format!("# {of_tls}"), of_tls);
            }
        }
        let address = SocketAddr::from(([127, 0, 0, 1], first.unwrap()));
        let path = std::env::temp_dir().join(format!("cauce-peer-{}-{file}", address.port()));
        std::fs::write(&path, settings).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}: run scripts/check-peers.sh"));
        let mut peer = Self {
            child,
            address,
            certified,
            settings: Some(path),
        };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = peer.child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(began.elapsed() < PATIENCE, "{program} does not listen");
            std::thread::yield_now();
        }
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = &self.settings {
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Run {
    words: String,
    outcome: serde_json::Value,
}

fn load(dialect: &str, address: SocketAddr, scenario: &str) -> Run {
    load_trusting(None, dialect, address, scenario)
}

fn load_trusting(ca: Option<&Path>, dialect: &str, address: SocketAddr, scenario: &str) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
        .env_remove("LOADTEST_KEY")
        .args(["run", "--dialect", dialect, "--target", &address.to_string()])
        .args(["--quiet", "--json", "-", "--warmup", "0.1", "--seconds", "0.4"])
        .args(["--set", "load.drain_seconds=20"])
        .args(scenario.split(' '))
        .args(ca.iter().flat_map(|ca| [Path::new("--ca"), ca]))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{dialect} {scenario}: {e}: {words}"));
    Run {
        words,
        outcome: document["outcomes"][0].clone(),
    }
}

impl Run {
    fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.outcome["metrics"].as_array()?;
        metrics.iter().find(|m| m["name"] == name)?["value"].as_f64()
    }

    fn figure(&self, name: &str) -> f64 {
        self.metric(name)
            .unwrap_or_else(|| panic!("no {name}: {} {}", self.outcome, self.words))
    }

    fn assert_whole(&self, receivers: f64) {
        for fault in ["lost", "duplicates", "reordered", "foreign", "disconnected"] {
            assert_eq!(self.figure(fault), 0.0, "{fault}: {}", self.outcome);
        }
        assert_eq!(
            self.metric("sequence_breaks"),
            None,
            "there is no sequence to break"
        );
        assert!(self.figure("sent") > 0.0 && self.figure("measured") > 0.0);
        assert_eq!(self.figure("received"), self.figure("sent") * receivers);
    }
}

/// The workloads that carry messages at a rate of their own, and many handshakes. Over TLS if the server has a certificate.
fn messages_are_whole(dialect: &str, peer: &Peer) {
    let ca = peer.certified.as_ref().map(Certified::certificate);
    let load = |scenario: &str| load_trusting(ca.as_deref(), dialect, peer.address, scenario);
    let fanout = load("fanout --set shape.subscribers=20 --outstanding 4");
    fanout.assert_whole(20.0);
    // Twenty who listen, and who publishes; all for the first time.
    assert_eq!(fanout.metric("handshakes_full"), ca.as_ref().map(|_| 21.0));
    load("rooms --set shape.rooms=5 --set shape.members=3 --rate 300 --threads 2").assert_whole(3.0);
    load("pairs --set shape.connections=10 --rate 200 --set load.payload_bytes=3000").assert_whole(1.0);
    let storm = load("storm --set shape.connections=100 --set shape.in_flight=20");
    assert_eq!(storm.figure("failed"), 0.0, "{}", storm.outcome);
}

fn every_workload_is_whole(dialect: &str, peer: &Peer) {
    messages_are_whole(dialect, peer);
    let load = |scenario: &str| load(dialect, peer.address, scenario);
    load("echo --set shape.pairs=2").assert_whole(2.0);
    // Two turns of each state have every change of state. Each is a burst of a second; and where that fills what the server keeps for a reader,
    // each message may take long by design: nats-server then holds its publisher for 100 ms, once for each that does not read.
    load("slow --set shape.subscribers=9 --set shape.stalled=2 --set shape.turns=2 --rate 50")
        .assert_whole(7.0);
    let idle = load(
        "idle --set shape.connections=[10,30] --set shape.rest_seconds=0 --set shape.in_flight=10 --set shape.room_size=5",
    );
    assert!(idle.figure("private_at_30") > 0.0);
}

#[test]
#[ignore = "wants Node and loadtest/peers/node_modules: scripts/check-peers.sh"]
fn plain_websocket_on_node_runs_every_workload() {
    let peer = Peer::node("ws.mjs");
    every_workload_is_whole("plain", &peer);
    let json = "pairs --set shape.connections=4 --rate 100 --set load.payload=json";
    load("plain", peer.address, json).assert_whole(1.0);
}

#[test]
#[ignore = "wants Node and loadtest/peers/node_modules: scripts/check-peers.sh"]
fn socket_io_runs_every_workload() {
    let peer = Peer::node("socketio.mjs");
    every_workload_is_whole("socketio", &peer);
}

#[test]
#[ignore = "wants nats-server: scripts/check-peers.sh"]
fn nats_runs_every_workload() {
    let peer = Peer::nats();
    every_workload_is_whole("nats", &peer);
}

#[test]
#[ignore = "wants mosquitto: scripts/check-peers.sh"]
fn mosquitto_runs_every_workload() {
    let peer = Peer::mosquitto();
    every_workload_is_whole("mqtt", &peer);
}

#[test]
#[ignore = "wants Node and loadtest/peers/node_modules: scripts/check-peers.sh"]
fn messages_of_plain_websocket_and_socket_io_are_whole_over_tls() {
    for (dialect, script) in [("plain", "ws.mjs"), ("socketio", "socketio.mjs")] {
        let peer = Peer::node_with(&[], script, Some(Certified::new()));
        messages_are_whole(dialect, &peer);
    }
}

#[test]
#[ignore = "wants Node and loadtest/peers/node_modules: scripts/check-peers.sh"]
fn messages_of_a_server_that_knows_only_tls_1_2_are_whole_too() {
    let peer = Peer::node_with(&["--tls-max-v1.2"], "ws.mjs", Some(Certified::new()));
    messages_are_whole("plain", &peer);
    let ca = peer.certified.as_ref().unwrap().certificate();
    let echo = load_trusting(Some(&ca), "plain", peer.address, "echo --set shape.pairs=1");
    assert_eq!(echo.outcome["tls"]["version"], "1.2", "{}", echo.outcome);
}

#[test]
#[ignore = "wants mosquitto and nats-server: scripts/check-peers.sh"]
fn messages_of_nats_and_mosquitto_are_whole_over_tls() {
    let certified = || Some(Certified::new());
    let nats = Peer::with_settings("nats-server", "nats.conf", &["8222"], certified);
    messages_are_whole("nats", &nats);
    let ports = ["8083", "1883"];
    let mosquitto = Peer::with_settings("mosquitto", "mosquitto.conf", &ports, certified);
    messages_are_whole("mqtt", &mosquitto);
}

#[test]
#[ignore = "wants mosquitto and nats-server: scripts/check-peers.sh"]
fn streams_are_read_whole_when_websocket_messages_cut_them_anywhere() {
    let nats = Peer::nats();
    let mosquitto = Peer::mosquitto();
    for (dialect, peer) in [("nats", &nats), ("mqtt", &mosquitto)] {
        for bytes in [1, 7, 100] {
            let cutter = cut_messages(peer.address, bytes);
            load(
                dialect,
                cutter,
                "fanout --set shape.subscribers=3 --outstanding 2",
            )
            .assert_whole(3.0);
        }
    }
}

#[test]
#[ignore = "wants nats-server: scripts/check-peers.sh"]
fn a_server_of_another_kind_is_refused_in_words() {
    let peer = Peer::nats();
    let output = Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
        .args(["run", "echo", "--dialect", "mqtt", "--quiet"])
        .args(["--target", &peer.address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("connections failed"), "{words}");
}

/// Stands before a server, and cuts the binary messages that it sends into messages of `bytes`. Ends with the test.
fn cut_messages(server: SocketAddr, bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            let (mut up, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut up_to);
                let _ = up_to.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ended = cut(BufReader::new(server), client, bytes);
            });
        }
    });
    address
}

fn cut(mut from: BufReader<TcpStream>, mut to: TcpStream, bytes: usize) -> std::io::Result<()> {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        from.read_line(&mut line)?;
        to.write_all(line.as_bytes())?;
    }
    loop {
        let mut head = [0; 2];
        from.read_exact(&mut head)?;
        let len = match head[1] & 0x7f {
            126 => {
                let mut len = [0; 2];
                from.read_exact(&mut len)?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => return Err(std::io::Error::other("longer than this test sends")),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        from.read_exact(&mut payload)?;
        let size = if head[0] & 0x0f == 2 { bytes } else { len.max(1) };
        let mut out = Vec::new();
        for piece in payload.chunks(size) {
            out.extend([head[0], piece.len() as u8]);
            out.extend(piece);
        }
        to.write_all(&out)?;
    }
}
