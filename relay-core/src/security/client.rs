//! The client's end: hello and proof, the registration messages, and what a relay's answers mean. Draws no conclusion
//! about when to send what; that is the client library's affair.

use super::credentials::{ClientCredentials, LegacySigner, ModernSigner, Signer};
use super::error::SecurityError;
use super::legacy;
use super::modern;
use super::profile::{Layer, MAX_PRE_AUTH_TOKEN_BYTES, MessageId, RegisterStatus};
use super::relay_keys::RelayPublicKeys;
use super::token::{Reader, TokenError};
use crate::address::{AccountUrl, DeviceUrl, IdentityUrl};
use crate::directory::{Profile, SecretKey};
use crate::time::Entropy;
use bytes::Bytes;
use std::fmt;

/// The SecConnect or SecAttach of a client that has registered no key yet; the relay answers that registration is needed.
pub fn hello_without_key(layer: Layer, profile: Profile) -> Bytes {
    match profile {
        Profile::Modern => modern::Hello::write_empty(layer),
        Profile::Legacy => legacy::Hello::write_empty(layer),
    }
}

/// A SecConnect or SecAttach that has been made, and what its answer is checked against. The keys in it are wiped when dropped.
pub struct Hello {
    /// The token for Connect or Attach.
    pub token: Bytes,
    layer: Layer,
    url: String,
    secret: SecretKey,
    sent: Sent,
}

enum Sent {
    Modern(modern::Nonce),
    Legacy(legacy::Nonce),
}

/// Makes the SecConnect of the device `url` or the SecAttach of the account `url`.
pub fn hello(layer: Layer, url: &str, credentials: &ClientCredentials, entropy: &mut dyn Entropy) -> Hello {
    let secret = credentials.secret();
    let (token, sent) = match credentials.signer {
        Signer::Modern(_) => return modern_hello(layer, url, secret, entropy),
        Signer::Legacy(_) => {
            let (token, nonce) = legacy::Exchange { layer, secret }.write_hello(entropy);
            (token, Sent::Legacy(nonce))
        }
    };
    Hello { token, layer, url: url.to_owned(), secret: secret.clone(), sent }
}

/// A hello of the modern profile by the secret alone, which is all that it takes.
pub(super) fn modern_hello(layer: Layer, url: &str, secret: &SecretKey, entropy: &mut dyn Entropy) -> Hello {
    let (token, nonce) = modern::Exchange { layer, url, secret }.write_hello(entropy);
    Hello { token, layer, url: url.to_owned(), secret: secret.clone(), sent: Sent::Modern(nonce) }
}

/// What the relay answered to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloAnswer {
    /// The relay has proven that it holds the key; the token goes into ConnectAuthenticate or AttachAuthenticate.
    Proof {
        /// The client's proof.
        token: Bytes,
    },
    /// The relay says that it holds no key of this device or account. Anyone could have said so.
    RegistrationNeeded,
    /// The relay says that authentication failed. Anyone could have said so.
    Failed,
}

impl Hello {
    /// Reads the token of ConnectResponse or AttachResponse.
    ///
    /// # Errors
    /// [`SecurityError`] if the token is malformed, or the answerer does not hold the key.
    pub fn answer(&self, response_token: &[u8]) -> Result<HelloAnswer, SecurityError> {
        let profile = self.sent.profile();
        if let Some(answer) = read_refusal(self.layer, profile, response_token)? {
            return Ok(answer);
        }
        let (header, reader) = Reader::expect(response_token, MessageId::challenge(self.layer))?;
        let token = match &self.sent {
            Sent::Modern(nonce) => {
                let exchange = modern::Exchange { layer: self.layer, url: &self.url, secret: &self.secret };
                exchange.answer_challenge(reader, nonce)?
            }
            Sent::Legacy(nonce) => {
                let exchange = legacy::Exchange { layer: self.layer, secret: &self.secret };
                exchange.answer_challenge(header, reader, nonce)?
            }
        };
        Ok(HelloAnswer::Proof { token })
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hello({:?}, {})", self.layer, self.url)
    }
}

impl Sent {
    fn profile(&self) -> Profile {
        match self {
            Self::Modern(_) => Profile::Modern,
            Self::Legacy(_) => Profile::Legacy,
        }
    }
}

/// Reads the answer to [`hello_without_key`], which can only be one of the two refusals.
///
/// # Errors
/// [`SecurityError`] if the token is malformed or a challenge.
pub fn read_answer_without_key(
    layer: Layer,
    profile: Profile,
    response_token: &[u8],
) -> Result<HelloAnswer, SecurityError> {
    let unexpected = SecurityError::Token(TokenError::UnexpectedMessage(MessageId::challenge(layer)));
    read_refusal(layer, profile, response_token)?.ok_or(unexpected)
}

/// Reads the two answers without fields; `None` for a challenge.
fn read_refusal(layer: Layer, profile: Profile, token: &[u8]) -> Result<Option<HelloAnswer>, SecurityError> {
    let (header, reader) = Reader::open(token)?;
    if header.profile != profile {
        return Err(TokenError::UnexpectedProfile(header.profile).into());
    }
    let answer = if header.id == MessageId::registration_needed(layer) {
        HelloAnswer::RegistrationNeeded
    } else if header.id == MessageId::failed(layer) {
        HelloAnswer::Failed
    } else if header.id == MessageId::challenge(layer) {
        return Ok(None);
    } else {
        return Err(TokenError::UnexpectedMessage(header.id).into());
    };
    reader.end()?;
    Ok(Some(answer))
}

fn checked_token(pre_auth_token: &[u8]) -> Result<&[u8], SecurityError> {
    match pre_auth_token.len() {
        length if length > MAX_PRE_AUTH_TOKEN_BYTES => Err(SecurityError::PreAuthTokenTooLong(length)),
        _ => Ok(pre_auth_token),
    }
}

/// SecDeviceAccountRegister around SecAccountRegister: a device, and an account that the relay does not know yet.
/// `pre_auth_token` is empty where none is asked for. Repeating it with the same keys changes nothing.
///
/// # Errors
/// [`SecurityError`] if the two credentials differ in profile, the relay's public key is unusable, or the token is
/// longer than [`MAX_PRE_AUTH_TOKEN_BYTES`].
pub fn register_device_account(
    device: &DeviceUrl,
    device_credentials: &ClientCredentials,
    account: &AccountUrl,
    account_credentials: &ClientCredentials,
    relay: &RelayPublicKeys,
    pre_auth_token: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Bytes, SecurityError> {
    let pre_auth_token = checked_token(pre_auth_token)?;
    match (&device_credentials.signer, &account_credentials.signer) {
        (Signer::Modern(device_signer), Signer::Modern(account_signer)) => {
            let message = modern_registrant(account.as_str(), account_credentials, account_signer, relay)
                .write_account_register(pre_auth_token, entropy)?;
            modern_registrant(device.as_str(), device_credentials, device_signer, relay)
                .write_device_register(&message, entropy)
        }
        (Signer::Legacy(device_signer), Signer::Legacy(account_signer)) => {
            let message = legacy_registrant(account_credentials, account_signer, relay)
                .write_account_register(pre_auth_token, entropy);
            let device = legacy_registrant(device_credentials, device_signer, relay);
            Ok(device.write_device_register(&message, entropy))
        }
        _ => Err(SecurityError::MixedProfiles),
    }
}

/// SecDeviceAccountRegister around SecAccountOnNewDeviceRegister: a device, and an account that the relay knows from
/// another device.
///
/// # Errors
/// As for [`register_device_account`].
pub fn register_account_on_new_device(
    device: &DeviceUrl,
    device_credentials: &ClientCredentials,
    account: &AccountUrl,
    account_credentials: &ClientCredentials,
    relay: &RelayPublicKeys,
    entropy: &mut dyn Entropy,
) -> Result<Bytes, SecurityError> {
    let account_secret = account_credentials.secret();
    match (&device_credentials.signer, &account_credentials.signer) {
        (Signer::Modern(signer), Signer::Modern(_)) => {
            let message =
                modern::write_new_device(account_secret, account.as_str(), device.as_str(), entropy);
            modern_registrant(device.as_str(), device_credentials, signer, relay)
                .write_device_register(&message, entropy)
        }
        (Signer::Legacy(signer), Signer::Legacy(_)) => {
            let message = legacy::write_new_device(account_secret, entropy);
            let device = legacy_registrant(device_credentials, signer, relay);
            Ok(device.write_device_register(&message, entropy))
        }
        _ => Err(SecurityError::MixedProfiles),
    }
}

fn legacy_registrant<'a>(
    credentials: &'a ClientCredentials,
    signer: &'a LegacySigner,
    relay: &'a RelayPublicKeys,
) -> legacy::Registrant<'a> {
    legacy::Registrant { secret: credentials.secret(), signer, relay: relay.legacy_key() }
}

fn modern_registrant<'a>(
    url: &'a str,
    credentials: &'a ClientCredentials,
    signer: &'a ModernSigner,
    relay: &'a RelayPublicKeys,
) -> modern::Registrant<'a> {
    modern::Registrant { url, secret: credentials.secret(), signer, relay: relay.modern() }
}

/// SecIdentityRegister: adds an identity to a registered account.
///
/// # Errors
/// [`SecurityError::PreAuthTokenTooLong`].
pub fn register_identity(
    account: &AccountUrl,
    account_credentials: &ClientCredentials,
    identity: &IdentityUrl,
    pre_auth_token: &[u8],
) -> Result<Bytes, SecurityError> {
    let pre_auth_token = checked_token(pre_auth_token)?;
    let (url, secret) = (account.as_str(), account_credentials.secret());
    Ok(match account_credentials.signer {
        Signer::Modern(_) => modern::write_identity_register(secret, url, identity.as_str(), pre_auth_token),
        Signer::Legacy(_) => legacy::write_identity_register(secret, identity.as_str(), pre_auth_token),
    })
}

/// Reads SecDeviceAccountRegisterResponse or SecIdentityRegisterResponse.
///
/// # Errors
/// [`SecurityError::Token`] if it is neither, or its status has no meaning.
pub fn read_register_response(token: &[u8]) -> Result<RegisterStatus, SecurityError> {
    let (header, mut reader) = Reader::open(token)?;
    match header.id {
        MessageId::SecDeviceAccountRegisterResponse | MessageId::SecIdentityRegisterResponse => {}
        other => return Err(TokenError::UnexpectedMessage(other).into()),
    }
    let status = reader.byte("Status")?;
    reader.end()?;
    RegisterStatus::from_byte(status).ok_or(SecurityError::Token(TokenError::UnknownStatus(status)))
}
