//! What a relay knows of devices, accounts and identities (sstp-security 6.2), and how that knowledge changes.
//!
//! Reads are answered at once from the user database; changes are asked for as [`DirectoryChange`]s and are
//! durable before the relay tells anyone that they happened.

use crate::address::{AccountUrl, DeviceUrl, IdentityUrl};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret key of a device or an account: 24 bytes in the legacy profile, 32 in the modern one. Wiped when
/// dropped; its `Debug` form shows only the length.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(Vec<u8>);

impl SecretKey {
    /// Takes ownership of key bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key bytes, for cryptographic operations and for durable storage only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({} bytes)", self.0.len())
    }
}

/// The security profile with which a device or account was registered; it never changes (wire-profile sec. 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Security major version 1: MARC4, HMAC-SHA1, ElGamal, RSA.
    Legacy,
    /// Security major version 2: X25519, HMAC-SHA256, Ed25519.
    Modern,
}

/// The keys with which a device or account was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The profile of the registration.
    pub profile: Profile,
    /// The shared secret of the challenge/response.
    pub secret: SecretKey,
    /// The public keys as registered: the Ed25519 key (modern) or the PublicKeys fields (legacy), verbatim.
    pub public_keys: Vec<u8>,
}

/// The device record of sstp-security 6.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRecord {
    /// `None` until the device has registered.
    pub credentials: Option<Credentials>,
    /// The accounts on this device, in order of registration. The first one decides the device's home shard.
    pub accounts: Vec<AccountUrl>,
    /// Connections of a locked-out device are rejected (ConnectRejected).
    pub locked_out: bool,
}

/// The account record of sstp-security 6.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRecord {
    /// `None` until the account has registered (a management server may list it before).
    pub credentials: Option<Credentials>,
    /// The identities of this account.
    pub identities: Vec<IdentityUrl>,
    /// The devices on which this account is registered.
    pub devices: Vec<DeviceUrl>,
    /// The token that a first registration must present, if one is required.
    pub pre_auth_token: Option<SecretKey>,
    /// Mail for a locked-out account is refused (LockedOut) and it cannot attach.
    pub locked_out: bool,
}

/// The identity record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The account that owns the identity.
    pub account: AccountUrl,
    /// Bytes of mail that may wait for this identity; `None` for the configured default.
    pub quota_bytes: Option<u64>,
    /// How long mail for this identity is kept if its sender does not say, in seconds; `None` for the configured default.
    pub lifetime_seconds: Option<u32>,
}

impl IdentityRecord {
    /// An identity of an account, with the defaults of everything else.
    pub fn of(account: AccountUrl) -> Self {
        Self { account, quota_bytes: None, lifetime_seconds: None }
    }
}

/// One change of the directory: the whole new record under its name, or its removal (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// A device record.
    Device(DeviceUrl, Option<DeviceRecord>),
    /// An account record.
    Account(AccountUrl, Option<AccountRecord>),
    /// An identity record.
    Identity(IdentityUrl, Option<IdentityRecord>),
}

/// A record could not be read: whether there is one is not known. Nobody is turned away for good because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user database cannot be read")]
pub struct Unreadable;

/// Reading access to the directory. Answers come at once (from memory or a cached page of the user database).
pub trait Directory {
    /// The record of a device, if there is one.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable>;
    /// The record of an account, if there is one.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable>;
    /// The record of an identity, if there is one.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable>;
    /// When a device was last known to be connected, in seconds since the Unix epoch and to a day or so; `None` if that
    /// was never written down. What [`crate::relay::Relay::take_seen`] gives is to be written down.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn last_seen(&self, url: &DeviceUrl) -> Result<Option<u64>, Unreadable> {
        let _nobody_wrote = url;
        Ok(None)
    }
}
