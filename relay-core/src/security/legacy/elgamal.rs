//! ElGamal with Crypto++ padding in the 1536-bit group (sstp-security 8.3, 8.4). The relay's exponent is long-lived and
//! strangers choose what it is applied to, so every exponentiation with a secret takes constant time.
//!
//! The scheme is malleable by nature: whoever can register keys learns of each try whether its last byte was a length.
//! What bounds that is the limit on registrations, not this code.

use super::der;
use crate::security::profile::{ELGAMAL_BYTES, ELGAMAL_CIPHERTEXT_BYTES, MAX_ELGAMAL_PLAINTEXT_BYTES};
use crate::time::Entropy;
use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{U256, U1536};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

// p = 2^1536 - 0x16F055 (seen, note 2 of sec. 6).
crypto_bigint::const_monty_params!(
    Group,
    U1536,
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe90fab",
    "The 1536-bit group."
);

type Element = ConstMontyForm<Group, { U1536::LIMBS }>;

/// The generator (seen, same note).
const G: Element = Element::new(&U1536::from_u8(3));
/// The integer that stands for the group in a canned key (seen, note 2 on 3.1.1.1).
const CANNED_SIZE: [u8; 2] = 1536u16.to_be_bytes();

fn modulus() -> U1536 {
    *Group::PARAMS.modulus().as_ref()
}

fn bytes(number: &U1536) -> [u8; ELGAMAL_BYTES] {
    number.to_be_bytes().into()
}

/// `bytes` as a number that is more than one and less than p - 1; in the whole group those two have order 1 and 2.
fn proper(bytes: &[u8; ELGAMAL_BYTES]) -> Option<U1536> {
    let number = U1536::from_be_slice(bytes);
    let last = modulus().wrapping_sub(&U1536::ONE);
    (number > U1536::ONE && number < last).then_some(number)
}

/// The bytes do not decrypt, or are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(U1536);

impl PublicKey {
    /// Reads the canned form (1536, y) or the general form (p, g, y) or (p, q, g, y) of this group.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, Invalid> {
        let p = bytes(&modulus());
        let integers = der::read(der).map_err(|_| Invalid)?;
        let y = match integers[..] {
            [size, y] if size == CANNED_SIZE => y,
            [found, [3], y] if found == p => y,
            [found, q, [3], y] if found == p && U1536::from_be_slice(&padded(q)?) == modulus().shr(1) => y,
            _ => return Err(Invalid),
        };
        proper(&padded(y)?).map(Self).ok_or(Invalid)
    }

    /// Writes the canned form.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        der::write(&[&CANNED_SIZE, &bytes(&self.0)])
    }

    /// Encrypts 1 to [`MAX_ELGAMAL_PLAINTEXT_BYTES`] bytes.
    pub(crate) fn encrypt(&self, secret: &[u8], entropy: &mut dyn Entropy) -> [u8; ELGAMAL_CIPHERTEXT_BYTES] {
        assert!(secret.len() <= MAX_ELGAMAL_PLAINTEXT_BYTES, "callers encrypt keys, which are short");
        let mut block = Zeroizing::new([0; ELGAMAL_BYTES]);
        let start = ELGAMAL_BYTES - 1 - secret.len();
        entropy.fill(&mut block[1..start]);
        block[start..ELGAMAL_BYTES - 1].copy_from_slice(secret);
        block[ELGAMAL_BYTES - 1] = secret.len() as u8;
        let mut m = Element::new(&U1536::from_be_slice(block.as_slice()));

        // A 256-bit exponent: twice what the group's own strength asks of a short one.
        let mut ephemeral = Zeroizing::new([0; 32]);
        entropy.fill(ephemeral.as_mut_slice());
        let mut k = U256::from_be_slice(ephemeral.as_slice());
        let (a, b) = (G.pow(&k), Element::new(&self.0).pow(&k).mul(&m));
        k.zeroize();
        m.zeroize();

        let mut ciphertext = [0; ELGAMAL_CIPHERTEXT_BYTES];
        ciphertext[..ELGAMAL_BYTES].copy_from_slice(&bytes(&a.retrieve()));
        ciphertext[ELGAMAL_BYTES..].copy_from_slice(&bytes(&b.retrieve()));
        ciphertext
    }
}

fn padded(magnitude: &[u8]) -> Result<[u8; ELGAMAL_BYTES], Invalid> {
    let mut padded = [0; ELGAMAL_BYTES];
    let start = ELGAMAL_BYTES.checked_sub(magnitude.len()).ok_or(Invalid)?;
    padded[start..].copy_from_slice(magnitude);
    Ok(padded)
}

/// A private exponent, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct PrivateKey(U1536);

impl PrivateKey {
    /// Draws an exponent of 1535 bits.
    pub(crate) fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut exponent = Zeroizing::new([0; ELGAMAL_BYTES]);
        entropy.fill(exponent.as_mut_slice());
        exponent[0] = exponent[0] & 0x3f | 0x40;
        Self(U1536::from_be_slice(exponent.as_slice()))
    }

    /// Reads a big-endian exponent.
    pub(crate) fn from_bytes(exponent: &[u8; ELGAMAL_BYTES]) -> Result<Self, Invalid> {
        proper(exponent).map(Self).ok_or(Invalid)
    }

    /// The exponent, big-endian.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; ELGAMAL_BYTES]> {
        Zeroizing::new(bytes(&self.0))
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(G.pow(&self.0).retrieve())
    }

    /// Decrypts what [`PublicKey::encrypt`] made.
    pub(crate) fn decrypt(
        &self,
        ciphertext: &[u8; ELGAMAL_CIPHERTEXT_BYTES],
    ) -> Result<Zeroizing<Vec<u8>>, Invalid> {
        let (a, b) = ciphertext.split_first_chunk().expect("a ciphertext is two numbers");
        let (a, b) = (proper(a).ok_or(Invalid)?, U1536::from_be_slice(b));
        if b == U1536::ZERO || b >= modulus() {
            return Err(Invalid);
        }
        // A^(p-1-x) is the inverse of A^x.
        let mut inverse_exponent = modulus().wrapping_sub(&U1536::ONE).wrapping_sub(&self.0);
        let mut m = Element::new(&a).pow(&inverse_exponent).mul(&Element::new(&b));
        inverse_exponent.zeroize();
        let block = Zeroizing::new(bytes(&m.retrieve()));
        m.zeroize();
        let length = usize::from(block[ELGAMAL_BYTES - 1]);
        if block[0] != 0 || length > MAX_ELGAMAL_PLAINTEXT_BYTES {
            return Err(Invalid);
        }
        let end = ELGAMAL_BYTES - 1;
        Ok(Zeroizing::new(block[end - length..end].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::test_entropy::Seeded;
    use ring::digest::{SHA256, digest};

    /// Gives the bytes that it was made of.
    struct Script(Vec<u8>);

    impl Entropy for Script {
        fn fill(&mut self, buffer: &mut [u8]) {
            let rest = self.0.split_off(buffer.len());
            buffer.copy_from_slice(&self.0);
            self.0 = rest;
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The private key of sstp-security 9.3.
    fn example() -> PrivateKey {
        let mut exponent = [0; ELGAMAL_BYTES];
        exponent[ELGAMAL_BYTES - 32..].copy_from_slice(digest(&SHA256, b"test private key").as_ref());
        PrivateKey::from_bytes(&exponent).unwrap()
    }

    #[test]
    fn the_group_is_that_of_the_specification() {
        let p = modulus();
        assert_eq!(p.wrapping_add(&U1536::from_u32(0x16f055)), U1536::ZERO);
        let q = p.shr(1);
        assert_eq!(G.pow(&q).retrieve(), U1536::ONE);
    }

    #[test]
    fn public_key_and_its_canned_form_are_those_of_the_example() {
        let der = example().public().to_der();
        assert_eq!(der.len(), 203);
        assert_eq!(hex(&der[..14]), "3081c8020206000281c100e63671");
        assert_eq!(
            hex(digest(&SHA256, &der).as_ref()),
            "c13b20674ead9b6f71c89d2724aae78c632b2b242414aed93e508646350c149d"
        );
        assert_eq!(PublicKey::from_der(&der), Ok(example().public()));
    }

    #[test]
    fn the_general_form_of_the_key_is_read_too() {
        let y = bytes(&example().public().0);
        let p = bytes(&modulus());
        let three = der::write(&[&p, &[3], &y]);
        assert_eq!(three.len(), 399);
        assert_eq!(
            hex(digest(&SHA256, &three).as_ref()),
            "9ff5c68eec978c69b37279afeb69cfc5fb4e3430e897e84ccb1502095c9c1bbb"
        );
        assert_eq!(PublicKey::from_der(&three), Ok(example().public()));
        let q = bytes(&modulus().shr(1));
        assert_eq!(PublicKey::from_der(&der::write(&[&p, &q, &[3], &y])), Ok(example().public()));
    }

    #[test]
    fn keys_of_other_groups_and_improper_elements_are_refused() {
        let y = bytes(&example().public().0);
        let (p, last) = (bytes(&modulus()), bytes(&modulus().wrapping_sub(&U1536::ONE)));
        let long = [&[1][..], &y].concat();
        let cases: &[&[&[u8]]] = &[
            &[&[0x08, 0x00], &y],
            &[&CANNED_SIZE],
            &[&CANNED_SIZE, &[1]],
            &[&CANNED_SIZE, &last],
            &[&CANNED_SIZE, &p],
            &[&CANNED_SIZE, &long],
            &[&p, &[2], &y],
            &[&last, &[3], &y],
            &[&p, &[5], &[3], &y],
            &[&p, &long, &[3], &y],
        ];
        for integers in cases {
            assert_eq!(PublicKey::from_der(&der::write(integers)), Err(Invalid));
        }
    }

    #[test]
    fn encryption_is_that_of_the_example() {
        let secret: Vec<u8> = (1..=24).collect();
        let padding = (0..166u32).map(|i| (7 * i + 1) as u8);
        let entropy = padding.chain(digest(&SHA256, b"test ephemeral").as_ref().iter().copied()).collect();
        let ciphertext = example().public().encrypt(&secret, &mut Script(entropy));
        assert_eq!(hex(&ciphertext[..8]), "352299ce49a6ad6e");
        assert_eq!(
            hex(digest(&SHA256, &ciphertext).as_ref()),
            "c8b3dde7911c98f1d23e5f6e6f832fc6c571464b153c0dd55fdbec755896a5e1"
        );
        assert_eq!(*example().decrypt(&ciphertext).unwrap(), secret);
    }

    #[test]
    fn every_length_of_secret_comes_back() {
        let key = example();
        for length in [0, 1, 20, MAX_ELGAMAL_PLAINTEXT_BYTES] {
            let secret = vec![0xa5; length];
            let ciphertext = key.public().encrypt(&secret, &mut Seeded::new(length as u64));
            assert_eq!(*key.decrypt(&ciphertext).unwrap(), secret);
        }
    }

    #[test]
    fn improper_numbers_are_not_decrypted() {
        let key = example();
        let right = key.public().encrypt(b"secret", &mut Seeded::new(1));
        let last = modulus().wrapping_sub(&U1536::ONE);
        for a in [U1536::ZERO, U1536::ONE, last, modulus(), U1536::MAX] {
            let forged = [&bytes(&a)[..], &right[ELGAMAL_BYTES..]].concat().try_into().unwrap();
            assert_eq!(key.decrypt(&forged), Err(Invalid));
        }
        for b in [U1536::ZERO, modulus(), U1536::MAX] {
            let forged = [&right[..ELGAMAL_BYTES], &bytes(&b)[..]].concat().try_into().unwrap();
            assert_eq!(key.decrypt(&forged), Err(Invalid));
        }
    }

    #[test]
    fn padding_that_is_too_long_or_too_short_is_refused() {
        let key = example();
        let encrypt = |block: [u8; ELGAMAL_BYTES]| {
            let b = Element::new(&key.public().0).mul(&Element::new(&U1536::from_be_slice(&block)));
            [bytes(&G.retrieve()), bytes(&b.retrieve())].concat().try_into().unwrap()
        };
        let mut block = [1; ELGAMAL_BYTES];
        (block[0], block[ELGAMAL_BYTES - 1]) = (0, MAX_ELGAMAL_PLAINTEXT_BYTES as u8);
        assert_eq!(key.decrypt(&encrypt(block)).unwrap().len(), MAX_ELGAMAL_PLAINTEXT_BYTES);
        block[ELGAMAL_BYTES - 1] += 1;
        assert_eq!(key.decrypt(&encrypt(block)), Err(Invalid));
        (block[0], block[ELGAMAL_BYTES - 1]) = (1, 24);
        assert_eq!(key.decrypt(&encrypt(block)), Err(Invalid));
    }

    #[test]
    fn made_exponents_are_read_back() {
        let key = PrivateKey::generate(&mut Seeded::new(1));
        let read = PrivateKey::from_bytes(&key.to_bytes()).unwrap();
        assert_eq!(read.public(), key.public());
        assert!(PrivateKey::from_bytes(&[0; ELGAMAL_BYTES]).is_err());
        assert!(PrivateKey::from_bytes(&[0xff; ELGAMAL_BYTES]).is_err());
    }
}
