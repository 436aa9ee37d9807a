//! The subscribers: real clients on real sockets, each counting what it gets.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cauce_client::{Client, Continuity, Event, Options, Subscription};
use cauce_fleet::FleetClock;

use super::stage::{DEVICES, LOBBY};
use super::tally::Tally;
use crate::failure::Failure;
use crate::payload;

/// Events and bytes that may wait in a subscriber: what a fleet says within some seconds of a busy machine.
const BUFFER_EVENTS: usize = 65_536;
const BUFFER_BYTES: usize = 256 * 1024 * 1024;

/// One subscriber of one tenant.
pub(crate) struct Subscriber {
    pub(crate) user: String,
    client: Client,
    tally: Arc<Mutex<Tally>>,
}

impl Subscriber {
    /// Connects, joins and begins to count. `clock` is the one that stamps the frames, once it is known.
    pub(crate) async fn join(
        url: &str,
        user: &str,
        token: String,
        clock: Arc<OnceLock<FleetClock>>,
    ) -> Result<Self, Failure> {
        let options = Options::new(url)
            .token(token)
            .client_name(concat!("cauce-demo/", env!("CARGO_PKG_VERSION")))
            .buffer(BUFFER_EVENTS, BUFFER_BYTES);
        let client = Client::connect(options).await?;
        let devices = client.subscribe(DEVICES).await?;
        let lobby = client.subscribe(LOBBY).await?;
        let tally = Arc::new(Mutex::new(Tally::new()));
        tokio::spawn(count(devices, tally.clone(), clock));
        tokio::spawn(read_lobby(lobby, tally.clone()));
        Ok(Self {
            user: user.to_owned(),
            client,
            tally,
        })
    }

    /// Its count, for a look.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) async fn leave(&self) {
        self.client.close().await;
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // Numbers are never half written.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn count(mut devices: Subscription, tally: Arc<Mutex<Tally>>, clock: Arc<OnceLock<FleetClock>>) {
    while let Some(event) = devices.next().await {
        let mut tally = lock(&tally);
        match event {
            Event::Message(message) => {
                let now_us = clock.get().map(|clock| clock.now().as_micros());
                tally.hear(&message.event, message.payload.as_bytes(), now_us);
            }
            Event::Gap { missed } => tally.missed += missed.count(),
            Event::Lagged { missed } => tally.missed += missed,
            Event::Resubscribed {
                position,
                head,
                continuity,
            } => {
                let lost = match continuity {
                    Continuity::Continued => 0,
                    Continuity::Lost(missed) => missed.count(),
                    // Nobody knows how many, but surely not none.
                    Continuity::Reset => 1,
                };
                tally.missed += lost;
                tally.returned.returns += 1;
                tally.returned.continued += u64::from(continuity == Continuity::Continued);
                tally.returned.missed += head.0.saturating_sub(position.seq.0) + lost;
                tally.returned.lost += lost;
            }
            _ => {}
        }
    }
}

async fn read_lobby(mut lobby: Subscription, tally: Arc<Mutex<Tally>>) {
    while let Some(event) = lobby.next().await {
        if let Event::Message(message) = event {
            let event = crate::output::harmless(&message.event);
            lock(&tally).lobby = Some(format!("{event} {}", payload::show(&message.payload)));
        }
    }
}
