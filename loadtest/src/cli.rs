//! What people type, and what the exit code says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cauce_threads::Priority;

use crate::assertion::{Assertion, Judgement};
use crate::beside::Beside;
use crate::kept::Keep;
use crate::limit::{Faults, LimitServer, Writing};
use crate::process;
use crate::report::micro::MicroOptions;
use crate::report::{Document, Outcome, Verdict, compare::compare, html, table::table};
use crate::scenario::{BUILT_IN, Scenario, Shape};
use crate::search::highest;
use crate::session::Place;
use crate::standard::StandardOptions;
use crate::sweep::Sweep;
use crate::tls::Identity;
use crate::{devices, disturbed, idle, interleaved, storm};

/// An assertion did not hold.
pub(crate) const EXIT_ASSERTION: u8 = 3;
/// The generator was the bottleneck.
const EXIT_GENERATOR_BOUND: u8 = 4;
/// Messages were lost, doubled or out of order, or connections ended.
const EXIT_NOT_WHOLE: u8 = 5;

/// The load test's commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a scenario against a server
    #[command(
        after_help = "Exit code: 0 sound, 1 could not be run, 2 usage, 3 an assertion does not hold, 4 the generator was the bottleneck,\n5 messages were lost, doubled or out of order.\n\nExamples:\n  cauce-loadtest run echo --key $SECRET\n  cauce-loadtest run rooms --rate 5000 --pin 0:1 --limit one-write --limit coalesce --html rooms.html\n  cauce-loadtest run pairs --assert 'p99<1ms' --assert lost==0\n  cauce-loadtest run my.toml --set shape.rooms=500 --set load.payload=json\n  cauce-loadtest run rooms --dialect socketio --target 127.0.0.1:3000 --pin 0:1 --limit coalesce"
    )]
    Run(Run),
    /// Find the highest rate that keeps the assertions, by bisection
    #[command(
        after_help = "Example:\n  cauce-loadtest search rooms --assert 'p99<=2ms' --from 500 --to 50000 --pin 0:1"
    )]
    Search(SearchOptions),
    /// Run the standard set, each run against its target, and print one table in Markdown
    #[command(
        after_help = "With --serve, each line gets a fresh broker. Without it, the server at --target must be fresh, and configured as\nloadtest/server.toml shows. Ctrl-C leaves nothing running and no document changed.\n\nExamples:\n  cauce-loadtest standard --serve target/release/cauce --pin 0:1\n  cauce-loadtest standard --serve target/release/cauce --pin 0:1 --lines 2,4 --rounds 5 --out bench\n  cauce-loadtest standard --pin 0:1 > table.md"
    )]
    Standard(Box<StandardOptions>),
    /// Run a scenario at several rates, and show how latency rises with load
    #[command(
        after_help = "Examples:\n  cauce-loadtest sweep rooms --rates 500,1k,2k,5k,10k --pin 0:1 --limit one-write --html rates.html\n  cauce-loadtest sweep pairs --rates 1k,10k,20k --seconds 5 --assert 'p99<2ms'"
    )]
    Sweep(Box<Sweep>),
    /// Show two results side by side
    Compare { first: PathBuf, second: PathBuf },
    /// List the scenarios that come with this program, or print one to change it
    Scenarios { name: Option<String> },
    /// A bare server: what the machine can do at most
    LimitServer(LimitOptions),
    /// Show Criterion's estimates as a table
    #[command(hide = true)]
    Micro(MicroOptions),
    /// Run a program until our standard input ends
    #[command(hide = true)]
    Keep(Keep),
}

#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    what: What,
    /// Run the same against a bare server too: one-write or coalesce. May be given twice.
    #[arg(long, value_enum)]
    limit: Vec<LimitKind>,
    /// JSON to a file, or to the standard output with -.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct SearchOptions {
    #[command(flatten)]
    what: What,
    /// The rate to begin with, in messages a second.
    #[arg(long, default_value_t = 500.0)]
    from: f64,
    /// The highest rate to try.
    #[arg(long, default_value_t = 200_000.0)]
    to: f64,
}

/// A scenario, what is changed in it, and what it must keep.
#[derive(Debug, clap::Args)]
pub(crate) struct What {
    /// A scenario's name (see `scenarios`), or a file.
    scenario: String,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Messages a second in all: open loop.
    #[arg(long, conflicts_with = "outstanding")]
    rate: Option<f64>,
    /// Messages under way at a time: closed loop.
    #[arg(long)]
    outstanding: Option<u32>,
    /// Length of the measurement.
    #[arg(long)]
    seconds: Option<f64>,
    /// Length of the load before it.
    #[arg(long)]
    warmup: Option<f64>,
    /// Threads of the generator.
    #[arg(long)]
    threads: Option<u32>,
    /// Change any setting of the scenario. May be given many times.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// What must hold, as in p99<2ms. May be given many times.
    #[arg(long = "assert", value_name = "RULE")]
    pub(crate) assertions: Vec<Assertion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LimitKind {
    OneWrite,
    Coalesce,
}

impl From<LimitKind> for Writing {
    fn from(kind: LimitKind) -> Self {
        match kind {
            LimitKind::OneWrite => Self::OneByOne,
            LimitKind::Coalesce => Self::Coalesced,
        }
    }
}

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct LimitOptions {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7711")]
    listen: SocketAddr,
    /// All frames that a peer gets from one turn go into one write (the default).
    #[arg(long)]
    coalesce: bool,
    /// Each frame is written by itself.
    #[arg(long, conflicts_with = "coalesce")]
    one_write: bool,
    /// How far above the machine's other work it goes, 0 to 20. Above 0, root or CAP_SYS_NICE.
    #[arg(long, default_value = "0", value_parser = crate::session::priority)]
    priority: Priority,
    /// Speak TLS with this certificate chain, PEM, leaf first.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate that is made now, and print it.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,
}

/// Writes the examples of `command` and of those below it for a program that people call in another way than `cauce-loadtest`.
#[must_use]
pub fn called(command: clap::Command, program: &str) -> clap::Command {
    let examples = command.get_after_help().map(ToString::to_string);
    let command = match examples {
        Some(help) => command.after_help(help.replace("  cauce-loadtest ", &format!("  {program} "))),
        None => command,
    };
    command.mut_subcommands(|below| called(below, program))
}

impl Command {
    /// Runs it. `prefix` are the arguments that lead to this command where it is part of another program.
    #[must_use]
    pub fn run(self, prefix: &[String]) -> ExitCode {
        let outcome = match self {
            Self::Run(run) => run.run(prefix),
            Self::Search(options) => options.run(),
            Self::Standard(options) => options.run(prefix),
            Self::Sweep(sweep) => sweep.run(prefix),
            Self::Compare { first, second } => compare_files(&first, &second),
            Self::Scenarios { name } => scenarios(name.as_deref()),
            Self::LimitServer(options) => options.run(),
            Self::Micro(options) => options.run(),
            Self::Keep(keep) => keep.run(),
        };
        outcome.unwrap_or_else(|error| {
            let program = if prefix.is_empty() {
                "cauce-loadtest"
            } else {
                "cauce loadtest"
            };
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        })
    }
}

impl What {
    pub(crate) fn scenario(&self) -> Result<Scenario, String> {
        let mut changes = self.set.clone();
        let mut put =
            |key: &str, value: Option<String>| changes.extend(value.map(|v| format!("load.{key}={v}")));
        put("rate", self.rate.map(|v| format!("{v:?}")));
        put("outstanding", self.outstanding.map(|v| v.to_string()));
        put("seconds", self.seconds.map(|v| format!("{v:?}")));
        put("warmup_seconds", self.warmup.map(|v| format!("{v:?}")));
        put("threads", self.threads.map(|v| v.to_string()));
        let mut scenario = Scenario::load(&self.scenario, &changes)?;
        let dialect = self.place.dialect;
        let cannot = |error| format!("{} with --dialect {dialect}: {error}", self.scenario);
        dialect.suit(&mut scenario).map_err(cannot)?;
        Ok(scenario)
    }

    pub(crate) fn name(&self) -> String {
        let stem = Path::new(&self.scenario).file_stem();
        stem.map_or_else(
            || self.scenario.clone(),
            |stem| stem.to_string_lossy().into_owned(),
        )
    }
}

/// Runs a scenario once against one server.
pub(crate) fn once(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    match scenario.shape {
        Shape::Storm { .. } => storm::run(scenario, name, server, place),
        Shape::Idle { .. } => idle::run(scenario, name, server, place),
        Shape::Devices { plugs: 1.., .. } => devices::run(scenario, name, server, place),
        _ => disturbed::run(scenario, name, server, place),
    }
}

/// Runs a scenario, and without its disturbance where it has one.
fn with_twin(
    scenario: &Scenario,
    name: &str,
    server: &str,
    place: &Place,
) -> Result<(Outcome, Option<Outcome>), String> {
    let undisturbed = format!("{server}, undisturbed");
    if let Shape::Slow {
        stalled: 1.., turns, ..
    } = scenario.shape
    {
        let names = [name, server, undisturbed.as_str()];
        let interleaved::Found { here, calm, .. } = interleaved::run(scenario, turns, names, place)?;
        return Ok((here, Some(calm)));
    }
    let mut here = once(scenario, name, server, place)?;
    let Some(calm) = disturbed::undisturbed(scenario) else {
        return Ok((here, None));
    };
    let calm = once(&calm, name, &undisturbed, place)?;
    disturbed::hold_against(&mut here, &calm);
    Ok((here, Some(calm)))
}

impl Run {
    fn run(self, prefix: &[String]) -> Result<ExitCode, String> {
        let scenario = self.what.scenario()?;
        let name = self.what.name();
        let place = &self.what.place;
        let mut outcomes = Vec::new();
        let target = place.dialect.label();
        let (here, calm) = with_twin(&scenario, &name, target, place)?;
        outcomes.push(here);
        outcomes.extend(calm);
        for kind in &self.limit {
            let writing = Writing::from(*kind);
            let beside = Beside::start(prefix, writing, place.tls.is_on(), place.priority)?;
            let place = place.beside(&beside);
            outcomes.push(once(&bare(&scenario), &name, writing.words(), &place)?);
        }
        let to_stdout = self.json.as_deref() == Some(Path::new("-"));
        if !to_stdout {
            for outcome in &outcomes {
                println!("{}", table(outcome));
            }
            for other in outcomes.iter().skip(1) {
                println!("{}", compare(other, &outcomes[0]));
            }
        }
        let judged = judge(&outcomes[0], &self.what.assertions)?;
        let document = Document::new(outcomes);
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
            if to_stdout {
                println!("{text}");
            } else {
                write(path, &text)?;
            }
        }
        if let Some(path) = &self.html {
            write(path, &html::page(&document))?;
        }
        Ok(judged)
    }
}

/// What a bare server can do of a scenario: it keeps no history and knows no devices.
pub(crate) fn bare(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    match &mut scenario.shape {
        Shape::Storm { missed, .. } => *missed = 0,
        Shape::Soak { churn_per_second, .. } => *churn_per_second = 0.0,
        Shape::Devices { plugs, .. } => *plugs = 0,
        _ => {}
    }
    scenario
}

/// Says which rules do not hold, and what the exit code is.
fn judge(outcome: &Outcome, rules: &[Assertion]) -> Result<ExitCode, String> {
    let mut broken = false;
    for rule in rules {
        if let Judgement::Broken(why) = rule.judge(outcome)? {
            eprintln!("cauce-loadtest: {why}");
            broken = true;
        }
    }
    Ok(match &outcome.verdict {
        // First: what was not measured can neither hold nor fail.
        Verdict::GeneratorBound(_) => ExitCode::from(EXIT_GENERATOR_BOUND),
        _ if broken => ExitCode::from(EXIT_ASSERTION),
        Verdict::NotWhole(_) => ExitCode::from(EXIT_NOT_WHOLE),
        Verdict::Sound => ExitCode::SUCCESS,
    })
}

impl SearchOptions {
    fn run(self) -> Result<ExitCode, String> {
        if self.what.assertions.is_empty() {
            return Err("name what the rate must keep, as in --assert 'p99<=2ms'".to_owned());
        }
        if !(self.from > 0.0 && self.to >= self.from && self.to.is_finite()) {
            return Err("--from must be above 0, and --to not below it".to_owned());
        }
        let scenario = self.what.scenario()?;
        if let Shape::Storm { .. } | Shape::Idle { .. } = scenario.shape {
            return Err("this scenario has no rate".to_owned());
        }
        let name = self.what.name();
        let rules = &self.what.assertions;
        let found = highest(&scenario, rules, (self.from, self.to), |scenario| {
            once(scenario, &name, self.what.place.dialect.label(), &self.what.place)
        })?;
        let Some(rate) = found.rate else {
            println!(
                "even {:.0}/s does not keep the assertions: begin lower with --from",
                self.from
            );
            return Ok(ExitCode::from(EXIT_ASSERTION));
        };
        let broken = match found.broken {
            Some(broken) => format!("{broken:.0}/s does not"),
            None => "none was tried that does not".to_owned(),
        };
        println!(
            "highest rate that keeps the assertions, in half of the trials: {rate:.0}/s ({broken}; {} trials)",
            found.trials
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl LimitOptions {
    fn run(self) -> Result<ExitCode, String> {
        let writing = if self.one_write {
            Writing::OneByOne
        } else {
            Writing::Coalesced
        };
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
            _ if self.tls_self_signed => Some(Identity::self_signed()?),
            _ => None,
        };
        process::run_soon(self.priority)?;
        let mut server = LimitServer::bind(self.listen, writing, Faults::default())
            .map_err(|e| format!("{}: {e}", self.listen))?;
        println!("listening at {}", server.address().map_err(|e| e.to_string())?);
        if let Some(identity) = identity {
            // Read by who started us.
            println!("certificate {}", STANDARD.encode(identity.certificate()));
            server = server.with_tls(identity);
        }
        let stop = server.stopper();
        server.run(&stop).map_err(|e| e.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn scenarios(name: Option<&str>) -> Result<ExitCode, String> {
    match name {
        None => {
            for (name, _) in BUILT_IN {
                println!("{name:<8} {}", Scenario::load(name, &[])?.about);
            }
        }
        Some(name) => {
            let found = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
            let (_, text) = found.ok_or_else(|| format!("there is no scenario {name}"))?;
            print!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare_files(first: &Path, second: &Path) -> Result<ExitCode, String> {
    let read = |path: &Path| -> Result<Document, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (first, second) = (read(first)?, read(second)?);
    for (one, other) in first.outcomes.iter().zip(&second.outcomes) {
        println!("{}", compare(one, other));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
