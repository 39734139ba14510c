//! One mailbox's delivery to one connection: how far it has come, what has been read ahead, how much may be on the way.
//!
//! Three places in the mailbox's queue, in this order: the front, which awaits acknowledgement; `handed`, the first message not
//! wholly given to the outlet; and the fetch cursor, from which payload is got next. Losing the delivery sends all three back
//! to the front: what was not acknowledged is delivered again.

use super::MessageKey;
use super::message::Message;
use crate::relay::home::ShardId;
use crate::relay::mesh::{ConnectionId, DeliveryPart, Epoch, OutletId, part_cost};
use crate::store::{Chain, Position};
use crate::time::Timestamp;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Parts read ahead of what the outlet may take.
const READ_AHEAD: usize = 32;

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// The session is being opened.
    Opening {
        shard: ShardId,
        connection: ConnectionId,
        epoch: Epoch,
    },
    Open {
        shard: ShardId,
        connection: ConnectionId,
        epoch: Epoch,
        outlet: OutletId,
        credit: i64,
    },
}

/// A part on its way from memory or disk to the outlet.
#[derive(Debug)]
struct Fetched {
    payload: Option<Chain>,
    bytes: u32,
    /// The message's place in the queue, counted from the first message ever queued in this delivery.
    message: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    state: State,
    /// Messages wholly handed over and not acknowledged.
    handed: usize,
    /// The part of the message at `handed` that is handed over next.
    next_part: u32,
    pipeline: VecDeque<Fetched>,
    /// Number of the pipeline's front, for matching reads.
    pipeline_front: u64,
    pipeline_bytes: u64,
    fetch_message: usize,
    fetch_part: u32,
    /// Messages acknowledged in this delivery.
    acknowledged: u64,
}

impl Delivery {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Messages wholly handed over and not acknowledged.
    pub(super) fn handed(&self) -> usize {
        self.handed
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Idle => None,
            State::Opening { epoch, .. } | State::Open { epoch, .. } => Some(epoch),
        }
    }

    pub(super) fn collector(&self) -> Option<(ShardId, ConnectionId)> {
        match self.state {
            State::Idle => None,
            State::Opening { shard, connection, .. } | State::Open { shard, connection, .. } => {
                Some((shard, connection))
            }
        }
    }

    pub(super) fn outlet(&self) -> Option<(ShardId, OutletId)> {
        match self.state {
            State::Open { shard, outlet, .. } => Some((shard, outlet)),
            _ => None,
        }
    }

    pub(super) fn open(&mut self, shard: ShardId, connection: ConnectionId, epoch: Epoch) {
        self.state = State::Opening { shard, connection, epoch };
    }

    pub(super) fn ready(&mut self, outlet: OutletId, window: u32) {
        if let State::Opening { shard, connection, epoch } = self.state {
            self.state = State::Open { shard, connection, epoch, outlet, credit: i64::from(window) };
        }
    }

    pub(super) fn add_credit(&mut self, cost: u32) {
        if let State::Open { credit, .. } = &mut self.state {
            *credit += i64::from(cost);
        }
    }

    /// The delivery is over.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The oldest message was acknowledged; `false` if none is out.
    pub(super) fn acknowledge(&mut self) -> bool {
        if self.handed == 0 {
            return false;
        }
        self.handed -= 1;
        self.fetch_message -= 1;
        self.acknowledged += 1;
        true
    }

    /// Gives the outlet messages of one part that are in memory, as far as it may take them, while nothing is being read:
    /// what most mail for people who are online comes to. The rest is for [`Delivery::fetch`] and [`Delivery::hand_over`].
    pub(super) fn pass_on<'m>(
        &mut self,
        queue: &VecDeque<(MessageKey, u32)>,
        message: impl Fn(MessageKey) -> &'m Message,
        now: Timestamp,
        mut give: impl FnMut(ShardId, DeliveryPart),
    ) {
        while let Some(&(key, _)) = queue.get(self.fetch_message) {
            match self.pass(message(key), now) {
                Some((shard, outlet)) => give(shard, message(key).whole_part(outlet)),
                None => return,
            }
        }
    }

    /// Whether the message at this place of the queue is the next one to be given.
    pub(super) fn is_next(&self, place: usize) -> bool {
        self.fetch_message == place
    }

    /// Counts the next message as given to the outlet, if it may be.
    #[inline]
    pub(super) fn pass(&mut self, message: &Message, now: Timestamp) -> Option<(ShardId, OutletId)> {
        let State::Open { shard, outlet, credit, .. } = &mut self.state else { return None };
        let is_free = *credit > 0 && self.pipeline.is_empty() && self.fetch_part == 0;
        if !is_free || !message.is_whole() || !message.is_deliverable(now) {
            return None;
        }
        *credit -= i64::from(part_cost(message.bytes as u32));
        self.handed += 1;
        self.fetch_message += 1;
        Some((*shard, *outlet))
    }

    /// Whether nothing is being read ahead, and nothing is left to be.
    pub(super) fn is_through(&self, queue: &VecDeque<(MessageKey, u32)>) -> bool {
        self.pipeline.is_empty() && self.fetch_message >= queue.len()
    }

    /// Gets the payload of the next parts, from memory or by `read`, as far as the outlet may take them. Messages that are not
    /// worth delivering leave the queue for `expired`.
    pub(super) fn fetch<'m>(
        &mut self,
        queue: &mut VecDeque<(MessageKey, u32)>,
        message: impl Fn(MessageKey) -> &'m Message,
        now: Timestamp,
        expired: &mut SmallVec<[(MessageKey, u32); 4]>,
        mut read: impl FnMut(Epoch, u64, Position),
    ) {
        let State::Open { epoch, credit, .. } = self.state else { return };
        while self.pipeline.len() < READ_AHEAD && (self.pipeline_bytes as i64) < credit {
            let Some(&(key, position)) = queue.get(self.fetch_message) else { return };
            let found = message(key);
            if self.fetch_part == 0 && !found.is_deliverable(now) {
                queue.remove(self.fetch_message);
                expired.push((key, position));
                continue;
            }
            let (payload, bytes) = found.part(self.fetch_part);
            let place = self.pipeline_front + self.pipeline.len() as u64;
            let payload = payload.map_err(|position| read(epoch, place, position)).ok();
            let message = self.acknowledged + self.fetch_message as u64;
            self.pipeline.push_back(Fetched { payload, bytes, message });
            self.pipeline_bytes += u64::from(bytes);
            self.fetch_part += 1;
            if self.fetch_part == found.part_count() {
                self.fetch_part = 0;
                self.fetch_message += 1;
            }
        }
    }

    /// Gives the outlet what is ready, in order, as far as it may take it.
    pub(super) fn hand_over<'m>(
        &mut self,
        queue: &VecDeque<(MessageKey, u32)>,
        message: impl Fn(MessageKey) -> &'m Message,
        mut give: impl FnMut(ShardId, DeliveryPart),
    ) {
        let State::Open { shard, outlet, credit, .. } = &mut self.state else { return };
        while *credit > 0 && self.pipeline.front().is_some_and(|front| front.payload.is_some()) {
            let front = self.pipeline.pop_front().expect("looked at above");
            self.pipeline_front += 1;
            self.pipeline_bytes -= u64::from(front.bytes);
            let found = message(queue[self.handed].0);
            let last = self.next_part + 1 == found.part_count();
            let part = DeliveryPart {
                outlet: *outlet,
                head: (self.next_part == 0).then(|| found.head()),
                payload: front.payload.expect("looked at above"),
                payload_bytes: front.bytes,
                last,
            };
            *credit -= i64::from(part.cost());
            give(*shard, part);
            self.next_part = if last { 0 } else { self.next_part + 1 };
            self.handed += usize::from(last);
        }
    }

    /// A read has ended. If it failed, gives the place in the queue of the message that it belongs to.
    pub(super) fn read_done(&mut self, place: u64, payload: Option<Bytes>) -> Option<usize> {
        let index = place.checked_sub(self.pipeline_front)?;
        let fetched = self.pipeline.get_mut(index as usize)?;
        match payload {
            Some(payload) => {
                fetched.payload = Some(Chain::from(payload));
                None
            }
            None => Some((fetched.message - self.acknowledged) as usize),
        }
    }

    /// Forgets everything that was read ahead. Tells whether a message has been handed over in part, so that its session
    /// is of no more use.
    pub(super) fn restart(&mut self) -> bool {
        self.pipeline_front += self.pipeline.len() as u64;
        self.pipeline.clear();
        self.pipeline_bytes = 0;
        self.fetch_message = self.handed;
        self.fetch_part = 0;
        std::mem::take(&mut self.next_part) > 0
    }
}
