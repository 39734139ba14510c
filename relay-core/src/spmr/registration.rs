//! The registration fragment (wire-profile sec. 6, ours): the shared key sealed to the relay's public key, and a signature
//! of the management server over the serialized fragment. Both ends.

use super::base64_text;
use super::error::SpmrError;
use super::fragment::{self, Fragment, required};
use super::manager_keys::{ManagerKeys, ManagerPublicKey, Signer};
use super::operation::Operation;
use super::profile::*;
use super::shared_key::SharedKey;
use crate::security::{RelayKeys, RelayPublicKeys, sealed};
use crate::time::Entropy;

/// The relay's public key is not one to which a key can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay's public key is unusable")]
pub struct UnusableRelayKey;

/// Writes the fragment document that registers `shared`.
pub(super) fn write(
    keys: &ManagerKeys,
    relay: &RelayPublicKeys,
    shared: &SharedKey,
    entropy: &mut dyn Entropy,
) -> Result<String, UnusableRelayKey> {
    let (server, method) = (keys.name(), Operation::Registration.name());
    let (sealed, key_algorithm, signature_algorithm) = match &keys.signer {
        Signer::Modern(_) => {
            let sealed =
                sealed::seal(relay.modern(), SEAL_PURPOSE, server.as_bytes(), shared.expose(), entropy);
            (sealed.map_err(|_| UnusableRelayKey)?, KEY_X25519, SIGNATURE_ED25519)
        }
        Signer::Legacy(_) => {
            let sealed = relay.seal_legacy(shared.expose(), entropy).ok_or(UnusableRelayKey)?;
            (sealed, KEY_ELGAMAL, SIGNATURE_RSA)
        }
    };
    let sealed = base64_text::encode(sealed);
    let secured = [("Key", sealed.as_str()), ("KeyAlg", key_algorithm)];
    let header = fragment::header(server, method, &secured);
    let signature = match &keys.signer {
        Signer::Modern(signer) => base64_text::encode(signer.sign(header.as_bytes())),
        Signer::Legacy(signer) => base64_text::encode(signer.sign(header.as_bytes())),
    };
    let authenticator = [("Sig", signature.as_str()), ("SigAlg", signature_algorithm)];
    Ok(fragment::finished(server, method, &secured, &[("g:Auth", &authenticator)]))
}

/// A registration with everything in it, before its management server is looked for.
pub(super) struct Offer {
    key: Vec<u8>,
    key_algorithm: String,
    signature: Vec<u8>,
    signature_algorithm: String,
}

impl Offer {
    /// Takes the four values; each has to be there.
    pub(super) fn read(fragment: &Fragment) -> Result<Self, SpmrError> {
        let authenticator = fragment.authenticator.as_ref().ok_or(SpmrError::Missing("g:Auth"))?;
        Ok(Self {
            key: base64_text::decode(required(&fragment.secured, "Key")?, "Key")?,
            key_algorithm: required(&fragment.secured, "KeyAlg")?.to_owned(),
            signature: base64_text::decode(required(authenticator, "Sig")?, "Sig")?,
            signature_algorithm: required(authenticator, "SigAlg")?.to_owned(),
        })
    }

    /// Verifies the signature, then opens the key: nobody but the management server learns what the private key makes of
    /// its bytes.
    pub(super) fn open(
        &self,
        fragment: &Fragment,
        manager: &ManagerPublicKey,
        relay: &RelayKeys,
    ) -> Result<SharedKey, SpmrError> {
        let mut wrong = SpmrError::WrongSignature;
        let signed = fragment.headers.iter().any(|(_, header)| {
            let verdict = manager.verify(&self.signature_algorithm, header, &self.signature);
            verdict.map_err(|error| wrong = error).is_ok()
        });
        if !signed {
            return Err(wrong);
        }
        let key = match self.key_algorithm.as_str() {
            KEY_X25519 => relay.open(SEAL_PURPOSE, fragment.server.as_bytes(), &self.key),
            KEY_ELGAMAL => relay.open_legacy(&self.key),
            other => return Err(SpmrError::Algorithm("KeyAlg", other.to_owned())),
        };
        let key = key.map_err(|_| SpmrError::KeyNotOpened)?;
        SharedKey::from_bytes(&key).ok_or(SpmrError::KeyLength(key.len()))
    }
}
