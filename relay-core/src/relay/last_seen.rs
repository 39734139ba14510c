//! When devices were last there, so that mail does not wait for ever for those that do not come any more.
//!
//! What is remembered is durable but coarse: at most once a day for each device, when it proves itself and while it stays
//! connected, the driver gets its URL ([`Relay::take_seen`]) and writes the time down, away from mail. The purge pass
//! (`mailroom::sweep`) reads it back through [`crate::directory::Directory::last_seen`]. Never deletes anything itself.

use super::Relay;
use super::mesh::ConnectionId;
use crate::address::DeviceUrl;
use crate::time::Timestamp;

const DAY_SECONDS: u64 = 24 * 3600;
/// Devices that may wait to be written down. One above it is noted by a later round.
const MOST_NOTED: usize = 16 * 1024;
/// Connections that a round looks at in a second.
const CONNECTIONS: usize = 1024;

/// A day, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(u32);

impl Day {
    /// No day: nothing is known.
    pub(super) const NEVER: Day = Day(0);

    /// The day of a second since the Unix epoch.
    pub(super) fn of_seconds(seconds: u64) -> Self {
        Self(u32::try_from(seconds / DAY_SECONDS).unwrap_or(u32::MAX))
    }

    pub(super) fn of(now: Timestamp) -> Self {
        Self::of_seconds(now.as_secs())
    }

    /// The first second after it, since the Unix epoch: nobody who was there on that day was there later than this.
    pub(super) fn end_seconds(self) -> u64 {
        (u64::from(self.0) + 1) * DAY_SECONDS
    }
}

/// Who is to be written down, and where the round is.
#[derive(Debug, Default)]
pub(super) struct Seen {
    noted: Vec<DeviceUrl>,
    /// The connection that the round looks at next.
    from: usize,
}

impl Relay {
    /// Devices that were seen today and not written down yet. What is taken but cannot be written is given back with
    /// [`Relay::not_written`]; if it is lost, the devices are seen again tomorrow.
    pub fn take_seen(&mut self) -> Vec<DeviceUrl> {
        std::mem::take(&mut self.seen.noted)
    }

    /// Takes devices back that could not be written down.
    pub fn not_written(&mut self, mut devices: Vec<DeviceUrl>) {
        devices.append(&mut self.seen.noted);
        devices.truncate(MOST_NOTED);
        self.seen.noted = devices;
    }

    /// A device has proven itself. One that was here today already is not written down again.
    pub(super) fn device_seen(&mut self, id: ConnectionId) {
        let today = Day::of(self.now);
        let Some(device) = &self.peer(id).device else { return };
        let known = self.directory.last_seen(device);
        if known.is_ok_and(|at| at.is_some_and(|at| Day::of_seconds(at) == today)) {
            self.peer_mut(id).seen_on = today;
        } else {
            self.note_seen(id, today);
        }
    }

    /// Looks at the next connections; those who are still there on another day are noted again.
    pub(super) fn note_who_stays(&mut self) {
        let today = Day::of(self.now);
        let capacity = self.peers.end();
        let end = (self.seen.from + CONNECTIONS).min(capacity);
        for index in self.seen.from..end {
            let stays =
                |peer: &&super::Peer| peer.authenticated && peer.relay.is_none() && peer.seen_on != today;
            if let Some(id) = self.peers.get(index).filter(stays).map(|peer| peer.id) {
                self.note_seen(id, today);
            }
        }
        self.seen.from = if end == capacity { 0 } else { end };
    }

    fn note_seen(&mut self, id: ConnectionId, today: Day) {
        if self.seen.noted.len() < MOST_NOTED
            && let Some(device) = self.peer(id).device.clone()
        {
            self.seen.noted.push(device);
            self.peer_mut(id).seen_on = today;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins() {
        for seconds in [0, 1, DAY_SECONDS - 1, DAY_SECONDS, 1_700_000_000] {
            let day = Day::of_seconds(seconds);
            assert!(day.end_seconds() > seconds && day.end_seconds() - seconds <= DAY_SECONDS);
            assert_eq!(Day::of_seconds(day.end_seconds() - 1), day);
            assert_ne!(Day::of_seconds(day.end_seconds()), day);
        }
    }
}
