//! What waits to be written to the mailbox log, in order, and what is being written.

use super::MessageKey;
use crate::store::{LogEntry, RecordId};
use std::collections::VecDeque;

/// Deletions of one batch.
const DELETIONS_A_BATCH: usize = 16 * 1024;

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

/// The queue in front of the log: whatever arrives while one batch is being flushed is the next batch.
///
/// Deletions wait apart, since they concern only what is durable already, and go first: on a full disk they are all that can
/// be written, and what makes room.
#[derive(Debug, Default)]
pub(super) struct Appends {
    parts: VecDeque<PendingPart>,
    deletions: VecDeque<LogEntry>,
    /// The parts of the batch that is out, in its order.
    pub(super) writing: Vec<(MessageKey, u32)>,
    pub(super) batch_out: bool,
}

impl Appends {
    pub(super) fn push(&mut self, part: PendingPart) {
        self.parts.push_back(part);
    }

    pub(super) fn delete(&mut self, deletion: LogEntry) {
        self.deletions.push_back(deletion);
    }

    pub(super) fn next_part(&mut self) -> Option<PendingPart> {
        self.parts.pop_front()
    }

    /// Moves deletions into a batch.
    pub(super) fn take_deletions(&mut self, batch: &mut Vec<LogEntry>) {
        let count = self.deletions.len().min(DELETIONS_A_BATCH);
        batch.extend(self.deletions.drain(..count));
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len() + self.deletions.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.deletions.is_empty()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_empty() && !self.batch_out
    }

    /// Puts records of a failed batch back in front, in their order.
    pub(super) fn again(&mut self, parts: Vec<PendingPart>, deletions: Vec<LogEntry>) {
        parts.into_iter().rev().for_each(|part| self.parts.push_front(part));
        deletions.into_iter().rev().for_each(|deletion| self.deletions.push_front(deletion));
    }

    /// The batch is over; its list is kept for the next one.
    pub(super) fn batch_done(&mut self, mut writing: Vec<(MessageKey, u32)>) {
        writing.clear();
        self.writing = writing;
        self.batch_out = false;
    }
}
