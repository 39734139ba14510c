//! Why a security message is refused: one variant for each cause that a test or an operator can tell apart.

use super::profile::{Layer, MAX_PRE_AUTH_TOKEN_BYTES, MessageId, RegisterStatus};
use super::token::TokenError;
use crate::directory::{Profile, Unreadable};

/// Why a security message is refused, by either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The bytes are not the message that belongs in their place: a protocol error.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A message of one profile for a device or account that is registered with the other: no downgrade.
    #[error("a message of the {found:?} profile for keys of the {registered:?} profile")]
    OtherProfile {
        /// The profile of the registration.
        registered: Profile,
        /// The profile of the message.
        found: Profile,
    },
    /// The device is registered but no account lives on it (sstp-security 7.1 step 4).
    #[error("no account is registered on the device")]
    DeviceWithoutAccounts,
    /// A registered device or account was greeted without its key.
    #[error("the hello of a registered {0:?} proves no key")]
    KeyNotPresented(Layer),
    /// A MAC does not verify.
    #[error("the MAC of {0:?} is wrong")]
    WrongMac(MessageId),
    /// A nonce that has to come back in clear is not the one that was sent.
    #[error("{0:?} returns another nonce than was sent")]
    WrongNonce(MessageId),
    /// A signature does not verify.
    #[error("the signature of {0:?} is wrong")]
    SignatureInvalid(MessageId),
    /// A secret key does not open with the relay's private key, or has a wrong length.
    #[error("the {0:?} key does not open with the relay's private key")]
    KeyUndecryptable(Layer),
    /// The device or account is registered with other keys.
    #[error("the {0:?} is already registered with other keys")]
    AlreadyRegistered(Layer),
    /// The message is about an account that has not registered.
    #[error("the account is not registered")]
    UnknownAccount,
    /// A required pre-authentication token is missing or wrong.
    #[error("the pre-authentication token is missing or wrong")]
    PreAuthenticationFailed,
    /// Pre-authentication is required and no management server has listed the identity for this account.
    #[error("the identity is not listed for the account")]
    IdentityNotListed,
    /// The identity belongs to another account.
    #[error("the identity belongs to another account")]
    IdentityOfAnotherAccount,
    /// A known account can be added to a device only by the message whose MAC names that device.
    #[error("a known account joins a new device by SecAccountOnNewDeviceRegister only")]
    NewDeviceNotProven,
    /// The device or account is locked out.
    #[error("the {0:?} is locked out")]
    LockedOut(Layer),
    /// The record holds as many accounts, devices or identities as it may.
    #[error("the record of the {0:?} is full")]
    RecordFull(Layer),
    /// A client was given a pre-authentication token that is too long to send.
    #[error("a pre-authentication token of {0} bytes; at most {MAX_PRE_AUTH_TOKEN_BYTES} are allowed")]
    PreAuthTokenTooLong(usize),
    /// A client was given device credentials of one profile and account credentials of the other.
    #[error("the credentials of the device and of the account are of different profiles")]
    MixedProfiles,
    /// A relay that was called as a peer does not know us as one.
    #[error("the other relay does not list this one as a peer")]
    NotAPeer,
    /// The relay's public key is not one to which a key can be sealed.
    #[error("the relay's public key is unusable")]
    UnusableRelayKey,
    /// The relay cannot read its records now.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl SecurityError {
    /// The status that tells a registering client this cause; `None` for a malformed token, which is a protocol error.
    pub fn register_status(&self) -> Option<RegisterStatus> {
        use RegisterStatus as Status;
        Some(match self {
            Self::Token(_) => return None,
            Self::PreAuthenticationFailed | Self::IdentityNotListed => Status::PreAuthenticationFailed,
            Self::SignatureInvalid(_) | Self::WrongMac(_) | Self::WrongNonce(_) => Status::SignatureInvalid,
            Self::KeyUndecryptable(_) => Status::KeyUndecryptable,
            Self::AlreadyRegistered(_) | Self::OtherProfile { .. } => Status::AlreadyRegistered,
            Self::UnknownAccount => Status::UnknownAccount,
            Self::Unreadable(_) => Status::Busy,
            _ => Status::NotPermitted,
        })
    }
}
