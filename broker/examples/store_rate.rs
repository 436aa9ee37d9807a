//! What a synced commit costs: the store's own inserts, and the same table written with `synchronous` FULL and NORMAL.
//!
//! `cargo run --release -p cauce-broker --example store_rate -- [directory]`: the directory decides, for the cost is
//! that of its disk. Without one a temporary directory is used, which may be memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cauce_broker::store::{Admission, Channel, ReadingRow, Store, StoreConfig, migrate};
use cauce_protocol::{DeviceId, TenantId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

type Failure = Box<dyn std::error::Error>;

/// Rows written through the store.
const ROWS: u64 = 200_000;
/// Devices the rows are spread over.
const DEVICES: u64 = 1_000;
/// Commits of one row, each waited for: what an admin operation costs.
const SINGLE_COMMITS: u32 = 300;
/// Commits of a thousand rows.
const BATCH_COMMITS: u32 = 100;
const BATCH_ROWS: u32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    let run = tempfile::tempdir_in(base)?;

    through_the_store(StoreConfig::new(run.path().join("store"))).await?;
    for (name, mode) in [
        ("FULL", SqliteSynchronous::Full),
        ("NORMAL", SqliteSynchronous::Normal),
    ] {
        let config = StoreConfig::new(run.path().join(name));
        migrate(&config)?;
        let options = SqliteConnectOptions::new()
            .filename(config.database())
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(mode)
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        let single = commits(&mut connection, SINGLE_COMMITS, 1).await?;
        let batch = commits(&mut connection, BATCH_COMMITS, BATCH_ROWS).await?;
        report(name, "1 row", &single, 1);
        report(name, "1,000 rows", &batch, BATCH_ROWS);
        connection.close().await?;
    }
    Ok(())
}

async fn through_the_store(config: StoreConfig) -> Result<(), Failure> {
    let (store, _) = Store::open(config)?;
    let handle = store.handle();
    let tenant = TenantId::new("default")?;
    let channel = Channel::new("switch:0")?;
    let devices: Vec<DeviceId> = (0..DEVICES)
        .map(|n| DeviceId::new(&format!("8CBFEA{n:06}")))
        .collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let mut pushing = Duration::ZERO;
    for n in 0..ROWS {
        let row = ReadingRow {
            tenant: tenant.clone(),
            device: devices[(n % DEVICES) as usize].clone(),
            channel: channel.clone(),
            ts_ms: n,
            received_ms: u64::MAX / 4,
            output: Some(true),
            power_w: Some(n as f64),
            voltage_v: Some(230.1),
            current_a: Some(0.4),
            energy_wh: Some(1_234.5),
            temperature_c: Some(41.0),
        };
        loop {
            let push = Instant::now();
            let admission = handle.reading(row.clone());
            pushing += push.elapsed();
            match admission {
                Admission::Refused(_) => handle.flushed().await?,
                _ => break,
            }
        }
    }
    handle.flushed().await?;
    let took = begun.elapsed();
    let rows = handle.counters().rows_written();
    println!(
        "store   {rows} readings of {DEVICES} devices in {:.2} s: {:.0} rows/s; a push takes {} ns on average",
        took.as_secs_f64(),
        rows as f64 / took.as_secs_f64(),
        pushing.as_nanos() / u128::from(ROWS),
    );
    store.shutdown(Duration::from_secs(30)).await;
    Ok(())
}

/// How long each commit took.
async fn commits(
    connection: &mut SqliteConnection,
    commits: u32,
    rows: u32,
) -> Result<Vec<Duration>, Failure> {
    let mut all = Vec::new();
    for commit in 0..commits {
        let begun = Instant::now();
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // The rows come from a counter inside SQLite, so that only SQLite and the disk are measured.
        sqlx::query(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
             INSERT INTO device_readings (tenant, device, ts_ms, seq, channel, received_ms, power_w) \
             SELECT 'default', 'd' || (n % 1000), ?2, ?1 * 1000000 + ?2 * 1000 + n, 'switch:0', ?2, 1.5 FROM n",
        )
        .bind(rows)
        .bind(commit)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    Ok(all)
}

fn report(mode: &str, what: &str, sorted: &[Duration], rows: u32) {
    let total: Duration = sorted.iter().sum();
    let at = |percent: usize| sorted[sorted.len() * percent / 100].as_secs_f64() * 1_000.0;
    println!(
        "{mode:<7} commits of {what}: {:.0} rows/s, p50 {:.2} ms, p99 {:.2} ms",
        f64::from(rows) * sorted.len() as f64 / total.as_secs_f64(),
        at(50),
        at(99),
    );
}
