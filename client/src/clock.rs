//! Time for the machine: one look at the wall clock, then a clock that never runs backwards.

use relay_core::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Gives [`Timestamp`]s.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_millis: u64,
}

impl Clock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { start: Instant::now(), start_millis: since_epoch.as_millis() as u64 }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.start_millis) + self.start.elapsed()
    }

    /// How long it is until `at`; zero if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}
