//! Places for those who want something of the database now: taken or refused at once, never waited for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::error::StoreError;

/// A number of places.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    count: usize,
    refused: AtomicU64,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            count,
            refused: AtomicU64::new(0),
        }
    }

    /// A place until what it answers is dropped.
    ///
    /// # Errors
    /// Busy if all are taken, closed after [`Slots::close`].
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|why| match why {
                TryAcquireError::NoPermits => {
                    self.refused.fetch_add(1, Relaxed);
                    StoreError::busy()
                }
                TryAcquireError::Closed => StoreError::closed(),
            })
    }

    /// From now on nobody gets one.
    pub(super) fn close(&self) {
        self.free.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.free.is_closed()
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.count.saturating_sub(self.free.available_permits())
    }

    /// Those for whom there was none.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_counted_and_comes_back() {
        let slots = Slots::new(2);
        let (first, _second) = (slots.take().unwrap(), slots.take().unwrap());
        assert_eq!(slots.take().unwrap_err(), StoreError::busy());
        assert_eq!((slots.taken(), slots.refused()), (2, 1));
        drop(first);
        assert_eq!(slots.taken(), 1);
        slots.close();
        assert_eq!(slots.take().unwrap_err(), StoreError::closed());
        assert_eq!(slots.refused(), 1);
    }
}
