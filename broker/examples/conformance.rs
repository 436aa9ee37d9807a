//! A broker with its echo door open, for the RFC 6455 conformance suite: `cargo run --example conformance --features testing`.
//! Settings may follow as `key=value`. Prints the address it listens on and serves until it is killed.

use cauce_broker::config::{LoadInputs, load};
use cauce_broker::{Persistence, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = [
        "listen=127.0.0.1:0",
        "limits.connects_per_second=100000",
        "limits.connects_burst=100000",
        "limits.connections_per_address=10000",
    ];
    let inputs = LoadInputs {
        file: None,
        env: Vec::new(),
        flags: flags
            .map(String::from)
            .into_iter()
            .chain(std::env::args().skip(1))
            .collect(),
    };
    let server = Server::start(&load(inputs)?.config, Persistence::Memory)?;
    println!("{}", server.address());
    loop {
        std::thread::park();
    }
}
