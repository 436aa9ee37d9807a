//! `cauce connections` and `cauce disconnect`: who is connected, and an end to it.

use serde_json::json;

use crate::api::Access;
use crate::background::runtime;
use crate::failure::Failure;
use crate::output::{self, FormatArgs};

/// List open connections of clients
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cauce connections\n  cauce connections --user ana --tenant clinic\n  cauce connections --json | jq '.items[] | select(.queued_bytes > 0)'        who reads slowly"
)]
pub(crate) struct Connections {
    /// Only this user's
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

impl Connections {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let api = self.access.api()?;
        let query: Vec<_> = self
            .user
            .as_deref()
            .map(|user| ("user", user))
            .into_iter()
            .collect();
        let items = runtime()?.block_on(api.list(&["clients"], &query))?;
        let columns = [
            ("connection", "id"),
            ("user", "user"),
            ("network", "network"),
            ("client", "client"),
            ("since", "since_unix_ms"),
            ("rooms", "rooms"),
            ("queued bytes", "queued_bytes"),
        ];
        output::list(self.format.format(), &items, &columns)
    }
}

/// End connections of clients
#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("whom").required(true)),
    after_help = "Clients connect again unless told to stay away; to refuse their tokens too, see `cauce revoke`.\n\nExamples:\n  cauce disconnect --user ana\n  cauce disconnect --connection 5273 --reason 'please update the app' --stay-away"
)]
pub(crate) struct Disconnect {
    /// All connections of this user
    #[arg(long, group = "whom")]
    user: Option<String>,
    /// This one
    #[arg(long, value_name = "ID", group = "whom")]
    connection: Option<u64>,
    /// For people at the other end
    #[arg(long)]
    reason: Option<String>,
    /// They must not connect again by themselves
    #[arg(long)]
    stay_away: bool,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

impl Disconnect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let api = self.access.api()?;
        let reason = self.reason.unwrap_or_default();
        runtime()?.block_on(async {
            if let Some(id) = self.connection {
                let reconnect = if self.stay_away { "false" } else { "true" };
                let mut query = vec![("reconnect", reconnect)];
                if !reason.is_empty() {
                    query.push(("reason", reason.as_str()));
                }
                let answer = api.delete_with(&["clients", &id.to_string()], &query).await?;
                return output::done(format, &answer, &format!("connection {id} is ended"));
            }
            let user = self.user.unwrap_or_default();
            let body = json!({"reason": reason, "reconnect": !self.stay_away});
            let answer = api.post(&["users", &user, "disconnect"], &body).await?;
            let sentence = format!("{user}: {} connections ended", answer["connections"]);
            output::done(format, &answer, &sentence)
        })
    }
}
