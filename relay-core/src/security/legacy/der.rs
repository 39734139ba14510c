//! The DER form of the family's public keys: one SEQUENCE of positive INTEGERs (sstp-security 8.5). Owns that form
//! only; which integers make which key belongs to the keys.

/// The most integers in a key: p, q, g and y.
const MAX_INTEGERS: usize = 4;
/// The longest key that is read, in bytes: four integers of 4096 bits with their headers.
const MAX_BYTES: usize = 2100;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The bytes are not a DER SEQUENCE of one to four positive INTEGERs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotIntegers;

/// Writes big-endian magnitudes as a SEQUENCE of INTEGERs.
pub(crate) fn write(integers: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for magnitude in integers {
        let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
        let mut content = magnitude[zeros..].to_vec();
        if content.first().is_none_or(|first| first & 0x80 != 0) {
            content.insert(0, 0);
        }
        put(&mut body, INTEGER, &content);
    }
    let mut der = Vec::new();
    put(&mut der, SEQUENCE, &body);
    der
}

fn put(der: &mut Vec<u8>, tag: u8, content: &[u8]) {
    der.push(tag);
    match content.len() {
        short @ 0..=0x7f => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            der.push(0x80 | (bytes.len() - zeros) as u8);
            der.extend_from_slice(&bytes[zeros..]);
        }
    }
    der.extend_from_slice(content);
}

/// Reads a SEQUENCE of INTEGERs to its end; gives their magnitudes without leading zeros. Only the one DER form of each
/// number is accepted.
pub(crate) fn read(der: &[u8]) -> Result<Vec<&[u8]>, NotIntegers> {
    if der.len() > MAX_BYTES {
        return Err(NotIntegers);
    }
    let (mut body, rest) = element(der, SEQUENCE)?;
    let mut integers = Vec::new();
    while !body.is_empty() && integers.len() < MAX_INTEGERS {
        let (content, after) = element(body, INTEGER)?;
        integers.push(magnitude(content)?);
        body = after;
    }
    if integers.is_empty() || !body.is_empty() || !rest.is_empty() { Err(NotIntegers) } else { Ok(integers) }
}

fn magnitude(content: &[u8]) -> Result<&[u8], NotIntegers> {
    match content {
        [0] => Err(NotIntegers),
        [0, rest @ ..] if rest[0] & 0x80 != 0 => Ok(rest),
        [first @ 1..=0x7f, ..] if *first != 0 => Ok(content),
        _ => Err(NotIntegers),
    }
}

/// Splits the element `tag` from the front: its content, and what follows it.
fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), NotIntegers> {
    let (length, rest) = match der {
        [found, ..] if *found != tag => return Err(NotIntegers),
        [_, short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [_, 0x81, length @ 0x80..=0xff, rest @ ..] => (usize::from(*length), rest),
        [_, 0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return Err(NotIntegers),
    };
    rest.split_at_checked(length).ok_or(NotIntegers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_and_signs_take_their_shortest_form() {
        let long = [&[0x80][..], &[1; 255]].concat();
        let cases: &[(&[&[u8]], &[u8])] = &[
            (&[&[6, 0]], &[0x30, 4, 2, 2, 6, 0]),
            (&[&[0, 0, 6, 0]], &[0x30, 4, 2, 2, 6, 0]),
            (&[&[0x80]], &[0x30, 4, 2, 2, 0, 0x80]),
            (&[&[1], &[2]], &[0x30, 6, 2, 1, 1, 2, 1, 2]),
            (&[&[1; 126]], &[&[0x30, 0x81, 128, 2, 126][..], &[1; 126]].concat()),
            (&[&long], &[&[0x30, 0x82, 1, 5, 2, 0x82, 1, 1, 0][..], &long].concat()),
        ];
        for (integers, der) in cases {
            assert_eq!(write(integers), *der);
            let trimmed: Vec<_> =
                integers.iter().map(|i| &i[i.iter().take_while(|b| **b == 0).count()..]).collect();
            assert_eq!(read(der), Ok(trimmed));
        }
    }

    #[test]
    fn other_forms_of_the_same_numbers_are_refused() {
        let cases: &[&[u8]] = &[
            &[],
            &[0x30],
            &[0x30, 0],
            &[0x31, 3, 2, 1, 1],
            &[0x30, 3, 3, 1, 1],
            &[0x30, 3, 2, 1, 0],
            &[0x30, 3, 2, 1, 0xff],
            &[0x30, 2, 2, 0],
            &[0x30, 4, 2, 2, 0, 1],
            &[0x30, 0x81, 3, 2, 1, 1],
            &[0x30, 0x82, 0, 3, 2, 1, 1],
            &[0x30, 0x80, 2, 1, 1, 0, 0],
            &[0x30, 3, 2, 1, 1, 0],
            &[0x30, 4, 2, 1, 1, 2],
            &[0x30, 3, 2, 2, 1],
            &[0x30, 15, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1],
            &[0; MAX_BYTES + 1],
        ];
        for der in cases {
            assert_eq!(read(der), Err(NotIntegers), "{der:?}");
        }
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_written_the_same(
            first in proptest::collection::vec(any::<u8>(), 0..40),
            tag in prop_oneof![9 => Just(INTEGER), 1 => any::<u8>()],
            off in prop_oneof![9 => Just(0u8), 1 => any::<u8>()],
        ) {
            let body = [&[tag, (first.len() as u8).wrapping_add(off)][..], &first, &[2, 1, 5]].concat();
            let der = [&[SEQUENCE, body.len() as u8][..], &body].concat();
            if let Ok(integers) = read(&der) {
                prop_assert_eq!(write(&integers), der);
            }
        }

        #[test]
        fn what_is_written_can_be_read(
            integers in proptest::collection::vec((1u8.., proptest::collection::vec(any::<u8>(), 0..400)), 1..=4)
        ) {
            let integers: Vec<Vec<u8>> =
                integers.into_iter().map(|(first, rest)| [&[first][..], &rest].concat()).collect();
            let integers: Vec<&[u8]> = integers.iter().map(Vec::as_slice).collect();
            let der = write(&integers);
            prop_assert_eq!(read(&der), Ok(integers));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(der in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&der);
        }
    }
}
