//! Overrides from the environment: `FURROW_LIMITS_MESSAGE_BYTES="1 MB"` is `limits.message_bytes = "1 MB"`, and wins over
//! the file. `FURROW_PRESET` chooses the preset.
//!
//! A variable whose name begins with FURROW_ and a section has to name a key; others (`FURROW_SEED`) are none of ours.

use crate::keys::{SECTIONS, keys};
use crate::kind::Item;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeValue;

/// What all our variables begin with.
const PREFIX: &str = "FURROW_";

/// The variables that concern the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process. What is not UTF-8 is read with replacement characters, and refused as a value.
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::from_iter(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// The name of the variable for a key.
    pub fn variable(key: &str) -> String {
        format!("{PREFIX}{}", key.to_ascii_uppercase().replace(['.', '-'], "_"))
    }

    /// The value for a key, or for `preset`.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(&Self::variable(key)).map(String::as_str)
    }

    /// Variables that begin as those of a section do, and name none of its keys.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        let known = |name: &str| keys().any(|key| Self::variable(&key.full_name()) == name);
        let of_a_section = |name: &str| {
            SECTIONS.iter().any(|section| name.starts_with(&format!("{}_", Self::variable(section.name))))
        };
        self.values.keys().map(String::as_str).filter(move |name| of_a_section(name) && !known(name))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { values: variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect() }
    }
}

/// A variable's text as a value: TOML where it is a number, true or false, a list or in quotes; else the text itself.
pub(crate) fn value_of(text: &str) -> Item<'_> {
    match DeValue::parse(text) {
        Ok(item) if !matches!(item.get_ref(), DeValue::Float(_) | DeValue::Datetime(_)) => item,
        _ => Spanned::new(0..text.len(), DeValue::String(text.into())),
    }
}
