//! From the text of a configuration file to a [`Config`], or to everything that is wrong with it.
//!
//! Goes through the whole file whatever it finds: a value that is wrong is reported and its default stands in for it, so
//! that the rest can be checked. Nothing of a wrong file ever leaves this module but the errors.

use crate::check;
use crate::error::{Cause, ConfigError, ConfigErrors};
use crate::host::Host;
use crate::keys::{Config, SECTIONS, keys};
use crate::kind::{Fault, Kind};
use crate::nearest::{nearest, ranked};
use crate::table::Preset;
use crate::units::ByteSize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The largest file that is read. The commented default file has about 10 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Every default, with `url` as the relay's one URL. Paths are relative to the current folder.
    ///
    /// `url` is not checked here; [`Config::parse`] does that.
    pub fn new(url: impl Into<String>) -> Self {
        let mut config = Self::read(&mut Reader::new("", &DeTable::new()));
        config.relay.url = vec![url.into()];
        config
    }

    /// The Unix socket for operators.
    pub fn operator_socket(&self) -> std::path::PathBuf {
        self.relay.data_dir.join(&self.operator.socket)
    }

    /// Reads and checks the file at `path`, for this machine: [`Config::parse`] and whether the processors exist.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        parse_for(&text_of(path)?, path, Some(&Host::this()))
    }

    /// As [`Config::load`], for whatever machine the file is meant for.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load_for_any_host(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        parse_for(&text_of(path)?, path, None)
    }

    /// Checks `text`, the same on every machine. `origin` is the file that errors name; relative paths in the text are
    /// taken relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, origin: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        parse_for(text, origin.as_ref(), None)
    }
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

fn parse_for(text: &str, origin: &Path, host: Option<&Host>) -> Result<Config, ConfigErrors> {
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(text, tree.get_ref());
    if mistakes.is_empty() {
        reader.refuse_unknown();
        let mut config = Config::read(&mut reader);
        check::relations(&config, &mut reader);
        if let Some(host) = host {
            check::host(&config, host, &mut reader);
        }
        ConfigErrors::unless_empty(reader.into_errors(origin))?;
        let folder = origin.parent().unwrap_or(Path::new(""));
        config.relay.key_file = folder.join(config.relay.key_file);
        config.relay.data_dir = folder.join(config.relay.data_dir);
        config.tls.certificate_file = folder.join(config.tls.certificate_file);
        config.tls.key_file = folder.join(config.tls.key_file);
        for file in &mut config.peers.identity_files {
            *file = folder.join(&file);
        }
        return Ok(config);
    }
    for mistake in &mistakes {
        let line = mistake.span().map(|span| reader.line(span.start));
        reader.report(line, String::new(), Cause::Syntax(mistake.message().replace('\n', "; ")));
    }
    Err(ConfigErrors::unless_empty(reader.into_errors(origin)).expect_err("there is a mistake"))
}

struct Finding {
    line: Option<usize>,
    key: String,
    cause: Cause,
}

/// Hands out the values of a parsed file, key by key, and keeps what is wrong with them.
pub(crate) struct Reader<'t> {
    text: &'t str,
    tree: &'t DeTable<'t>,
    findings: Vec<Finding>,
    /// Keys whose value is a stand-in: nothing should be concluded from it.
    faulty: BTreeSet<String>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, tree: &'t DeTable<'t>) -> Self {
        Self { text, tree, findings: Vec::new(), faulty: BTreeSet::new() }
    }

    /// The line of a byte of the text, counted from 1.
    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn report(&mut self, line: Option<usize>, key: String, cause: Cause) {
        self.findings.push(Finding { line, key, cause });
    }

    fn section(&self, name: &str) -> Option<&'t DeTable<'t>> {
        self.tree.get(name)?.get_ref().as_table()
    }

    /// The value of a key as `kind` reads it, or its preset if it is not set or wrong.
    pub(crate) fn take<K: Kind>(&mut self, section: &str, name: &str, preset: Preset, kind: &K) -> K::Value {
        let mut faults = Vec::new();
        let value = match self.section(section).and_then(|section| section.get(name)) {
            Some(item) => kind.read(item, &mut faults),
            None => {
                self.note_absence(section, name, preset);
                None
            }
        };
        let key = format!("{section}.{name}");
        for Fault { at, cause } in faults {
            self.faulty.insert(key.clone());
            self.report(Some(self.line(at.start)), key.clone(), cause);
        }
        value.unwrap_or_else(|| preset_value(kind, preset))
    }

    fn note_absence(&mut self, section: &str, name: &str, preset: Preset) {
        let Preset::Required(example) = preset else { return };
        let key = format!("{section}.{name}");
        let line = self.tree.get(section).map(|item| self.line(item.span().start));
        self.faulty.insert(key.clone());
        self.report(line, key, Cause::Missing { example: format!("{name} = {example}") });
    }

    /// Reports every section and key that is not in the table.
    fn refuse_unknown(&mut self) {
        for (name, item) in self.tree {
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
        self.report(Some(self.line(offset)), key, Cause::UnknownKey { near });
    }

    fn refuse_section(&mut self, name: &str, offset: usize) {
        let near = nearest(name, SECTIONS.iter().map(|section| section.name)).map(|near| format!("[{near}]"));
        self.report(Some(self.line(offset)), format!("[{name}]"), Cause::UnknownSection { near });
    }

    fn refuse_value_of_section(&mut self, name: &str, offset: usize) {
        let wanted = format!("the section [{name}] with keys of its own");
        let cause = Cause::WrongType { found: "a value", wanted };
        self.report(Some(self.line(offset)), name.to_owned(), cause);
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
        let line = place.map(|offset| self.line(offset));
        self.report(line, keys[0].to_owned(), cause);
    }

    fn into_errors(self, origin: &Path) -> Vec<ConfigError> {
        let error = |Finding { line, key, cause }| ConfigError { file: origin.into(), line, key, cause };
        self.findings.into_iter().map(error).collect()
    }
}

fn preset_value<K: Kind>(kind: &K, preset: Preset) -> K::Value {
    let item = DeValue::parse(preset.text()).expect("the presets of the table are TOML");
    kind.read(&item, &mut Vec::new()).expect("the presets of the table are right")
}
