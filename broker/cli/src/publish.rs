//! `cauce pub`: one message to one room.

use cauce_client::{AckLevel, Client, Payload, Reconnect};
use serde_json::{Value, json};

use crate::api::Access;
use crate::background::runtime;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs};
use crate::payload::{self, Kind};

/// Publish a message to a room
#[derive(clap::Args)]
#[command(
    after_help = "With --token it goes over a WebSocket, as from a client; otherwise with the API key over HTTP.\n\nExamples:\n  cauce pub orders order_created '{\"id\":42}'\n  echo 'hello there' | cauce pub lobby said - --text\n  cauce pub lobby said '\"hi\"' --token \"$TOKEN\"\n  cauce pub orders order_paid '{\"id\":42}' --idempotency-key order-42-paid --json\n  cauce pub orders order_paid '{\"id\":42}' --key 42 --ack durable"
)]
pub(crate) struct Pub {
    /// The room
    room: String,
    /// Name of the event, such as `order_created`
    event: String,
    /// JSON unless --text or --binary is given; `-` reads standard input; nothing is null
    payload: Option<String>,
    /// The payload is text
    #[arg(long, conflicts_with = "binary")]
    text: bool,
    /// The payload is bytes: base64 as an argument, raw through `-`
    #[arg(long)]
    binary: bool,
    /// A repeat with the same key is answered like the first and not sent again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// What the message is about within its event, as an order's number
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// When to answer: once it is numbered, or once it is on the disk [default: as the room's class says]
    #[arg(long, value_enum)]
    ack: Option<AckArg>,
    /// Token of a client; goes over a WebSocket
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

/// The level by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AckArg {
    Memory,
    Durable,
}

impl Pub {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let kind = match (self.text, self.binary) {
            (true, _) => Kind::Text,
            (_, true) => Kind::Binary,
            _ => Kind::Json,
        };
        let payload = payload::read(self.payload.as_deref(), kind)?;
        let answer = runtime()?.block_on(async {
            match &self.token {
                Some(token) => self.by_websocket(token, payload).await,
                None => self.by_api(&payload).await,
            }
        })?;
        match self.format.format() {
            Format::Json => output::json(&answer),
            Format::Text => {
                let receivers = match answer["receivers"].as_u64() {
                    Some(1) => ", 1 receiver".to_owned(),
                    Some(count) => format!(", {count} receivers"),
                    None => String::new(),
                };
                let repeated = match answer["repeated"] {
                    Value::Bool(true) => " (a repeat: it had been sent before)",
                    _ => "",
                };
                let durable = match answer["durable"] {
                    Value::Bool(true) => ", on the disk",
                    _ => "",
                };
                let (room, seq) = (output::harmless(&self.room), &answer["seq"]);
                output::line(&format!("{room}: message {seq}{durable}{receivers}{repeated}"))
            }
        }
    }

    async fn by_websocket(&self, token: &str, payload: Payload) -> Result<Value, Failure> {
        let options = self.access.websocket()?.token(token).reconnect(Reconnect::Never);
        let client = Client::connect(options).await?;
        let mut publish = client.publish(&self.room, &self.event, payload).want_receivers();
        if let Some(key) = &self.idempotency_key {
            publish = publish.idempotency_key(key);
        }
        if let Some(key) = &self.key {
            publish = publish.key(key);
        }
        publish = match self.ack {
            None => publish,
            Some(AckArg::Memory) => publish.ack(AckLevel::Memory),
            Some(AckArg::Durable) => publish.ack(AckLevel::Durable),
        };
        let ack = publish.await?;
        client.close().await;
        Ok(json!({
            "room": self.room,
            "epoch": ack.epoch.0,
            "seq": ack.seq.0,
            "receivers": ack.receivers,
            "repeated": ack.repeated,
            "durable": ack.durable,
        }))
    }

    async fn by_api(&self, payload: &Payload) -> Result<Value, Failure> {
        let mut body = json!({"room": self.room, "event": self.event});
        payload::put(&mut body, payload);
        if let Some(key) = &self.idempotency_key {
            body["idempotency_key"] = json!(key);
        }
        if let Some(key) = &self.key {
            body["key"] = json!(key);
        }
        if let Some(ack) = self.ack {
            body["ack"] = json!(match ack {
                AckArg::Memory => "memory",
                AckArg::Durable => "durable",
            });
        }
        let mut answer = self.access.api()?.post(&["publish"], &body).await?;
        answer["room"] = json!(self.room);
        Ok(answer)
    }
}
