//! Structured logs on standard error. The level can change while the program runs.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use cauce_broker::config::{Log, LogFormat};
use cauce_broker::hub::{LogLine, LogLines};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::failure::Failure;
use crate::output::may_colour;

/// Changes the level of a running program, and where else its lines go.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    watchers: Arc<OnceLock<Arc<LogLines>>>,
}

impl Level {
    pub(crate) fn set(&self, log: &Log) -> Result<(), Failure> {
        self.filter.reload(filter(log)?).map_err(Failure::failed)
    }

    /// Leaves lines with a broker for whoever watches it, from now on.
    pub(crate) fn show_to_watchers_of(&self, lines: Arc<LogLines>) {
        // A process has one broker: the first is it.
        let _ = self.watchers.set(lines);
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Installs the logs of this process.
pub(crate) fn install(log: &Log) -> Result<Level, Failure> {
    let watchers = Arc::<OnceLock<_>>::default();
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(may_colour(&io::stderr())).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(ForWatchers(watchers.clone()))
        .try_init()
        .map_err(Failure::failed)?;
    Ok(Level {
        filter: handle,
        watchers,
    })
}

/// Gives what is logged to whoever watches the broker, if somebody does.
struct ForWatchers(Arc<OnceLock<Arc<LogLines>>>);

impl<S: Subscriber> Layer<S> for ForWatchers {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(lines) = self.0.get().filter(|lines| lines.is_watched()) else {
            return;
        };
        let meta = event.metadata();
        if *meta.level() > tracing::Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        lines.push(LogLine {
            unix_ms: unix_ms(),
            level: meta.level().as_str(),
            target: meta.target().to_owned(),
            text: text.message + &text.fields,
        });
    }
}

/// An event in one line: the message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a `String` cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

fn filter(log: &Log) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(&log.level)
        .map_err(|e| Failure::Config(format!("log.level: {:?} cannot be used: {e}", log.level)))
}
