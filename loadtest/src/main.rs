//! Loads a broker from outside and says what it measured. So far one scenario: what an idle connection costs.

mod idle;
mod peer;
mod process;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cauce-loadtest",
    version,
    about = "Loads a broker from outside and says what it measured"
)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Opens connections, authenticates and subscribes each, and reports the broker's memory for each.
    Idle(idle::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let Arguments {
        scenario: Scenario::Idle(options),
    } = Arguments::parse();
    match idle::run(options).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cauce-loadtest: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
