//! The census in a segment's header block: which segments the log had when the segment was begun, so that one that is
//! missing later is noticed and named. Never says what is in a segment.

use crate::segment::BLOCK;

/// Where the census begins in the header block.
const START: usize = 64;
const CRC_AT: usize = BLOCK as usize - 4;
/// Ranges of numbers that fit.
const MAX_RANGES: usize = (CRC_AT - START - 8) / 8;

/// The segments in use at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Of segments below this number it says nothing.
    from: u32,
    /// First and last number of each run, ascending.
    runs: Vec<(u32, u32)>,
}

impl Census {
    /// Counts segments, given in ascending order. If there are too many runs of them, only the newest are in it.
    pub(crate) fn of(numbers: impl Iterator<Item = u32>) -> Self {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => runs.push((number, number)),
            }
        }
        let left_out = runs.len().saturating_sub(MAX_RANGES);
        let from = if left_out == 0 { 0 } else { runs[left_out].0 };
        runs.drain(..left_out);
        Self { from, runs }
    }

    /// Writes it into a header block.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        let mut words = vec![self.runs.len() as u32, self.from];
        words.extend(self.runs.iter().flat_map(|(first, last)| [*first, *last]));
        for (at, word) in words.iter().enumerate() {
            block[START + 4 * at..START + 4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&block[START..CRC_AT]);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads it from a header block; `None` if it is damaged.
    pub(crate) fn parse(block: &[u8]) -> Option<Self> {
        let stored = u32::from_le_bytes(*block.get(CRC_AT..)?.first_chunk()?);
        if stored != crc32c::crc32c(&block[START..CRC_AT]) {
            return None;
        }
        let mut words = block[START..CRC_AT]
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let (count, from) = (words.next()? as usize, words.next()?);
        let mut runs = Vec::new();
        for _ in 0..count.min(MAX_RANGES) {
            runs.push((words.next()?, words.next()?));
        }
        Some(Self { from, runs })
    }

    /// Whether the segment is in it.
    pub(crate) fn lists(&self, number: u32) -> bool {
        self.runs.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// The listed segments for which `is_there` is false; the first `most` of them.
    pub(crate) fn missing(&self, most: usize, is_there: impl Fn(u32) -> bool) -> Vec<u32> {
        let listed = self.runs.iter().flat_map(|(first, last)| *first..=*last);
        listed.filter(|number| !is_there(*number)).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(census: &Census) -> Option<Census> {
        let mut block = vec![0; BLOCK as usize];
        census.encode(&mut block);
        Census::parse(&block)
    }

    #[test]
    fn a_census_round_trips_and_names_who_is_missing() {
        let census = Census::of([1, 2, 3, 7, 9, 10, u32::MAX].into_iter());
        assert_eq!(round_trip(&census).as_ref(), Some(&census));
        assert_eq!(census.missing(9, |number| number != 2 && number != 9), [2, 9]);
        assert!(census.lists(7) && !census.lists(8));
        assert_eq!(round_trip(&Census::default()), Some(Census::default()));
    }

    #[test]
    fn a_census_of_too_many_runs_speaks_of_the_newest_only() {
        let census = Census::of((0..2000).map(|number| number * 2));
        assert_eq!(round_trip(&census).as_ref(), Some(&census));
        assert_eq!(census.runs.len(), MAX_RANGES);
        assert_eq!(census.from, 2 * (2000 - MAX_RANGES as u32));
        assert!(census.lists(3998) && !census.lists(0));
    }

    #[test]
    fn a_damaged_census_is_none() {
        let mut block = vec![0; BLOCK as usize];
        Census::of([1, 5].into_iter()).encode(&mut block);
        for at in [START, START + 9, CRC_AT] {
            block[at] ^= 4;
            assert_eq!(Census::parse(&block), None);
            block[at] ^= 4;
        }
    }
}
