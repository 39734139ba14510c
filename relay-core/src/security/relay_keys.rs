//! The relay's long-lived key pair, which opens the secret keys that clients register. Never on the wire itself; where
//! its file lies is the caller's affair.

use super::key_file::{self, Entries, KeyFileError};
use super::profile::X25519_BYTES;
use super::sealed::{self, NotOpened};
use crate::time::Entropy;
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const PRIVATE_KIND: &str = "relay-private";
const PUBLIC_KIND: &str = "relay-public";
const X25519: &str = "x25519";

/// The relay's private keys. Wiped when dropped; `Debug` shows the public fingerprint only.
pub struct RelayKeys {
    modern: StaticSecret,
    public: RelayPublicKeys,
}

impl RelayKeys {
    fn new(modern: StaticSecret) -> Self {
        let public = RelayPublicKeys { modern: PublicKey::from(&modern).to_bytes() };
        Self { modern, public }
    }

    /// Makes new keys.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut modern = Zeroizing::new([0; X25519_BYTES]);
        entropy.fill(modern.as_mut_slice());
        Self::new(StaticSecret::from(*modern))
    }

    /// The keys as the text of a key file.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        key_file::write(PRIVATE_KIND, &[(X25519, self.modern.as_bytes())])
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a relay's private keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut entries = Entries::read(PRIVATE_KIND, file)?;
        let modern = entries.exact(X25519)?;
        entries.end()?;
        Ok(Self::new(StaticSecret::from(*modern)))
    }

    /// The public halves, which clients need in order to register.
    pub fn public(&self) -> &RelayPublicKeys {
        &self.public
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
}

impl fmt::Debug for RelayKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayKeys({})", self.public.fingerprint())
    }
}

/// The relay's public keys, by which clients address the secrets that they register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPublicKeys {
    /// The X25519 key of the modern profile.
    pub modern: [u8; X25519_BYTES],
}

impl RelayPublicKeys {
    /// The keys as the text of a key file for clients. Nothing in it is secret.
    pub fn encode(&self) -> Vec<u8> {
        key_file::write(PUBLIC_KIND, &[(X25519, &self.modern)]).to_vec()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`KeyFileError`] if `file` is not a key file with a relay's public keys.
    pub fn decode(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut entries = Entries::read(PUBLIC_KIND, file)?;
        let modern = *entries.exact(X25519)?;
        entries.end()?;
        Ok(Self { modern })
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
