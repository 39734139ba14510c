//! A message in the mailroom, its parts and how far they have come, and its recipients.

use crate::address::MailboxAddress;
use crate::relay::home::ShardId;
use crate::relay::mesh::{DeliveryPart, DepositId, MailboxId, OutletId};
use crate::store::{Chain, Family, MessageHeader, Position, RecordId};
use crate::time::Timestamp;
use bytes::Bytes;
use smallvec::SmallVec;
use std::rc::Rc;
use std::sync::Arc;

/// The recipients of a route, or of one message of it.
#[derive(Debug)]
pub(super) struct Recipients {
    pub(super) addresses: Arc<[MailboxAddress]>,
    pub(super) mailboxes: Vec<MailboxId>,
}

impl Recipients {
    /// Those at `places`, in order.
    pub(super) fn only(&self, places: &[usize]) -> Recipients {
        Recipients {
            addresses: places.iter().map(|&place| self.addresses[place].clone()).collect(),
            mailboxes: places.iter().map(|&place| self.mailboxes[place]).collect(),
        }
    }
}

/// How far a part has come on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartState {
    Queued,
    Writing,
    Durable(Position),
    /// Nobody needs it, and it was never written.
    Dropped,
}

#[derive(Debug)]
pub(super) struct StoredPart {
    pub(super) payload: Chain,
    pub(super) bytes: u32,
    pub(super) state: PartState,
}

impl StoredPart {
    /// Where its payload lies if it is not in memory.
    fn on_disk(&self) -> Option<Position> {
        match self.state {
            PartState::Durable(position) if self.bytes > 0 => Some(position),
            _ => None,
        }
    }
}

/// A message with recipients here.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: RecordId,
    pub(super) family: Family,
    pub(super) header: MessageHeader,
    pub(super) recipients: Rc<Recipients>,
    /// Whom to tell of completion; `None` once told, and after a restart.
    pub(super) origin: Option<(ShardId, DepositId)>,
    pub(super) parts: SmallVec<[StoredPart; 1]>,
    /// Payload bytes of all parts so far.
    pub(super) bytes: u64,
    /// Of these, bytes that the origin still counts as in flight.
    pub(super) unreleased: u64,
    /// The last part has arrived.
    pub(super) arrived: bool,
    /// Its end will never arrive.
    pub(super) abandoned: bool,
    /// Its payload could not be read back.
    pub(super) unreadable: bool,
    /// Recipients that are not done.
    pub(super) pending: u32,
    /// Positions of recipients that were in fault before its end arrived, ascending.
    pub(super) excluded: SmallVec<[u32; 2]>,
    /// Positions of recipients that were done before part 0 was durable.
    pub(super) done_early: SmallVec<[u32; 2]>,
}

impl Message {
    /// One of which no part is here yet.
    pub(super) fn begun(
        id: RecordId,
        family: Family,
        header: MessageHeader,
        recipients: Rc<Recipients>,
        origin: Option<(ShardId, DepositId)>,
    ) -> Self {
        Self {
            id,
            family,
            header,
            pending: recipients.mailboxes.len() as u32,
            recipients,
            origin,
            parts: SmallVec::new(),
            bytes: 0,
            unreleased: 0,
            arrived: false,
            abandoned: false,
            unreadable: false,
            excluded: SmallVec::new(),
            done_early: SmallVec::new(),
        }
    }

    pub(super) fn part_count(&self) -> u32 {
        self.parts.len() as u32
    }

    pub(super) fn head(&self) -> (u8, Bytes) {
        (self.header.flags, self.header.tail.clone())
    }

    /// Whether it is one part that is in memory.
    pub(super) fn is_whole(&self) -> bool {
        match &self.parts[..] {
            [part] => part.on_disk().is_none(),
            _ => false,
        }
    }

    /// A message of which [`Message::is_whole`] is true, on its way to an outlet.
    pub(super) fn whole_part(&self, outlet: OutletId) -> DeliveryPart {
        let StoredPart { payload, bytes, .. } = &self.parts[0];
        let (payload, payload_bytes) = (payload.clone(), *bytes);
        DeliveryPart { outlet, head: Some(self.head()), payload, payload_bytes, last: true }
    }

    pub(super) fn is_deliverable(&self, now: Timestamp) -> bool {
        !self.unreadable && self.header.expires_at > now.as_secs()
    }

    /// A part's payload if it is in memory, else where it lies; and its length.
    pub(super) fn part(&self, index: u32) -> (Result<Chain, Position>, u32) {
        let part = &self.parts[index as usize];
        let payload = part.on_disk().map_or_else(|| Ok(part.payload.clone()), Err);
        (payload, part.bytes)
    }

    /// Whether the recipient at this position was in fault before the message's end arrived.
    pub(super) fn is_excluded(&self, position: u32) -> bool {
        !self.excluded.is_empty() && self.excluded.binary_search(&position).is_ok()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.pending == 0 && (self.arrived || self.abandoned)
    }
}
