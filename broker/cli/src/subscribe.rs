//! `cauce sub`: what is said in rooms, as it is said.

use cauce_broker::auth::grant::Action;
use cauce_client::{Client, Continuity, Direct, Epoch, Event, Policy, Position, Seq, Subscribe, Watch};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::Access;
use crate::background::{Background, runtime};
use crate::door::{Needs, TokenArgs};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, harmless, remark};
use crate::payload;
use crate::presence::user_document;

/// Events between the connection and a slow terminal; behind it stand the buffers of the subscriptions.
const WAITING_MAX: usize = 256;

/// Listen to rooms
#[derive(clap::Args)]
#[command(
    after_help = "Without --token one is made with the API key. Ends by Ctrl-C, by --count, or when the reader of its output ends.\n\nExamples:\n  cauce sub orders\n  cauce sub '$devices' --tenant clinic --json | jq -r '.json.device'\n  cauce sub lobby --token \"$TOKEN\" --directs --count 10\n  cauce sub orders --recent 20\n  cauce sub orders --since 5118:42 --json          goes on where an earlier run stood\n  cauce sub prices --policy sample:500 --key EURUSD"
)]
pub(crate) struct Sub {
    /// Rooms to join; `$devices` is every device of the tenant, `$device:<id>` one
    #[arg(required = true, value_name = "ROOM")]
    rooms: Vec<String>,
    #[command(flatten)]
    token: TokenArgs,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also what is sent to the token's user, roles, tenant or this connection
    #[arg(long)]
    directs: bool,
    /// Begin so many messages back, as far as they are kept
    #[arg(long, value_name = "N", conflicts_with = "since")]
    recent: Option<u32>,
    /// Go on behind this position, `epoch` and `seq` of the last message seen; for one room
    #[arg(long, value_name = "EPOCH:SEQ", value_parser = parse_position)]
    since: Option<Position>,
    /// What happens when we read too slowly: reliable, latest, drop-oldest or sample:MS [default: as the room's class says]
    #[arg(long, value_parser = parse_policy)]
    policy: Option<Policy>,
    /// Only messages with this event. May be given many times
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Only messages with this key. May be given many times
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Also who comes and goes
    #[arg(long)]
    presence: bool,
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
        if self.since.is_some() && self.rooms.len() > 1 {
            return Err(Failure::Usage(
                "--since is a position in one room: name one room".to_owned(),
            ));
        }
        // The connection lives on its own thread, so that a paused terminal does not make the broker give us up.
        let connection = Background::start("cauce-connection")?;
        runtime()?.block_on(self.listen(&connection))
    }

    async fn listen(&self, connection: &Background) -> Result<(), Failure> {
        let client = self.connect(connection).await?;
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
            let mut subscription = self.options(client.subscribe(room)).await?;
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

    async fn connect(&self, connection: &Background) -> Result<Client, Failure> {
        let mut actions = vec![Action::Subscribe];
        if self.recent.is_some() || self.since.is_some() {
            actions.push(Action::History);
        }
        if self.presence {
            actions.push(Action::Presence);
        }
        let needs = Needs {
            rooms: self.rooms.clone(),
            actions,
        };
        self.token
            .connect(&self.access, connection, needs, |options| options)
            .await
    }

    fn options<'a>(&self, mut subscribe: Subscribe<'a>) -> Subscribe<'a> {
        if let Some(count) = self.recent {
            subscribe = subscribe.recent(count);
        }
        if let Some(position) = self.since {
            subscribe = subscribe.since(position);
        }
        if let Some(policy) = self.policy {
            subscribe = subscribe.policy(policy);
        }
        if self.presence {
            subscribe = subscribe.watch(Watch::Users);
        }
        subscribe.events(&self.events).keys(&self.keys)
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
            Event::Presence(change) => return presence(json_wanted, &room, &change),
            Event::State(state) => {
                let event = harmless(&state.event);
                if json_wanted {
                    let mut document =
                        json!({"room": room, "state": &*state.event, "key": state.key.as_deref()});
                    payload::put(&mut document, &state.payload);
                    output::json(&document)?;
                } else {
                    output::line(&format!(
                        "{}: state {event} {}",
                        harmless(&room),
                        payload::show(&state.payload)
                    ))?;
                }
                return Ok(Printed::Notice);
            }
            Event::Ended { reason } => {
                return Err(Failure::failed(format_args!("{}: {reason}", harmless(&room))));
            }
            other => return notice(json_wanted, &room, room_notice(&other)),
        };
        if json_wanted {
            let mut document = json!({"room": room, "epoch": message.epoch.0, "seq": message.seq.0, "event": &*message.event});
            if let Some(key) = &message.key {
                document["key"] = json!(**key);
            }
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

/// Who came and went: a line of its own among the messages.
fn presence(json_wanted: bool, room: &str, change: &cauce_client::Presence) -> Result<Printed, Failure> {
    if json_wanted {
        let joined: Vec<Value> = change.joined.iter().map(user_document).collect();
        output::json(&json!({
            "room": room,
            "presence": {
                "users": change.counts.users,
                "connections": change.counts.connections,
                "joined": joined,
                "left": change.left,
                "truncated": change.truncated,
            },
        }))?;
        return Ok(Printed::Notice);
    }
    let joined = change
        .joined
        .iter()
        .map(|user| format!("+{}", harmless(&user.user)));
    let left = change.left.iter().map(|user| format!("-{}", harmless(user)));
    let names: Vec<String> = joined.chain(left).collect();
    output::line(&format!(
        "{}: {} users {}",
        harmless(room),
        change.counts.users,
        names.join(" ")
    ))?;
    Ok(Printed::Notice)
}

/// Reads `5118:42`.
fn parse_position(text: &str) -> Result<Position, String> {
    let wrong = || format!("{text:?} is no position: write EPOCH:SEQ, as --json prints them");
    let (epoch, seq) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match number(epoch)? {
        0 => Err(wrong()),
        epoch => Ok(Position {
            epoch: Epoch(epoch),
            seq: Seq(number(seq)?),
        }),
    }
}

/// Reads `latest` or `sample:500`.
fn parse_policy(text: &str) -> Result<Policy, String> {
    match (text, text.strip_prefix("sample:")) {
        ("reliable", _) => Ok(Policy::Reliable),
        ("latest", _) => Ok(Policy::Latest),
        ("drop-oldest", _) => Ok(Policy::DropOldest),
        (_, Some(ms)) => ms
            .parse()
            .map(|every_ms| Policy::Sample { every_ms })
            .map_err(|_| format!("{ms:?} are no milliseconds: write sample:500")),
        _ => Err(format!(
            "nothing is called {text:?}: write reliable, latest, drop-oldest or sample:MS"
        )),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_policies_are_read_as_they_are_written() {
        let position = parse_position("5118:42").unwrap();
        assert_eq!((position.epoch, position.seq), (Epoch(5118), Seq(42)));
        assert_eq!(parse_policy("sample:500"), Ok(Policy::Sample { every_ms: 500 }));
        assert_eq!(parse_policy("drop-oldest"), Ok(Policy::DropOldest));
        for wrong in ["", "42", "0:1", "a:1", "1:", "1:-1"] {
            assert!(parse_position(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "newest", "sample", "sample:", "sample:1s"] {
            assert!(parse_policy(wrong).is_err(), "{wrong}");
        }
    }
}
