//! The kinds of value that a key can have: how each is read from TOML, bounded, written back and described.
//!
//! A kind looks at one value alone; rules between keys are in `check`.

use crate::error::Cause;
use crate::nearest::nearest;
use crate::units::{ByteSize, Span};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// A value of the file with the bytes it stands in.
pub(crate) type Item<'i> = Spanned<DeValue<'i>>;

/// What is wrong with a value, and the bytes it stands in.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: Range<usize>,
    pub(crate) cause: Cause,
}

/// How a kind of value is read, written and described.
pub(crate) trait Kind {
    /// What the configuration holds.
    type Value;

    /// Reads `item`; every fault found in it goes to `faults`. `None` only if there was at least one.
    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<Self::Value>;

    /// The value in TOML. [`Kind::read`] reads it back as the same value if it is one that the kind allows.
    fn write(&self, value: &Self::Value) -> String;

    /// What is right here, as words that follow "the relay wants".
    fn describe(&self) -> String;
}

pub(crate) fn fault<T>(item: &Item<'_>, faults: &mut Vec<Fault>, cause: Cause) -> Option<T> {
    faults.push(Fault { at: item.span(), cause });
    None
}

pub(crate) fn wrong_type<T>(kind: &impl Kind, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<T> {
    let found = match item.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    fault(item, faults, Cause::WrongType { found, wanted: kind.describe() })
}

/// `text` as a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The beginning of `text`, so that a huge value does not make a huge message.
fn shortened(text: &str) -> String {
    let most = 60;
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The one value of `item` as an integer, `None` if it is none or beyond 64 bits signed.
fn integer(item: &Item<'_>) -> Option<Option<i64>> {
    let integer = item.get_ref().as_integer()?;
    Some(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
}

/// A whole number from `min` to `max`.
pub(crate) struct Whole {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl Kind for Whole {
    type Value = usize;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<usize> {
        let Some(number) = integer(item) else { return wrong_type(self, item, faults) };
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (self.min..=self.max).contains(&number) => Some(number),
            _ => {
                let found = item.get_ref().as_integer().map_or_else(String::new, ToString::to_string);
                fault(item, faults, Cause::OutOfBounds { found: shortened(&found), wanted: self.describe() })
            }
        }
    }

    fn write(&self, value: &usize) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        format!("a whole number, {} to {}", self.min, self.max)
    }
}

/// `found` if it lies in `min..=max` and is a multiple of `step`.
fn bounded<U: Display + Copy>(
    found: u64,
    (min, max, step): (u64, u64, u64),
    unit: fn(u64) -> U,
    describe: impl FnOnce() -> String,
) -> Result<u64, Cause> {
    if !(min..=max).contains(&found) {
        return Err(Cause::OutOfBounds { found: unit(found).to_string(), wanted: describe() });
    }
    if !found.is_multiple_of(step) {
        return Err(Cause::NotMultiple { found: unit(found).to_string(), step: unit(step).to_string() });
    }
    Ok(found)
}

/// A size from `min` to `max` bytes, a multiple of `step` bytes.
pub(crate) struct Size {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) step: u64,
}

impl Size {
    /// A size without a step.
    pub(crate) const fn between(min: u64, max: u64) -> Self {
        Self { min, max, step: 1 }
    }
}

impl Kind for Size {
    type Value = u64;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<u64> {
        let bytes = match (item.get_ref().as_str(), integer(item)) {
            (Some(text), _) => shortened(text).parse().map(ByteSize::bytes).map_err(Cause::from),
            (_, Some(number)) => {
                number.and_then(|number| u64::try_from(number).ok()).ok_or_else(|| Cause::OutOfBounds {
                    found: item
                        .get_ref()
                        .as_integer()
                        .map_or_else(String::new, |number| shortened(&number.to_string())),
                    wanted: self.describe(),
                })
            }
            _ => return wrong_type(self, item, faults),
        };
        let bounds = (self.min, self.max, self.step);
        match bytes.and_then(|bytes| bounded(bytes, bounds, ByteSize::new, || self.describe())) {
            Ok(bytes) => Some(bytes),
            Err(cause) => fault(item, faults, cause),
        }
    }

    fn write(&self, value: &u64) -> String {
        quoted(&ByteSize::new(*value).to_string())
    }

    fn describe(&self) -> String {
        let (min, max) = (ByteSize::new(self.min), ByteSize::new(self.max));
        let step = match self.step {
            1 => String::new(),
            step => format!(", a multiple of {}", ByteSize::new(step)),
        };
        format!("a size, \"{min}\" to \"{max}\"{step}")
    }
}

/// A span of time from `min` to `max` milliseconds, a multiple of `step` milliseconds.
pub(crate) struct Time {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) step: u64,
}

impl Time {
    /// More than nothing, and at most `max` milliseconds.
    pub(crate) const fn up_to(max: u64) -> Self {
        Self { min: 1, max, step: 1 }
    }

    /// Whole seconds, as the wire has them; at least one, and at most `max` milliseconds.
    pub(crate) const fn seconds_up_to(max: u64) -> Self {
        Self { min: 1000, max, step: 1000 }
    }
}

impl Kind for Time {
    type Value = Duration;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<Duration> {
        let Some(text) = item.get_ref().as_str() else { return wrong_type(self, item, faults) };
        let span = shortened(text).parse().map(Span::as_millis).map_err(Cause::from);
        let bounds = (self.min, self.max, self.step);
        match span.and_then(|span| bounded(span, bounds, Span::from_millis, || self.describe())) {
            Ok(milliseconds) => Some(Duration::from_millis(milliseconds)),
            Err(cause) => fault(item, faults, cause),
        }
    }

    fn write(&self, value: &Duration) -> String {
        quoted(&Span::of(*value).to_string())
    }

    fn describe(&self) -> String {
        let (min, max) = (Span::from_millis(self.min), Span::from_millis(self.max));
        let step = if self.step == 1000 { ", in whole seconds" } else { "" };
        format!("a duration, \"{min}\" to \"{max}\"{step}")
    }
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<bool> {
        item.get_ref().as_bool().or_else(|| wrong_type(self, item, faults))
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }

    fn describe(&self) -> String {
        "true or false".into()
    }
}

/// A kind whose values are strings with a rule.
pub(crate) trait Text {
    type Value;
    const WANTED: &'static str;

    fn parse(text: &str) -> Result<Self::Value, Cause>;
    fn format(value: &Self::Value) -> String;
}

impl<T: Text> Kind for T {
    type Value = T::Value;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<T::Value> {
        let Some(text) = item.get_ref().as_str() else { return wrong_type(self, item, faults) };
        T::parse(text).map_or_else(|cause| fault(item, faults, cause), Some)
    }

    fn write(&self, value: &T::Value) -> String {
        quoted(&T::format(value))
    }

    fn describe(&self) -> String {
        T::WANTED.into()
    }
}

/// A path.
pub(crate) struct FilePath;

impl Text for FilePath {
    type Value = PathBuf;
    const WANTED: &'static str = "a path, relative to the folder of the configuration file or absolute";

    fn parse(text: &str) -> Result<PathBuf, Cause> {
        if text.is_empty() { Err(Cause::EmptyPath) } else { Ok(text.into()) }
    }

    fn format(value: &PathBuf) -> String {
        value.to_string_lossy().into_owned()
    }
}

/// PeerProductVersion: vendor, product, version, build (sstp-messages, note 1).
pub(crate) struct ProductVersion;

impl Text for ProductVersion {
    type Value = String;
    const WANTED: &'static str = "four words: vendor, product, version, build";

    fn parse(text: &str) -> Result<String, Cause> {
        let words: Vec<&str> = text.split(' ').collect();
        let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        if words.len() == 4 && words.iter().all(is_word) && text.len() <= 255 {
            Ok(text.into())
        } else {
            Err(Cause::NotAProductVersion(shortened(text)))
        }
    }

    fn format(value: &String) -> String {
        value.clone()
    }
}

/// A URL as SSTP has them (wire-profile sec. 1).
pub(crate) struct Url;

impl Text for Url {
    type Value = String;
    const WANTED: &'static str = "a URL of 1 to 1024 bytes of visible ASCII";

    fn parse(text: &str) -> Result<String, Cause> {
        let not = |why| Err(Cause::NotAUrl { found: shortened(text), why });
        match text {
            "" => not("it is empty"),
            text if text.len() > 1024 => not("it has more than 1024 bytes"),
            text if !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) => {
                not("only the visible ASCII characters 0x21 to 0x7E are allowed")
            }
            text => Ok(text.into()),
        }
    }

    fn format(value: &String) -> String {
        value.clone()
    }
}

/// A socket address with a port.
pub(crate) struct Address;

impl Text for Address {
    type Value = SocketAddr;
    const WANTED: &'static str = "an IP address with a port, such as \"0.0.0.0:2492\" or \"[::]:2492\"";

    fn parse(text: &str) -> Result<SocketAddr, Cause> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(Cause::NoPort(text.into())),
            Ok(address) => Ok(address),
            Err(_) => Err(Cause::NotAnAddress(shortened(text))),
        }
    }

    fn format(value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// A path in the relay's data folder.
pub(crate) struct DataPath;

impl Text for DataPath {
    type Value = PathBuf;
    const WANTED: &'static str = "a path, relative to relay.data_dir or absolute";

    fn parse(text: &str) -> Result<PathBuf, Cause> {
        FilePath::parse(text)
    }

    fn format(value: &PathBuf) -> String {
        FilePath::format(value)
    }
}

/// A socket address; with port 0 the system chooses the port.
pub(crate) struct AnyPort;

impl Text for AnyPort {
    type Value = SocketAddr;
    const WANTED: &'static str = "an IP address with a port, such as \"127.0.0.1:9249\" or \"[::1]:0\"";

    fn parse(text: &str) -> Result<SocketAddr, Cause> {
        text.parse().map_err(|_| Cause::NotAnAddress(shortened(text)))
    }

    fn format(value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// A list of different values: an array, or one value alone.
pub(crate) struct List<K> {
    pub(crate) of: K,
    /// Whether the list may be empty.
    pub(crate) may_be_empty: bool,
}

impl<K: Kind<Value: PartialEq>> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<Vec<K::Value>> {
        let items: Vec<&Item<'_>> = match item.get_ref().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![item],
        };
        let before = faults.len();
        let mut values = Vec::with_capacity(items.len());
        for &item in &items {
            match self.of.read(item, faults) {
                Some(value) if values.contains(&value) => {
                    fault(item, faults, Cause::Repeated(self.of.write(&value)))
                }
                Some(value) => {
                    values.push(value);
                    Some(())
                }
                None => None,
            };
        }
        if items.is_empty() && !self.may_be_empty {
            return fault(item, faults, Cause::EmptyList);
        }
        (faults.len() == before).then_some(values)
    }

    fn write(&self, value: &Vec<K::Value>) -> String {
        let items: Vec<String> = value.iter().map(|value| self.of.write(value)).collect();
        format!("[{}]", items.join(", "))
    }

    fn describe(&self) -> String {
        format!("{}; one, or an array of them", self.of.describe())
    }
}

/// An enumeration with a word for each value.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// Each value with its word and what it means.
    const CHOICES: &'static [(Self, &'static str, &'static str)];
}

/// One word of an enumeration.
pub(crate) struct OneOf<C>(pub(crate) std::marker::PhantomData<C>);

impl<C: Choice> OneOf<C> {
    pub(crate) const NEW: Self = Self(std::marker::PhantomData);
}

/// What to say of a word that is none of `words`.
pub(crate) fn not_a_choice(found: &str, words: impl Iterator<Item = &'static str> + Clone) -> Cause {
    let near = nearest(found, words.clone()).map(quoted);
    Cause::NotAChoice { found: shortened(found), allowed: alternatives(words.map(quoted)), near }
}

/// `a, b or c`.
pub(crate) fn alternatives(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

impl<C: Choice> Kind for OneOf<C> {
    type Value = C;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<C> {
        let Some(text) = item.get_ref().as_str() else { return wrong_type(self, item, faults) };
        let choice = C::CHOICES.iter().find(|(_, word, _)| *word == text);
        choice
            .map(|(value, ..)| *value)
            .or_else(|| fault(item, faults, not_a_choice(text, C::CHOICES.iter().map(|(_, word, _)| *word))))
    }

    fn write(&self, value: &C) -> String {
        let choice = C::CHOICES.iter().find(|(choice, ..)| choice == value);
        quoted(choice.map_or("", |(_, word, _)| word))
    }

    fn describe(&self) -> String {
        alternatives(C::CHOICES.iter().map(|(_, word, meaning)| format!("{} ({meaning})", quoted(word))))
    }
}
