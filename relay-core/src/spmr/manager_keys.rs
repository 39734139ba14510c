//! What a management server is to its relay: the key pair with which it signs registrations. The public half stands in the
//! relay's configuration as one line of text; the private half, with the key that it shares with the relay, in a file of
//! the management server's.

use super::base64_text;
use super::error::SpmrError;
use super::profile::{MAX_SERVER_NAME_BYTES, SIGNATURE_ED25519, SIGNATURE_RSA};
use super::shared_key::SharedKey;
use crate::directory::Profile;
use crate::security::key_file::{self, Entries};
use crate::security::{KeyFileError, ModernSigner, der, rsa};
use crate::time::Entropy;
use ring::signature::{ED25519, UnparsedPublicKey};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const MODERN_KIND: &str = "manager-modern";
const LEGACY_KIND: &str = "manager-legacy";
const NAME: &str = "name";
const SHARED: &str = "shared";
const SEED: &str = "ed25519";
const RSA_MODULUS: &str = "rsa-2048-modulus";
const RSA_EXPONENT: &str = "rsa-2048-exponent";
const ED25519_PREFIX: &str = "ed25519:";
const RSA_PREFIX: &str = "rsa:";

/// The public key of a management server, as text `ed25519:BASE64` or `rsa:BASE64` (a DER `RSAPublicKey` of 2048 to 4096
/// bits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagerPublicKey {
    /// 32 bytes.
    Ed25519([u8; 32]),
    /// A DER `RSAPublicKey`.
    Rsa(Vec<u8>),
}

/// A text is not the public key of a management server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a management server's key is `ed25519:` or `rsa:` and base64, as `relayctl manager init` prints it")]
pub struct NotAManagerKey;

impl FromStr for ManagerPublicKey {
    type Err = NotAManagerKey;

    fn from_str(text: &str) -> Result<Self, NotAManagerKey> {
        let decoded = |base64: &str| base64_text::decode(base64, "key").map_err(|_| NotAManagerKey);
        if let Some(base64) = text.strip_prefix(ED25519_PREFIX) {
            return decoded(base64)?.try_into().map(Self::Ed25519).map_err(|_| NotAManagerKey);
        }
        let key = decoded(text.strip_prefix(RSA_PREFIX).ok_or(NotAManagerKey)?)?;
        match der::read(&key) {
            Ok(integers) if integers.len() == 2 && (256..=512).contains(&integers[0].len()) => {
                Ok(Self::Rsa(key))
            }
            _ => Err(NotAManagerKey),
        }
    }
}

impl fmt::Display for ManagerPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519(key) => write!(f, "{ED25519_PREFIX}{}", base64_text::encode(key)),
            Self::Rsa(key) => write!(f, "{RSA_PREFIX}{}", base64_text::encode(key)),
        }
    }
}

impl ManagerPublicKey {
    /// Verifies a signature over `header` that was made with the algorithm that SigAlg names.
    pub(super) fn verify(&self, algorithm: &str, header: &[u8], signature: &[u8]) -> Result<(), SpmrError> {
        let right = match (self, algorithm) {
            (Self::Ed25519(key), SIGNATURE_ED25519) => {
                UnparsedPublicKey::new(&ED25519, key).verify(header, signature).is_ok()
            }
            (Self::Rsa(key), SIGNATURE_RSA) => verify_rsa(key, header, signature),
            (_, SIGNATURE_ED25519 | SIGNATURE_RSA) => false,
            (_, other) => return Err(SpmrError::Algorithm("SigAlg", other.to_owned())),
        };
        if right { Ok(()) } else { Err(SpmrError::WrongSignature) }
    }
}

/// Whether the digest is hashed once more before it is signed, and the order of the signature's bytes, were not seen (8.5):
/// every reading is tried.
fn verify_rsa(key: &[u8], header: &[u8], signature: &[u8]) -> bool {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, header);
    let reversed: Vec<u8> = signature.iter().rev().copied().collect();
    [signature, &reversed].into_iter().any(|signature| {
        [header, digest.as_ref()].into_iter().any(|message| rsa::verify(key, message, signature))
    })
}

/// A management server's name is not 1 to 255 bytes of printable characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a management server has 1 to {MAX_SERVER_NAME_BYTES} bytes and no control characters")]
pub struct NotAServerName;

/// A management server's own keys. Wiped when dropped; `Debug` shows its name only.
pub struct ManagerKeys {
    name: String,
    pub(super) signer: Signer,
    shared: Option<SharedKey>,
}

/// The signature key pair, which decides the algorithms of the registration.
pub(super) enum Signer {
    Modern(ModernSigner),
    /// On the heap: much larger than the other.
    Legacy(Box<rsa::PrivateKey>),
}

impl ManagerKeys {
    /// Makes keys for the management server `name`. In the legacy profile that takes the time of an RSA key, up to seconds.
    ///
    /// # Errors
    /// [`NotAServerName`].
    pub fn generate(name: &str, profile: Profile, entropy: &mut dyn Entropy) -> Result<Self, NotAServerName> {
        let name = checked_name(name).ok_or(NotAServerName)?;
        let signer = match profile {
            Profile::Modern => Signer::Modern(ModernSigner::generate(entropy)),
            Profile::Legacy => Signer::Legacy(Box::new(rsa::PrivateKey::generate(entropy))),
        };
        Ok(Self { name, signer, shared: None })
    }

    /// The management server's identity.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that it shares with its relay, once it has registered.
    pub fn shared(&self) -> Option<&SharedKey> {
        self.shared.as_ref()
    }

    /// Takes the key of a successful registration; the file wants writing then.
    pub fn set_shared(&mut self, key: SharedKey) {
        self.shared = Some(key);
    }

    /// What the relay's configuration needs.
    pub fn public(&self) -> ManagerPublicKey {
        match &self.signer {
            Signer::Modern(signer) => ManagerPublicKey::Ed25519(signer.public()),
            Signer::Legacy(signer) => ManagerPublicKey::Rsa(signer.public_der()),
        }
    }

    /// The keys as the text of a key file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let shared = self.shared.as_ref().map_or(&[][..], |key| key.expose());
        let (name, shared) = ((NAME, self.name.as_bytes()), (SHARED, shared));
        match &self.signer {
            Signer::Modern(signer) => key_file::write(MODERN_KIND, &[name, shared, (SEED, signer.seed())]),
            Signer::Legacy(signer) => {
                let (modulus, exponent) = signer.to_parts();
                let entries =
                    [name, shared, (RSA_MODULUS, &modulus[..]), (RSA_EXPONENT, exponent.as_slice())];
                key_file::write(LEGACY_KIND, &entries)
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a management server's keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let (mut entries, modern) = match Entries::read(MODERN_KIND, file) {
            Err(KeyFileError::OtherKind(_)) => (Entries::read(LEGACY_KIND, file)?, false),
            entries => (entries?, true),
        };
        let name = std::str::from_utf8(&entries.take(NAME)?).ok().and_then(checked_name);
        let shared = match entries.take(SHARED)?.as_slice() {
            [] => None,
            key => Some(SharedKey::from_bytes(key).ok_or(KeyFileError::Invalid(SHARED))?),
        };
        let signer = if modern {
            Signer::Modern(ModernSigner::from_seed(entries.exact(SEED)?))
        } else {
            let (modulus, exponent) = (entries.exact(RSA_MODULUS)?, entries.exact(RSA_EXPONENT)?);
            let key = rsa::PrivateKey::from_parts(&modulus, &exponent);
            Signer::Legacy(Box::new(key.ok_or(KeyFileError::Invalid(RSA_EXPONENT))?))
        };
        entries.end()?;
        Ok(Self { name: name.ok_or(KeyFileError::Invalid(NAME))?, signer, shared })
    }
}

impl fmt::Debug for ManagerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagerKeys({})", self.name)
    }
}

fn checked_name(name: &str) -> Option<String> {
    let right = (1..=MAX_SERVER_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    right.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::test_entropy::Seeded;

    #[test]
    fn keys_survive_their_file_and_public_keys_their_text() {
        for profile in [Profile::Modern, Profile::Legacy] {
            let mut keys = ManagerKeys::generate("msrv1.example", profile, &mut Seeded::new(1)).unwrap();
            assert!(ManagerKeys::decode(&keys.encode()).unwrap().shared().is_none());
            keys.set_shared(SharedKey::generate(&mut Seeded::new(2)));
            let read = ManagerKeys::decode(&keys.encode()).unwrap();
            assert_eq!((read.name(), read.shared()), (keys.name(), keys.shared()));
            assert_eq!(read.public(), keys.public());
            assert_eq!(keys.public().to_string().parse(), Ok(keys.public()));
            assert_eq!(format!("{keys:?}"), "ManagerKeys(msrv1.example)");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "ed25519:", "ed25519:AQI=", "rsa:AQI=", "dsa:AQI=", "rsa:MAYCAQMCAQU="] {
            assert_eq!(text.parse::<ManagerPublicKey>(), Err(NotAManagerKey), "{text}");
        }
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert!(ManagerKeys::generate(name, Profile::Modern, &mut Seeded::new(1)).is_err());
        }
        assert!(matches!(ManagerKeys::decode(b""), Err(KeyFileError::OtherKind(_))));
    }

    #[test]
    fn a_signature_that_was_hashed_twice_or_turned_round_is_read_too() {
        let keys = ManagerKeys::generate("m", Profile::Legacy, &mut Seeded::new(1)).unwrap();
        let (Signer::Legacy(signer), public) = (&keys.signer, keys.public()) else { panic!() };
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, b"header");
        for message in [b"header", digest.as_ref()] {
            let mut signature = signer.sign(message).to_vec();
            assert_eq!(public.verify(SIGNATURE_RSA, b"header", &signature), Ok(()));
            signature.reverse();
            assert_eq!(public.verify(SIGNATURE_RSA, b"header", &signature), Ok(()));
            assert_eq!(public.verify(SIGNATURE_RSA, b"other", &signature), Err(SpmrError::WrongSignature));
            assert_eq!(
                public.verify(SIGNATURE_ED25519, b"header", &signature),
                Err(SpmrError::WrongSignature)
            );
        }
    }
}
