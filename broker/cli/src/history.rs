//! `cauce history`: what a room has kept.

use std::pin::pin;

use cauce_broker::auth::grant::Action;
use cauce_client::{HistoryEntry, Seq};
use futures_util::StreamExt;
use serde_json::json;

use crate::api::Access;
use crate::background::{Background, runtime};
use crate::door::{Needs, TokenArgs};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, harmless, moment, remark};
use crate::payload;

/// Messages of one page.
const PAGE: u32 = 500;

/// Show what a room has kept
#[derive(clap::Args)]
#[command(
    after_help = "Rooms keep messages as their class says; others keep none.\n\nExamples:\n  cauce history orders                     everything, oldest first\n  cauce history orders --last 20           the newest 20, oldest of them first\n  cauce history orders --after 41 --json   what came after number 41\n  cauce history orders --backwards --limit 5"
)]
pub(crate) struct ShowHistory {
    /// The room
    room: String,
    /// The newest so many, in the order in which they were published
    #[arg(long, value_name = "N", conflicts_with_all = ["after", "before", "backwards", "limit"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: Option<u32>,
    /// What came after this number
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["before", "backwards"])]
    after: Option<u64>,
    /// Newest first, from before this number
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    /// Newest first
    #[arg(long)]
    backwards: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

impl ShowHistory {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let connection = Background::start("cauce-connection")?;
        runtime()?.block_on(self.show(&connection))
    }

    async fn show(&self, connection: &Background) -> Result<(), Failure> {
        let needs = Needs {
            rooms: vec![self.room.clone()],
            actions: vec![Action::History],
        };
        let client = self
            .token
            .connect(&self.access, connection, needs, |options| options)
            .await?;
        let history = client.history(&self.room).page_size(PAGE);
        let history = match (self.after, self.before) {
            (Some(seq), _) => history.after(Seq(seq)),
            (None, Some(seq)) => history.before(Seq(seq)),
            (None, None) if self.backwards || self.last.is_some() => history.newest_first(),
            (None, None) => history,
        };
        let mut left = self.limit.or(self.last.map(u64::from)).unwrap_or(u64::MAX);
        let mut newest = Vec::new();
        let mut printed = 0u64;
        let mut entries = pin!(history.stream());
        while left > 0 {
            let Some(entry) = entries.next().await else {
                break;
            };
            let entry = entry?;
            left -= 1;
            printed += 1;
            match self.last {
                Some(_) => newest.push(entry),
                None => self.print(&entry)?,
            }
        }
        newest.iter().rev().try_for_each(|entry| self.print(entry))?;
        if printed == 0 && self.format.format() == Format::Text {
            remark("nothing is kept");
        }
        client.close().await;
        Ok(())
    }

    fn print(&self, entry: &HistoryEntry) -> Result<(), Failure> {
        match self.format.format() {
            Format::Json => {
                let mut document = json!({
                    "room": self.room,
                    "seq": entry.seq.0,
                    "event": entry.event,
                    "unix_ms": entry.unix_ms,
                    "user": entry.user,
                });
                if let Some(key) = &entry.key {
                    document["key"] = json!(key);
                }
                payload::put(&mut document, &entry.payload);
                output::json(&document)
            }
            Format::Text => {
                let user = entry.user.as_deref().unwrap_or("-");
                output::line(&format!(
                    "{} {} {} {} {}",
                    entry.seq,
                    moment(entry.unix_ms),
                    harmless(user),
                    harmless(&entry.event),
                    payload::show(&entry.payload)
                ))
            }
        }
    }
}
