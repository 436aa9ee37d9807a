//! The standard set: the runs behind the promises of the documentation, each against its target, as one table.
//!
//! A line that fails says so in its row; the others go on. Rounds become fewer where time runs short. What was written before stays as it
//! is until everything has been measured.
//!
//! - `set` says what is measured, in terms of `lines`, and `plan` how often in the time there is
//! - `measure` makes a line's runs, `within` those of another program, `judge` holds what they found against the targets, `output` writes it all

mod judge;
mod lines;
mod measure;
mod output;
mod plan;
mod set;
mod within;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cauce_threads::Priority;

use self::judge::{About, row};
pub(crate) use self::lines::Transport;
use self::lines::{Line, Work};
use self::output::{Output, Where};
use crate::dialect::Dialect;
use crate::report::standard::Standard;
use crate::report::{Machine, TOOL};
use crate::scenario::Scenario;
use crate::served::{Footing, Served};
use crate::session::Place;

/// Options of `standard`.
#[derive(Debug, clap::Args)]
pub struct StandardOptions {
    #[command(flatten)]
    place: Place,
    /// Start this `cauce` for the measurement, with fresh keys and a fresh data directory, on the server's core, as often as a line wants
    /// a fresh one. Without it, the server at --target is measured.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["target", "pid"])]
    serve: Option<PathBuf>,
    /// Only the lines behind these promises, as in 1,2,12, and all of these: without it, the highest rate over TLS is looked for only if time
    /// is left.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    lines: Vec<u8>,
    /// How often each run is made, in turns with what it is measured against; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Length of each measurement, instead of the set's own three to five seconds: longer for surer figures, shorter for a look.
    #[arg(long)]
    seconds: Option<f64>,
    /// How long everything may take: rounds become fewer where it runs short.
    #[arg(long, default_value_t = 14.5, value_name = "MINUTES")]
    minutes: f64,
    /// A program that measures within one process, for line 10: it is called with --json, --warm-up and --seconds, and prints p50_ns and p99_ns.
    #[arg(long, value_name = "PROGRAM")]
    in_process: Option<PathBuf>,
    /// What was built, for the table.
    #[arg(long, default_value = "", hide_default_value = true)]
    commit: String,
    #[command(flatten)]
    output: Where,
}

/// What the lines have in common while they are measured.
struct Run<'a> {
    options: &'a StandardOptions,
    prefix: &'a [String],
    standard: Standard,
    /// When the time is up.
    until: Instant,
}

/// The broker that a line measures: ours, or the one at --target.
enum Target {
    Ours(Box<Served>),
    Given,
}

impl StandardOptions {
    /// # Errors
    /// If nothing can be measured or written; in words for people. What only one line cannot do stands in its row.
    pub(crate) fn run(self, prefix: &[String]) -> Result<ExitCode, String> {
        if self.place.dialect != Dialect::Cauce {
            return Err(
                "the standard set holds our own promises: run single scenarios against other servers"
                    .to_owned(),
            );
        }
        let began = Instant::now();
        // Both first: a quarter of an hour must not end with a file that cannot be written.
        let output = Output::prepare(&self.output)?;
        let lines = set::chosen(&self.lines)?;
        let until = began + Duration::from_secs_f64((self.minutes * 60.0).clamp(0.0, 86_400.0));
        let mut run = Run {
            options: &self,
            prefix,
            standard: Standard {
                tool: TOOL.to_owned(),
                commit: self.commit.clone(),
                machine: Machine::here(),
                pinned: self.footing(),
                rounds: self.rounds,
                ..Standard::default()
            },
            until,
        };
        for (at, line) in lines.iter().enumerate() {
            let rounds = plan::rounds(&lines[at..], self.rounds, run.seconds_left());
            run.line(line, rounds);
        }
        let mut standard = run.standard;
        standard.took_seconds = began.elapsed().as_secs();
        // Stable, so that what stands behind one promise stays in its order.
        standard
            .rows
            .sort_by_key(|row| row.line.parse::<u32>().unwrap_or(u32::MAX));
        output.write(&standard)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl StandardOptions {
    /// On which cores, and how far above others, in words.
    fn footing(&self) -> String {
        let cores = match &self.place.pin {
            Some(pins) => format!(
                "server on core {}, generator on {}",
                cores(&pins.server),
                cores(&pins.generator)
            ),
            None => "not pinned".to_owned(),
        };
        match self.place.priority {
            Priority::NORMAL => cores,
            above => format!("{cores}, client shards, bare servers and generator at priority {above}"),
        }
    }
}

impl Run<'_> {
    fn seconds_left(&self) -> f64 {
        self.until.saturating_duration_since(Instant::now()).as_secs_f64()
    }

    fn line(&mut self, line: &Line, rounds: u32) {
        self.tell(&format!("{}  {}", line.number, line.title));
        if rounds == 0 {
            self.failed(line, "the time was up");
            return;
        }
        let outcome = match line.work {
            Work::Runs { against, server } => self.runs(line, against, server, rounds),
            Work::Turns => self.turns(line),
            Work::SideBySide { runs } => self.side_by_side(line, runs),
            Work::Search => self.search(line),
            Work::InProcess => self.in_process(line, rounds),
        };
        if let Err(why) = outcome {
            self.tell(&why);
            self.failed(line, &why);
        }
    }

    /// Each target of the line with the reason for which nothing is known of it.
    fn failed(&mut self, line: &Line, why: &str) {
        for target in line.targets {
            let about = About {
                line: &line.number.to_string(),
                run: line.title,
                against: "",
            };
            self.standard.rows.push(row(about, target, &[], Some(why)));
        }
    }

    fn tell(&self, words: &str) {
        if !self.options.place.quiet {
            eprintln!("{words}");
        }
    }

    fn scenario(&self, line: &Line) -> Result<Scenario, String> {
        let changes = line.changes.iter().map(|&change| change.to_owned());
        let seconds = self
            .options
            .seconds
            .map(|seconds| format!("load.seconds={seconds:?}"));
        let changes: Vec<String> = changes.chain(seconds).collect();
        Scenario::load(line.scenario, &changes)
    }

    /// A server for the line to measure.
    fn target(&self, transport: Transport) -> Result<Target, String> {
        let Some(program) = &self.options.serve else {
            return match (transport, self.options.place.tls.is_on()) {
                (Transport::Plain, false) | (Transport::Tls, true) => Ok(Target::Given),
                (Transport::Plain, true) => Err("the server at --target speaks TLS".to_owned()),
                (Transport::Tls, false) => Err("the server at --target speaks no TLS".to_owned()),
            };
        };
        let pins = self.options.place.pin.as_ref();
        let footing = Footing {
            cores: pins.map(|pins| &pins.server[..]),
            priority: self.options.place.priority,
        };
        Ok(Target::Ours(Box::new(Served::start(
            program,
            transport,
            footing,
            self.prefix,
        )?)))
    }

    fn place(&self, target: &Target) -> Place {
        match target {
            Target::Ours(served) => served.place(&self.options.place),
            Target::Given => self.options.place.clone(),
        }
    }
}

fn cores(cores: &[usize]) -> String {
    let words: Vec<_> = cores.iter().map(usize::to_string).collect();
    words.join(",")
}

/// Where a document links to what lies in `dir`.
fn link(document: &Path, dir: &Path) -> Option<String> {
    let beside = document.parent()?;
    let below = dir.strip_prefix(beside).ok()?;
    below.to_str().map(str::to_owned)
}
