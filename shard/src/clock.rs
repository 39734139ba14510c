//! The clock that shards tell the relay: wall time at the start of the process, carried on by the monotonic clock.

use relay_core::time::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// See the module's head. One for the whole process, so that all shards agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_millis: u64,
    started: Instant,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_millis: wall.as_millis() as u64, started: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.wall_millis + self.started.elapsed().as_millis() as u64)
    }
}
