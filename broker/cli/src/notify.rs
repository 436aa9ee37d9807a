//! `cauce notify`: leaves a notification for people.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Access;
use crate::background::runtime;
use crate::duration;
use crate::failure::Failure;
use crate::output::{self, FormatArgs};

/// Leave a notification for people
#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("to").required(true)),
    after_help = "It is kept until it is read or expires, for those who are not connected too.\n\nExamples:\n  cauce notify --user ana 'Order 42 is paid'\n  cauce notify --role staff 'Laser 2 is hot' 'Room 2, 81 °C' --kind alert --priority high\n  cauce notify --everyone 'We close at six' --expires 8h --json"
)]
pub(crate) struct Notify {
    /// What it says at a glance
    title: String,
    /// More than that
    message: Option<String>,
    /// For this user
    #[arg(long, group = "to")]
    user: Option<String>,
    /// For the users of this role
    #[arg(long, group = "to")]
    role: Option<String>,
    /// For everyone in the tenant
    #[arg(long, group = "to")]
    everyone: bool,
    /// What it is
    #[arg(long, value_enum, default_value_t = Kind::Info)]
    kind: Kind,
    /// High overtakes what waits to be written to the receiver
    #[arg(long, value_enum, default_value_t = Urgency::Normal)]
    priority: Urgency,
    /// JSON for the program that shows it
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// How long it is kept [default: as configured]
    #[arg(long, value_parser = duration::parse)]
    expires: Option<Duration>,
    /// A repeat with the same key is answered like the first
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Info,
    Success,
    Warning,
    Error,
    Alert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Urgency {
    Low,
    Normal,
    High,
}

impl Notify {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut body = json!({
            "title": self.title,
            "message": self.message.unwrap_or_default(),
            "kind": self.kind,
            "priority": self.priority,
        });
        let to = match (self.user, self.role) {
            (Some(user), _) => {
                body["user"] = json!(user);
                user
            }
            (None, Some(role)) => {
                body["role"] = json!(role);
                format!("the users of {role}")
            }
            (None, None) => {
                body["tenant"] = json!(true);
                "everyone".to_owned()
            }
        };
        if let Some(data) = self.data {
            body["json"] = serde_json::from_str(&data)
                .map_err(|e| Failure::Usage(format!("--data is not JSON ({e}): quote it for the shell")))?;
        }
        if let Some(expires) = self.expires {
            body["expires_in_ms"] = json!(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(key) = self.idempotency_key {
            body["idempotency_key"] = json!(key);
        }
        let api = self.access.api()?;
        let answer = runtime()?.block_on(api.post(&["notifications"], &body))?;
        let repeated = match answer["repeated"] {
            Value::Bool(true) => " (a repeat: it had been left before)",
            _ => "",
        };
        let sentence = format!("notification {} for {to}{repeated}", answer["id"]);
        output::done(self.format.format(), &answer, &sentence)
    }
}
