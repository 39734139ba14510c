//! How a message comes in: part by part, charged to its recipients' quotas, and with its end into their mailboxes.

use super::appends::PendingPart;
use super::message::{Message, PartState, Recipients, StoredPart};
use super::{Mailroom, MessageKey, Surroundings};
use crate::relay::home::ShardId;
use crate::relay::mesh::{DeliveryPart, DepositPart, MailboxId, MeshItem, OutletId, RouteId};
use crate::sstp::StatusId;
use crate::sstp::profile::flags;
use crate::store::{Chain, Family, MessageHeader, RecordId};
use bytes::Bytes;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::rc::Rc;

/// A message whose last part has arrived, on its way into its mailboxes.
pub(in crate::relay) struct Arrived {
    key: MessageKey,
    recipients: Rc<Recipients>,
    pending: Option<PendingPart>,
}

impl Arrived {
    pub(in crate::relay) fn key(&self) -> MessageKey {
        self.key
    }

    pub(in crate::relay) fn recipients(&self) -> usize {
        self.recipients.mailboxes.len()
    }
}

/// What became of a message in a mailbox.
pub(in crate::relay) enum Enqueued {
    /// It is to be given to this outlet now.
    Passed(ShardId, OutletId),
    /// It is on its way, or nobody is to get it.
    OnItsWay,
    Waits,
}

impl Mailroom {
    /// A part of a message arrives from an origin. If it is the last one, [`Mailroom::enqueue`] follows for every recipient, and
    /// then [`Mailroom::enqueued`].
    pub(in crate::relay) fn deposit(
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
    pub(super) fn exclude(&mut self, around: &Surroundings<'_>, key: MessageKey, places: &[u32]) {
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
    pub(super) fn fault(
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
    pub(in crate::relay) fn enqueue(
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
    pub(in crate::relay) fn enqueued(
        &mut self,
        around: &mut Surroundings<'_>,
        arrived: Arrived,
        all_on_its_way: bool,
    ) {
        match arrived.pending {
            Some(pending) if all_on_its_way => self.appends.push_patient(pending, around.patience()),
            Some(pending) => self.appends.push(pending),
            None => {}
        }
        self.absorb_if_unwanted(around, arrived.key);
    }

    /// A message that is whole and in memory: flags, tail and payload.
    pub(in crate::relay) fn whole(&self, key: MessageKey) -> (u8, &Bytes, &Chain) {
        let message = &self.messages[key as usize];
        (message.header.flags, &message.header.tail, &message.parts[0].payload)
    }

    /// The same on its way to an outlet.
    pub(in crate::relay) fn whole_part(&self, key: MessageKey, outlet: OutletId) -> DeliveryPart {
        self.messages[key as usize].whole_part(outlet)
    }

    /// A message, or the beginning of one, that nobody is to get is not kept; but its origin must see it through.
    pub(super) fn absorb_if_unwanted(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
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
    pub(super) fn abandon(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
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
}
