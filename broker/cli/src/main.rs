//! `cauce`: one program to serve, try, simulate and administer. Here arguments become a command and a result an exit code.

mod answer;
mod api;
mod apikey;
mod background;
mod call;
mod completions;
mod configuration;
mod connections;
mod demo;
mod device;
mod door;
mod duration;
mod failure;
mod files;
mod history;
mod loadtest;
mod logs;
mod migrate;
mod notify;
mod output;
mod payload;
mod presence;
mod publish;
mod revoke;
mod serve;
mod settings;
mod simulate;
mod subscribe;
mod tenant;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cauce",
    version,
    about = "Real-time broker for many tenants and their smart plugs",
    after_help = "Examples:\n  cauce demo                       see it work\n  cauce serve                      run a broker on 127.0.0.1:7700\n  cauce token --user ana           a token for a client\n  cauce sub orders                 listen to a room\n  cauce pub orders order_created '{\"id\":42}'\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Answer(answer::AnswerCalls),
    #[command(name = "apikey")]
    ApiKey(apikey::ApiKey),
    Call(call::Call),
    Completions(completions::Completions),
    Config(configuration::Config),
    Connections(connections::Connections),
    Demo(Box<demo::Demo>),
    Device(device::Device),
    Disconnect(connections::Disconnect),
    History(history::ShowHistory),
    Loadtest(Box<loadtest::Loadtest>),
    Migrate(migrate::Migrate),
    Notify(notify::Notify),
    Presence(presence::ShowPresence),
    Pub(publish::Pub),
    Revoke(revoke::Revoke),
    Serve(serve::Serve),
    Simulate(Box<simulate::Simulate>),
    Sub(Box<subscribe::Sub>),
    Tenant(tenant::Tenant),
    Token(token::Token),
}

fn main() -> ExitCode {
    // The one TLS provider of the process; only a second call could fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match parsed().command {
        Command::Answer(command) => command.run(),
        Command::ApiKey(command) => command.run(),
        Command::Call(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Connections(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Device(command) => command.run(),
        Command::Disconnect(command) => command.run(),
        Command::History(command) => command.run(),
        // It has exit codes of its own.
        Command::Loadtest(command) => return command.run(),
        Command::Migrate(command) => command.run(),
        Command::Notify(command) => command.run(),
        Command::Presence(command) => command.run(),
        Command::Pub(command) => command.run(),
        Command::Revoke(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Simulate(command) => command.run(),
        Command::Sub(command) => command.run(),
        Command::Tenant(command) => command.run(),
        Command::Token(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// What was typed, with the load test's examples as they are typed here.
fn parsed() -> Cli {
    let command = Cli::command().mut_subcommand(loadtest::NAME, loadtest::named);
    let matches = command.get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}
