//! The messages of the modern profile (wire-profile sec. 3, ours), both ends of each next to one another: what a field
//! holds, what a MAC or signature covers. Decides nothing about records.

use super::credentials::ModernSigner;
use super::error::SecurityError;
use super::profile::*;
use super::relay_keys::RelayKeys;
use super::sealed;
use super::token::{Header, Reader, TokenError, Writer};
use crate::directory::{Credentials, Profile, SecretKey};
use crate::time::Entropy;
use bytes::Bytes;
use ring::{hmac, signature};
use subtle::ConstantTimeEq;

pub(super) type Nonce = [u8; MODERN_NONCE_BYTES];
pub(super) type Mac = [u8; MODERN_MAC_BYTES];

/// The header of every modern message; the minor version is the same from both sides.
fn header(id: MessageId) -> Header {
    Header { profile: Profile::Modern, minor: Profile::Modern.relay_minor(), id }
}

/// HMAC-SHA256 over the label, one zero byte, the header, then each value with its count.
fn mac(secret: &SecretKey, label: &str, id: MessageId, values: &[&[u8]]) -> Mac {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
    context.update(label.as_bytes());
    context.update(&[0]);
    context.update(&header(id).bytes());
    for value in values {
        let count = u16::try_from(value.len()).expect("URLs, nonces and tokens are far below 64 KiB");
        context.update(&count.to_le_bytes());
        context.update(value);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

/// Compares in constant time.
pub(super) fn check_mac(found: &Mac, expected: &Mac, id: MessageId) -> Result<(), SecurityError> {
    if bool::from(found.ct_eq(expected)) { Ok(()) } else { Err(SecurityError::WrongMac(id)) }
}

fn nonce(entropy: &mut dyn Entropy) -> Nonce {
    let mut nonce = [0; MODERN_NONCE_BYTES];
    entropy.fill(&mut nonce);
    nonce
}

/// What MACs of one exchange have in common.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) layer: Layer,
    /// The first SourceDeviceURL of the Connect, or the AccountURL of the Attach.
    pub(super) url: &'a str,
    pub(super) secret: &'a SecretKey,
}

impl Exchange<'_> {
    fn hello_mac(&self, client: &Nonce) -> Mac {
        mac(self.secret, LABEL_HELLO, MessageId::hello(self.layer), &[self.url.as_bytes(), client])
    }

    fn challenge_mac(&self, client: &Nonce, relay: &Nonce) -> Mac {
        mac(
            self.secret,
            LABEL_CHALLENGE,
            MessageId::challenge(self.layer),
            &[self.url.as_bytes(), client, relay],
        )
    }

    fn proof_mac(&self, client: &Nonce, relay: &Nonce) -> Mac {
        mac(self.secret, LABEL_PROOF, MessageId::proof(self.layer), &[self.url.as_bytes(), relay, client])
    }

    /// Client: message 1 or 6, and the nonce that it carries.
    pub(super) fn write_hello(&self, entropy: &mut dyn Entropy) -> (Bytes, Nonce) {
        let client = nonce(entropy);
        let token = Writer::new(header(MessageId::hello(self.layer)))
            .field(&client)
            .field(&self.hello_mac(&client))
            .finish();
        (token, client)
    }

    /// Relay: checks message 1 or 6; writes message 2 or 7 and says which MAC will be the proof.
    pub(super) fn answer_hello(
        &self,
        hello: &Hello<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Bytes, Mac), SecurityError> {
        let (client, found) = hello.proven.ok_or(SecurityError::KeyNotPresented(self.layer))?;
        check_mac(found, &self.hello_mac(client), MessageId::hello(self.layer))?;
        let relay = nonce(entropy);
        let token = Writer::new(header(MessageId::challenge(self.layer)))
            .field(&relay)
            .field(&self.challenge_mac(client, &relay))
            .finish();
        Ok((token, self.proof_mac(client, &relay)))
    }

    /// Client: checks message 2 or 7 after its header; writes message 5 or 10.
    pub(super) fn answer_challenge(
        &self,
        mut reader: Reader<'_>,
        client: &Nonce,
    ) -> Result<Bytes, SecurityError> {
        let (relay, found) = (reader.exact("RelayNonce")?, reader.exact("MAC")?);
        reader.end()?;
        check_mac(found, &self.challenge_mac(client, relay), MessageId::challenge(self.layer))?;
        let proof = self.proof_mac(client, relay);
        Ok(Writer::new(header(MessageId::proof(self.layer))).field(&proof).finish())
    }
}

/// Message 1 or 6 as it was sent.
pub(super) struct Hello<'a> {
    /// `None` from a client that has no key yet.
    proven: Option<(&'a Nonce, &'a Mac)>,
}

impl<'a> Hello<'a> {
    /// Relay: reads the fields after the header. Both are whole, or both are empty.
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, TokenError> {
        let (nonce, mac) = (reader.field("Nonce")?, reader.field("MAC")?);
        reader.end()?;
        if nonce.is_empty() && mac.is_empty() {
            return Ok(Self { proven: None });
        }
        let wrong = |name, field: &[u8]| TokenError::FieldLength { name, bytes: field.len() };
        let nonce_exact = nonce.try_into().map_err(|_| wrong("Nonce", nonce))?;
        let mac_exact = mac.try_into().map_err(|_| wrong("MAC", mac))?;
        Ok(Self { proven: Some((nonce_exact, mac_exact)) })
    }

    /// Client: message 1 or 6 without a key.
    pub(super) fn write_empty(layer: Layer) -> Bytes {
        Writer::new(header(MessageId::hello(layer))).field(&[]).field(&[]).finish()
    }
}

/// Relay: reads the MAC that ends message 5, 10 or 16.
pub(super) fn read_last_mac(mut reader: Reader<'_>) -> Result<&Mac, TokenError> {
    let found = reader.exact("MAC")?;
    reader.end()?;
    Ok(found)
}

/// What a registration's signature covers: the label, one zero byte, the message before the Signature field.
fn signed(message: &[u8]) -> Vec<u8> {
    [LABEL_REGISTER.as_bytes(), &[0], message].concat()
}

/// A sealed key with the signature key that vouches for it: the common part of messages 12 and 14.
pub(super) struct OfferedKey<'a> {
    layer: Layer,
    sealed: &'a [u8; SEALED_KEY_BYTES],
    signature_key: &'a [u8; ED25519_KEY_BYTES],
}

impl OfferedKey<'_> {
    fn info(layer: Layer) -> &'static str {
        match layer {
            Layer::Device => INFO_DEVICE_KEY,
            Layer::Account => INFO_ACCOUNT_KEY,
        }
    }

    /// Relay: opens the key, which is bound to the URL of the device or account.
    pub(super) fn open(&self, keys: &RelayKeys, url: &str) -> Result<Credentials, SecurityError> {
        let secret = keys
            .open(Self::info(self.layer), url.as_bytes(), self.sealed)
            .map_err(|_| SecurityError::KeyUndecryptable(self.layer))?;
        Ok(Credentials {
            profile: Profile::Modern,
            secret: SecretKey::new(secret.to_vec()),
            public_keys: self.signature_key.to_vec(),
        })
    }
}

/// Reads the Signature, ends the message and verifies it.
fn end_signed(
    mut reader: Reader<'_>,
    key: &[u8; ED25519_KEY_BYTES],
    id: MessageId,
) -> Result<(), SecurityError> {
    let covered = signed(reader.read_so_far());
    let found = reader.exact::<ED25519_SIGNATURE_BYTES>("Signature")?;
    reader.end()?;
    signature::UnparsedPublicKey::new(&signature::ED25519, key)
        .verify(&covered, found)
        .map_err(|_| SecurityError::SignatureInvalid(id))
}

/// Relay: reads message 12 after its header; gives the device's key and the account message, whose turn is next.
pub(super) fn read_device_register(mut reader: Reader<'_>) -> Result<(OfferedKey<'_>, &[u8]), SecurityError> {
    let (sealed, signature_key) = (reader.exact("SealedDeviceKey")?, reader.exact("DeviceSignatureKey")?);
    let account_message = reader.field("AccountMessage")?;
    end_signed(reader, signature_key, MessageId::SecDeviceAccountRegister)?;
    Ok((OfferedKey { layer: Layer::Device, sealed, signature_key }, account_message))
}

/// Relay: reads message 14 after its header; gives the account's key and the UserPreAuthToken.
pub(super) fn read_account_register(
    mut reader: Reader<'_>,
) -> Result<(OfferedKey<'_>, &[u8]), SecurityError> {
    let token = reader.field_up_to(MAX_PRE_AUTH_TOKEN_BYTES, "UserPreAuthToken")?;
    let (sealed, signature_key) = (reader.exact("SealedAccountKey")?, reader.exact("AccountSignatureKey")?);
    end_signed(reader, signature_key, MessageId::SecAccountRegister)?;
    Ok((OfferedKey { layer: Layer::Account, sealed, signature_key }, token))
}

/// Message 15 as it was sent.
pub(super) struct NewDevice<'a> {
    nonce: &'a Nonce,
    mac: &'a Mac,
}

fn new_device_mac(secret: &SecretKey, account: &str, device: &str, nonce: &Nonce) -> Mac {
    let values = [account.as_bytes(), device.as_bytes(), nonce];
    mac(secret, LABEL_NEW_DEVICE, MessageId::SecAccountOnNewDeviceRegister, &values)
}

impl<'a> NewDevice<'a> {
    /// Relay: reads message 15 after its header.
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, TokenError> {
        let (nonce, mac) = (reader.exact("Nonce")?, reader.exact("MAC")?);
        reader.end()?;
        Ok(Self { nonce, mac })
    }

    /// Relay: checks that the sender holds the account's key and means this device.
    pub(super) fn verify(
        &self,
        secret: &SecretKey,
        account: &str,
        device: &str,
    ) -> Result<(), SecurityError> {
        let expected = new_device_mac(secret, account, device, self.nonce);
        check_mac(self.mac, &expected, MessageId::SecAccountOnNewDeviceRegister)
    }
}

fn identity_mac(secret: &SecretKey, account: &str, identity: &[u8], pre_auth_token: &[u8]) -> Mac {
    let values = [account.as_bytes(), identity, pre_auth_token];
    mac(secret, LABEL_IDENTITY, MessageId::SecIdentityRegister, &values)
}

/// Relay: checks the MAC that ends message 16.
pub(super) fn verify_identity_register(
    found: &Mac,
    secret: &SecretKey,
    account: &str,
    identity: &[u8],
    pre_auth_token: &[u8],
) -> Result<(), SecurityError> {
    let expected = identity_mac(secret, account, identity, pre_auth_token);
    check_mac(found, &expected, MessageId::SecIdentityRegister)
}

/// A key that a client registers: what messages 12 and 14 say of a device and of an account alike.
pub(super) struct Registrant<'a> {
    pub(super) url: &'a str,
    pub(super) secret: &'a SecretKey,
    pub(super) signer: &'a ModernSigner,
    pub(super) relay: &'a [u8; X25519_BYTES],
}

impl Registrant<'_> {
    fn seal(&self, layer: Layer, entropy: &mut dyn Entropy) -> Result<Vec<u8>, SecurityError> {
        let (info, url) = (OfferedKey::info(layer), self.url.as_bytes());
        sealed::seal(self.relay, info, url, self.secret.expose(), entropy)
            .map_err(|_| SecurityError::UnusableRelayKey)
    }

    fn sign(&self, message: Writer) -> Bytes {
        let signature = self.signer.sign(&signed(message.written()));
        message.field(&signature).finish()
    }

    /// Client: message 12 around an account message.
    pub(super) fn write_device_register(
        &self,
        account_message: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Bytes, SecurityError> {
        let message = Writer::new(header(MessageId::SecDeviceAccountRegister))
            .field(&self.seal(Layer::Device, entropy)?)
            .field(&self.signer.public())
            .field(account_message);
        Ok(self.sign(message))
    }

    /// Client: message 14.
    pub(super) fn write_account_register(
        &self,
        pre_auth_token: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Bytes, SecurityError> {
        let message = Writer::new(header(MessageId::SecAccountRegister))
            .field(pre_auth_token)
            .field(&self.seal(Layer::Account, entropy)?)
            .field(&self.signer.public());
        Ok(self.sign(message))
    }
}

/// Client: message 15.
pub(super) fn write_new_device(
    secret: &SecretKey,
    account: &str,
    device: &str,
    entropy: &mut dyn Entropy,
) -> Bytes {
    let nonce = nonce(entropy);
    Writer::new(header(MessageId::SecAccountOnNewDeviceRegister))
        .field(&nonce)
        .field(&new_device_mac(secret, account, device, &nonce))
        .finish()
}

/// Client: message 16.
pub(super) fn write_identity_register(
    secret: &SecretKey,
    account: &str,
    identity: &str,
    pre_auth_token: &[u8],
) -> Bytes {
    let identity = identity.as_bytes();
    Writer::new(header(MessageId::SecIdentityRegister))
        .field(identity)
        .field(pre_auth_token)
        .field(&identity_mac(secret, account, identity, pre_auth_token))
        .finish()
}
