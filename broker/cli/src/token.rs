//! `cauce token`: a token for a client.

use std::io::IsTerminal;
use std::time::Duration;

use cauce_broker::auth::grant::Action;
use serde_json::{Value, json};

use crate::api::{Access, Api};
use crate::background::runtime;
use crate::duration;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, remark};

/// Rights that are given where `--room` stands without `--allow`, and to `*` where neither room nor role is named.
const DEFAULT_ALLOW: &str = "subscribe,publish";

/// Make a token for a client
#[derive(clap::Args)]
#[command(
    after_help = "Without --room and --role the token may subscribe and publish in all rooms but the broker's own ($…).\n\nExamples:\n  cauce token --user ana\n  cauce token --user ana --tenant clinic --room 'chat.*' --allow subscribe,publish --expires 8h\n  cauce token --user panel --room '$devices' --room '$device:*' --allow subscribe,call\n  TOKEN=$(cauce token --user ana)"
)]
pub(crate) struct Token {
    #[command(flatten)]
    access: Access,
    /// Whom the token speaks for
    #[arg(long, short)]
    user: String,
    /// A role of the user; what it may do is the tenant's to say. May be given many times
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    #[command(flatten)]
    rights: Rights,
    /// What others in a room are told of the user: JSON of at most 1 KiB
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    info: Option<Value>,
    /// How long it is good for, at most 24h
    #[arg(long, default_value = "1h", value_parser = duration::parse)]
    expires: Duration,
    #[command(flatten)]
    format: FormatArgs,
}

/// Rooms and what may be done there.
#[derive(clap::Args)]
pub(crate) struct Rights {
    /// A room, or a pattern such as `chat.*`. May be given many times
    #[arg(long, value_name = "PATTERN")]
    room: Vec<String>,
    /// What is allowed there: subscribe, publish, presence, history, call. Once for all rooms, or once after each
    #[arg(long, value_name = "ACTIONS")]
    allow: Vec<String>,
}

impl Rights {
    /// As the `grants` of a token; `named_roles` says whether something else gives rights.
    fn grants(&self, named_roles: bool) -> Result<Value, Failure> {
        if self.room.is_empty() {
            return match (self.allow.is_empty(), named_roles) {
                (true, true) => Ok(json!([])),
                (true, false) => Ok(json!([grant("*", DEFAULT_ALLOW)?])),
                (false, _) => Err(Failure::Usage(
                    "--allow says what, --room where: give both".to_owned(),
                )),
            };
        }
        let allow = |at: usize| match self.allow.len() {
            0 => Ok(DEFAULT_ALLOW),
            1 => Ok(self.allow[0].as_str()),
            count if count == self.room.len() => Ok(self.allow[at].as_str()),
            count => Err(Failure::Usage(format!(
                "{} rooms and {count} --allow: give one for all rooms, or one for each",
                self.room.len()
            ))),
        };
        let grants = self.room.iter().enumerate();
        grants
            .map(|(at, room)| grant(room, allow(at)?))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::from)
    }
}

fn grant(room: &str, allow: &str) -> Result<Value, Failure> {
    let known = |name: &&str| Action::ALL.iter().any(|action| action.name() == *name);
    let names: Vec<&str> = allow.split(',').map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        return Err(Failure::Usage(format!(
            "nothing is called {unknown:?}: --allow takes {}",
            all.join(", ")
        )));
    }
    Ok(json!({"rooms": [room], "allow": names}))
}

impl Token {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let grants = self.rights.grants(!self.role.is_empty())?;
        let api = self.access.api()?;
        let mut body = json!({
            "user": self.user,
            "roles": self.role,
            "grants": grants,
            "expires_in": self.expires.as_secs(),
        });
        if let Some(info) = self.info {
            body["info"] = info;
        }
        let answer = runtime()?.block_on(api.post(&["tokens"], &body))?;
        match self.format.format() {
            Format::Json => output::json(&answer),
            Format::Text => {
                output::line(&secret_of(&answer)?)?;
                if std::io::stdout().is_terminal() {
                    remark(&format!(
                        "Good for {} minutes. Try: cauce sub orders --token …, or cauce sub --help",
                        self.expires.as_secs() / 60
                    ));
                }
                Ok(())
            }
        }
    }
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// Makes a token that may do this in these rooms.
pub(crate) async fn mint(
    api: &Api,
    user: &str,
    grants: &[(&[&str], &[Action])],
    expires: Duration,
) -> Result<String, Failure> {
    let grants: Vec<Value> = grants
        .iter()
        .map(|(rooms, allow)| json!({"rooms": rooms, "allow": allow}))
        .collect();
    let body = json!({"user": user, "grants": grants, "expires_in": expires.as_secs()});
    secret_of(&api.post(&["tokens"], &body).await?)
}

fn secret_of(answer: &Value) -> Result<String, Failure> {
    answer["token"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::failed("the broker's answer holds no token; is it another version?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(room: &[&str], allow: &[&str], named_roles: bool) -> Result<Value, Failure> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let rights = Rights {
            room: owned(room),
            allow: owned(allow),
        };
        rights.grants(named_roles)
    }

    #[test]
    fn rooms_get_what_follows_them_or_what_is_said_once() {
        let one = json!([{"rooms": ["a"], "allow": ["subscribe"]}, {"rooms": ["b"], "allow": ["subscribe"]}]);
        assert_eq!(grants(&["a", "b"], &["subscribe"], false).unwrap(), one);
        let each =
            json!([{"rooms": ["a"], "allow": ["call"]}, {"rooms": ["b"], "allow": ["history", "presence"]}]);
        assert_eq!(
            grants(&["a", "b"], &["call", "history, presence"], false).unwrap(),
            each
        );
        let usual = json!([{"rooms": ["*"], "allow": ["subscribe", "publish"]}]);
        assert_eq!(grants(&[], &[], false).unwrap(), usual);
        assert_eq!(grants(&[], &[], true).unwrap(), json!([]));
    }

    #[test]
    fn rights_that_cannot_be_meant_are_wrong_usage() {
        for (room, allow) in [
            (&[][..], &["call"][..]),
            (&["a", "b", "c"], &["call", "call"]),
            (&["a"], &["write"]),
        ] {
            assert!(
                matches!(grants(room, allow, false), Err(Failure::Usage(_))),
                "{room:?} {allow:?}"
            );
        }
    }
}
