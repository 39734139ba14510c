//! One timer wheel for all connections of a shard. An entry says only when to look at a connection again; the connection
//! knows its own deadlines, so traffic that moves a deadline back costs nothing here. An earlier deadline is a second entry;
//! the first one is ignored when its time comes, being no longer the one that the connection is armed for.

use super::mesh::ConnectionId;
use crate::time::Timestamp;

const TICK_MILLIS: u64 = 128;
const SLOTS: usize = 2048;

/// The wheel: 2048 slots of 128 ms, a little over four minutes round. Later deadlines go round again.
#[derive(Debug)]
pub(super) struct TimerWheel {
    slots: Vec<Vec<(ConnectionId, Timestamp)>>,
    /// The next tick to expire.
    tick: u64,
    len: usize,
}

impl TimerWheel {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: now.0 / TICK_MILLIS, len: 0 }
    }

    /// Looks at `connection` again at `due`, or up to one tick later.
    pub(super) fn insert(&mut self, connection: ConnectionId, due: Timestamp) {
        let tick = due.0.div_ceil(TICK_MILLIS).max(self.tick);
        self.slots[tick as usize % SLOTS].push((connection, due));
        self.len += 1;
    }

    /// Entries held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// When [`TimerWheel::expire`] is next worth calling.
    pub(super) fn next(&self) -> Option<Timestamp> {
        if self.len == 0 {
            return None;
        }
        let turn = self.tick..self.tick + SLOTS as u64;
        let used = turn.clone().find(|tick| !self.slots[*tick as usize % SLOTS].is_empty());
        Some(Timestamp(used.unwrap_or(turn.start) * TICK_MILLIS))
    }

    /// Moves everything that is due at `now` to `due`, each with the moment that it was inserted for.
    pub(super) fn expire(&mut self, now: Timestamp, due: &mut Vec<(ConnectionId, Timestamp)>) {
        let last = now.0 / TICK_MILLIS;
        let ticks = (last + 1).saturating_sub(self.tick).min(SLOTS as u64);
        for tick in (last + 1 - ticks)..=last {
            let slot = &mut self.slots[tick as usize % SLOTS];
            let before = slot.len();
            slot.retain(|&(connection, at)| {
                let later = at > now;
                if !later {
                    due.push((connection, at));
                }
                later
            });
            self.len -= before - slot.len();
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        self.tick = self.tick.max(last + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    fn expired(wheel: &mut TimerWheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(Timestamp(now), &mut due);
        due.iter().map(|(id, _)| id.index).collect()
    }

    #[test]
    fn nothing_is_early_and_nothing_is_more_than_a_tick_late() {
        let mut wheel = TimerWheel::new(Timestamp(1_000_000));
        for (n, after) in [0u64, 1, 127, 128, 5_000, 45_000, 600_000].into_iter().enumerate() {
            wheel.insert(id(n as u32), Timestamp(1_000_000 + after));
        }
        let mut seen = Vec::new();
        for now in (1_000_000..1_601_000).step_by(50) {
            for n in expired(&mut wheel, now) {
                seen.push((n, now - 1_000_000));
            }
        }
        let after = [0u64, 1, 127, 128, 5_000, 45_000, 600_000];
        assert_eq!(seen.len(), after.len());
        for (n, at) in seen {
            let due = after[n as usize];
            assert!(at >= due && at <= due + 200, "due after {due}, seen after {at}");
        }
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let mut wheel = TimerWheel::new(Timestamp(0));
        for n in 0..100 {
            wheel.insert(id(n), Timestamp(u64::from(n) * 1000));
        }
        assert_eq!(expired(&mut wheel, 10_000_000).len(), 100);
        assert_eq!(wheel.next(), None);
        wheel.insert(id(7), Timestamp(5));
        assert_eq!(expired(&mut wheel, 10_000_200), [7], "a deadline in the past is due at once");
    }

    #[test]
    fn next_is_never_after_the_earliest_deadline_by_more_than_a_tick() {
        let mut wheel = TimerWheel::new(Timestamp(0));
        assert_eq!(wheel.next(), None);
        wheel.insert(id(1), Timestamp(45_000));
        let next = wheel.next().unwrap();
        assert!(next >= Timestamp(45_000) && next <= Timestamp(45_128));
    }
}
