//! From texts to typed fields: file, environment and flags are flattened to `key, text, source`, laid over the defaults in
//! that order, read by kind, and checked together.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::fmt;
use std::sync::Arc;

use super::file::from_file;
use super::kind::{Raw, Value};
use super::names::{key_at, resolve, unknown};
use super::schema::{AuthJwks, AuthKey, Config, Lookup, Misfit, Reload, SECTIONS, Section, Setting};
use super::{ConfigError, check};

/// Entries of one `[[list]]`.
const ITEMS_MAX: usize = 256;

/// Variables of the command line that are not settings.
const ENV_OF_THE_CLI: &[&str] = &["CAUCE_API_KEY", "CAUCE_CONFIG", "CAUCE_TOKEN", "CAUCE_URL"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Default,
    /// Line from 1; 0 if it is not known.
    File {
        path: Arc<str>,
        line: usize,
    },
    Env(Arc<str>),
    Flag(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => f.write_str(path),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(key) => write!(f, "flag {key}"),
        }
    }
}

/// What [`load`] reads.
#[derive(Clone, Debug, Default)]
pub struct LoadInputs {
    /// The file's path, for messages, and its text.
    pub file: Option<(String, String)>,
    /// Names and values; those that do not begin with `CAUCE_` are passed over.
    pub env: Vec<(String, String)>,
    /// `key=value`, in the order in which they were typed.
    pub flags: Vec<String>,
}

/// A configuration with the origin of everything in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the table.
    pub entries: Vec<Entry>,
}

/// One value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub setting: &'static Setting,
    /// Which entry of a `[[list]]`.
    pub index: Option<usize>,
    pub value: Value,
    pub source: Source,
}

impl Entry {
    /// `auth.keys.0.alg`.
    pub fn key(&self) -> String {
        key_at(self.setting, self.index)
    }
}

impl Loaded {
    /// What differs in `newer`, by key: first what takes effect now, then what needs a restart.
    pub fn changes(&self, newer: &Self) -> (Vec<String>, Vec<String>) {
        let table = |loaded: &Self| -> BTreeMap<String, Entry> {
            loaded.entries.iter().map(|e| (e.key(), e.clone())).collect()
        };
        let (old, new) = (table(self), table(newer));
        let mut changed: Vec<_> = new
            .iter()
            .filter(|(key, entry)| old.get(*key).is_none_or(|o| !o.value.same(&entry.value)))
            .chain(old.iter().filter(|(key, _)| !new.contains_key(*key)))
            .collect();
        changed.sort_by_key(|(key, _)| *key);
        let (live, restart): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|(_, entry)| entry.setting.reload == Reload::Live);
        let keys = |list: Vec<(&String, &Entry)>| list.into_iter().map(|(key, _)| key.clone()).collect();
        (keys(live), keys(restart))
    }
}

/// The variables of this process that may be settings.
///
/// # Errors
/// If the value of one is not UTF-8.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut list = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("CAUCE_")) else {
            continue;
        };
        let value = value.into_string().map_err(|_| ConfigError {
            source: Source::Env(name.into()),
            key: String::new(),
            message: "the value is not UTF-8".to_owned(),
        })?;
        list.push((name.to_owned(), value));
    }
    Ok(list)
}

/// Lays file, environment and flags over the defaults and checks the whole.
///
/// # Errors
/// The first thing that is wrong, in the order file, environment, flags, combination.
pub fn load(inputs: LoadInputs) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::with_defaults()?;
    if let Some((path, text)) = &inputs.file {
        for assignment in from_file(path, text)? {
            layers.lay(assignment)?;
        }
    }
    let mut env = inputs.env;
    env.sort();
    for (name, value) in env {
        if let Some(assignment) = from_env(&name, value) {
            layers.lay(assignment)?;
        }
    }
    for flag in inputs.flags {
        layers.lay(from_flag(&flag)?)?;
    }
    layers.finish()
}

/// One thing that was written.
pub(super) struct Assignment {
    pub(super) key: String,
    pub(super) raw: Raw,
    pub(super) source: Source,
}

fn from_env(name: &str, value: String) -> Option<Assignment> {
    let rest = name.strip_prefix("CAUCE_")?;
    // A cluster with a service called "cauce" sets these for every container (Docker's link variables).
    let linked = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    if linked || ENV_OF_THE_CLI.contains(&name) {
        return None;
    }
    Some(Assignment {
        key: rest.to_lowercase().replace("__", "."),
        raw: Raw::Typed(value),
        source: Source::Env(name.into()),
    })
}

fn from_flag(flag: &str) -> Result<Assignment, ConfigError> {
    let (key, value) = flag.split_once('=').ok_or_else(|| ConfigError {
        source: Source::Flag(flag.into()),
        key: String::new(),
        message: "expected key=value".to_owned(),
    })?;
    Ok(Assignment {
        key: key.to_owned(),
        raw: Raw::Typed(value.to_owned()),
        source: Source::Flag(key.into()),
    })
}

type Table = HashMap<&'static str, Entry>;

/// Values of one section, or of one entry of a list, by name.
struct Values<'a>(&'a HashMap<&'static str, Table>);

impl Lookup for Values<'_> {
    fn value(&self, section: &str, name: &str) -> &Value {
        static ABSENT: Value = Value::Absent;
        self.0
            .get(section)
            .and_then(|table| table.get(name))
            .map_or(&ABSENT, |entry| &entry.value)
    }
}

/// What has been laid so far.
struct Layers {
    plain: HashMap<&'static str, Table>,
    lists: BTreeMap<&'static str, BTreeMap<usize, HashMap<&'static str, Table>>>,
}

impl Layers {
    fn with_defaults() -> Result<Self, ConfigError> {
        let mut plain = HashMap::new();
        for section in SECTIONS.iter().filter(|s| !s.repeats) {
            plain.insert(section.name, defaults(section, None)?);
        }
        Ok(Self {
            plain,
            lists: BTreeMap::new(),
        })
    }

    fn lay(&mut self, assignment: Assignment) -> Result<(), ConfigError> {
        let Assignment { key, raw, source } = assignment;
        let error = |message| ConfigError {
            source: source.clone(),
            key: key.clone(),
            message,
        };
        let (section, index, setting) = resolve(&key).ok_or_else(|| error(unknown(&key)))?;
        let value = setting.kind.read(&raw).map_err(error)?;
        let tables = match index {
            None => &mut self.plain,
            Some(index) if index < ITEMS_MAX => {
                let items = self.lists.entry(section.name).or_default();
                match items.entry(index) {
                    btree_map::Entry::Occupied(tables) => tables.into_mut(),
                    btree_map::Entry::Vacant(place) => {
                        place.insert(HashMap::from([(section.name, defaults(section, Some(index))?)]))
                    }
                }
            }
            Some(_) => return Err(error(format!("there may be {ITEMS_MAX} entries at most"))),
        };
        let entry = Entry {
            setting,
            index,
            value,
            source,
        };
        tables
            .entry(section.name)
            .or_default()
            .insert(setting.name, entry);
        Ok(())
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        for (name, items) in &self.lists {
            if let Some((expected, (found, tables))) =
                items.iter().enumerate().find(|(i, (found, _))| i != *found)
            {
                return Err(ConfigError {
                    source: first_source(tables),
                    key: format!("{name}.{found}"),
                    message: format!("entries are counted from 0 without gaps: {name}.{expected} is missing"),
                });
            }
        }
        let keys = self.read_list("auth.keys", AuthKey::read)?;
        let jwks = self.read_list("auth.jwks", AuthJwks::read)?;
        let config =
            Config::read(&Values(&self.plain), keys, jwks).map_err(|e| Self::misfit(e, &self.plain))?;
        let mut entries = Vec::new();
        for section in SECTIONS {
            let tables: Vec<&Table> = if section.repeats {
                let items = self
                    .lists
                    .get(section.name)
                    .into_iter()
                    .flat_map(BTreeMap::values);
                items.filter_map(|tables| tables.get(section.name)).collect()
            } else {
                self.plain.get(section.name).into_iter().collect()
            };
            for table in tables {
                entries.extend(section.settings.iter().filter_map(|s| table.get(s.name)).cloned());
            }
        }
        let loaded = Loaded { config, entries };
        check::combination(&loaded)?;
        Ok(loaded)
    }

    fn read_list<T>(
        &self,
        name: &str,
        read: fn(&dyn Lookup) -> Result<T, Misfit>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = self.lists.get(name).into_iter().flat_map(BTreeMap::values);
        items
            .map(|tables| read(&Values(tables)).map_err(|e| Self::misfit(e, tables)))
            .collect()
    }

    fn misfit(misfit: Misfit, tables: &HashMap<&'static str, Table>) -> ConfigError {
        let entry = tables
            .get(misfit.section)
            .and_then(|table| table.get(misfit.name));
        let source = entry.map(|e| e.source.clone()).filter(|s| *s != Source::Default);
        ConfigError {
            source: source.unwrap_or_else(|| first_source(tables)),
            key: entry.map_or_else(|| misfit.name.to_owned(), Entry::key),
            message: misfit.message,
        }
    }
}

fn defaults(section: &'static Section, index: Option<usize>) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    for setting in section.settings {
        let value = if setting.default.is_empty() {
            Value::Absent
        } else {
            setting
                .kind
                .read(&Raw::Typed(setting.default.to_owned()))
                .map_err(|message| ConfigError {
                    source: Source::Default,
                    key: setting.key(),
                    message,
                })?
        };
        let source = Source::Default;
        table.insert(
            setting.name,
            Entry {
                setting,
                index,
                value,
                source,
            },
        );
    }
    Ok(table)
}

/// Where an entry of a list was first spoken of.
fn first_source(tables: &HashMap<&'static str, Table>) -> Source {
    let sources = tables
        .values()
        .flat_map(HashMap::values)
        .map(|entry| &entry.source);
    sources
        .filter(|s| **s != Source::Default)
        .min_by_key(|s| match s {
            Source::File { line, .. } => (0, *line),
            _ => (1, 0),
        })
        .cloned()
        .unwrap_or(Source::Default)
}
