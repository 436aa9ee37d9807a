//! Devices on the outbound WebSocket: what they say becomes updates, and their comings and goings are told at once.

#[path = "../support/mod.rs"]
mod support;

mod door;
mod life;

use serde_json::{Value, json};
use support::raw::{Heard, Raw};
use support::{Broker, Peer, full_token};

/// A plug that says exactly what a test wants said.
struct Plug {
    raw: Raw,
    src: String,
}

impl Plug {
    async fn dial(broker: &Broker, token: &str, id: &str) -> Self {
        let mut raw = Raw::connect(broker.address).await;
        let head = raw.upgrade(&format!("/shelly?token={token}"), "").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self {
            raw,
            src: format!("shellyplugsg3-{}", id.to_lowercase()),
        }
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.raw
            .say(json!({"src": self.src, "dst": "cauce", "method": method, "params": params}))
            .await;
    }

    async fn full(&mut self, output: bool, power: f64) {
        let switch = json!({"id": 0, "output": output, "apower": power, "voltage": 230.1, "aenergy": {"total": 1000.5}});
        self.notify(
            "NotifyFullStatus",
            json!({"ts": 1_700_000_000.5, "sys": {"mac": "X"}, "switch:0": switch}),
        )
        .await;
    }

    async fn power(&mut self, power: f64) {
        self.notify(
            "NotifyStatus",
            json!({"ts": 1_700_000_001.5, "switch:0": {"id": 0, "apower": power}}),
        )
        .await;
    }

    /// The next request of the broker with this method; others are passed over.
    async fn asked(&mut self, method: &str) -> Value {
        loop {
            let request = self.raw.hear_json().await;
            if request["method"] == method {
                return request;
            }
        }
    }

    async fn answer(&mut self, request: &Value, outcome: Value) {
        let mut reply = json!({"id": request["id"], "src": self.src, "dst": request["src"]});
        reply
            .as_object_mut()
            .expect("an object")
            .extend(outcome.as_object().expect("an object").clone());
        self.raw.say(reply).await;
    }

    /// The code that the broker closes with.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.raw.hear().await {
                Heard::Close(code, _) => return code,
                Heard::End => panic!("ended without a close"),
                _ => {}
            }
        }
    }
}

async fn watcher(broker: &Broker, tenant: &str, rooms: &[&str]) -> Peer {
    let mut peer = broker.join(&full_token(tenant, "watcher", "staff")).await;
    peer.subscribe(rooms).await;
    peer
}

/// The next message of a room as its event and payload.
async fn heard(peer: &mut Peer) -> (String, Value) {
    let push = peer.receive().await["push"].clone();
    (
        push["event"]
            .as_str()
            .unwrap_or_else(|| panic!("not a push: {push}"))
            .to_owned(),
        push["json"].clone(),
    )
}

/// The next message that is not about make and firmware alone.
async fn update(peer: &mut Peer) -> Value {
    let (event, update) = heard(peer).await;
    assert_eq!(event, "device-update", "{update}");
    update
}
