//! What a message carries, so that its receiver can check every byte: its number, the time at which it was meant to be sent,
//! and a stretch of a fixed table that depends on both its number and its sender.

use std::sync::Arc;

/// Number and time, 8 bytes each, little-endian.
pub(crate) const HEAD_BYTES: usize = 16;
/// How far into the table a body may begin.
const SHIFTS: usize = 1024;

/// The table that bodies are cut from, and how long each is.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    table: Arc<[u8]>,
    length: usize,
    /// Lengths to choose from by a message's number; empty if all are alike.
    lengths: Arc<[u32]>,
}

/// Lengths that a mixture has to choose from.
const LENGTHS: usize = 4096;
/// The shortest payload of a mixture, and the step between its lengths.
const STEP: usize = 64;

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
        Self { table, length, lengths: Arc::new([]) }
    }

    /// For payloads whose lengths follow Zipf's law: 64 bytes are twice as frequent as 128, three times as 192, and so on up
    /// to `longest`.
    pub(crate) fn zipf(longest: usize) -> Self {
        let ranks = (longest / STEP).max(1);
        let weight: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
        let mut lengths = Vec::with_capacity(LENGTHS);
        let (mut rank, mut reached) = (1, 1.0 / weight);
        for entry in 0..LENGTHS {
            while rank < ranks && reached < (entry as f64 + 0.5) / LENGTHS as f64 {
                rank += 1;
                reached += 1.0 / (rank as f64 * weight);
            }
            lengths.push((rank * STEP) as u32);
        }
        Self { lengths: lengths.into(), ..Self::new(ranks * STEP) }
    }

    /// The most payload bytes of a message.
    pub(crate) fn longest(&self) -> usize {
        self.length
    }

    /// Payload bytes of a message on average.
    pub(crate) fn mean(&self) -> usize {
        match self.lengths.len() {
            0 => self.length,
            count => self.lengths.iter().map(|&length| length as usize).sum::<usize>() / count,
        }
    }

    fn length(&self, sender: u32, number: u64) -> usize {
        if self.lengths.is_empty() {
            return self.length;
        }
        let place = (number ^ u64::from(sender) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        self.lengths[place as usize % self.lengths.len()] as usize
    }

    fn body(&self, sender: u32, number: u64) -> &[u8] {
        let shift = (number.wrapping_mul(7).wrapping_add(u64::from(sender) * 131)) as usize % SHIFTS;
        &self.table[shift..shift + self.length(sender, number) - HEAD_BYTES]
    }

    /// Writes a whole payload into `buffer`, which has room for the longest one, and gives it back.
    pub(crate) fn write<'a>(&self, sender: u32, number: u64, stamp: u64, buffer: &'a mut [u8]) -> &'a [u8] {
        let body = self.body(sender, number);
        let payload = &mut buffer[..HEAD_BYTES + body.len()];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        payload[8..HEAD_BYTES].copy_from_slice(&stamp.to_le_bytes());
        payload[HEAD_BYTES..].copy_from_slice(body);
        payload
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
        if self.sound && self.offset == self.pattern.length(self.sender, self.number()) {
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
        let mut payload = vec![0; pattern.longest()];
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

    #[test]
    fn the_lengths_of_a_mixture_follow_zipfs_law_and_are_checked() {
        let pattern = Pattern::zipf(64 * 1024);
        let mut buffer = vec![0; pattern.longest()];
        let mut of_length = std::collections::BTreeMap::<usize, u32>::new();
        for number in 0..20_000 {
            let payload = pattern.write(3, number, 99, &mut buffer);
            *of_length.entry(payload.len()).or_default() += 1;
            let mut reading = Reading::new(pattern.clone(), 3);
            reading.begin();
            reading.piece(payload);
            assert_eq!(reading.end(), Ok((number, 99)));
        }
        let ratio = f64::from(of_length[&64]) / f64::from(of_length[&128]);
        assert!((1.6..2.5).contains(&ratio), "{ratio}");
        assert!(*of_length.keys().last().unwrap() > 60_000, "long ones come too");
        assert_eq!(Pattern::zipf(64 * 1024).mean() / 1000, 8);
    }
}
