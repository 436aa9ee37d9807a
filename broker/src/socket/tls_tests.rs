//! Our side against rustls's client, in memory.

use std::io::{Read as _, Write as _};

use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, CipherSuiteCommon, ClientConfig, ClientConnection, SupportedCipherSuite,
    Tls13CipherSuite,
};

use super::*;

/// A reader that is often too small for what comes.
const READER_BYTES: usize = 100;

struct Pair {
    client: ClientConnection,
    server: Tls,
    /// Content that came to the server.
    heard: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Setting {
    suite: SupportedCipherSuite,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
    tickets: usize,
    /// Of the client's records.
    fragment_bytes: Option<usize>,
}

static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

const SETTING: Setting = Setting {
    suite: aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    versions: TLS13,
    tickets: 1,
    fragment_bytes: None,
};

const SUITES: [SupportedCipherSuite; 3] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn configs(setting: Setting) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![setting.suite],
        ..aws_lc_rs::default_provider()
    });
    let certified = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(setting.versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate with its key");
    server.ticketer = aws_lc_rs::Ticketer::new().expect("randomness");
    server.send_tls13_tickets = setting.tickets;
    server.enable_secret_extraction = true;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(setting.versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.max_fragment_size = setting.fragment_bytes;
    (Arc::new(server), Arc::new(client))
}

impl Pair {
    fn new((server, client): (Arc<ServerConfig>, Arc<ClientConfig>)) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        Self {
            client: ClientConnection::new(client, name).expect("a connection"),
            server: Tls::accept(server).expect("a connection"),
            heard: Vec::new(),
        }
    }

    /// After a handshake in which the server has read everything at once.
    fn open(setting: Setting) -> Self {
        let mut pair = Self::new(configs(setting));
        while pair.client.is_handshaking() {
            pair.turn();
        }
        pair.turn();
        pair
    }

    /// The client's records that are to be sent.
    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).expect("a vector takes all");
        }
        flight
    }

    /// The server reads `bytes` in one go.
    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = [0; READER_BYTES];
        let read = |room: &mut [u8]| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        };
        if let Opened::Content(bytes) = self.server.open(&mut buffer, read)? {
            self.heard.extend_from_slice(&buffer[..bytes]);
        }
        while let Some(bytes @ 1..) = self.server.take_opened(&mut buffer) {
            self.heard.extend_from_slice(&buffer[..bytes]);
        }
        Ok(())
    }

    /// The client reads `bytes`; answers the content.
    fn tell(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut content = Vec::new();
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("a slice gives all");
            self.client.process_new_packets()?;
            // The end of what is there is an error that does not matter here.
            let _ = self.client.reader().read_to_end(&mut content);
        }
        Ok(content)
    }

    /// What waits for the kernel.
    fn outgoing(&mut self) -> Vec<u8> {
        let outgoing = self.server.outgoing().to_vec();
        self.server.advance(outgoing.len());
        outgoing
    }

    /// What the client has to say goes to the server, and what that answers back.
    fn turn(&mut self) {
        let flight = self.flight();
        if !flight.is_empty() {
            self.feed(&flight).expect("the server takes it");
        }
        let outgoing = self.outgoing();
        self.tell(&outgoing).expect("the client takes it");
    }

    fn client_says(&mut self, content: &[u8]) {
        self.client.writer().write_all(content).expect("room");
    }

    fn server_says(&mut self, content: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        let (half, rest) = content.split_at(content.len() / 2);
        let said = self
            .server
            .seal(&[IoSlice::new(half), IoSlice::new(rest)], |bytes| {
                sealed.extend_from_slice(bytes);
                Ok(bytes.len())
            });
        assert_eq!(said.expect("sealed"), content.len());
        sealed
    }

    /// Both sides still understand each other.
    fn assert_open(&mut self) {
        self.heard.clear();
        self.client_says(b"from the client");
        let flight = self.flight();
        self.feed(&flight).expect("taken");
        assert_eq!(self.heard, b"from the client");
        let sealed = self.server_says(b"from the server");
        assert_eq!(self.tell(&sealed).expect("taken"), b"from the server");
    }

    fn is_ours(&self) -> bool {
        matches!(self.server.layer, Layer::Traffic(_))
    }
}

#[test]
fn a_connection_is_ours_once_the_clients_finished_has_come() {
    for suite in SUITES {
        for tickets in [0, 1, 2] {
            let mut pair = Pair::open(Setting {
                suite,
                tickets,
                ..SETTING
            });
            assert!(pair.is_ours());
            assert_eq!(pair.client.tls13_tickets_received(), tickets as u32);
            pair.assert_open();
            assert!(pair.server.kept.incoming.capacity() == 0 && pair.server.kept.outgoing.capacity() == 0);
        }
    }
}

#[test]
fn what_comes_right_behind_finished_is_opened_wherever_the_stream_is_cut() {
    let configs = [0, 1].map(|tickets| configs(Setting { tickets, ..SETTING }));
    for configs in configs {
        for cut in 0.. {
            let mut pair = Pair::new(configs.clone());
            let hello = pair.flight();
            pair.feed(&hello).expect("taken");
            let outgoing = pair.outgoing();
            pair.tell(&outgoing).expect("taken");
            // Finished, content, a key update and content under the new key: all at once.
            pair.client_says(b"one ");
            pair.client.refresh_traffic_keys().expect("the handshake is over");
            pair.client_says(b"two");
            let flight = pair.flight();
            if cut >= flight.len() {
                break;
            }
            let (first, second) = flight.split_at(cut);
            for bytes in [first, second].into_iter().filter(|bytes| !bytes.is_empty()) {
                pair.feed(bytes).expect("taken");
            }
            assert_eq!(pair.heard, b"one two", "cut at {cut}");
            let outgoing = pair.outgoing();
            pair.tell(&outgoing).expect("taken");
            pair.assert_open();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_whole_connection_in_any_pieces_says_what_was_said(
        fragment_bytes in prop::option::of(40usize..400),
        cuts in prop::collection::vec(1usize..500, 1..20),
        size in 0usize..2_000,
        suite in 0..SUITES.len(),
    ) {
        let mut pair = Pair::new(configs(Setting { suite: SUITES[suite], fragment_bytes, ..SETTING }));
        let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let mut cuts = cuts.iter().cycle();
        // The client's writer keeps content until the handshake is over.
        pair.client_says(&content);
        for _ in 0..4 {
            let flight = pair.flight();
            let mut rest = &flight[..];
            while !rest.is_empty() {
                let cut = cuts.next().expect("a cycle");
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                pair.feed(piece).expect("taken");
                rest = later;
            }
            let outgoing = pair.outgoing();
            pair.tell(&outgoing).expect("taken");
        }
        prop_assert!(pair.is_ours());
        prop_assert!(pair.heard == content);
        let sealed = pair.server_says(&content);
        prop_assert!(pair.tell(&sealed).expect("taken") == content);
    }
}

#[test]
fn messages_of_every_size_pass_both_ways_with_key_updates_in_between() {
    for suite in SUITES {
        let mut pair = Pair::open(Setting { suite, ..SETTING });
        for size in [0, 1, 100, 16_383, 16_384, 16_385, 50_000] {
            let content: Vec<u8> = (0..size).map(|n| (n * 7) as u8).collect();
            pair.heard.clear();
            for part in content.chunks(8_000) {
                pair.client_says(part);
                // Asks us for one in return.
                pair.client.refresh_traffic_keys().expect("open");
                let flight = pair.flight();
                pair.feed(&flight).expect("taken");
            }
            assert!(pair.heard == content);
            let sealed = pair.server_says(&content);
            assert!(pair.tell(&sealed).expect("taken") == content);
        }
    }
}

/// The AES-128 suite with a limit that tests can reach.
fn soon_exhausted(confidentiality_limit: u64) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(suite) = SETTING.suite else {
        unreachable!("a suite of TLS 1.3")
    };
    let common = CipherSuiteCommon {
        suite: suite.common.suite,
        hash_provider: suite.common.hash_provider,
        confidentiality_limit,
    };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common,
        hkdf_provider: suite.hkdf_provider,
        aead_alg: suite.aead_alg,
        quic: None,
    })))
}

#[test]
fn our_key_changes_before_the_limit_of_its_suite_and_the_client_follows() {
    let suite = soon_exhausted(4);
    let mut pair = Pair::open(Setting { suite, ..SETTING });
    let mut keys_updated = 0;
    for n in 0..50_u8 {
        let sealed = pair.server_says(&[n; 10]);
        // A key update of ours is a record of its own before the content's.
        keys_updated += usize::from(sealed.len() > 5 + 10 + 1 + 16);
        assert_eq!(pair.tell(&sealed).expect("the client follows"), [n; 10]);
    }
    // Three records and the update under each key; the ticket was the first record of all.
    assert_eq!(keys_updated, 16);
    pair.assert_open();
}

#[test]
fn a_client_that_changes_its_key_at_its_own_limit_is_followed() {
    let suite = soon_exhausted(3);
    let mut pair = Pair::open(Setting { suite, ..SETTING });
    for n in 0..30_u8 {
        pair.client_says(&[n]);
        let flight = pair.flight();
        pair.feed(&flight).expect("followed");
    }
    assert_eq!(pair.heard, (0..30).collect::<Vec<u8>>());
    pair.assert_open();
}

#[test]
fn tls_1_2_stays_with_rustls() {
    let mut pair = Pair::open(Setting {
        suite: aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        versions: TLS12,
        ..SETTING
    });
    assert!(!pair.is_ours());
    for size in [1, 16_385, 50_000] {
        let content = vec![5; size];
        let sealed = pair.server_says(&content);
        assert!(pair.tell(&sealed).expect("taken") == content);
    }
    pair.assert_open();
    pair.client.send_close_notify();
    let flight = pair.flight();
    pair.feed(&flight).expect("taken");
    assert_eq!(pair.server.take_opened(&mut [0; 10]), Some(0));
}

#[test]
fn a_refused_record_is_told_behind_what_waits_and_takes_the_keys_with_it() {
    let mut pair = Pair::open(SETTING);
    // The kernel takes nothing of this.
    pair.server
        .seal(&[IoSlice::new(b"before")], |_| {
            Err(io::ErrorKind::WouldBlock.into())
        })
        .expect("it is kept");
    pair.client_says(b"changed on the way");
    let mut flight = pair.flight();
    *flight.last_mut().expect("a record") ^= 1;
    let error = pair.feed(&flight).expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(pair.heard.is_empty());
    assert!(matches!(pair.server.layer, Layer::Ended));

    let outgoing = pair.outgoing();
    let told = pair.tell(&outgoing).expect_err("an alert");
    assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    let mut content = Vec::new();
    let _ = pair.client.reader().read_to_end(&mut content);
    assert_eq!(content, b"before");

    // Nothing more is read, sealed or said.
    let flight = [23, 3, 3, 0, 17];
    assert_eq!(
        pair.feed(&flight).expect_err("over").kind(),
        io::ErrorKind::BrokenPipe
    );
    let sealed = pair
        .server
        .seal(&[IoSlice::new(b"more")], |_| panic!("nothing to write"));
    assert_eq!(sealed.expect_err("over").kind(), io::ErrorKind::BrokenPipe);
    pair.server.close(|_| panic!("nothing to write"));
}

#[test]
fn each_side_may_end_its_direction_first() {
    let mut pair = Pair::open(SETTING);
    pair.client_says(b"last");
    pair.client.send_close_notify();
    let mut flight = pair.flight();
    // What is behind a goodbye does not count, whatever it is.
    flight.extend(b"rubbish");
    pair.feed(&flight).expect("taken");
    assert_eq!(pair.heard, b"last");
    assert_eq!(pair.server.take_opened(&mut [0; 10]), Some(0));
    assert!(pair.server.kept.incoming.is_empty());
    // We may still speak.
    let sealed = pair.server_says(b"answer");
    assert_eq!(pair.tell(&sealed).expect("taken"), b"answer");

    let mut sealed = Vec::new();
    pair.server.close(|bytes| {
        sealed.extend_from_slice(bytes);
        Ok(bytes.len())
    });
    pair.tell(&sealed).expect("taken");
    let state = pair.client.process_new_packets().expect("no error");
    assert!(state.peer_has_closed());
    pair.server.close(|_| panic!("said once"));
    let more = pair
        .server
        .seal(&[IoSlice::new(b"more")], |_| panic!("nothing to write"));
    assert_eq!(more.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_alert_of_the_client_ends_it_with_its_name() {
    let mut pair = Pair::open(SETTING);
    // Our own record, changed, makes the client say bad_record_mac.
    let mut sealed = pair.server_says(b"changed on the way");
    *sealed.last_mut().expect("a record") ^= 1;
    pair.tell(&sealed).expect_err("refused");
    let flight = pair.flight();
    let error = pair.feed(&flight).expect_err("an alert");
    assert_eq!(error.to_string(), "the peer ended TLS: bad_record_mac");
    assert!(pair.outgoing().is_empty(), "an alert is not answered");
}

#[test]
fn tls_that_may_not_be_taken_over_ends_with_its_handshake() {
    let (server, client) = configs(SETTING);
    let mut server = ServerConfig::clone(&server);
    server.enable_secret_extraction = false;
    let mut pair = Pair::new((Arc::new(server), client));
    let hello = pair.flight();
    pair.feed(&hello).expect("taken");
    let outgoing = pair.outgoing();
    pair.tell(&outgoing).expect("taken");
    let finished = pair.flight();
    assert!(pair.feed(&finished).is_err());
    assert!(matches!(pair.server.layer, Layer::Ended));
}
