//! One thread's connections, and what they publish.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::closed::ClosedLoop;
use super::{World, histogram};
use crate::dialect::Cue;
use crate::ledger::Ledger;
use crate::poll::{Interest, Poller};
use crate::socket::{BUFFER_BYTES, Flushed, Socket, UNREAD};
use crate::stamp::Stamp;
use crate::tls::{Credentials, Handshakes};
use crate::wire::Template;

/// Different reasons that are kept in words; more are counted under one name.
const REASONS_MAX: usize = 16;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Away,
    Connecting,
    /// The TLS handshake is under way.
    Securing,
    Upgrading,
    /// It has spoken on this cue; so many answers are missing.
    Joining {
        awaited: u32,
        said: Cue,
    },
    Ready,
}

/// A room as one connection has joined it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    /// Ours.
    pub(crate) room: u32,
    /// The broker's number for it.
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// Where the room's publishers begin among the seat's ledgers.
    pub(crate) first_ledger: u32,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) index: u32,
    pub(crate) stage: Stage,
    pub(crate) socket: Option<Socket>,
    /// Made for its first connection, and kept for those that resume.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) interest: Interest,
    pub(crate) began_ns: u64,
    pub(crate) ready_ns: u64,
    pub(crate) joined: Vec<Joined>,
    pub(crate) ledgers: Vec<Ledger>,
    /// It is to stop reading.
    pub(crate) stalled: bool,
    /// Where a protocol is a stream: the beginning of something whose end is in a later WebSocket message.
    pub(super) half: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Publishing {
    pub(crate) index: u32,
    /// Among the thread's seats.
    pub(crate) seat: usize,
    pub(crate) sent: u64,
    pub(crate) receivers: u32,
    pub(crate) receipts_to_finish: u32,
    template: Template,
}

/// What became of the positions that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) continued: u64,
    pub(crate) partial: u64,
    pub(crate) reset: u64,
}

/// Counts of one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Receipts that the messages sent so far must lead to.
    pub(crate) expected: u64,
    /// Receipts, each message once for each receiver.
    pub(crate) received: u64,
    /// Messages that are not of this run, or not of the room.
    pub(crate) foreign: u64,
    /// A room's number that was not the one after the last.
    pub(crate) sequence_breaks: u64,
    /// Messages that the broker said will not come.
    pub(crate) told_lost: u64,
    /// Messages that the server did not take, and said so ...
    pub(crate) refused: u64,
    /// ... and the receipts that they do not lead to.
    pub(crate) refused_receipts: u64,
    pub(crate) disconnected: u64,
    /// The same of those who had stopped reading.
    pub(crate) thrown_out: u64,
    /// Connections that were cut on purpose and dialled again.
    pub(crate) churned: u64,
    pub(crate) recovered: Recovered,
    pub(crate) handshakes: Handshakes,
    /// Why connections ended and requests were refused.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn note(&mut self, reason: String) {
        let reason = if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason) {
            reason
        } else {
            "other reasons".to_owned()
        };
        *self.reasons.entry(reason).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.foreign += other.foreign;
        self.sequence_breaks += other.sequence_breaks;
        self.told_lost += other.told_lost;
        self.refused += other.refused;
        self.refused_receipts += other.refused_receipts;
        self.disconnected += other.disconnected;
        self.thrown_out += other.thrown_out;
        self.churned += other.churned;
        self.recovered.continued += other.recovered.continued;
        self.recovered.partial += other.recovered.partial;
        self.recovered.reset += other.recovered.reset;
        self.handshakes.add(&other.handshakes);
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }
}

/// What is measured now.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Messages due from here on ...
    pub(crate) from_ns: u64,
    /// ... and before here are measured.
    pub(crate) until_ns: u64,
    pub(crate) latency: Histogram<u64>,
}

/// One thread's share.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) index: u32,
    pub(crate) world: Arc<World>,
    pub(crate) poller: Poller,
    pub(crate) seats: Vec<Seat>,
    pub(crate) publishers: Vec<Publishing>,
    pub(crate) tally: Tally,
    pub(crate) meter: Meter,
    pub(crate) closed: Option<Arc<ClosedLoop>>,
    /// Slots whose next message may be sent.
    pub(crate) freed: Vec<u32>,
    /// Seats with something to write.
    dirty: Vec<usize>,
    /// Pongs that have come.
    pub(crate) pongs: u64,
    pub(super) buffer: Vec<u8>,
}

impl Shard {
    pub(super) fn new(index: u32, world: Arc<World>) -> io::Result<Self> {
        let threads = world.threads as usize;
        let topology = &world.topology;
        let mine = topology
            .seats
            .iter()
            .enumerate()
            .skip(index as usize)
            .step_by(threads);
        let seats = mine
            .map(|(seat, plan)| {
                let publishers = |room: &u32| topology.rooms[*room as usize].publishers.len();
                Seat {
                    index: seat as u32,
                    stage: Stage::Away,
                    socket: None,
                    credentials: None,
                    interest: Interest::Read,
                    began_ns: 0,
                    ready_ns: 0,
                    joined: Vec::new(),
                    ledgers: vec![Ledger::default(); plan.rooms.iter().map(publishers).sum()],
                    stalled: plan.stalled,
                    half: Vec::new(),
                }
            })
            .collect();
        let mine = (0u32..).zip(&topology.publishers);
        let publishers = mine
            .filter(|(_, p)| p.seat % world.threads == index)
            .map(|(publisher, p)| Publishing {
                index: publisher,
                seat: (p.seat / world.threads) as usize,
                sent: 0,
                receivers: topology.receivers(publisher),
                receipts_to_finish: topology.receipts_to_finish(publisher),
                template: world.dialect.template(
                    &world.names[p.room as usize],
                    world.form,
                    world.payload_bytes,
                ),
            })
            .collect();
        Ok(Self {
            index,
            poller: Poller::new()?,
            seats,
            publishers,
            tally: Tally::default(),
            meter: Meter {
                from_ns: u64::MAX,
                until_ns: u64::MAX,
                latency: histogram(),
            },
            closed: None,
            freed: Vec::new(),
            dirty: Vec::new(),
            pongs: 0,
            buffer: vec![0; BUFFER_BYTES],
            world,
        })
    }

    /// From now on messages have payloads of so many bytes.
    pub(crate) fn set_payload(&mut self, bytes: usize) {
        let world = &self.world;
        for publisher in &mut self.publishers {
            let room = world.topology.publishers[publisher.index as usize].room;
            let name = &world.names[room as usize];
            publisher.template = world.dialect.template(name, world.form, bytes);
        }
    }

    /// Queues the publisher's next message, due at `due_ns`.
    #[inline]
    pub(crate) fn publish(&mut self, place: usize, due_ns: u64, slot: u32) {
        let publisher = &mut self.publishers[place];
        let stamp = Stamp {
            publisher: publisher.index,
            number: publisher.sent,
            due_ns,
            slot,
        };
        let Template { frame, payload } = &mut publisher.template;
        self.world.form.write(&mut frame[payload.clone()], stamp);
        // What a lost connection cannot say is lost, and counted so.
        publisher.sent += 1;
        self.tally.sent += 1;
        self.tally.expected += u64::from(publisher.receivers);
        let seat = publisher.seat;
        if let Some(socket) = &mut self.seats[seat].socket {
            if socket.is_flushed() {
                self.dirty.push(seat);
            }
            socket.queue(frame);
            if socket.is_over_bound() {
                self.lose(seat, UNREAD);
            }
        }
    }

    pub(crate) fn queue(&mut self, at: usize, bytes: &[u8]) {
        if let Some(socket) = &mut self.seats[at].socket {
            if socket.is_flushed() {
                self.dirty.push(at);
            }
            socket.queue(bytes);
        }
    }

    /// Writes what has been queued.
    #[inline]
    pub(crate) fn flush(&mut self) {
        while let Some(at) = self.dirty.pop() {
            self.flush_seat(at);
        }
    }

    pub(crate) fn flush_seat(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        let Some(socket) = &mut seat.socket else {
            return;
        };
        let outcome = socket.flush().and_then(|flushed| {
            let interest = match flushed {
                Flushed::All => Interest::Read,
                Flushed::Blocked => Interest::ReadWrite,
            };
            if interest != seat.interest {
                seat.interest = interest;
                self.poller.change(&socket.stream, at as u64, interest)?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            self.lose(at, &error.to_string());
        }
    }

    /// The connection is over.
    pub(crate) fn lose(&mut self, at: usize, why: &str) {
        let seat = &mut self.seats[at];
        if seat.socket.take().is_some() {
            seat.stage = Stage::Away;
            seat.half = Vec::new();
            if seat.stalled && self.tally.sent > 0 {
                // What becomes of who does not read is for the server to say.
                self.tally.thrown_out += 1;
            } else {
                self.tally.disconnected += 1;
            }
            self.tally.note(why.to_owned());
        }
    }

    /// Breaks all connections, as a network does: without a word. Positions and ledgers stay.
    pub(crate) fn cut(&mut self) {
        for at in 0..self.seats.len() {
            self.cut_seat(at);
        }
    }

    pub(super) fn cut_seat(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        // Closing is a reset: see `connect`.
        if seat.socket.take().is_some() {
            seat.stage = Stage::Away;
            seat.half = Vec::new();
        }
    }

    /// Stops reading from the seats that are to stall.
    pub(crate) fn stall(&mut self) {
        self.watch_stalled(|poller, stream, _| {
            let _ = poller.remove(stream);
        });
    }

    /// Reads from them again.
    pub(crate) fn resume(&mut self) {
        self.watch_stalled(|poller, stream, at| {
            // It fails only for one that is watched already.
            let _ = poller.add(stream, at as u64, Interest::Read);
        });
    }

    /// Breaks the connections of those who are to stall.
    pub(crate) fn cut_stalled(&mut self) {
        for at in 0..self.seats.len() {
            if self.seats[at].stalled {
                self.cut_seat(at);
            }
        }
    }

    fn watch_stalled(&mut self, watch: impl Fn(&Poller, &TcpStream, usize)) {
        for (at, seat) in self.seats.iter().enumerate().filter(|(_, seat)| seat.stalled) {
            if let Some(socket) = &seat.socket {
                watch(&self.poller, &socket.stream, at);
            }
        }
    }
}
