//! What no single setting shows: combinations that cannot work, and insecure ones on an address that others can reach.

use std::collections::HashSet;

use cauce_protocol::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::ConfigError;
use super::load::{Loaded, Source};
use super::schema::{AuthJwks, AuthKey, Config};

/// What a frame needs beside its payload, in bytes.
const FRAME_OVERHEAD_BYTES: usize = FRAME_BYTES_MAX - PAYLOAD_BYTES_MAX;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether the values go together.
pub(super) fn combination(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let refuse = |key: &str, message: String| Err(error(loaded, key, message));
    let limits = &config.limits;

    if config.tls.cert.is_some() != config.tls.key.is_some() {
        let (given, missing) = if config.tls.cert.is_some() {
            ("cert", "key")
        } else {
            ("key", "cert")
        };
        return refuse(&format!("tls.{given}"), format!("needs tls.{missing} too"));
    }
    if config.internal_listen == Some(config.listen) && config.listen.port() != 0 {
        return refuse(
            "internal_listen",
            "is the same as listen; leave it out to use one port".to_owned(),
        );
    }
    if limits.payload_bytes + FRAME_OVERHEAD_BYTES > limits.frame_bytes {
        let most = limits.frame_bytes.saturating_sub(FRAME_OVERHEAD_BYTES);
        return refuse(
            "limits.payload_bytes",
            format!("does not fit into limits.frame_bytes with what else a frame holds: {most} at most"),
        );
    }
    if limits.outbox_bytes < 2 * limits.frame_bytes {
        return refuse(
            "limits.outbox_bytes",
            "must hold at least two frames of limits.frame_bytes".to_owned(),
        );
    }
    if limits.mailbox_bytes < 2 * limits.frame_bytes.max(limits.device_frame_bytes) {
        return refuse(
            "limits.mailbox_bytes",
            "must hold at least two frames of limits.frame_bytes and of limits.device_frame_bytes".to_owned(),
        );
    }
    if config.heartbeat.timeout >= config.heartbeat.interval {
        return refuse(
            "heartbeat.timeout",
            "must be shorter than heartbeat.interval".to_owned(),
        );
    }
    if !config.auth.require_exp && !config.listen.ip().is_loopback() {
        return refuse(
            "auth.require_exp",
            format!(
                "tokens that never end are for trying out: listen = \"{}\" can be reached by others",
                config.listen
            ),
        );
    }
    if !is_filter(&config.log.level) {
        return refuse(
            "log.level",
            format!(
                "expected one of {}, also by module: \"info,cauce_broker=debug\"",
                LEVELS.join(", ")
            ),
        );
    }
    keys(loaded, config)?;
    for (index, set) in config.auth.jwks.iter().enumerate() {
        jwks(loaded, &format!("auth.jwks.{index}"), set)?;
    }
    Ok(())
}

fn keys(loaded: &Loaded, config: &Config) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for (index, key) in config.auth.keys.iter().enumerate() {
        let at = format!("auth.keys.{index}");
        key_fields(loaded, &at, key)?;
        if !seen.insert((&key.tenant, &key.kid, key.kid.is_none().then_some(key.alg))) {
            let message =
                "another entry has the same owner and kid; give each key a kid of its own".to_owned();
            return Err(error(loaded, &at, message));
        }
    }
    Ok(())
}

fn key_fields(loaded: &Loaded, at: &str, key: &AuthKey) -> Result<(), ConfigError> {
    let refuse = |message: &str| Err(error(loaded, at, message.to_owned()));
    owner(loaded, at, key.tenant.is_some(), key.operator)?;
    let secrets = usize::from(key.secret.is_some()) + usize::from(key.secret_file.is_some());
    match (key.alg.is_symmetric(), secrets, key.public_key_file.is_some()) {
        (true, 1, false) | (false, 0, true) => Ok(()),
        (true, 2, false) => refuse("has both secret and secret_file; give one"),
        (true, ..) => refuse(&format!(
            "{} needs a secret or secret_file and no public key",
            key.alg
        )),
        (false, ..) => refuse(&format!("{} needs a public_key_file and no secret", key.alg)),
    }
}

fn owner(loaded: &Loaded, at: &str, tenant: bool, operator: bool) -> Result<(), ConfigError> {
    match (tenant, operator) {
        (true, true) => Err(error(
            loaded,
            at,
            "has both tenant and operator = true; give one".to_owned(),
        )),
        (false, false) => Err(error(loaded, at, "needs a tenant or operator = true".to_owned())),
        _ => Ok(()),
    }
}

fn jwks(loaded: &Loaded, at: &str, set: &AuthJwks) -> Result<(), ConfigError> {
    owner(loaded, at, set.tenant.is_some(), set.operator)?;
    let refuse = |message: &str| Err(error(loaded, &format!("{at}.url"), message.to_owned()));
    let Ok(url) = reqwest::Url::parse(&set.url) else {
        return refuse("expected an address such as https://id.example.com/.well-known/jwks.json");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not contain a user or password");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if set.allow_http && is_loopback(&url) => Ok(()),
        "http" if set.allow_http => refuse("http:// is allowed to a loopback address only"),
        "http" => refuse("must begin with https:// (or set allow_http for a loopback address)"),
        _ => refuse("must begin with https://"),
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    ip.is_ok_and(|ip| ip.is_loopback())
}

fn is_filter(level: &str) -> bool {
    level.split(',').all(|part| match part.split_once('=') {
        None => LEVELS.contains(&part),
        Some((target, level)) => {
            !target.is_empty()
                && target
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
                && LEVELS.contains(&level)
        }
    })
}

/// Says where the key itself was set, or else another key that the message names, or else what was first said about the
/// entry of a list: the default is never at fault.
fn error(loaded: &Loaded, key: &str, message: String) -> ConfigError {
    let prefix = format!("{key}.");
    let set = loaded
        .entries
        .iter()
        .filter(|entry| entry.source != Source::Default);
    let blame = |entry: &&super::Entry| match entry.key() {
        own if own == key => Some(0),
        of_entry if of_entry.starts_with(&prefix) => Some(1),
        named if message.contains(&named) => Some(2),
        _ => None,
    };
    let source = set
        .filter(|entry| blame(entry).is_some())
        .min_by_key(blame)
        .map(|entry| entry.source.clone());
    ConfigError {
        source: source.unwrap_or(Source::Default),
        key: key.to_owned(),
        message,
    }
}
