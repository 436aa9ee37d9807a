//! One client that loses its network for a while: a wire of its own to the broker, which is cut and mended. What the client
//! makes of it is counted as with every other subscriber.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tally::Return;
use crate::failure::Failure;

/// How long the network is away, unless the whole demo is too short for that.
const AWAY: Duration = Duration::from_secs(5);

/// When it goes, unless the whole demo is too short for that.
const GOES_AT: Duration = Duration::from_secs(5);

/// When the network goes and comes back, from the start of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    goes: Duration,
    comes: Duration,
}

impl Plan {
    /// In the middle half of a demo that ends at a time, so that there is something to miss and time to catch up.
    pub(crate) fn new(until: Option<Duration>) -> Self {
        let goes = until.map_or(GOES_AT, |until| GOES_AT.min(until / 4));
        let away = until.map_or(AWAY, |until| AWAY.min(until / 2));
        Self {
            goes,
            comes: goes + away,
        }
    }

    /// Whether the network is there.
    fn is_up(self, elapsed: Duration) -> bool {
        elapsed < self.goes || elapsed >= self.comes
    }
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outage {
    pub(crate) user: String,
    /// The network was away for so long.
    pub(crate) seconds: f64,
    /// Messages of the devices' room that were published meanwhile.
    pub(crate) missed: u64,
    /// Those of them that came afterwards, in order.
    pub(crate) recovered: u64,
    pub(crate) lost: u64,
    /// How often the room was joined again, and how often it went on where it was.
    pub(crate) returns: u64,
    pub(crate) continued: u64,
}

impl Outage {
    pub(crate) fn new(user: &str, away: Duration, returned: Return) -> Self {
        Self {
            user: user.to_owned(),
            seconds: away.as_secs_f64(),
            missed: returned.missed,
            recovered: returned.missed.saturating_sub(returned.lost),
            lost: returned.lost,
            returns: returned.returns,
            continued: returned.continued,
        }
    }
}

/// The wire. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    up: watch::Sender<bool>,
    plan: Plan,
    away: Option<Duration>,
    total: Duration,
    _carrier: JoinSet<()>,
}

impl Wire {
    /// To this broker, from a port of its own.
    pub(crate) async fn lay(broker: SocketAddr, plan: Plan) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let up = watch::Sender::new(true);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(listener, broker, up.subscribe()));
        Ok(Self {
            address,
            up,
            plan,
            away: None,
            total: Duration::ZERO,
            _carrier: carrier,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts and mends as planned.
    pub(crate) fn keep(&mut self, elapsed: Duration) {
        self.set(self.plan.is_up(elapsed), elapsed);
    }

    /// Whatever was planned: it is needed to the end. How long it was away.
    pub(crate) fn mend(&mut self, elapsed: Duration) -> Duration {
        self.set(true, elapsed);
        self.total
    }

    fn set(&mut self, up: bool, elapsed: Duration) {
        match (self.away, up) {
            (None, false) => self.away = Some(elapsed),
            (Some(since), true) => {
                self.away = None;
                self.total += elapsed.saturating_sub(since);
            }
            _ => return,
        }
        self.up.send_replace(up);
    }
}

async fn carry(listener: TcpListener, broker: SocketAddr, up: watch::Receiver<bool>) {
    let mut pairs = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        while pairs.try_join_next().is_some() {}
        let mut up = up.clone();
        if !*up.borrow_and_update() {
            continue;
        }
        pairs.spawn(async move {
            let Ok(mut far) = TcpStream::connect(broker).await else {
                return;
            };
            // Dropping both ends in the middle of whatever they say is what a lost network looks like at its best; at its
            // worst it is silence, which a heartbeat finds later.
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_away_for_five_seconds_or_half_of_a_short_demo() {
        let seconds = Duration::from_secs_f64;
        for (until, goes, comes) in [
            (None, 5.0, 10.0),
            (Some(60.0), 5.0, 10.0),
            (Some(10.0), 2.5, 7.5),
            (Some(2.0), 0.5, 1.5),
        ] {
            let plan = Plan::new(until.map(seconds));
            assert_eq!((plan.goes, plan.comes), (seconds(goes), seconds(comes)));
            assert!(plan.is_up(Duration::ZERO) && !plan.is_up(plan.goes) && plan.is_up(plan.comes));
        }
    }
}
