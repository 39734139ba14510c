//! What a shard grants to peers that have not proven who they are: how many connections, failures, registrations and log
//! lines, for each source address and in all.
//!
//! Half-open is a connection from its acceptance until its device has proven its key; one that never does so, because it
//! came to register or to leave mail as a stranger, stays half-open as long as it lives.
//!
//! Memory is fixed. Addresses share [`SLOTS`] tallies by a keyed hash, so no table grows with the number of attackers and
//! none has to be swept. Two addresses may meet in a tally, and then they share its allowance; who meets whom cannot be
//! chosen from outside. IPv6 addresses count by their /64, since whoever has one has all of it.
//!
//! Above the shard's bound the oldest half-open connection makes room for the newest. The other way, refusing the newest,
//! would let whoever holds the bound shut everybody out for as long as a deadline lasts, again and again at no cost. To push
//! an honest peer out of the line, a whole line of new connections has to arrive while its handshake of a few round trips
//! runs. Above the bound of one address, however, the newest is turned away: there, the line belongs to one party, and
//! turning away needs no state.
//!
//! The half-open connections of an address are counted for the whole relay ([`HalfOpen`]), all else for the shard.
//!
//! Nothing here decides what a peer is told.

use super::half_open::{HalfOpen, SLOTS, Source};
use super::mesh::ConnectionId;
use crate::time::{Entropy, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Lines of the security log for one address in a minute.
const LOG_LINES_PER_ADDRESS_PER_MINUTE: u32 = 10;
/// Lines of the security log of one shard in a minute.
const LOG_LINES_PER_MINUTE: u32 = 600;

/// A place in the line of half-open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Of all shards.
    half_open: Arc<HalfOpen>,
    /// Of this shard, by source; made for the first address: at 40 bytes each, 1.25 MiB.
    tallies: Option<Box<[Tally]>>,
    /// Half-open connections by age.
    line: BTreeMap<Turn, (ConnectionId, Option<Source>)>,
    next_turn: u64,
    log: Bucket,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Failures that the log was spared since its last line.
    unlogged: u32,
    failures: Bucket,
    registrations: Bucket,
    tls_handshakes: Bucket,
    log: Bucket,
}

/// So many in a minute, all at once if need be. It holds when it will be full again, in microseconds since the epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u64);

impl Bucket {
    const MINUTE: u64 = 60_000_000;

    fn micros(now: Timestamp) -> u64 {
        now.0.saturating_mul(1000)
    }

    fn interval(per_minute: u32) -> u64 {
        Self::MINUTE / u64::from(per_minute.max(1))
    }

    fn has_any(self, now: Timestamp, per_minute: u32) -> bool {
        let lacking = self.0.saturating_sub(Self::micros(now));
        lacking + Self::interval(per_minute) <= Self::MINUTE
    }

    /// Takes one; an empty bucket stays empty, so that nobody waits more than a minute.
    fn take(&mut self, now: Timestamp, per_minute: u32) {
        let now = Self::micros(now);
        self.0 = (self.0.max(now) + Self::interval(per_minute)).min(now + Self::MINUTE);
    }

    fn take_if_any(&mut self, now: Timestamp, per_minute: u32) -> bool {
        let any = self.has_any(now, per_minute);
        if any {
            self.take(now, per_minute);
        }
        any
    }
}

/// The shard ends, and its connections with it.
impl Drop for Strangers {
    fn drop(&mut self) {
        for source in self.line.values().filter_map(|&(_, source)| source) {
            self.half_open.remove(source);
        }
    }
}

impl Strangers {
    /// Nobody yet on this shard; `half_open` counts those of all shards.
    pub(super) fn new(half_open: Arc<HalfOpen>) -> Self {
        Self { half_open, tallies: None, line: BTreeMap::new(), next_turn: 0, log: Bucket::default() }
    }

    /// Where `address` is counted.
    pub(super) fn source(&mut self, address: IpAddr, entropy: &mut dyn Entropy) -> Source {
        self.tallies.get_or_insert_with(|| vec![Tally::default(); SLOTS].into_boxed_slice());
        self.half_open.source(address, entropy)
    }

    fn tally(&self, source: Source) -> &Tally {
        &self.tallies.as_ref().expect("made with the first source")[source.index()]
    }

    fn tally_mut(&mut self, source: Source) -> &mut Tally {
        &mut self.tallies.as_mut().expect("made with the first source")[source.index()]
    }

    /// Half-open connections of the address, on all shards.
    pub(super) fn half_open(&self, source: Source) -> usize {
        self.half_open.of(source)
    }

    /// A half-open connection is there.
    pub(super) fn enter(&mut self, source: Option<Source>, connection: ConnectionId) -> Turn {
        if let Some(source) = source {
            self.half_open.add(source);
        }
        let turn = Turn(self.next_turn);
        self.next_turn += 1;
        self.line.insert(turn, (connection, source));
        turn
    }

    /// It is half-open no more, or gone.
    pub(super) fn leave(&mut self, turn: Turn) {
        if let Some((_, Some(source))) = self.line.remove(&turn) {
            self.half_open.remove(source);
        }
    }

    /// The oldest half-open connection, if there are more than `most`.
    pub(super) fn oldest_above(&self, most: usize) -> Option<ConnectionId> {
        let (_, &(oldest, _)) = self.line.first_key_value()?;
        (self.line.len() > most).then_some(oldest)
    }

    /// Half-open connections of the shard.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether the address may try to prove something.
    pub(super) fn may_try(&self, now: Timestamp, source: Source, per_minute: u32) -> bool {
        self.tally(source).failures.has_any(now, per_minute)
    }

    /// It has tried in vain.
    pub(super) fn failed(&mut self, now: Timestamp, source: Source, per_minute: u32) {
        self.tally_mut(source).failures.take(now, per_minute);
    }

    /// Whether the address may register now; if so, it is counted.
    pub(super) fn may_register(&mut self, now: Timestamp, source: Source, per_minute: u32) -> bool {
        self.tally_mut(source).registrations.take_if_any(now, per_minute)
    }

    /// Whether the address may begin a TLS handshake now; if so, it is counted.
    pub(super) fn may_begin_tls(&mut self, now: Timestamp, source: Source, per_minute: u32) -> bool {
        self.tally_mut(source).tls_handshakes.take_if_any(now, per_minute)
    }

    /// Whether a failure is worth a line of the log, and how many of the address have had none since the last line.
    pub(super) fn log_line(&mut self, now: Timestamp, source: Option<Source>) -> Option<u32> {
        let Some(source) = source else {
            return self.log.take_if_any(now, LOG_LINES_PER_MINUTE).then_some(0);
        };
        let shard_has_any = self.log.has_any(now, LOG_LINES_PER_MINUTE);
        let tally = self.tally_mut(source);
        if shard_has_any && tally.log.take_if_any(now, LOG_LINES_PER_ADDRESS_PER_MINUTE) {
            let unlogged = std::mem::take(&mut tally.unlogged);
            self.log.take(now, LOG_LINES_PER_MINUTE);
            Some(unlogged)
        } else {
            tally.unlogged = tally.unlogged.saturating_add(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&mut self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    const NOW: Timestamp = Timestamp(1_000_000);

    fn seconds(count: u64) -> Timestamp {
        Timestamp(NOW.0 + count * 1000)
    }

    fn source(strangers: &mut Strangers, address: &str) -> Source {
        strangers.source(address.parse().unwrap(), &mut Sevens)
    }

    fn connection(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    #[test]
    fn an_ipv6_address_counts_by_its_64_and_a_mapped_one_as_ipv4() {
        let strangers = &mut Strangers::new(Arc::default());
        let mut same = |a: &str, b: &str| source(strangers, a) == source(strangers, b);
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn after_so_many_failures_an_address_waits_and_others_do_not() {
        let strangers = &mut Strangers::new(Arc::default());
        let (bad, good) = (source(strangers, "192.0.2.1"), source(strangers, "192.0.2.2"));
        for _ in 0..6 {
            assert!(strangers.may_try(NOW, bad, 6));
            strangers.failed(NOW, bad, 6);
        }
        assert!(!strangers.may_try(NOW, bad, 6));
        assert!(strangers.may_try(NOW, good, 6));
        assert!(!strangers.may_try(seconds(9), bad, 6));
        assert!(strangers.may_try(seconds(10), bad, 6), "a sixth of a minute later there is one more");
    }

    #[test]
    fn nobody_waits_more_than_a_minute_for_all_of_its_allowance() {
        let strangers = &mut Strangers::new(Arc::default());
        let bad = source(strangers, "192.0.2.1");
        for _ in 0..1000 {
            strangers.failed(NOW, bad, 3);
        }
        for _ in 0..3 {
            assert!(strangers.may_try(seconds(60), bad, 3));
            strangers.failed(seconds(60), bad, 3);
        }
        assert!(!strangers.may_try(seconds(60), bad, 3));
    }

    #[test]
    fn registrations_and_failures_are_counted_apart() {
        let strangers = &mut Strangers::new(Arc::default());
        let source = source(strangers, "192.0.2.1");
        assert!(strangers.may_register(NOW, source, 2));
        assert!(strangers.may_register(NOW, source, 2));
        assert!(!strangers.may_register(NOW, source, 2));
        assert!(strangers.may_try(NOW, source, 1));
        assert!(strangers.may_register(seconds(30), source, 2));
        assert!(!strangers.may_register(seconds(30), source, 2));
    }

    #[test]
    fn an_address_has_one_count_of_half_open_connections_on_all_shards() {
        let half_open = Arc::new(HalfOpen::default());
        let [mut first, mut second] = [(); 2].map(|()| Strangers::new(half_open.clone()));
        let from = source(&mut first, "192.0.2.1");
        assert_eq!(source(&mut second, "192.0.2.1"), from);
        let turn = first.enter(Some(from), connection(0));
        second.enter(Some(from), connection(0));
        assert_eq!([first.half_open(from), second.half_open(from)], [2, 2]);
        first.leave(turn);
        assert_eq!(second.half_open(from), 1);
        drop(second);
        assert_eq!(first.half_open(from), 0, "a shard that ends leaves no count behind");
    }

    #[test]
    fn the_line_gives_way_at_its_old_end() {
        let strangers = &mut Strangers::new(Arc::default());
        let source = source(strangers, "192.0.2.1");
        let from = Some(source);
        let turns: Vec<_> = (0..3).map(|index| strangers.enter(from, connection(index))).collect();
        assert_eq!(strangers.oldest_above(3), None);
        assert_eq!(strangers.oldest_above(2), Some(connection(0)));
        strangers.leave(turns[0]);
        assert_eq!(strangers.oldest_above(1), Some(connection(1)));
        assert_eq!(strangers.half_open(source), 2);
    }

    #[test]
    fn the_log_has_ten_lines_of_an_address_and_the_next_one_tells_the_rest() {
        let strangers = &mut Strangers::new(Arc::default());
        let bad = Some(source(strangers, "192.0.2.1"));
        let good = Some(source(strangers, "192.0.2.2"));
        assert_eq!((0..25).filter_map(|_| strangers.log_line(NOW, bad)).collect::<Vec<_>>(), [0; 10]);
        assert_eq!(strangers.log_line(NOW, good), Some(0));
        assert_eq!(strangers.log_line(seconds(6), bad), Some(15));
    }

    #[test]
    fn the_log_of_a_shard_is_bounded_however_many_addresses_fail() {
        let strangers = &mut Strangers::new(Arc::default());
        let mut lines = 0;
        for number in 0..2000u32 {
            let address = IpAddr::from(number.to_be_bytes());
            let source = strangers.source(address, &mut Sevens);
            lines += u32::from(strangers.log_line(NOW, Some(source)).is_some());
        }
        assert_eq!(lines, LOG_LINES_PER_MINUTE);
    }

    proptest! {
        #[test]
        fn who_enters_and_leaves_in_any_order_is_counted_right(
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            let strangers = &mut Strangers::new(Arc::default());
            let mut there: Vec<(Option<Source>, Turn)> = Vec::new();
            for (number, (address, at, enters)) in steps.into_iter().enumerate() {
                if enters || there.is_empty() {
                    let address = IpAddr::from([192, 0, 2, address]);
                    let source = Some(strangers.source(address, &mut Sevens));
                    there.push((source, strangers.enter(source, connection(number as u32))));
                } else {
                    let (_, turn) = there.swap_remove(at.index(there.len()));
                    strangers.leave(turn);
                    strangers.leave(turn);
                }
                prop_assert_eq!(strangers.len(), there.len());
                for (source, _) in &there {
                    let count = there.iter().filter(|(other, _)| other == source).count();
                    prop_assert_eq!(strangers.half_open(source.unwrap()), count);
                }
            }
        }

        #[test]
        fn no_minute_grants_more_than_twice_the_allowance(
            per_minute in 1u32..100,
            pauses in prop::collection::vec(0u64..5000, 1..300),
        ) {
            let mut bucket = Bucket::default();
            let (mut now, mut granted) = (NOW, Vec::new());
            for pause in pauses {
                now = Timestamp(now.0 + pause);
                if bucket.take_if_any(now, per_minute) {
                    granted.push(now);
                }
            }
            for (first, &start) in granted.iter().enumerate() {
                let within = granted[first..].iter().take_while(|at| at.0 - start.0 < 60_000).count();
                prop_assert!(within <= 2 * per_minute as usize);
            }
        }
    }
}
