//! The texts made from the table of keys: the commented configuration file, the Markdown reference, and the entry
//! of one key.

use crate::keys::{Config, SECTIONS, keys};
use crate::nearest::ranked;
use crate::presets::PRESETS;
use crate::table::{Key, Preset};
use std::fmt::Write as _;

const FILE_HEAD: &str = "\
# The configuration of a Furrow relay. A line that begins with #key is that key's default; remove the # to change it.
# Sizes: \"64 KiB\", \"250 MB\", or a plain number of bytes. Durations: \"100 ms\", \"5 s\", \"10 min\", \"2 h\", \"30 days\".
# Check a change with: relayctl config check FILE
#
# A line such as  preset = \"small\"  here, above the first section, sets other defaults: small, large, million, low-latency
# or durable. What they come to: relayctl config show --effective FILE
";

const REFERENCE_HEAD: &str = "\
# Configuration reference

<!-- Made by `relayctl config reference`; a test fails when it is not current. -->

The relay reads one TOML file. Every key but `relay.url` has a default. An unknown key, a wrong value and values that
contradict each other are errors: the relay does not start, and says all of them with their lines.
`relayctl config check FILE` says the same without starting it.

* A size is a string such as `\"64 KiB\"` or `\"250 MB\"`, or a plain number of bytes. Units: B, kB, MB, GB, TB (powers of
  1000), KiB, MiB, GiB, TiB (powers of 1024).
* A duration is a string such as `\"100 ms\"`, `\"5 s\"`, `\"10 min\"`, `\"2 h\"` or `\"30 days\"`.
* A relative path is relative to the folder of the configuration file.

A variable of the environment wins over the file: `FURROW_LISTEN_BACKLOG=8192` is `listen.backlog = 8192`, and
`FURROW_LOG_LEVEL=debug` is `log.level = \"debug\"`. `relayctl config show --effective FILE` says what the relay will obey
and where each value comes from; `relayctl config diff A B` says what differs.

On SIGHUP (`systemctl reload furrow-relayd`) the relay reads the file again. Keys marked *reload* below are obeyed from then
on, deadlines by the connections that are made afterwards; for each of the others that has changed the log says that it waits
for a restart. A file with a mistake changes nothing.
";

const PRESETS_HEAD: &str = "
## Presets

One line above the first section, such as `preset = \"large\"`, sets other defaults for keys that the file does not set.
";

/// The commented file with every default for the relay named `url`: what `relayd init` writes.
///
/// `url` is not checked here; [`Config::parse`] does that when the file is read.
pub fn default_toml(url: &str) -> String {
    commented_toml(&Config::new(url))
}

/// A configuration as a commented file: keys with their defaults are comments, the others are set.
///
/// [`Config::parse`] reads it back as the same configuration, if it is a right one; relative paths stay as they are.
pub fn commented_toml(config: &Config) -> String {
    let defaults = Config::new("");
    let mut text = FILE_HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        section.doc().for_each(|line| push_line(&mut text, &["# ", line]));
        push_line(&mut text, &["[", section.name, "]"]);
        for key in section.keys {
            text.push('\n');
            key.doc().for_each(|line| push_line(&mut text, &["# ", line]));
            wrapped(&sentence(&key.describe())).for_each(|line| push_line(&mut text, &["# ", &line]));
            let value = (key.write)(config);
            let is_default = value == (key.write)(&defaults) && matches!(key.preset, Preset::Default(_));
            push_line(&mut text, &[if is_default { "#" } else { "" }, key.name, " = ", &value]);
        }
    }
    text
}

/// The Markdown reference of every key.
pub fn reference() -> String {
    let mut text = REFERENCE_HEAD.to_owned();
    push_presets(&mut text);
    for section in SECTIONS {
        let _ = write!(text, "\n## `[{}]`\n\n", section.name);
        section.doc().for_each(|line| push_line(&mut text, &[line]));
        for key in section.keys {
            let _ = write!(text, "\n### `{}`\n\n{}", key.full_name(), entry(key));
        }
    }
    text
}

/// The entry of one key in the reference, or the name of the key that may have been meant.
///
/// # Errors
/// The nearest known key, if one is near, when `name` is no key with its section.
pub fn explain(name: &str) -> Result<String, Option<String>> {
    if let Some(key) = keys().find(|key| key.full_name() == name) {
        return Ok(format!("{}\n\n{}", key.full_name(), entry(key)));
    }
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let near = ranked(leaf, keys().map(|key| (key.name, 0)));
    Err(near.and_then(|(_, place)| keys().nth(place)).map(Key::full_name))
}

fn entry(key: &Key) -> String {
    let mut text = String::new();
    key.doc().for_each(|line| push_line(&mut text, &[line]));
    let preset = match key.preset {
        Preset::Default(value) => format!("Default: `{value}`."),
        Preset::Required(example) => format!("Required. Example: `{example}`."),
    };
    let change = if key.live { " Change: *reload*." } else { "" };
    text.push('\n');
    wrapped(&format!("{} {preset}{change}", sentence(&key.describe())))
        .for_each(|line| push_line(&mut text, &[&line]));
    text
}

fn push_presets(text: &mut String) {
    text.push_str(PRESETS_HEAD);
    for preset in PRESETS {
        let _ = write!(text, "\n### `preset = \"{}\"`\n\n", preset.name);
        preset.doc.iter().for_each(|line| push_line(text, &[line]));
        text.push_str("\n```toml\n");
        preset.values.iter().for_each(|(key, value)| push_line(text, &[key, " = ", value]));
        text.push_str("```\n");
    }
}

fn push_line(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

/// `words` with a capital letter and a full stop.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).chain(std::iter::once('.')).collect()
    })
}

/// `text` in lines of at most 110 characters, if its words allow it.
fn wrapped(text: &str) -> impl Iterator<Item = String> {
    let width = 110;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
}
