//! The messages of the legacy profile (wire-profile sec. 2), both ends of each next to one another: what a field holds,
//! what a MAC or signature covers. Decides nothing about records.

pub(crate) mod der;
pub(super) mod elgamal;
pub(super) mod public_keys;
pub(crate) mod rsa;

use super::credentials::LegacySigner;
use super::error::SecurityError;
use super::marc4;
use super::profile::*;
use super::relay_keys::RelayKeys;
use super::token::{Header, Reader, TokenError, Writer};
use crate::directory::{Credentials, Profile, SecretKey};
use crate::time::Entropy;
use bytes::Bytes;
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub(super) type Nonce = [u8; LEGACY_NONCE_BYTES];
pub(super) type Mac = [u8; LEGACY_MAC_BYTES];
/// An IV is as long as the key (seen, 3.1.1.4).
type Iv = [u8; LEGACY_KEY_BYTES];

fn client_header(id: MessageId, layer: Layer) -> Header {
    Header { profile: Profile::Legacy, minor: Profile::Legacy.client_minor(layer), id }
}

/// HMAC-SHA1 over the header and then the parts, one after another.
fn mac(secret: &SecretKey, header: Header, parts: &[&[u8]]) -> Mac {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(&header.bytes());
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().try_into().expect("HMAC-SHA1 gives 20 bytes")
}

/// Compares in constant time.
fn check_mac(found: &Mac, expected: &Mac, id: MessageId) -> Result<(), SecurityError> {
    if bool::from(found.ct_eq(expected)) { Ok(()) } else { Err(SecurityError::WrongMac(id)) }
}

fn random<const N: usize>(entropy: &mut dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Encrypts or decrypts a nonce.
fn crypt(secret: &SecretKey, iv: &Iv, nonce: &Nonce) -> Result<Nonce, TokenError> {
    // A stored key of another length calls for an IV of that length.
    let wrong = TokenError::FieldLength { name: "IV", bytes: iv.len() };
    let key = secret.expose().try_into().map_err(|_| wrong)?;
    let mut result = *nonce;
    marc4::apply::<LEGACY_KEY_BYTES>(key, iv, &mut result);
    Ok(result)
}

/// A nonce under the key that the sender claims to hold: IV, HMAC, EncryptedNonce, as in messages 1, 6 and 15.
pub(super) struct Claim<'a> {
    header: Header,
    iv: &'a Iv,
    mac: &'a Mac,
    nonce: &'a Nonce,
}

impl<'a> Claim<'a> {
    /// Relay: takes the three fields, all of them whole.
    fn of(header: Header, iv: &'a [u8], mac: &'a [u8], nonce: &'a [u8]) -> Result<Self, TokenError> {
        let wrong = |name, field: &[u8]| TokenError::FieldLength { name, bytes: field.len() };
        Ok(Self {
            header,
            iv: iv.try_into().map_err(|_| wrong("IV", iv))?,
            mac: mac.try_into().map_err(|_| wrong("HMAC", mac))?,
            nonce: nonce.try_into().map_err(|_| wrong("encrypted nonce", nonce))?,
        })
    }

    /// Relay: reads message 15 after its header.
    pub(super) fn read(header: Header, mut reader: Reader<'a>) -> Result<Self, TokenError> {
        let fields = (reader.field("IV")?, reader.field("HMAC")?, reader.field("encrypted nonce")?);
        reader.end()?;
        Self::of(header, fields.0, fields.1, fields.2)
    }

    /// Relay: decrypts the nonce, then checks the MAC (sstp-security 7.1 steps 5 and 6).
    pub(super) fn verify(&self, secret: &SecretKey) -> Result<Nonce, SecurityError> {
        let nonce = crypt(secret, self.iv, self.nonce)?;
        check_mac(self.mac, &mac(secret, self.header, &[self.iv, &nonce]), self.header.id)?;
        Ok(nonce)
    }
}

/// Client: message 1, 6 or 15, and the nonce that it carries.
fn write_claim(header: Header, secret: &SecretKey, entropy: &mut dyn Entropy) -> (Bytes, Nonce) {
    let (iv, nonce): (Iv, Nonce) = (random(entropy), random(entropy));
    let encrypted = crypt(secret, &iv, &nonce).expect("client credentials hold a key of this profile");
    let token =
        Writer::new(header).field(&iv).field(&mac(secret, header, &[&iv, &nonce])).field(&encrypted).finish();
    (token, nonce)
}

/// Client: message 15. It names neither account nor device.
pub(super) fn write_new_device(secret: &SecretKey, entropy: &mut dyn Entropy) -> Bytes {
    write_claim(client_header(MessageId::SecAccountOnNewDeviceRegister, Layer::Account), secret, entropy).0
}

/// Message 1 or 6 as it was sent; `None` from a client that has no key yet.
pub(super) struct Hello<'a>(Option<Claim<'a>>);

impl<'a> Hello<'a> {
    /// Relay: reads the fields after the header. All are whole, or all are empty.
    pub(super) fn read(header: Header, mut reader: Reader<'a>) -> Result<Self, TokenError> {
        let fields = (reader.field("IV")?, reader.field("HMAC")?, reader.field("encrypted nonce")?);
        reader.end()?;
        match fields {
            ([], [], []) => Ok(Self(None)),
            (iv, mac, nonce) => Claim::of(header, iv, mac, nonce).map(|claim| Self(Some(claim))),
        }
    }

    /// Client: message 1 or 6 without a key.
    pub(super) fn write_empty(layer: Layer) -> Bytes {
        let header = client_header(MessageId::hello(layer), layer);
        Writer::new(header).field(&[]).field(&[]).field(&[]).finish()
    }
}

/// The proof that a relay waits for; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct ExpectedProof {
    nonce: Nonce,
    /// The MAC over a header with minor version 3, and with 4: a relay accepts both.
    macs: [Mac; 2],
}

impl ExpectedProof {
    fn new(secret: &SecretKey, layer: Layer, nonce: Nonce) -> Self {
        let id = MessageId::proof(layer);
        let macs = [3, 4].map(|minor| mac(secret, Header { profile: Profile::Legacy, minor, id }, &[&nonce]));
        Self { nonce, macs }
    }

    /// Relay: checks message 5 or 10 after its header.
    pub(super) fn verify(&self, header: Header, mut reader: Reader<'_>) -> Result<(), SecurityError> {
        let (found, nonce) = (reader.exact("HMAC")?, reader.exact::<LEGACY_NONCE_BYTES>("RelayNonce")?);
        reader.end()?;
        let [of_minor_3, of_minor_4] = &self.macs;
        check_mac(found, if header.minor == 3 { of_minor_3 } else { of_minor_4 }, header.id)?;
        check_nonce(nonce, &self.nonce, header.id)
    }
}

fn check_nonce(found: &Nonce, expected: &Nonce, id: MessageId) -> Result<(), SecurityError> {
    if bool::from(found.ct_eq(expected)) { Ok(()) } else { Err(SecurityError::WrongNonce(id)) }
}

/// One challenge/response.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) layer: Layer,
    pub(super) secret: &'a SecretKey,
}

impl Exchange<'_> {
    /// Client: message 1 or 6, and the nonce that it carries.
    pub(super) fn write_hello(&self, entropy: &mut dyn Entropy) -> (Bytes, Nonce) {
        write_claim(client_header(MessageId::hello(self.layer), self.layer), self.secret, entropy)
    }

    /// Relay: checks message 1 or 6; writes message 2 or 7 and says what will be the proof.
    pub(super) fn answer_hello(
        &self,
        hello: &Hello<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Bytes, ExpectedProof), SecurityError> {
        let claim = hello.0.as_ref().ok_or(SecurityError::KeyNotPresented(self.layer))?;
        let client = claim.verify(self.secret)?;
        let (iv, relay): (Iv, Nonce) = (random(entropy), random(entropy));
        let header = Header {
            profile: Profile::Legacy,
            minor: Profile::Legacy.relay_minor(),
            id: MessageId::challenge(self.layer),
        };
        let token = Writer::new(header)
            .field(&iv)
            .field(&mac(self.secret, header, &[&iv, &client, &relay]))
            .field(&client)
            .field(&crypt(self.secret, &iv, &relay)?)
            .finish();
        Ok((token, ExpectedProof::new(self.secret, self.layer, relay)))
    }

    /// Client: checks message 2 or 7; writes message 5 or 10.
    pub(super) fn answer_challenge(
        &self,
        header: Header,
        mut reader: Reader<'_>,
        client: &Nonce,
    ) -> Result<Bytes, SecurityError> {
        let (iv, found) = (reader.exact("IV")?, reader.exact("HMAC")?);
        let (returned, encrypted) = (reader.exact("client nonce")?, reader.exact("EncryptedRelayNonce")?);
        reader.end()?;
        let relay = crypt(self.secret, iv, encrypted)?;
        check_mac(found, &mac(self.secret, header, &[iv, returned, &relay]), header.id)?;
        check_nonce(returned, client, header.id)?;
        let proof = client_header(MessageId::proof(self.layer), self.layer);
        Ok(Writer::new(proof).field(&mac(self.secret, proof, &[&relay])).field(&relay).finish())
    }
}

/// An encrypted key with the public keys object that vouches for it: the common part of messages 12 and 14.
pub(super) struct OfferedKey<'a> {
    layer: Layer,
    encrypted: &'a [u8; ELGAMAL_CIPHERTEXT_BYTES],
    public_keys: &'a [u8],
}

impl OfferedKey<'_> {
    /// Relay: decrypts the key.
    pub(super) fn open(&self, keys: &RelayKeys) -> Result<Credentials, SecurityError> {
        let secret = keys.open_legacy(self.encrypted).ok().filter(|key| key.len() == LEGACY_KEY_BYTES);
        let secret = secret.ok_or(SecurityError::KeyUndecryptable(self.layer))?;
        Ok(Credentials {
            profile: Profile::Legacy,
            secret: SecretKey::new(secret.to_vec()),
            public_keys: self.public_keys.to_vec(),
        })
    }
}

/// Reads the Signature, ends the message and verifies it.
fn end_signed(mut reader: Reader<'_>, public_keys: &[u8], id: MessageId) -> Result<(), SecurityError> {
    let covered = reader.read_so_far();
    let found = reader.exact::<RSA_BYTES>("Signature")?;
    reader.end()?;
    match rsa::verify(public_keys::signature_key(public_keys)?, covered, found) {
        true => Ok(()),
        false => Err(SecurityError::SignatureInvalid(id)),
    }
}

/// Relay: reads message 12 after its header; gives the device's key and the account message, whose turn is next.
pub(super) fn read_device_register(mut reader: Reader<'_>) -> Result<(OfferedKey<'_>, &[u8]), SecurityError> {
    let encrypted = reader.exact("EncryptedDeviceKey")?;
    let public_keys = reader.field_up_to(MAX_PUBLIC_KEYS_BYTES, "DevicePublicKeys")?;
    let account_message = reader.field("AccountMessage")?;
    end_signed(reader, public_keys, MessageId::SecDeviceAccountRegister)?;
    Ok((OfferedKey { layer: Layer::Device, encrypted, public_keys }, account_message))
}

/// Relay: reads message 14 after its header; gives the account's key and the UserPreAuthToken.
pub(super) fn read_account_register(
    mut reader: Reader<'_>,
) -> Result<(OfferedKey<'_>, &[u8]), SecurityError> {
    let token = reader.field_up_to(MAX_PRE_AUTH_TOKEN_BYTES, "UserPreAuthToken")?;
    let encrypted = reader.exact("EncryptedAccountKey")?;
    let public_keys = reader.field_up_to(MAX_PUBLIC_KEYS_BYTES, "AccountPublicKeys")?;
    end_signed(reader, public_keys, MessageId::SecAccountRegister)?;
    Ok((OfferedKey { layer: Layer::Account, encrypted, public_keys }, token))
}

/// Relay: reads the MAC that ends message 16.
pub(super) fn read_last_mac(mut reader: Reader<'_>) -> Result<&Mac, TokenError> {
    let found = reader.exact("HMAC")?;
    reader.end()?;
    Ok(found)
}

/// Relay: checks the MAC that ends message 16.
pub(super) fn verify_identity_register(
    found: &Mac,
    secret: &SecretKey,
    header: Header,
    identity: &[u8],
    pre_auth_token: &[u8],
) -> Result<(), SecurityError> {
    check_mac(found, &mac(secret, header, &[identity, pre_auth_token]), header.id)
}

/// Client: message 16.
pub(super) fn write_identity_register(secret: &SecretKey, identity: &str, pre_auth_token: &[u8]) -> Bytes {
    let header = client_header(MessageId::SecIdentityRegister, Layer::Account);
    let identity = identity.as_bytes();
    let proof = mac(secret, header, &[identity, pre_auth_token]);
    Writer::new(header).field(identity).field(pre_auth_token).field(&proof).finish()
}

/// A key that a client registers: what messages 12 and 14 say of a device and of an account alike.
pub(super) struct Registrant<'a> {
    pub(super) secret: &'a SecretKey,
    pub(super) signer: &'a LegacySigner,
    pub(super) relay: &'a elgamal::PublicKey,
}

impl Registrant<'_> {
    fn sign(&self, message: Writer) -> Bytes {
        let signature = self.signer.sign(message.written());
        message.field(&signature).finish()
    }

    /// Client: message 12 around an account message.
    pub(super) fn write_device_register(&self, account_message: &[u8], entropy: &mut dyn Entropy) -> Bytes {
        self.sign(
            Writer::new(client_header(MessageId::SecDeviceAccountRegister, Layer::Device))
                .field(&self.relay.encrypt(self.secret.expose(), entropy))
                .field(&self.signer.public_keys())
                .field(account_message),
        )
    }

    /// Client: message 14.
    pub(super) fn write_account_register(&self, pre_auth_token: &[u8], entropy: &mut dyn Entropy) -> Bytes {
        self.sign(
            Writer::new(client_header(MessageId::SecAccountRegister, Layer::Account))
                .field(pre_auth_token)
                .field(&self.relay.encrypt(self.secret.expose(), entropy))
                .field(&self.signer.public_keys()),
        )
    }
}
