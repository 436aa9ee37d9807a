//! `cauce revoke`: tokens that are good no more.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Access;
use crate::background::runtime;
use crate::duration;
use crate::failure::Failure;
use crate::output::{self, FormatArgs};

/// Refuse a user's tokens, or one token, from now on
#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true)),
    after_help = "It bites at once: open connections with such a token are closed. Tokens that a user gets afterwards are good.\n\nExamples:\n  cauce revoke --user ana --reason 'lost her phone'\n  cauce revoke --jti 7f3a9c --for 24h\n  cauce revoke --list\n  cauce revoke --lift user:ana"
)]
pub(crate) struct Revoke {
    /// All tokens of this user that were issued up to now
    #[arg(long, group = "what")]
    user: Option<String>,
    /// The token of this id
    #[arg(long, group = "what")]
    jti: Option<String>,
    /// Show what is revoked
    #[arg(long, group = "what")]
    list: bool,
    /// Take a revocation back, by its id
    #[arg(long, value_name = "ID", group = "what")]
    lift: Option<String>,
    /// How long it lasts [default: until no such token can be good any more]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// For people
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

impl Revoke {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let api = self.access.api()?;
        runtime()?.block_on(async {
            if self.list {
                let columns = [
                    ("id", "id"),
                    ("since", "revoked_unix_ms"),
                    ("until", "until_unix_ms"),
                    ("reason", "reason"),
                ];
                return output::list(format, &api.list(&["revocations"], &[]).await?, &columns);
            }
            if let Some(id) = &self.lift {
                let answer = api.delete(&["revocations", id]).await?;
                return output::done(format, &answer, &format!("{id} is revoked no longer"));
            }
            let mut body = json!({"reason": self.reason.unwrap_or_default()});
            if let Some(user) = self.user {
                body["user"] = json!(user);
            }
            if let Some(jti) = self.jti {
                body["jti"] = json!(jti);
            }
            if let Some(lasts) = self.lasts {
                body["ttl"] = json!(lasts.as_secs());
            }
            let answer = api.post(&["revocations"], &body).await?;
            let until = match &answer["until_unix_ms"] {
                Value::Number(ms) => ms.as_u64().map(output::moment),
                _ => None,
            };
            let until = until.map_or_else(|| "for ever".to_owned(), |until| format!("until {until}"));
            let id = answer["id"].as_str().unwrap_or("it").to_owned();
            output::done(format, &answer, &format!("{id} is revoked {until}"))
        })
    }
}
