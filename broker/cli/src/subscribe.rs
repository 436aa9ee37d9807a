//! `cauce sub`: what is said in rooms, as it is said.

use std::time::Duration;

use cauce_broker::auth::grant::Action;
use cauce_client::{Client, Continuity, Direct, Event, Options, Reconnect};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Access, Api};
use crate::background::{Background, runtime};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, harmless, remark};
use crate::payload;
use crate::token::mint;

/// Events between the connection and a slow terminal; behind it stand the buffers of the subscriptions.
const WAITING_MAX: usize = 256;

/// How long a token is good for that is made for this listening alone; it is renewed.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// User of such a token.
const USER: &str = "cauce-cli";

/// Listen to rooms
#[derive(clap::Args)]
#[command(
    after_help = "Without --token one is made with the API key. Ends by Ctrl-C, by --count, or when the reader of its output ends.\n\nExamples:\n  cauce sub orders\n  cauce sub '$devices' --tenant clinic --json | jq -r '.json.device'\n  cauce sub lobby --token \"$TOKEN\" --directs --count 10"
)]
pub(crate) struct Sub {
    /// Rooms to join; `$devices` is every device of the tenant, `$device:<id>` one
    #[arg(required = true, value_name = "ROOM")]
    rooms: Vec<String>,
    /// Token of a client
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also what is sent to the token's user, roles, tenant or this connection
    #[arg(long)]
    directs: bool,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

/// What is printed.
enum Item {
    Direct(Direct),
    Room(String, Event),
}

impl Sub {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // The connection lives on its own thread, so that a paused terminal does not make the broker give us up.
        let connection = Background::start("cauce-connection")?;
        runtime()?.block_on(self.listen(&connection))
    }

    async fn listen(&self, connection: &Background) -> Result<(), Failure> {
        let options = self.access.websocket()?.reconnect(Reconnect::AfterWelcome);
        let options = match &self.token {
            Some(token) => options.token(token),
            None => self.minting(options).await?,
        };
        let client = {
            let _on = connection.handle().enter();
            Client::start(options)?
        };
        client.online().await?;
        let (items, mut arriving) = mpsc::channel(WAITING_MAX);
        if self.directs {
            let (mut inbox, items) = (client.directs(), items.clone());
            connection.handle().spawn(async move {
                while let Some(direct) = inbox.next().await {
                    if items.send(Item::Direct(direct)).await.is_err() {
                        return;
                    }
                }
            });
        }
        for room in &self.rooms {
            let mut subscription = client.subscribe(room).await?;
            let (room, items) = (room.clone(), items.clone());
            connection.handle().spawn(async move {
                while let Some(event) = subscription.next().await {
                    if items.send(Item::Room(room.clone(), event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(items);
        remark(&format!("listening to {}", harmless(&self.rooms.join(", "))));
        let mut left = self.count;
        while let Some(item) = arriving.recv().await {
            if self.print(item)? == Printed::Message
                && let Some(left) = &mut left
            {
                *left -= 1;
                if *left == 0 {
                    client.close().await;
                    return Ok(());
                }
            }
        }
        Err(Failure::failed("the connection has ended for good"))
    }

    /// A token that allows just this, made anew whenever the broker wants one.
    async fn minting(&self, options: Options) -> Result<Options, Failure> {
        let api = std::sync::Arc::new(self.access.api()?);
        let rooms: std::sync::Arc<[String]> = self.rooms.clone().into();
        // The first one here, so that what is wrong with the key is said at once and not tried again.
        let mut first = Some(for_rooms(&api, &rooms).await?);
        let first = std::sync::Mutex::new(first.take());
        Ok(options.token_provider(move || {
            let (api, rooms) = (api.clone(), rooms.clone());
            let ready = first.lock().ok().and_then(|mut first| first.take());
            async move {
                match ready {
                    Some(token) => Ok(token),
                    None => for_rooms(&api, &rooms).await.map_err(|failure| match failure {
                        Failure::Failed(message) | Failure::Usage(message) => message,
                        _ => "no token".to_owned(),
                    }),
                }
            }
        }))
    }

    fn print(&self, item: Item) -> Result<Printed, Failure> {
        let json_wanted = self.format.format() == Format::Json;
        let (room, event) = match item {
            Item::Direct(Direct::Message(message)) => {
                if json_wanted {
                    let mut document = json!({"direct": true, "event": &*message.event});
                    payload::put(&mut document, &message.payload);
                    output::json(&document)?;
                } else {
                    let (event, shown) = (harmless(&message.event), payload::show(&message.payload));
                    output::line(&format!("(direct) {event} {shown}"))?;
                }
                return Ok(Printed::Message);
            }
            Item::Direct(other) => return notice(json_wanted, "(direct)", direct_notice(&other)),
            Item::Room(room, event) => (room, event),
        };
        let message = match event {
            Event::Message(message) => message,
            Event::Ended { reason } => {
                return Err(Failure::failed(format_args!("{}: {reason}", harmless(&room))));
            }
            other => return notice(json_wanted, &room, room_notice(&other)),
        };
        if json_wanted {
            let mut document = json!({"room": room, "epoch": message.epoch.0, "seq": message.seq.0, "event": &*message.event});
            payload::put(&mut document, &message.payload);
            output::json(&document)?;
        } else {
            let (room, event) = (harmless(&room), harmless(&message.event));
            output::line(&format!(
                "{room} {} {event} {}",
                message.seq,
                payload::show(&message.payload)
            ))?;
        }
        Ok(Printed::Message)
    }
}

/// What [`Sub::print`] printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Printed {
    Message,
    Notice,
}

async fn for_rooms(api: &Api, rooms: &[String]) -> Result<String, Failure> {
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    mint(api, USER, &[(&rooms, &[Action::Subscribe])], TOKEN_LIFE).await
}

/// What is missing is said where it is missing: among the JSON lines, or beside the text.
fn notice(json_wanted: bool, room: &str, (name, missed): (&str, Option<u64>)) -> Result<Printed, Failure> {
    if json_wanted {
        output::json(
            &json!({"room": room, "notice": name, "missed": missed.map_or(Value::Null, Value::from)}),
        )?;
    } else {
        let missed = missed.map_or(String::new(), |count| format!(", {count} messages missed"));
        remark(&format!("{}: {name}{missed}", harmless(room)));
    }
    Ok(Printed::Notice)
}

fn room_notice(event: &Event) -> (&'static str, Option<u64>) {
    match event {
        Event::Gap { missed } => ("gap", Some(missed.count())),
        Event::Lagged { missed } => ("lagged", Some(*missed)),
        Event::Resubscribed { continuity, .. } => match continuity {
            Continuity::Continued => ("reconnected", Some(0)),
            Continuity::Lost(missed) => ("reconnected", Some(missed.count())),
            Continuity::Reset => ("reset", None),
        },
        _ => ("notice", None),
    }
}

fn direct_notice(direct: &Direct) -> (&'static str, Option<u64>) {
    match direct {
        Direct::Lagged { missed } => ("lagged", Some(*missed)),
        _ => ("notice", None),
    }
}
