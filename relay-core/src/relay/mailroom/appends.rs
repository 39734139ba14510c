//! What waits to be written to the mailbox log, in order, and what is being written.

use super::MessageKey;
use crate::store::{LogEntry, RecordId};
use std::collections::VecDeque;

/// One record that waits.
#[derive(Debug)]
pub(super) enum Pending {
    /// A part of a message; skipped if the message is gone or needs it no more when its turn comes.
    Part {
        /// Where the message is.
        key: MessageKey,
        /// Which message it must be.
        id: RecordId,
        /// Which part.
        index: u32,
    },
    /// A deletion.
    Deletion(LogEntry),
}

/// The queue in front of the log: whatever arrives while one batch is being flushed is the next batch.
#[derive(Debug, Default)]
pub(super) struct Appends {
    waiting: VecDeque<Pending>,
    /// The parts of the batch that is out, in its order.
    pub(super) writing: Vec<(MessageKey, u32)>,
    pub(super) batch_out: bool,
}

impl Appends {
    pub(super) fn push(&mut self, pending: Pending) {
        self.waiting.push_back(pending);
    }

    pub(super) fn next(&mut self) -> Option<Pending> {
        self.waiting.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !self.batch_out
    }

    /// Puts records of a failed batch back in front, in their order.
    pub(super) fn again(&mut self, records: Vec<Pending>) {
        for record in records.into_iter().rev() {
            self.waiting.push_front(record);
        }
    }

    /// The batch is over; its list is kept for the next one.
    pub(super) fn batch_done(&mut self, mut writing: Vec<(MessageKey, u32)>) {
        writing.clear();
        self.writing = writing;
        self.batch_out = false;
    }
}
