//! The mailroom: the mailboxes of the accounts whose home this shard is, and the messages in them.
//!
//! Invariants:
//! * A message is *completed* towards its origin exactly once: when every recipient has acknowledged it, or all its parts are
//!   durable, or nobody is to get it. Never earlier.
//! * A message leaves a mailbox only when its recipient has acknowledged it, it has expired, it is unreadable, or its mailbox
//!   is purged: as that of a device that does not come any more ([`sweep`]), or by order ([`management`]).
//! * Every payload byte that an origin has in flight is released exactly once.
//!
//! Here: routes and messages. [`mailboxes`]: who collects, and getting mail on its way. [`disk`]: batches for the log.

mod appends;
mod delivery;
mod disk;
mod listing;
mod mailboxes;
mod management;
mod redeposit;
mod sweep;

use super::home::ShardId;
use super::last_seen::Day;
use super::mesh::{
    ConnectionId, DeliveryPart, DepositId, DepositPart, Epoch, MailboxId, Mesh, MeshItem, OutletId, RouteId,
    RouteRecipient, Target,
};
use super::{Action, RelayStats};
use crate::address::{DeviceUrl, IdentityUrl, MailboxAddress};
use crate::directory::Directory;
use crate::sstp::StatusId;
use crate::sstp::profile::flags;
use crate::store::{Chain, Family, LogEntry, MessageHeader, Position, RecordId, Restored};
use crate::time::Timestamp;
use appends::{Appends, PendingPart};
use bytes::Bytes;
use delivery::Delivery;
use hashbrown::{HashMap, HashSet};
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

/// The recipients of a route, or of one message of it.
#[derive(Debug)]
struct Recipients {
    addresses: Arc<[MailboxAddress]>,
    mailboxes: Vec<MailboxId>,
}

impl Recipients {
    /// Those at `places`, in order.
    fn only(&self, places: &[usize]) -> Recipients {
        Recipients {
            addresses: places.iter().map(|&place| self.addresses[place].clone()).collect(),
            mailboxes: places.iter().map(|&place| self.mailboxes[place]).collect(),
        }
    }
}

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

/// How far a part has come on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Queued,
    Writing,
    Durable(Position),
    /// Nobody needs it, and it was never written.
    Dropped,
}

#[derive(Debug)]
struct StoredPart {
    payload: Chain,
    bytes: u32,
    state: PartState,
}

/// A message with recipients here.
#[derive(Debug)]
pub(super) struct Message {
    id: RecordId,
    family: Family,
    header: MessageHeader,
    recipients: Rc<Recipients>,
    /// Whom to tell of completion; `None` once told, and after a restart.
    origin: Option<(ShardId, DepositId)>,
    parts: SmallVec<[StoredPart; 1]>,
    /// Payload bytes of all parts so far.
    bytes: u64,
    /// Of these, bytes that the origin still counts as in flight.
    unreleased: u64,
    /// The last part has arrived.
    arrived: bool,
    /// Its end will never arrive.
    abandoned: bool,
    /// Its payload could not be read back.
    unreadable: bool,
    /// Recipients that are not done.
    pending: u32,
    /// Positions of recipients that were in fault before its end arrived, ascending.
    excluded: SmallVec<[u32; 2]>,
    /// Positions of recipients that were done before part 0 was durable.
    done_early: SmallVec<[u32; 2]>,
}

impl Message {
    /// One of which no part is here yet.
    fn begun(
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
            [part] => part.bytes == 0 || !matches!(part.state, PartState::Durable(_)),
            _ => false,
        }
    }

    /// A message of which [`Message::is_whole`] is true, on its way to an outlet.
    pub(super) fn whole_part(&self, outlet: OutletId) -> DeliveryPart {
        let StoredPart { payload, bytes, .. } = &self.parts[0];
        let (payload, payload_bytes) = (payload.clone(), *bytes);
        DeliveryPart { outlet, head: Some(self.head()), payload, payload_bytes, last: true }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_deliverable(&self, now: Timestamp) -> bool {
        !self.unreadable && self.header.expires_at > now.as_secs()
    }

    /// A part's payload if it is in memory, else where it lies; and its length.
    pub(super) fn part(&self, index: u32) -> (Result<Chain, Position>, u32) {
        let part = &self.parts[index as usize];
        let payload = match part.state {
            PartState::Durable(position) if part.bytes > 0 => Err(position),
            _ => Ok(part.payload.clone()),
        };
        (payload, part.bytes)
    }

    /// Whether the recipient at this position was in fault before the message's end arrived.
    fn is_excluded(&self, position: u32) -> bool {
        !self.excluded.is_empty() && self.excluded.binary_search(&position).is_ok()
    }

    fn is_dead(&self) -> bool {
        self.pending == 0 && (self.arrived || self.abandoned)
    }
}

/// A message whose last part has arrived, on its way into its mailboxes.
pub(super) struct Arrived {
    key: MessageKey,
    recipients: Rc<Recipients>,
    pending: Option<PendingPart>,
}

impl Arrived {
    pub(super) fn key(&self) -> MessageKey {
        self.key
    }

    pub(super) fn recipients(&self) -> usize {
        self.recipients.mailboxes.len()
    }
}

/// What became of a message in a mailbox.
pub(super) enum Enqueued {
    /// It is to be given to this outlet now.
    Passed(ShardId, OutletId),
    /// It is on its way, or nobody is to get it.
    OnItsWay,
    Waits,
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
    messages: Slab<Message>,
    mailboxes: Slab<Mailbox>,
    by_address: HashMap<Arc<MailboxAddress>, MailboxId>,
    targets: HashMap<Target, TargetState>,
    subjects: HashMap<Subject, u32>,
    usage: Slab<Usage>,
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
            messages: Slab::new(),
            mailboxes: Slab::new(),
            by_address: HashMap::new(),
            targets: HashMap::new(),
            subjects: HashMap::new(),
            usage: Slab::new(),
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

    /// A part of a message arrives from an origin. If it is the last one, [`Mailroom::enqueue`] follows for every recipient, and
    /// then [`Mailroom::enqueued`].
    pub(super) fn deposit(
        &mut self,
        around: &mut Surroundings<'_>,
        from: ShardId,
        part: DepositPart,
    ) -> Option<Arrived> {
        let known = self.routes.get(&(from, part.route.index));
        let Some(route) = known.filter(|route| route.generation == part.route.generation) else {
            debug_assert!(false, "an origin opens a route before it uses it");
            return None;
        };
        let begun = route.incoming;
        let key = match begun {
            Some(key) => key,
            None => {
                let (recipients, family) = (route.live.clone(), route.family);
                self.begin_message(around, from, &part, recipients, family)
            }
        };
        let (route_index, last) = (part.route.index, part.last);
        around.stats.deposited_bytes += u64::from(part.payload_bytes);
        self.charge(around, (from, route_index), key, part.payload_bytes);
        let pending = self.add_part(key, part);
        if begun.is_some() || !last {
            let route = self.routes.get_mut(&(from, route_index)).expect("looked up above");
            route.incoming = (!last).then_some(key);
        }
        if last {
            let recipients = self.messages[key as usize].recipients.clone();
            return Some(Arrived { key, recipients, pending });
        }
        if let Some(pending) = pending {
            self.appends.push(pending);
        }
        self.absorb_if_unwanted(around, key);
        None
    }

    fn begin_message(
        &mut self,
        around: &mut Surroundings<'_>,
        from: ShardId,
        part: &DepositPart,
        mut recipients: Rc<Recipients>,
        family: Family,
    ) -> MessageKey {
        if part.flags & flags::D != 0 {
            recipients = self.only_online(recipients);
        }
        let id = RecordId(self.next_record);
        self.next_record += 1;
        around.stats.deposits += 1;
        let header =
            MessageHeader { flags: part.flags, tail: part.tail.clone(), expires_at: part.expires_at };
        let origin = Some((from, part.deposit));
        self.messages.insert(Message::begun(id, family, header, recipients, origin)) as MessageKey
    }

    /// DoNotDeliverIfOffline: only recipients for whom somebody collects.
    fn only_online(&self, recipients: Rc<Recipients>) -> Rc<Recipients> {
        let online = |mailbox: &MailboxId| {
            let target = &self.mailboxes[mailbox.0 as usize].target;
            self.targets.get(target).is_some_and(|target| !target.collectors.is_empty())
        };
        if recipients.mailboxes.iter().all(online) {
            return recipients;
        }
        let places: Vec<_> =
            (0..recipients.mailboxes.len()).filter(|&place| online(&recipients.mailboxes[place])).collect();
        Rc::new(recipients.only(&places))
    }

    /// Counts the part against every recipient's quota; those that have no room left are in fault from here on.
    fn charge(&mut self, around: &mut Surroundings<'_>, route: (ShardId, u32), key: MessageKey, bytes: u32) {
        let message = &self.messages[key as usize];
        let mut full: SmallVec<[u32; 2]> = SmallVec::new();
        for (place, mailbox) in message.recipients.mailboxes.iter().enumerate() {
            if message.is_excluded(place as u32) {
                continue;
            }
            let usage = self.mailboxes[mailbox.0 as usize].usage;
            let usage = &mut self.usage[usage as usize];
            let quota = usage.quota_bytes.unwrap_or(around.quota_per_identity);
            if usage.bytes + u64::from(bytes) > quota {
                full.push(place as u32);
            } else {
                usage.bytes += u64::from(bytes);
            }
        }
        if full.is_empty() {
            return;
        }
        let recipients = message.recipients.clone();
        self.exclude(around, key, &full);
        let mailboxes = full.iter().map(|&place| recipients.mailboxes[place as usize]).collect();
        self.fault(around, route, &mailboxes, StatusId::QuotaWouldBeExceeded);
    }

    /// Takes recipients, by their places, out of a message whose end has not arrived.
    fn exclude(&mut self, around: &Surroundings<'_>, key: MessageKey, places: &[u32]) {
        let message = &mut self.messages[key as usize];
        message.pending -= places.len() as u32;
        message.excluded.extend_from_slice(places);
        message.excluded.sort_unstable();
        let (recipients, bytes) = (message.recipients.clone(), message.bytes);
        for &place in places {
            let usage = self.mailboxes[recipients.mailboxes[place as usize].0 as usize].usage;
            self.usage[usage as usize].bytes -= bytes;
            self.forget_recipient(around, key, place);
        }
    }

    /// Takes recipients out of a route for the rest of its life, and tells its origin.
    fn fault(
        &mut self,
        around: &mut Surroundings<'_>,
        key: (ShardId, u32),
        mailboxes: &HashSet<MailboxId>,
        status: StatusId,
    ) {
        let route = self.routes.get_mut(&key).expect("a message comes on an open route");
        let places = 0..route.live.mailboxes.len();
        let (fallen, kept): (Vec<usize>, Vec<usize>) =
            places.partition(|&place| mailboxes.contains(&route.live.mailboxes[place]));
        let recipients = fallen.iter().map(|&place| route.indexes[place]).collect();
        route.live = Rc::new(route.live.only(&kept));
        route.indexes = kept.iter().map(|&place| route.indexes[place]).collect();
        around.stats.faults += fallen.len() as u64;
        let route = RouteId { index: key.1, generation: route.generation };
        around.mesh.send(key.0, MeshItem::Fault { route, recipients, status });
    }

    /// Gives what is to be written of it.
    fn add_part(&mut self, key: MessageKey, part: DepositPart) -> Option<PendingPart> {
        let message = &mut self.messages[key as usize];
        let index = message.part_count();
        debug_assert_eq!(index, part.index, "parts arrive in order");
        message.bytes += u64::from(part.payload_bytes);
        message.unreleased += u64::from(part.payload_bytes);
        message.arrived = part.last;
        let wanted = message.pending > 0;
        message.parts.push(StoredPart {
            payload: if wanted { part.payload } else { Chain::new() },
            bytes: part.payload_bytes,
            state: if wanted { PartState::Queued } else { PartState::Dropped },
        });
        wanted.then_some(PendingPart { key, id: message.id, index })
    }

    /// Puts a message into the mailbox of its recipient at `place`, and gets it on its way.
    #[inline]
    pub(super) fn enqueue(
        &mut self,
        around: &mut Surroundings<'_>,
        arrived: &Arrived,
        place: usize,
    ) -> Enqueued {
        let (id, key) = (arrived.recipients.mailboxes[place], arrived.key);
        let message = &self.messages[key as usize];
        if message.is_excluded(place as u32) {
            return Enqueued::OnItsWay;
        }
        let mailbox = &mut self.mailboxes[id.0 as usize];
        mailbox.queue.push_back((key, place as u32));
        if let Some((shard, outlet)) = mailbox.pass_newest(message, around.now) {
            return Enqueued::Passed(shard, outlet);
        }
        self.deliver(around, id);
        let mailbox = &self.mailboxes[id.0 as usize];
        if mailbox.delivery.handed() == mailbox.queue.len() { Enqueued::OnItsWay } else { Enqueued::Waits }
    }

    /// The message is in all its mailboxes.
    pub(super) fn enqueued(&mut self, around: &mut Surroundings<'_>, arrived: Arrived, all_on_its_way: bool) {
        match arrived.pending {
            Some(pending) if all_on_its_way => self.appends.push_patient(pending, around.patience()),
            Some(pending) => self.appends.push(pending),
            None => {}
        }
        self.absorb_if_unwanted(around, arrived.key);
    }

    /// A message that is whole and in memory: flags, tail and payload.
    pub(super) fn whole(&self, key: MessageKey) -> (u8, &Bytes, &Chain) {
        let message = &self.messages[key as usize];
        (message.header.flags, &message.header.tail, &message.parts[0].payload)
    }

    /// The same on its way to an outlet.
    pub(super) fn whole_part(&self, key: MessageKey, outlet: OutletId) -> DeliveryPart {
        self.messages[key as usize].whole_part(outlet)
    }

    /// A message, or the beginning of one, that nobody is to get is not kept; but its origin must see it through.
    fn absorb_if_unwanted(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
        let Some(message) = self.messages.get_mut(key as usize).filter(|message| message.pending == 0) else {
            return;
        };
        if message.arrived {
            self.finish(around, key);
        } else if let Some((shard, deposit)) = message.origin {
            let bytes = std::mem::take(&mut message.unreleased);
            around.mesh.send(shard, MeshItem::Released { deposit, bytes });
        }
    }

    /// The rest of a message will never come.
    fn abandon(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
        let message = &mut self.messages[key as usize];
        message.abandoned = true;
        message.pending = 0;
        let (recipients, excluded, bytes) =
            (message.recipients.clone(), message.excluded.clone(), message.bytes);
        for (position, mailbox) in recipients.mailboxes.iter().enumerate() {
            if excluded.binary_search(&(position as u32)).is_err() {
                let usage = self.mailboxes[mailbox.0 as usize].usage;
                self.usage[usage as usize].bytes -= bytes;
            }
        }
        self.finish(around, key);
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
