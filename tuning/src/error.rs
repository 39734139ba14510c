//! What can be wrong with a configuration, and where.
//!
//! Owns the words an operator reads. One line per finding, in the order of the file:
//! ``furrow.toml:12: limits.conections: unknown key; did you mean `limits.connections_per_shard`?``

use crate::units::{ByteSize, Span, UnitError};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is larger than a configuration can be; its bytes were not read.
    #[error("is larger than {0}; this is not a configuration of the relay")]
    TooLarge(ByteSize),
    /// The file is not UTF-8.
    #[error("is not UTF-8 text (the first wrong byte is at offset {0})")]
    NotUtf8(usize),
    /// The text is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// A table that is not a section of the configuration.
    #[error("unknown section{}", did_you_mean(.near))]
    UnknownSection {
        /// The section that may have been meant.
        near: Option<String>,
    },
    /// A key that the relay does not know.
    #[error("unknown key{}", did_you_mean(.near))]
    UnknownKey {
        /// The key that may have been meant, with its section.
        near: Option<String>,
    },
    /// A required key is not there.
    #[error("missing; it is required, for example `{example}`")]
    Missing {
        /// A line that would be right.
        example: String,
    },
    /// A value of another TOML type than the key wants.
    #[error("{found} where the relay wants {wanted}")]
    WrongType {
        /// The type that was found.
        found: &'static str,
        /// What is right here.
        wanted: String,
    },
    /// A size or a duration that cannot be read.
    #[error("{0}")]
    Unit(#[from] UnitError),
    /// A number, size or duration outside the bounds of its key.
    #[error("{found} is out of bounds; the relay wants {wanted}")]
    OutOfBounds {
        /// The value as found.
        found: String,
        /// What is right here.
        wanted: String,
    },
    /// A size that is not a multiple of what its key needs, or a duration that is not.
    #[error("{found} is not a multiple of {step}")]
    NotMultiple {
        /// The value as found.
        found: String,
        /// What it has to be a multiple of.
        step: String,
    },
    /// A word that is none of the allowed ones.
    #[error("\"{found}\" is none of {allowed}{}", did_you_mean(.near))]
    NotAChoice {
        /// The word as found.
        found: String,
        /// The allowed words.
        allowed: String,
        /// The word that may have been meant.
        near: Option<String>,
    },
    /// A text that is not a socket address.
    #[error("\"{0}\" is not an IP address with a port, such as \"0.0.0.0:2492\" or \"[::]:2492\"")]
    NotAnAddress(String),
    /// A socket address with port 0, which would be another port on every shard.
    #[error("\"{0}\" has port 0, which would be a different port on each shard; give the port")]
    NoPort(String),
    /// A text that is not a URL to SSTP (wire-profile sec. 1).
    #[error("\"{found}\" is not a URL to SSTP: {why}")]
    NotAUrl {
        /// The text as found, shortened.
        found: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A product version that is not four words (sstp-messages, note 1).
    #[error(
        "\"{0}\" is not four words of printable ASCII with one space between, at most 255 bytes: \
         vendor, product, version, build"
    )]
    NotAProductVersion(String),
    /// A name that no management server can have.
    #[error("the name of a management server has 1 to 255 bytes and no control characters")]
    NotAServerName,
    /// A value that is not the public key of a management server.
    #[error("the key of {0} is not one that `relayctl manager init` prints, such as \"ed25519:...\"")]
    NotAManagerKey(String),
    /// More management servers than a relay may have.
    #[error("more than {0} management servers")]
    TooManyServers(usize),
    /// A path that names nothing.
    #[error("a path must not be empty")]
    EmptyPath,
    /// A list without the one item it needs.
    #[error("an empty list; the relay wants at least one")]
    EmptyList,
    /// The same item twice in a list, or in two lists that share none.
    #[error("{0} is there twice")]
    Repeated(String),
    /// A processor that this process may not use.
    #[error("CPU {cpu} is not one that this process may run on ({usable})")]
    NoSuchCpu {
        /// The processor as found.
        cpu: usize,
        /// The ones it may run on, as ranges.
        usable: String,
    },
    /// Two keys that say different things.
    #[error("has no meaning together with {with}; {remedy}")]
    Together {
        /// The other key with its value.
        with: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A connection would be dropped before its peer had two chances to show that it lives.
    #[error("{} is not more than twice timers.keep_alive ({}); a peer that loses one Noop would be dropped",
        Span::of(*.idle), Span::of(*.keep_alive))]
    IdleTooShort {
        /// `timers.idle`.
        idle: std::time::Duration,
        /// `timers.keep_alive`.
        keep_alive: std::time::Duration,
    },
    /// A number that must not be above that of another key is.
    #[error("{found} is more than {bound} ({limit}); it must not be")]
    NotAbove {
        /// The number.
        found: usize,
        /// The key that bounds it.
        bound: String,
        /// The number of that key.
        limit: usize,
    },
    /// A number that must be below that of another key is not.
    #[error("{found} is not less than {bound} ({limit}); it must be")]
    NotBelow {
        /// The number.
        found: usize,
        /// The key that bounds it.
        bound: String,
        /// The number of that key.
        limit: usize,
    },
    /// A value that must not exceed the value of another key does.
    #[error("{} is more than {bound} ({}); it must not be", ByteSize::new(*.found), ByteSize::new(*.limit))]
    AboveOther {
        /// The value in bytes.
        found: u64,
        /// The key that bounds it.
        bound: &'static str,
        /// The value of that key in bytes.
        limit: u64,
    },
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// A finding and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, counted from 1; `None` if the finding belongs to no line.
    pub line: Option<usize>,
    /// The key with its section (`limits.backlog`), or a section; empty if the finding belongs to the whole file.
    pub key: String,
    /// What is wrong.
    pub cause: Cause,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.cause)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Err` with all of `errors`, ordered by line, or `Ok` if there are none.
    pub(crate) fn unless_empty(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.line);
        Err(Self(errors))
    }

    /// The findings.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// CPU numbers as ranges: `0-3, 8`.
pub(crate) fn as_ranges(numbers: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_numbers_show_as_one_range() {
        assert_eq!(as_ranges(&BTreeSet::from([0, 1, 2, 3, 8, 10, 11])), "0-3, 8, 10-11");
        assert_eq!(as_ranges(&BTreeSet::new()), "");
    }

    #[test]
    fn findings_are_ordered_by_line_with_those_of_no_line_first() {
        let at = |line| ConfigError { file: "f".into(), line, key: "k".into(), cause: Cause::EmptyPath };
        let errors = ConfigErrors::unless_empty(vec![at(Some(9)), at(None), at(Some(2))]).unwrap_err();
        let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [None, Some(2), Some(9)]);
        assert_eq!(ConfigErrors::unless_empty(Vec::new()), Ok(()));
    }
}
