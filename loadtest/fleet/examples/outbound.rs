//! Devices that dial out: `cargo run -p cauce-fleet --example outbound -- ws://127.0.0.1:8000/shelly 10`.
//!
//! Prints the id of each device, then dials until its standard input ends; at the end the counts, as JSON. The
//! token, if the server wants one, is read from `CAUCE_DEVICE_TOKEN`, so that it is in no list of processes.

use cauce_fleet::{Fleet, FleetOptions, ModelMix, Tokens};
use std::error::Error;
use tokio::io::AsyncReadExt as _;

const USAGE: &str = "usage: outbound URL [DEVICES [MODELS [FAULTS]]]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or(USAGE)?;
    let devices = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let tokens = std::env::var("CAUCE_DEVICE_TOKEN").map_or(Tokens::None, Tokens::Shared);
    let mut options = FleetOptions::outbound(url, tokens, devices)?;
    if let Some(models) = arguments.next() {
        options.models = ModelMix::parse(&models)?;
    }
    if let Some(faults) = arguments.next() {
        options.faults = faults.parse()?;
    }
    let fleet = Fleet::start(options)?;
    for id in fleet.devices() {
        println!("{id}");
    }
    let mut nothing = [0; 64];
    while tokio::io::stdin()
        .read(&mut nothing)
        .await
        .is_ok_and(|bytes| bytes > 0)
    {}
    println!("{}", serde_json::to_string(&fleet.stop().await)?);
    Ok(())
}
