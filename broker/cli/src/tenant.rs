//! `cauce tenant`: tenants and the keys that their tokens are signed with. For the operator.

use std::path::PathBuf;

use cauce_broker::config::{Algorithm, Readers, read_file};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::api::{Access, Api};
use crate::background::runtime;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, remark};

/// Make and change tenants and their signing keys
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cauce tenant create clinic --name 'Clinic of the north'\n  cauce tenant update clinic --room-classes classes.json\n  cauce tenant key add clinic                      the broker makes an HS256 secret and shows it once\n  cauce tenant key add clinic --alg RS256 --file public.pem\n  cauce tenant disable clinic"
)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// All tenants
    List,
    /// Make a tenant
    Create {
        id: String,
        /// For people
        #[arg(long)]
        name: Option<String>,
        /// What holds in its rooms: a list of room classes in JSON
        #[arg(long, value_name = "FILE")]
        room_classes: Option<PathBuf>,
    },
    /// Rename a tenant, or give its rooms other classes
    Update {
        id: String,
        /// For people
        #[arg(long)]
        name: Option<String>,
        /// What holds in its rooms from now on: a list of room classes in JSON, which replaces all that there are
        #[arg(long, value_name = "FILE")]
        room_classes: Option<PathBuf>,
    },
    /// One tenant
    Show { id: String },
    /// Close its connections and take no more
    Disable { id: String },
    /// Serve it again
    Enable { id: String },
    /// Keys that its tokens are signed with
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
}

#[derive(Subcommand)]
enum KeyVerb {
    /// Add a key; a secret that the broker makes is shown this once
    Add {
        id: String,
        /// Name of the key in the header of tokens
        #[arg(long)]
        kid: Option<String>,
        /// The only algorithm it is good for
        #[arg(long, default_value = "HS256")]
        alg: Algorithm,
        /// The shared secret, or the public key in PEM
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// All keys, without their secrets
    List { id: String },
    /// Revoke a key; its tokens are refused from now on
    Revoke { id: String, kid: String },
}

impl Tenant {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let api = self.access.operator_api()?;
        runtime()?.block_on(self.verb.run(&api, format))
    }
}

impl Verb {
    async fn run(self, api: &Api, format: Format) -> Result<(), Failure> {
        match self {
            Self::List => {
                let columns = [("id", "id"), ("name", "name"), ("disabled", "disabled")];
                output::list(format, &api.list(&["tenants"], &[]).await?, &columns)
            }
            Self::Create {
                id,
                name,
                room_classes,
            } => {
                let mut body = json!({"id": id});
                put_settings(&mut body, name, room_classes)?;
                let answer = api.post(&["tenants"], &body).await?;
                output::done(
                    format,
                    &answer,
                    &format!("{id} is made; next: cauce token --user ana --tenant {id}"),
                )
            }
            Self::Update {
                id,
                name,
                room_classes,
            } => {
                let mut body = json!({});
                put_settings(&mut body, name, room_classes)?;
                if body == json!({}) {
                    return Err(Failure::Usage("give --name or --room-classes".to_owned()));
                }
                let answer = api.patch(&["tenants", &id], &body).await?;
                output::done(format, &answer, &format!("{id} is changed"))
            }
            Self::Show { id } => output::record(format, &api.get(&["tenants", &id], &[]).await?),
            Self::Disable { id } => {
                let answer = api.patch(&["tenants", &id], &json!({"disabled": true})).await?;
                output::done(
                    format,
                    &answer,
                    &format!("{id} is disabled; its connections are closed"),
                )
            }
            Self::Enable { id } => {
                let answer = api.patch(&["tenants", &id], &json!({"disabled": false})).await?;
                output::done(format, &answer, &format!("{id} is served again"))
            }
            Self::Key { verb } => verb.run(api, format).await,
        }
    }
}

/// What `create` and `update` have in common.
fn put_settings(
    body: &mut Value,
    name: Option<String>,
    room_classes: Option<PathBuf>,
) -> Result<(), Failure> {
    if let Some(name) = name {
        body["name"] = json!(name);
    }
    if let Some(path) = room_classes {
        let text = read_file(&path, Readers::Anybody).map_err(Failure::failed)?;
        let classes: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{} is not JSON: {error}", path.display())))?;
        body["room_classes"] = classes;
    }
    Ok(())
}

impl KeyVerb {
    async fn run(self, api: &Api, format: Format) -> Result<(), Failure> {
        match self {
            Self::Add { id, kid, alg, file } => {
                let mut body = json!({"alg": alg.name()});
                if let Some(kid) = kid {
                    body["kid"] = json!(kid);
                }
                match (file, alg.is_symmetric()) {
                    (Some(path), true) => {
                        let secret = read_file(&path, Readers::NotTheWorld).map_err(Failure::failed)?;
                        body["secret"] = json!(secret.trim_end_matches(['\r', '\n']));
                    }
                    (Some(path), false) => {
                        body["public_key"] =
                            json!(read_file(&path, Readers::Anybody).map_err(Failure::failed)?);
                    }
                    (None, true) => {}
                    (None, false) => {
                        return Err(Failure::Usage(format!(
                            "{alg} needs --file with a public key in PEM"
                        )));
                    }
                }
                let answer = api.post(&["tenants", &id, "keys"], &body).await?;
                output::record(format, &answer)?;
                if format == Format::Text && answer.get("secret").is_some_and(|secret| !secret.is_null()) {
                    remark("The secret is shown this once.");
                }
                Ok(())
            }
            Self::List { id } => {
                let columns = [("kid", "kid"), ("alg", "alg"), ("created", "created_unix_ms")];
                output::list(format, &api.list(&["tenants", &id, "keys"], &[]).await?, &columns)
            }
            Self::Revoke { id, kid } => {
                let answer = api.delete(&["tenants", &id, "keys", &kid]).await?;
                output::done(format, &answer, &format!("{kid} of {id} is revoked"))
            }
        }
    }
}
