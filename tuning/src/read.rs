//! From the text of a configuration file to a [`Config`], or to everything that is wrong with it.
//!
//! Goes through the whole file whatever it finds: a value that is wrong is reported and its default stands in for it, so
//! that the rest can be checked. Nothing of a wrong file ever leaves this module but the errors.

use crate::check;
use crate::effective::{Effective, Origin};
use crate::environment::{Environment, value_of};
use crate::error::{Cause, ConfigError, ConfigErrors};
use crate::host::Host;
use crate::keys::{Config, SECTIONS, keys};
use crate::kind::{Fault, Item, Kind, alternatives, fault, not_a_choice, quoted, wrong_type};
use crate::nearest::{nearest, ranked};
use crate::presets::{NamedPreset, PRESETS};
use crate::table::Preset;
use crate::units::ByteSize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;
use toml::de::{DeTable, DeValue};

/// The largest file that is read. The commented default file has about 10 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Every default, with `url` as the relay's one URL. Paths are relative to the current folder.
    ///
    /// `url` is not checked here; [`Config::parse`] does that.
    pub fn new(url: impl Into<String>) -> Self {
        let mut config = Self::read(&mut Reader::new("", &DeTable::new(), &Environment::default()));
        config.relay.url = vec![url.into()];
        config
    }

    /// The Unix socket for operators.
    pub fn operator_socket(&self) -> std::path::PathBuf {
        self.relay.data_dir.join(&self.operator.socket)
    }

    /// Reads and checks the file at `path`, for this machine: [`Config::parse`] with the overrides of the environment, and
    /// whether the processors exist.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Ok(load(path.as_ref(), &Environment::of_process(), Some(&Host::this()))?.config)
    }

    /// As [`Config::load`], for whatever machine the file is meant for.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load_for_any_host(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Ok(load(path.as_ref(), &Environment::of_process(), None)?.config)
    }

    /// Checks `text`, the same on every machine and in every environment. `origin` is the file that errors name; relative paths in the text are
    /// taken relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, origin: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Ok(parse_for(text, origin.as_ref(), &Environment::default(), None)?.config)
    }
}

pub(crate) fn load(
    path: &Path,
    environment: &Environment,
    host: Option<&Host>,
) -> Result<Effective, ConfigErrors> {
    parse_for(&text_of(path)?, path, environment, host)
}

fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    read_bounded(path).map_err(|cause| whole_file(path, cause))
}

fn read_bounded(path: &Path) -> Result<String, Cause> {
    let unreadable = |error: std::io::Error| Cause::Unreadable(error.to_string());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Cause::TooLarge(ByteSize::new(MAX_FILE_BYTES)));
    }
    String::from_utf8(bytes).map_err(|error| Cause::NotUtf8(error.utf8_error().valid_up_to()))
}

fn whole_file(path: &Path, cause: Cause) -> ConfigErrors {
    let error = ConfigError { file: path.into(), line: None, key: String::new(), cause };
    ConfigErrors::unless_empty(vec![error]).expect_err("there is one error")
}

fn parse_for(
    text: &str,
    origin: &Path,
    environment: &Environment,
    host: Option<&Host>,
) -> Result<Effective, ConfigErrors> {
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(text, tree.get_ref(), environment);
    if mistakes.is_empty() {
        reader.refuse_unknown();
        let preset = reader.choose_preset();
        let mut config = Config::read(&mut reader);
        check::relations(&config, &mut reader);
        if let Some(host) = host {
            check::host(&config, host, &mut reader);
        }
        let file = origin.display().to_string();
        let from = |place: Place| match place {
            Place::Preset(name) => Origin::Preset(name),
            Place::Line(line) => Origin::File(file.clone(), line),
            Place::Variable(name) => Origin::Variable(name),
        };
        let origins: BTreeMap<String, Origin> =
            std::mem::take(&mut reader.places).into_iter().map(|(key, place)| (key, from(place))).collect();
        ConfigErrors::unless_empty(reader.into_errors(origin))?;
        let folder = origin.parent().unwrap_or(Path::new(""));
        config.relay.key_file = folder.join(config.relay.key_file);
        config.relay.data_dir = folder.join(config.relay.data_dir);
        config.tls.certificate_file = folder.join(config.tls.certificate_file);
        config.tls.key_file = folder.join(config.tls.key_file);
        for file in &mut config.peers.identity_files {
            *file = folder.join(&file);
        }
        return Ok(Effective {
            config,
            preset: preset.map(|(preset, place)| (preset, from(place))),
            origins,
        });
    }
    for mistake in &mistakes {
        let line = mistake.span().map(|span| reader.line(span.start));
        reader.report(
            line.map(Place::Line),
            String::new(),
            Cause::Syntax(mistake.message().replace('\n', "; ")),
        );
    }
    Err(ConfigErrors::unless_empty(reader.into_errors(origin)).expect_err("there is a mistake"))
}

/// Where a value stands, or where the fault of one is.
#[derive(Clone, Debug)]
enum Place {
    Preset(&'static str),
    /// Of the file.
    Line(usize),
    /// Of the environment.
    Variable(String),
}

struct Finding {
    place: Option<Place>,
    key: String,
    cause: Cause,
}

/// Hands out the values of a parsed file, key by key, and keeps what is wrong with them.
pub(crate) struct Reader<'t> {
    text: &'t str,
    tree: &'t DeTable<'t>,
    environment: &'t Environment,
    preset: Option<&'static NamedPreset>,
    /// Where each value comes from that is not the default.
    places: BTreeMap<String, Place>,
    findings: Vec<Finding>,
    /// Keys whose value is a stand-in: nothing should be concluded from it.
    faulty: BTreeSet<String>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, tree: &'t DeTable<'t>, environment: &'t Environment) -> Self {
        Self {
            text,
            tree,
            environment,
            preset: None,
            places: BTreeMap::new(),
            findings: Vec::new(),
            faulty: BTreeSet::new(),
        }
    }

    /// Finds the preset that the environment or the file names; its values stand behind those of both.
    fn choose_preset(&mut self) -> Option<(&'static NamedPreset, Place)> {
        let (item, place) = match self.environment.value("preset") {
            Some(text) => (value_of(text), Place::Variable(Environment::variable("preset"))),
            None => {
                let item = self.tree.get("preset")?;
                (item.clone(), Place::Line(self.line(item.span().start)))
            }
        };
        let mut faults = Vec::new();
        self.preset = PresetName.read(&item, &mut faults);
        for Fault { cause, .. } in faults {
            self.report(Some(place.clone()), "preset".into(), cause);
        }
        self.preset.map(|preset| (preset, place))
    }

    /// The line of a byte of the text, counted from 1.
    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn report(&mut self, place: Option<Place>, key: String, cause: Cause) {
        self.findings.push(Finding { place, key, cause });
    }

    fn section(&self, name: &str) -> Option<&'t DeTable<'t>> {
        self.tree.get(name)?.get_ref().as_table()
    }

    /// The value of a key as `kind` reads it: from the environment, else from the file, else from the preset that the file
    /// names, else the default, which also stands in for what is wrong.
    pub(crate) fn take<K: Kind>(&mut self, section: &str, name: &str, preset: Preset, kind: &K) -> K::Value {
        let key = format!("{section}.{name}");
        let mut faults = Vec::new();
        let value = if let Some(text) = self.environment.value(&key) {
            let value = kind.read(&value_of(text), &mut faults);
            self.places.insert(key.clone(), Place::Variable(Environment::variable(&key)));
            value
        } else if let Some(item) = self.section(section).and_then(|section| section.get(name)) {
            self.places.insert(key.clone(), Place::Line(self.line(item.span().start)));
            kind.read(item, &mut faults)
        } else if let Some((chosen, value)) =
            self.preset.and_then(|chosen| Some((chosen, chosen.value(&key)?)))
        {
            self.places.insert(key.clone(), Place::Preset(chosen.name));
            Some(value_in_table(kind, value))
        } else {
            self.note_absence(section, name, preset);
            None
        };
        for Fault { at, cause } in faults {
            self.faulty.insert(key.clone());
            let place = match self.places.get(&key) {
                Some(variable @ Place::Variable(_)) => variable.clone(),
                _ => Place::Line(self.line(at.start)),
            };
            self.report(Some(place), key.clone(), cause);
        }
        value.unwrap_or_else(|| value_in_table(kind, preset.text()))
    }

    fn note_absence(&mut self, section: &str, name: &str, preset: Preset) {
        let Preset::Required(example) = preset else { return };
        let key = format!("{section}.{name}");
        let line = self.tree.get(section).map(|item| self.line(item.span().start));
        self.faulty.insert(key.clone());
        self.report(line.map(Place::Line), key, Cause::Missing { example: format!("{name} = {example}") });
    }

    /// Reports every section and key that is not in the table.
    fn refuse_unknown(&mut self) {
        for name in self.environment.unknown() {
            let near = nearest(name, VARIABLES.iter().map(String::as_str)).map(str::to_owned);
            self.report(Some(Place::Variable(name.into())), String::new(), Cause::UnknownKey { near });
        }
        for (name, item) in self.tree.iter().filter(|(name, _)| name.get_ref() != "preset") {
            let known = SECTIONS.iter().find(|section| section.name == name.get_ref());
            match (known, item.get_ref()) {
                (Some(section), DeValue::Table(table)) => {
                    let unknown = |key: &&str| section.keys.iter().all(|known| known.name != *key);
                    for (key, _) in table.iter().filter(|(key, _)| unknown(&key.get_ref().as_ref())) {
                        self.refuse_key(Some(section.name), key.get_ref(), key.span().start);
                    }
                }
                (Some(section), _) => self.refuse_value_of_section(section.name, name.span().start),
                (None, DeValue::Table(_)) => self.refuse_section(name.get_ref(), name.span().start),
                (None, _) => self.refuse_key(None, name.get_ref(), name.span().start),
            }
        }
    }

    fn refuse_key(&mut self, section: Option<&str>, name: &str, offset: usize) {
        let elsewhere = |other: &str| usize::from(section.is_some_and(|section| section != other));
        let known = keys().map(|key| (key.name, elsewhere(key.section)));
        let near = ranked(name, known).and_then(|(_, place)| keys().nth(place)).map(|key| key.full_name());
        let key = section.map_or_else(|| name.to_owned(), |section| format!("{section}.{name}"));
        self.report(Some(Place::Line(self.line(offset))), key, Cause::UnknownKey { near });
    }

    fn refuse_section(&mut self, name: &str, offset: usize) {
        let near = nearest(name, SECTIONS.iter().map(|section| section.name)).map(|near| format!("[{near}]"));
        let place = Place::Line(self.line(offset));
        self.report(Some(place), format!("[{name}]"), Cause::UnknownSection { near });
    }

    fn refuse_value_of_section(&mut self, name: &str, offset: usize) {
        let wanted = format!("the section [{name}] with keys of its own");
        let cause = Cause::WrongType { found: "a value", wanted };
        self.report(Some(Place::Line(self.line(offset))), name.to_owned(), cause);
    }

    /// Reports what is wrong between `keys`, the first of which is to blame, at the first of them that the file sets.
    /// Says nothing if one of them is wrong by itself.
    pub(crate) fn report_relation(&mut self, keys: &[&str], cause: Cause) {
        if keys.iter().any(|key| self.faulty.contains(*key)) {
            return;
        }
        let place = keys.iter().find_map(|key| {
            let (section, name) = key.split_once('.')?;
            self.section(section)?.get(name).map(|item| item.span().start)
        });
        let place = place.map(|offset| Place::Line(self.line(offset)));
        self.report(place, keys[0].to_owned(), cause);
    }

    fn into_errors(self, origin: &Path) -> Vec<ConfigError> {
        let error = |Finding { place, key, cause }| {
            let (file, line) = match place {
                Some(Place::Variable(name)) => (name.into(), None),
                Some(Place::Line(line)) => (origin.into(), Some(line)),
                _ => (origin.into(), None),
            };
            ConfigError { file, line, key, cause }
        };
        self.findings.into_iter().map(error).collect()
    }
}

fn value_in_table<K: Kind>(kind: &K, text: &str) -> K::Value {
    let item = DeValue::parse(text).expect("the presets of the tables are TOML");
    kind.read(&item, &mut Vec::new()).expect("the presets of the tables are right")
}

/// Every variable that overrides a key.
static VARIABLES: LazyLock<Vec<String>> =
    LazyLock::new(|| keys().map(|key| Environment::variable(key.path)).collect());

/// The name of a preset.
struct PresetName;

impl Kind for PresetName {
    type Value = &'static NamedPreset;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<&'static NamedPreset> {
        let Some(name) = item.get_ref().as_str() else { return wrong_type(self, item, faults) };
        let preset = NamedPreset::named(name);
        preset.or_else(|| fault(item, faults, not_a_choice(name, PRESETS.iter().map(|preset| preset.name))))
    }

    fn write(&self, value: &&'static NamedPreset) -> String {
        quoted(value.name)
    }

    fn describe(&self) -> String {
        alternatives(PRESETS.iter().map(|preset| quoted(preset.name)))
    }
}
