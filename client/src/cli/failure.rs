//! Why a command failed, and the exit code that says so.

use client::{
    BodyError, NotReady, ProfileError, RegistrationError, RelayIdentityError, SendError, SendFailure,
    UrlsTooLong,
};
use std::process::ExitCode;

/// Why a command failed, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    General(String),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// Exit code 4.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::General(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Refused(_) => 4,
        })
    }

    /// The word for `--json`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Failure::General(_) => "failure",
            Failure::Usage(_) => "usage",
            Failure::Unreachable(_) => "unreachable",
            Failure::Refused(_) => "refused",
        }
    }

    /// An error of the system about something that has a name.
    pub(crate) fn about(what: &impl std::fmt::Display) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::General(format!("{what}: {error}"))
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        match &error {
            ProfileError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Failure::General(format!("{error}; make keys with: sstp init --relay FILE"))
            }
            _ => Failure::General(error.to_string()),
        }
    }
}

impl From<RelayIdentityError> for Failure {
    fn from(error: RelayIdentityError) -> Self {
        Failure::General(error.to_string())
    }
}

impl From<UrlsTooLong> for Failure {
    fn from(error: UrlsTooLong) -> Self {
        Failure::General(error.to_string())
    }
}

impl From<NotReady> for Failure {
    fn from(error: NotReady) -> Self {
        match error {
            NotReady::RegistrationNeeded => Failure::Refused(format!("{error}: sstp register")),
            _ => Failure::Refused(error.to_string()),
        }
    }
}

impl From<RegistrationError> for Failure {
    fn from(error: RegistrationError) -> Self {
        match error {
            RegistrationError::Refused { .. } | RegistrationError::Closed { .. } => {
                Failure::Refused(error.to_string())
            }
            _ => Failure::General(error.to_string()),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Failed(SendFailure::Refused(_) | SendFailure::Closed(_)) => {
                Failure::Refused(error.to_string())
            }
            SendError::UserRef => Failure::Usage(error.to_string()),
            _ => Failure::General(error.to_string()),
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        Failure::General(error.to_string())
    }
}
