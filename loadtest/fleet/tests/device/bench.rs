//! A device and a server that remembers, on a common clock that only the test moves.

use cauce_fleet::{Device, Ending, FrameKind, Model, Output, Setup, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const START: Timestamp = Timestamp::from_seconds(1_783_004_880);

/// A device with its server: connects when it can, keeps what the server would know.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) now: Timestamp,
    pub(crate) linked: bool,
    pub(crate) lines: Vec<Line>,
    /// What a server knows, merged from the frames.
    pub(crate) known: Value,
    pub(crate) endings: Vec<(Timestamp, Ending)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) kind: Option<FrameKind>,
    pub(crate) text: String,
    pub(crate) frame: Value,
    /// Whether it changed what the server knew, apart from its `ts`.
    pub(crate) changed: bool,
}

impl Bench {
    pub(crate) fn new(model: &str, index: u32, setup: Setup) -> Self {
        let setup = Arc::new(Setup {
            started_at: START,
            ..setup
        });
        let model = Model::load(model).expect("in the catalogue");
        let device = Device::new(model, setup, index, START);
        Self {
            device,
            now: START,
            linked: false,
            lines: Vec::new(),
            known: json!({}),
            endings: Vec::new(),
        }
    }

    pub(crate) fn natural(model: &str, index: u32) -> Self {
        Self::new(
            model,
            index,
            Setup {
                seed: 7,
                ..Setup::default()
            },
        )
    }

    /// Lets the device live until `until`, waking exactly when it asks to.
    pub(crate) fn run_until(&mut self, until: Timestamp) {
        let mut out = Vec::new();
        loop {
            if self.device.is_awake() && !self.linked {
                self.linked = true;
                self.device.connected(self.now, &mut out);
                self.take(&mut out);
            }
            let next = self.device.next_wakeup();
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            self.device.poll(self.now, &mut out);
            assert!(
                self.device.next_wakeup() > self.now,
                "a poll leaves nothing due, or its driver would spin"
            );
            self.take(&mut out);
        }
    }

    pub(crate) fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now.plus(Duration::from_secs(seconds)));
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"id": 5, "src": "test", "method": method, "params": params});
        self.exchange(&request).expect("an answer")
    }

    pub(crate) fn exchange(&mut self, request: &Value) -> Option<Value> {
        let (mut out, before) = (Vec::new(), self.lines.len());
        self.device.handle_frame(self.now, &request.to_string(), &mut out);
        self.take(&mut out);
        self.lines[before..]
            .iter()
            .find(|line| line.kind.is_none())
            .map(|line| line.frame.clone())
    }

    pub(crate) fn take(&mut self, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            let (kind, text) = match output {
                Output::Reply(text) => (None, text),
                Output::Notify(notification) => {
                    assert!(self.linked, "a frame without a connection");
                    (Some(notification.kind()), notification.to_json("ws"))
                }
                Output::Close(ending) => {
                    assert!(self.linked, "a close without a connection");
                    self.linked = false;
                    self.device.disconnected();
                    self.endings.push((self.now, ending));
                    continue;
                }
                Output::Slow { .. } => continue,
            };
            let frame: Value = serde_json::from_str(&text).expect("every frame is JSON");
            assert_eq!(frame["src"], self.device.id().as_str());
            let before = self.known.clone();
            let mut params = frame["params"].clone();
            if let Value::Object(params) = &mut params {
                params.remove("ts");
            }
            match kind {
                Some(FrameKind::Full) => self.known = params,
                Some(FrameKind::Greeting | FrameKind::Status | FrameKind::Repeat) => {
                    merge(&mut self.known, &params);
                }
                _ => {}
            }
            let changed = before != self.known;
            self.lines.push(Line {
                at: self.now,
                kind,
                text,
                frame,
                changed,
            });
        }
    }

    pub(crate) fn of_kind(&self, kind: FrameKind) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.kind == Some(kind))
    }
}

/// A server's merge, written from the protocol alone: objects merge, null removes, everything else replaces.
fn merge(known: &mut Value, delta: &Value) {
    match (known, delta) {
        (Value::Object(known), Value::Object(delta)) => {
            for (key, change) in delta {
                if change.is_null() {
                    known.remove(key);
                } else {
                    merge(known.entry(key.clone()).or_insert(Value::Null), change);
                }
            }
        }
        (known, delta) => *known = delta.clone(),
    }
}
