//! Every setting once: type, kind, range, default, whether it can change while running, and its words for people. The
//! structs, the environment names, the template and the page in docs/OPERATING.md all come from this table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cauce_protocol::TenantId;
use cauce_protocol::limits as wire;
use secrecy::SecretString;

use super::choice::{Algorithm, LogFormat};
use super::kind::{FromValue, Kind, Value};
use super::origin::Origins;

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// On SIGHUP.
    Live,
    /// At the next start.
    Restart,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Empty for the top of the file; `auth.keys` for an entry of `[[auth.keys]]`.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// As typed in the environment; empty for an optional setting.
    pub default: &'static str,
    pub reload: Reload,
    /// Lines.
    pub doc: &'static [&'static str],
}

impl Setting {
    /// `limits.frame_bytes`.
    pub fn key(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }

    /// `CAUCE_LIMITS__FRAME_BYTES`; with `__0` for the first entry of a list.
    pub fn env(&self) -> String {
        format!("CAUCE_{}", self.key().to_uppercase().replace('.', "__"))
    }
}

/// A part of the file: `[limits]`, or an entry of `[[auth.keys]]`.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub name: &'static str,
    /// Whether it is written `[[name]]` and may occur many times.
    pub repeats: bool,
    pub doc: &'static [&'static str],
    pub settings: &'static [Setting],
}

/// Where the generated code finds its values.
pub(super) trait Lookup {
    fn value(&self, section: &str, name: &str) -> &Value;
}

/// A value that passed its kind and still does not fit its field.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) message: String,
}

macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $vis:vis $Section:ident $const:ident $path:literal $repeats:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $kind:expr, $default:literal, $reload:ident;
            )*
        }
        $($list:ident: $Item:ident,)*
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug)]
        $vis struct $Section {
            $($(#[doc = $doc])+ $vis $field: $type,)*
            $($vis $list: Vec<$Item>,)*
        }

        const $const: Section = Section {
            name: $path,
            repeats: $repeats,
            doc: &[$($section_doc),+],
            settings: &[$(
                Setting {
                    section: $path,
                    name: stringify!($field),
                    kind: $kind,
                    default: $default,
                    reload: Reload::$reload,
                    doc: &[$($doc),+],
                },
            )*],
        };

        impl $Section {
            pub(super) fn read(values: &dyn Lookup, $($list: Vec<$Item>,)*) -> Result<Self, Misfit> {
                Ok(Self {
                    $($field: <$type>::from_value(values.value($path, stringify!($field))).map_err(|message| Misfit {
                        section: $path,
                        name: stringify!($field),
                        message,
                    })?,)*
                    $($list,)*
                })
            }
        }
    };
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const fn millis(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

section! {
    /// What the broker opens and where it keeps its data.
    Top TOP "" false {
        /// Address of the one port for WebSocket, devices, API, metrics and health. Beyond this machine, put TLS in front
        /// or set `tls.cert`.
        listen: SocketAddr = Kind::Address, "127.0.0.1:7700", Restart;
        /// A second address for metrics, health and the admin API, which the first one then no longer answers.
        internal_listen: Option<SocketAddr> = Kind::Address, "", Restart;
        /// Folder of the database and of all else that must survive a restart. Made if it is not there.
        data_dir: PathBuf = Kind::Path, "./cauce-data", Restart;
        /// Web pages that may connect: `https://app.example.com`, `loopback` for pages of this machine on any port, or `*`
        /// for all. Programs other than browsers send no origin and are not asked.
        origins: Origins = Kind::Origins, "loopback", Live;
    }
}

section! {
    /// Certificate for the listening address. Leave both out to serve without TLS.
    pub Tls TLS "tls" false {
        /// PEM file with the certificate and its chain, leaf first. Read again on SIGHUP.
        cert: Option<PathBuf> = Kind::Path, "", Live;
        /// PEM file with the private key. Nobody but the broker's user may read it.
        key: Option<PathBuf> = Kind::Path, "", Live;
    }
}

section! {
    /// Threads. The store and the API have their own besides.
    pub Threads THREADS "threads" false {
        /// Shards that serve clients; 0 means one per core.
        client_shards: usize = count(0, 1024), "0", Restart;
        /// Shards that take frames from devices, so that a flood of them does not slow clients. With 0, devices are spread over
        /// the client shards.
        ingest_shards: usize = count(0, 64), "1", Restart;
        /// Pin each shard to a core.
        pin: bool = Kind::Bool, "false", Restart;
        /// How far above the system's other work client shards go, 0 to 20 (`nice` with the sign turned). Shorter tails where other
        /// work runs on their cores. Above 0, the broker needs the right to it: `CAP_SYS_NICE`, or `LimitNICE=` in its unit.
        priority: u8 = count(0, 20), "0", Restart;
    }
}

section! {
    /// Bounds. Who meets one is told so with a code, and when to come again; only abuse ends a connection.
    pub Limits LIMITS "limits" false {
        /// Largest frame of a client, in bytes.
        frame_bytes: usize = size(8 * KIB, wire::FRAME_BYTES_MAX as u64), "64KiB", Live;
        /// Largest payload, in bytes; 4 KiB less than `frame_bytes` at most, for what else a frame holds.
        payload_bytes: usize = size(KIB, wire::PAYLOAD_BYTES_MAX as u64), "60KiB", Live;
        /// How deep a JSON payload may nest.
        payload_depth: usize = count(1, wire::PAYLOAD_DEPTH_MAX as u64), "16", Live;
        /// From the accepted socket to the verified token.
        handshake_timeout: Duration = millis(100, MINUTE), "5s", Live;
        /// Largest request head of a handshake, in bytes.
        handshake_bytes: usize = size(KIB, 64 * KIB), "16KiB", Live;
        /// Connections of this node in all.
        connections: usize = count(1, 10_000_000), "100000", Live;
        /// Connections from one IPv4 address or one IPv6 /64. Behind a proxy all connections come from its address.
        connections_per_address: usize = count(1, 10_000_000), "256", Live;
        /// Connections of one tenant.
        connections_per_tenant: usize = count(1, 10_000_000), "10000", Live;
        /// Connections of one user: devices and tabs.
        connections_per_user: usize = count(1, 100_000), "16", Live;
        /// New connections a second from one address.
        connects_per_second: u32 = count(1, 1_000_000), "50", Live;
        /// New connections that one address may open at once before the rate holds.
        connects_burst: u32 = count(1, 1_000_000), "256", Live;
        /// Rooms that one connection may have joined.
        subscriptions_per_connection: usize = count(1, 4_096), "128", Live;
        /// Rooms of one tenant that are in use.
        rooms_per_tenant: usize = count(1, 10_000_000), "100000", Restart;
        /// Users of one room that its presence lists; more are counted only.
        presence_users_per_room: usize = count(1, 1_000_000), "10000", Live;
        /// Bytes that may wait for one reader. Messages of rooms take three quarters of them, and wait in their rooms' history
        /// beyond; if all is taken by what cannot wait elsewhere, the reader is closed as too slow.
        outbox_bytes: usize = size(64 * KIB, 64 * MIB), "1MiB", Live;
        /// A reader that is behind and takes nothing for this long is closed as too slow.
        stall_timeout: Duration = millis(100, HOUR), "10s", Live;
        /// Bytes that may wait for one shard; beyond, publishers are refused until it has caught up.
        mailbox_bytes: usize = size(MIB, GIB), "16MiB", Restart;
        /// Requests a second of one connection.
        requests_per_second: u32 = count(1, 1_000_000), "100", Live;
        /// Requests that one connection may send at once before the rate holds.
        requests_burst: u32 = count(1, 1_000_000), "200", Live;
        /// Messages a second that all connections of one user may publish and send, calls and notifications included.
        publishes_per_second_per_user: u32 = count(1, 1_000_000), "10000", Live;
        /// Messages that one user may publish at once before the rate holds.
        publishes_burst_per_user: u32 = count(1, 10_000_000), "20000", Live;
        /// Messages a second that one tenant may publish and send, through clients and the API together.
        publishes_per_second_per_tenant: u32 = count(1, 10_000_000), "100000", Live;
        /// Messages that one tenant may publish at once before the rate holds.
        publishes_burst_per_tenant: u32 = count(1, 100_000_000), "200000", Live;
        /// Bytes of payload a second that one connection may publish; twice as many at once.
        publish_bytes_per_second_per_connection: usize = size(KIB, GIB), "4MiB", Live;
        /// Bytes of payload a second that one tenant may publish; twice as many at once.
        publish_bytes_per_second_per_tenant: usize = size(KIB, 16 * GIB), "256MiB", Live;
        /// WebSocket pings and pongs a second from one connection.
        control_frames_per_second: u32 = count(1, 10_000), "20", Live;
        /// Pings and pongs that one connection may send at once before the rate holds.
        control_frames_burst: u32 = count(1, 100_000), "100", Live;
        /// Bytes of history that the rooms of one tenant keep in memory together; beyond, the oldest are dropped.
        history_bytes_per_tenant: usize = size(MIB, 16 * GIB), "64MiB", Restart;
        /// Devices of one tenant.
        devices_per_tenant: usize = count(1, 1_000_000), "10000", Live;
        /// Largest frame of a device, in bytes: a full status of a large device is some 10 KiB.
        device_frame_bytes: usize = size(4 * KIB, wire::FRAME_BYTES_MAX as u64), "256KiB", Live;
        /// Frames a minute of one device.
        device_messages_per_minute: u32 = count(1, 1_000_000), "600", Live;
        /// Frames that one device may send at once before the rate holds.
        device_messages_burst: u32 = count(1, 100_000), "120", Live;
        /// Calls of one connection that wait for an answer.
        calls_outstanding: usize = count(1, 4_096), "64", Live;
        /// Time for an answer where the caller names none.
        call_timeout: Duration = millis(100, MINUTE), "10s", Live;
    }
}

section! {
    /// Finding out that a peer is gone.
    pub Heartbeat HEARTBEAT "heartbeat" false {
        /// Between two pings of the broker to a peer that sends nothing.
        interval: Duration = millis(SECOND, HOUR), "30s", Live;
        /// From a ping to giving the peer up. Must be shorter than the interval.
        timeout: Duration = millis(500, 5 * MINUTE), "10s", Live;
    }
}

section! {
    /// Tokens. Tenants may have keys in the database besides those in this file.
    pub Auth AUTH "auth" false {
        /// How far the clocks of issuer and broker may differ.
        leeway: Duration = millis(0, 5 * MINUTE), "10s", Live;
        /// Refuse tokens that never end. May be off only on a loopback address.
        require_exp: bool = Kind::Bool, "true", Live;
        /// Refuse tokens that are good for longer than this.
        max_lifetime: Duration = millis(MINUTE, 3_660 * DAY), "24h", Live;
        /// Take `?token=` in the URL, for browser code without an SDK. The broker never logs it; a proxy in front may.
        query_token: bool = Kind::Bool, "true", Live;
    }
    keys: AuthKey,
    jwks: AuthJwks,
}

section! {
    /// A key that tokens are signed with.
    pub AuthKey AUTH_KEY "auth.keys" true {
        /// The tenant it speaks for. Give this or `operator`.
        tenant: Option<TenantId> = Kind::Text, "", Live;
        /// It may speak for every tenant; its tokens must name one.
        operator: bool = Kind::Bool, "false", Live;
        /// Name of the key in the token's header. Without it, the key is tried for tokens with any name.
        kid: Option<String> = Kind::Text, "", Live;
        /// The only algorithm it is good for, whatever a token says.
        alg: Algorithm = Kind::Choice(Algorithm::NAMES), "", Live;
        /// Shared secret for HS256, HS384 and HS512, at least 32 bytes.
        secret: Option<SecretString> = Kind::Secret, "", Live;
        /// File with the shared secret; a line end at its end is not part of it.
        secret_file: Option<PathBuf> = Kind::Path, "", Live;
        /// PEM file with the public key for all other algorithms.
        public_key_file: Option<PathBuf> = Kind::Path, "", Live;
        /// Take only tokens with this `iss`.
        issuer: Option<String> = Kind::Text, "", Live;
        /// Take only tokens with this `aud`. Without it, tokens that have an `aud` are refused.
        audience: Option<String> = Kind::Text, "", Live;
    }
}

section! {
    /// A set of public keys that an identity provider publishes.
    pub AuthJwks AUTH_JWKS "auth.jwks" true {
        /// The tenant its keys speak for. Give this or `operator`.
        tenant: Option<TenantId> = Kind::Text, "", Live;
        /// Its keys may speak for every tenant; their tokens must name one.
        operator: bool = Kind::Bool, "false", Live;
        /// Where it lies: `https://…`. Never taken from a token.
        url: String = Kind::Text, "", Live;
        /// Take only tokens with this `iss`.
        issuer: Option<String> = Kind::Text, "", Live;
        /// Take only tokens with this `aud`. Without it, tokens that have an `aud` are refused.
        audience: Option<String> = Kind::Text, "", Live;
        /// Between two fetches. Keys stay in use while fetching fails.
        refresh: Duration = millis(MINUTE, DAY), "10m", Live;
        /// Allow addresses that are not on the public internet.
        allow_private: bool = Kind::Bool, "false", Live;
        /// Allow `http://` to a loopback address.
        allow_http: bool = Kind::Bool, "false", Live;
    }
}

section! {
    /// The database and what is written to it behind the traffic.
    pub Store STORE "store" false {
        /// Rows that are written without waiting for more; so is a quarter of `pending_bytes`.
        flush_rows: usize = count(1, 100_000), "20000", Restart;
        /// Longest that a row waits for others to be written with; a crash loses these rows, and a shorter wait writes more to the disk.
        flush_age: Duration = millis(1, MINUTE), "1s", Restart;
        /// Bytes that may wait to be written; beyond, newest states replace older ones and the rest is counted as lost.
        pending_bytes: usize = size(MIB, 16 * GIB), "64MiB", Restart;
        /// Bytes of durable messages that may wait for the disk; beyond, durable publishes are refused.
        messages_bytes: usize = size(4 * MIB, 16 * GIB), "64MiB", Restart;
        /// How long a durable message waits for others to be committed with. Without it, what arrives during a commit is
        /// committed together after it.
        commit_delay: Duration = millis(0, 100), "0ms", Restart;
        /// How long device readings are kept.
        readings_retention: Duration = millis(HOUR, 3_660 * DAY), "30d", Restart;
        /// How long log and audit rows are kept.
        logs_retention: Duration = millis(HOUR, 3_660 * DAY), "90d", Restart;
    }
}

section! {
    /// Logs, on standard error.
    pub Log LOG "log" false {
        /// `error`, `warn`, `info`, `debug`, `trace`, also by module: `info,cauce_broker::shelly=debug`.
        level: String = Kind::Text, "info", Live;
        /// `text` for people, `json` for machines.
        format: LogFormat = Kind::Choice(LogFormat::NAMES), "text", Restart;
    }
}

section! {
    /// Stopping in order, on SIGTERM and SIGINT. A second signal stops at once.
    pub Drain DRAIN "drain" false {
        /// Over how long clients are sent away, so that they do not all come back in one instant; a sixth of the deadline at
        /// most, and never slower than 200 a second.
        spread: Duration = millis(0, 5 * MINUTE), "5s", Live;
        /// From the signal to the end of the process, whatever waits.
        deadline: Duration = millis(SECOND, HOUR), "30s", Live;
        /// What clients are told to wait before they connect again, to which they add jitter of their own.
        retry_after: Duration = millis(0, MINUTE), "1s", Live;
    }
}

section! {
    /// Rooms.
    pub Rooms ROOMS "rooms" false {
        /// How long a room's numbering goes on after the last subscriber has left; longer while its newest message is younger
        /// than the age that its class keeps, and while idempotency keys are promised.
        linger: Duration = millis(SECOND, DAY), "2m", Restart;
        /// How long a repeated idempotency key is recognised.
        dedup_window: Duration = millis(SECOND, HOUR), "5m", Live;
        /// Idempotency keys that a room remembers.
        dedup_keys: usize = count(1, 1_000_000), "1024", Live;
        /// Messages that a room keeps for those who come back, where its class says nothing. 0 keeps none.
        history_messages: u32 = count(0, 100_000), "100", Live;
        /// How long a room keeps a message, where its class says nothing. 0 is for as long as there is space and the room is used.
        history_age: Duration = millis(0, 30 * DAY), "2m", Live;
        /// Bytes that a room keeps in memory, where its class says nothing.
        history_bytes: u64 = size(KIB, GIB), "1MiB", Live;
        /// How far back a position reaches for those who may not read history. Who may reaches back as far as there is history.
        recovery_window: Duration = millis(0, DAY), "5m", Live;
        /// From the end of a user's last connection in a room to the leave, where the class says nothing. A reconnect within it
        /// is neither leave nor join.
        presence_grace: Duration = millis(0, 10 * MINUTE), "5s", Live;
    }
}

section! {
    /// Notifications: kept for users until they expire, also for those who are not connected.
    pub Notifications NOTIFICATIONS "notifications" false {
        /// How long one is kept unless its sender says otherwise.
        retention: Duration = millis(SECOND, 366 * DAY), "30d", Live;
        /// Kept for one audience: a user, a role, or everyone in a tenant. Beyond, its oldest go.
        per_audience: u32 = count(1, 100_000), "1000", Restart;
        /// Kept of one tenant in all. Beyond, its oldest go.
        per_tenant: u64 = count(1, 100_000_000), "1000000", Restart;
    }
}

section! {
    /// The operator.
    pub Admin ADMIN "admin" false {
        /// File in which the first start leaves the operator's API key; `operator.key` in `data_dir` unless given.
        key_file: Option<PathBuf> = Kind::Path, "", Restart;
        /// The tenant in whose room `$operator` the node's figures and log lines can be watched. Without it there is no such
        /// room. Name one whose users may see the whole node.
        operator_tenant: Option<TenantId> = Kind::Text, "", Restart;
    }
}

/// All parts of the file, in the order in which they are printed.
pub const SECTIONS: &[Section] = &[
    TOP,
    TLS,
    THREADS,
    LIMITS,
    HEARTBEAT,
    AUTH,
    AUTH_KEY,
    AUTH_JWKS,
    STORE,
    LOG,
    DRAIN,
    ROOMS,
    NOTIFICATIONS,
    ADMIN,
];

/// Everything that can be set, typed and in range.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub internal_listen: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub origins: Origins,
    pub tls: Tls,
    pub threads: Threads,
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    pub auth: Auth,
    pub store: Store,
    pub log: Log,
    pub drain: Drain,
    pub rooms: Rooms,
    pub notifications: Notifications,
    pub admin: Admin,
}

impl Config {
    pub(super) fn read(values: &dyn Lookup, keys: Vec<AuthKey>, jwks: Vec<AuthJwks>) -> Result<Self, Misfit> {
        let top = Top::read(values)?;
        Ok(Self {
            listen: top.listen,
            internal_listen: top.internal_listen,
            data_dir: top.data_dir,
            origins: top.origins,
            tls: Tls::read(values)?,
            threads: Threads::read(values)?,
            limits: Limits::read(values)?,
            heartbeat: Heartbeat::read(values)?,
            auth: Auth::read(values, keys, jwks)?,
            store: Store::read(values)?,
            log: Log::read(values)?,
            drain: Drain::read(values)?,
            rooms: Rooms::read(values)?,
            notifications: Notifications::read(values)?,
            admin: Admin::read(values)?,
        })
    }

    /// The database file.
    pub fn database_path(&self) -> PathBuf {
        self.data_dir.join("cauce.db")
    }

    /// Where the operator's first API key is left.
    pub fn operator_key_path(&self) -> PathBuf {
        self.admin
            .key_file
            .clone()
            .unwrap_or_else(|| self.data_dir.join("operator.key"))
    }
}
