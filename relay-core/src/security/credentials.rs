//! What a client holds for a device or an account: the secret key that it shares with its relay and the signature key
//! pair that signs the registration. Owns their making and their file form; sends nothing.

use super::key_file::{self, Entries, KeyFileError};
use super::profile::{ED25519_KEY_BYTES, ED25519_SIGNATURE_BYTES, MODERN_KEY_BYTES};
use crate::directory::{Credentials, Profile, SecretKey};
use crate::time::Entropy;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fmt;
use zeroize::Zeroizing;

const MODERN_KIND: &str = "client-modern";
const SECRET: &str = "secret";
const ED25519: &str = "ed25519";

/// The keys of one device or account on the client's side. Wiped when dropped; `Debug` shows the profile only.
pub struct ClientCredentials {
    secret: SecretKey,
    pub(super) signer: Signer,
}

/// The signature key pair.
pub(super) enum Signer {
    Modern(ModernSigner),
}

impl ClientCredentials {
    /// Makes new keys of the modern profile.
    pub fn generate_modern(entropy: &mut dyn Entropy) -> Self {
        let mut secret = vec![0; MODERN_KEY_BYTES];
        entropy.fill(&mut secret);
        let mut seed = Zeroizing::new([0; ED25519_KEY_BYTES]);
        entropy.fill(seed.as_mut_slice());
        Self { secret: SecretKey::new(secret), signer: Signer::Modern(ModernSigner { seed }) }
    }

    /// The keys as the text of a key file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        match &self.signer {
            Signer::Modern(signer) => key_file::write(
                MODERN_KIND,
                &[(SECRET, self.secret.expose()), (ED25519, signer.seed.as_slice())],
            ),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a client's keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut entries = Entries::read(MODERN_KIND, file)?;
        let secret = entries.exact::<MODERN_KEY_BYTES>(SECRET)?;
        let seed = entries.exact(ED25519)?;
        entries.end()?;
        Ok(Self { secret: SecretKey::new(secret.to_vec()), signer: Signer::Modern(ModernSigner { seed }) })
    }

    /// The profile to which the keys belong.
    pub fn profile(&self) -> Profile {
        match self.signer {
            Signer::Modern(_) => Profile::Modern,
        }
    }

    /// The secret key of the challenge/response.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// What a relay's directory holds after these keys have been registered.
    pub fn as_registered(&self) -> Credentials {
        let public_keys = match &self.signer {
            Signer::Modern(signer) => signer.public().to_vec(),
        };
        Credentials { profile: self.profile(), secret: self.secret.clone(), public_keys }
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCredentials({:?})", self.profile())
    }
}

/// The Ed25519 pair of the modern profile, kept as its seed: it signs at registration only.
pub(super) struct ModernSigner {
    seed: Zeroizing<[u8; ED25519_KEY_BYTES]>,
}

impl ModernSigner {
    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.seed.as_slice()).expect("any 32 bytes are an Ed25519 seed")
    }

    /// The public half.
    pub(super) fn public(&self) -> [u8; ED25519_KEY_BYTES] {
        self.pair().public_key().as_ref().try_into().expect("an Ed25519 public key is 32 bytes")
    }

    /// Signs `message`.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        self.pair().sign(message).as_ref().try_into().expect("an Ed25519 signature is 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_entropy::Seeded;
    use super::*;

    #[test]
    fn client_credentials_survive_their_key_file() {
        let made = ClientCredentials::generate_modern(&mut Seeded::new(1));
        let read = ClientCredentials::decode(&made.encode()).unwrap();
        assert_eq!(read.as_registered(), made.as_registered());
        assert_eq!(*read.encode(), *made.encode());
        assert!(matches!(ClientCredentials::decode(b""), Err(KeyFileError::OtherKind(_))));
    }

    #[test]
    fn debug_shows_no_secret() {
        let made = ClientCredentials::generate_modern(&mut Seeded::new(1));
        assert_eq!(format!("{made:?}"), "ClientCredentials(Modern)");
    }
}
