//! What every segment of a log still has to be kept for: live parts, and deletions of messages whose parts lie
//! elsewhere. Pure bookkeeping: never touches a file.
//!
//! Invariants: a part is live in exactly one place; a deletion is counted only against segments that exist and are
//! not its own; a segment once recycled is counted nowhere. A deletion never lies in a segment before the message's, so
//! the oldest segment without live parts is always free of deletions that matter, and recycling never gets stuck.

use crate::record::SegmentSet;
use hashbrown::HashMap;
use relay_core::store::{Family, Position, RecordId};
use std::collections::BTreeMap;

/// What one segment is still needed for.
#[derive(Debug)]
struct Account {
    family: Family,
    /// Length of every live part by its offset.
    live: HashMap<u32, u32>,
    live_bytes: u64,
    /// Where the next record goes, or would go.
    end: u32,
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
            live: HashMap::new(),
            live_bytes: 0,
            end,
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
        self.accounts.get(&number).map_or(0, |account| account.end)
    }

    /// The segment's records now end there.
    pub(crate) fn set_end(&mut self, number: u32, end: u32) {
        if let Some(account) = self.accounts.get_mut(&number) {
            account.end = end;
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

    /// Whether a live part of that length lies there.
    pub(crate) fn is_live(&self, position: Position) -> bool {
        let account = self.accounts.get(&position.segment);
        account.and_then(|account| account.live.get(&position.offset)) == Some(&position.length)
    }

    /// A part no longer counts. Harmless if it did not.
    pub(crate) fn remove_part(&mut self, position: Position) {
        let Some(account) = self.accounts.get_mut(&position.segment) else { return };
        if let Some(length) = account.live.remove(&position.offset) {
            account.live_bytes -= u64::from(length);
        }
    }

    /// A copy of a part of `id` may lie in the segment that does not count.
    pub(crate) fn add_ghost(&mut self, id: RecordId, number: u32) {
        insert(self.ghosts.entry(id).or_default(), number);
    }

    /// The segments whose records a deletion of `id` must make void, given those of its live parts.
    pub(crate) fn targets(&self, id: RecordId, parts: impl Iterator<Item = u32>) -> SegmentSet {
        let mut targets = self.ghosts.get(&id).cloned().unwrap_or_default();
        parts.for_each(|number| insert(&mut targets, number));
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

    /// The message is deleted: its ghosts are covered by that deletion.
    pub(crate) fn forget_ghosts(&mut self, id: RecordId) {
        self.ghosts.remove(&id);
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
        let used: u64 = self.accounts.values().map(|account| u64::from(account.end)).sum();
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
        assert_eq!(ledger.targets(RecordId(9), [2].into_iter())[..], [1, 2]);
        ledger.retire(1);
        assert_eq!(ledger.targets(RecordId(9), [2].into_iter())[..], [2]);
    }

    #[test]
    fn the_newest_and_the_kept_segments_stay() {
        assert_eq!(ledger(3).recyclable(|number| number == 1), [2]);
    }
}
