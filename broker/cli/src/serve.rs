//! `cauce serve`: the broker as a process, from its first line to its last signal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use cauce_broker::config::{Config, Loaded};
use cauce_broker::{Persistence, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::background::runtime;
use crate::failure::Failure;
use crate::files;
use crate::logs::{self, Level};
use crate::output;
use crate::settings::SettingsArgs;

/// Beyond the deadline, for threads to end; then the process ends by force.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Wrappers such as timeout(1) send a signal to the process and to its group: within this time it is one signal.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Run a broker
#[derive(clap::Args)]
#[command(
    after_help = "Signals: TERM and INT drain (see `drain` in the configuration), a second one stops at once; HUP reads configuration and certificates again.\n\nExamples:\n  cauce serve\n  cauce serve --config /etc/cauce.toml\n  cauce serve --listen 0.0.0.0:7700 --data-dir /var/lib/cauce --log info,cauce_broker::shelly=debug\n  cauce serve --set limits.connections=20000 --set log.format=json\n  CAUCE_LIMITS__FRAME_BYTES=32KiB cauce serve"
)]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What the process listens to besides sockets.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

/// What a signal asks for.
enum Asked {
    Reload,
    /// By this name.
    Stop(&'static str),
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|e| Failure::failed(format_args!("cannot take signals: {e}")));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next signal. Cancel-safe.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::Stop("INT"),
            _ = self.terminate.recv() => Asked::Stop("TERM"),
        }
    }

    /// The name of the next signal that asks to stop and is not the echo of the one before.
    async fn again(&mut self) -> &'static str {
        let asked = tokio::time::Instant::now();
        loop {
            match self.next().await {
                Asked::Stop(signal) if asked.elapsed() > SAME_SIGNAL => return signal,
                _ => {}
            }
        }
    }
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let loaded = self.settings.load()?;
        let level = logs::install(&loaded.config.log)?;
        files::raise_limit();
        let runtime = runtime()?;
        // Before anything is opened, so that no moment of the start is deaf to them.
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        let server = Server::start(&loaded.config, Persistence::Store)?;
        level.show_to_watchers_of(server.handle().log_lines());
        for line in banner(&loaded.config, &server) {
            // A service whose standard output is closed serves all the same.
            let _ = output::line(&line);
        }
        let last = runtime.block_on(self.until_stopped(&server, loaded, &level, &mut signals));
        runtime.block_on(stop(server, last.config.drain.deadline, &mut signals))
    }

    /// Answers what is configured by then.
    async fn until_stopped(
        &self,
        server: &Server,
        mut loaded: Loaded,
        level: &Level,
        signals: &mut Signals,
    ) -> Loaded {
        loop {
            if let Asked::Stop(signal) = signals.next().await {
                let deadline = loaded.config.drain.deadline;
                tracing::info!(signal, ?deadline, "draining; a second signal stops at once");
                return loaded;
            }
            let newer = match self.settings.load() {
                Ok(newer) => newer,
                Err(Failure::Config(message) | Failure::Failed(message)) => {
                    tracing::error!(%message, "reload refused; everything stays as it was");
                    continue;
                }
                Err(_) => continue,
            };
            // Reading keys and certificates blocks; signals can wait for that.
            match server.reload(&newer.config) {
                Ok(()) => loaded = told(level, &loaded, newer),
                Err(error) => {
                    tracing::error!(%error, "reload refused; the old certificates and keys stay in use");
                }
            }
        }
    }
}

/// Logs what a reload changed, and takes the new log level.
fn told(level: &Level, old: &Loaded, newer: Loaded) -> Loaded {
    let (live, restart) = old.changes(&newer);
    if let Err(Failure::Config(message) | Failure::Failed(message)) = level.set(&newer.config.log) {
        tracing::error!(%message, "the log level stays as it was");
    }
    tracing::info!(changed = %list(&live), "reloaded configuration, keys and certificates");
    if !restart.is_empty() {
        tracing::warn!(changed = %list(&restart), "these settings take effect at the next start");
    }
    newer
}

fn list(keys: &[String]) -> String {
    match keys {
        [] => "nothing".to_owned(),
        keys => keys.join(", "),
    }
}

async fn stop(server: Server, deadline: Duration, signals: &mut Signals) -> Result<(), Failure> {
    let (done, stopped) = oneshot::channel();
    // Stopping blocks and runs an executor of its own.
    std::thread::Builder::new()
        .name("cauce-stop".to_owned())
        .spawn(move || done.send(server.stop(deadline)))
        .map_err(|e| Failure::failed(format_args!("cannot stop in order: {e}")))?;
    tokio::select! {
        stopped = stopped => match stopped {
            Ok(stopped) if stopped.unwritten_rows == 0 => {
                tracing::info!(cut_peers = stopped.cut_peers, "stopped");
                Ok(())
            }
            Ok(stopped) => Err(Failure::failed(format_args!(
                "stopped, but the database did not take {} rows in time",
                stopped.unwritten_rows
            ))),
            Err(_) => Err(Failure::failed("stopping failed; see the log")),
        },
        name = signals.again() => Err(Failure::failed(format_args!("stopped at once by a second signal ({name})"))),
        () = tokio::time::sleep(deadline + STOP_MARGIN) => {
            Err(Failure::failed("stopped by force: threads did not end in time"))
        }
    }
}

/// The four lines: what is open, where the data lies, who works, how to get a first token.
fn banner(config: &Config, server: &Server) -> [String; 4] {
    let (ws, http) = match server.has_tls() {
        true => ("wss", "https"),
        false => ("ws", "http"),
    };
    let at = server.address();
    let (internal, administration) = match server.internal_address() {
        None => (format!("{http}://{at}"), String::new()),
        // The second address is for this network alone and speaks no TLS.
        Some(at) => (
            format!("http://{at}"),
            format!(" · administration http://{at}/v1"),
        ),
    };
    let handle = server.handle();
    let shards = handle.metrics().shards.len();
    let ingest = config.threads.ingest_shards;
    let serving = match ingest {
        0 => format!("{shards} for clients and devices"),
        _ => format!(
            "{} for clients, {ingest} for devices",
            shards.saturating_sub(ingest)
        ),
    };
    let data = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    [
        format!(
            "listening  clients {ws}://{at}/v1/ws · devices {ws}://{at}/shelly · API {http}://{at}/v1{administration} · metrics {internal}/metrics"
        ),
        format!("data       {}", data.display()),
        format!("threads    {serving}, 1 for the database, 1 for the API"),
        format!("token      {}", token_command(config, at, http)),
    ]
}

/// The literal command for a first token, with what differs from the defaults.
fn token_command(config: &Config, at: SocketAddr, http: &str) -> String {
    let mut command = "cauce token --user ana".to_owned();
    let at = reachable(at);
    if http != "http" || at != SocketAddr::from(([127, 0, 0, 1], 7700)) {
        command.push_str(&format!(" --url {http}://{at}"));
    }
    let key = config.operator_key_path();
    match key.parent() {
        Some(dir) if key.ends_with("operator.key") && dir == Path::new("./cauce-data") => {}
        Some(dir) if key.ends_with("operator.key") => {
            command.push_str(&format!(" --data-dir {}", quoted(&dir.display().to_string())));
        }
        _ => command.push_str(&format!(
            " --api-key \"$(cat {})\"",
            quoted(&key.display().to_string())
        )),
    }
    command
}

/// An address that can be dialled from this machine.
fn reachable(at: SocketAddr) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), at.port()),
        _ => at,
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_command_can_be_pasted() {
        let mut config = Config::default();
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(
            token_command(&config, at("127.0.0.1:7700"), "http"),
            "cauce token --user ana"
        );
        assert_eq!(
            token_command(&config, at("0.0.0.0:81"), "https"),
            "cauce token --user ana --url https://127.0.0.1:81"
        );
        config.data_dir = "/srv/it's here".into();
        assert_eq!(
            token_command(&config, at("[::]:7700"), "http"),
            r"cauce token --user ana --url http://[::1]:7700 --data-dir '/srv/it'\''s here'"
        );
        config.admin.key_file = Some("/etc/cauce/key".into());
        assert_eq!(
            token_command(&config, at("127.0.0.1:7700"), "http"),
            "cauce token --user ana --api-key \"$(cat /etc/cauce/key)\""
        );
    }
}
