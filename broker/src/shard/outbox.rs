//! What waits to be written to one peer: shared frames in order, bounded in bytes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf as _, Bytes};
use smallvec::SmallVec;

use super::frames::Frames;
use crate::socket::Socket;

/// Frames handed to the kernel in one call. The system's own limit is 1024; past 64 the call's fixed cost is all paid off.
const SLICES_MAX: usize = 64;

/// What a queued frame costs beside its bytes, which are shared: its place in the queue.
const FRAME_OVERHEAD_BYTES: usize = size_of::<Bytes>();

/// A congested outbox is one that is full by more than one part in so many.
const CONGESTED_DIVISOR: usize = 2;

/// Where a frame has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Behind everything that waits.
    Ordered,
    /// Before it, but behind a frame that was begun and behind the urgent ones that wait already.
    Urgent,
}

/// A queue of frames. Empty and without a buffer while the peer keeps up.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: Frames,
    bytes: usize,
    /// Frames in front, up to the last urgent one. Nothing ordered comes between them.
    ahead: u32,
    /// The first frame has been written in part: it must be finished, or the peer cannot read on.
    begun: bool,
    /// A frame was refused: from then on all are, or the peer would see a gap before it is told to go.
    overflowed: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// The first that did not fit.
    Overflowed,
    /// One after it.
    Over,
}

/// Whether all was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    /// The kernel's buffer is full: go on when it takes bytes again.
    Blocked,
}

impl Outbox {
    /// Whether the frame may be appended: the sum stays within `bytes_max`, or nothing else waits.
    pub(super) fn has_room(&self, frame: &Bytes, bytes_max: usize) -> bool {
        self.frames.is_empty() || self.bytes + frame.len() + FRAME_OVERHEAD_BYTES <= bytes_max
    }

    /// Whether so much waits that what can do without being written now should.
    pub(super) fn is_congested(&self, bytes_max: usize) -> bool {
        self.bytes > bytes_max / CONGESTED_DIVISOR
    }

    /// Gives a frame its place if there is room. After the first that is refused, all are.
    pub(super) fn push(&mut self, lane: Lane, frame: Bytes, bytes_max: usize) -> Pushed {
        if self.overflowed {
            return Pushed::Over;
        }
        if !self.has_room(&frame, bytes_max) {
            self.overflowed = true;
            return Pushed::Overflowed;
        }
        match lane {
            Lane::Ordered => self.push_last(frame),
            Lane::Urgent => {
                // A frame that was begun cannot be cut in two.
                let at = self.ahead.max(u32::from(self.begun));
                self.bytes += frame.len() + FRAME_OVERHEAD_BYTES;
                self.frames.insert(at as usize, frame);
                self.ahead = at + 1;
            }
        }
        Pushed::Queued
    }

    /// Appends a frame if there is room; if not, nothing has happened.
    pub(super) fn try_push(&mut self, frame: Bytes, bytes_max: usize) -> bool {
        if self.overflowed || !self.has_room(&frame, bytes_max) {
            return false;
        }
        self.push_last(frame);
        true
    }

    /// Appends a last word whatever the bound says.
    pub(super) fn push_last(&mut self, frame: Bytes) {
        self.bytes += frame.len() + FRAME_OVERHEAD_BYTES;
        self.frames.push_last(frame);
    }

    /// Drops all but a frame that the peer has seen the beginning of.
    pub(super) fn drop_unsent(&mut self) {
        self.frames.drop_all_but_first(self.begun);
        self.ahead = self.ahead.min(u32::from(self.begun));
        self.bytes = self
            .frames
            .iter()
            .map(|frame| frame.len() + FRAME_OVERHEAD_BYTES)
            .sum();
    }

    /// Bytes that wait, and what their places in the queue take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Hands all of it to the kernel, in as few calls as it takes. Answers how far it came and how many bytes went.
    ///
    /// # Errors
    /// If the socket is broken.
    pub(super) fn flush(&mut self, socket: &Socket, written: &mut Written) -> io::Result<Flushed> {
        while let Some((first, others_wait)) = self.frames.first() {
            let written_now = match others_wait {
                false => socket.try_write(first),
                true => self.write_some(socket),
            };
            match written_now {
                Ok(n) => {
                    written.calls += 1;
                    written.bytes += n as u64;
                    self.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(e) => return Err(e),
            }
        }
        socket.try_flush()?;
        Ok(if socket.wants_write() {
            Flushed::Blocked
        } else {
            Flushed::All
        })
    }

    /// By itself, so that who has one frame does not carry its list.
    #[inline(never)]
    fn write_some(&self, socket: &Socket) -> io::Result<usize> {
        let frames = self.frames.iter().take(SLICES_MAX);
        let slices: SmallVec<[IoSlice<'_>; SLICES_MAX]> = frames.map(|frame| IoSlice::new(frame)).collect();
        socket.try_write_vectored(&slices)
    }

    /// An empty outbox gives its buffer back, so that an idle peer has none. Keeps nothing else.
    pub(super) fn take_buffer(&mut self) -> Option<VecDeque<Bytes>> {
        self.frames.take_buffer()
    }

    /// Gives an outbox that is about to need a buffer one that another peer has used.
    pub(super) fn give_buffer(&mut self, buffer: impl FnOnce() -> Option<VecDeque<Bytes>>) {
        if self.frames.wants_buffer()
            && let Some(buffer) = buffer()
        {
            self.frames.give_buffer(buffer);
        }
    }

    /// So many bytes went, from the front.
    pub(super) fn advance(&mut self, mut n: usize) {
        while let Some(frame) = self.frames.first_mut() {
            if n < frame.len() {
                frame.advance(n);
                self.bytes -= n;
                self.begun |= n > 0;
                return;
            }
            n -= frame.len();
            self.bytes -= frame.len() + FRAME_OVERHEAD_BYTES;
            self.begun = false;
            self.ahead = self.ahead.saturating_sub(1);
            self.frames.pop_first();
        }
    }
}

/// What a turn's writing came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) calls: u64,
    pub(super) bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_counted_exactly_however_they_go(
            frames in prop::collection::vec(1usize..200, 1..30), steps in prop::collection::vec(0usize..400, 1..60),
        ) {
            let mut outbox = Outbox::default();
            for &len in &frames {
                prop_assert_eq!(outbox.push(Lane::Ordered, Bytes::from(vec![7; len]), usize::MAX), Pushed::Queued);
            }
            for step in steps {
                let left: usize = outbox.frames.iter().map(Bytes::len).sum();
                outbox.advance(step.min(left));
                let expected: usize = outbox.frames.iter().map(|f| f.len() + FRAME_OVERHEAD_BYTES).sum();
                prop_assert_eq!(outbox.bytes(), expected);
            }
        }
    }

    fn waiting(outbox: &Outbox) -> Vec<Bytes> {
        outbox.frames.iter().cloned().collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Lane, usize),
        Write(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1usize..6).prop_map(|len| Step::Push(Lane::Ordered, len)),
            2 => (1usize..6).prop_map(|len| Step::Push(Lane::Urgent, len)),
            2 => (1usize..12).prop_map(Step::Write),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// The model: two lists, and the frame whose first byte is out.
        #[test]
        fn urgent_frames_come_before_ordered_ones_and_nothing_cuts_a_frame_in_two(steps in steps()) {
            let mut outbox = Outbox::default();
            let (mut urgent, mut ordered, mut begun) = (VecDeque::new(), VecDeque::new(), Bytes::new());
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(lane, len) => {
                        let frame = Bytes::from(vec![n as u8; len]);
                        prop_assert_eq!(outbox.push(lane, frame.clone(), usize::MAX), Pushed::Queued);
                        match lane {
                            Lane::Urgent => urgent.push_back(frame),
                            Lane::Ordered => ordered.push_back(frame),
                        }
                    }
                    Step::Write(n) => {
                        let left: usize = outbox.frames.iter().map(Bytes::len).sum();
                        let mut n = n.min(left);
                        outbox.advance(n);
                        while n > 0 {
                            if begun.is_empty() {
                                begun = urgent.pop_front().or_else(|| ordered.pop_front()).unwrap_or_default();
                            }
                            let written = n.min(begun.len());
                            begun.advance(written);
                            n -= written;
                        }
                    }
                }
                let begun = Some(begun.clone()).filter(|frame| !frame.is_empty());
                let expected: Vec<Bytes> = begun.into_iter().chain(urgent.clone()).chain(ordered.clone()).collect();
                prop_assert!(outbox.frames.iter().eq(&expected));
            }
        }
    }

    #[test]
    fn what_is_urgent_overtakes_all_but_a_frame_that_was_begun() {
        let mut outbox = Outbox::default();
        for frame in ["begun", "waits"] {
            outbox.push(Lane::Ordered, Bytes::from_static(frame.as_bytes()), 1_000);
        }
        outbox.advance(2);
        for frame in ["first", "second"] {
            outbox.push(Lane::Urgent, Bytes::from_static(frame.as_bytes()), 1_000);
        }
        assert_eq!(waiting(&outbox), ["gun", "first", "second", "waits"]);
        outbox.drop_unsent();
        outbox.push(Lane::Urgent, Bytes::from_static(b"third"), 1_000);
        assert_eq!(waiting(&outbox), ["gun", "third"]);
    }

    #[test]
    fn an_outbox_is_congested_when_more_than_half_of_it_is_taken() {
        let mut outbox = Outbox::default();
        outbox.push(
            Lane::Ordered,
            Bytes::from(vec![0; 500 - FRAME_OVERHEAD_BYTES]),
            1_000,
        );
        assert!(!outbox.is_congested(1_000));
        outbox.push_last(Bytes::from_static(b"x"));
        assert!(outbox.is_congested(1_000));
    }

    #[test]
    fn the_bound_holds_but_never_refuses_a_single_frame() {
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.push(Lane::Ordered, Bytes::from(vec![0; 500]), 100),
            Pushed::Queued
        );
        assert_eq!(
            outbox.push(Lane::Ordered, Bytes::from_static(b"x"), 100),
            Pushed::Overflowed
        );
    }

    #[test]
    fn nothing_is_taken_behind_a_frame_that_was_refused() {
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.push(Lane::Ordered, Bytes::from_static(b"one"), 100),
            Pushed::Queued
        );
        assert_eq!(
            outbox.push(Lane::Ordered, Bytes::from(vec![0; 100]), 100),
            Pushed::Overflowed
        );
        assert_eq!(
            outbox.push(Lane::Ordered, Bytes::from_static(b"three"), 100),
            Pushed::Over
        );
        outbox.push_last(Bytes::from_static(b"goodbye"));
        assert_eq!(waiting(&outbox), [&b"one"[..], b"goodbye"]);
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_and_the_rest_dropped() {
        let mut outbox = Outbox::default();
        outbox.push_last(Bytes::from_static(b"abc"));
        outbox.push_last(Bytes::from_static(b"def"));
        outbox.advance(1);
        outbox.drop_unsent();
        assert_eq!(waiting(&outbox), [Bytes::from_static(b"bc")]);
        outbox.advance(2);
        outbox.drop_unsent();
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }
}
