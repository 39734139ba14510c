//! What a shard's brain asks of its mailbox log, and what the log gives back.
//!
//! A message is stored as one or more *parts* of at most [`PART_BYTES`] payload each; most have exactly one. Part 0 carries the
//! header and the recipients. A message counts from the moment its last part is durable; without it, replay forgets
//! the message. Deletion is a record of its own and need not be durable at once: losing it costs a duplicate, never
//! a message.

use crate::address::MailboxAddress;
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

pub use crate::chain::Chain;

/// The most payload bytes that one part holds. 64 Data commands of 2048 bytes.
pub const PART_BYTES: usize = 128 * 1024;

/// Names a message in one shard's log. Never used twice in the life of a log: a new run continues above the
/// highest one that replay found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// The two segment families: device-targeted mail is restored and backed up apart from identity-targeted mail, which is
/// small and urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Mail for a device.
    Device,
    /// Mail for an identity, on whatever device.
    Identity,
}

/// Where a part lies in its shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number, unique in the shard's log across both families.
    pub segment: u32,
    /// Byte offset of the record in the segment.
    pub offset: u32,
    /// Length of the whole record in bytes.
    pub length: u32,
}

/// What is stored of a message beside its payload and recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// The flag byte of the Message command, verbatim but for A.
    pub flags: u8,
    /// Everything of the Message command behind the flag byte (UserRef and the optional fields), verbatim.
    pub tail: Bytes,
    /// When the message is no longer worth delivering, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// The head of a message: carried by its part 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// Flags, tail, lifetime.
    pub header: MessageHeader,
    /// Who is to get it, in a fixed order: deletions refer to positions in this list. Never empty. Shared, since all messages
    /// of a session have the same recipients.
    pub recipients: Arc<[MailboxAddress]>,
}

/// One record to append.
#[derive(Clone, Debug)]
pub enum LogEntry {
    /// A part of a message.
    Part {
        /// The message.
        id: RecordId,
        /// The segment family, the same for all parts of a message.
        family: Family,
        /// Counts from 0.
        index: u32,
        /// Whether the message ends with this part.
        last: bool,
        /// The head; present exactly on part 0.
        head: Option<MessageHead>,
        /// The payload, at most [`PART_BYTES`] in all.
        payload: Chain,
    },
    /// One recipient no longer needs the message; others still do.
    DeleteRecipient {
        /// The message.
        id: RecordId,
        /// Its family.
        family: Family,
        /// Where its part 0 lies.
        first: Position,
        /// The recipient's position in the list of part 0.
        recipient: u32,
    },
    /// Nobody needs the message any more: all its parts are dead.
    Delete {
        /// The message.
        id: RecordId,
        /// Its family.
        family: Family,
        /// Where its durable parts lie, part 0 first.
        parts: SmallVec<[Position; 1]>,
    },
}

/// A message that replay found alive.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The message.
    pub id: RecordId,
    /// Its family.
    pub family: Family,
    /// Its head as stored.
    pub head: MessageHead,
    /// Positions in `head.recipients` of those who have not acknowledged it, ascending. Never empty.
    pub pending: Vec<u32>,
    /// Where its parts lie and how many payload bytes each has, part 0 first.
    pub parts: SmallVec<[(Position, u32); 1]>,
    /// Payload bytes of all parts.
    pub payload_bytes: u64,
}
