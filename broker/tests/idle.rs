//! What a connection costs that is authenticated, subscribed and quiet: bytes that the broker has allocated and not given back.
//!
//! The clients of this test own a socket and nothing on the heap, so all that is counted is the broker's. The figure that counts
//! in the end is the process's own memory ([docs/BENCHMARKS.md]), which has the allocator's share too; this one is exact, and
//! tells on the day it happens who has put a field into every peer.

mod support;

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use cauce_protocol::wire::{client_frame::Request, server_frame};
use cauce_protocol::{VERSION, wire};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::raw::{KEY, masked, proto, server_frames};
use support::{Broker, PATIENCE, claims, sign_for};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that one idle connection may have on the heap. It is what was measured and a twentieth; lower it when there is less.
const BYTES_A_CONNECTION_MAX: usize = 1_510;

/// Connections before what is measured, and in it. Tables double at the same fill at both ends, so the slope has a whole step of
/// each in it, and no more.
const BEFORE: usize = 400;
const MEASURED: usize = 400;

/// Members of a room.
const ROOM: usize = 100;

/// The longest answer that these clients get.
const ANSWER_BYTES_MAX: usize = 1_024;

fn live_bytes() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Says it and waits for the answer. That answer has left the shard when the next request is read.
fn ask(socket: &mut TcpStream, request: Request) {
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

fn connect(address: SocketAddr, token: &str, room: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the broker listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
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
    ask(&mut socket, Request::Hello(hello));
    let subscribe = wire::Subscribe {
        rooms: vec![room.into()],
        ..wire::Subscribe::default()
    };
    ask(&mut socket, Request::Subscribe(subscribe));
    ask(&mut socket, Request::Ping(wire::Ping {}));
    socket
}

#[test]
fn an_idle_connection_keeps_little_on_the_heap() {
    let broker = Broker::with("threads.client_shards=1");
    let all = BEFORE + MEASURED;
    let tokens: Vec<String> = (0..all)
        .map(|n| sign_for("a", claims(&format!("user-{n}"), &["room-*"])))
        .collect();
    let mut sockets = Vec::with_capacity(all);
    let mut measured = [0; 2];
    for (live, from, to) in [(0, 0, BEFORE), (1, BEFORE, all)] {
        for (n, token) in tokens.iter().enumerate().take(to).skip(from) {
            sockets.push(connect(broker.address, token, &format!("room-{}", n / ROOM)));
        }
        measured[live] = live_bytes();
    }
    let bytes = (measured[1] - measured[0]) / MEASURED;
    println!("{bytes} bytes a connection");
    assert!(
        bytes <= BYTES_A_CONNECTION_MAX,
        "an idle connection has {bytes} bytes on the heap, allowed are {BYTES_A_CONNECTION_MAX}: see docs/BENCHMARKS.md for what it consists of"
    );
}
