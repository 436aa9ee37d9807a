//! The bare server: just enough of the protocol to be loaded in the broker's place, and nothing between reading a publish and
//! writing its frames. What it reaches is the machine's limit; a broker's figure reads as a fraction of it.
//!
//! It asks for no token, keeps no history and bounds nothing but a reader's backlog: it is a measure, not a server.

mod faults;
mod peer;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cauce_protocol::wire as proto;
use prost::Message as _;

pub use faults::Faults;
use faults::Saboteur;
use peer::Peer;

use crate::poll::{Bell, Interest, Poller, Wait};
use crate::socket::{BUFFER_BYTES, Flushed, READ_BYTES, Socket};
use crate::tls::{Identity, Session};
use crate::wire;

const LISTENER: u64 = 0;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Accepted in one turn.
const ACCEPT_MAX: usize = 64;
const FRAME_BYTES_MAX: usize = READ_BYTES - 16;
/// Epoch of all rooms.
const EPOCH: u64 = 1;
/// How long the bare server sleeps at most, in nanoseconds.
const NAP_NS: u64 = 500_000_000;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// One write for each frame.
    OneByOne,
    /// One write for all frames that a peer gets from one turn of reading.
    Coalesced,
}

#[derive(Debug, Default)]
struct Room {
    members: Vec<usize>,
    seq: u64,
}

/// A bare server.
#[derive(Debug)]
pub struct LimitServer {
    poller: Poller,
    listener: TcpListener,
    writing: Writing,
    identity: Option<Identity>,
    faults: Saboteur,
    peers: Vec<Option<Peer>>,
    vacant: Vec<usize>,
    numbers: HashMap<Vec<u8>, usize>,
    rooms: Vec<Room>,
    /// Peers with something to write.
    dirty: Vec<usize>,
    /// Frames handed to members.
    delivered: u64,
}

/// Stops a server that runs on another thread.
#[derive(Clone, Debug)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
    bell: Bell,
}

impl Stop {
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.bell.ring();
    }
}

impl LimitServer {
    /// Listens at `address`.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(address: SocketAddr, writing: Writing, faults: Faults) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER, Interest::Read)?;
        Ok(Self {
            poller,
            listener,
            writing,
            identity: None,
            faults: Saboteur::new(faults),
            peers: Vec::new(),
            vacant: Vec::new(),
            numbers: HashMap::new(),
            rooms: Vec::new(),
            dirty: Vec::new(),
            delivered: 0,
        })
    }

    /// The same, with TLS alone.
    #[must_use]
    pub fn with_tls(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// # Errors
    /// If the socket has no address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Ends [`Self::run`] from elsewhere.
    pub fn stopper(&self) -> Stop {
        Stop {
            stopped: Arc::new(AtomicBool::new(false)),
            bell: self.poller.bell(),
        }
    }

    /// Serves until `stop`. Returns how many frames were delivered.
    ///
    /// # Errors
    /// If epoll fails.
    pub fn run(mut self, stop: &Stop) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut frame = Vec::new();
        while !stop.stopped.load(Ordering::Acquire) {
            let events = self.poller.wait(Wait::AtMostNs(NAP_NS))?;
            for event in 0..events {
                let Some(ready) = self.poller.ready(event) else {
                    continue;
                };
                if ready.key == LISTENER {
                    self.accept()?;
                    continue;
                }
                let at = ready.key as usize - 1;
                if ready.writable {
                    self.flush(at);
                }
                if ready.readable
                    && let Err(_ended) = self.receive(at, &mut buffer, &mut frame)
                {
                    self.close(at);
                }
            }
            while let Some(at) = self.dirty.pop() {
                self.flush(at);
            }
        }
        Ok(self.delivered)
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPT_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => return Err(e),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.vacant.pop().unwrap_or(self.peers.len());
            self.poller.add(&stream, at as u64 + 1, Interest::Read)?;
            let socket = match &self.identity {
                None => Socket::new(stream),
                Some(identity) => Socket::secured(stream, Session::server(identity.config().clone())?),
            };
            let peer = Some(Peer::new(socket));
            match self.peers.get_mut(at) {
                Some(place) => *place = peer,
                None => self.peers.push(peer),
            }
        }
        Ok(())
    }

    fn receive(&mut self, at: usize, buffer: &mut [u8], frame: &mut Vec<u8>) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(at).and_then(Option::as_mut) else {
            return Ok(());
        };
        let Some(end) = peer.socket.fill(buffer)? else {
            // What TLS has to say goes out at once, and only rarely must wait.
            if !peer.socket.is_flushed() {
                self.flush(at);
            }
            return Ok(());
        };
        let mut from = 0;
        if !peer.upgraded {
            let Some((head, answer)) = peer::upgrade(&buffer[..end])? else {
                peer.socket.keep(&buffer[..end]);
                return Ok(());
            };
            from = head;
            peer.upgraded = true;
            self.write(at, &answer)?;
        }
        while let Some(found) = wire::frame(&buffer[from..end], FRAME_BYTES_MAX).map_err(io::Error::other)? {
            let payload = from + found.payload.start..from + found.payload.end;
            if let Some(mask) = found.mask.filter(|mask| *mask != [0; 4]) {
                for (at, byte) in buffer[payload.clone()].iter_mut().enumerate() {
                    *byte ^= mask[at % 4];
                }
            }
            match found.opcode {
                wire::BINARY => {
                    let mut rest = &buffer[payload];
                    while let Some(message) = wire::take_message(&mut rest) {
                        match wire::publish(message) {
                            Some(publish) => self.fan_out(&publish, frame),
                            None => self.asked(at, message)?,
                        }
                    }
                }
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::put_server_frame(&mut pong, wire::PONG, &buffer[payload]);
                    self.write(at, &pong)?;
                }
                wire::CLOSE => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
            from += found.payload.end;
        }
        if let Some(peer) = &mut self.peers[at] {
            peer.socket.keep(&buffer[from..end]);
        }
        Ok(())
    }

    /// Encodes once, and hands the same bytes to each member.
    fn fan_out(&mut self, publish: &wire::Publish<'_>, frame: &mut Vec<u8>) {
        let Some(&number) = self.numbers.get(publish.room) else {
            return;
        };
        let room = &mut self.rooms[number];
        room.seq += 1;
        frame.clear();
        wire::put_push(frame, number as u64 + 1, room.seq, publish);
        for member in 0..self.rooms[number].members.len() {
            let at = self.rooms[number].members[member];
            let copies = if self.faults.any() {
                self.faults.copies(at, frame)
            } else {
                faults::Copies::Once
            };
            match copies {
                faults::Copies::Once => self.deliver(at, frame),
                faults::Copies::None => {}
                faults::Copies::Twice => {
                    self.deliver(at, frame);
                    self.deliver(at, frame);
                }
                faults::Copies::After(earlier) => {
                    self.deliver(at, frame);
                    self.deliver(at, &earlier);
                }
            }
        }
    }

    #[inline]
    fn deliver(&mut self, at: usize, frame: &[u8]) {
        self.delivered += 1;
        let Some(peer) = self.peers.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        match self.writing {
            Writing::Coalesced => {
                if peer.socket.is_flushed() {
                    self.dirty.push(at);
                }
                // Who is over the bound misses messages until it reads again; the generator counts them as lost.
                if !peer.socket.is_over_bound() {
                    peer.socket.queue(frame);
                }
            }
            Writing::OneByOne => {
                // The same; and who cannot be written to at all is closed when it is read.
                let _ = self.write(at, frame);
            }
        }
    }

    fn asked(&mut self, at: usize, message: &[u8]) -> io::Result<()> {
        use proto::client_frame::Request;
        use proto::reply::Outcome;
        let frame = proto::ClientFrame::decode(message).map_err(io::Error::other)?;
        let outcome = match frame.request {
            Some(Request::Hello(_)) => Outcome::Welcome(proto::Welcome {
                connection: at as u64 + 1,
                version: cauce_protocol::VERSION,
                ..proto::Welcome::default()
            }),
            Some(Request::Subscribe(subscribe)) => {
                let names = subscribe.rooms.into_iter();
                let names = names.chain(subscribe.subscriptions.into_iter().map(|s| s.room));
                let rooms = names.map(|name| self.join(at, name)).collect();
                Outcome::Subscribed(proto::Subscribed { rooms })
            }
            Some(Request::Ping(_)) => Outcome::Pong(proto::Pong::default()),
            _ => Outcome::Done(proto::Done {}),
        };
        let reply = proto::Reply {
            id: frame.id,
            outcome: Some(outcome),
        };
        self.write(
            at,
            &wire::server_message(proto::server_frame::Message::Reply(reply)),
        )
    }

    fn join(&mut self, at: usize, name: String) -> proto::RoomPosition {
        let number = *self.numbers.entry(name.clone().into_bytes()).or_insert_with(|| {
            self.rooms.push(Room::default());
            self.rooms.len() - 1
        });
        let room = &mut self.rooms[number];
        if !room.members.contains(&at) {
            room.members.push(at);
            if let Some(peer) = &mut self.peers[at] {
                peer.rooms.push(number);
            }
        }
        proto::RoomPosition {
            name,
            room: number as u64 + 1,
            epoch: EPOCH,
            seq: room.seq,
            head: room.seq,
            ..proto::RoomPosition::default()
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(at).and_then(Option::as_mut) else {
            return Ok(());
        };
        if peer.socket.write_or_queue(bytes)? == Flushed::Blocked && peer.interest == Interest::Read {
            peer.interest = Interest::ReadWrite;
            self.poller
                .change(&peer.socket.stream, at as u64 + 1, Interest::ReadWrite)?;
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) {
        let Some(peer) = self.peers.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let outcome = peer.socket.flush().and_then(|flushed| {
            let interest = match flushed {
                Flushed::All => Interest::Read,
                Flushed::Blocked => Interest::ReadWrite,
            };
            if interest != peer.interest {
                peer.interest = interest;
                self.poller.change(&peer.socket.stream, at as u64 + 1, interest)?;
            }
            Ok(())
        });
        if outcome.is_err() {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        let Some(peer) = self.peers.get_mut(at).and_then(Option::take) else {
            return;
        };
        for room in peer.rooms {
            self.rooms[room].members.retain(|member| *member != at);
        }
        self.vacant.push(at);
    }
}
