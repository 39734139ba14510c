//! Mail that comes back from a backup while the relay runs. It is stored and delivered like any other, but nobody sent it: no origin
//! is told of it, no quota refuses it, and what it says of its lifetime stands.

use super::operator::{Listed, Page};
use super::{Relay, home};
use crate::store::{Family, MessageHead, RecordId};
use crate::time::Timestamp;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A part of a message for the recipients at home on one shard.
#[derive(Clone, Debug)]
pub struct RedepositPart {
    /// The same for all parts of a message, another for every other message that is under way.
    pub number: u64,
    /// Its family.
    pub family: Family,
    /// Counts from 0; parts of a message come in order.
    pub index: u32,
    /// Whether the message ends with it.
    pub last: bool,
    /// The head, for part 0; its recipients are at home on this shard.
    pub head: Option<MessageHead>,
    /// The payload, at most [`crate::store::PART_BYTES`].
    pub payload: Bytes,
}

/// Counts the parts that are durable, or whose message everybody has acknowledged already. Only then one is counted: a shard
/// that ends counts nothing.
pub type Durable = Arc<AtomicUsize>;

impl Relay {
    /// Takes parts of messages, and counts each in `durable` once it is.
    pub fn redeposit(&mut self, now: Timestamp, parts: Vec<RedepositPart>, durable: &Durable) {
        self.now = now;
        let (this, shards) = (self.shard, self.config.shards);
        for part in parts {
            debug_assert!(
                part.head
                    .iter()
                    .flat_map(|head| head.recipients.iter())
                    .all(|to| home::home(&to.account, shards) == this),
                "recipients are at home here"
            );
            self.in_mailroom(|room, around| room.redeposit(around, part, durable));
        }
        self.settle();
    }

    /// The rest of a message that was begun will never come.
    pub fn give_up_redeposit(&mut self, now: Timestamp, number: u64) {
        self.now = now;
        self.in_mailroom(|room, around| room.give_up_redeposit(around, number));
        self.settle();
    }

    /// The ids of the messages that are here, a part of the table at a time.
    pub fn list_messages(&self, page: Page) -> Listed<RecordId> {
        self.mailroom.list_messages(page)
    }
}
