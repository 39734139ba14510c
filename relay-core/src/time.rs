//! Time and randomness as arguments: the only forms in which this crate meets either.

use std::ops::Add;
use std::time::Duration;

/// A moment, in milliseconds since the Unix epoch.
///
/// Drivers derive it from one wall-clock reading at start plus a monotonic clock, so that it never runs backwards within
/// a process and still means something after a restart (message lifetimes need that).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the Unix epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, after: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(after.as_millis().min(u64::MAX as u128) as u64))
    }
}

/// A source of unpredictable bytes: the system's generator in production, a seeded one in the simulator.
pub trait Entropy {
    /// Fills `buffer` completely.
    fn fill(&mut self, buffer: &mut [u8]);
}
