//! What `/metrics` tells of a running broker, and that the dashboard and the alerts ask for nothing else.

#[path = "../support/mod.rs"]
mod support;

mod dashboard;
mod latency;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server};
use support::{Broker, PATIENCE, config};

/// A broker with a database in this directory, so that there is something to tell of a store.
pub(crate) fn stored(dir: &Path) -> Broker {
    let config = config(&format!("data_dir={}", dir.display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    let class = RoomClass {
        durability: Durability::Durable,
        history: Keep {
            messages: 1_000,
            age_ms: 0,
            bytes: 0,
        },
        ..RoomClass::default()
    };
    let tenant = broker.server.hub().tenants.get("b").expect("tenant b");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    broker
}

pub(crate) fn client() -> reqwest::Client {
    // Whoever was first has installed one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    client.build().expect("a client")
}

/// One scrape: samples by name and labels as they are written.
#[derive(Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    pub(crate) async fn of(broker: &Broker) -> Self {
        let answer = client().get(format!("http://{}/metrics", broker.address)).send();
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let text = answer
            .expect("in time")
            .expect("an answer")
            .text()
            .await
            .expect("text");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            samples
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                    let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
                    (name.to_owned(), value)
                })
                .collect(),
        )
    }

    /// Scrapes until it is as expected: what a client has read may be counted a moment later.
    pub(crate) async fn until(broker: &Broker, what: &str, is_so: impl Fn(&Self) -> bool) -> Self {
        let reached = async {
            loop {
                let scrape = Self::of(broker).await;
                if is_so(&scrape) {
                    return scrape;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(scrape) => scrape,
            Err(_) => panic!("never {what}: {:?}", Self::of(broker).await),
        }
    }

    pub(crate) fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no {sample}"))
    }

    /// Names of all samples, without labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(|sample| sample.split('{').next().unwrap_or_default())
    }

    /// Names of all labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        let labels = self.0.keys().filter_map(|sample| sample.split_once('{'));
        labels
            .flat_map(|(_, labels)| labels.split(','))
            .filter_map(|label| label.split('=').next())
    }

    /// Bounds and cumulative counts of a histogram, in the order of the bounds. `labels` as in `source="api"`, or empty.
    pub(crate) fn buckets(&self, name: &str, labels: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<_> = self
            .0
            .iter()
            .filter_map(|(sample, &count)| {
                let rest = sample.strip_prefix(name)?.strip_prefix("_bucket{")?;
                let le = rest.split("le=\"").nth(1)?.split('"').next()?;
                let others = rest.contains(labels);
                others.then(|| (le.parse::<f64>().unwrap_or_else(|_| panic!("{sample}")), count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}
