//! `cauce demo`: the whole path at work on this machine. Real sockets, commands, two tenants, and counts that must agree.
//!
//! ```text
//! fleet (own thread) ── /shelly ──▶ broker (own threads) ── /v1/ws ──▶ subscribers (this thread) ──▶ tally ──▶ view, summary
//!                                      └──▶ SQLite ─────────────────────────────────────────────────────────▶ summary
//! ```

mod audience;
mod hands;
mod outage;
mod screen;
mod stage;
mod summary;
mod tally;
mod view;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cauce_broker::Server;
use cauce_broker::config::Config;
use cauce_fleet::{Fleet, FleetOptions, FleetStats, Stamp, Tokens};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::background::{Background, runtime};
use crate::failure::Failure;
use crate::logs;
use crate::output::{self, Format, FormatArgs};
use crate::simulate::parse_rate;
use audience::Subscriber;
use hands::{Commands, Hands};
use outage::{Outage, Plan, Wire};
use screen::Screen;
use stage::{DEVICES, DataDir, LOBBY, Load};
use summary::{Counted, Heard, Summary, TenantSummary, changing_frames};
use tally::Percentiles;
use view::{Picture, RATES_MAX, TenantPicture};

/// Both call their rooms, users and devices by the same names.
const TENANTS: [&str; 2] = ["clinic", "shop"];

/// Subscribers in each tenant.
const USERS: [&str; 2] = ["ana", "luis"];

/// One more in the first tenant, who loses its network for a while.
const TRAVELLER: &str = "eva";

/// Between two pictures.
const TICK: Duration = Duration::from_millis(500);

/// For the last messages to arrive once nothing more is sent.
const DRAIN: Duration = Duration::from_secs(10);

/// For zeros that devices forgot to send: the broker derives them after two seconds.
const ZEROS: Duration = Duration::from_millis(2_500);

/// Between two looks whether they have.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// For the broker to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// See it work: a broker, a fleet of plugs, subscribers in two tenants, a live view
#[derive(clap::Args)]
#[command(
    after_help = "Everything is on this machine: a broker on embedded defaults, emulated plugs that dial in over real sockets, subscribers\nover real WebSockets. Ends with a summary; exit code 1 if its counts do not agree.\n\nExamples:\n  cauce demo\n  cauce demo --seconds 20 --json\n  cauce demo --devices 500 --rate 2\n  cauce demo --data-dir ./demo-data        keeps the data; the next run shows the last states first"
)]
pub(crate) struct Demo {
    /// End after so many seconds; without, Ctrl-C ends it (with --json: 10)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Devices, shared between the two tenants
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    devices: u32,
    /// Status frames a second of each device
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate, default_value = "1", conflicts_with = "natural")]
    rate: f64,
    /// Let plugs report as they do by nature: when something changes, and once a minute
    #[arg(long)]
    natural: bool,
    /// Same seed, same fleets
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to listen [default: 127.0.0.1:7700, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Folder of the database; kept [default: a new one that is taken away at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep the folder of the database though it was not named
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// One tenant's part.
struct Party {
    tenant: stage::Tenant,
    subscribers: Vec<Subscriber>,
    fleet: Option<Fleet>,
    /// Final, once the fleet has stopped.
    sent: FleetStats,
}

impl Party {
    /// Frames sent so far that each subscriber must hear of.
    fn changing_frames(&self) -> u64 {
        changing_frames(&self.sent)
    }

    /// Devices that the database must know: those from before, and those that were heard.
    fn known(&self) -> u64 {
        let mut known = self.tenant.known.clone();
        for subscriber in &self.subscribers {
            known.extend(subscriber.tally().devices().map(str::to_owned));
        }
        known.len() as u64
    }

    fn expects_zero(&self) -> bool {
        self.subscribers
            .iter()
            .any(|subscriber| subscriber.tally().expects_zero())
    }

    fn is_drained(&self) -> bool {
        self.subscribers.iter().all(|subscriber| {
            let tally = subscriber.tally();
            tally.from_frames >= self.changing_frames() && tally.floor().online == 0
        })
    }
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let mut config = Config::default();
        // The view has the screen; what goes wrong is still said.
        config.log.level = "error".to_owned();
        logs::install(&config.log)?;
        let dir = DataDir::take(self.data_dir.clone(), self.keep)?;
        let load = Load {
            devices: self.devices,
            rate: (!self.natural).then_some(self.rate),
        };
        let server = stage::start(self.listen, dir.path(), &load)?;
        let runtime = runtime()?;
        let started = Instant::now();
        let devices = Background::start("cauce-fleet")?;
        let shown = runtime.block_on(self.show(&server, &devices, format))?;
        let Shown {
            mut parties,
            commands,
            outage,
        } = shown;
        drop(devices);
        let seconds = started.elapsed().as_secs_f64();

        let (stats, latency_us) = (counted(&server), latency(&parties));
        let heard: Vec<Vec<Heard>> = parties.iter().map(heard).collect();
        let known: Vec<u64> = parties.iter().map(Party::known).collect();
        for party in &mut parties {
            party.subscribers.clear();
        }
        drop(runtime);
        let stopped = server.stop(STOP_DEADLINE);
        let tenants: Vec<stage::Tenant> = parties.iter().map(|party| party.tenant.clone()).collect();
        let rows = stage::rows_gained(dir.path(), &tenants)?;

        let tenants = parties.iter().zip(heard).zip(known).zip(rows);
        let summary = Summary {
            agree: false,
            disagreements: Vec::new(),
            seconds,
            seed: self.seed,
            data_dir: dir.path().display().to_string(),
            broker: Counted {
                unwritten_rows: stopped.unwritten_rows,
                ..stats
            },
            commands,
            outage,
            latency_us,
            tenants: tenants
                .map(|(((party, subscribers), devices_known), rows)| TenantSummary {
                    tenant: party.tenant.id.to_string(),
                    devices_restored: party.tenant.known.len() as u64,
                    devices_known,
                    fleet: party.sent,
                    subscribers,
                    rows,
                })
                .collect(),
        }
        .judge();
        match format {
            Format::Json => output::json(&summary)?,
            Format::Text => summary.lines().iter().try_for_each(|line| output::line(line))?,
        }
        if summary.agree { Ok(()) } else { Err(Failure::Told) }
    }

    /// Sets the stage, lets it run, stops the fleet and waits for the last messages.
    async fn show(&self, server: &Server, devices: &Background, format: Format) -> Result<Shown, Failure> {
        let clock = Arc::new(OnceLock::new());
        let mut parties = Vec::with_capacity(TENANTS.len());
        for name in TENANTS {
            parties.push(gather(server, name, &clock).await?);
        }
        let mut wire = Wire::lay(server.address(), Plan::new(self.until(format))).await?;
        if let Some(party) = parties.first_mut() {
            party
                .subscribers
                .push(travel(server, &party.tenant, &wire).await?);
        }
        if format == Format::Text {
            for line in self.welcome(server, &parties).await? {
                output::line(&line)?;
            }
        }
        let first = self.devices.div_ceil(2);
        let counts = [first, self.devices - first];
        // Each tenant has plugs of its own, with lives of their own.
        for ((party, count), seed) in parties.iter_mut().zip(counts).zip(self.seed..) {
            let url = format!("ws://{}/shelly", server.address());
            let mut options =
                FleetOptions::outbound(url, Tokens::Shared(party.tenant.device_token.clone()), count)
                    .map_err(Failure::failed)?;
            options.rate = (!self.natural).then_some(self.rate);
            options.seed = seed;
            options.stamp = Stamp::EmissionTime;
            let fleet = {
                let _on = devices.handle().enter();
                Fleet::start(options).map_err(|e| Failure::Usage(e.to_string()))?
            };
            // Both fleets read the same clocks of the machine.
            let _ = clock.set(fleet.clock());
            party.fleet = Some(fleet);
        }
        let (commands, away) = self.watch(server, &parties, &mut wire, format).await?;
        for party in &mut parties {
            if let Some(fleet) = party.fleet.take() {
                party.sent = fleet.stop().await;
            }
        }
        let drained = async {
            while !parties.iter().all(Party::is_drained) {
                tokio::time::sleep(DRAIN_STEP).await;
            }
        };
        // If they do not come, the summary says which.
        let _ = timeout(DRAIN, drained).await;
        let zeros = async {
            while parties.iter().any(Party::expects_zero) {
                tokio::time::sleep(DRAIN_STEP).await;
            }
        };
        // A switch that was found off never gets one, so this is only waited for and not demanded.
        let _ = timeout(ZEROS, zeros).await;
        let mut subscribers = parties.iter().flat_map(|party| &party.subscribers);
        let traveller = subscribers.find(|subscriber| subscriber.user == TRAVELLER);
        let returned = traveller.map(|subscriber| subscriber.tally().returned);
        let outage = Outage::new(TRAVELLER, away, returned.unwrap_or_default());
        for subscriber in parties.iter().flat_map(|party| &party.subscribers) {
            subscriber.leave().await;
        }
        Ok(Shown {
            parties,
            commands,
            outage,
        })
    }

    /// When it ends by itself.
    fn until(&self, format: Format) -> Option<Duration> {
        match (self.seconds, format) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, Format::Json) => Some(Duration::from_secs(10)),
            (None, Format::Text) => None,
        }
    }

    /// Draws until the time is over or somebody asks to end.
    async fn watch(
        &self,
        server: &Server,
        parties: &[Party],
        wire: &mut Wire,
        format: Format,
    ) -> Result<(Commands, Duration), Failure> {
        let until = self.until(format);
        let over = async {
            match until {
                Some(until) => tokio::time::sleep(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let interrupted = crate::background::interrupted();
        tokio::pin!(interrupted);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut screen = Screen::open(format);
        let mut rates = Rates::default();
        let tenant = server.handle().tenant(TENANTS[1]).map_err(Failure::failed)?;
        let mut hands = Hands::new(tenant);
        let started = Instant::now();
        loop {
            tokio::select! {
                () = &mut over => break,
                result = &mut interrupted => { result?; break }
                _ = ticks.tick() => {}
            }
            wire.keep(started.elapsed());
            rates.sample(total_messages(parties), started.elapsed());
            screen.draw(&picture(
                server,
                parties,
                started.elapsed(),
                until,
                &rates.samples,
            ))?;
            hands.work(online(parties));
        }
        let away = wire.mend(started.elapsed());
        Ok((hands.rest().await, away))
    }

    /// What a newcomer needs, before the view takes the screen.
    async fn welcome(&self, server: &Server, parties: &[Party]) -> Result<Vec<String>, Failure> {
        let Some(party) = parties.first() else {
            return Ok(Vec::new());
        };
        let (at, tenant) = (server.address(), &party.tenant.id);
        let token = stage::token(server.admin(), tenant, "visitor").await?;
        let key = stage::api_key(server.admin(), tenant).await?;
        let restored: usize = parties.iter().map(|party| party.tenant.known.len()).sum();
        let mut lines = vec![
            "Join from another terminal:".to_owned(),
            format!("  cauce sub '{DEVICES}' {LOBBY} --url http://{at} --token {token}"),
            "Publish with the API:".to_owned(),
            format!(
                "  curl http://{at}/v1/publish -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"room\":\"{LOBBY}\",\"event\":\"said\",\"json\":\"hello\"}}'"
            ),
            format!("From a browser: open http://{at}/ and paste into its console:"),
            format!(
                "  ws = new WebSocket('ws://{at}/v1/ws', ['cauce.v1.json', 'cauce.token.{token}']); ws.onmessage = m => console.log(JSON.parse(m.data)); ws.onopen = () => ws.send(JSON.stringify({{id: 1, subscribe: {{rooms: ['{LOBBY}', '{DEVICES}']}}}}))"
            ),
            String::new(),
        ];
        if restored > 0 {
            lines.push(format!(
                "{restored} devices are known from an earlier run. Their last states, such as:"
            ));
            for party in parties {
                let states = party.tenant.last.iter();
                lines.extend(states.map(|state| format!("  {}: {state}", party.tenant.id)));
            }
            lines.push(String::new());
        }
        Ok(lines)
    }
}

/// What the demo leaves to be compared.
struct Shown {
    parties: Vec<Party>,
    commands: Commands,
    outage: Outage,
}

/// The one more, on a wire of its own. What it gets late says nothing of how fast the broker is, so it has no clock.
async fn travel(server: &Server, tenant: &stage::Tenant, wire: &Wire) -> Result<Subscriber, Failure> {
    let token = stage::token(server.admin(), &tenant.id, TRAVELLER).await?;
    let url = format!("ws://{}/v1/ws", wire.address());
    Subscriber::join(&url, TRAVELLER, token, Arc::default()).await
}

/// A tenant with its subscribers, before there is anything to hear.
async fn gather(
    server: &Server,
    name: &str,
    clock: &Arc<OnceLock<cauce_fleet::FleetClock>>,
) -> Result<Party, Failure> {
    let tenant = stage::tenant(server.admin(), name).await?;
    let url = format!("ws://{}/v1/ws", server.address());
    let mut subscribers = Vec::with_capacity(USERS.len());
    for user in USERS {
        let token = stage::token(server.admin(), &tenant.id, user).await?;
        subscribers.push(Subscriber::join(&url, user, token, clock.clone()).await?);
    }
    Ok(Party {
        tenant,
        subscribers,
        fleet: None,
        sent: FleetStats::default(),
    })
}

/// Messages a second, sampled.
#[derive(Default)]
struct Rates {
    samples: Vec<f64>,
    last: Option<(u64, Duration)>,
}

impl Rates {
    fn sample(&mut self, total: u64, at: Duration) {
        if let Some((before, then)) = self.last {
            let seconds = (at.saturating_sub(then)).as_secs_f64();
            if seconds > 0.0 {
                self.samples.push(total.saturating_sub(before) as f64 / seconds);
            }
            let excess = self.samples.len().saturating_sub(RATES_MAX);
            self.samples.drain(..excess);
        }
        self.last = Some((total, at));
    }
}

/// Devices of the second tenant that are there.
fn online(parties: &[Party]) -> Vec<String> {
    let subscriber = parties.get(1).and_then(|party| party.subscribers.first());
    subscriber.map_or(Vec::new(), |subscriber| {
        subscriber.tally().online().map(str::to_owned).collect()
    })
}

fn total_messages(parties: &[Party]) -> u64 {
    let subscribers = parties.iter().flat_map(|party| &party.subscribers);
    subscribers.map(|subscriber| subscriber.tally().messages()).sum()
}

fn picture(
    server: &Server,
    parties: &[Party],
    elapsed: Duration,
    until: Option<Duration>,
    rates: &[f64],
) -> Picture {
    let tenants = parties.iter().filter_map(|party| {
        let tally = party.subscribers.first()?.tally();
        Some(TenantPicture {
            name: party.tenant.id.to_string(),
            floor: tally.floor(),
            subscribers: party.subscribers.len(),
            updates: tally.updates(),
            lobby: tally.lobby.clone(),
        })
    });
    Picture {
        elapsed,
        until,
        tenants: tenants.collect(),
        rates: rates.to_vec(),
        latency: latency(parties),
        rows: server
            .admin()
            .store()
            .map(|store| store.counters().rows_written()),
    }
}

fn latency(parties: &[Party]) -> Option<Percentiles> {
    let subscribers = parties.iter().flat_map(|party| &party.subscribers);
    let tallies: Vec<_> = subscribers.map(Subscriber::tally).collect();
    Percentiles::of(tallies.iter().map(|tally| &**tally))
}

fn heard(party: &Party) -> Vec<Heard> {
    let subscribers = party.subscribers.iter();
    subscribers
        .map(|subscriber| Heard::new(&subscriber.user, &subscriber.tally()))
        .collect()
}

fn counted(server: &Server) -> Counted {
    let handle = server.handle();
    let metrics = handle.metrics();
    Counted {
        device_frames: metrics.total(|shard| &shard.device_frames),
        device_changes: metrics.total(|shard| &shard.device_changes),
        deliveries: metrics.total(|shard| &shard.deliveries),
        unwritten_rows: 0,
    }
}
