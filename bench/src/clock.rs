//! The one clock of a run: nanoseconds since the process first asked. Latencies are differences of its readings, so sender and
//! receiver must be in one process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call.
pub(crate) fn now() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A duration in the clock's unit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Sleeps until the clock reads `at`.
pub(crate) fn sleep_until(at: u64) {
    std::thread::sleep(Duration::from_nanos(at.saturating_sub(now())));
}
