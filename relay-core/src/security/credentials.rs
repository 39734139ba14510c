//! What a client holds for a device or an account: the secret key that it shares with its relay and the signature key
//! pair that signs the registration. Owns their making and their file form; sends nothing.

use super::key_file::{self, Entries, KeyFileError};
use super::legacy::{elgamal, public_keys, rsa};
use super::profile::{ED25519_KEY_BYTES, ED25519_SIGNATURE_BYTES, RSA_BYTES};
use crate::directory::{Credentials, Profile, SecretKey};
use crate::time::Entropy;
use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fmt;
use zeroize::Zeroizing;

const MODERN_KIND: &str = "client-modern";
const LEGACY_KIND: &str = "client-legacy";
const SECRET: &str = "secret";
const ED25519: &str = "ed25519";
const RSA_MODULUS: &str = "rsa-2048-modulus";
const RSA_EXPONENT: &str = "rsa-2048-exponent";
const ELGAMAL: &str = "elgamal-1536";

/// The keys of one device or account on the client's side. Wiped when dropped; `Debug` shows the profile only.
pub struct ClientCredentials {
    secret: SecretKey,
    pub(super) signer: Signer,
}

/// The signature key pair, which also decides the profile.
pub(super) enum Signer {
    Modern(ModernSigner),
    /// On the heap: much larger than the other.
    Legacy(Box<LegacySigner>),
}

impl ClientCredentials {
    /// Makes new keys. In the legacy profile that takes the time of an RSA key, up to seconds.
    pub fn generate(profile: Profile, entropy: &mut dyn Entropy) -> Self {
        let mut secret = vec![0; profile.key_bytes()];
        entropy.fill(&mut secret);
        let signer = match profile {
            Profile::Modern => Signer::Modern(ModernSigner::generate(entropy)),
            Profile::Legacy => Signer::Legacy(Box::new(LegacySigner::generate(entropy))),
        };
        Self { secret: SecretKey::new(secret), signer }
    }

    /// The keys as the text of a key file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let secret = (SECRET, self.secret.expose());
        match &self.signer {
            Signer::Modern(signer) => key_file::write(MODERN_KIND, &[secret, (ED25519, signer.seed())]),
            Signer::Legacy(signer) => {
                let (modulus, exponent) = signer.signature.to_parts();
                let encryption = signer.encryption.to_bytes();
                let signature = [(RSA_MODULUS, &modulus[..]), (RSA_EXPONENT, exponent.as_slice())];
                let entries = [secret, signature[0], signature[1], (ELGAMAL, encryption.as_slice())];
                key_file::write(LEGACY_KIND, &entries)
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a client's keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        match Entries::read(MODERN_KIND, file) {
            Err(KeyFileError::OtherKind(_)) => Self::decode_legacy(Entries::read(LEGACY_KIND, file)?),
            entries => Self::decode_modern(entries?),
        }
    }

    fn decode_modern(mut entries: Entries<'_>) -> Result<Self, KeyFileError> {
        let secret = secret(&mut entries, Profile::Modern)?;
        let seed = entries.exact(ED25519)?;
        entries.end()?;
        Ok(Self { secret, signer: Signer::Modern(ModernSigner::from_seed(seed)) })
    }

    fn decode_legacy(mut entries: Entries<'_>) -> Result<Self, KeyFileError> {
        let secret = secret(&mut entries, Profile::Legacy)?;
        let (modulus, exponent) = (entries.exact(RSA_MODULUS)?, entries.exact(RSA_EXPONENT)?);
        let encryption = entries.exact(ELGAMAL)?;
        entries.end()?;
        let signature = rsa::PrivateKey::from_parts(&modulus, &exponent);
        let encryption = elgamal::PrivateKey::from_bytes(&encryption);
        let signer = LegacySigner {
            signature: signature.ok_or(KeyFileError::Invalid(RSA_EXPONENT))?,
            encryption: encryption.map_err(|_| KeyFileError::Invalid(ELGAMAL))?,
        };
        Ok(Self { secret, signer: Signer::Legacy(Box::new(signer)) })
    }

    /// The profile to which the keys belong.
    pub fn profile(&self) -> Profile {
        match self.signer {
            Signer::Modern(_) => Profile::Modern,
            Signer::Legacy(_) => Profile::Legacy,
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
            Signer::Legacy(signer) => signer.public_keys().to_vec(),
        };
        Credentials { profile: self.profile(), secret: self.secret.clone(), public_keys }
    }
}

fn secret(entries: &mut Entries<'_>, profile: Profile) -> Result<SecretKey, KeyFileError> {
    let secret = entries.take(SECRET)?;
    match secret.len() == profile.key_bytes() {
        true => Ok(SecretKey::new(secret.to_vec())),
        false => Err(KeyFileError::Invalid(SECRET)),
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCredentials({:?})", self.profile())
    }
}

/// The Ed25519 pair of the modern profile, kept as its seed: it signs at registration only.
pub(crate) struct ModernSigner {
    seed: Zeroizing<[u8; ED25519_KEY_BYTES]>,
}

impl ModernSigner {
    /// Draws a new pair.
    pub(crate) fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; ED25519_KEY_BYTES]);
        entropy.fill(seed.as_mut_slice());
        Self { seed }
    }

    /// Takes the seed of a pair.
    pub(crate) fn from_seed(seed: Zeroizing<[u8; ED25519_KEY_BYTES]>) -> Self {
        Self { seed }
    }

    /// The seed of the pair, for a key file.
    pub(crate) fn seed(&self) -> &[u8] {
        self.seed.as_slice()
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.seed.as_slice()).expect("any 32 bytes are an Ed25519 seed")
    }

    /// The public half.
    pub(crate) fn public(&self) -> [u8; ED25519_KEY_BYTES] {
        self.pair().public_key().as_ref().try_into().expect("an Ed25519 public key is 32 bytes")
    }

    /// Signs `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        self.pair().sign(message).as_ref().try_into().expect("an Ed25519 signature is 64 bytes")
    }
}

/// The two pairs of the legacy profile (sstp-security 7.7). Relays learn the encryption key and never use it.
pub(super) struct LegacySigner {
    signature: rsa::PrivateKey,
    encryption: elgamal::PrivateKey,
}

impl LegacySigner {
    fn generate(entropy: &mut dyn Entropy) -> Self {
        Self {
            signature: rsa::PrivateKey::generate(entropy),
            encryption: elgamal::PrivateKey::generate(entropy),
        }
    }

    /// The public keys object.
    pub(super) fn public_keys(&self) -> Bytes {
        public_keys::write(&self.encryption.public(), &self.signature.public_der())
    }

    /// Signs `message`.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; RSA_BYTES] {
        self.signature.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_entropy::Seeded;
    use super::*;

    #[test]
    fn client_credentials_survive_their_key_file() {
        for profile in [Profile::Modern, Profile::Legacy] {
            let made = ClientCredentials::generate(profile, &mut Seeded::new(1));
            let read = ClientCredentials::decode(&made.encode()).unwrap();
            assert_eq!(made.profile(), profile);
            assert_eq!(made.secret().expose().len(), profile.key_bytes());
            assert_eq!(read.as_registered(), made.as_registered());
            assert_eq!(*read.encode(), *made.encode());
        }
    }

    #[test]
    fn what_is_no_key_file_of_a_client_is_refused() {
        assert!(matches!(ClientCredentials::decode(b""), Err(KeyFileError::OtherKind(_))));
        let short = b"furrow-keys 1 client-modern\nsecret 00\ned25519 00\n";
        assert!(matches!(ClientCredentials::decode(short), Err(KeyFileError::Invalid(SECRET))));
        let modern = ClientCredentials::generate(Profile::Modern, &mut Seeded::new(1)).encode();
        let renamed = String::from_utf8(modern.to_vec()).unwrap().replace("client-modern", "client-legacy");
        assert!(matches!(ClientCredentials::decode(renamed.as_bytes()), Err(KeyFileError::Invalid(SECRET))));
    }

    #[test]
    fn debug_shows_no_secret() {
        let made = ClientCredentials::generate(Profile::Modern, &mut Seeded::new(1));
        assert_eq!(format!("{made:?}"), "ClientCredentials(Modern)");
    }
}
