//! Structured logs on standard error. The level can change while the program runs.

use std::io;

use cauce_broker::config::{Log, LogFormat};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::failure::Failure;
use crate::output::may_colour;

/// Changes the level of a running program.
#[derive(Clone, Debug)]
pub(crate) struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    pub(crate) fn set(&self, log: &Log) -> Result<(), Failure> {
        self.0.reload(filter(log)?).map_err(Failure::failed)
    }
}

/// Installs the logs of this process.
pub(crate) fn install(log: &Log) -> Result<Level, Failure> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(may_colour(&io::stderr())).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(Failure::failed)?;
    Ok(Level(handle))
}

fn filter(log: &Log) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(&log.level)
        .map_err(|e| Failure::Config(format!("log.level: {:?} cannot be used: {e}", log.level)))
}
