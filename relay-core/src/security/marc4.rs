//! MARC4, the cipher of the legacy profile (sstp-security 8.2): RC4 under IV XOR key, its first 256 bytes thrown away.
//! Weak; it is here for its users' sake and encrypts nonces and keys only.

use zeroize::{Zeroize, Zeroizing};

/// The bytes of keystream that are thrown away (seen, 3.1.1.4).
const DISCARDED_BYTES: usize = 256;

/// The state of RC4, wiped when dropped.
struct Rc4 {
    state: Zeroizing<[u8; 256]>,
    i: u8,
    j: u8,
}

impl Rc4 {
    fn new(key: &[u8]) -> Self {
        let mut state: Zeroizing<[u8; 256]> = Zeroizing::new(std::array::from_fn(|i| i as u8));
        let mut j = 0u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    fn next(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        let at_i = self.state[usize::from(self.i)];
        self.j = self.j.wrapping_add(at_i);
        let at_j = self.state[usize::from(self.j)];
        self.state.swap(usize::from(self.i), usize::from(self.j));
        self.state[usize::from(at_i.wrapping_add(at_j))]
    }
}

/// Encrypts or decrypts `data` in place; the two are the same. `iv` is fresh for each encryption.
pub fn apply<const N: usize>(key: &[u8; N], iv: &[u8; N], data: &mut [u8]) {
    const { assert!(N > 0 && N <= 256, "RC4 keys have 1 to 256 bytes") }
    let mut mixed: [u8; N] = std::array::from_fn(|i| key[i] ^ iv[i]);
    let mut cipher = Rc4::new(&mixed);
    mixed.zeroize();
    for _ in 0..DISCARDED_BYTES {
        cipher.next();
    }
    for byte in data {
        *byte ^= cipher.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting<const N: usize>(first: u8) -> [u8; N] {
        std::array::from_fn(|i| first + i as u8)
    }

    #[track_caller]
    fn assert_hex(bytes: &[u8], expected: &str) {
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn rc4_keystream_is_that_of_rfc_6229() {
        let mut cipher = Rc4::new(&counting::<24>(1));
        let start: [u8; 16] = std::array::from_fn(|_| cipher.next());
        assert_hex(&start, "0595e57fe5f0bb3c706edac8a4b2db11");
    }

    #[test]
    fn the_first_256_bytes_of_keystream_are_thrown_away() {
        let mut stream = [0; 32];
        apply(&counting::<24>(1), &[0; 24], &mut stream);
        assert_hex(&stream, "6bd2378ec341c9a42f37ba79f88a32ff7c1087f88ed52765439c41fb0ee0e6e5");
    }

    #[test]
    fn the_key_is_mixed_with_the_iv_and_may_have_any_length() {
        let mut nonce = counting::<20>(0x10);
        apply(&counting::<24>(1), &counting::<24>(0xa0), &mut nonce);
        assert_hex(&nonce, "3e28e612d2662722963e1d8ac415fa4d57b342c9");
        apply(&counting::<24>(1), &counting::<24>(0xa0), &mut nonce);
        assert_eq!(nonce, counting::<20>(0x10));
        apply(&counting::<20>(1), &counting::<20>(0xa0), &mut nonce);
        assert_hex(&nonce, "4cea00d85ed9a82faf0bfb6b87f33b3b65170ba8");
    }
}
