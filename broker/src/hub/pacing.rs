//! Publishers without a socket wait until their tenant's messages have been taken.
//!
//! Who publishes by socket is held back there, by TCP, while its shard is behind. The API and the embedding program have no such
//! socket: without this, one tenant could fill its half of every mailbox, and what others say would wait behind that.
//!
//! What must stay true:
//! - One tenant waits for itself alone: what others have in the mailboxes keeps nobody here.
//! - Those who wait go one at a time, in the order in which they came, each with the next look at the mailboxes: so a tenant is
//!   never further ahead than [`BEHIND_BYTES`](crate::mailbox::BEHIND_BYTES) and one message.
//! - Nobody waits for longer than [`PACED_MS_MAX`], and no more than [`WAITING_MAX`] wait.

use std::time::Duration;

use cauce_protocol::Refusal;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::publishing::PublishLimit;
use super::{Hub, Tenant};

/// Publishers of one tenant that wait; more are refused at once.
const WAITING_MAX: usize = 64;

/// How long one request waits for all that it publishes, in milliseconds. Then it is refused, and told to come again.
pub const PACED_MS_MAX: u64 = 1_000;

/// Told to whoever is refused, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// Who waits, of one tenant.
#[derive(Debug)]
pub(super) struct Pacing {
    places: Semaphore,
    turn: Mutex<()>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            places: Semaphore::new(WAITING_MAX),
            turn: Mutex::new(()),
        }
    }
}

/// Held while the one message is published for which there is room.
#[derive(Debug)]
#[must_use = "the next one goes when this is dropped"]
pub struct Turn<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

impl Hub {
    /// When a request that begins now stops waiting.
    pub fn paced_until() -> Instant {
        Instant::now() + Duration::from_millis(PACED_MS_MAX)
    }

    /// Waits until no shard is behind with what this tenant has said. Where none is, this does not wait. Cancel-safe.
    ///
    /// # Errors
    /// `rate_limited` if that takes longer than `until`, or too many wait already.
    pub async fn pace<'a>(&self, tenant: &'a Tenant, until: Instant) -> Result<Turn<'a>, Refusal> {
        let Pacing { places, turn } = &tenant.pacing;
        if let Ok(turn) = turn.try_lock()
            && !tenant.share.is_behind()
        {
            return Ok(Turn(turn));
        }
        let refused = || {
            self.publish_limited(PublishLimit::TenantQueue);
            PublishLimit::TenantQueue.refusal(RETRY_MS)
        };
        let _place = places.try_acquire().map_err(|_| refused())?;
        let turn = timeout_at(until, turn.lock()).await.map_err(|_| refused())?;
        let caught_up = timeout_at(until, tenant.share.caught_up()).await;
        caught_up.map_err(|_| refused())?;
        Ok(Turn(turn))
    }
}
