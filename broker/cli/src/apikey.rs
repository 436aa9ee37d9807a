//! `cauce apikey`: keys of the API, for back ends and operators.

use clap::Subcommand;
use serde_json::json;

use crate::api::{Access, Api};
use crate::background::runtime;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, remark};

/// Make and revoke keys of the API
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cauce apikey create billing --tenant clinic --scope publish,tokens\n  cauce apikey create second-operator --operator --scope all\n  cauce apikey list --tenant clinic\n  cauce apikey revoke g6awy89tsv62a4me"
)]
pub(crate) struct ApiKey {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key; it is shown this once
    Create {
        /// For people
        name: String,
        /// What it may do: publish, rooms, devices, commands, tenants, keys, tokens, stats, all; with commas between
        #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPES")]
        scope: Vec<String>,
        /// A key for every tenant and the broker itself, rather than for one tenant
        #[arg(long, conflicts_with = "tenant")]
        operator: bool,
    },
    /// Keys of the tenant, without their secrets; with an operator's key and no tenant, those of the operator
    List,
    /// Revoke a key
    Revoke { id: String },
}

impl ApiKey {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.format.format();
        let api = self.access.api()?;
        runtime()?.block_on(self.verb.run(&api, self.access.tenant.as_deref(), format))
    }
}

impl Verb {
    async fn run(self, api: &Api, tenant: Option<&str>, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create {
                name,
                scope,
                operator,
            } => {
                let mut body = json!({"name": name, "scopes": scope});
                if operator {
                    body["operator"] = json!(true);
                } else if let Some(tenant) = tenant {
                    body["tenant"] = json!(tenant);
                }
                let answer = api.post(&["api-keys"], &body).await?;
                output::record(format, &answer)?;
                if format == Format::Text {
                    remark("The key is shown this once.");
                }
                Ok(())
            }
            Self::List => {
                let columns = [
                    ("id", "id"),
                    ("name", "name"),
                    ("scopes", "scopes"),
                    ("tenant", "tenant"),
                    ("created", "created_unix_ms"),
                ];
                output::list(format, &api.list(&["api-keys"], &[]).await?, &columns)
            }
            Self::Revoke { id } => {
                let answer = api.delete(&["api-keys", &id]).await?;
                output::done(format, &answer, &format!("{id} is revoked"))
            }
        }
    }
}
