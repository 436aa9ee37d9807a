//! The broker's HTTP API as the commands use it: where it is, with which key, and errors in words that help.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cauce_broker::config::{Readers, read_file};
use cauce_client::Options;
use reqwest::{Certificate, Method, StatusCode, Url};
use serde_json::Value;

use crate::failure::{Failure, NOT_RUNNING};
use crate::output::remark;

/// Longest answer that is read, in bytes: a page of 1,000 devices with 10 KiB each, and some.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Items of one page; the API's own bound.
const PAGE_ITEMS: &str = "1000";

/// Items that a listing collects; more are for scripts that page by themselves.
const LIST_ITEMS_MAX: usize = 100_000;

/// For one request, answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the key of a broker on this machine lies unless told otherwise, beside its database.
const DATA_DIR: &str = "./cauce-data";

/// Which broker, and by what right.
#[derive(Clone, clap::Args)]
pub(crate) struct Access {
    /// Address of the broker
    #[arg(long, global = true, env = "CAUCE_URL", default_value = "http://127.0.0.1:7700", value_name = "URL", value_parser = parse_url)]
    pub(crate) url: Url,
    /// API key; without one, the operator's key in the data directory is used for a broker on this machine
    #[arg(
        long,
        global = true,
        env = "CAUCE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<String>,
    /// Data directory of the broker, for its `operator.key` [default: ./cauce-data]
    #[arg(long, global = true, env = "CAUCE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// PEM file with the authorities to trust instead of the system's, for https:// and wss://
    #[arg(long, global = true, env = "CAUCE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Tenant to work in; `default` unless the key belongs to another
    #[arg(long, global = true, env = "CAUCE_TENANT", value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|e| format!("{text:?} is no URL ({e}): write http://127.0.0.1:7700"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        _ => Err(format!("{text:?}: write http://… or https://…, with a host")),
    }
}

impl Access {
    /// A client of this broker's API.
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        Api::new(
            self.url.clone(),
            self.key()?,
            self.tenant.clone(),
            self.authorities()?.as_deref(),
        )
    }

    /// The same for the operator's business, where a tenant is an argument and not the place to work in.
    pub(crate) fn operator_api(&self) -> Result<Api, Failure> {
        Api::new(
            self.url.clone(),
            self.key()?,
            None,
            self.authorities()?.as_deref(),
        )
    }

    /// How to connect at the WebSocket door.
    pub(crate) fn websocket(&self) -> Result<Options, Failure> {
        let options = Options::new(websocket(&self.url, "/v1/ws"))
            .client_name(concat!("cauce-cli/", env!("CARGO_PKG_VERSION")));
        Ok(match self.authorities()? {
            Some(pem) => options.roots_pem(pem),
            None => options,
        })
    }

    fn authorities(&self) -> Result<Option<String>, Failure> {
        self.ca.as_deref().map(read_authorities).transpose()
    }

    fn key(&self) -> Result<String, Failure> {
        if let Some(key) = &self.api_key {
            return Ok(key.clone());
        }
        // The key of this machine's operator is not for brokers elsewhere, unless somebody says so.
        let dir = match &self.data_dir {
            Some(dir) => dir.as_path(),
            None if is_local(&self.url) => Path::new(DATA_DIR),
            None => {
                return Err(Failure::Usage(format!(
                    "{} is not on this machine: give its API key with --api-key or CAUCE_API_KEY",
                    self.url
                )));
            }
        };
        read_key(&dir.join("operator.key"))
    }
}

/// A PEM file with certificates of authorities.
pub(crate) fn read_authorities(path: &Path) -> Result<String, Failure> {
    read_file(path, Readers::Anybody).map_err(|e| Failure::failed(format_args!("--ca: {e}")))
}

/// The operator's key as the broker's first start left it.
fn read_key(path: &Path) -> Result<String, Failure> {
    let text = read_file(path, Readers::NotTheWorld).map_err(|e| {
        Failure::failed(format_args!(
            "no API key: give one with --api-key or CAUCE_API_KEY, or the broker's --data-dir ({e})"
        ))
    })?;
    Ok(text.trim().to_owned())
}

fn is_local(url: &Url) -> bool {
    match url.host_str() {
        None => false,
        Some("localhost") => true,
        Some(host) => {
            let address = host.trim_start_matches('[').trim_end_matches(']');
            address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// The WebSocket address beside an HTTP one.
fn websocket(url: &Url, path: &str) -> String {
    let mut url = url.clone();
    let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
    // Both are special schemes, so the change cannot fail.
    let _ = url.set_scheme(scheme);
    url.set_path(path);
    url.set_query(None);
    url.to_string()
}

/// A client of the API.
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    key: String,
    tenant: Option<String>,
}

impl Api {
    /// `authorities` is the text of a PEM file.
    fn new(
        base: Url,
        key: String,
        tenant: Option<String>,
        authorities: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("cauce-cli/", env!("CARGO_PKG_VERSION")));
        if is_local(&base) {
            http = http.no_proxy();
        }
        if let Some(pem) = authorities {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|e| Failure::failed(format_args!("--ca: no certificates in PEM: {e}")))?;
            http = http.tls_certs_only(certificates);
        } else if base.scheme() == "http" {
            // The system's authorities are not needed, and a small container may have none.
            http = http.tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|e| Failure::failed(format_args!("cannot make an HTTP client: {e}")))?;
        Ok(Self {
            http,
            base,
            key,
            tenant,
        })
    }

    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PATCH, path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    pub(crate) async fn delete_with(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, query, None).await
    }

    /// All items of a listing, page by page.
    pub(crate) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE_ITEMS));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &query).await?;
            match page["items"].take() {
                Value::Array(list) => items.extend(list),
                _ => {
                    return Err(Failure::failed(
                        "the broker's answer is no list; is it another version?",
                    ));
                }
            }
            match page["next"].take() {
                Value::String(next) if items.len() < LIST_ITEMS_MAX => cursor = Some(next),
                Value::String(_) => {
                    remark(&format!("there are more; these are the first {}", items.len()));
                    return Ok(items);
                }
                _ => return Ok(items),
            }
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let (status, text) = self.send(method, path, query, body).await?;
        self.judge(status, &text)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        let mut url = self.base.clone();
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().push("v1").extend(path);
        }
        let tenant = self.tenant.as_deref().map(|tenant| ("tenant", tenant));
        for (name, value) in query.iter().copied().chain(tenant) {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = self.http.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if text.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::failed(format_args!(
                    "the broker's answer is longer than {ANSWER_BYTES_MAX} bytes; narrow the question"
                )));
            }
            text.extend_from_slice(&chunk);
        }
        Ok((response.status(), text))
    }

    fn judge(&self, status: StatusCode, text: &[u8]) -> Result<Value, Failure> {
        let answer: Option<Value> = match text {
            [] => Some(Value::Null),
            text => serde_json::from_slice(text).ok(),
        };
        match answer {
            Some(answer) if status.is_success() => Ok(answer),
            answer => Err(refusal(status, answer.as_ref())),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let base = self.base.as_str().trim_end_matches('/');
        if error.is_connect() {
            return Failure::failed(format_args!(
                "cannot reach {base}: {}{NOT_RUNNING}",
                root_cause(error)
            ));
        }
        if error.is_timeout() {
            return Failure::failed(format_args!(
                "{base} did not answer in time; what was asked may have been done"
            ));
        }
        Failure::failed(format_args!("{base}: {}", root_cause(error)))
    }
}

/// The broker's refusal in its own words.
fn refusal(status: StatusCode, answer: Option<&Value>) -> Failure {
    let Some(error) = answer.and_then(|answer| answer.get("error")) else {
        return Failure::failed(format_args!(
            "the answer is {status} and not of this API; is --url the address of a Cauce broker?"
        ));
    };
    let name = error["name"].as_str().unwrap_or("error");
    let code = error["code"].as_u64().unwrap_or(0);
    let message = error["message"].as_str().unwrap_or_default();
    let again = match error["retry_after_ms"].as_u64() {
        Some(wait) if wait > 0 => format!("; try again in {wait} ms"),
        _ => String::new(),
    };
    Failure::Failed(crate::output::harmless(&format!(
        "{name} ({code}): {message}{again}"
    )))
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_this_machine_stays_on_it() {
        let access = |url: &str| Access {
            url: parse_url(url).unwrap(),
            api_key: None,
            data_dir: None,
            ca: None,
            tenant: None,
        };
        for away in [
            "https://broker.example",
            "http://127.0.0.1.example:7700",
            "http://10.0.0.1",
        ] {
            assert!(matches!(access(away).key(), Err(Failure::Usage(_))), "{away}");
        }
        for local in ["http://127.0.0.1:7700", "http://[::1]:1", "http://localhost"] {
            assert!(is_local(&access(local).url), "{local}");
        }
    }

    #[test]
    fn the_websocket_lies_beside_the_api() {
        let url = |text: &str| websocket(&parse_url(text).unwrap(), "/v1/ws");
        assert_eq!(url("http://127.0.0.1:7700"), "ws://127.0.0.1:7700/v1/ws");
        assert_eq!(url("https://rt.example.com/?x=1"), "wss://rt.example.com/v1/ws");
        assert!(parse_url("ws://127.0.0.1:7700").is_err());
        assert!(parse_url("127.0.0.1:7700").is_err());
    }

    #[test]
    fn a_refusal_keeps_its_code_and_its_advice() {
        let answer = serde_json::json!({"error": {"code": 4101, "name": "rate_limited", "message": "slow\u{1b} down", "retry_after_ms": 250}});
        let Failure::Failed(text) = refusal(StatusCode::TOO_MANY_REQUESTS, Some(&answer)) else {
            panic!("a failure")
        };
        assert_eq!(text, "rate_limited (4101): slow\\u{1b} down; try again in 250 ms");
    }
}
