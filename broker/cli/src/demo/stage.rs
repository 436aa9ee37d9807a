//! What the demo stands on: a broker in this process, two tenants who call everything by the same names, and their keys.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cauce_broker::admin::{Actor, Admin, NewApiKey, NewDeviceToken, NewTenant, NewToken};
use cauce_broker::auth::RoleGrants;
use cauce_broker::auth::grant::{Action, Pattern, Rule};
use cauce_broker::auth::secret::Scope;
use cauce_broker::config::{Config, LoadInputs, load};
use cauce_broker::store::{PAGE_ROWS_MAX, Store, StoreConfig, StoreHandle};
use cauce_broker::{Persistence, Server, StartError};
use cauce_protocol::{Code, TenantId, UserId};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::summary::Rows;
use crate::background::runtime;
use crate::failure::Failure;
use crate::output::{harmless, moment};

/// The room of the devices, and one for people.
pub(crate) const DEVICES: &str = "$devices";
pub(crate) const LOBBY: &str = "lobby";

/// Tokens and keys of the demo are good for this long.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);

/// Where it listens if the place is free.
const USUAL_PLACE: &str = "127.0.0.1:7700";

/// Last states that are shown of each tenant.
const LAST_SHOWN_MAX: usize = 3;

/// Connections besides those of the devices.
const OTHER_CONNECTIONS: u32 = 256;

/// What the demo's broker has to bear.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) devices: u32,
    /// Frames a second of one device, if not as by nature.
    pub(crate) rate: Option<f64>,
}

/// The folder of the database; one of our own making is taken away at the end.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    ours: bool,
}

impl DataDir {
    /// The given one, or a new one that nobody else can read.
    pub(crate) fn take(given: Option<PathBuf>, keep: bool) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Ok(Self { path, ours: false });
        }
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("cauce-demo-{}-{:09}", std::process::id(), moment.subsec_nanos());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            Failure::failed(format_args!(
                "{}: cannot be made: {e}; give --data-dir",
                path.display()
            ))
        })?;
        Ok(Self { path, ours: !keep })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.ours {
            // What is left lies in the system's folder for such things.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Starts a broker on embedded defaults; on the usual port, or where told, or on a free one. Blocks.
pub(crate) fn start(listen: Option<SocketAddr>, dir: &Path, load: &Load) -> Result<Server, Failure> {
    if let Some(listen) = listen {
        return Ok(Server::start(
            &config(&listen.to_string(), dir, load)?,
            Persistence::Store,
        )?);
    }
    match Server::start(&config(USUAL_PLACE, dir, load)?, Persistence::Store) {
        Err(StartError::Bind(_, error)) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(
            Server::start(&config("127.0.0.1:0", dir, load)?, Persistence::Store)?,
        ),
        started => Ok(started?),
    }
}

fn config(listen: &str, dir: &Path, demand: &Load) -> Result<Config, Failure> {
    // A fleet comes from one address and may be told to speak faster than plugs do.
    let connections = demand.devices.saturating_add(OTHER_CONNECTIONS);
    let frames_a_minute = (demand.rate.unwrap_or(0.0) * 60.0 * 2.0)
        .ceil()
        .clamp(600.0, 1_000_000.0);
    let frames_at_once = (demand.rate.unwrap_or(0.0) * 10.0).ceil().clamp(120.0, 100_000.0);
    let dir = dir
        .to_str()
        .ok_or_else(|| Failure::Usage("--data-dir: the path is not UTF-8".to_owned()))?;
    let flags = vec![
        format!("listen={listen}"),
        format!("data_dir={dir}"),
        format!("limits.connections_per_address={connections}"),
        format!("limits.connects_per_second={connections}"),
        format!("limits.connects_burst={connections}"),
        format!("limits.devices_per_tenant={}", demand.devices.max(10_000)),
        format!("limits.device_messages_per_minute={frames_a_minute}"),
        format!("limits.device_messages_burst={frames_at_once}"),
        // Enough for the one who loses its network for a while, at any rate but the wildest.
        "rooms.history_messages=100000".to_owned(),
        "rooms.history_bytes=64MiB".to_owned(),
        "limits.history_bytes_per_tenant=256MiB".to_owned(),
    ];
    let inputs = LoadInputs {
        flags,
        ..LoadInputs::default()
    };
    Ok(load(inputs)?.config)
}

/// One tenant of the demo with what its people and devices need.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    /// All devices show this one.
    pub(crate) device_token: String,
    /// Devices that the database knew before.
    pub(crate) known: HashSet<String>,
    /// The last states of some of them, for people.
    pub(crate) last: Vec<String>,
    /// Rows that it held before.
    pub(crate) before: Rows,
}

/// Makes the tenant if it is not there, and a token for its devices.
pub(crate) async fn tenant(admin: &Admin, name: &str) -> Result<Tenant, Failure> {
    let actor = Actor::local("demo");
    let id = TenantId::new(name).map_err(Failure::failed)?;
    let new = NewTenant {
        id: id.clone(),
        name: None,
        role_grants: RoleGrants::default(),
        room_classes: Vec::new(),
    };
    match admin.create_tenant(&actor, new).await {
        Err(refusal) if refusal.code != Code::Conflict => return Err(Failure::failed(refusal)),
        _ => {}
    }
    let new = NewDeviceToken {
        device: None,
        label: "demo".to_owned(),
    };
    let token = admin
        .create_device_token(&actor, &id, new)
        .await
        .map_err(Failure::failed)?;
    let (known, last, before) = match admin.store() {
        None => (HashSet::new(), Vec::new(), Rows::default()),
        Some(store) => {
            let counts = store.counts(Some(id.clone())).await.map_err(Failure::failed)?;
            let rows = Rows {
                devices: counts.devices,
                readings: counts.device_readings,
                events: counts.device_events,
            };
            let (known, last) = devices(store, &id).await?;
            (known, last, rows)
        }
    };
    Ok(Tenant {
        id,
        device_token: token.secret.expose_secret().to_owned(),
        known,
        last,
        before,
    })
}

/// Every device that the database knows, and some of their last states.
async fn devices(store: &StoreHandle, tenant: &TenantId) -> Result<(HashSet<String>, Vec<String>), Failure> {
    let (mut known, mut last) = (HashSet::new(), Vec::new());
    let mut after = None;
    loop {
        let page = store.devices(tenant.clone(), after, PAGE_ROWS_MAX).await;
        let page = page.map_err(Failure::failed)?;
        for row in &page.rows {
            known.insert(row.device.to_string());
            if let Some(state) = row.last.as_ref().filter(|_| last.len() < LAST_SHOWN_MAX) {
                last.push(last_state(row.device.as_str(), state.received_ms, &state.state));
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((known, last)),
        }
    }
}

/// A stored `device-update` in one line.
fn last_state(device: &str, received_ms: u64, update: &[u8]) -> String {
    let update: Value = serde_json::from_slice(update).unwrap_or_default();
    let readings = update["readings"].as_array().map_or(&[][..], Vec::as_slice);
    let channels = readings.iter().map(|reading| {
        let output = match reading["output"].as_bool() {
            Some(true) => " on",
            Some(false) => " off",
            None => "",
        };
        let watts = reading["power_w"].as_f64();
        let watts = watts.map_or_else(String::new, |watts| format!(" {watts:.1} W"));
        format!("{}{output}{watts}", reading["channel"].as_str().unwrap_or("?"))
    });
    let channels: Vec<String> = channels.collect();
    harmless(&format!(
        "{device} at {}: {}",
        moment(received_ms),
        channels.join(", ")
    ))
}

/// A token for one of its people: everything is heard, the lobby is spoken in, devices are called.
pub(crate) async fn token(admin: &Admin, tenant: &TenantId, user: &str) -> Result<String, Failure> {
    let rule = |rooms: &[&str], allow: &[Action]| {
        let rooms = rooms.iter().map(|room| Pattern::new(room));
        Ok::<_, Failure>(Rule {
            rooms: rooms.collect::<Result<_, _>>().map_err(Failure::failed)?,
            allow: allow.iter().copied().collect(),
        })
    };
    let new = NewToken {
        user: UserId::new(user).map_err(Failure::failed)?,
        roles: Vec::new(),
        grants: vec![
            rule(&["*"], &[Action::Subscribe, Action::Publish])?,
            rule(&[DEVICES, "$device:*"], &[Action::Subscribe, Action::Call])?,
        ],
        info: None,
        lifetime: TOKEN_LIFE,
    };
    let token = admin.create_token(&Actor::local("demo"), tenant, new).await;
    Ok(token.map_err(Failure::failed)?.token.expose_secret().to_owned())
}

/// A key that may publish in this tenant and nothing else.
pub(crate) async fn api_key(admin: &Admin, tenant: &TenantId) -> Result<String, Failure> {
    let new = NewApiKey {
        owner: cauce_broker::auth::KeyOwner::Tenant(tenant.clone()),
        name: "demo".to_owned(),
        scopes: [Scope::Publish].into_iter().collect(),
    };
    let key = admin.create_api_key(&Actor::local("demo"), new).await;
    Ok(key.map_err(Failure::failed)?.secret.expose_secret().to_owned())
}

/// What the database gained for each tenant, read from the closed database as the next start would. Blocks.
pub(crate) fn rows_gained(dir: &Path, tenants: &[Tenant]) -> Result<Vec<Rows>, Failure> {
    let (store, _) = Store::open(StoreConfig::new(dir)).map_err(Failure::failed)?;
    let handle = store.handle();
    let runtime = runtime()?;
    let rows = runtime.block_on(async {
        let mut rows = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            let counts = handle
                .counts(Some(tenant.id.clone()))
                .await
                .map_err(Failure::failed)?;
            rows.push(Rows {
                devices: counts.devices,
                readings: counts.device_readings.saturating_sub(tenant.before.readings),
                events: counts.device_events.saturating_sub(tenant.before.events),
            });
        }
        Ok(rows)
    });
    runtime.block_on(store.shutdown(Duration::from_secs(5)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_state_is_one_line_whatever_is_stored() {
        let update = br#"{"readings":[{"channel":"switch:0","output":true,"power_w":43.25},{"channel":"pm1:0","power_w":-2}]}"#;
        assert_eq!(
            last_state("A1", 0, update),
            "A1 at 1970-01-01 00:00:00Z: switch:0 on 43.2 W, pm1:0 -2.0 W"
        );
        assert_eq!(last_state("A1", 0, b"nonsense"), "A1 at 1970-01-01 00:00:00Z: ");
    }

    #[test]
    fn every_load_the_command_line_allows_is_a_configuration() {
        for (devices, rate) in [(2, None), (20_000, Some(0.001)), (20_000, Some(1_000.0))] {
            assert!(config("127.0.0.1:0", Path::new("/nowhere"), &Load { devices, rate }).is_ok());
        }
    }
}
