//! `cauce presence`: who is in a room, now or as they come and go.

use std::pin::pin;

use cauce_broker::auth::grant::Action;
use cauce_client::{PresenceEvent, PresentUser, RoomPresence};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::api::Access;
use crate::background::{Background, interrupted, runtime};
use crate::door::{Needs, TokenArgs};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, harmless, remark};

/// See who is in a room
#[derive(clap::Args)]
#[command(
    after_help = "Rooms tell who is there if their class says so.\n\nExamples:\n  cauce presence lobby\n  cauce presence lobby --counts\n  cauce presence lobby --watch --json        ends by Ctrl-C"
)]
pub(crate) struct ShowPresence {
    /// The room
    room: String,
    /// How many, without names
    #[arg(long, conflicts_with = "watch")]
    counts: bool,
    /// Go on with who comes and goes; this joins the room
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

/// A user for scripts.
pub(crate) fn user_document(user: &PresentUser) -> Value {
    json!({
        "user": user.user,
        "connections": user.connections,
        "since_unix_ms": user.since_unix_ms,
        "info": user.info::<Value>().ok().flatten(),
    })
}

impl ShowPresence {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let connection = Background::start("cauce-connection")?;
        runtime()?.block_on(self.show(&connection))
    }

    async fn show(&self, connection: &Background) -> Result<(), Failure> {
        let mut actions = vec![Action::Presence];
        if self.watch {
            actions.push(Action::Subscribe);
        }
        let needs = Needs {
            rooms: vec![self.room.clone()],
            actions,
        };
        let client = self
            .token
            .connect(&self.access, connection, needs, |options| options)
            .await?;
        let room = client.presence(&self.room);
        match (self.watch, self.counts) {
            (true, _) => self.watch(&room).await?,
            (false, true) => {
                let counts = room.counts().await?;
                let document = json!({"users": counts.users, "connections": counts.connections});
                output::record(self.format.format(), &document)?;
            }
            (false, false) => {
                let mut users = Vec::new();
                let mut stream = pin!(room.users());
                while let Some(user) = stream.next().await {
                    users.push(user_document(&user?));
                }
                let columns = [
                    ("user", "user"),
                    ("connections", "connections"),
                    ("since", "since_unix_ms"),
                    ("info", "info"),
                ];
                output::list(self.format.format(), &users, &columns)?;
            }
        }
        client.close().await;
        Ok(())
    }

    async fn watch(&self, room: &RoomPresence) -> Result<(), Failure> {
        let mut view = room.watch().await?;
        remark(&format!("watching {}", harmless(&self.room)));
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                result = &mut interrupted => return result,
                event = view.next() => match event {
                    None => return Err(Failure::failed("the connection has ended for good")),
                    Some(PresenceEvent::Ended { reason }) => return Err(Failure::failed(reason)),
                    Some(event) => self.print(&event)?,
                },
            }
        }
    }

    fn print(&self, event: &PresenceEvent) -> Result<(), Failure> {
        let (name, document, text) = match event {
            PresenceEvent::Joined(user) => ("joined", user_document(user), harmless(&user.user)),
            PresenceEvent::Changed(user) => ("changed", user_document(user), harmless(&user.user)),
            PresenceEvent::Left(user) => ("left", json!({"user": user}), harmless(user)),
            PresenceEvent::Counts(counts) => (
                "counts",
                json!({"users": counts.users, "connections": counts.connections}),
                format!("{} users, {} connections", counts.users, counts.connections),
            ),
            PresenceEvent::Loaded => ("loaded", json!({}), "everyone was told".to_owned()),
            _ => return Ok(()),
        };
        match self.format.format() {
            Format::Json => output::json(&json!({"room": self.room, (name): document})),
            Format::Text => output::line(&format!("{name} {text}")),
        }
    }
}
