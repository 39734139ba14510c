//! One shard's log as `relay_core::store` describes it, with the faults of a disk: a crash loses what was not flushed, whole or
//! behind some point, and deletions even a little later; appends fail; parts cannot be read back.
//!
//! Nothing here knows how the relay uses the log.

use crate::dice::Dice;
use bytes::{Bytes, BytesMut};
use relay_core::relay::{ReadToken, Relay};
use relay_core::store::{Family, LogEntry, MessageHead, Position, RecordId, Restored};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Deletions among so many newest records may be lost in a crash.
const LAZY_DELETIONS: usize = 12;

/// What is on the platter.
enum Record {
    Part {
        id: RecordId,
        family: Family,
        index: u32,
        last: bool,
        head: Option<MessageHead>,
        position: Position,
        bytes: u32,
    },
    DeleteRecipient {
        id: RecordId,
        recipient: u32,
    },
    Delete {
        id: RecordId,
    },
}

/// How a disk misbehaves, each in a thousand.
#[derive(Clone, Copy, Default)]
pub(crate) struct DiskFaults {
    pub(crate) append_fails: u64,
    pub(crate) part_goes_bad: u64,
}

#[derive(Default)]
pub(crate) struct Disk {
    shard: u32,
    durable: Vec<Record>,
    payloads: HashMap<Position, (RecordId, Bytes)>,
    /// Parts of deleted messages: their place may have been used again.
    dead: BTreeSet<Position>,
    bad: BTreeSet<Position>,
    offset: u32,
    batch: Option<(Timestamp, Vec<LogEntry>)>,
    reads: Vec<(Timestamp, ReadToken, Position)>,
    highest: u64,
    /// Messages with a part that was found unreadable.
    pub(crate) damaged: BTreeSet<String>,
}

impl Disk {
    pub(crate) fn new(shard: usize) -> Self {
        Self { shard: shard as u32, ..Self::default() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.reads.is_empty()
    }

    /// Starts the next batch, if none is being flushed.
    pub(crate) fn take_batch(&mut self, relay: &mut Relay, now: Timestamp, delay: u64, most: u64) {
        if self.batch.is_some() || !relay.has_appends() {
            return;
        }
        let mut entries = Vec::new();
        relay.take_batch(most, &mut entries);
        if !entries.is_empty() {
            self.batch = Some((Timestamp(now.0 + delay), entries));
        }
    }

    pub(crate) fn read(&mut self, token: ReadToken, position: Position, due: Timestamp) {
        self.reads.push((due, token, position));
    }

    /// Finishes the batch if it is due, and every read that is.
    pub(crate) fn run(&mut self, relay: &mut Relay, now: Timestamp, faults: DiskFaults, dice: &mut Dice) {
        if let Some((_, entries)) = self.batch.take_if(|(due, _)| *due <= now) {
            if dice.chance(faults.append_fails) {
                relay.append_failed(now, entries);
            } else {
                let positions = self.write(&entries);
                relay.appended(now, &positions);
            }
        }
        while let Some(index) = self.reads.iter().position(|(due, ..)| *due <= now) {
            let (_, token, position) = self.reads.swap_remove(index);
            let payload = self.payload(position, faults, dice);
            relay.read_done(now, token, payload);
        }
    }

    fn payload(&mut self, position: Position, faults: DiskFaults, dice: &mut Dice) -> Option<Bytes> {
        let (id, payload) = self.payloads.get(&position).filter(|_| !self.dead.contains(&position))?;
        if dice.chance(faults.part_goes_bad) {
            self.bad.insert(position);
        }
        if self.bad.contains(&position) {
            let head = self.durable.iter().find_map(|record| match record {
                Record::Part { id: found, head: Some(head), .. } if found == id => Some(head),
                _ => None,
            });
            self.damaged.insert(user_ref(head.expect("part 0 is there while the message is")));
            return None;
        }
        Some(payload.clone())
    }

    /// Makes entries durable, in order; gives the positions of the parts.
    fn write(&mut self, entries: &[LogEntry]) -> Vec<Position> {
        let mut positions = Vec::new();
        for entry in entries {
            match entry {
                LogEntry::Part { id, family, index, last, head, payload } => {
                    assert_eq!(head.is_some(), *index == 0, "the head is on part 0 and there only");
                    let mut joined = BytesMut::new();
                    payload.iter().for_each(|slice| joined.extend_from_slice(slice));
                    let position =
                        Position { segment: self.shard, offset: self.offset, length: joined.len() as u32 };
                    self.offset += 1;
                    self.highest = self.highest.max(id.0);
                    positions.push(position);
                    self.durable.push(Record::Part {
                        id: *id,
                        family: *family,
                        index: *index,
                        last: *last,
                        head: head.clone(),
                        position,
                        bytes: joined.len() as u32,
                    });
                    self.payloads.insert(position, (*id, joined.freeze()));
                }
                LogEntry::DeleteRecipient { id, first, recipient, .. } => {
                    assert_eq!(self.payloads[first].0, *id, "a deletion names its message's part 0");
                    assert!(!self.dead.contains(first), "nothing follows the deletion of a message");
                    self.durable.push(Record::DeleteRecipient { id: *id, recipient: *recipient });
                }
                LogEntry::Delete { id, parts, .. } => {
                    for position in parts {
                        assert_eq!(self.payloads[position].0, *id, "a deletion names its message's parts");
                        assert!(self.dead.insert(*position), "a message is deleted once");
                    }
                    self.durable.push(Record::Delete { id: *id });
                }
            }
        }
        positions
    }

    /// Loses what a crash loses.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        self.reads.clear();
        if let Some((_, mut entries)) = self.batch.take() {
            let kept = if dice.chance(300) { 0 } else { dice.below(entries.len() + 1) };
            entries.truncate(kept);
            self.write(&entries);
        }
        let recent = self.durable.len().saturating_sub(LAZY_DELETIONS);
        let newest = self.durable.split_off(recent);
        for record in newest {
            match record {
                Record::Delete { id } if dice.chance(300) => {
                    let payloads = &self.payloads;
                    self.dead.retain(|position| payloads[position].0 != id);
                }
                Record::DeleteRecipient { .. } if dice.chance(300) => {}
                kept => self.durable.push(kept),
            }
        }
    }

    pub(crate) fn next_record(&self) -> u64 {
        self.highest + 1
    }

    /// What replay finds alive, in order of the records' ids.
    pub(crate) fn replay(&self) -> Vec<Restored> {
        let mut found: BTreeMap<RecordId, Found> = BTreeMap::new();
        for record in &self.durable {
            match record {
                Record::Part { id, family, index, last, head, position, bytes } => {
                    let found = found.entry(*id).or_insert_with(|| Found::new(*family));
                    assert_eq!(
                        found.parts.len() as u32,
                        *index,
                        "parts of a message are written in order, once"
                    );
                    found.parts.push((*position, *bytes));
                    found.complete |= *last;
                    found.head = found.head.take().or_else(|| head.clone());
                }
                Record::DeleteRecipient { id, recipient } => {
                    found.get_mut(id).expect("a message precedes its deletion").done.insert(*recipient);
                }
                Record::Delete { id } => {
                    found.remove(id);
                }
            }
        }
        found.into_iter().filter_map(|(id, found)| found.restored(id)).collect()
    }
}

/// The text by which the simulation names a message.
pub(crate) fn user_ref(head: &MessageHead) -> String {
    let name = relay_core::sstp::command::Message::user_ref(&head.header.tail);
    String::from_utf8(name.to_vec()).unwrap()
}

/// A message as its records tell it.
struct Found {
    family: Family,
    head: Option<MessageHead>,
    parts: Vec<(Position, u32)>,
    complete: bool,
    done: BTreeSet<u32>,
}

impl Found {
    fn new(family: Family) -> Self {
        Self { family, head: None, parts: Vec::new(), complete: false, done: BTreeSet::new() }
    }

    fn restored(self, id: RecordId) -> Option<Restored> {
        let head = self.head.filter(|_| self.complete)?;
        let all = 0..head.recipients.len() as u32;
        let pending: Vec<u32> = all.filter(|recipient| !self.done.contains(recipient)).collect();
        (!pending.is_empty()).then(|| Restored {
            id,
            family: self.family,
            head,
            pending,
            payload_bytes: self.parts.iter().map(|&(_, bytes)| u64::from(bytes)).sum(),
            parts: self.parts.into(),
        })
    }
}
