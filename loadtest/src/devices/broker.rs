//! What the scenario asks of the broker beside the load: a token for its plugs, and what the broker counts.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::http::{Answer, Door};
use crate::metrics;

/// The door for plugs and for what the broker counts.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Api {
    /// An API key of the tenant or the operator, for `devices`: a token for the plugs is made with it, and revoked at the end.
    #[arg(
        long = "api-key",
        value_name = "KEY",
        env = "LOADTEST_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// The same from a file. The operator's first key lies in the broker's data directory as operator.key.
    #[arg(long = "api-key-file", value_name = "FILE", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// Where API and metrics are, if not at the target: the broker's internal address, which speaks no TLS.
    #[arg(long = "api", value_name = "ADDRESS")]
    api_address: Option<SocketAddr>,
}

impl Api {
    /// The key in this file, for API and metrics at the target.
    pub(crate) fn of_file(file: PathBuf) -> Self {
        Self {
            api_key: None,
            api_key_file: Some(file),
            api_address: None,
        }
    }

    /// Where the API and the metrics of the server at `target` are.
    pub(crate) fn at(&self, target: SocketAddr) -> SocketAddr {
        self.api_address.unwrap_or(target)
    }

    fn key(&self) -> Result<String, String> {
        match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => Ok(key.trim().to_owned()),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map(|key| key.trim().to_owned())
                .map_err(|e| format!("--api-key-file {}: {e}", file.display())),
            (None, None) => Err(
                "plugs need a token, and for that an API key: give --api-key-file with the operator.key in the broker's data \
                 directory, or --api-key"
                    .to_owned(),
            ),
        }
    }
}

/// The broker as its API shows it.
#[derive(Debug)]
pub(super) struct Broker {
    door: Door,
    key: String,
    tenant: Option<String>,
}

/// A token for plugs, revoked with this value.
#[derive(Debug)]
pub(super) struct DeviceToken<'a> {
    broker: &'a Broker,
    id: String,
    pub(super) text: String,
}

impl Broker {
    /// # Errors
    /// If there is no key; in words for people.
    pub(super) fn new(api: &Api, door: Door, tenant: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            door,
            key: api.key()?,
            tenant: tenant.map(str::to_owned),
        })
    }

    /// # Errors
    /// If the broker refuses; in words for people.
    pub(super) fn device_token(&self) -> Result<DeviceToken<'_>, String> {
        let body = json!({"label": "loadtest"}).to_string();
        let answer = self.ask("POST", "/v1/device-tokens", &body)?;
        let made: Value = serde_json::from_str(&answer.body).map_err(|e| format!("the device token: {e}"))?;
        let text = |name: &str| made[name].as_str().map(str::to_owned);
        match (text("id"), text("token")) {
            (Some(id), Some(text)) => Ok(DeviceToken {
                broker: self,
                id,
                text,
            }),
            _ => Err("the broker made a device token and did not show it".to_owned()),
        }
    }

    /// # Errors
    /// If the broker does not tell; in words for people.
    pub(super) fn counts(&self) -> Result<Counts, String> {
        Ok(Counts::parse(&metrics::read(&self.door)?))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let path = match &self.tenant {
            Some(tenant) => format!("{path}?tenant={tenant}"),
            None => path.to_owned(),
        };
        let answer = self.door.request(method, &path, Some(&self.key), body)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let refusal: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let words = refusal["error"]["message"]
            .as_str()
            .unwrap_or("no reason is given");
        Err(format!(
            "{method} {}{path} was refused with {}: {words}",
            self.door, answer.status
        ))
    }
}

impl Drop for DeviceToken<'_> {
    fn drop(&mut self) {
        let path = format!("/v1/device-tokens/{}", self.id);
        if let Err(error) = self.broker.ask("DELETE", &path, "") {
            eprintln!("cauce-loadtest: the plugs' token is still good, revoke it: {error}");
        }
    }
}

/// What the broker has counted since it started, as far as devices and the store are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) frames: f64,
    pub(super) changes: f64,
    pub(super) throttled: f64,
    pub(super) malformed: f64,
    pub(super) readings: f64,
    /// Rows of every table.
    pub(super) rows: f64,
    pub(super) refused: f64,
    /// Wait now.
    pub(super) pending: f64,
    pub(super) flushes: f64,
    pub(super) flush_seconds: f64,
}

impl Counts {
    fn parse(text: &str) -> Self {
        use metrics::sum;
        let written = "cauce_store_rows_written_total";
        Self {
            frames: sum(text, "cauce_device_frames_total", ""),
            changes: sum(text, "cauce_device_changes_total", ""),
            throttled: sum(text, "cauce_device_frames_throttled_total", ""),
            malformed: sum(text, "cauce_device_frames_malformed_total", ""),
            readings: sum(text, written, "table=\"device_readings\""),
            rows: sum(text, written, ""),
            refused: sum(text, "cauce_store_rows_refused_total", ""),
            pending: sum(text, "cauce_store_pending_rows", ""),
            flushes: sum(text, "cauce_store_flush_duration_seconds_count", ""),
            flush_seconds: sum(text, "cauce_store_flush_duration_seconds_sum", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_their_labels_and_never_mixed_with_namesakes() {
        let text = "# HELP cauce_device_frames_total Frames.\n\
            cauce_device_frames_total 12\n\
            cauce_device_frames_throttled_total 3\n\
            cauce_store_rows_written_total{table=\"devices\"} 5\n\
            cauce_store_rows_written_total{table=\"device_readings\"} 40\n\
            cauce_store_pending_rows 7\n\
            cauce_store_flush_duration_seconds_bucket{le=\"0.1\"} 9\n\
            cauce_store_flush_duration_seconds_sum 0.5\n\
            cauce_store_flush_duration_seconds_count 10\n";
        let counts = Counts::parse(text);
        let expected = Counts {
            frames: 12.0,
            throttled: 3.0,
            readings: 40.0,
            rows: 45.0,
            pending: 7.0,
            flushes: 10.0,
            flush_seconds: 0.5,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn without_a_key_it_is_said_where_one_is() {
        let door = Door::new("127.0.0.1:1".parse().unwrap(), None);
        let error = Broker::new(&Api::default(), door, None).unwrap_err();
        assert!(error.contains("operator.key"), "{error}");
    }
}
