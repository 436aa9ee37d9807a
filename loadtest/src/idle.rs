//! What an idle connection costs: opens many, each authenticated and in a room, and reads the broker's memory from `/proc`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::peer::Peer;
use crate::process::{private_bytes, resident_bytes};

/// Connections that are being opened at a time.
const IN_FLIGHT: u32 = 64;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:7700")]
    target: SocketAddr,
    /// Token of a user that may subscribe to `idle:*`.
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true)]
    token: String,
    /// The broker's process, on this machine.
    #[arg(long)]
    pid: u32,
    /// Connections to open. Memory is read at each of these numbers.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    connections: Vec<u32>,
    /// Connections that share a room.
    #[arg(long, default_value_t = 100)]
    room_size: u32,
    /// Time for the broker to come to rest before its memory is read, in seconds.
    #[arg(long, default_value_t = 3)]
    rest: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Reading {
    connections: u32,
    seconds: f64,
    private_bytes: u64,
    resident_bytes: u64,
}

pub(crate) async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut peers = Vec::new();
    let mut readings = vec![read(options.pid, 0, Duration::ZERO)?];
    for &goal in &options.connections {
        let began = Instant::now();
        while (peers.len() as u32) < goal {
            let first = peers.len() as u32;
            let batch = (first..goal.min(first + IN_FLIGHT)).map(|index| open(&options, index));
            for peer in futures_util::future::join_all(batch).await {
                peers.push(peer.map_err(|e| format!("connection {}: {e}", peers.len()))?);
            }
        }
        let took = began.elapsed();
        tokio::time::sleep(Duration::from_secs(options.rest)).await;
        readings.push(read(options.pid, goal, took)?);
    }
    let slope = match (&readings[..], readings.last()) {
        ([_, first, ..], Some(last)) if last.connections > first.connections => Some(
            (last.private_bytes as f64 - first.private_bytes as f64)
                / f64::from(last.connections - first.connections),
        ),
        _ => None,
    };
    if options.json {
        println!(
            "{}",
            serde_json::json!({ "readings": readings, "bytes_a_connection": slope })
        );
        return Ok(());
    }
    println!(
        "{:>12} {:>10} {:>14} {:>14}",
        "connections", "seconds", "private KiB", "resident KiB"
    );
    for r in &readings {
        println!(
            "{:>12} {:>10.2} {:>14} {:>14}",
            r.connections,
            r.seconds,
            r.private_bytes / 1024,
            r.resident_bytes / 1024
        );
    }
    if let Some(slope) = slope {
        println!(
            "each connection beyond the first reading: {:.2} KiB",
            slope / 1024.0
        );
    }
    Ok(())
}

async fn open(options: &Options, index: u32) -> std::io::Result<Peer> {
    let mut peer = Peer::connect(options.target, index, &options.token).await?;
    peer.subscribe(&format!("idle:{}", index / options.room_size.max(1)))
        .await?;
    Ok(peer)
}

fn read(pid: u32, connections: u32, took: Duration) -> std::io::Result<Reading> {
    Ok(Reading {
        connections,
        seconds: took.as_secs_f64(),
        private_bytes: private_bytes(pid)?,
        resident_bytes: resident_bytes(pid)?,
    })
}
