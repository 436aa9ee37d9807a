//! Dialling: connect, secure, upgrade, authenticate and subscribe, many at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

use cauce_protocol::wire as proto;
use hdrhistogram::Histogram;
use socket2::{Domain, Protocol, Type};

use super::shard::{Joined, Shard, Stage};
use super::{World, histogram};
use crate::clock::SECOND_NS;
use crate::dialect::{Cue, Speaker, Wanted};
use crate::poll::{Interest, Ready, Wait};
use crate::socket::Socket;

/// Ports of one source address that we use before taking the next: the system's range holds some 28,000.
const PORTS_AN_ADDRESS: u32 = 20_000;
/// Of who is to stop reading, what the kernel may keep for it, in bytes ...
const STALLED_BUFFER_BYTES: usize = 4 * 1024;
/// ... and the longest segment: what a kernel lets wait on the way to a peer grows with it.
const STALLED_SEGMENT_BYTES: u32 = 536;
/// From the last progress to giving up.
const PATIENCE_NS: u64 = 30 * SECOND_NS;

/// What dialling took.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// From the call to connect to the answer to subscribe.
    pub(crate) ready: Histogram<u64>,
    pub(crate) failed: u64,
    /// From the first connect to the last answer.
    pub(crate) took_ns: u64,
}

/// Dials those of `seats` that are not connected, `in_flight` at a time over all threads.
///
/// # Errors
/// If the kernel refuses a socket or epoll.
pub(crate) fn dial(shards: &mut [Shard], seats: Range<u32>, in_flight: u32) -> io::Result<Dialled> {
    let share = in_flight.div_ceil(shards.len().max(1) as u32).max(1);
    let outcomes: Vec<io::Result<Dialled>> = std::thread::scope(|scope| {
        let threads: Vec<_> = shards
            .iter_mut()
            .map(|shard| {
                let seats = seats.clone();
                scope.spawn(move || shard.dial(&seats, share))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            })
            .collect()
    });
    let mut all = Dialled {
        ready: histogram(),
        failed: 0,
        took_ns: 0,
    };
    for outcome in outcomes {
        let one = outcome?;
        all.ready.add(&one.ready).map_err(io::Error::other)?;
        all.failed += one.failed;
        all.took_ns = all.took_ns.max(one.took_ns);
    }
    Ok(all)
}

impl Shard {
    fn dial(&mut self, seats: &Range<u32>, in_flight: u32) -> io::Result<Dialled> {
        let clock = self.world.clock;
        let began = clock.now_ns();
        let mut progress = began;
        let mut ready = histogram();
        let (mut next, mut failed) = (0, 0);
        let mut under_way = Vec::new();
        loop {
            while under_way.len() < in_flight as usize && next < self.seats.len() {
                if seats.contains(&self.seats[next].index) && self.seats[next].stage == Stage::Away {
                    self.connect(next)?;
                    under_way.push(next);
                }
                next += 1;
            }
            if under_way.is_empty() {
                break;
            }
            self.turn(SECOND_NS)?;
            let now = clock.now_ns();
            under_way.retain(|&at| {
                let seat = &self.seats[at];
                match seat.stage {
                    Stage::Ready => ready.saturating_record(seat.ready_ns - seat.began_ns),
                    Stage::Away => failed += 1,
                    _ => return true,
                }
                progress = now;
                false
            });
            if now - progress > PATIENCE_NS {
                for at in under_way.drain(..) {
                    failed += 1;
                    self.lose(at, "no answer to a handshake for half a minute");
                }
            }
        }
        Ok(Dialled {
            ready,
            failed,
            took_ns: clock.now_ns() - began,
        })
    }

    /// One turn of waiting and reading.
    fn turn(&mut self, wait_ns: u64) -> io::Result<()> {
        let events = self.poller.wait(Wait::AtMostNs(wait_ns))?;
        for event in 0..events {
            let Some(ready) = self.poller.ready(event) else {
                continue;
            };
            self.attend(ready);
        }
        Ok(())
    }

    /// Does what a socket is ready for.
    #[inline]
    pub(super) fn attend(&mut self, ready: Ready) {
        let at = ready.key as usize;
        if ready.writable {
            match self.seats[at].stage {
                Stage::Connecting => self.connected(at),
                _ => self.flush_seat(at),
            }
        }
        if ready.readable {
            self.receive(at);
        }
    }

    /// Reads until `done` says so; false when `patience_ns` pass without its saying so.
    ///
    /// # Errors
    /// If epoll fails.
    pub(crate) fn pump(&mut self, patience_ns: u64, done: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let until = self.world.clock.now_ns() + patience_ns;
        while !done(self) {
            if self.world.clock.now_ns() > until {
                return Ok(false);
            }
            self.turn(SECOND_NS / 10)?;
        }
        Ok(true)
    }

    /// Rooms that its seats listen to, each counted for each seat.
    pub(crate) fn subscriptions(&self) -> u64 {
        self.seats.iter().map(|seat| seat.joined.len() as u64).sum()
    }

    pub(super) fn connect(&mut self, at: usize) -> io::Result<()> {
        let target = self.world.target;
        let seat = &mut self.seats[at];
        let socket = socket2::Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // However we close, it is a reset: no port waits for a minute, and the next run finds all of them free.
        socket.set_linger(Some(Duration::ZERO))?;
        let address = seat.index / PORTS_AN_ADDRESS;
        if address > 0 && matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            let source = Ipv4Addr::new(127, 0, 0, 1 + address as u8);
            // Binding chooses a port before the peer is known, and would pass over those that wait.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from(SocketAddrV4::new(source, 0)).into())?;
        }
        if seat.stalled {
            // The kernels are to hold little between the two, so that what it does not read soon waits in the server.
            socket.set_recv_buffer_size(STALLED_BUFFER_BYTES)?;
            socket.set_tcp_mss(STALLED_SEGMENT_BYTES)?;
        }
        seat.began_ns = self.world.clock.now_ns();
        match socket.connect(&target.into()) {
            Ok(()) => {}
            // The ordinary answer of a socket that does not block.
            Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => return Err(e),
        }
        let socket = match &self.world.tls {
            None => Socket::new(socket.into()),
            Some(dialer) => {
                let credentials = seat.credentials.get_or_insert_with(|| dialer.credentials());
                Socket::secured(socket.into(), credentials.session()?)
            }
        };
        seat.interest = Interest::ReadWrite;
        self.poller.add(&socket.stream, at as u64, Interest::ReadWrite)?;
        seat.socket = Some(socket);
        seat.stage = Stage::Connecting;
        Ok(())
    }

    fn connected(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        let Some(socket) = &seat.socket else {
            return;
        };
        if let Ok(Some(error)) = socket.stream.take_error() {
            self.lose(at, &error.to_string());
            return;
        }
        if socket.tls().is_some() {
            seat.stage = Stage::Securing;
            self.flush_seat(at);
        } else {
            self.upgrade(at);
        }
    }

    /// The TLS handshake has gone on, and perhaps is complete.
    pub(super) fn secured(&mut self, at: usize) -> io::Result<()> {
        let Some(tls) = self.seats[at].socket.as_ref().and_then(Socket::tls) else {
            return Ok(());
        };
        if tls.is_handshaking() {
            self.flush_seat(at);
        } else {
            self.tally.handshakes.count(tls.facts());
            self.upgrade(at);
        }
        Ok(())
    }

    fn upgrade(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.stage = Stage::Upgrading;
        let token = &self.world.tokens[seat.index as usize];
        let head = self
            .world
            .dialect
            .request(self.world.target, self.world.path.as_deref(), token);
        self.queue(at, head.as_bytes());
        self.flush();
    }

    /// Says what the dialect says on this cue; a cue that has passed, or comes to a connection that is ready, means nothing.
    pub(super) fn say(&mut self, at: usize, cue: Cue, now: u64) {
        let seat = &mut self.seats[at];
        match seat.stage {
            Stage::Upgrading => {}
            Stage::Joining { said, .. } if cue > said => {}
            _ => return,
        }
        let world = &self.world;
        let rooms = &world.topology.seats[seat.index as usize].rooms;
        if cue == Cue::Upgraded && !world.dialect.has_positions() {
            // No answer will tell what number a room has; ours is its place.
            seat.joined = joined(
                world,
                rooms.iter().map(|room| (*room, proto::RoomPosition::default())),
            );
            for (joined, number) in seat.joined.iter_mut().zip(1..) {
                joined.number = number;
            }
        }
        let wanted: Vec<_> = rooms
            .iter()
            .map(|&room| {
                let before = seat.joined.iter().find(|joined| joined.room == room);
                Wanted {
                    name: &world.names[room as usize],
                    epoch: before.map_or(0, |joined| joined.epoch),
                    seq: before.map_or(0, |joined| joined.seq),
                }
            })
            .collect();
        let speaker = Speaker {
            run: &world.run,
            seat: seat.index,
            token: &world.tokens[seat.index as usize],
            rooms: &wanted,
        };
        let words = world.dialect.words(cue, &speaker);
        // One more, so that words that await nothing make the connection ready too.
        seat.stage = Stage::Joining {
            awaited: words.awaited + 1,
            said: cue,
        };
        self.joined_more(at, now);
        self.queue(at, &words.bytes);
    }

    pub(super) fn take_positions(&mut self, at: usize, positions: Vec<proto::RoomPosition>) {
        let seat = &mut self.seats[at];
        let rooms = &self.world.topology.seats[seat.index as usize].rooms;
        let recovered = &mut self.tally.recovered;
        for position in &positions {
            match position.recovery() {
                proto::Recovery::None => {}
                proto::Recovery::Continued => recovered.continued += 1,
                proto::Recovery::Partial => recovered.partial += 1,
                proto::Recovery::Reset => recovered.reset += 1,
            }
        }
        seat.joined = joined(&self.world, rooms.iter().copied().zip(positions));
    }

    pub(super) fn joined_more(&mut self, at: usize, now: u64) {
        let seat = &mut self.seats[at];
        if let Stage::Joining { awaited, said } = seat.stage {
            seat.stage = match awaited {
                0 | 1 => {
                    seat.ready_ns = now;
                    Stage::Ready
                }
                more => Stage::Joining {
                    awaited: more - 1,
                    said,
                },
            };
        }
    }
}

/// Rooms with where a connection is in them, and with its ledgers in the order of the rooms.
fn joined(world: &World, rooms: impl Iterator<Item = (u32, proto::RoomPosition)>) -> Vec<Joined> {
    let mut first_ledger = 0;
    rooms
        .map(|(room, position)| {
            let joined = Joined {
                room,
                number: position.room,
                epoch: position.epoch,
                seq: position.seq,
                first_ledger,
            };
            first_ledger += world.topology.rooms[room as usize].publishers.len() as u32;
            joined
        })
        .collect()
}
