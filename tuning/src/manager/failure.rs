//! Why `relayctl manager` fails, in words that say what to do.

use client::RelayIdentityError;
use relay_core::security::KeyFileError;
use relay_core::spmr::{LoadFailed, ManagerError, NotAServerName};
use std::io;
use std::path::PathBuf;

/// See the module's head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A value on the command line.
    #[error("{0}")]
    Argument(String),
    /// The name of a management server.
    #[error("--name: {0}")]
    Name(#[from] NotAServerName),
    /// A file.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The key file is readable by others.
    #[error("{}: others may read this key file (mode {mode:o}). Say: chmod 600 {}", .path.display(), .path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file holds no keys of a management server.
    #[error("{}: {error}. `relayctl manager init` makes one", .path.display())]
    Keys {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
    /// The relay's identity file.
    #[error("--relay: {0}")]
    Relay(#[from] RelayIdentityError),
    /// A line of a file of users.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The relay cannot be reached.
    #[error("{url}: {error}. Is management.listen set in the relay's configuration, and does it run?")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What was said.
        error: Box<ureq::Error>,
    },
    /// The relay refused, or what it said cannot be understood.
    #[error(transparent)]
    Relayed(#[from] ManagerError),
    /// A load makes no progress.
    #[error(transparent)]
    Load(#[from] LoadFailed),
    /// A load failed while the relay was quiescent because of it.
    #[error(
        "{0}\nThe relay is quiescent and its user database half-built. Say the same again, and all of it is sent again; or give it up \
         on the relay's machine: relayctl drain --undo"
    )]
    HalfBuilt(Box<Failure>),
}

impl Failure {
    /// 2 if what was given is wrong, 1 if what was tried failed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Argument(_)
            | Self::Name(_)
            | Self::Mode { .. }
            | Self::Keys { .. }
            | Self::Relay(_)
            | Self::Line { .. } => 2,
            _ => 1,
        }
    }
}
