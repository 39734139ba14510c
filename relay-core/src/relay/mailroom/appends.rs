//! What waits to be written to the mailbox log, in order and until when, and what is being written.
//!
//! A message that all its recipients have on their connections will most likely be acknowledged by them before long, and then
//! need not be written at all. So it is *patient*: it is due a little later, `commit_delay`. Whatever is behind an urgent part in
//! the queue stays there, and whatever is before it becomes due with it: what is durable is always a beginning of the queue.

use super::MessageKey;
use crate::store::{LogEntry, RecordId};
use crate::time::Timestamp;
use std::collections::VecDeque;

/// Deletions of one batch.
const DELETIONS_A_BATCH: usize = 16 * 1024;
/// Parts that may wait behind a patient one; above it nothing is patient.
const MOST_PATIENT: usize = 64 * 1024;

/// A part of a message that waits; skipped if the message is gone or needs it no more when its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingPart {
    /// Where the message is.
    pub(super) key: MessageKey,
    /// Which message it must be.
    pub(super) id: RecordId,
    /// Which part.
    pub(super) index: u32,
}

/// The queue in front of the log: whatever becomes due while one batch is being flushed is the next batch.
///
/// Deletions wait apart, since they concern only what is durable already, and go first: on a full disk they are all that can
/// be written, and what makes room. What is lost of them with a crash comes twice and is not lost, so they are patient too.
#[derive(Debug, Default)]
pub(super) struct Appends {
    parts: VecDeque<(PendingPart, Timestamp)>,
    /// So many at the front are due whatever the time.
    urgent: usize,
    deletions: VecDeque<LogEntry>,
    deletions_due: Timestamp,
    /// The parts of the batch that is out, in its order.
    pub(super) writing: Vec<(MessageKey, u32)>,
    pub(super) batch_out: bool,
}

impl Appends {
    /// To be written at once, with all that is before it.
    pub(super) fn push(&mut self, part: PendingPart) {
        self.parts.push_back((part, Timestamp(0)));
        self.urgent = self.parts.len();
    }

    /// To be written at `due`, if it is still needed then.
    pub(super) fn push_patient(&mut self, part: PendingPart, due: Timestamp) {
        if self.parts.len() >= MOST_PATIENT {
            return self.push(part);
        }
        self.parts.push_back((part, due));
    }

    pub(super) fn delete(&mut self, deletion: LogEntry, due: Timestamp) {
        if self.deletions.is_empty() {
            self.deletions_due = due;
        }
        self.deletions.push_back(deletion);
    }

    /// The next part that is due.
    pub(super) fn next_part(&mut self, now: Timestamp) -> Option<PendingPart> {
        let due = self.parts_due()? <= now;
        due.then(|| self.pop_part())
    }

    /// Forgets parts at the front that are not `wanted` any more, so that nobody wakes up for them.
    pub(super) fn forget_parts(&mut self, wanted: impl Fn(&PendingPart) -> bool) {
        while self.parts.front().is_some_and(|(part, _)| !wanted(part)) {
            self.pop_part();
        }
    }

    fn pop_part(&mut self) -> PendingPart {
        let (part, _) = self.parts.pop_front().expect("looked at before");
        self.urgent = self.urgent.saturating_sub(1);
        part
    }

    fn parts_due(&self) -> Option<Timestamp> {
        if self.urgent > 0 { Some(Timestamp(0)) } else { self.parts.front().map(|&(_, due)| due) }
    }

    /// When the next batch should be taken; `None` if nothing waits.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let many = self.deletions.len() >= DELETIONS_A_BATCH;
        let deletions = if many { Timestamp(0) } else { self.deletions_due };
        let deletions = (!self.deletions.is_empty()).then_some(deletions);
        self.parts_due().into_iter().chain(deletions).min()
    }

    /// Moves deletions into a batch.
    pub(super) fn take_deletions(&mut self, batch: &mut Vec<LogEntry>) {
        let count = self.deletions.len().min(DELETIONS_A_BATCH);
        batch.extend(self.deletions.drain(..count));
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len() + self.deletions.len()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.parts.is_empty() && self.deletions.is_empty() && !self.batch_out
    }

    /// Puts records of a failed batch back in front, in their order.
    pub(super) fn again(&mut self, parts: Vec<PendingPart>, deletions: Vec<LogEntry>) {
        self.urgent += parts.len();
        parts.into_iter().rev().for_each(|part| self.parts.push_front((part, Timestamp(0))));
        self.deletions_due = Timestamp(0);
        deletions.into_iter().rev().for_each(|deletion| self.deletions.push_front(deletion));
    }

    /// The batch is over; its list is kept for the next one.
    pub(super) fn batch_done(&mut self, mut writing: Vec<(MessageKey, u32)>) {
        writing.clear();
        self.writing = writing;
        self.batch_out = false;
    }
}
