//! The TOML configuration of the relay: its keys, units, defaults, checks and reference. Beside it, in [`operator`], the
//! words in which operators and the running relay talk.
//!
//! Owns what an operator may set and what is said when it is wrong. It opens no socket but an
//! operator's, starts no thread and touches no file but the one it is asked to read. Every key is described once, in the table of [`SECTIONS`]; the
//! fields of [`Config`], the commented file that [`default_toml`] writes and the Markdown [`reference()`] come from it.
//!
//! ```
//! let config = tuning::Config::parse("[relay]\nurl = 'grooveDNS://relay.example.com'", "furrow.toml")?;
//! assert_eq!(config.limits.message_bytes, 250_000_000);
//!
//! let wrong = tuning::Config::parse("relay.url = 'grooveDNS://h'\n[listen]\nbaklog = 1", "furrow.toml").unwrap_err();
//! assert_eq!(wrong.to_string(), "furrow.toml:3: listen.baklog: unknown key; did you mean `listen.backlog`?");
//! # Ok::<(), tuning::ConfigErrors>(())
//! ```
#![forbid(unsafe_code)]

mod check;
mod effective;
mod environment;
mod error;
pub mod host;
mod keys;
mod kind;
mod managers;
mod nearest;
pub mod operator;
mod presets;
mod read;
mod reference;
mod table;
mod units;

pub use effective::{Change, Effective, Origin, changes};
pub use environment::Environment;
pub use error::{Cause, ConfigError, ConfigErrors};
pub use keys::{
    Config, Deposit, Limits, Listen, Log, LogFormat, LogLevel, Mail, Management, Metrics, Monitor, Operator,
    Registration, Relay, SECTIONS, Security, Shards, ShardsPlacement, Storage, Timers, keys,
};
pub use presets::{NamedPreset, PRESETS};
pub use reference::{commented_toml, default_toml, explain, reference};
pub use table::{Key, Preset, Section};
pub use units::{ByteSize, Span, UnitError};
