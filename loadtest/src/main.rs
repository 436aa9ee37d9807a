//! `cauce-loadtest`.

use clap::Parser;

fn main() -> std::process::ExitCode {
    #[derive(Parser)]
    #[command(
        name = "cauce-loadtest",
        version,
        about = "Loads a broker from outside and says what it measured"
    )]
    struct Arguments {
        #[command(subcommand)]
        command: cauce_loadtest::cli::Command,
    }
    Arguments::parse().command.run(&[])
}
