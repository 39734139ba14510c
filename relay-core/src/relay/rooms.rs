//! How the rooms of a shard reach each other: who answers which item, what goes without one because both are here, and settling,
//! until nobody has anything left to say.

use super::Relay;
use super::home::ShardId;
use super::mailroom::{Enqueued, Mailroom, MessageKey, Surroundings};
use super::mesh::{DepositPart, MeshItem, OutletId};

impl Relay {
    pub(super) fn in_mailroom<T>(
        &mut self,
        work: impl FnOnce(&mut Mailroom, &mut Surroundings<'_>) -> T,
    ) -> T {
        let (mailroom, mut around) = self.mailroom();
        work(mailroom, &mut around)
    }

    pub(super) fn mailroom(&mut self) -> (&mut Mailroom, Surroundings<'_>) {
        let around = Surroundings {
            now: self.now,
            quota_per_identity: self.config.quota_per_identity,
            directory: &*self.directory,
            commit_delay: self.config.commit_delay,
            mesh: &mut self.mesh,
            actions: &mut self.actions,
            stats: &mut self.stats,
        };
        (&mut self.mailroom, around)
    }

    pub(super) fn mesh_item(&mut self, from: ShardId, item: MeshItem) {
        match item {
            MeshItem::OpenRoute { route, family, recipients } => {
                self.in_mailroom(|room, _| room.open_route(from, route, family, &recipients));
            }
            MeshItem::OpenLeg { route, relay, resource, recipients } => {
                self.open_leg(from, route, relay, resource, recipients);
            }
            MeshItem::Hold { route, held } => self.hold(route, held),
            MeshItem::RouteEnded { route } => self.route_ended(route),
            MeshItem::CloseRoute { route } if self.gateway.has(from, route) => self.close_leg(from, route),
            MeshItem::CloseRoute { route } => {
                self.in_mailroom(|room, around| room.close_route(around, from, route));
            }
            MeshItem::Deposit(part) => self.deposited(from, part),
            MeshItem::Released { deposit, bytes } => self.released(deposit, bytes),
            MeshItem::Completed(run) => {
                run.into_iter().for_each(|(deposit, bytes)| self.completed(deposit, u64::from(bytes)));
            }
            MeshItem::Fault { route, recipients, status } => self.fault(route, &recipients, status),
            MeshItem::Collect { target, connection } => {
                self.in_mailroom(|room, around| room.collect(around, from, target, connection));
            }
            MeshItem::Uncollect { target, connection } => {
                self.in_mailroom(|room, around| room.uncollect(around, from, target, connection));
            }
            MeshItem::OpenOutlet { connection, mailbox, epoch, address } => {
                self.open_outlet(from, connection, mailbox, epoch, &address);
            }
            MeshItem::OutletReady { mailbox, epoch, outlet, window } => {
                self.in_mailroom(|room, around| {
                    room.outlet_ready(around, from, mailbox, epoch, outlet, window)
                });
            }
            MeshItem::OutletClosed { mailbox, epoch } => {
                self.in_mailroom(|room, around| room.outlet_closed(around, mailbox, epoch));
            }
            MeshItem::Deliver(part) => self.deliver(part),
            MeshItem::Credit { mailbox, epoch, cost } => {
                self.in_mailroom(|room, around| room.credit(around, mailbox, epoch, cost));
            }
            MeshItem::Acknowledged { mailbox, epoch, count } => {
                self.in_mailroom(|room, around| room.acknowledged(around, mailbox, epoch, count));
            }
            MeshItem::CloseOutlet { outlet } => self.close_outlet(outlet),
            MeshItem::Presence(notes) => self.presence_notes(from, notes),
            MeshItem::Order(order, receipt) => self.obey(&order, &receipt),
            MeshItem::Evict { target, connection, .. } => self.evict(connection, &target),
        }
    }

    /// Sends a part to the mailroom or gateway. On this shard, where nothing is before it, that is there at once.
    pub(super) fn send_deposit(&mut self, to: ShardId, part: DepositPart) {
        if to == self.shard && self.mesh.is_local_empty() {
            self.deposited(to, part);
        } else {
            self.mesh.send(to, MeshItem::Deposit(part));
        }
    }

    pub(super) fn deposited(&mut self, from: ShardId, part: DepositPart) {
        if self.gateway.has(from, part.route) {
            return self.leg_deposit(from, part);
        }
        let (mailroom, mut around) = self.mailroom();
        let Some(arrived) = mailroom.deposit(&mut around, from, part) else { return };
        let mut all_on_its_way = true;
        for place in 0..arrived.recipients() {
            let (mailroom, mut around) = self.mailroom();
            match mailroom.enqueue(&mut around, &arrived, place) {
                Enqueued::Passed(to, outlet) => self.pass(to, outlet, arrived.key()),
                Enqueued::OnItsWay => {}
                Enqueued::Waits => all_on_its_way = false,
            }
        }
        let (mailroom, mut around) = self.mailroom();
        mailroom.enqueued(&mut around, arrived, all_on_its_way);
    }

    /// Gives a whole message to an outlet: here, where nothing is before it, out of the mailroom's own memory.
    pub(super) fn pass(&mut self, to: ShardId, outlet: OutletId, key: MessageKey) {
        let at_once = to == self.shard && self.mesh.is_local_empty();
        if at_once && self.deliver_whole(outlet, key) {
            return;
        }
        let part = self.mailroom.whole_part(key, outlet);
        match at_once {
            true => self.deliver(part),
            false => self.mesh.send(to, MeshItem::Deliver(part)),
        }
    }

    /// Lets the rooms of this shard say to each other what they have to say.
    pub(super) fn settle(&mut self) {
        loop {
            self.post_presence(self.shard);
            while let Some(item) = self.mesh.next_local() {
                self.mesh_item(self.shard, item);
            }
            self.send_credits();
            self.resume_stopped();
            if self.mesh.is_local_empty() && !self.presence.has_notes(self.shard) {
                return;
            }
        }
    }
}
