//! Why a run failed; what the command line prints.

use crate::load::LoadError;
use crate::relay_process::RelayError;
use std::io;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The relay under test.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file, process or socket.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Setting(String),
    /// What was measured is wrong.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// For `map_err` on a call of the system.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let what = what.into();
        move |error| Failure::System { what, error }
    }
}
