//! `cauce simulate`: a fleet of emulated devices, against any broker or on the local network.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cauce_fleet::{
    FaultPlan, Fleet, FleetOptions, FleetStats, LanBind, Model, ModelMix, Password, RATE_MAX, Reach, Stamp,
    Tokens, Trust,
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::read_authorities;
use crate::background::{interrupted, runtime};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, remark};

/// Between two lines of counts.
const TICK: Duration = Duration::from_secs(1);

/// Run a fleet of emulated devices
#[derive(clap::Args)]
#[command(
    after_help = "Devices dial --url with --token (cauce device token create), or listen on --lan for software that polls plugs.\nThe same seed gives the same fleet. Ends by Ctrl-C or --seconds, with final counts.\n\nExamples:\n  cauce simulate --token \"$DEVICE_TOKEN\" --devices 20\n  cauce simulate --url wss://broker.example/shelly --token \"$T\" --devices 1000 --rate 1 --seconds 60 --json\n  cauce simulate --token \"$T\" --faults 'reboot=0.5,half-open=0.2,herd@30s'\n  cauce simulate --lan 127.0.0.1:8080 --devices 3 --password secret\n  cauce simulate --list-models"
)]
pub(crate) struct Simulate {
    /// Where devices dial
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7700/shelly")]
    url: String,
    /// Device token; without one the URL is dialled as it is
    #[arg(long, env = "CAUCE_DEVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with the authorities that devices trust, for wss://
    #[arg(long, env = "CAUCE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Listen instead of dialling: device n at port + n; port 0 for free ports
    #[arg(long, value_name = "IP:PORT", conflicts_with = "url")]
    lan: Option<std::net::SocketAddrV4>,
    /// Password of devices that listen
    #[arg(long, requires = "lan", env = "CAUCE_DEVICE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// How many
    #[arg(long, default_value_t = 10)]
    devices: u32,
    /// Which, with weights: `plugsg3:5,plusplugs:2`
    #[arg(long, value_name = "LIST")]
    models: Option<String>,
    /// Print the names of all models
    #[arg(long)]
    list_models: bool,
    /// Status frames a second of each device, instead of what plugs do by nature
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// What goes wrong: times a minute per device, and herds: `reboot=0.5,repeat=2,herd@30s`
    #[arg(long, value_name = "PLAN")]
    faults: Option<FaultPlan>,
    /// Same seed, same fleet
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Put the moment of emission into frames, as `x_sent.us`
    #[arg(long)]
    stamp: bool,
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    #[command(flatten)]
    format: FormatArgs,
}

/// Frames a second as people type them.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!(
            "a rate is above 0 and at most {RATE_MAX} frames a second"
        )),
    }
}

impl Simulate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.list_models {
            return Model::names().try_for_each(output::line);
        }
        let options = self.options()?;
        runtime()?.block_on(self.watch(options))
    }

    fn options(&self) -> Result<FleetOptions, Failure> {
        let usage = |error: cauce_fleet::FleetError| Failure::Usage(error.to_string());
        let mut options = match self.lan {
            Some(address) => {
                let bind = LanBind::Ports {
                    ip: *address.ip(),
                    first: address.port(),
                };
                FleetOptions::lan(bind, self.password.clone().map(Password), self.devices)
            }
            None => {
                let tokens = self.token.clone().map_or(Tokens::None, Tokens::Shared);
                FleetOptions::outbound(&self.url, tokens, self.devices)
            }
        }
        .map_err(usage)?;
        if let Some(models) = &self.models {
            options.models = ModelMix::parse(models).map_err(|e| Failure::Usage(format!("--models: {e}")))?;
        }
        if let Some(faults) = &self.faults {
            options.faults = faults.clone();
        }
        if let (Some(path), Reach::Outbound { trust, .. }) = (&self.ca, &mut options.reach) {
            *trust = Trust::Authorities(read_authorities(path)?.into_bytes());
        }
        options.rate = self.rate;
        options.seed = self.seed;
        options.stamp = if self.stamp {
            Stamp::EmissionTime
        } else {
            Stamp::Off
        };
        Ok(options)
    }

    async fn watch(&self, options: FleetOptions) -> Result<(), Failure> {
        let format = self.format.format();
        let fleet = Fleet::start(options).map_err(|e| Failure::Usage(e.to_string()))?;
        if format == Format::Text {
            for (device, address) in fleet.devices().zip(fleet.addresses()) {
                output::line(&format!("{} listens on http://{address}", device.as_str()))?;
            }
        }
        let started = Instant::now();
        let over = async {
            match self.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        let mut before = fleet.snapshot();
        loop {
            tokio::select! {
                () = &mut over => break,
                result = &mut interrupted => { result?; break }
                _ = ticks.tick() => {}
            }
            let now = fleet.snapshot();
            tell(format, started.elapsed(), &before, &now)?;
            before = now;
        }
        let total = fleet.stop().await;
        let seconds = started.elapsed().as_secs_f64();
        match format {
            Format::Json => output::json(&json!({"seconds": seconds, "seed": self.seed, "total": total})),
            Format::Text => output::line(&format!(
                "{} devices sent {} frames ({} full, {} partial, {} events, {} answers) in {seconds:.1} s; {} connections, {} failed dials",
                total.devices,
                total.totals.frames_sent(),
                total.totals.full_frames + total.totals.greeting_frames,
                total.totals.status_frames + total.totals.repeat_frames,
                total.totals.event_frames,
                total.totals.reply_frames,
                total.totals.connects,
                total.totals.connect_failures,
            )),
        }
    }
}

/// A line for each second: on standard output for people, aside for scripts, which get the total.
fn tell(format: Format, at: Duration, before: &FleetStats, now: &FleetStats) -> Result<(), Failure> {
    let sent = now.totals.frames_sent() - before.totals.frames_sent();
    let failed = now.totals.connect_failures - before.totals.connect_failures;
    let failed = match failed {
        0 => String::new(),
        failed => format!(", {failed} dials failed"),
    };
    let text = format!(
        "{:>5} s: {} of {} connected, {sent} frames sent{failed}",
        at.as_secs(),
        now.totals.connected,
        now.devices
    );
    match format {
        Format::Json => {
            remark(&text);
            Ok(())
        }
        Format::Text => output::line(&text),
    }
}
