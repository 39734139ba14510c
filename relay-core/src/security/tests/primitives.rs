//! The primitives as they come from their crates, against the vectors of their RFCs and of sstp-security sec. 9: that the
//! right ones were chosen, and nothing that the tests of the messages would pass over in silence.

use super::hex;
use ring::signature::KeyPair;
use ring::{aead, hkdf, hmac, signature};

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + index as u8)
}

fn mac(algorithm: hmac::Algorithm, key: &[u8], data: &[u8]) -> String {
    hex(hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref())
}

#[test]
fn hmac_sha1_is_that_of_the_worked_example_and_of_rfc_2202() {
    let sha1 = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let example = mac(sha1, &counting::<24>(1), &counting::<20>(0x10));
    assert_eq!(example, "d9d0a23cf3245bbd91f6d72584cd0994afa80751");
    let jefe = mac(sha1, b"Jefe", b"what do ya want for nothing?");
    assert_eq!(jefe, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
}

#[test]
fn hmac_sha256_is_that_of_rfc_4231() {
    let jefe = mac(hmac::HMAC_SHA256, b"Jefe", b"what do ya want for nothing?");
    assert_eq!(jefe, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[test]
fn x25519_is_that_of_rfc_7748() {
    let key = |hex: &str| <[u8; 32]>::try_from(bytes(hex)).unwrap();
    let bob = x25519_dalek::StaticSecret::from(key(
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    ));
    let alice = key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let public = x25519_dalek::PublicKey::from(&bob);
    assert_eq!(hex(public.as_bytes()), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared = bob.diffie_hellman(&alice.into());
    assert_eq!(hex(shared.as_bytes()), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
}

#[test]
fn hkdf_sha256_is_that_of_rfc_5869() {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &counting::<13>(0));
    let key = salt.extract(&[0x0b; 22]);
    let mut derived = [0; 42];
    key.expand(&[&counting::<10>(0xf0)], Length(42)).unwrap().fill(&mut derived).unwrap();
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    assert_eq!(hex(&derived), expected);
}

#[test]
fn chacha20_poly1305_is_that_of_rfc_8439() {
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &counting::<32>(0x80)).unwrap();
    let nonce: [u8; 12] = bytes("070000004041424344454647").try_into().unwrap();
    let mut text =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it."
            .to_vec();
    let tag = aead::LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(bytes("50515253c0c1c2c3c4c5c6c7")),
            &mut text,
        )
        .unwrap();
    assert_eq!(hex(&text[..16]), "d31a8d34648e60db7b86afbc53ef7ec2");
    assert_eq!(hex(tag.as_ref()), "1ae10b594f09e26a7e902ecbd0600691");
}

#[test]
fn ed25519_is_that_of_rfc_8032() {
    let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let pair = signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(hex(pair.public_key().as_ref()), public);
    let expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd2\
                    5bf5f0595bbe24655141438e7a100b";
    assert_eq!(hex(pair.sign(b"").as_ref()), expected);
}
