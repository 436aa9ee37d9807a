//! What the store's writer does before it speaks SQL, without its thread: for benches.

use std::collections::VecDeque;
use std::time::Instant;

use super::batch::{Batch, Pending};
use super::config::{MessageLimits, StoreLimits};
use super::messages::MessageRow;
use super::queue::{MessageQueue, Piece};
use super::rows::{Admission, DeviceStateRow, ReadingRow};

/// States and readings on their way to the database.
#[derive(Debug)]
pub struct Batcher(Pending);

impl Batcher {
    pub fn new(limits: StoreLimits) -> Self {
        Self(Pending::new(limits, 0))
    }

    pub fn state(&mut self, row: DeviceStateRow) -> Admission {
        self.0.push_state(row, 0).admission
    }

    pub fn reading(&mut self, row: ReadingRow) -> Admission {
        self.0.push_reading(row, 0).admission
    }

    /// Takes all that waits and cuts it into transactions of so many rows. Answers how many rows there were.
    pub fn write(&mut self, rows_max: usize) -> usize {
        let Some(taken) = self.0.take() else { return 0 };
        let mut batch = Batch::from(taken);
        let mut rows = 0;
        while let Some(load) = batch.piece(rows_max).map(|piece| piece.load()) {
            batch.advance(load.rows());
            self.0.settled(load);
            rows += load.rows();
        }
        rows
    }
}

/// Messages of durable rooms on their way to the disk.
#[derive(Debug)]
pub struct Messages {
    queue: MessageQueue,
    began: Instant,
}

impl Messages {
    pub fn new(limits: MessageLimits) -> Self {
        Self {
            queue: MessageQueue::new(limits),
            began: Instant::now(),
        }
    }

    /// Whether the message was taken. `bytes` is its cost.
    pub fn push(&mut self, row: MessageRow, bytes: usize) -> bool {
        self.queue.reserve(&row.tenant, bytes).is_ok()
            && self.queue.push(Box::new(row), bytes, 0, self.began).is_ok()
    }

    /// Takes all that waits, cuts it into transactions and settles them. Answers how many messages there were.
    pub fn commit(&mut self) -> usize {
        let mut backlog: VecDeque<_> = self.queue.take();
        let mut rows = 0;
        while let Some(piece) = Piece::cut(&mut backlog) {
            rows += piece.rows.len();
            let callbacks = self.queue.settled(
                piece.last_ticket(),
                piece.rows.len() as u64,
                piece.held().into_iter(),
            );
            debug_assert!(callbacks.is_empty(), "nobody waits");
        }
        rows
    }
}
