//! Devices on a local network: `cargo run -p cauce-fleet --example lan -- --models plugsg3 --devices 2`.
//!
//! Prints one JSON line per device (`id`, `model`, `address`), then serves until its standard input ends, so that
//! it never outlives the script that started it; the last line is what it counted.

use cauce_fleet::{Fleet, FleetOptions, LanBind, ModelMix, Password};
use std::error::Error;
use std::net::Ipv4Addr;
use tokio::io::AsyncReadExt as _;

const USAGE: &str = "usage: lan [--devices N] [--models LIST] [--password TEXT] [--firmware X.Y.Z] [--faults PLAN] [--seed N]";

fn options() -> Result<FleetOptions, Box<dyn Error>> {
    let bind = LanBind::Ports {
        ip: Ipv4Addr::LOCALHOST,
        first: 0,
    };
    let mut options = FleetOptions::lan(bind, None, 1)?;
    let mut password = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--devices" => options.devices = value.parse()?,
            "--models" => options.models = ModelMix::parse(&value)?,
            "--password" => password = Some(Password(value)),
            "--firmware" => options.firmware = Some(value.parse()?),
            "--faults" => options.faults = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    options.reach = cauce_fleet::Reach::Lan { bind, password };
    Ok(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let models = options.models.clone();
    let fleet = Fleet::start(options)?;
    for ((index, id), address) in (0..).zip(fleet.devices()).zip(fleet.addresses()) {
        let line = serde_json::json!({"id": id.as_str(), "model": models.model_of(index).name(), "address": address});
        println!("{line}");
    }
    let mut nothing = [0; 64];
    while tokio::io::stdin()
        .read(&mut nothing)
        .await
        .is_ok_and(|bytes| bytes > 0)
    {}
    let stats = fleet.stop().await;
    println!("{}", serde_json::to_string(&stats)?);
    Ok(())
}
