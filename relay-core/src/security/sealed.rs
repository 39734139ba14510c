//! A secret sealed to a long-lived X25519 public key (wire-profile sec. 3, ours): ephemeral public key, then
//! ChaCha20-Poly1305 under a key that HKDF-SHA256 derives from the exchange. Owns that construction; knows no message.

use super::profile::{AEAD_TAG_BYTES, X25519_BYTES};
use crate::time::Entropy;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

/// The bytes by which a sealed secret is longer than the secret.
pub const SEAL_OVERHEAD_BYTES: usize = X25519_BYTES + AEAD_TAG_BYTES;

/// The public key of the recipient yields no shared secret (a point of small order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the recipient's X25519 key yields no shared secret")]
pub struct UnusableKey;

/// The sealed bytes do not open: other recipient, purpose or associated data, or altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed secret does not open")]
pub struct NotOpened;

/// The AEAD key of one sealing. It is used once, so its nonce is zero.
fn aead_key(shared: &SharedSecret, ephemeral: &PublicKey, recipient: &PublicKey, info: &str) -> LessSafeKey {
    let mut salt = [0; 2 * X25519_BYTES];
    salt[..X25519_BYTES].copy_from_slice(ephemeral.as_bytes());
    salt[X25519_BYTES..].copy_from_slice(recipient.as_bytes());
    let info = [info.as_bytes()];
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(shared.as_bytes());
    let derived = derived.expand(&info, &CHACHA20_POLY1305).expect("32 bytes are within HKDF's limit");
    LessSafeKey::new(UnboundKey::from(derived))
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; ring::aead::NONCE_LEN])
}

/// Seals `secret` to `recipient` for the purpose `info`, bound to `associated`.
///
/// # Errors
/// [`UnusableKey`] if `recipient` is a point of small order.
pub fn seal(
    recipient: &[u8; X25519_BYTES],
    info: &str,
    associated: &[u8],
    secret: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, UnusableKey> {
    let mut scalar = Zeroizing::new([0; X25519_BYTES]);
    entropy.fill(scalar.as_mut_slice());
    let private = StaticSecret::from(*scalar);
    let (ephemeral, recipient) = (PublicKey::from(&private), PublicKey::from(*recipient));
    let shared = private.diffie_hellman(&recipient);
    if !shared.was_contributory() {
        return Err(UnusableKey);
    }
    let mut sealed = Vec::with_capacity(secret.len() + SEAL_OVERHEAD_BYTES);
    sealed.extend_from_slice(ephemeral.as_bytes());
    sealed.extend_from_slice(secret);
    let tag = aead_key(&shared, &ephemeral, &recipient, info)
        .seal_in_place_separate_tag(zero_nonce(), Aad::from(associated), &mut sealed[X25519_BYTES..])
        .expect("a secret is far below the cipher's limit");
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// Opens what [`seal`] made with the same `info` and `associated` for the public half of `recipient`.
///
/// # Errors
/// [`NotOpened`], without a hint at the cause.
pub fn open(
    recipient: &StaticSecret,
    info: &str,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let (ephemeral, ciphertext) = sealed.split_first_chunk::<X25519_BYTES>().ok_or(NotOpened)?;
    let ephemeral = PublicKey::from(*ephemeral);
    let shared = recipient.diffie_hellman(&ephemeral);
    if !shared.was_contributory() {
        return Err(NotOpened);
    }
    let mut secret = Zeroizing::new(ciphertext.to_vec());
    let length = aead_key(&shared, &ephemeral, &PublicKey::from(recipient), info)
        .open_in_place(zero_nonce(), Aad::from(associated), &mut secret)
        .map_err(|_| NotOpened)?
        .len();
    secret.truncate(length);
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::super::test_entropy::Seeded;
    use super::*;

    fn pair(seed: u64) -> (StaticSecret, [u8; 32]) {
        let private = StaticSecret::from(Seeded::new(seed).bytes());
        let public = PublicKey::from(&private).to_bytes();
        (private, public)
    }

    #[test]
    fn a_sealed_secret_opens_only_for_its_recipient_purpose_and_associated_data() {
        let (private, public) = pair(1);
        let sealed = seal(&public, "purpose", b"url", b"secret", &mut Seeded::new(2)).unwrap();
        assert_eq!(sealed.len(), 6 + SEAL_OVERHEAD_BYTES);
        assert_eq!(open(&private, "purpose", b"url", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(open(&pair(3).0, "purpose", b"url", &sealed), Err(NotOpened));
        assert_eq!(open(&private, "other", b"url", &sealed), Err(NotOpened));
        assert_eq!(open(&private, "purpose", b"url2", &sealed), Err(NotOpened));
    }

    #[test]
    fn every_altered_or_missing_byte_of_a_sealed_secret_is_noticed() {
        let (private, public) = pair(1);
        let sealed = seal(&public, "purpose", b"url", b"secret", &mut Seeded::new(2)).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(open(&private, "purpose", b"url", &altered), Err(NotOpened), "byte {at}");
            assert_eq!(open(&private, "purpose", b"url", &sealed[..at]), Err(NotOpened), "cut at {at}");
        }
    }

    #[test]
    fn points_of_small_order_are_refused_by_both_sides() {
        let mut one = [0; 32];
        one[0] = 1;
        for small in [[0; 32], one] {
            assert_eq!(seal(&small, "purpose", b"", b"secret", &mut Seeded::new(1)), Err(UnusableKey));
            let forged = [&small[..], &[0; 22]].concat();
            assert_eq!(open(&pair(1).0, "purpose", b"", &forged), Err(NotOpened));
        }
    }
}
