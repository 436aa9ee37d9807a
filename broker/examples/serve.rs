//! A broker inside another program: started, asked, stopped. `scripts/check-api.sh` uses it to check the API.
//!
//! `cargo run --example serve -- <data directory> [address]` prints its URL on a line of its own and serves until standard
//! input ends.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use cauce_broker::{Config, Persistence, Server};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments
        .next()
        .ok_or("usage: serve <data directory> [address]")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let config = Config {
        data_dir: data_dir.into(),
        listen: listen.parse().map_err(|e| format!("{listen}: {e}"))?,
        ..Config::default()
    };
    let server = Server::start(&config, Persistence::Store).map_err(|e| e.to_string())?;
    println!("http://{}", server.address());
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .map_err(|e| e.to_string())?;
    let stopped = server.stop(Duration::from_secs(10));
    match stopped.unwritten_rows {
        0 => Ok(()),
        rows => Err(format!("{rows} rows were not written in time")),
    }
}
