//! The public keys object of messages 12 and 14 (sstp-security 8.6, fields inferred): two algorithm names and a DER key
//! for encryption, and the same for signatures. A relay stores it verbatim and uses the signature key only.

use super::der;
use super::elgamal;
use crate::security::profile::{ENCRYPTION_ALGORITHMS, SIGNATURE_ALGORITHMS};
use crate::security::token::{Reader, TokenError, Writer};
use bytes::Bytes;

/// Checks a public keys object and gives its signature key, a DER `RSAPublicKey`.
pub(crate) fn signature_key(object: &[u8]) -> Result<&[u8], TokenError> {
    let mut reader = Reader::fields(object);
    let encryption = (reader.field("encryption key algorithm")?, reader.field("encryption algorithm")?);
    if !ENCRYPTION_ALGORITHMS.contains(&encryption) {
        return Err(TokenError::PublicKey("encryption key"));
    }
    // Relays never use a client's encryption key: its form is checked, not its group.
    der::read(reader.field("encryption key")?).map_err(|_| TokenError::PublicKey("encryption key"))?;
    let signature = (reader.field("signature key algorithm")?, reader.field("signature algorithm")?);
    let key = reader.field("signature key")?;
    reader.end()?;
    match der::read(key) {
        Ok(integers) if signature == SIGNATURE_ALGORITHMS && integers.len() == 2 => Ok(key),
        _ => Err(TokenError::PublicKey("signature key")),
    }
}

/// Writes the public keys object of a client with an ElGamal and an RSA pair.
pub(crate) fn write(encryption: &elgamal::PublicKey, signature_key: &[u8]) -> Bytes {
    let (key_algorithm, algorithm) = ENCRYPTION_ALGORITHMS[0];
    Writer::headless()
        .field(key_algorithm)
        .field(algorithm)
        .field(&encryption.to_der())
        .field(SIGNATURE_ALGORITHMS.0)
        .field(SIGNATURE_ALGORITHMS.1)
        .field(signature_key)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_and_each_key_is_checked() {
        let dsa: [&[u8]; 2] = [b"DH", b"DSA"];
        let key: &[u8] = &[0x30, 6, 2, 1, 3, 2, 1, 5];
        let one: &[u8] = &[0x30, 3, 2, 1, 3];
        let object = |fields: [&[u8]; 6]| {
            fields.iter().fold(Writer::headless(), |writer, field| writer.field(field)).finish()
        };
        assert_eq!(signature_key(&object([b"DH", b"ELGAMAL", key, b"RSA", b"RSA", key])), Ok(key));
        assert_eq!(signature_key(&object([b"RSA", b"RSA", key, b"RSA", b"RSA", key])), Ok(key));
        let cases: &[([&[u8]; 6], &str)] = &[
            ([b"RSA", b"ELGAMAL", key, b"RSA", b"RSA", key], "encryption key"),
            ([dsa[0], dsa[1], key, b"RSA", b"RSA", key], "encryption key"),
            ([b"DH", b"ELGAMAL", b"", b"RSA", b"RSA", key], "encryption key"),
            ([b"DH", b"ELGAMAL", key, b"RSA", b"DSA", key], "signature key"),
            ([b"DH", b"ELGAMAL", key, b"", b"RSA", key], "signature key"),
            ([b"DH", b"ELGAMAL", key, b"RSA", b"RSA", one], "signature key"),
        ];
        for (fields, name) in cases {
            assert_eq!(signature_key(&object(*fields)), Err(TokenError::PublicKey(name)), "{fields:?}");
        }
    }
}
