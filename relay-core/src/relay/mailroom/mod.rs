//! The mailroom: the mailboxes of the accounts whose home this shard is, and the messages in them.
//!
//! Invariants:
//! * A message is *completed* towards its origin exactly once: when every recipient has acknowledged it, or all its parts are
//!   durable, or nobody is to get it. Never earlier.
//! * A message leaves a mailbox only when its recipient has acknowledged it, it has expired, it is unreadable, or its mailbox
//!   is purged: as that of a device that does not come any more ([`sweep`]), or by order ([`management`]).
//! * Every payload byte that an origin has in flight is released exactly once.
//!
//! Here: routes, and what becomes of messages. [`deposit`]: how they come in. [`mailboxes`]: who collects, and getting mail on its
//! way. [`disk`]: batches for the log.

mod appends;
mod delivery;
mod deposit;
mod disk;
mod listing;
mod mailboxes;
mod management;
mod message;
mod redeposit;
mod sweep;

use super::home::ShardId;
use super::last_seen::Day;
use super::mesh::{ConnectionId, Epoch, MailboxId, Mesh, OutletId, RouteId, RouteRecipient, Target};
use super::table::Table;
use super::{Action, RelayStats};
use crate::address::{DeviceUrl, IdentityUrl, MailboxAddress};
use crate::directory::Directory;
use crate::store::{Chain, Family, LogEntry, Position, Restored};
use crate::time::Timestamp;
use appends::Appends;
use delivery::Delivery;
pub(super) use deposit::Enqueued;
use hashbrown::HashMap;
use message::{Message, PartState, Recipients, StoredPart};
use redeposit::Redeposits;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use sweep::Sweep;
pub(super) use sweep::SweepRules;

/// Everything beside the mailroom that its work touches.
pub(super) struct Surroundings<'a> {
    pub(super) now: Timestamp,
    /// Bytes that may wait for an identity without a quota of its own.
    pub(super) quota_per_identity: u64,
    pub(super) directory: &'a dyn Directory,
    /// How long the log may wait for recipients to acknowledge.
    pub(super) commit_delay: Duration,
    pub(super) mesh: &'a mut Mesh,
    pub(super) actions: &'a mut VecDeque<Action>,
    pub(super) stats: &'a mut RelayStats,
}

impl Surroundings<'_> {
    /// When a record is due that may become needless before.
    fn patience(&self) -> Timestamp {
        self.now + self.commit_delay
    }
}

/// Index of a message in the slab.
pub(super) type MessageKey = u32;

/// A sender's path to mailboxes here.
#[derive(Debug)]
struct Route {
    generation: u32,
    family: Family,
    /// All mailboxes that the route was opened for; they are held until it closes.
    all: Vec<MailboxId>,
    /// The recipients that are not in fault.
    live: Rc<Recipients>,
    /// Their positions in the sender's FanoutOpen.
    indexes: Vec<u16>,
    /// The message whose end has not arrived.
    incoming: Option<MessageKey>,
}

/// What quotas count: mail of one identity, or of one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Identity(IdentityUrl),
    Device(DeviceUrl),
}

#[derive(Debug, Default)]
struct Usage {
    bytes: u64,
    /// The most that may wait; `None` for the default of identities.
    quota_bytes: Option<u64>,
    mailboxes: u32,
}

/// One mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) address: Arc<MailboxAddress>,
    target: Target,
    usage: u32,
    /// Messages with this mailbox's position in their recipients, oldest first.
    pub(super) queue: VecDeque<(MessageKey, u32)>,
    /// So many at the front of the queue are being purged; until they are gone nothing is delivered.
    doomed: usize,
    /// Routes that lead here.
    routes: u32,
    delivery: Delivery,
    /// Connections that would not take this mailbox's session.
    refused: SmallVec<[(ShardId, ConnectionId); 1]>,
}

impl Mailbox {
    /// Counts the newest message as given to the outlet, if all before it have been and it may have more. Then it is to be given.
    #[inline]
    fn pass_newest(&mut self, message: &Message, now: Timestamp) -> Option<(ShardId, OutletId)> {
        let is_next = self.doomed == 0 && self.delivery.is_next(self.queue.len() - 1);
        if is_next { self.delivery.pass(message, now) } else { None }
    }

    /// Takes the oldest message if it is to be purged.
    fn take_doomed(&mut self) -> Option<(MessageKey, u32)> {
        self.doomed = self.doomed.checked_sub(1)?;
        self.queue.pop_front()
    }
}

/// The connections that collect a target's mail, and its mailboxes.
#[derive(Debug)]
struct TargetState {
    collectors: SmallVec<[(ShardId, ConnectionId); 1]>,
    mailboxes: Vec<MailboxId>,
    /// For a device: a day on which it was there, not necessarily the last one.
    seen_on: Day,
}

impl Default for TargetState {
    fn default() -> Self {
        Self { collectors: SmallVec::new(), mailboxes: Vec::new(), seen_on: Day::NEVER }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Mailroom {
    routes: HashMap<(ShardId, u32), Route>,
    messages: Table<Message>,
    mailboxes: Table<Mailbox>,
    by_address: HashMap<Arc<MailboxAddress>, MailboxId>,
    targets: HashMap<Target, TargetState>,
    subjects: HashMap<Subject, u32>,
    usage: Table<Usage>,
    appends: Appends,
    redeposits: Redeposits,
    /// Reads under way: which delivery they are for, and their place in it.
    reads: Slab<(MailboxId, Epoch, u64)>,
    next_record: u64,
    next_epoch: u32,
    /// Mailboxes with doomed mail.
    purging: VecDeque<MailboxId>,
    sweep: Sweep,
}

impl Mailroom {
    /// `next_record` is above every record in the log.
    pub(super) fn new(next_record: u64) -> Self {
        Self {
            routes: HashMap::new(),
            messages: Table::new(),
            mailboxes: Table::new(),
            by_address: HashMap::new(),
            targets: HashMap::new(),
            subjects: HashMap::new(),
            usage: Table::new(),
            appends: Appends::default(),
            redeposits: Redeposits::default(),
            reads: Slab::new(),
            next_record,
            next_epoch: 0,
            purging: VecDeque::new(),
            sweep: Sweep::default(),
        }
    }

    /// Messages and mailboxes held.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.messages.len(), self.mailboxes.len())
    }

    /// A message that replay found.
    pub(super) fn restore(&mut self, restored: Restored) {
        let mailboxes: Vec<_> =
            restored.head.recipients.iter().map(|address| self.mailbox(address)).collect();
        let recipients = Rc::new(Recipients { addresses: restored.head.recipients, mailboxes });
        let parts: SmallVec<[StoredPart; 1]> = restored
            .parts
            .iter()
            .map(|&(position, bytes)| StoredPart {
                payload: Chain::new(),
                bytes,
                state: PartState::Durable(position),
            })
            .collect();
        let bytes = restored.payload_bytes;
        let key = self.messages.insert(Message {
            id: restored.id,
            family: restored.family,
            header: restored.head.header,
            recipients: recipients.clone(),
            origin: None,
            parts,
            bytes,
            unreleased: 0,
            arrived: true,
            abandoned: false,
            unreadable: false,
            pending: restored.pending.len() as u32,
            excluded: SmallVec::new(),
            done_early: SmallVec::new(),
        }) as MessageKey;
        for position in restored.pending {
            let mailbox = &mut self.mailboxes[recipients.mailboxes[position as usize].0 as usize];
            mailbox.queue.push_back((key, position));
            self.usage[mailbox.usage as usize].bytes += bytes;
        }
        for mailbox in &recipients.mailboxes {
            self.drop_if_unused(*mailbox);
        }
    }

    pub(super) fn open_route(
        &mut self,
        from: ShardId,
        route: RouteId,
        family: Family,
        recipients: &[RouteRecipient],
    ) {
        let all: Vec<_> = recipients.iter().map(|recipient| self.mailbox(&recipient.address)).collect();
        for (mailbox, recipient) in all.iter().zip(recipients) {
            let mailbox = &mut self.mailboxes[mailbox.0 as usize];
            mailbox.routes += 1;
            self.usage[mailbox.usage as usize].quota_bytes = recipient.quota_bytes;
        }
        let live = Rc::new(Recipients {
            addresses: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
            mailboxes: all.clone(),
        });
        let indexes = recipients.iter().map(|recipient| recipient.index).collect();
        let generation = route.generation;
        let route_state = Route { generation, family, all, live, indexes, incoming: None };
        let before = self.routes.insert((from, route.index), route_state);
        debug_assert!(before.is_none(), "an origin closes a route before it uses its index again");
    }

    pub(super) fn close_route(&mut self, around: &mut Surroundings<'_>, from: ShardId, route: RouteId) {
        let Some(route) = self.routes.remove(&(from, route.index)) else { return };
        if let Some(key) = route.incoming {
            self.abandon(around, key);
        }
        for mailbox in route.all {
            self.mailboxes[mailbox.0 as usize].routes -= 1;
            self.drop_if_unused(mailbox);
        }
    }

    /// One recipient needs the message no more.
    pub(super) fn recipient_done(
        &mut self,
        around: &mut Surroundings<'_>,
        mailbox: MailboxId,
        key: MessageKey,
        position: u32,
    ) {
        let usage = self.mailboxes[mailbox.0 as usize].usage;
        let message = &mut self.messages[key as usize];
        self.usage[usage as usize].bytes -= message.bytes;
        message.pending -= 1;
        if message.pending == 0 {
            return self.finish(around, key);
        }
        self.forget_recipient(around, key, position);
    }

    /// Sees to it that the log learns that one of several recipients needs the message no more.
    fn forget_recipient(&mut self, around: &Surroundings<'_>, key: MessageKey, position: u32) {
        let message = &mut self.messages[key as usize];
        match message.parts.first().map(|part| part.state) {
            Some(PartState::Durable(first)) => {
                let (id, family) = (message.id, message.family);
                let entry = LogEntry::DeleteRecipient { id, family, first, recipient: position };
                self.appends.delete(entry, around.patience());
            }
            _ => message.done_early.push(position),
        }
    }

    /// Nobody needs the message any more: tell its origin, and forget it once no part of it is being written.
    fn finish(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
        self.tell_completed(around, key);
        let message = &mut self.messages[key as usize];
        let (mut writing, mut durable) = (false, false);
        for (index, part) in message.parts.iter_mut().enumerate() {
            match part.state {
                PartState::Queued => {
                    self.redeposits.part_done(key, index as u32);
                    part.state = PartState::Dropped;
                    part.payload = Chain::new();
                    around.stats.cancelled += 1;
                }
                PartState::Writing => writing = true,
                PartState::Durable(_) => durable = true,
                PartState::Dropped => {}
            }
        }
        if writing {
            return;
        }
        let message = self.messages.remove(key as usize);
        if !durable {
            return self.forget_needless_parts();
        }
        let parts: SmallVec<[Position; 1]> = message
            .parts
            .iter()
            .filter_map(|part| match part.state {
                PartState::Durable(position) => Some(position),
                _ => None,
            })
            .collect();
        let (id, family) = (message.id, message.family);
        self.appends.delete(LogEntry::Delete { id, family, parts }, around.patience());
    }

    /// The log need not be woken for what was delivered before it was due.
    fn forget_needless_parts(&mut self) {
        let messages = &self.messages;
        self.appends
            .forget_parts(|part| messages.get(part.key as usize).is_some_and(|found| found.id == part.id));
    }

    fn tell_completed(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
        let message = &mut self.messages[key as usize];
        if let Some((shard, deposit)) = message.origin.take() {
            let bytes = std::mem::take(&mut message.unreleased);
            around.stats.completed += 1;
            around.mesh.complete(shard, deposit, bytes);
        }
    }
}
