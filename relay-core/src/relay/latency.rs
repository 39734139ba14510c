//! Spans of time, counted by powers of two: what a shard can afford for every message.

use std::time::Duration;

/// Counts; the last one has everything above 65 s.
const BUCKETS: usize = 18;

/// How often something took how long. Resolution and lowest bound are the millisecond of [`crate::time::Timestamp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: [u64; BUCKETS],
    total_ms: u64,
}

impl Latencies {
    /// Counts one more.
    pub(super) fn record(&mut self, span: Duration) {
        let ms = span.as_millis() as u64;
        let bucket = (u64::BITS - ms.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total_ms += ms;
    }

    /// How many spans were shorter than so many milliseconds (1, 2, 4, ...) and not shorter than the bound before it. The last
    /// bound has all the rest.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        (0..).map(|power| 1u64 << power).zip(self.counts)
    }

    /// All spans together, in milliseconds.
    pub fn total_ms(&self) -> u64 {
        self.total_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_counted_under_the_next_power_of_two() {
        for (ms, bound) in [(0, 1), (1, 2), (2, 4), (3, 4), (4, 8), (1000, 1024), (65_535, 65_536)] {
            let mut latencies = Latencies::default();
            latencies.record(Duration::from_millis(ms));
            let counted: Vec<_> = latencies.counts().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(bound, 1)], "{ms} ms");
            assert_eq!(latencies.total_ms(), ms);
        }
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1 << 40));
        assert_eq!(latencies.counts().last(), Some((1 << 17, 1)));
    }
}
