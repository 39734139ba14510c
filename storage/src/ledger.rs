//! What every segment of a log still has to be kept for: live parts, and deletions of messages whose parts lie
//! elsewhere. Pure bookkeeping: never touches a file.
//!
//! Invariants: a part is live in exactly one place; a deletion is counted only against segments that exist and are
//! not its own; a segment once recycled is counted nowhere. A deletion never lies in a segment before the message's, so
//! the oldest segment without live parts is always free of deletions that matter, and recycling never gets stuck.

use crate::record::{ORDINALS, SegmentSet};
use hashbrown::HashMap;
use relay_core::store::{Family, Position, RecordId};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Segments that a log may take beyond twice its live bytes before any is emptied.
const SLACK_SEGMENTS: u64 = 4;

/// About what a deletion takes when it is appended again.
const DELETION_BYTES: u64 = 96;

/// How far a segment is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where the next record goes, or would go.
    pub(crate) end: u32,
    /// Records before it, modulo [`ORDINALS`].
    pub(crate) records: u32,
}

/// What one segment is still needed for.
#[derive(Debug)]
struct Account {
    family: Family,
    /// Length of every live part by its offset. A tree, since parts come in this order and mostly go in it; and a hash table
    /// of half a million parts would stop the shard whenever it grows.
    live: BTreeMap<u32, u32>,
    live_bytes: u64,
    extent: Extent,
    /// The highest id in any of its records.
    highest_id: RecordId,
    /// Deletions in this segment by the segment whose records they make void.
    deletions: HashMap<u32, u64>,
}

/// The accounts of all segments that are in use.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<u32, Account>,
    /// Segments that hold copies of a message's parts which do not count (the append failed and was tried
    /// again): its deletion must cover them too.
    ghosts: HashMap<RecordId, SegmentSet>,
    /// Where parts went that were moved, by every place where they were.
    moves: HashMap<Position, Position>,
    /// Recipients that are done with a message which others still wait for.
    done_recipients: HashMap<RecordId, SmallVec<[u32; 4]>>,
    /// The highest id that the header of the newest segment vouches for.
    vouched_id: Option<RecordId>,
}

impl Ledger {
    /// A segment came into use, its header saying that no id before it is above `highest_id`.
    pub(crate) fn begin(&mut self, number: u32, family: Family, highest_id: RecordId, end: u32) {
        let newest = self.accounts.keys().next_back().is_none_or(|newest| *newest < number);
        if newest {
            self.vouched_id = Some(highest_id);
        }
        let account = Account {
            family,
            live: BTreeMap::new(),
            live_bytes: 0,
            extent: Extent { end, records: 0 },
            highest_id: RecordId(0),
            deletions: HashMap::new(),
        };
        self.accounts.insert(number, account);
    }

    /// Whether the segment is in use.
    pub(crate) fn exists(&self, number: u32) -> bool {
        self.accounts.contains_key(&number)
    }

    /// Where the segment's records end.
    pub(crate) fn end(&self, number: u32) -> u32 {
        self.extent(number).end
    }

    /// How far the segment is filled.
    pub(crate) fn extent(&self, number: u32) -> Extent {
        self.accounts.get(&number).map_or_else(Extent::default, |account| account.extent)
    }

    /// Ordinals for so many records more in the segment; answers the first.
    pub(crate) fn take_ordinals(&mut self, number: u32, count: u32) -> u32 {
        let Some(account) = self.accounts.get_mut(&number) else { return 0 };
        let first = account.extent.records;
        account.extent.records = (first + count) % ORDINALS;
        first
    }

    /// The numbers of the segments in use, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.accounts.keys().copied()
    }

    /// The segment's records now end there.
    pub(crate) fn set_end(&mut self, number: u32, end: u32) {
        if let Some(account) = self.accounts.get_mut(&number) {
            account.extent.end = end;
        }
    }

    /// Replay found the segment filled so far.
    pub(crate) fn fill(&mut self, number: u32, end: u32, records: u32) {
        if let Some(account) = self.accounts.get_mut(&number) {
            account.extent = Extent { end, records };
        }
    }

    /// A record of message `id` lies in the segment.
    pub(crate) fn saw_id(&mut self, number: u32, id: RecordId) {
        if let Some(account) = self.accounts.get_mut(&number) {
            account.highest_id = account.highest_id.max(id);
        }
    }

    /// A part is durable and counts.
    pub(crate) fn add_part(&mut self, position: Position) {
        let Some(account) = self.accounts.get_mut(&position.segment) else { return };
        if account.live.insert(position.offset, position.length).is_none() {
            account.live_bytes += u64::from(position.length);
        }
    }

    /// Where the part is now that was once at `position`.
    pub(crate) fn resolve(&self, mut position: Position) -> Position {
        while let Some(next) = self.moves.get(&position) {
            position = *next;
        }
        position
    }

    /// Whether a live part of that length lies there, not counting moves.
    pub(crate) fn is_live(&self, position: Position) -> bool {
        let account = self.accounts.get(&position.segment);
        account.and_then(|account| account.live.get(&position.offset)) == Some(&position.length)
    }

    /// A part no longer counts, wherever it was moved. Harmless if it did not.
    pub(crate) fn remove_part(&mut self, mut position: Position) {
        while let Some(next) = self.moves.remove(&position) {
            position = next;
        }
        self.end_life(position);
    }

    /// A copy of a live part at `from` was added at `to`, which counts from now on.
    pub(crate) fn move_part(&mut self, id: RecordId, from: Position, to: Position) {
        self.end_life(from);
        self.moves.insert(from, to);
        self.add_ghost(id, from.segment);
    }

    fn end_life(&mut self, position: Position) {
        let Some(account) = self.accounts.get_mut(&position.segment) else { return };
        if let Some(length) = account.live.remove(&position.offset) {
            account.live_bytes -= u64::from(length);
        }
    }

    /// The live parts of a segment, by offset.
    pub(crate) fn live_parts(&self, segment: u32) -> Vec<Position> {
        let live = self.accounts.get(&segment).into_iter().flat_map(|account| &account.live);
        live.map(|(offset, length)| Position { segment, offset: *offset, length: *length }).collect()
    }

    /// A recipient is done with a message.
    pub(crate) fn add_done_recipient(&mut self, id: RecordId, recipient: u32) {
        let done = self.done_recipients.entry(id).or_default();
        if !done.contains(&recipient) {
            done.push(recipient);
        }
    }

    /// The recipients that are done with a message.
    pub(crate) fn done_recipients(&self, id: RecordId) -> impl Iterator<Item = u32> + '_ {
        self.done_recipients.get(&id).into_iter().flatten().copied()
    }

    /// A copy of a part of `id` may lie in the segment that does not count.
    pub(crate) fn add_ghost(&mut self, id: RecordId, number: u32) {
        insert(self.ghosts.entry(id).or_default(), number);
    }

    /// The segments whose records a deletion of `id` must make void, given where its parts were appended.
    pub(crate) fn targets(&self, id: RecordId, parts: &[Position]) -> SegmentSet {
        let mut targets = self.ghosts.get(&id).cloned().unwrap_or_default();
        parts.iter().for_each(|part| insert(&mut targets, self.resolve(*part).segment));
        targets
    }

    /// A deletion that makes records in `targets` void is durable in segment `holder`.
    pub(crate) fn add_deletion(&mut self, holder: u32, targets: &[u32]) {
        for &target in targets {
            if target == holder || !self.exists(target) {
                continue;
            }
            if let Some(account) = self.accounts.get_mut(&holder) {
                *account.deletions.entry(target).or_default() += 1;
            }
        }
    }

    /// The message is deleted, its ghosts included.
    pub(crate) fn forget_message(&mut self, id: RecordId) {
        self.ghosts.remove(&id);
        self.done_recipients.remove(&id);
    }

    /// How many deletions in the segment matter elsewhere.
    pub(crate) fn deletions(&self, number: u32) -> u64 {
        self.accounts.get(&number).map_or(0, |account| account.deletions.values().sum())
    }

    /// All deletions in the segment that matter were appended again.
    pub(crate) fn clear_deletions(&mut self, number: u32) {
        if let Some(account) = self.accounts.get_mut(&number) {
            account.deletions.clear();
        }
    }

    /// The family of a segment in use.
    pub(crate) fn family(&self, number: u32) -> Option<Family> {
        self.accounts.get(&number).map(|account| account.family)
    }

    /// The segment that costs least to empty, if the segments that are not `kept` take more than twice their live bytes and
    /// [`SLACK_SEGMENTS`], and if emptying it costs less than half a segment.
    pub(crate) fn sparsest(&self, segment_bytes: u64, kept: impl Fn(u32) -> bool) -> Option<u32> {
        let newest = self.accounts.keys().next_back().copied();
        let candidates =
            || self.accounts.iter().filter(|(number, _)| Some(**number) != newest && !kept(**number));
        let taken = candidates().count() as u64 * segment_bytes;
        let live: u64 = candidates().map(|(_, account)| account.live_bytes).sum();
        if taken <= 2 * live + SLACK_SEGMENTS * segment_bytes {
            return None;
        }
        let cost =
            |account: &Account| account.live_bytes + DELETION_BYTES * account.deletions.values().sum::<u64>();
        candidates()
            .map(|(number, account)| (cost(account), *number))
            .filter(|(cost, _)| (1..segment_bytes / 2).contains(cost))
            .min()
            .map(|(_, number)| number)
    }

    /// Segments that nothing needs, ascending. Never the newest one, nor one that is `kept`, nor one that alone
    /// knows how high the ids have come.
    pub(crate) fn recyclable(&self, kept: impl Fn(u32) -> bool) -> Vec<u32> {
        let newest = self.accounts.keys().next_back().copied();
        let vouched = self.vouched_id;
        self.accounts
            .iter()
            .filter(|(number, account)| {
                account.live.is_empty()
                    && account.deletions.is_empty()
                    && Some(account.highest_id) <= vouched
                    && Some(**number) != newest
                    && !kept(**number)
            })
            .map(|(number, _)| *number)
            .collect()
    }

    /// The segment's content is durably void.
    pub(crate) fn retire(&mut self, number: u32) {
        self.accounts.remove(&number);
        for account in self.accounts.values_mut() {
            account.deletions.remove(&number);
        }
        self.ghosts.retain(|_, segments| {
            segments.retain(|segment| *segment != number);
            !segments.is_empty()
        });
    }

    /// Segments in use.
    pub(crate) fn segments(&self) -> usize {
        self.accounts.len()
    }

    /// Bytes of live parts, and of everything else up to the end of the records.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let used: u64 = self.accounts.values().map(|account| u64::from(account.extent.end)).sum();
        let live: u64 = self.accounts.values().map(|account| account.live_bytes).sum();
        (live, used.saturating_sub(live))
    }

    /// The newest segment of a family.
    pub(crate) fn newest(&self, family: Family) -> Option<u32> {
        self.accounts.iter().rev().find(|(_, account)| account.family == family).map(|(number, _)| *number)
    }
}

fn insert(set: &mut SegmentSet, number: u32) {
    if !set.contains(&number) {
        set.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(segments: u32) -> Ledger {
        let mut ledger = Ledger::default();
        (1..=segments).for_each(|number| ledger.begin(number, Family::Device, RecordId(1000), 4096));
        ledger
    }

    fn at(segment: u32, offset: u32) -> Position {
        Position { segment, offset, length: 100 }
    }

    #[test]
    fn a_segment_with_a_live_part_stays() {
        let mut ledger = ledger(3);
        ledger.add_part(at(1, 4096));
        assert_eq!(ledger.recyclable(|_| false), [2]);
        assert_eq!(ledger.bytes(), (100, 3 * 4096 - 100));
        ledger.remove_part(at(1, 4096));
        assert_eq!(ledger.recyclable(|_| false), [1, 2]);
        assert_eq!(ledger.bytes(), (0, 3 * 4096));
    }

    #[test]
    fn a_part_deleted_twice_counts_once() {
        let mut ledger = ledger(2);
        ledger.add_part(at(1, 4096));
        ledger.add_part(at(1, 8192));
        ledger.remove_part(at(1, 4096));
        ledger.remove_part(at(1, 4096));
        assert!(ledger.recyclable(|_| false).is_empty());
        assert_eq!(ledger.bytes().0, 100);
    }

    #[test]
    fn a_deletion_stays_until_all_segments_of_its_message_are_void() {
        let mut ledger = ledger(4);
        ledger.add_deletion(3, &[1, 2]);
        assert_eq!(ledger.recyclable(|_| false), [1, 2]);
        ledger.retire(1);
        assert_eq!(ledger.recyclable(|_| false), [2]);
        ledger.retire(2);
        assert_eq!(ledger.recyclable(|_| false), [3]);
    }

    #[test]
    fn a_deletion_in_the_segment_of_its_message_keeps_nothing() {
        let mut ledger = ledger(2);
        ledger.add_deletion(1, &[1]);
        assert_eq!(ledger.recyclable(|_| false), [1]);
    }

    #[test]
    fn a_segment_with_the_highest_id_stays_until_a_header_vouches_for_it() {
        let mut ledger = ledger(2);
        ledger.saw_id(1, RecordId(1001));
        assert!(ledger.recyclable(|_| false).is_empty());
        ledger.begin(3, Family::Identity, RecordId(1001), 4096);
        assert_eq!(ledger.recyclable(|_| false), [1, 2]);
    }

    #[test]
    fn a_deletion_covers_the_segments_of_copies_that_do_not_count() {
        let mut ledger = ledger(3);
        ledger.add_ghost(RecordId(9), 1);
        assert_eq!(ledger.targets(RecordId(9), &[at(2, 4096)])[..], [1, 2]);
        ledger.retire(1);
        assert_eq!(ledger.targets(RecordId(9), &[at(2, 4096)])[..], [2]);
    }

    #[test]
    fn a_moved_part_is_found_by_every_position_it_had_and_deleted_by_any() {
        let mut ledger = ledger(4);
        let (first, second, third) = (at(1, 4096), at(2, 8192), at(3, 4096));
        ledger.add_part(first);
        for (from, to) in [(first, second), (second, third)] {
            ledger.add_part(to);
            ledger.move_part(RecordId(9), from, to);
        }
        assert_eq!((ledger.resolve(first), ledger.resolve(second)), (third, third));
        assert_eq!((ledger.is_live(second), ledger.is_live(third), ledger.bytes().0), (false, true, 100));
        assert_eq!(ledger.targets(RecordId(9), &[first])[..], [1, 2, 3]);
        ledger.remove_part(first);
        assert_eq!((ledger.resolve(first), ledger.bytes().0), (first, 0));
    }

    #[test]
    fn the_sparsest_segment_is_emptied_only_when_the_log_is_too_large() {
        let mut ledger = ledger(8);
        (1..8).for_each(|segment| ledger.add_part(at(segment, 4096)));
        ledger.add_part(at(1, 8192));
        ledger.add_deletion(2, &[1]);
        assert_eq!(ledger.sparsest(4096, |_| false), Some(3));
        assert_eq!(ledger.sparsest(4096, |number| number == 3), Some(4));
        assert_eq!(ledger.sparsest(4096, |number| number > 4), None, "four segments are no waste");
        assert_eq!(ledger.sparsest(200, |_| false), None, "nothing is cheap enough");
    }

    #[test]
    fn the_newest_and_the_kept_segments_stay() {
        assert_eq!(ledger(3).recyclable(|number| number == 1), [2]);
    }
}
