//! RSA as clients of the legacy profile need it: PKCS#1 v1.5 signatures with SHA-1, and 2048-bit keys. `ring` verifies such
//! signatures, which is all that a relay does; it neither makes them nor the keys. Decrypts nothing.

use super::der;
use crate::security::profile::{RSA_BYTES, RSA_PUBLIC_EXPONENT};
use crate::time::Entropy;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::rand_core::{TryCryptoRng, TryRng};
use crypto_bigint::{NonZero, Odd, U1024, U2048};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use ring::{digest, signature};
use std::convert::Infallible;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The DER of DigestInfo for SHA-1 up to the digest (RFC 8017 sec. 9.2 note 1).
const SHA1_DIGEST_INFO: [u8; 15] =
    [0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];

/// Verifies a signature by the DER `RSAPublicKey`.
pub(crate) fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, public_key)
        .verify(message, signature)
        .is_ok()
}

/// A 2048-bit private key as modulus and private exponent, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct PrivateKey {
    modulus: U2048,
    exponent: U2048,
}

impl PrivateKey {
    /// Makes a key: two primes of 1024 bits, and the inverse of the public exponent.
    pub(crate) fn generate(entropy: &mut dyn Entropy) -> Self {
        let public = NonZero::new(U1024::from(RSA_PUBLIC_EXPONENT)).expect("the exponent is not zero");
        loop {
            let (mut p, mut q) = (prime(entropy), prime(entropy));
            let mut p1 = p.wrapping_sub(&U1024::ONE);
            let mut q1 = q.wrapping_sub(&U1024::ONE);
            // The public exponent is prime: it has an inverse unless it divides one of the two.
            let usable = p != q && [&p1, &q1].into_iter().all(|factor| factor.rem(&public) != U1024::ZERO);
            let modulus: U2048 = p.concatenating_mul(&q);
            let order: U2048 = p1.concatenating_mul(&q1);
            for part in [&mut p, &mut q, &mut p1, &mut q1] {
                part.zeroize();
            }
            if usable {
                let order = Zeroizing::new(NonZero::new(order).expect("primes are more than one"));
                let exponent = U2048::from(RSA_PUBLIC_EXPONENT).invert_mod(&order);
                return Self { modulus, exponent: exponent.expect("the exponent is coprime to the order") };
            }
        }
    }

    /// Takes big-endian modulus and private exponent; `None` if they cannot be those of a 2048-bit key.
    pub(crate) fn from_parts(modulus: &[u8; RSA_BYTES], exponent: &[u8; RSA_BYTES]) -> Option<Self> {
        let key = Self { modulus: U2048::from_be_slice(modulus), exponent: U2048::from_be_slice(exponent) };
        let proper = modulus[0] & 0x80 != 0 && modulus[RSA_BYTES - 1] & 1 != 0;
        (proper && key.exponent > U2048::ONE && key.exponent < key.modulus).then_some(key)
    }

    /// Big-endian modulus and private exponent.
    pub(crate) fn to_parts(&self) -> ([u8; RSA_BYTES], Zeroizing<[u8; RSA_BYTES]>) {
        (self.modulus.to_be_bytes().into(), Zeroizing::new(self.exponent.to_be_bytes().into()))
    }

    /// The DER `RSAPublicKey`.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        der::write(&[&self.to_parts().0, &RSA_PUBLIC_EXPONENT.to_be_bytes()])
    }

    /// Signs `message` (RFC 8017 sec. 8.2.1), in constant time.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; RSA_BYTES] {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, message);
        let tail = [&[0][..], &SHA1_DIGEST_INFO, digest.as_ref()].concat();
        let mut encoded = [0xff; RSA_BYTES];
        encoded[..2].copy_from_slice(&[0, 1]);
        encoded[RSA_BYTES - tail.len()..].copy_from_slice(&tail);
        let modulus = Odd::new(self.modulus).expect("both constructors see to an odd modulus");
        let message = FixedMontyForm::new(&U2048::from_be_slice(&encoded), &FixedMontyParams::new(modulus));
        message.pow(&self.exponent).retrieve().to_be_bytes().into()
    }
}

fn prime(entropy: &mut dyn Entropy) -> U1024 {
    let sieve = SmallFactorsSieveFactory::new(Flavor::Any, U1024::BITS, SetBits::TwoMsb)
        .expect("1024 bits are enough for a sieve");
    sieve_and_find(&mut Source(entropy), sieve, |_, candidate| is_prime(Flavor::Any, candidate))
        .expect("1024 bits are what the number holds")
        .expect("the sieve never ends")
}

/// Our randomness, as the number libraries ask for it.
struct Source<'a>(&'a mut dyn Entropy);

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.0.fill(&mut word);
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Source<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::test_entropy::Seeded;

    #[test]
    fn signatures_of_a_made_key_verify() {
        let key = PrivateKey::generate(&mut Seeded::new(1));
        let (modulus, exponent) = key.to_parts();
        let read = PrivateKey::from_parts(&modulus, &exponent).unwrap();
        let mut signature = read.sign(b"message");
        assert!(verify(&key.public_der(), b"message", &signature));
        assert!(!verify(&key.public_der(), b"messagf", &signature));
        signature[255] ^= 1;
        assert!(!verify(&key.public_der(), b"message", &signature));
    }

    #[test]
    fn numbers_that_make_no_2048_bit_key_are_refused() {
        let (odd, mut even, mut short) = ([0xff; RSA_BYTES], [0xff; RSA_BYTES], [0xff; RSA_BYTES]);
        even[RSA_BYTES - 1] = 0xfe;
        short[0] = 0x7f;
        assert!(PrivateKey::from_parts(&odd, &even).is_some());
        assert!(PrivateKey::from_parts(&even, &short).is_none());
        assert!(PrivateKey::from_parts(&short, &[0x01; RSA_BYTES]).is_none());
        assert!(PrivateKey::from_parts(&odd, &odd).is_none());
        assert!(PrivateKey::from_parts(&odd, &[0; RSA_BYTES]).is_none());
    }
}
