//! Distributions that a shard keeps for itself: counts under fixed bounds for Prometheus since the start, and the percentiles of
//! the last seconds for people.

use hdrhistogram::Histogram;
use relay_core::time::Timestamp;
use std::time::Duration;

/// Bounds of every distribution; each is twice the one before.
pub const BOUNDS: usize = 18;
/// Percentiles are those of one to two such windows.
const WINDOW: Duration = Duration::from_secs(5);
/// The highest value that percentiles tell apart: 19 hours, in microseconds.
const HIGHEST: u64 = 1 << 36;
/// Percentiles are this many digits right.
const DIGITS: u8 = 2;

/// What a distribution is of.
#[derive(Debug)]
pub struct Shape {
    /// The name of the metric.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The lowest bound, in the unit of the values.
    pub first_bound: u64,
    /// How many of the values' units make one of the metric's.
    pub scale: f64,
}

impl Shape {
    /// The bounds, in the unit of the values. Each counts what is not above it and above the one before.
    pub fn bounds(&self) -> [u64; BOUNDS] {
        std::array::from_fn(|power| self.first_bound << power)
    }
}

const MICROSECONDS: f64 = 1e6;

/// Making a batch durable, in microseconds.
pub const COMMIT: Shape = Shape {
    name: "furrow_log_commit_duration_seconds",
    help: "Time that it took to make a batch durable.",
    first_bound: 50,
    scale: MICROSECONDS,
};
/// Records of a batch.
pub const BATCH: Shape = Shape {
    name: "furrow_log_batch_records",
    help: "Records that were made durable together.",
    first_bound: 1,
    scale: 1.0,
};
/// From the end of a message to its completion, in microseconds.
pub const COMPLETION: Shape = Shape {
    name: "furrow_message_completion_duration_seconds",
    help: "Time from the end of a message until every recipient has it or it is durable.",
    first_bound: 1000,
    scale: MICROSECONDS,
};

/// All distributions of a shard, in the order in which they are published.
pub const SHAPES: [&Shape; 3] = [&COMMIT, &BATCH, &COMPLETION];

/// A distribution at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Values under each bound and above the one before it.
    pub counts: [u64; BOUNDS],
    /// All values, those above the last bound included.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Median of the last seconds.
    pub p50: u64,
    /// 99th percentile of the last seconds.
    pub p99: u64,
    /// The highest of the last seconds.
    pub max: u64,
}

/// Records values of one distribution.
#[derive(Debug)]
pub struct Recorder {
    shape: &'static Shape,
    total: Distribution,
    current: Histogram<u32>,
    previous: Histogram<u32>,
    window_ends: Timestamp,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(shape: &'static Shape) -> Self {
        let empty = || Histogram::new_with_max(HIGHEST, DIGITS).expect("the bounds are right");
        Self {
            shape,
            total: Distribution::default(),
            current: empty(),
            previous: empty(),
            window_ends: Timestamp::default(),
        }
    }

    /// Records a value `times` times.
    pub fn record(&mut self, value: u64, times: u64) {
        let above = self.shape.bounds().partition_point(|&bound| bound < value);
        if let Some(count) = self.total.counts.get_mut(above) {
            *count += times;
        }
        self.total.count += times;
        self.total.sum += value * times;
        // Counts of a window saturate: they are for percentiles only.
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        self.current.saturating_record_n(value, times);
    }

    /// What has been recorded.
    pub fn read(&mut self, now: Timestamp) -> Distribution {
        if now >= self.window_ends {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.reset();
            self.window_ends = now + WINDOW;
        }
        let mut recent = self.previous.clone();
        recent.add(&self.current).expect("they have the same bounds");
        let (p50, p99) = (recent.value_at_quantile(0.5), recent.value_at_quantile(0.99));
        Distribution { p50, p99, max: recent.max(), ..self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_under_the_first_bound_that_is_not_below_it() {
        for (value, place) in [(0, 0), (50, 0), (51, 1), (100, 1), (101, 2), (50 << 17, 17)] {
            let mut recorder = Recorder::new(&COMMIT);
            recorder.record(value, 3);
            let read = recorder.read(Timestamp(1));
            assert_eq!(read.counts[place], 3, "{value}");
            assert_eq!((read.count, read.sum), (3, 3 * value));
        }
    }

    #[test]
    fn a_value_above_all_bounds_is_in_the_count_only() {
        let mut recorder = Recorder::new(&BATCH);
        recorder.record(u64::from(u32::MAX), 1);
        let read = recorder.read(Timestamp(1));
        assert_eq!((read.counts, read.count), ([0; BOUNDS], 1));
    }

    #[test]
    fn percentiles_are_those_of_the_last_seconds() {
        let mut recorder = Recorder::new(&COMMIT);
        let at = |seconds: u64| Timestamp(1_000_000 + seconds * 1000);
        recorder.read(at(0));
        recorder.record(100, 99);
        recorder.record(5000, 1);
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 100 <= wanted;
        let read = recorder.read(at(1));
        assert!(near(read.p50, 100) && near(read.p99, 100) && near(read.max, 5000), "{read:?}");
        recorder.read(at(6));
        recorder.record(200, 1);
        assert!(near(recorder.read(at(7)).max, 5000), "the window before still counts");
        recorder.read(at(12));
        let read = recorder.read(at(13));
        assert!(near(read.p50, 200) && near(read.max, 200), "{read:?}");
        recorder.read(at(18));
        let read = recorder.read(at(24));
        assert_eq!((read.p50, read.p99, read.max, read.count), (0, 0, 0, 101));
    }
}
