//! Fetching key sets. The only part of this module that waits.
//!
//! What must stay true:
//! - Addresses of key sets come from the configuration, never from a token.
//! - Every address that a name resolves to is checked, and the connection goes to an address that was checked. No redirects
//!   and no proxy, which would go round the check.
//! - One fetch at a time. A failed fetch changes nothing: the old keys stay in use.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};
use tokio::sync::Notify;

use super::address::Reach;
use super::jwks::{self, DOCUMENT_BYTES_MAX, DocumentError, Schedule, SetSpec, UNKNOWN_KID_INTERVAL_MS};
use super::keys::{KeySource, Keys};
use crate::clock::Clock;
use crate::config;

/// For one fetch in all, in seconds.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a fetch failed.
#[derive(Debug)]
pub enum FetchError {
    /// The name leads to an address that requests may not go to.
    Address,
    Document(DocumentError),
    /// Anything but 200.
    Status(u16),
    /// No connection, no TLS, no answer in time.
    Transport(reqwest::Error),
    Url,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => write!(f, "the address is not on the public internet; see allow_private"),
            Self::Document(e) => e.fmt(f),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Transport(e) => {
                write!(f, "{e}")?;
                let mut source = std::error::Error::source(e);
                while let Some(e) = source {
                    write!(f, ": {e}")?;
                    source = e.source();
                }
                Ok(())
            }
            Self::Url => write!(f, "the address is not http or https"),
        }
    }
}

impl std::error::Error for FetchError {}

/// Asks for a refresh. Cheap, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Nudge(Arc<NudgeState>);

#[derive(Debug, Default)]
struct NudgeState {
    /// Somebody fetches: without key sets no unknown key will ever become known.
    followed: AtomicBool,
    wanted: AtomicBool,
    notify: Notify,
    /// When all sets that were due had last been tried; 0 for never.
    tried_ms: AtomicU64,
}

/// What is to be thought of a key that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// The sets were fetched a moment ago and it is not there.
    Unknown,
    /// The sets are being fetched.
    Coming,
}

impl Nudge {
    /// A token named a key that nobody knows. `now_ms` is of the clock that the refresher was given. Causes a fetch at most
    /// every [`UNKNOWN_KID_INTERVAL_MS`].
    pub fn unknown_kid(&self, now_ms: u64) -> Prospect {
        if !self.0.followed.load(Ordering::Acquire) {
            return Prospect::Unknown;
        }
        let tried_ms = self.0.tried_ms.load(Ordering::Acquire);
        if tried_ms != 0 && now_ms < tried_ms.saturating_add(UNKNOWN_KID_INTERVAL_MS) {
            return Prospect::Unknown;
        }
        if !self.0.wanted.swap(true, Ordering::AcqRel) {
            self.0.notify.notify_one();
        }
        Prospect::Coming
    }
}

/// Keeps the key sets of the configuration fresh.
#[derive(Debug)]
pub struct Refresher {
    keys: Arc<Keys>,
    sets: Vec<Set>,
    nudge: Nudge,
    clock: Clock,
}

#[derive(Debug)]
struct Set {
    source: KeySource,
    spec: SetSpec,
    url: Url,
    reach: Reach,
    schedule: Schedule,
}

impl Refresher {
    /// For all of `[[auth.jwks]]`; woken by `nudge`, which outlives it and is for whoever meets unknown key names.
    ///
    /// # Errors
    /// [`FetchError::Url`] for an address that the configuration's own check would have refused.
    pub fn new(keys: Arc<Keys>, auth: &config::Auth, clock: Clock, nudge: Nudge) -> Result<Self, FetchError> {
        let now_ms = clock.now().mono_ms;
        let set = |(index, set): (usize, &config::AuthJwks)| {
            let url = Url::parse(&set.url).map_err(|_| FetchError::Url)?;
            let loopback = set.allow_http && literal(&url).is_some_and(|ip| ip.is_loopback());
            if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
                return Err(FetchError::Url);
            }
            let refresh_ms = u64::try_from(set.refresh.as_millis()).unwrap_or(u64::MAX);
            Ok(Set {
                source: KeySource::Jwks(index),
                spec: set.into(),
                url,
                reach: if set.allow_private || loopback {
                    Reach::Anywhere
                } else {
                    Reach::Public
                },
                schedule: Schedule::new(refresh_ms, now_ms),
            })
        };
        nudge.0.followed.store(!auth.jwks.is_empty(), Ordering::Release);
        Ok(Self {
            keys,
            sets: auth.jwks.iter().enumerate().map(set).collect::<Result<_, _>>()?,
            nudge,
            clock,
        })
    }

    /// Fetches whenever a set is due, for ever. Ends at once without sets. May be dropped at any await.
    pub async fn run(mut self) {
        while let Some(next_ms) = self.sets.iter().map(|set| set.schedule.next_ms()).min() {
            let wait_ms = next_ms.saturating_sub(self.clock.now().mono_ms);
            let slept = tokio::time::timeout(Duration::from_millis(wait_ms), self.nudge.0.notify.notified());
            let nudged = slept.await.is_ok();
            if nudged {
                let now_ms = self.clock.now().mono_ms;
                self.sets.iter_mut().for_each(|set| set.schedule.want(now_ms));
            }
            self.fetch_due().await;
            if nudged {
                self.nudge
                    .0
                    .tried_ms
                    .store(self.clock.now().mono_ms, Ordering::Release);
                self.nudge.0.wanted.store(false, Ordering::Release);
            }
        }
    }

    /// Fetches all sets that are due now, one after the other.
    pub async fn fetch_due(&mut self) {
        for set in &mut self.sets {
            if set.schedule.next_ms() > self.clock.now().mono_ms {
                continue;
            }
            let outcome = fetch(&set.url, set.reach).await;
            let outcome =
                outcome.and_then(|body| jwks::parse(&body, &set.spec).map_err(FetchError::Document));
            let succeeded = match outcome {
                Ok(found) => {
                    tracing::info!(url = %set.url, keys = found.keys.len(), skipped = found.skipped, "key set fetched");
                    // A document holds fewer keys than a source may.
                    self.keys.replace(set.source.clone(), found.keys).is_ok()
                }
                Err(e) => {
                    tracing::warn!(url = %set.url, error = %e, "key set not fetched; the keys in use stay");
                    false
                }
            };
            set.schedule
                .attempted(self.clock.now().mono_ms, succeeded, random());
        }
    }
}

/// Where randomness fails, nodes merely fetch at the same time.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// The address in the URL itself, which no resolver will see.
fn literal(url: &Url) -> Option<std::net::IpAddr> {
    url.host_str()?
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

async fn fetch(url: &Url, reach: Reach) -> Result<Vec<u8>, FetchError> {
    if literal(url).is_some_and(|ip| !reach.allows(ip)) {
        return Err(FetchError::Address);
    }
    // The library panics without a provider; whoever installed another one first keeps it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // A new client each time: fetches are minutes apart, and certificates of authorities may have changed since.
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .timeout(FETCH_TIMEOUT)
        .https_only(url.scheme() == "https")
        .pool_max_idle_per_host(0)
        .user_agent(concat!("cauce/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Checked(reach)))
        .build()
        .map_err(FetchError::Transport)?;
    let mut response = client
        .get(url.clone())
        .send()
        .await
        .map_err(FetchError::Transport)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Transport)? {
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            return Err(FetchError::Document(DocumentError::TooLong));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Resolves through the system and refuses a name if any of its addresses is out of reach.
struct Checked(Reach);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| !reach.allows(address.ip())) {
                return Err(Box::from(
                    "the name leads to an address that is not on the public internet",
                ));
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::KeyOwner;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}]}"#;

    /// Answers each connection with the next of these, the last one for ever. Counts connections.
    async fn server(answers: Vec<String>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let n = seen.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                let _ = socket
                    .write_all(answers[n.min(answers.len() - 1)].as_bytes())
                    .await;
            }
        });
        (url, count)
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn auth(url: &str, more: &[&str]) -> config::Auth {
        let mut flags = vec![
            "auth.jwks.0.operator=true".to_owned(),
            format!("auth.jwks.0.url={url}"),
        ];
        flags.extend(more.iter().map(|flag| format!("auth.jwks.0.{flag}")));
        let inputs = config::LoadInputs {
            flags,
            ..Default::default()
        };
        config::load(inputs).unwrap().config.auth
    }

    fn refresher(url: &str) -> (Arc<Keys>, Refresher) {
        let keys = Arc::new(Keys::default());
        let auth = auth(url, &["allow_http=true"]);
        (
            keys.clone(),
            Refresher::new(keys, &auth, Clock::start(), Nudge::default()).unwrap(),
        )
    }

    #[tokio::test]
    async fn keys_are_fetched_and_stay_when_a_later_fetch_fails() {
        let broken = "HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
        let (url, count) = server(vec![ok(SET), broken, ok("{}"), ok(SET)]).await;
        let (keys, mut refresher) = refresher(&url);
        refresher.fetch_due().await;
        let generation = keys.ring().generation();
        assert!(!keys.ring().is_empty());
        for _ in 0..2 {
            refresher.sets[0].schedule = Schedule::new(600_000, 0);
            refresher.fetch_due().await;
            assert_eq!(keys.ring().generation(), generation);
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
        refresher.fetch_due().await;
        assert_eq!(count.load(Ordering::SeqCst), 3, "not due yet");
        assert_eq!(refresher.sets[0].spec.owner, KeyOwner::Operator);
    }

    #[tokio::test]
    async fn redirects_long_bodies_and_other_answers_are_refused() {
        let (target, target_count) = server(vec![ok(SET)]).await;
        let redirect = format!(
            "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let long = ok(&" ".repeat(DOCUMENT_BYTES_MAX + 1));
        let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
            + &format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(5);
        let (url, _) = server(vec![redirect, long, endless, "nonsense\r\n\r\n".to_owned()]).await;
        let url = Url::parse(&url).unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            outcomes.push(fetch(&url, Reach::Anywhere).await.unwrap_err());
        }
        assert!(matches!(outcomes[0], FetchError::Status(302)));
        assert!(matches!(
            outcomes[1],
            FetchError::Document(DocumentError::TooLong)
        ));
        assert!(matches!(
            outcomes[2],
            FetchError::Document(DocumentError::TooLong)
        ));
        assert!(matches!(outcomes[3], FetchError::Transport(_)));
        assert_eq!(target_count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn an_address_of_this_network_is_never_contacted_unless_allowed() {
        let (url, count) = server(vec![ok(SET)]).await;
        let port = Url::parse(&url).unwrap().port().unwrap();
        for host in [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::ffff:127.0.0.1]",
            "[::1]",
            "0.0.0.0",
            "[::]",
            "0",
            "LOCALHOST",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "①②⑦.0.0.1",
        ] {
            let Ok(url) = Url::parse(&format!("http://{host}:{port}/jwks")) else {
                continue;
            };
            assert!(fetch(&url, Reach::Public).await.is_err(), "{host}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
        let url = Url::parse(&format!("http://localhost:{port}/jwks")).unwrap();
        assert!(fetch(&url, Reach::Anywhere).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls_is_refused_under_https() {
        let (url, count) = server(vec![ok(SET)]).await;
        let url = Url::parse(&url.replacen("http", "https", 1)).unwrap();
        let outcome = fetch(&url, Reach::Anywhere).await;
        assert!(matches!(outcome, Err(FetchError::Transport(_))), "{outcome:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_nudge_wakes_the_loop_and_many_are_one() {
        let (url, count) = server(vec![ok(SET)]).await;
        let (keys, mut refresher) = refresher(&url);
        // Not due by itself within this test.
        refresher.sets[0].schedule = Schedule::new(600_000, u64::MAX / 2);
        let (nudge, clock) = (refresher.nudge.clone(), refresher.clock);
        let running = tokio::spawn(refresher.run());
        for _ in 0..100 {
            assert_eq!(nudge.unknown_kid(clock.now().mono_ms), Prospect::Coming);
        }
        let fetched = async {
            while keys.ring().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), fetched)
            .await
            .unwrap();
        while nudge.unknown_kid(clock.now().mono_ms) == Prospect::Coming {
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "thirty seconds have not passed");
        running.abort();
    }

    #[tokio::test]
    async fn without_sets_there_is_nothing_to_run() {
        let auth = config::Config::default().auth;
        let refresher = Refresher::new(Arc::default(), &auth, Clock::start(), Nudge::default()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), refresher.run())
            .await
            .unwrap();
    }
}
