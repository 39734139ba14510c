//! The key that a relay and a management server share (1.3.3): encrypts and authenticates the plaintext of every message
//! but the Registration request (management-soap-spmr 8.3, 8.4).

use super::profile::{IV_BYTES, MAC_BYTES, SHARED_KEY_BYTES};
use crate::security::marc4;
use crate::time::Entropy;
use ring::{digest, hmac};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A shared key. Wiped when dropped; its `Debug` form shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SharedKey([u8; SHARED_KEY_BYTES]);

impl SharedKey {
    /// Draws a new key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut key = [0; SHARED_KEY_BYTES];
        entropy.fill(&mut key);
        Self(key)
    }

    /// Takes key bytes; `None` unless they are 20.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The key bytes, for durable storage only.
    pub fn expose(&self) -> &[u8; SHARED_KEY_BYTES] {
        &self.0
    }

    /// A number by which the key can be remembered without being kept: SHA-256 of a label and the key.
    pub fn trace(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"spmr former key\0");
        context.update(&self.0);
        context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    /// Encrypts or decrypts in place (8.3).
    pub(super) fn crypt(&self, iv: &[u8; IV_BYTES], data: &mut [u8]) {
        marc4::apply(&self.0, iv, data);
    }

    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0)
    }

    /// The MAC over serialized header and plaintext (8.4).
    pub(super) fn mac(&self, header: &[u8], plaintext: &[u8]) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(&self.mac_key(), &digest_of(header, plaintext));
        tag.as_ref().try_into().expect("HMAC-SHA1 gives 20 bytes")
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, header: &[u8], plaintext: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.mac_key(), &digest_of(header, plaintext), mac).is_ok()
    }
}

fn digest_of(header: &[u8], plaintext: &[u8]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(header);
    context.update(plaintext);
    context.finish().as_ref().try_into().expect("SHA-1 gives 20 bytes")
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey")
    }
}

#[cfg(test)]
mod tests {
    use super::super::vectors::{IV1, IV2, K, hex, unhex};
    use super::*;

    #[test]
    fn keystreams_are_those_of_the_vectors() {
        let key = SharedKey::from_bytes(&unhex(K)).unwrap();
        let cases = [
            (IV1, "1c819257d07536c4f86d5ab54acdd719826e035b3798109abd8eedc0cc29d661"),
            (IV2, "aab6a11cad1b975509344823894c33ea"),
        ];
        for (iv, stream) in cases {
            let mut data = vec![0; stream.len() / 2];
            key.crypt(unhex(iv).as_slice().try_into().unwrap(), &mut data);
            assert_eq!(hex(&data), stream);
        }
    }

    #[test]
    fn the_key_is_160_bits_and_not_shown() {
        assert_eq!(SharedKey::from_bytes(&[0; 19]), None);
        assert_eq!(SharedKey::from_bytes(&[0; 21]), None);
        let key = SharedKey::from_bytes(&[7; 20]).unwrap();
        assert_eq!(format!("{key:?}"), "SharedKey");
        assert_ne!(key.trace(), SharedKey::from_bytes(&[8; 20]).unwrap().trace());
    }
}
