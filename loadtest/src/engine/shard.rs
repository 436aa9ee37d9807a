//! One thread's connections: what they read and what they publish.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cauce_protocol::wire as proto;
use hdrhistogram::Histogram;
use prost::Message as _;

use super::closed::{ClosedLoop, Receipt};
use super::{World, histogram};
use crate::ledger::{Ledger, Seen};
use crate::poll::{Interest, Poller};
use crate::socket::{BUFFER_BYTES, Flushed, READ_BYTES, Socket, UNREAD};
use crate::stamp::{NO_SLOT, Stamp};
use crate::tls::{self, Credentials, Handshakes};
use crate::topology::Measured;
use crate::wire::{self, Template};

/// Longest answer to a handshake, in bytes.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// The first byte of what a server of TLS answers to plain text.
const ALERT: u8 = 0x15;
/// A frame must fit the read buffer with its head.
const FRAME_BYTES_MAX: usize = READ_BYTES - 16;
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
    /// Hello and subscribe are sent; so many answers are missing.
    Joining(u8),
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
    pub(crate) disconnected: u64,
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
        self.disconnected += other.disconnected;
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
    buffer: Vec<u8>,
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
                template: Template::new(&world.room_name(p.room), "m", world.form, world.payload_bytes),
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

    /// Reads once from a seat, and does what it says.
    #[inline]
    pub(crate) fn receive(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.receive_into(at, &mut buffer);
        self.buffer = buffer;
        if let Err(error) = outcome {
            self.lose(at, &error.to_string());
        }
        self.flush();
    }

    fn receive_into(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        let seat = &mut self.seats[at];
        let Some(socket) = &mut seat.socket else {
            return Ok(());
        };
        let end = match socket.fill(buffer) {
            Ok(Some(end)) => end,
            Ok(None) if seat.stage == Stage::Securing => return self.secured(at),
            Ok(None) => return Ok(()),
            Err(error) if seat.stage == Stage::Securing => return Err(io::Error::other(tls::words(&error))),
            Err(error) => return Err(error),
        };
        let now = self.world.clock.now_ns();
        let mut from = 0;
        if seat.stage == Stage::Upgrading {
            match head_end(&buffer[..end])? {
                Some(head) => from = head,
                None => {
                    socket.keep(&buffer[..end]);
                    return Ok(());
                }
            }
            self.upgraded(at);
        }
        while let Some(frame) = wire::frame(&buffer[from..end], FRAME_BYTES_MAX).map_err(io::Error::other)? {
            let payload = &buffer[from + frame.payload.start..from + frame.payload.end];
            match frame.opcode {
                wire::BINARY => {
                    let mut rest = payload;
                    while !rest.is_empty() {
                        let message = wire::take_message(&mut rest)
                            .ok_or_else(|| io::Error::other("a frame that ends in the middle"))?;
                        match wire::push(message) {
                            Some(push) => self.pushed(at, &push, now),
                            None => self.told(at, message, now)?,
                        }
                    }
                }
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::put_client_frame(&mut pong, wire::PONG, payload);
                    self.queue(at, &pong);
                }
                wire::PONG => {}
                wire::CLOSE => return Err(io::Error::other(close_words(payload))),
                _ => return Err(io::Error::other("a frame that is not binary")),
            }
            from += frame.payload.end;
        }
        if let Some(socket) = &mut self.seats[at].socket {
            socket.keep(&buffer[from..end]);
        }
        Ok(())
    }

    /// A message of a room has come: the hottest place there is.
    #[inline]
    fn pushed(&mut self, at: usize, push: &wire::Push<'_>, now: u64) {
        let world = &self.world;
        let seat = &mut self.seats[at];
        let joined = seat.joined.iter_mut().find(|joined| joined.number == push.room);
        let stamp = world.form.read(push.payload);
        let publisher = stamp.and_then(|stamp| world.topology.publishers.get(stamp.publisher as usize));
        let (Some(joined), Some(stamp), Some(publisher)) = (joined, stamp, publisher) else {
            self.tally.foreign += 1;
            return;
        };
        if joined.room != publisher.room {
            self.tally.foreign += 1;
            return;
        }
        if push.seq != joined.seq + 1 {
            self.tally.sequence_breaks += 1;
        }
        joined.seq = joined.seq.max(push.seq);
        let ledger = &mut seat.ledgers[(joined.first_ledger + publisher.place) as usize];
        if ledger.see(stamp.number) == Seen::Double || seat.stalled {
            return;
        }
        self.tally.received += 1;
        let measured = match world.topology.measured {
            Measured::Everyone => true,
            Measured::Asker => publisher.seat != seat.index && stamp.publisher >= world.topology.scheduled,
        };
        if measured {
            // What was due while its receiver was away is not late by the server's doing.
            if stamp.due_ns >= self.meter.from_ns.max(seat.ready_ns) && stamp.due_ns < self.meter.until_ns {
                self.meter
                    .latency
                    .saturating_record(now.saturating_sub(stamp.due_ns));
            }
            if stamp.slot != NO_SLOT
                && let Some(closed) = &self.closed
                && closed.receipt(stamp.slot, self.index) == Receipt::FreedHere
            {
                self.freed.push(stamp.slot);
            }
        }
        if let Some(answer) = publisher.answered_by
            && world.topology.publishers[answer as usize].seat == seat.index
            && let Ok(place) = self.publishers.binary_search_by_key(&answer, |p| p.index)
        {
            self.publish(place, stamp.due_ns, stamp.slot);
        }
    }

    /// Anything but a push.
    fn told(&mut self, at: usize, message: &[u8], now: u64) -> io::Result<()> {
        use proto::server_frame::Message;
        let frame = proto::ServerFrame::decode(message).map_err(io::Error::other)?;
        match frame.message {
            Some(Message::Reply(reply)) => return self.answered(at, reply, now),
            Some(Message::Goaway(goaway)) => {
                let error = goaway.error.unwrap_or_default();
                return Err(io::Error::other(format!(
                    "goaway: {} ({})",
                    error.message, error.name
                )));
            }
            Some(Message::Gap(gap)) => {
                self.tally.told_lost += gap.to.saturating_sub(gap.from) + 1;
                let joined = self.seats[at].joined.iter_mut();
                if let Some(joined) = joined.into_iter().find(|joined| joined.number == gap.room) {
                    joined.seq = gap.to;
                }
            }
            Some(Message::Ended(ended)) => {
                let error = ended.error.unwrap_or_default();
                self.tally
                    .note(format!("subscription ended: {} ({})", error.message, error.name));
            }
            Some(Message::Advance(advance)) => {
                let joined = self.seats[at].joined.iter_mut();
                if let Some(joined) = joined.into_iter().find(|joined| joined.number == advance.room) {
                    joined.seq = advance.seq;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, reply: proto::Reply, now: u64) -> io::Result<()> {
        use proto::reply::Outcome;
        match reply.outcome {
            Some(Outcome::Error(error)) => {
                let words = format!("refused: {} ({})", error.message, error.name);
                if self.seats[at].stage != Stage::Ready {
                    return Err(io::Error::other(words));
                }
                self.tally.note(words);
            }
            Some(Outcome::Welcome(_)) => self.joined_more(at, now),
            Some(Outcome::Subscribed(subscribed)) => {
                self.take_positions(at, &subscribed);
                self.joined_more(at, now);
            }
            Some(Outcome::Pong(_)) => self.pongs += 1,
            _ => {}
        }
        Ok(())
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
            self.tally.disconnected += 1;
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
        }
    }

    /// Stops reading from the seats that are to stall.
    pub(crate) fn stall(&mut self) {
        for seat in self.seats.iter().filter(|seat| seat.stalled) {
            if let Some(socket) = &seat.socket {
                let _ = self.poller.remove(&socket.stream);
            }
        }
    }
}

/// Where an HTTP head ends; an error unless it agrees to the upgrade.
pub(crate) fn head_end(input: &[u8]) -> io::Result<Option<usize>> {
    if input.first() == Some(&ALERT) {
        return Err(io::Error::other(
            "the server speaks TLS: name its certificate with --ca FILE",
        ));
    }
    let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
        if input.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the answer to the handshake does not end"));
        }
        return Ok(None);
    };
    if input.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(end + 4));
    }
    let first = input.split(|&b| b == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!(
        "handshake refused: {}",
        String::from_utf8_lossy(first)
    )))
}

/// A close of the peer, for people.
pub(crate) fn close_words(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => format!(
            "closed with {}: {}",
            u16::from_be_bytes(*code),
            String::from_utf8_lossy(reason)
        ),
        None => "closed without a code".to_owned(),
    }
}
