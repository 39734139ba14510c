//! The checksum of Polling (2.2.4.1.3.1.3): it finds accidents and protects from nobody.

/// The checksum of application data, as it is sent: every octet, signed, plus one, times its place from 1, modulo 2^32
/// (http-encapsulation 8, full loop).
pub fn checksum(data: &[u8]) -> u32 {
    data.iter()
        .zip(1u32..)
        .fold(0, |sum, (&octet, place)| sum.wrapping_add(weight(octet).wrapping_mul(place)))
}

fn weight(octet: u8) -> u32 {
    (i32::from(octet as i8) + 1) as u32
}

/// Whether a received checksum is one of `data`: both readings of the printed pseudo-code are right, with the first octet and
/// without it (gap G11).
pub fn matches(received: u32, data: &[u8]) -> bool {
    let whole = checksum(data);
    let without_first = data.first().map_or(whole, |&first| whole.wrapping_sub(weight(first)));
    received == whole || received == without_first
}

/// A checksum in decimal digits, perhaps with a sign, modulo 2^32; `None` if it is not one of at most 20 digits.
pub fn parse(text: &[u8]) -> Option<u32> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let mut value = 0u32;
    for &digit in digits {
        let digit = char::from(digit).to_digit(10)?;
        value = value.wrapping_mul(10).wrapping_add(digit);
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn section_8_vectors() {
        let counting: Vec<u8> = (0..=255).collect();
        for (data, whole, without_first) in [
            (&b""[..], 0u32, 0u32),
            (b"\x00", 1, 0),
            (b"\x41", 66, 0),
            (b"\x41\x42", 200, 134),
            (b"\xff", 0, 0),
            (b"\x80", 4_294_967_169, 0),
            (b"\x7f\x80", 4_294_967_170, 4_294_967_042),
            (b"GroovePing: 1.0,Ping\r\n", 17_565, 17_493),
            (&counting, 4_294_284_672, 4_294_284_671),
            (&[0x7f; 32_000], 1_113_538_560, 1_113_538_432),
            (&[0x80; 32_000], 3_693_444_736, 3_693_444_863),
        ] {
            assert_eq!(checksum(data), whole);
            assert!(matches(whole, data) && matches(without_first, data));
        }
    }

    #[test]
    fn section_8_a_printed_sign_is_understood_modulo_2_to_the_32() {
        assert_eq!(parse(b"-127"), Some(4_294_967_169));
        assert_eq!(parse(b"-65026032000"), Some(3_693_444_736));
        assert_eq!(parse(b"65538048000"), Some(1_113_538_560));
        for wrong in [&b""[..], b"-", b"+1", b"1 ", b"0x1", b"123456789012345678901"] {
            assert_eq!(parse(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_and_an_accident_is_found(
            data in prop::collection::vec(any::<u8>(), 2..300), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let sum = checksum(&data);
            prop_assert_eq!(parse(sum.to_string().as_bytes()), Some(sum));
            let mut changed = data.clone();
            // A change of the first octet is what one of the two readings cannot see.
            let at = 1 + at.index(data.len() - 1);
            changed[at] ^= 1 << bit;
            prop_assert_ne!(checksum(&changed), sum);
        }
    }
}
