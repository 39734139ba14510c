//! The status of a device, as it is published and shown.

use super::profile;
use std::fmt;
use std::str::FromStr;

/// The status of a device (wire-profile sec. 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Nobody can say: the device's relay is not reached, or does not tell.
    #[default]
    Unknown,
    /// Connected.
    Online,
    /// Not connected, or never seen.
    Offline,
    /// Connected, and nobody is at the device.
    Away,
}

/// A word that names no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a status; there are online, away, offline and unknown")]
pub struct UnknownStatus(pub String);

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Status; 4] = [Status::Unknown, Status::Online, Status::Offline, Status::Away];

    /// The number on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Status::Unknown => profile::STATUS_UNKNOWN,
            Status::Online => profile::STATUS_ONLINE,
            Status::Offline => profile::STATUS_OFFLINE,
            Status::Away => profile::STATUS_AWAY,
        }
    }

    /// The status of a number on the wire.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.byte() == byte)
    }

    /// Whether the device is there, be it attended or not.
    pub fn is_present(self) -> bool {
        matches!(self, Status::Online | Status::Away)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Unknown => "unknown",
            Status::Online => "online",
            Status::Offline => "offline",
            Status::Away => "away",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        let named = Self::ALL.into_iter().find(|status| status.as_str() == word);
        named.ok_or_else(|| UnknownStatus(word.to_owned()))
    }
}
