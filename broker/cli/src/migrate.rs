//! `cauce migrate`: what shape the database has, and bringing it up to date without starting a broker.

use cauce_broker::store::{MigrationInfo, StoreConfig, migrate, migrations};
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs};
use crate::settings::SettingsArgs;

/// Bring the database up to date; `serve` does so by itself
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cauce migrate --dry-run\n  cauce migrate --data-dir /var/lib/cauce")]
pub(crate) struct Migrate {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Only show what would be done; also works while a broker runs
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl Migrate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?.config;
        let store = StoreConfig::new(config.data_dir.clone());
        let before = migrations(&store).map_err(Failure::failed)?;
        let after = match self.dry_run {
            true => before.clone(),
            false => migrate(&store).map_err(Failure::failed)?,
        };
        match self.format.format() {
            Format::Json => {
                let items: Vec<_> = before
                    .iter()
                    .zip(&after)
                    .map(|(before, after)| document(before, after))
                    .collect();
                output::json(
                    &json!({"database": store.database(), "dry_run": self.dry_run, "migrations": items}),
                )
            }
            Format::Text => {
                output::line(&store.database().display().to_string())?;
                for (before, after) in before.iter().zip(&after) {
                    let state = match (before.applied_ms, after.applied_ms) {
                        (Some(_), _) => "there",
                        (None, Some(_)) => "applied now",
                        (None, None) => "to be applied",
                    };
                    output::line(&format!("{:04} {}: {state}", after.version, after.description))?;
                }
                Ok(())
            }
        }
    }
}

fn document(before: &MigrationInfo, after: &MigrationInfo) -> serde_json::Value {
    json!({
        "version": after.version,
        "description": after.description,
        "applied_unix_ms": after.applied_ms,
        "applied_now": before.applied_ms.is_none() && after.applied_ms.is_some(),
    })
}
