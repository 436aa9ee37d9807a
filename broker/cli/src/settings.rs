//! The broker's configuration as commands get it: a file, the environment, flags.

use std::path::PathBuf;

use cauce_broker::config::{ConfigError, LoadInputs, Loaded, Readers, Source, environment, load, read_file};

use crate::failure::Failure;

/// Variables of this command line that are no settings, beside those that the loader knows itself.
const OURS: [&str; 4] = [
    "CAUCE_CA",
    "CAUCE_DEVICE_PASSWORD",
    "CAUCE_DEVICE_TOKEN",
    "CAUCE_TENANT",
];

/// Where the configuration comes from.
#[derive(Clone, clap::Args)]
pub(crate) struct SettingsArgs {
    /// TOML file; `cauce config --template` prints one with every setting
    #[arg(long, short, env = "CAUCE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting; wins over file and environment. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Address and port to listen on, as `--set listen=…`
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Folder of the database, as `--set data_dir=…`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Log level, as `--set log.level=…`
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl SettingsArgs {
    /// Reads and checks everything; again and again, for reloading.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let file = match &self.config {
            None => None,
            Some(path) => {
                let text = read_file(path, Readers::Anybody).map_err(|e| ConfigError {
                    source: Source::File {
                        path: path.display().to_string().into(),
                        line: 0,
                    },
                    key: String::new(),
                    message: e.message,
                })?;
                Some((path.display().to_string(), text))
            }
        };
        let named = [
            ("listen", &self.listen),
            ("data_dir", &self.data_dir),
            ("log.level", &self.log),
        ];
        let mut flags = self.set.clone();
        flags.extend(
            named
                .into_iter()
                .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}"))),
        );
        let env = environment()?
            .into_iter()
            .filter(|(name, _)| !OURS.contains(&name.as_str()))
            .collect();
        Ok(load(LoadInputs { file, env, flags })?)
    }
}
