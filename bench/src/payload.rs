//! What a message carries, so that its receiver can check every byte: its number, the time at which it was meant to be sent,
//! and a stretch of a fixed table that depends on both its number and its sender.

use std::sync::Arc;

/// Number and time, 8 bytes each, little-endian.
pub(crate) const HEAD_BYTES: usize = 16;
/// How far into the table a body may begin.
const SHIFTS: usize = 1024;

/// The table that bodies are cut from.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    table: Arc<[u8]>,
    length: usize,
}

impl Pattern {
    /// For payloads of `length` bytes, at least [`HEAD_BYTES`].
    pub(crate) fn new(length: usize) -> Self {
        assert!(length >= HEAD_BYTES, "a payload has room for its head");
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let table = (0..SHIFTS + length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Self { table, length }
    }

    /// Payload bytes of a message.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn body(&self, sender: u32, number: u64) -> &[u8] {
        let shift = (number.wrapping_mul(7).wrapping_add(u64::from(sender) * 131)) as usize % SHIFTS;
        &self.table[shift..shift + self.length - HEAD_BYTES]
    }

    /// Writes a whole payload into `buffer`, which is as long as a payload.
    pub(crate) fn write(&self, sender: u32, number: u64, stamp: u64, buffer: &mut [u8]) {
        buffer[..8].copy_from_slice(&number.to_le_bytes());
        buffer[8..HEAD_BYTES].copy_from_slice(&stamp.to_le_bytes());
        buffer[HEAD_BYTES..].copy_from_slice(self.body(sender, number));
    }
}

/// How a received payload differs from what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// Not the number that follows.
    #[error("message {found} came where {expected} was due")]
    Order {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A byte differs, or there are too many or too few.
    #[error("message {0} is not what was sent")]
    Bytes(u64),
}

/// Reads one sender's payloads, in as many pieces as they come in.
#[derive(Debug)]
pub(crate) struct Reading {
    pattern: Pattern,
    sender: u32,
    head: [u8; HEAD_BYTES],
    offset: usize,
    sound: bool,
}

impl Reading {
    /// For messages of `sender`.
    pub(crate) fn new(pattern: Pattern, sender: u32) -> Self {
        Self { pattern, sender, head: [0; HEAD_BYTES], offset: 0, sound: true }
    }

    /// A new message begins; what there was of another is forgotten.
    pub(crate) fn begin(&mut self) {
        self.offset = 0;
        self.sound = true;
    }

    /// The next bytes of the message.
    pub(crate) fn piece(&mut self, mut bytes: &[u8]) {
        if self.offset < HEAD_BYTES {
            let count = bytes.len().min(HEAD_BYTES - self.offset);
            self.head[self.offset..self.offset + count].copy_from_slice(&bytes[..count]);
            self.offset += count;
            bytes = &bytes[count..];
        }
        if bytes.is_empty() {
            return;
        }
        let start = self.offset - HEAD_BYTES;
        let expected = self.pattern.body(self.sender, self.number());
        self.sound &= expected.get(start..start + bytes.len()) == Some(bytes);
        self.offset += bytes.len();
    }

    fn number(&self) -> u64 {
        u64::from_le_bytes(self.head[..8].try_into().expect("eight bytes"))
    }

    fn stamp(&self) -> u64 {
        u64::from_le_bytes(self.head[8..].try_into().expect("eight bytes"))
    }

    /// The message is over: its number and stamp.
    ///
    /// # Errors
    /// [`Damage::Bytes`] if it is not what was sent.
    pub(crate) fn end(&mut self) -> Result<(u64, u64), Damage> {
        if self.sound && self.offset == self.pattern.length {
            Ok((self.number(), self.stamp()))
        } else {
            Err(Damage::Bytes(self.number()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(pattern: &Pattern) -> Vec<u8> {
        let mut payload = vec![0; pattern.length()];
        pattern.write(3, 41, 99, &mut payload);
        payload
    }

    #[test]
    fn a_payload_is_recognised_however_it_is_cut() {
        let pattern = Pattern::new(100);
        let payload = payload(&pattern);
        for cut in 0..=payload.len() {
            let mut reading = Reading::new(pattern.clone(), 3);
            reading.begin();
            reading.piece(&payload[..cut]);
            reading.piece(&payload[cut..]);
            assert_eq!(reading.end(), Ok((41, 99)), "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_missing_or_additional_byte_is_seen() {
        let pattern = Pattern::new(100);
        let whole = payload(&pattern);
        let read = |payload: &[u8], sender| {
            let mut reading = Reading::new(pattern.clone(), sender);
            reading.begin();
            reading.piece(payload);
            reading.end()
        };
        for place in HEAD_BYTES..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert_eq!(read(&changed, 3), Err(Damage::Bytes(41)), "byte {place}");
        }
        assert_eq!(read(&whole[..99], 3), Err(Damage::Bytes(41)));
        assert_eq!(read(&[&whole[..], &[0]].concat(), 3), Err(Damage::Bytes(41)));
        assert_eq!(read(&whole, 4), Err(Damage::Bytes(41)), "another sender's message");
    }
}
