//! Registering a device, an account and identities with the relay: which step is next, and how it may fail. When the steps
//! may be taken is the machine's to say.

use super::config::{Account, ClientConfig};
use crate::address::{AccountUrl, IdentityUrl};
use crate::security::{
    RegisterStatus, SecurityError, read_register_response, register_account_on_new_device,
    register_device_account, register_identity,
};
use crate::sstp::command::CommandId;
use crate::sstp::{CloseReason, Connection, SessionId};
use crate::time::Entropy;
use bytes::Bytes;
use std::collections::VecDeque;

/// What is to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// One of the client's accounts.
    pub account: AccountUrl,
    /// What a management server told the user to present; empty where nothing is asked for.
    pub pre_auth_token: Vec<u8>,
    /// Identities to add to the account, in this order.
    pub identities: Vec<IdentityUrl>,
    /// The relay knows the account from another device: only the device is new.
    pub on_new_device: bool,
}

/// A step of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationStep {
    /// The device and the account.
    DeviceAndAccount,
    /// An identity.
    Identity(IdentityUrl),
}

/// Why a registration did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The relay said so, and why.
    #[error("the relay refused {step:?}: {status:?}")]
    Refused {
        /// At this step.
        step: RegistrationStep,
        /// The reason.
        status: RegisterStatus,
    },
    /// The relay closed the exchange instead of answering.
    #[error("the relay closed the exchange of {step:?}: {reason}")]
    Closed {
        /// At this step.
        step: RegistrationStep,
        /// The reason.
        reason: CloseReason,
    },
    /// A message could not be made, or the relay's answer could not be read.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The client was made without device keys.
    #[error("an anonymous client cannot register")]
    Anonymous,
    /// The client was made without the relay's public keys.
    #[error("the relay's public keys are not known")]
    RelayKeysUnknown,
    /// The account is none of the client's.
    #[error("{0} is not an account of this client")]
    OtherAccount(AccountUrl),
    /// Another registration is not over yet.
    #[error("another registration is under way")]
    UnderWay,
    /// A message that no Register holds: the keys of the legacy profile, the account's URL or the pre-authentication token
    /// are too long.
    #[error("{step:?} takes {bytes} bytes; at most {most} fit a Register")]
    TooLong {
        /// At this step.
        step: RegistrationStep,
        /// What the command would take.
        bytes: usize,
        /// What it may take.
        most: usize,
    },
    /// The connection has no room for another session.
    #[error("the connection has no room for another session")]
    NoRoom,
    /// The client was closed.
    #[error("the client is closed")]
    ClientClosed,
}

/// A registration under way. It survives the loss of the connection by beginning again: repeating a step changes nothing.
#[derive(Debug)]
pub(super) struct Registrar {
    wanted: Registration,
    account: Account,
    /// Steps that remain on this connection, the one being taken included; `None` before the first.
    steps: Option<VecDeque<RegistrationStep>>,
    /// The exchange of the first step.
    exchange: Option<SessionId>,
}

/// How a registration stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    UnderWay,
    Complete,
    Failed(RegistrationError),
}

impl Registrar {
    pub(super) fn new(wanted: Registration, config: &ClientConfig) -> Result<Self, RegistrationError> {
        if config.device_credentials.is_none() {
            return Err(RegistrationError::Anonymous);
        }
        if config.relay_keys.is_none() {
            return Err(RegistrationError::RelayKeysUnknown);
        }
        let own = config.accounts.iter().find(|account| account.url == wanted.account);
        let account = own.ok_or_else(|| RegistrationError::OtherAccount(wanted.account.clone()))?.clone();
        Ok(Self { wanted, account, steps: None, exchange: None })
    }

    pub(super) fn account(&self) -> &AccountUrl {
        &self.wanted.account
    }

    pub(super) fn has_begun(&self) -> bool {
        self.steps.is_some()
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.steps = None;
        self.exchange = None;
    }

    /// Begins on a connection; `account_known` says that device and account have been proven on it.
    pub(super) fn begin(
        &mut self,
        account_known: bool,
        config: &ClientConfig,
        connection: &mut Connection,
        entropy: &mut dyn Entropy,
    ) -> Standing {
        let first = (!account_known).then_some(RegistrationStep::DeviceAndAccount);
        let identities = self.wanted.identities.iter().cloned().map(RegistrationStep::Identity);
        self.steps = Some(first.into_iter().chain(identities).collect());
        self.step(config, connection, entropy)
    }

    /// The relay has answered an exchange; `None` if it is not ours.
    pub(super) fn answered(
        &mut self,
        event: SessionId,
        token: &[u8],
        config: &ClientConfig,
        connection: &mut Connection,
        entropy: &mut dyn Entropy,
    ) -> Option<Standing> {
        let step = self.end_exchange(event)?;
        Some(match read_register_response(token) {
            Ok(RegisterStatus::Ok) => self.step(config, connection, entropy),
            Ok(status) => Standing::Failed(RegistrationError::Refused { step, status }),
            Err(error) => Standing::Failed(error.into()),
        })
    }

    /// The relay has closed an exchange; `None` if it is not ours.
    pub(super) fn closed(&mut self, event: SessionId, reason: CloseReason) -> Option<Standing> {
        let step = self.end_exchange(event)?;
        Some(Standing::Failed(RegistrationError::Closed { step, reason }))
    }

    fn end_exchange(&mut self, event: SessionId) -> Option<RegistrationStep> {
        self.exchange.take_if(|exchange| *exchange == event)?;
        self.steps.as_mut()?.pop_front()
    }

    fn step(
        &mut self,
        config: &ClientConfig,
        connection: &mut Connection,
        entropy: &mut dyn Entropy,
    ) -> Standing {
        let Some(step) = self.steps.as_ref().and_then(|steps| steps.front()) else {
            return Standing::Complete;
        };
        let token = match self.token(step, config, entropy) {
            Ok(token) => token,
            Err(error) => return Standing::Failed(error),
        };
        // Prefix, EventId, empty ResourceURL, AccountURL with its zero, token with its count (wire-profile 1).
        let bytes = 3 + 4 + 1 + self.account.url.as_bytes().len() + 1 + 2 + token.len();
        let (_, most) = CommandId::Register.length_limits();
        if bytes > most {
            return Standing::Failed(RegistrationError::TooLong { step: step.clone(), bytes, most });
        }
        self.exchange = connection.register((&self.account.url).into(), token);
        match self.exchange {
            Some(_) => Standing::UnderWay,
            None => Standing::Failed(RegistrationError::NoRoom),
        }
    }

    fn token(
        &self,
        step: &RegistrationStep,
        config: &ClientConfig,
        entropy: &mut dyn Entropy,
    ) -> Result<Bytes, RegistrationError> {
        let (url, keys, token) = (&self.account.url, &self.account.credentials, &self.wanted.pre_auth_token);
        let device_keys = config.device_credentials.as_ref().ok_or(RegistrationError::Anonymous)?;
        let relay = config.relay_keys.as_ref().ok_or(RegistrationError::RelayKeysUnknown)?;
        let device = &config.device_url;
        Ok(match step {
            RegistrationStep::Identity(identity) => register_identity(url, keys, identity, token)?,
            RegistrationStep::DeviceAndAccount if self.wanted.on_new_device => {
                register_account_on_new_device(device, device_keys, url, keys, relay, entropy)?
            }
            RegistrationStep::DeviceAndAccount => {
                register_device_account(device, device_keys, url, keys, relay, token, entropy)?
            }
        })
    }
}
