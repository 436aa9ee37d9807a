//! A broker of our own for a measurement: fresh keys, a fresh data directory, a free port, and nothing left of it afterwards.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cauce_threads::Priority;
use rustls::pki_types::CertificateDer;

use crate::devices::Api;
use crate::kept::{Kept, SCRATCH_PREFIX, Start};
use crate::session::Place;
use crate::standard::Transport;
use crate::tls::for_loopback;

/// What the broker is configured with, but for its keys.
const CONFIGURATION: &str = include_str!("../server.toml");
/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A broker that ends with this value.
#[derive(Debug)]
pub(crate) struct Served {
    kept: Kept,
    address: SocketAddr,
    keys: [String; 2],
    program: PathBuf,
    dir: PathBuf,
    /// What it shows over TLS.
    certificate: Option<CertificateDer<'static>>,
}

/// Where a broker runs, and how soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footing<'a> {
    pub(crate) cores: Option<&'a [usize]>,
    pub(crate) priority: Priority,
}

impl Served {
    /// Starts `program serve`. `prefix` are the arguments that lead to the load test's commands in our own program.
    ///
    /// # Errors
    /// If it does not start; in words for people.
    pub(crate) fn start(
        program: &Path,
        transport: Transport,
        footing: Footing<'_>,
        prefix: &[String],
    ) -> Result<Self, String> {
        let keys = [key()?, key()?];
        let dir = scratch().map_err(|e| format!("a directory for the broker: {e}"))?;
        // Until the keeper has it, it is ours to remove.
        let started = Self::start_in(&dir, &keys, program, transport, footing, prefix);
        match started {
            Ok((kept, address, certificate)) => Ok(Self {
                kept,
                address,
                keys,
                program: program.to_owned(),
                dir,
                certificate,
            }),
            Err(why) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(format!("{}: {why}", program.display()))
            }
        }
    }

    fn start_in(
        dir: &Path,
        keys: &[String; 2],
        program: &Path,
        transport: Transport,
        footing: Footing<'_>,
        prefix: &[String],
    ) -> Result<(Kept, SocketAddr, Option<CertificateDer<'static>>), String> {
        let configuration = dir.join("server.toml");
        write_private(&configuration, &configured(keys)?)?;
        let certificate = match transport {
            Transport::Plain => None,
            Transport::Tls => Some(certify(dir)?),
        };
        let tls = certificate.iter().flat_map(|_| {
            ["cert", "key"].map(|name| {
                let mut setting = OsString::from(format!("--set=tls.{name}="));
                setting.push(dir.join(name).with_extension("pem"));
                setting
            })
        });
        let mut arguments: Vec<OsString> = vec![
            "serve".into(),
            "--config".into(),
            configuration.into(),
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--data-dir".into(),
            data(dir).into(),
            "--log".into(),
            "error".into(),
            format!("--set=threads.priority={}", footing.priority).into(),
        ];
        arguments.extend(tls);
        let start = Start {
            program,
            arguments,
            cores: footing.cores,
            scratch: Some(dir),
        };
        let mut kept = Kept::start(prefix, &start)?;
        let address = kept.find(listening)?;
        Ok((kept, address, certificate))
    }

    /// Where the load goes, as the tenants of this broker.
    pub(crate) fn place(&self, place: &Place) -> Place {
        let mut there = place.elsewhere(self.address, self.kept.pid());
        let [key, flood] = self.keys.clone();
        there.signing.key = Some(key);
        there.signing.flood_key = Some(flood);
        there.signing.token = None;
        there.signing.kid = None;
        there.signing.tenant = None;
        there.signing.flood_tenant = None;
        there.tls = place.tls.instead(self.certificate.clone());
        there.api = Api::of_file(data(&self.dir).join("operator.key"));
        there
    }

    /// Gives the measured tenant these room classes (JSON), from the next room on.
    ///
    /// # Errors
    /// If the broker refuses them; in words for people.
    pub(crate) fn classes(&self, classes: &str) -> Result<(), String> {
        let file = self.dir.join("classes.json");
        std::fs::write(&file, classes).map_err(|e| format!("{}: {e}", file.display()))?;
        let output = Command::new(&self.program)
            .args(["tenant", "update", "default", "--room-classes"])
            .arg(&file)
            .arg("--url")
            .arg(format!("http://{}", self.address))
            .arg("--data-dir")
            .arg(data(&self.dir))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("{}: {e}", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(format!("the room classes were refused: {}", words.trim()))
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Finds the address in the first line that the broker prints.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("ws://").or_else(|| line.split_once("wss://"))?;
    after.split_once("/v1/ws")?.0.parse().ok()
}

/// The configuration with the keys of the measured tenant and of the one that floods.
fn configured(keys: &[String; 2]) -> Result<String, String> {
    let mut table: toml::Table = toml::from_str(CONFIGURATION).map_err(|e| format!("server.toml: {e}"))?;
    let places = table
        .get_mut("auth")
        .and_then(|auth| auth.get_mut("keys"))
        .and_then(toml::Value::as_array_mut)
        .filter(|places| places.len() == keys.len())
        .ok_or("server.toml: one [[auth.keys]] for each of two tenants is expected")?;
    for (place, key) in places.iter_mut().zip(keys) {
        let place = place.as_table_mut().ok_or("server.toml: [[auth.keys]]")?;
        place.insert("secret".to_owned(), key.clone().into());
    }
    toml::to_string(&table).map_err(|e| e.to_string())
}

/// Writes a certificate that nobody has signed, and its key.
fn certify(dir: &Path) -> Result<CertificateDer<'static>, String> {
    let made = for_loopback()?;
    write_private(&dir.join("cert.pem"), &made.cert.pem())?;
    write_private(&dir.join("key.pem"), &made.signing_key.serialize_pem())?;
    Ok(made.cert.der().clone())
}

fn key() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the system gives no randomness".to_owned())?;
    Ok(STANDARD.encode(bytes))
}

/// A directory that nobody else can look into.
fn scratch() -> std::io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{SCRATCH_PREFIX}{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_a_broker_says_first() {
        let line = "listening  clients ws://127.0.0.1:40123/v1/ws · devices ws://127.0.0.1:40123/shelly";
        assert_eq!(listening(line), Some("127.0.0.1:40123".parse().unwrap()));
        assert_eq!(listening(&line.replace("ws://", "wss://")), listening(line));
        assert_eq!(listening("data       /tmp/x"), None);
    }

    #[test]
    fn each_tenant_gets_a_key_of_its_own_and_the_bounds_stay() {
        let text = configured(&["first".to_owned(), "second".to_owned()]).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["auth"]["keys"][0]["secret"].as_str(), Some("first"));
        assert_eq!(table["auth"]["keys"][1]["tenant"].as_str(), Some("flood"));
        assert_eq!(table["auth"]["keys"][1]["secret"].as_str(), Some("second"));
        assert!(table["limits"]["connects_per_second"].as_integer() > Some(10_000));
    }

    #[test]
    fn keys_are_long_and_never_the_same() {
        let (one, other) = (key().unwrap(), key().unwrap());
        assert!(one != other && one.len() >= 32);
    }
}
