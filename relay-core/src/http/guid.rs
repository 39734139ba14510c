//! Virtual-Connection-GUID: what names a virtual connection, and the base 32 in which it is written.

use super::profile::{GUID_BYTES, MAX_GUID_CHARS};
use crate::relay::home::{self, ShardId};
use crate::time::Entropy;
use std::fmt;

/// Most significant bits first (http-encapsulation 3.3).
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Octets as base 32, without padding: 24 of them are 39 characters.
pub fn base32(octets: &[u8]) -> String {
    let digits = (octets.len() * 8).div_ceil(5);
    let bit = |at: usize| octets.get(at / 8).is_some_and(|octet| octet >> (7 - at % 8) & 1 == 1);
    let digit =
        |digit: usize| (0..5).fold(0, |value, offset| value << 1 | usize::from(bit(digit * 5 + offset)));
    (0..digits).map(|at| char::from(ALPHABET[digit(at)])).collect()
}

/// A Virtual-Connection-GUID: an opaque token of 1 to 64 letters and digits, case-sensitive (wire-profile 5).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Guid(Box<str>);

impl Guid {
    /// A new one, of 192 random bits: whoever has not seen it cannot guess it.
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        let mut octets = [0; GUID_BYTES];
        entropy.fill(&mut octets);
        Self(base32(&octets).into())
    }

    /// A received one; `None` if it has not the form.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fits = (1..=MAX_GUID_CHARS).contains(&text.len()) && text.iter().all(u8::is_ascii_alphanumeric);
        fits.then(|| std::str::from_utf8(text).ok()).flatten().map(|text| Self(text.into()))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard among `shards` (at least 1) on which its virtual connection lives, whichever shard its requests reach.
    pub fn owner(&self, shards: u16) -> ShardId {
        home::shard_of(self.0.as_bytes(), shards)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Guid {
    /// Who reads it could take the connection over: only its beginning is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({}...)", &self.0[..self.0.len().min(4)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_3_3_vectors() {
        for (octets, text) in [
            ("38aecda8510bdb529946addd0e5d6a6fe549c290bce1c2f7", "hczn5kctbrpxfgkgxzqs6zmkp9uwvswszvs6f72"),
            ("520556f9ef351c3a1cbd172b0304065886caafed3c6614ec", "kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a"),
            ("919cf9b4f580b167152e3f90901f827aae8bf9cf83667fa4", "ugqrvphxsc2yqfjqh8ijah6crkziz8qrspvh9ja"),
        ] {
            let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            let octets: Vec<u8> = octets.as_bytes().chunks(2).map(octet).collect();
            assert_eq!(base32(&octets), text);
            assert_eq!(Guid::parse(text.as_bytes()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn wire_profile_5_1_to_64_letters_and_digits() {
        for right in ["a", "Z9", &"x".repeat(64)] {
            assert!(Guid::parse(right.as_bytes()).is_some(), "{right}");
        }
        for wrong in ["", "a b", "a-b", "ä", "a\0", &"x".repeat(65)] {
            assert!(Guid::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert_ne!(Guid::parse(b"a"), Guid::parse(b"A"), "case matters");
    }

    #[test]
    fn a_guid_does_not_get_into_the_log_whole() {
        let guid = Guid::parse(b"kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a").unwrap();
        assert_eq!(format!("{guid:?}"), "Guid(kicx...)");
    }
}
