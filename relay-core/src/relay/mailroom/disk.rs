//! The mailroom's way to the disk: what waits becomes a batch, and what has become durable is completed.

use super::appends::PendingPart;
use super::{Mailroom, MessageKey, PartState, Surroundings};
use crate::relay::mesh::MeshItem;
use crate::store::{Chain, LogEntry, MessageHead, Position};
use crate::time::Timestamp;
use bytes::Bytes;

impl Mailroom {
    /// When the next batch should be taken; `None` if nothing waits for one, or while one is out.
    pub(in crate::relay) fn appends_due(&self) -> Option<Timestamp> {
        self.appends.due().filter(|_| !self.appends.batch_out)
    }

    /// Whether nothing waits and nothing is being written.
    pub(in crate::relay) fn is_settled(&self) -> bool {
        self.appends.is_settled()
    }

    /// Moves what is due to be appended into `batch`, up to about `most` payload bytes. One batch is out at a time.
    pub(in crate::relay) fn take_batch(&mut self, now: Timestamp, most: u64, batch: &mut Vec<LogEntry>) {
        self.appends.take_deletions(batch);
        let mut bytes = 0;
        while bytes < most {
            let Some(PendingPart { key, id, index }) = self.appends.next_part(now) else { break };
            let Some(message) = self.messages.get_mut(key as usize).filter(|message| message.id == id) else {
                continue;
            };
            let last = message.arrived && index + 1 == message.part_count();
            let part = &mut message.parts[index as usize];
            if part.state != PartState::Queued {
                continue;
            }
            part.state = PartState::Writing;
            bytes += u64::from(part.bytes);
            let head = (index == 0).then(|| MessageHead {
                header: message.header.clone(),
                recipients: message.recipients.addresses.clone(),
            });
            let payload = part.payload.clone();
            batch.push(LogEntry::Part { id, family: message.family, index, last, head, payload });
            self.appends.writing.push((key, index));
        }
        self.appends.batch_out = !batch.is_empty();
    }

    /// The same without any mail: all that a full disk can take, and what makes room on it.
    pub(in crate::relay) fn take_deletions(&mut self, batch: &mut Vec<LogEntry>) {
        self.appends.take_deletions(batch);
        self.appends.batch_out = !batch.is_empty();
    }

    /// The batch is durable; `positions` are those of its parts, in order.
    pub(in crate::relay) fn appended(&mut self, around: &mut Surroundings<'_>, positions: &[Position]) {
        let writing = std::mem::take(&mut self.appends.writing);
        assert_eq!(writing.len(), positions.len(), "the log answers every part");
        for (&(key, index), &position) in writing.iter().zip(positions) {
            around.stats.stored_parts += 1;
            self.part_durable(around, key, index, position);
        }
        self.appends.batch_done(writing);
    }

    /// The batch could not be written; it comes again.
    pub(in crate::relay) fn append_failed(&mut self, around: &mut Surroundings<'_>, batch: Vec<LogEntry>) {
        let writing = std::mem::take(&mut self.appends.writing);
        let mut dead = Vec::new();
        let mut again = Vec::new();
        for &(key, index) in &writing {
            let message = &mut self.messages[key as usize];
            message.parts[index as usize].state = PartState::Queued;
            again.push(PendingPart { key, id: message.id, index });
            if message.is_dead() && !dead.contains(&key) {
                dead.push(key);
            }
        }
        let deletions = batch.into_iter().filter(|entry| !matches!(entry, LogEntry::Part { .. }));
        self.appends.again(again, deletions.collect());
        self.appends.batch_done(writing);
        for key in dead {
            self.finish(around, key);
        }
    }

    fn part_durable(
        &mut self,
        around: &mut Surroundings<'_>,
        key: MessageKey,
        index: u32,
        position: Position,
    ) {
        self.redeposits.part_done(key, index);
        let message = &mut self.messages[key as usize];
        let part = &mut message.parts[index as usize];
        part.state = PartState::Durable(position);
        part.payload = Chain::new();
        let bytes = u64::from(part.bytes);
        if message.is_dead() {
            return self.finish(around, key);
        }
        if index == 0 {
            for recipient in std::mem::take(&mut message.done_early) {
                let entry = LogEntry::DeleteRecipient {
                    id: message.id,
                    family: message.family,
                    first: position,
                    recipient,
                };
                self.appends.delete(entry, around.patience());
            }
        }
        let durable = message.parts.iter().all(|part| matches!(part.state, PartState::Durable(_)));
        if message.arrived && durable {
            // A slice of what was received would keep all of it in memory for as long as the message waits.
            message.header.tail = detached(&message.header.tail);
            self.tell_completed(around, key);
        } else if let Some((shard, deposit)) = message.origin {
            let bytes = bytes.min(message.unreleased);
            message.unreleased -= bytes;
            around.mesh.send(shard, MeshItem::Released { deposit, bytes });
        }
    }
}

/// The same bytes in memory of their own; the commonest tail, an empty UserRef and nothing else, needs none.
fn detached(tail: &[u8]) -> Bytes {
    const EMPTY_USER_REF: &[u8] = &[0];
    if tail == EMPTY_USER_REF { Bytes::from_static(EMPTY_USER_REF) } else { Bytes::copy_from_slice(tail) }
}
