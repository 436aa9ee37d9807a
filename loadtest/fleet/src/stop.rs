//! The end of a fleet, as its tasks see it.

use tokio::sync::watch;

/// Tells a task that its fleet stops. Each task has its own.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Watches for `true`, or for the fleet's being dropped.
    pub(crate) const fn new(stop: watch::Receiver<bool>) -> Self {
        Self(stop)
    }

    /// Returns when the fleet stops. Cancel-safe, and returns at once each time after.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the fleet was dropped, which stops it too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
