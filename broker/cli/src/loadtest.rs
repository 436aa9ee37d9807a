//! `cauce loadtest`: the load generator, so that one binary is enough to check our figures. The program is `cauce-loadtest`'s own; here is only
//! the door.

use std::process::ExitCode;

/// How the command is called.
pub(crate) const NAME: &str = "loadtest";

/// Load a broker from outside, and say what was measured
#[derive(clap::Args)]
#[command(
    after_help = "The same program as cauce-loadtest.\n\nExamples:\n  cauce loadtest scenarios\n  cauce loadtest run echo --key $SECRET\n  cauce loadtest run rooms --rate 5000 --pin 0:1 --limit one-write --html rooms.html\n  cauce loadtest standard --serve $(command -v cauce) --pin 0:1"
)]
pub(crate) struct Loadtest {
    #[command(subcommand)]
    command: cauce_loadtest::cli::Command,
}

impl Loadtest {
    pub(crate) fn run(self) -> ExitCode {
        // It starts servers beside itself by calling this program again.
        self.command.run(&[NAME.to_owned()])
    }
}

/// The command with its examples written for this program.
pub(crate) fn named(command: clap::Command) -> clap::Command {
    cauce_loadtest::cli::called(command, "cauce loadtest")
}
