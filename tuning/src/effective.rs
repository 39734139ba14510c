//! What a relay really obeys: every value with where it comes from, and what differs between two configurations.

use crate::environment::Environment;
use crate::error::ConfigErrors;
use crate::keys::{Config, SECTIONS, keys};
use crate::presets::NamedPreset;
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The table of keys.
    #[default]
    Default,
    /// A preset, by its name.
    Preset(&'static str),
    /// A file, with the line, counted from 1.
    File(String, usize),
    /// A variable of the environment, by its name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Variable(name) => write!(f, "environment {name}"),
        }
    }
}

/// A configuration with where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The preset, and where it was chosen.
    pub preset: Option<(&'static NamedPreset, Origin)>,
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// Reads and checks the file at `path` with the overrides of `environment`, for whatever machine it is meant for.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(path: impl AsRef<Path>, environment: &Environment) -> Result<Self, ConfigErrors> {
        crate::read::load(path.as_ref(), environment, None)
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }

    /// The values in TOML, each with its origin behind it: all of them, or those that are not the default.
    pub fn to_toml(&self, all: bool) -> String {
        let mut text = String::new();
        if let Some((preset, origin)) = &self.preset {
            let _ = writeln!(text, "# preset = \"{}\"  ({origin}); its values are below", preset.name);
        }
        for section in SECTIONS {
            let shown = section.keys.iter().map(|key| (key, self.origin(&key.full_name())));
            let lines: Vec<(String, Origin)> = shown
                .filter(|(_, origin)| all || *origin != Origin::Default)
                .map(|(key, origin)| (format!("{} = {}", key.name, (key.write)(&self.config)), origin))
                .collect();
            let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width < 60).max();
            if !lines.is_empty() {
                let _ = writeln!(text, "{}[{}]", if text.is_empty() { "" } else { "\n" }, section.name);
            }
            for (line, origin) in lines {
                let _ = writeln!(text, "{line:width$}  # {origin}", width = width.unwrap_or(0));
            }
        }
        text
    }

    /// What differs from `self` to `other`, one key a line with both origins; empty if nothing does.
    pub fn diff(&self, other: &Effective) -> String {
        let mut text = String::new();
        for Change { key, from, to, live } in changes(&self.config, &other.config) {
            let (here, there) = (self.origin(key), other.origin(key));
            let when = if live { "reload" } else { "restart" };
            let _ = writeln!(text, "{key}: {from} ({here}) -> {to} ({there}); takes a {when}");
        }
        text
    }
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key with its section.
    pub key: &'static str,
    /// Its value in the first, in TOML.
    pub from: String,
    /// Its value in the second.
    pub to: String,
    /// Whether a running relay obeys it without a restart.
    pub live: bool,
}

/// What differs between two configurations, in the order of the reference.
pub fn changes(from: &Config, to: &Config) -> Vec<Change> {
    let changed = keys().map(|key| (key, (key.write)(from), (key.write)(to)));
    changed
        .filter(|(_, from, to)| from != to)
        .map(|(key, from, to)| Change { key: key.path, from, to, live: key.live })
        .collect()
}

impl Config {
    /// Takes from `other` what a running relay obeys without a restart, and leaves the rest as it is.
    pub fn take_live(&mut self, other: &Config) {
        for key in keys().filter(|key| key.live) {
            (key.copy)(other, self);
        }
    }
}
