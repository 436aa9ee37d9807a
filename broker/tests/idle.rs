//! What a connection costs that is authenticated, subscribed and quiet: bytes that the broker has allocated and not given back.
//!
//! The clients of this test own a socket and nothing on the heap (over TLS they forget their keys once they are quiet), so all
//! that is counted is the broker's. The figure that counts
//! in the end is the process's own memory ([docs/BENCHMARKS.md]), which has the allocator's share too; this one is exact, and
//! tells on the day it happens who has put a field into every peer.

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use cauce_protocol::wire::{client_frame::Request, server_frame};
use cauce_protocol::{VERSION, wire};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::files::peers;
use support::raw::{KEY, masked, proto, server_frames};
use support::tls::{certify, settings, trusting};
use support::{Broker, PATIENCE, claims, sign_for};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that one idle connection may have on the heap. It is what was measured and a twentieth; lower it when there is less.
const BYTES_A_CONNECTION_MAX: usize = 1_510;

/// The same of a connection over TLS 1.3.
const BYTES_A_TLS_CONNECTION_MAX: usize = 2_570;

/// Connections before what is measured, and in it. Tables double at the same fill at both ends, so the slope has a whole step of
/// each in it, and no more.
const BEFORE: usize = 400;
const MEASURED: usize = BEFORE;

/// Members of a room.
const ROOM: usize = 100;

/// The longest answer that these clients get.
const ANSWER_BYTES_MAX: usize = 1_024;

fn live_bytes() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Says it and waits for the answer. That answer has left the shard when the next request is read.
fn ask(socket: &mut (impl Read + Write), request: Request) {
    let frame = masked(true, 2, &proto(7, request));
    socket.write_all(&frame).expect("the broker reads");
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let mut read = |len: usize| {
        socket.read_exact(&mut buffer[..len]).expect("an answer");
        buffer[..len].to_vec()
    };
    let len = match read(2)[..] {
        [_, 126] => read(2).iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
        [_, len] => usize::from(len),
        _ => unreachable!("two bytes were read"),
    };
    let frames = server_frames(&read(len));
    let answered = |message: &Option<server_frame::Message>| match message {
        Some(server_frame::Message::Reply(reply)) => !format!("{reply:?}").contains("Error"),
        _ => false,
    };
    assert!(frames.iter().any(|frame| answered(&frame.message)), "{frames:?}");
}

fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, token: &str, room: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the broker listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let Some(config) = tls else {
        join(&mut socket, token, room);
        return socket;
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(config.clone(), name).expect("a connection");
    let mut stream = StreamOwned::new(client, socket);
    join(&mut stream, token, room);
    assert_eq!(
        stream.conn.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    // Without a goodbye: the broker has no reason to end it.
    stream.sock
}

fn join(socket: &mut (impl Read + Write), token: &str, room: &str) {
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        cauce_protocol::SUBPROTOCOL_PROTO
    );
    socket.write_all(head.as_bytes()).expect("the broker reads");
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("an answer to the handshake");
        answer.push(byte[0]);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let hello = wire::Hello {
        version: VERSION,
        token: token.into(),
        ..wire::Hello::default()
    };
    ask(socket, Request::Hello(hello));
    let subscribe = wire::Subscribe {
        rooms: vec![room.into()],
        ..wire::Subscribe::default()
    };
    ask(socket, Request::Subscribe(subscribe));
    ask(socket, Request::Ping(wire::Ping {}));
}

/// The heap is one: what is counted must be alone.
static ALONE: Mutex<()> = Mutex::new(());

fn bytes_a_connection(broker: &Broker, tls: Option<&Arc<ClientConfig>>) -> usize {
    // Both ends of a connection are in this process. Half as many where it may not open so many files: tables are then at the same
    // fill one step before.
    let (before, all) = match peers(BEFORE + MEASURED, 2) {
        fit if fit < BEFORE + MEASURED => (BEFORE / 2, (BEFORE + MEASURED) / 2),
        _ => (BEFORE, BEFORE + MEASURED),
    };
    let tokens: Vec<String> = (0..all)
        .map(|n| sign_for("a", claims(&format!("user-{n}"), &["room-*"])))
        .collect();
    let mut sockets = Vec::with_capacity(all);
    let mut measured = [0; 2];
    for (live, from, to) in [(0, 0, before), (1, before, all)] {
        for (n, token) in tokens.iter().enumerate().take(to).skip(from) {
            sockets.push(connect(broker.address, tls, token, &format!("room-{}", n / ROOM)));
        }
        measured[live] = live_bytes();
    }
    assert_eq!(broker.server.handle().connections(), all);
    (measured[1] - measured[0]) / (all - before)
}

fn assert_little(bytes: usize, bytes_max: usize) {
    println!("{bytes} bytes a connection");
    assert!(
        bytes <= bytes_max,
        "an idle connection has {bytes} bytes on the heap, allowed are {bytes_max}: see docs/BENCHMARKS.md for what it consists of"
    );
}

#[test]
fn an_idle_connection_keeps_little_on_the_heap() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let broker = Broker::with("threads.client_shards=1");
    assert_little(bytes_a_connection(&broker, None), BYTES_A_CONNECTION_MAX);
}

#[test]
fn an_idle_connection_over_tls_keeps_little_on_the_heap() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = trusting(&certify(folder.path()));
    // The client's memory of sessions would be counted.
    config.resumption = Resumption::disabled();
    let broker = Broker::with(&format!("{}threads.client_shards=1", settings(folder.path())));
    let bytes = bytes_a_connection(&broker, Some(&Arc::new(config)));
    assert_little(bytes, BYTES_A_TLS_CONNECTION_MAX);
}
