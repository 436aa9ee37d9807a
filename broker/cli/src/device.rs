//! `cauce device`: look at devices, command them, say to whom they belong, and let new ones in.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::api::{Access, Api};
use crate::background::runtime;
use crate::call::read_params;
use crate::duration;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, remark};

/// See and command devices
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cauce device list --tenant clinic\n  cauce device on A0B1C2D3E4F5\n  cauce device call A0B1C2D3E4F5 Switch.GetStatus '{\"id\":0}'\n  cauce device token create --label 'front desk'\n  cauce device assign A0B1C2D3E4F5 --equipment laser-2 --label 'Laser, room 2'"
)]
pub(crate) struct Device {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// All devices of the tenant
    List,
    /// One device with its state
    Show { device: String },
    /// Call a method of a device and print its answer
    Call {
        device: String,
        /// As the device names it: `Switch.Set`, `Shelly.GetStatus`
        method: String,
        /// A JSON object
        params: Option<String>,
        /// How long the device may take
        #[arg(long, value_parser = duration::parse)]
        timeout: Option<Duration>,
    },
    /// Switch a device on
    On(Switch),
    /// Switch a device off
    Off(Switch),
    /// Switch a device over
    Toggle(Switch),
    /// Say to which equipment a device belongs
    Assign {
        device: String,
        /// Your name for the equipment
        #[arg(long, value_name = "ID")]
        equipment: String,
        /// For people
        #[arg(long)]
        label: Option<String>,
    },
    /// Take an assignment back
    Unassign { device: String },
    /// Tokens that devices dial in with
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
}

#[derive(clap::Args)]
struct Switch {
    device: String,
    /// Number of the output, for devices with several
    #[arg(long, default_value_t = 0)]
    channel: u32,
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown this once
    Create {
        /// The only device it is good for; without, it is good for any
        #[arg(long)]
        device: Option<String>,
        /// For people
        #[arg(long)]
        label: Option<String>,
    },
    /// All tokens, without their secrets
    List,
    /// Revoke a token and close the sockets that came with it
    Revoke { id: String },
}

impl Device {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let api = self.access.api()?;
        runtime()?.block_on(self.verb.run(&api, format))
    }
}

impl Verb {
    async fn run(self, api: &Api, format: Format) -> Result<(), Failure> {
        match self {
            Self::List => {
                let columns = [
                    ("device", "id"),
                    ("presence", "presence"),
                    ("last seen", "last_seen_unix_ms"),
                    ("model", "model"),
                    ("name", "name"),
                    ("equipment", "assignment.equipment_id"),
                    ("label", "assignment.label"),
                ];
                output::list(format, &api.list(&["devices"], &[]).await?, &columns)
            }
            Self::Show { device } => output::record(format, &api.get(&["devices", &device], &[]).await?),
            Self::Call {
                device,
                method,
                params,
                timeout,
            } => {
                let params = params.map(|text| read_params(&text)).transpose()?;
                let answer = call(api, &device, &method, params, timeout).await?;
                output::json(if format == Format::Json {
                    &answer
                } else {
                    &answer["result"]
                })
            }
            Self::On(switch) => switch.set(api, format, Some(true)).await,
            Self::Off(switch) => switch.set(api, format, Some(false)).await,
            Self::Toggle(switch) => switch.set(api, format, None).await,
            Self::Assign {
                device,
                equipment,
                label,
            } => {
                let mut body = json!({"equipment_id": equipment});
                if let Some(label) = label {
                    body["label"] = json!(label);
                }
                let answer = api.put(&["devices", &device, "assignment"], &body).await?;
                output::done(format, &answer, &format!("{device} belongs to {equipment}"))
            }
            Self::Unassign { device } => {
                let answer = api.delete(&["devices", &device, "assignment"]).await?;
                output::done(format, &answer, &format!("{device} belongs to nothing"))
            }
            Self::Token { verb } => verb.run(api, format).await,
        }
    }
}

impl Switch {
    async fn set(self, api: &Api, format: Format, on: Option<bool>) -> Result<(), Failure> {
        let (method, params) = match on {
            Some(on) => ("Switch.Set", json!({"id": self.channel, "on": on})),
            None => ("Switch.Toggle", json!({"id": self.channel})),
        };
        let answer = call(api, &self.device, method, Some(params), None).await?;
        let was = match answer["result"]["was_on"].as_bool() {
            Some(true) => " (it was on)",
            Some(false) => " (it was off)",
            None => "",
        };
        let now = match on {
            Some(true) => "on",
            Some(false) => "off",
            None => "switched over",
        };
        output::done(format, &answer, &format!("{}: {now}{was}", self.device))
    }
}

impl TokenVerb {
    async fn run(self, api: &Api, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create { device, label } => {
                let mut body = json!({});
                if let Some(device) = device {
                    body["device"] = json!(device);
                }
                if let Some(label) = label {
                    body["label"] = json!(label);
                }
                let answer = api.post(&["device-tokens"], &body).await?;
                output::record(format, &answer)?;
                if format == Format::Text {
                    remark(
                        "The token is shown this once. Give its URL to the device as its outbound WebSocket server.",
                    );
                }
                Ok(())
            }
            Self::List => {
                let columns = [
                    ("id", "id"),
                    ("device", "device"),
                    ("label", "label"),
                    ("created", "created_unix_ms"),
                ];
                output::list(format, &api.list(&["device-tokens"], &[]).await?, &columns)
            }
            Self::Revoke { id } => {
                let answer = api.delete(&["device-tokens", &id]).await?;
                output::done(
                    format,
                    &answer,
                    &format!("{id} is revoked; its sockets are closed"),
                )
            }
        }
    }
}

async fn call(
    api: &Api,
    device: &str,
    method: &str,
    params: Option<Value>,
    timeout: Option<Duration>,
) -> Result<Value, Failure> {
    let mut body = json!({"method": method});
    if let Some(params) = params {
        body["params"] = params;
    }
    if let Some(timeout) = timeout {
        body["timeout_ms"] = json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    }
    api.post(&["devices", device, "call"], &body).await
}
