//! What a connection hears: WebSocket frames, what their messages say in the run's dialect, and what follows from it.

use std::io;

use super::closed::Receipt;
use super::shard::{Shard, Stage};
use crate::dialect::{
    Cauce, Centrifugo, Cue, Dialect, Heard, Kind, Mqtt, Nats, Plain, Push, RoomRef, SAID_BYTES_MAX, SocketIo,
    Speech,
};
use crate::ledger::Seen;
use crate::stamp::NO_SLOT;
use crate::tls;
use crate::topology::Measured;
use crate::wire;

/// Longest answer to a handshake, in bytes.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// The first byte of what a server of TLS answers to plain text.
const ALERT: u8 = 0x15;
/// What a connection keeps of a stream at most, in bytes: the longest that may be said, with what is before it in a message.
const HALF_BYTES_MAX: usize = 2 * SAID_BYTES_MAX;

impl Shard {
    /// Reads once from a seat, and does what it says.
    #[inline]
    pub(crate) fn receive(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        // Chosen here, once a read, so that the loop over frames knows its dialect.
        let outcome = match self.world.dialect {
            Dialect::Cauce => self.receive_into::<Cauce>(at, &mut buffer),
            Dialect::Plain => self.receive_into::<Plain>(at, &mut buffer),
            Dialect::SocketIo => self.receive_into::<SocketIo>(at, &mut buffer),
            Dialect::Centrifugo => self.receive_into::<Centrifugo>(at, &mut buffer),
            Dialect::Nats => self.receive_into::<Nats>(at, &mut buffer),
            Dialect::Mqtt => self.receive_into::<Mqtt>(at, &mut buffer),
        };
        self.buffer = buffer;
        if let Err(error) = outcome {
            self.lose(at, &error.to_string());
        }
        self.flush();
    }

    fn receive_into<S: Speech>(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
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
            self.say(at, Cue::Upgraded, now);
        }
        while let Some(frame) = wire::frame(&buffer[from..end], SAID_BYTES_MAX).map_err(io::Error::other)? {
            let payload = &buffer[from + frame.payload.start..from + frame.payload.end];
            match frame.opcode {
                wire::BINARY => self.hear::<S>(at, Kind::Binary, payload, now)?,
                wire::TEXT => self.hear::<S>(at, Kind::Text, payload, now)?,
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::put_client_frame(&mut pong, wire::PONG, payload);
                    self.queue(at, &pong);
                }
                wire::PONG if self.world.dialect.joins_by_pong() => self.joined_more(at, now),
                wire::PONG => {}
                wire::CLOSE => return Err(io::Error::other(close_words(payload))),
                _ => return Err(io::Error::other("a frame that WebSocket does not know")),
            }
            from += frame.payload.end;
        }
        if let Some(socket) = &mut self.seats[at].socket {
            socket.keep(&buffer[from..end]);
        }
        Ok(())
    }

    /// One WebSocket message.
    #[inline]
    fn hear<S: Speech>(&mut self, at: usize, kind: Kind, message: &[u8], now: u64) -> io::Result<()> {
        if S::STREAM && !self.seats[at].half.is_empty() {
            let mut said = std::mem::take(&mut self.seats[at].half);
            said.extend_from_slice(message);
            let left = self.hear_all::<S>(at, kind, &said, now)?;
            // Nothing is copied for a message that only adds to what is incomplete.
            said.drain(..said.len() - left);
            return self.keep_half(at, said);
        }
        match self.hear_all::<S>(at, kind, message, now)? {
            0 => Ok(()),
            left if S::STREAM => self.keep_half(at, message[message.len() - left..].to_vec()),
            _ => Err(io::Error::other("a frame that ends in the middle")),
        }
    }

    /// Hears what is complete. Returns how many bytes at the end are not.
    #[inline]
    fn hear_all<S: Speech>(&mut self, at: usize, kind: Kind, said: &[u8], now: u64) -> io::Result<usize> {
        let mut rest = said;
        while !rest.is_empty() {
            match S::next(kind, &mut rest).map_err(io::Error::other)? {
                Some(Heard::Push(push)) => self.pushed(at, &push, now),
                Some(heard) => self.heard(at, heard, now)?,
                None => break,
            }
        }
        Ok(rest.len())
    }

    fn keep_half(&mut self, at: usize, half: Vec<u8>) -> io::Result<()> {
        // Readers refuse what announces to be longer; this is for what never says how long it is.
        if half.len() > HALF_BYTES_MAX {
            return Err(io::Error::other("something that does not end"));
        }
        // An empty one gives its memory back.
        if !half.is_empty() {
            self.seats[at].half = half;
        }
        Ok(())
    }

    /// A message of a room has come: the hottest place there is.
    #[inline]
    fn pushed(&mut self, at: usize, push: &Push<'_>, now: u64) {
        let world = &self.world;
        let seat = &mut self.seats[at];
        let mut rooms = seat.joined.iter_mut();
        let joined = match push.room {
            RoomRef::Number(number) => rooms.find(|joined| joined.number == number),
            RoomRef::Name(name) => rooms.find(|joined| world.names[joined.room as usize].as_bytes() == name),
        };
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
        if let Some(seq) = push.seq {
            if seq != joined.seq + 1 {
                self.tally.sequence_breaks += 1;
            }
            joined.seq = joined.seq.max(seq);
        }
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
    #[cold]
    fn heard(&mut self, at: usize, heard: Heard<'_>, now: u64) -> io::Result<()> {
        match heard {
            Heard::Push(push) => self.pushed(at, &push, now),
            Heard::Cue(cue) => self.say(at, cue, now),
            Heard::Answer => self.joined_more(at, now),
            Heard::Positions(positions) => {
                self.take_positions(at, positions);
                self.joined_more(at, now);
            }
            Heard::Echo(frame) => self.queue(at, frame),
            Heard::Skip { room, seq, lost } => {
                self.tally.told_lost += lost;
                let joined = self.seats[at].joined.iter_mut();
                if let Some(joined) = joined.into_iter().find(|joined| joined.number == room) {
                    joined.seq = seq;
                }
            }
            Heard::Pong => self.pongs += 1,
            Heard::Refused(words) => {
                let words = format!("refused: {words}");
                if self.seats[at].stage != Stage::Ready {
                    return Err(io::Error::other(words));
                }
                // Who is ready asks for nothing but to publish. Which message it was is not said, but all rooms that a seat publishes to are alike.
                if let Some(publisher) = self.publishers.iter().find(|p| p.seat == at) {
                    self.tally.refused += 1;
                    self.tally.refused_receipts += u64::from(publisher.receivers);
                }
                self.tally.note(words);
            }
            Heard::Note(words) => self.tally.note(words),
            Heard::Ended(words) => return Err(io::Error::other(words)),
            Heard::Nothing => {}
        }
        Ok(())
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
