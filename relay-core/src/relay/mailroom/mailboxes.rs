//! Mailboxes, those who collect from them, and getting mail on its way.

use super::delivery::Delivery;
use super::{Mailbox, Mailroom, MessageKey, Subject, Surroundings, Usage};
use crate::address::MailboxAddress;
use crate::relay::home::ShardId;
use crate::relay::last_seen::Day;
use crate::relay::mesh::{ConnectionId, Epoch, MailboxId, MeshItem, OutletId, Target};
use crate::relay::{Action, ReadToken};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

impl Mailroom {
    pub(super) fn mailbox(&mut self, address: &MailboxAddress) -> MailboxId {
        if let Some(&mailbox) = self.by_address.get(address) {
            return mailbox;
        }
        let (target, subject) = match &address.device {
            Some(device) => {
                (Target::Device(address.account.clone(), device.clone()), Subject::Device(device.clone()))
            }
            None => (Target::Account(address.account.clone()), Subject::Identity(address.identity.clone())),
        };
        let usage =
            *self.subjects.entry(subject).or_insert_with(|| self.usage.insert(Usage::default()) as u32);
        self.usage[usage as usize].mailboxes += 1;
        let address = Arc::new(address.clone());
        let mailbox = MailboxId(self.mailboxes.insert(Mailbox {
            address: address.clone(),
            target: target.clone(),
            usage,
            queue: VecDeque::new(),
            doomed: 0,
            routes: 0,
            delivery: Delivery::default(),
            refused: SmallVec::new(),
        }) as u32);
        self.by_address.insert(address, mailbox);
        self.targets.entry(target).or_default().mailboxes.push(mailbox);
        mailbox
    }

    pub(super) fn drop_if_unused(&mut self, id: MailboxId) {
        let unused = self.mailboxes.get(id.0 as usize).is_some_and(|mailbox| {
            mailbox.queue.is_empty() && mailbox.routes == 0 && mailbox.delivery.is_idle()
        });
        if !unused {
            return;
        }
        let mailbox = self.mailboxes.remove(id.0 as usize);
        self.by_address.remove(&mailbox.address);
        if let Some(target) = self.targets.get_mut(&mailbox.target) {
            target.mailboxes.retain(|&other| other != id);
            if target.mailboxes.is_empty() && target.collectors.is_empty() {
                self.targets.remove(&mailbox.target);
            }
        }
        let usage = &mut self.usage[mailbox.usage as usize];
        usage.mailboxes -= 1;
        if usage.mailboxes == 0 {
            self.usage.remove(mailbox.usage as usize);
            let subject = match &mailbox.address.device {
                Some(device) => Subject::Device(device.clone()),
                None => Subject::Identity(mailbox.address.identity.clone()),
            };
            self.subjects.remove(&subject);
        }
    }

    pub(in crate::relay) fn collect(
        &mut self,
        around: &mut Surroundings<'_>,
        from: ShardId,
        target: Target,
        connection: ConnectionId,
    ) {
        self.end_purge(&target);
        let state = self.targets.entry(target).or_default();
        state.seen_on = Day::of(around.now);
        if !state.collectors.contains(&(from, connection)) {
            state.collectors.push((from, connection));
        }
        for mailbox in state.mailboxes.clone() {
            self.deliver(around, mailbox);
        }
    }

    pub(in crate::relay) fn uncollect(
        &mut self,
        around: &mut Surroundings<'_>,
        from: ShardId,
        target: Target,
        connection: ConnectionId,
    ) {
        let Some(state) = self.targets.get_mut(&target) else { return };
        state.collectors.retain(|collector| *collector != (from, connection));
        state.seen_on = Day::of(around.now);
        let mailboxes = state.mailboxes.clone();
        if state.collectors.is_empty() && mailboxes.is_empty() {
            self.targets.remove(&target);
        }
        for id in mailboxes {
            let mailbox = &mut self.mailboxes[id.0 as usize];
            mailbox.refused.retain(|collector| *collector != (from, connection));
            if mailbox.delivery.collector() == Some((from, connection)) {
                self.close_outlet(around, id);
                self.deliver(around, id);
                self.drop_if_unused(id);
            }
        }
    }

    pub(in crate::relay) fn outlet_ready(
        &mut self,
        around: &mut Surroundings<'_>,
        from: ShardId,
        id: MailboxId,
        epoch: Epoch,
        outlet: OutletId,
        window: u32,
    ) {
        if let Some(mailbox) = self.delivering(id, epoch) {
            mailbox.delivery.ready(outlet, window);
            self.deliver(around, id);
        } else {
            around.mesh.send(from, MeshItem::CloseOutlet { outlet });
        }
    }

    pub(in crate::relay) fn outlet_closed(
        &mut self,
        around: &mut Surroundings<'_>,
        id: MailboxId,
        epoch: Epoch,
    ) {
        let Some(mailbox) = self.delivering(id, epoch) else { return };
        if let Some(collector) = mailbox.delivery.collector().filter(|_| mailbox.delivery.outlet().is_none())
        {
            mailbox.refused.push(collector);
        }
        mailbox.delivery.reset();
        self.deliver(around, id);
        self.drop_if_unused(id);
    }

    pub(in crate::relay) fn credit(
        &mut self,
        around: &mut Surroundings<'_>,
        id: MailboxId,
        epoch: Epoch,
        cost: u32,
    ) {
        if let Some(mailbox) = self.delivering(id, epoch) {
            mailbox.delivery.add_credit(cost);
            self.deliver(around, id);
        }
    }

    /// The client has acknowledged the oldest messages that it was sent.
    pub(in crate::relay) fn acknowledged(
        &mut self,
        around: &mut Surroundings<'_>,
        id: MailboxId,
        epoch: Epoch,
        count: u32,
    ) {
        for _ in 0..count {
            let Some(mailbox) = self.delivering(id, epoch) else { return };
            if !mailbox.delivery.acknowledge() {
                return;
            }
            let (key, position) = mailbox.queue.pop_front().expect("what was handed over is still queued");
            around.stats.delivered += 1;
            around.stats.delivered_bytes += self.messages[key as usize].bytes;
            self.recipient_done(around, id, key, position);
        }
    }

    pub(in crate::relay) fn read_done(
        &mut self,
        around: &mut Surroundings<'_>,
        token: ReadToken,
        payload: Option<Bytes>,
    ) {
        let Some((id, epoch, place)) = self.reads.try_remove(token.0 as usize) else { return };
        let Some(mailbox) = self.delivering(id, epoch) else { return };
        let reading = mailbox.delivery.read_done(place, payload);
        if let Some(queue_index) = reading {
            let (key, _) = mailbox.queue[queue_index];
            let begun = mailbox.delivery.restart();
            if begun {
                self.close_outlet(around, id);
            }
            self.give_up_unreadable(around, key);
        }
        // With its last message the mailbox may be gone.
        if self.mailboxes.contains(id.0 as usize) {
            self.deliver(around, id);
        }
    }

    /// Whether somebody still waits for this read.
    pub(in crate::relay) fn wants_read(&self, token: ReadToken) -> bool {
        self.reads.get(token.0 as usize).is_some_and(|&(id, epoch, _)| {
            let mailbox = self.mailboxes.get(id.0 as usize);
            mailbox.is_some_and(|mailbox| mailbox.delivery.epoch() == Some(epoch))
        })
    }

    /// A message cannot be read back: it leaves the mailboxes that nobody collects from now, and the others when their
    /// delivery comes to it.
    fn give_up_unreadable(&mut self, around: &mut Surroundings<'_>, key: MessageKey) {
        let message = &mut self.messages[key as usize];
        if std::mem::replace(&mut message.unreadable, true) {
            return;
        }
        around.stats.unreadable += 1;
        let recipients = message.recipients.clone();
        for &id in &recipients.mailboxes {
            let idle = self.mailboxes.get_mut(id.0 as usize).filter(|mailbox| mailbox.delivery.is_idle());
            let Some(mailbox) = idle else { continue };
            let found = mailbox.queue.iter().position(|(queued, _)| *queued == key);
            // What is doomed is counted, and goes with the purge.
            let found = found.filter(|index| *index >= mailbox.doomed);
            if let Some((key, place)) = found.and_then(|index| mailbox.queue.remove(index)) {
                self.drop_undeliverable(around, id, (key, place));
                self.drop_if_unused(id);
            }
        }
    }

    /// A message leaves a mailbox undelivered: its time is over, or it cannot be read.
    pub(super) fn drop_undeliverable(
        &mut self,
        around: &mut Surroundings<'_>,
        id: MailboxId,
        (key, place): (MessageKey, u32),
    ) {
        let message = &self.messages[key as usize];
        if message.unreadable {
            let mailbox = self.mailboxes[id.0 as usize].address.clone();
            around.actions.push_back(Action::Lost { message: message.id, mailbox });
        } else {
            around.stats.expired += 1;
        }
        self.recipient_done(around, id, key, place);
    }

    pub(super) fn close_outlet(&mut self, around: &mut Surroundings<'_>, id: MailboxId) {
        let delivery = &mut self.mailboxes[id.0 as usize].delivery;
        if let Some((shard, outlet)) = delivery.outlet() {
            around.mesh.send(shard, MeshItem::CloseOutlet { outlet });
        }
        delivery.reset();
    }

    fn delivering(&mut self, id: MailboxId, epoch: Epoch) -> Option<&mut Mailbox> {
        self.mailboxes.get_mut(id.0 as usize).filter(|mailbox| mailbox.delivery.epoch() == Some(epoch))
    }

    /// Gets a mailbox's mail on its way, as far as there is someone to take it and room.
    pub(super) fn deliver(&mut self, around: &mut Surroundings<'_>, id: MailboxId) {
        let mailbox = &mut self.mailboxes[id.0 as usize];
        if mailbox.queue.is_empty() || mailbox.doomed > 0 {
            return;
        }
        if mailbox.delivery.is_idle() {
            return self.find_outlet(around, id);
        }
        let mut expired: SmallVec<[(MessageKey, u32); 4]> = SmallVec::new();
        {
            let Mailbox { queue, delivery, .. } = mailbox;
            let (messages, reads) = (&self.messages, &mut self.reads);
            delivery.pass_on(
                queue,
                |key| &messages[key as usize],
                around.now,
                |shard, part| {
                    around.mesh.send(shard, MeshItem::Deliver(part));
                },
            );
            if delivery.is_through(queue) {
                return;
            }
            delivery.fetch(
                queue,
                |key| &messages[key as usize],
                around.now,
                &mut expired,
                |epoch, place, position| {
                    let token = ReadToken(reads.insert((id, epoch, place)) as u32);
                    around.actions.push_back(Action::Read { token, position });
                },
            );
            delivery.hand_over(
                queue,
                |key| &messages[key as usize],
                |shard, part| {
                    around.mesh.send(shard, MeshItem::Deliver(part));
                },
            );
        }
        for undeliverable in expired {
            self.drop_undeliverable(around, id, undeliverable);
        }
    }

    fn find_outlet(&mut self, around: &mut Surroundings<'_>, id: MailboxId) {
        let mailbox = &mut self.mailboxes[id.0 as usize];
        let collectors = self.targets.get(&mailbox.target).map(|target| &target.collectors);
        let willing = collectors
            .and_then(|collectors| collectors.iter().find(|collector| !mailbox.refused.contains(collector)));
        let Some(&(shard, connection)) = willing else { return };
        let epoch = Epoch(self.next_epoch);
        self.next_epoch = self.next_epoch.wrapping_add(1);
        mailbox.delivery.open(shard, connection, epoch);
        let address = mailbox.address.clone();
        around.mesh.send(shard, MeshItem::OpenOutlet { connection, mailbox: id, epoch, address });
    }
}
