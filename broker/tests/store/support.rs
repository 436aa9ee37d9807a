//! Rows, a store in a temporary directory, and a second connection to look over its shoulder.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cauce_broker::rooms::Keep;
use cauce_broker::store::{
    Channel, Committed, DeviceStateRow, EventRow, Late, Loaded, MessagePage, MessageQuery, MessageRow,
    Numbered, ReadingQuery, ReadingRow, Store, StoreConfig, StoreHandle, TenantRow, TenantStatus,
};
use cauce_protocol::message::{Direction, Text};
use cauce_protocol::{DeviceId, Epoch, Payload, Refusal, RoomName, Seq, TenantId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Long enough for a slow machine, short enough to notice a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Gives up quickly on a lock and writes without much waiting.
    pub(crate) fn config(&self) -> StoreConfig {
        let mut config = StoreConfig::new(self.dir.path().join("data"));
        config.busy_timeout_ms = 20;
        config.limits.flush_age_ms = 5;
        config
    }

    pub(crate) fn open(&self) -> (Store, Loaded) {
        Store::open(self.config()).expect("the store opens")
    }

    /// What a crash at this moment would leave behind.
    pub(crate) async fn copy(&self) -> Self {
        let copy = Self::new();
        let (from, to) = (self.config(), copy.config());
        std::fs::create_dir(&to.data_dir).expect("a directory");
        // So that no checkpoint moves anything between the two files meanwhile.
        let mut other = connect(&from).await;
        run(&mut other, "BEGIN IMMEDIATE").await;
        for suffix in ["", "-wal"] {
            let name = |path: std::path::PathBuf| format!("{}{suffix}", path.display());
            std::fs::copy(name(from.database()), name(to.database())).expect("copied");
        }
        run(&mut other, "ROLLBACK").await;
        other.close().await.expect("closed");
        copy
    }
}

pub(crate) async fn connect(config: &StoreConfig) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(config.database())
        .busy_timeout(PATIENCE);
    options.connect().await.expect("a second connection")
}

pub(crate) async fn run(connection: &mut SqliteConnection, text: &'static str) {
    connection.execute(text).await.expect(text);
}

pub(crate) async fn stop(store: Store) {
    let left = store.shutdown(PATIENCE).await;
    assert_eq!((left.rows, left.bytes, left.checkpointed), (0, 0, true));
}

pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// For what has no event to wait for.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    patiently(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant's name")
}

pub(crate) fn first_tenant() -> TenantId {
    tenant("default")
}

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a device's name")
}

pub(crate) fn tenant_row(name: &str) -> TenantRow {
    TenantRow {
        tenant: tenant(name),
        name: format!("The {name}"),
        status: TenantStatus::Enabled,
        settings: Bytes::from_static(b"{}"),
        created_ms: 1,
        updated_ms: 1,
    }
}

pub(crate) fn state(tenant: &TenantId, name: &str, seq: u64, json: &str) -> DeviceStateRow {
    DeviceStateRow {
        tenant: tenant.clone(),
        device: device(name),
        seq,
        received_ms: 1_000 + seq,
        src: Arc::from("shellyplusplugs-8cbfeaa133f0"),
        model: Some(Arc::from("SNPL-00112EU")),
        state: Bytes::copy_from_slice(json.as_bytes()),
    }
}

/// The `n`th reading: `n` watts.
pub(crate) fn reading(tenant: &TenantId, name: &str, n: u64) -> ReadingRow {
    ReadingRow {
        tenant: tenant.clone(),
        device: device(name),
        channel: Channel::new("switch:0").expect("a channel's name"),
        ts_ms: n / 3,
        received_ms: u64::MAX / 4,
        output: Some(n.is_multiple_of(2)),
        power_w: Some(n as f64),
        voltage_v: Some(230.5),
        current_a: None,
        energy_wh: Some(0.25),
        temperature_c: Some(-3.5),
    }
}

pub(crate) fn event(tenant: &TenantId, name: &str, n: u64) -> EventRow {
    EventRow {
        tenant: tenant.clone(),
        device: device(name),
        ts_ms: n,
        received_ms: u64::MAX / 4,
        component: Some(Arc::from("input:0")),
        event: Arc::from("btn_down"),
        data: Bytes::from(format!("{{\"n\":{n}}}")),
    }
}

/// All readings of a device, page by page.
pub(crate) async fn all_readings(
    handle: &StoreHandle,
    tenant: &TenantId,
    name: &str,
) -> Vec<Numbered<ReadingRow>> {
    let mut query = ReadingQuery {
        tenant: tenant.clone(),
        device: device(name),
        from_ms: 0,
        to_ms: u64::MAX,
        limit: 97,
        after: None,
    };
    let mut all = Vec::new();
    loop {
        let page = handle.readings(query.clone()).await.expect("readings");
        assert!(page.rows.len() <= 97);
        all.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

pub(crate) fn watts(readings: &[Numbered<ReadingRow>]) -> Vec<u64> {
    readings
        .iter()
        .map(|r| r.row.power_w.expect("watts") as u64)
        .collect()
}

pub(crate) const KEEP_ALL: Keep = Keep {
    messages: 1_000_000,
    age_ms: 0,
    bytes: 0,
};

/// The `n`th message of a room, in the epoch 7; nobody waits for it.
pub(crate) fn message(tenant: &TenantId, room: &str, n: u64) -> MessageRow {
    MessageRow {
        tenant: tenant.clone(),
        room: RoomName::new(room).expect("a room's name"),
        epoch: Epoch(7),
        seq: Seq(n),
        event: Text::from_static("task_event"),
        payload: Payload::text(format!("number {n}")),
        topic: Text::default(),
        user: None,
        excluded: Default::default(),
        unix_ms: now_ms(),
        repeat: None,
        lease: Seq(n + 1_000),
        keep: KEEP_ALL,
        committed: Committed(None),
        late: Late::default(),
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

/// Reserves and hands over, as the hub does.
pub(crate) fn hand_over(handle: &StoreHandle, row: MessageRow) {
    let bytes = 256 + row.payload.len();
    handle.reserve_message(&row.tenant, bytes).expect("reserved");
    handle.message(row, bytes);
}

/// What became of messages, in the order of the answers.
pub(crate) struct Answers {
    sender: mpsc::UnboundedSender<(u64, Result<(), Refusal>)>,
    receiver: mpsc::UnboundedReceiver<(u64, Result<(), Refusal>)>,
}

impl Answers {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver }
    }

    /// The same message, waited for under this number.
    pub(crate) fn of(&self, n: u64, mut row: MessageRow) -> MessageRow {
        let (sender, late) = (self.sender.clone(), self.sender.clone());
        row.late = Late(Some(Box::new(move |refusal| {
            let _ = late.send((n, Err(refusal)));
        })));
        row.committed = Committed(Some(Box::new(move |answer| {
            // The test may have seen enough.
            let _ = sender.send((n, answer));
        })));
        row
    }

    pub(crate) async fn next(&mut self) -> (u64, Result<(), Refusal>) {
        patiently("an answer", self.receiver.recv())
            .await
            .expect("an answer")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Every callback has been called, and all answers were taken.
    pub(crate) async fn are_over(&mut self) {
        until("every callback to be called", || self.sender.strong_count() == 1).await;
        assert!(self.receiver.is_empty(), "an answer too many");
    }
}

pub(crate) fn query(tenant: &TenantId, room: &str) -> MessageQuery {
    MessageQuery {
        tenant: tenant.clone(),
        room: RoomName::new(room).expect("a room's name"),
        epoch: Epoch(7),
        from: Seq(0),
        direction: Direction::Forwards,
        limit: 1_000,
        bytes_max: 1_000_000,
    }
}

/// The first page of a room, all of it if it is small.
pub(crate) async fn page(handle: &StoreHandle, tenant: &TenantId, room: &str) -> MessagePage {
    handle.messages(query(tenant, room)).await.expect("a page")
}

pub(crate) fn seqs(page: &MessagePage) -> Vec<u64> {
    page.messages.iter().map(|message| message.seq.0).collect()
}
