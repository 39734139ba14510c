//! The relay's long-lived key pairs, which open the secret keys that clients register: X25519 for the modern profile,
//! ElGamal for the legacy one. Private halves are never on the wire; where their file lies is the caller's affair.

use super::key_file::{self, Entries, KeyFileError};
use super::legacy::elgamal;
use super::profile::{ELGAMAL_CIPHERTEXT_BYTES, MAX_ELGAMAL_PLAINTEXT_BYTES, X25519_BYTES};
use super::sealed::{self, NotOpened};
use crate::time::Entropy;
use std::fmt;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

const PRIVATE_KIND: &str = "relay-private";
const PUBLIC_KIND: &str = "relay-public";
const X25519: &str = "x25519";
const ELGAMAL: &str = "elgamal-1536";

/// The relay's private keys. Wiped when dropped; `Debug` shows the public fingerprint only.
pub struct RelayKeys {
    modern: StaticSecret,
    legacy: elgamal::PrivateKey,
    public: RelayPublicKeys,
}

impl RelayKeys {
    fn new(modern: StaticSecret, legacy: elgamal::PrivateKey) -> Self {
        let public = RelayPublicKeys { modern: PublicKey::from(&modern).to_bytes(), legacy: legacy.public() };
        Self { modern, legacy, public }
    }

    /// Makes new keys.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut modern = Zeroizing::new([0; X25519_BYTES]);
        entropy.fill(modern.as_mut_slice());
        Self::new(StaticSecret::from(*modern), elgamal::PrivateKey::generate(entropy))
    }

    /// The keys as the text of a key file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let legacy = self.legacy.to_bytes();
        key_file::write(PRIVATE_KIND, &[(X25519, self.modern.as_bytes()), (ELGAMAL, legacy.as_slice())])
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a relay's private keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut entries = Entries::read(PRIVATE_KIND, file)?;
        let modern = entries.exact(X25519)?;
        let legacy = entries.exact(ELGAMAL)?;
        entries.end()?;
        let legacy = elgamal::PrivateKey::from_bytes(&legacy).map_err(|_| KeyFileError::Invalid(ELGAMAL))?;
        Ok(Self::new(StaticSecret::from(*modern), legacy))
    }

    /// The public halves, which clients need in order to register.
    pub fn public(&self) -> &RelayPublicKeys {
        &self.public
    }

    /// The X25519 secret that this relay shares with the owner of `public`; `None` for a point of small order, which
    /// shares the same one with everybody.
    pub(super) fn agree(&self, public: &[u8; X25519_BYTES]) -> Option<SharedSecret> {
        let shared = self.modern.diffie_hellman(&PublicKey::from(*public));
        shared.was_contributory().then_some(shared)
    }

    /// Opens a secret that [`sealed::seal`] sealed to the modern public key.
    ///
    /// # Errors
    /// [`NotOpened`] if it was sealed to another key, for another purpose or for other associated data.
    pub fn open(
        &self,
        info: &str,
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        sealed::open(&self.modern, info, associated, sealed)
    }

    /// Opens a secret that [`RelayPublicKeys::seal_legacy`] encrypted. Nothing tells an altered ciphertext from one of
    /// another secret, except by chance: check the length of what comes out.
    ///
    /// # Errors
    /// [`NotOpened`] if `ciphertext` is not 384 bytes, or what comes out is not padded as it should be.
    pub fn open_legacy(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let ciphertext: &[u8; ELGAMAL_CIPHERTEXT_BYTES] = ciphertext.try_into().map_err(|_| NotOpened)?;
        self.legacy.decrypt(ciphertext).map_err(|_| NotOpened)
    }
}

impl fmt::Debug for RelayKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayKeys({})", self.public.fingerprint())
    }
}

/// The relay's public keys, by which clients address the secrets that they register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPublicKeys {
    modern: [u8; X25519_BYTES],
    legacy: elgamal::PublicKey,
}

impl RelayPublicKeys {
    /// Takes an X25519 key and the DER form of an ElGamal key of the 1536-bit group (sstp-security 8.5).
    ///
    /// # Errors
    /// [`KeyFileError::Invalid`] if the DER is not such a key.
    pub fn new(modern: [u8; X25519_BYTES], legacy_der: &[u8]) -> Result<Self, KeyFileError> {
        let legacy = elgamal::PublicKey::from_der(legacy_der).map_err(|_| KeyFileError::Invalid(ELGAMAL))?;
        Ok(Self { modern, legacy })
    }

    /// The X25519 key of the modern profile.
    pub fn modern(&self) -> &[u8; X25519_BYTES] {
        &self.modern
    }

    /// The ElGamal key of the legacy profile in its canned DER form (sstp-security 8.5).
    pub fn legacy_der(&self) -> Vec<u8> {
        self.legacy.to_der()
    }

    pub(super) fn legacy_key(&self) -> &elgamal::PublicKey {
        &self.legacy
    }

    /// Encrypts a secret of at most [`MAX_ELGAMAL_PLAINTEXT_BYTES`] to the legacy key; `None` if it is longer.
    pub fn seal_legacy(&self, secret: &[u8], entropy: &mut dyn Entropy) -> Option<Vec<u8>> {
        (secret.len() <= MAX_ELGAMAL_PLAINTEXT_BYTES).then(|| self.legacy.encrypt(secret, entropy).to_vec())
    }

    /// The keys as the text of a key file for clients. Nothing in it is secret.
    pub fn encode(&self) -> Vec<u8> {
        key_file::write(PUBLIC_KIND, &[(X25519, &self.modern), (ELGAMAL, &self.legacy_der())]).to_vec()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a relay's public keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut entries = Entries::read(PUBLIC_KIND, file)?;
        let modern = *entries.exact(X25519)?;
        let legacy = entries.take(ELGAMAL)?;
        entries.end()?;
        Self::new(modern, &legacy)
    }

    /// The first 16 bytes of the SHA-256 of the keys in hexadecimal, for people to compare.
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.encode());
        digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_entropy::Seeded;
    use super::*;

    #[test]
    fn relay_keys_survive_their_key_files() {
        let keys = RelayKeys::generate(&mut Seeded::new(1));
        let again = RelayKeys::decode(&keys.encode()).unwrap();
        assert_eq!(again.public(), keys.public());
        assert_eq!(*again.encode(), *keys.encode());
        assert_eq!(RelayPublicKeys::decode(&keys.public().encode()).as_ref(), Ok(keys.public()));
        assert!(matches!(RelayKeys::decode(&keys.public().encode()), Err(KeyFileError::OtherKind(_))));
        assert!(matches!(RelayKeys::decode(b"furrow-keys 1 relay-private\n"), Err(KeyFileError::Missing(_))));
        assert_eq!(RelayPublicKeys::new([1; 32], b"not DER"), Err(KeyFileError::Invalid(ELGAMAL)));
    }

    #[test]
    fn a_secret_encrypted_to_the_legacy_key_opens_with_it() {
        let keys = RelayKeys::generate(&mut Seeded::new(1));
        let sealed = keys.public().seal_legacy(b"twenty bytes of key.", &mut Seeded::new(2)).unwrap();
        assert_eq!(keys.open_legacy(&sealed).unwrap().as_slice(), b"twenty bytes of key.");
        assert_eq!(keys.open_legacy(&sealed[1..]), Err(NotOpened));
        assert!(keys.public().seal_legacy(&[0; 190], &mut Seeded::new(2)).is_none());
    }

    #[test]
    fn debug_shows_the_fingerprint_and_no_secret() {
        let keys = RelayKeys::generate(&mut Seeded::new(1));
        assert_eq!(keys.public().fingerprint().len(), 32);
        assert_eq!(format!("{keys:?}"), format!("RelayKeys({})", keys.public().fingerprint()));
        assert_ne!(
            keys.public().fingerprint(),
            RelayKeys::generate(&mut Seeded::new(2)).public().fingerprint()
        );
    }
}
