//! `cauce config`: every setting, what it is and who said so.

use cauce_broker::config::template;

use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs};
use crate::settings::SettingsArgs;

/// Print the configuration with the source of every value
#[derive(clap::Args)]
#[command(
    after_help = "Secrets are masked. Exits with 78 if the configuration is wrong, so it also checks one.\n\nExamples:\n  cauce config --template > cauce.toml\n  cauce config --config cauce.toml\n  cauce config --set limits.frame_bytes=32KiB --json | jq '.\"limits.frame_bytes\"'"
)]
pub(crate) struct Config {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print a file with every setting, its default and its meaning
    #[arg(long)]
    template: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl Config {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.template {
            return output::line(template().trim_end());
        }
        let loaded = self.settings.load()?;
        match self.format.format() {
            Format::Json => output::json(&loaded.to_json()),
            Format::Text => output::line(loaded.to_toml().trim_end()),
        }
    }
}
