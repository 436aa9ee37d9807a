//! Coming back: where a subscriber begins, what of the past it can still have, and reading that.
//!
//! What must stay true:
//! - Where a subscriber begins is decided under the same lock that numbers messages, so nothing lies between what it reads from
//!   history and what it gets live.
//! - Nothing is claimed that is not there: a number that will not come is named as lost.

use std::sync::Arc as StdArc;

use cauce_protocol::message::Direction;
use cauce_protocol::{Epoch, Position, Seq};

use super::durable::Backfill;
use super::history::{History, Joint, Lost};
use super::{DURABLE_IN_MEMORY, Room, State};
use crate::publication::Shared;
use crate::rooms::class::Keep;

/// Messages that one look into history takes, so that the room's lock is held for microseconds.
const READ_MESSAGES: usize = 64;

/// Bytes of payload that one look takes.
const READ_BYTES: usize = 64 * 1024;

/// Where a subscriber wants to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    #[default]
    Now,
    /// Behind this position. `within_ms` bounds how far back it may reach, for those who may not read history.
    Since {
        position: Position,
        within_ms: Option<u64>,
    },
    /// So many messages back.
    Recent(u32),
}

/// What a subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// It gets everything after this.
    pub from: Seq,
    pub recovered: Recovered,
    /// Part of it may be in the store: what is lost is not known yet.
    pub ask_store: bool,
}

/// What became of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// None was brought.
    None,
    Continued,
    Partial(Lost),
    Reset,
}

/// What a reader that is behind finds.
#[derive(Debug)]
pub enum CatchUp {
    /// These follow; where numbers are missing between them they are lost. `head` was the room's last number.
    Messages { messages: Vec<Shared>, head: Seq },
    /// Memory has none of what comes next; the store may.
    InStore,
    /// The newest part is being fetched from the store; whoever fetches it will say so.
    Coming,
    /// The newest part must be fetched from the store, by whoever asked: up to so many messages.
    Fetch { messages: u32 },
}

impl State {
    /// What is kept in memory.
    pub(super) fn memory(&self) -> Keep {
        let keep = self.class.history;
        if self.durable.is_none() {
            return keep;
        }
        Keep {
            messages: keep.messages.min(DURABLE_IN_MEMORY),
            ..keep
        }
    }

    pub(super) fn keep(&mut self, publication: &Shared, now_ms: u64) {
        let keep = self.memory();
        if keep.keeps() {
            let budget = &self.budget;
            self.history
                .get_or_insert_with(|| Box::new(History::new(budget.clone())))
                .push(publication, keep, now_ms);
        }
    }

    /// Whether somebody who comes back could still want it. Only what goes by age is waited for.
    pub(super) fn history_is_fresh(&self, now_ms: u64) -> bool {
        let age_ms = self.class.history.age_ms;
        let newest = self.history.as_ref().and_then(|history| history.newest_ms());
        self.durable.is_none() && newest.is_some_and(|at_ms| at_ms.saturating_add(age_ms) > now_ms)
    }

    /// Everything after this number is in memory, or lost.
    fn in_memory_after(&self) -> u64 {
        let first = self.history.as_ref().and_then(|history| history.first());
        first.map_or(self.seq, |first| first - 1)
    }

    fn first_loss(&self, seq: u64) -> Option<Lost> {
        match &self.history {
            Some(history) => history.first_loss(seq, self.seq),
            None => (seq < self.seq).then_some(Lost {
                from: seq + 1,
                to: self.seq,
            }),
        }
    }

    /// Decides where a subscriber begins.
    pub(super) fn enter(&mut self, epoch: Epoch, start: Start, now_ms: u64) -> Entered {
        let keep = self.memory();
        if let Some(history) = &mut self.history {
            history.trim(keep, now_ms);
        }
        let head = self.seq;
        let at = |from, recovered| Entered {
            from: Seq(from),
            recovered,
            ask_store: false,
        };
        match start {
            Start::Now => at(head, Recovered::None),
            Start::Recent(count) => {
                let count = count as usize;
                match (&self.history, &self.durable) {
                    (Some(history), _) if history.len() >= count => {
                        at(history.back(count, head), Recovered::None)
                    }
                    (_, Some(_)) => Entered {
                        ask_store: true,
                        ..at(head.saturating_sub(count as u64), Recovered::None)
                    },
                    (Some(history), None) => at(history.back(count, head), Recovered::None),
                    (None, None) => at(head, Recovered::None),
                }
            }
            Start::Since { position, .. } if position.epoch != epoch || position.seq.0 > head => {
                at(head, Recovered::Reset)
            }
            Start::Since { position, within_ms } => {
                let seq = position.seq.0;
                let fetched = self.durable.as_ref().is_none_or(|d| d.backfill == Backfill::Done);
                if within_ms.is_some() && !fetched && seq < head {
                    // How far back the window reaches is known when the newest messages are in memory.
                    return Entered {
                        ask_store: true,
                        ..at(seq, Recovered::Continued)
                    };
                }
                // Who may not read history reaches back only so far: what lies before is lost to him.
                let bound = within_ms.map(|within_ms| {
                    let since_ms = now_ms.saturating_sub(within_ms);
                    self.history
                        .as_ref()
                        .map_or(head, |history| history.before_time(since_ms, head))
                });
                if let Some(bound) = bound.filter(|&bound| bound > seq) {
                    return at(
                        bound,
                        Recovered::Partial(Lost {
                            from: seq + 1,
                            to: bound,
                        }),
                    );
                }
                if self.durable.is_some() && bound.is_none() && seq < self.in_memory_after() {
                    return Entered {
                        ask_store: true,
                        ..at(seq, Recovered::Continued)
                    };
                }
                match self.first_loss(seq) {
                    None => at(seq, Recovered::Continued),
                    Some(lost) if lost.from == seq + 1 => at(lost.to, Recovered::Partial(lost)),
                    // What lies before the loss comes first, and the loss is told again in its place.
                    Some(lost) => at(seq, Recovered::Partial(lost)),
                }
            }
        }
    }
}

impl Room {
    /// What comes after `seq`, a handful at a time.
    pub fn catch_up(&self, seq: Seq) -> CatchUp {
        let mut state = self.state.lock();
        if seq.0 < state.in_memory_after()
            && let Some(durable) = &mut state.durable
        {
            match durable.backfill {
                Backfill::Needed => {
                    durable.backfill = Backfill::Running;
                    let messages = state.memory().messages;
                    return CatchUp::Fetch { messages };
                }
                Backfill::Running => return CatchUp::Coming,
                Backfill::Done => return CatchUp::InStore,
            }
        }
        let (mut messages, mut bytes) = (Vec::new(), 0);
        if let Some(history) = &state.history {
            for publication in history.after(seq.0).take(READ_MESSAGES) {
                if bytes > READ_BYTES {
                    break;
                }
                bytes += publication.cost();
                messages.push(publication.clone());
            }
        }
        CatchUp::Messages {
            messages,
            head: Seq(state.seq),
        }
    }

    /// Takes the newest messages from the store, oldest first, each with its time in monotonic milliseconds; none if fetching
    /// failed, and then the next reader tries again.
    pub fn backfill(&self, older: Option<Vec<(u64, Shared)>>, now_ms: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let keep = state.memory();
        let mut joint = Joint {
            next: state.seq + 1,
            begun: state.seq,
        };
        if let Some(durable) = &mut state.durable {
            joint.begun = durable.begun;
            durable.backfill = match older {
                Some(_) => Backfill::Done,
                None => Backfill::Needed,
            };
        }
        let first = state.in_memory_after() + 1;
        let fits = |older: &Vec<(u64, Shared)>| {
            // What has left memory meanwhile is on the disk: with a hole in its place, readers would take it for lost.
            let mut below = older.iter().rev().map(|(_, message)| message.seq.0);
            let newest = below.find(|&seq| seq < first).unwrap_or(0);
            let begun = state.durable.as_ref().map_or(0, |durable| durable.begun);
            keep.keeps() && first <= newest.max(begun) + 1
        };
        if let Some(older) = older.filter(fits) {
            let budget = &state.budget;
            state
                .history
                .get_or_insert_with(|| Box::new(History::new(budget.clone())))
                .backfill(older, joint, keep, now_ms);
        }
    }

    /// Where a subscriber would begin now. Nothing changes.
    pub fn peek(&self, start: Start, now_ms: u64) -> Entered {
        self.state.lock().enter(self.epoch, start, now_ms)
    }

    /// Everything after this number is in memory, or lost.
    pub fn memory_begins(&self) -> Seq {
        Seq(self.state.lock().in_memory_after())
    }

    /// The first numbers after this one that memory does not have.
    pub fn loss(&self, after: Seq) -> Option<Lost> {
        self.state.lock().first_loss(after.0)
    }

    /// Up to this number, what the store does not have of a durable room it never will. Of any other room, the last number.
    pub fn settled(&self) -> Seq {
        let state = self.state.lock();
        Seq(state
            .durable
            .as_ref()
            .map_or(state.seq, |durable| durable.settled()))
    }

    /// A page of what is kept in memory: at most `limit` messages and `bytes_max` bytes, but one at least.
    pub fn page(&self, from: Seq, direction: Direction, limit: usize, bytes_max: usize, now_ms: u64) -> Page {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let keep = state.memory();
        if let Some(history) = &mut state.history {
            history.trim(keep, now_ms);
        }
        let head = state.seq;
        let reaches = state.in_memory_after();
        let from = match (direction, from.0) {
            (Direction::Backwards, 0) => head + 1,
            (_, from) => from,
        };
        let mut page = Page {
            head: Seq(head),
            first: Seq(state
                .history
                .as_ref()
                .and_then(|history| history.first())
                .unwrap_or(0)),
            messages: Vec::new(),
            more: false,
            in_store: false,
        };
        let mut take = |messages: &mut dyn Iterator<Item = &Shared>| {
            let mut bytes = 0;
            for message in messages {
                bytes += message.cost();
                if page.messages.len() >= limit || (bytes > bytes_max && !page.messages.is_empty()) {
                    page.more = true;
                    return;
                }
                page.messages.push(message.clone());
            }
        };
        match (&state.history, direction) {
            (None, _) => {}
            (Some(history), Direction::Forwards) => take(&mut history.after(from)),
            (Some(history), Direction::Backwards) => take(&mut history.before(from)),
        }
        let beyond = match direction {
            Direction::Forwards => from < reaches,
            // Memory has been given to its end, and it is not the room's.
            Direction::Backwards => !page.more && reaches > 0,
        };
        page.in_store = state.durable.is_some() && beyond;
        page
    }
}

/// A page of history.
#[derive(Debug)]
pub struct Page {
    pub head: Seq,
    /// The oldest number in memory; 0 if there is none.
    pub first: Seq,
    pub messages: Vec<StdArc<crate::publication::Publication>>,
    pub more: bool,
    /// The store must be asked: forwards instead, backwards for what comes before these.
    pub in_store: bool,
}
