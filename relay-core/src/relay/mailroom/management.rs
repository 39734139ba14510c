//! Orders of the management server, as far as they are about mailboxes and the routes to them. See `relay::management`.

use super::{Mailroom, Subject, Surroundings};
use crate::address::IdentityUrl;
use crate::relay::home::ShardId;
use crate::relay::management::Receipt;
use crate::relay::mesh::{MailboxId, MeshItem, Target};
use crate::sstp::StatusId;
use hashbrown::HashSet;

impl Mailroom {
    /// Those who collect mail of the targets are told, and no route leads there any more.
    pub(in crate::relay) fn lock_out(
        &mut self,
        around: &mut Surroundings<'_>,
        targets: &[Target],
        receipt: &Receipt,
    ) {
        let mut sent_to = HashSet::new();
        for target in targets {
            let Some(state) = self.targets.get(target) else { continue };
            for &(shard, connection) in &state.collectors {
                around.mesh.send(
                    shard,
                    MeshItem::Evict { target: target.clone(), connection, receipt: receipt.clone() },
                );
            }
            sent_to.extend(state.mailboxes.iter().filter(|id| self.mailboxes[id.0 as usize].routes > 0));
        }
        if sent_to.is_empty() {
            return;
        }
        let is_hit = |id: &MailboxId| sent_to.contains(id);
        let hit = self.routes.iter().filter(|(_, route)| route.live.mailboxes.iter().any(is_hit));
        let hit: Vec<(ShardId, u32)> = hit.map(|(key, _)| *key).collect();
        for key in hit {
            self.shut_route(around, key, &sent_to);
        }
    }

    /// Some recipients of a route get nothing more, the message that is arriving included.
    fn shut_route(
        &mut self,
        around: &mut Surroundings<'_>,
        key: (ShardId, u32),
        mailboxes: &HashSet<MailboxId>,
    ) {
        if let Some(message) = self.routes.get(&key).and_then(|route| route.incoming) {
            let found = &self.messages[message as usize];
            let places = found.recipients.mailboxes.iter().enumerate();
            let excluded: Vec<u32> = places
                .filter(|(place, id)| mailboxes.contains(*id) && !found.is_excluded(*place as u32))
                .map(|(place, _)| place as u32)
                .collect();
            self.exclude(around, message, &excluded);
            self.absorb_if_unwanted(around, message);
        }
        self.fault(around, key, mailboxes, StatusId::LockedOut);
    }

    /// Dooms what waits in the targets' mailboxes now. [`Mailroom::purge_some`] deletes it.
    pub(in crate::relay) fn purge(&mut self, around: &mut Surroundings<'_>, targets: &[Target]) {
        for target in targets {
            let Some(state) = self.targets.get(target) else { continue };
            for id in state.mailboxes.clone() {
                if self.mailboxes[id.0 as usize].queue.is_empty() {
                    continue;
                }
                self.close_outlet(around, id);
                let mailbox = &mut self.mailboxes[id.0 as usize];
                let was_clean = mailbox.doomed == 0;
                mailbox.doomed = mailbox.queue.len();
                if was_clean {
                    self.purging.push_back(id);
                }
            }
        }
    }

    /// Whether doomed mail is left.
    pub(in crate::relay) fn is_purging(&self) -> bool {
        !self.purging.is_empty()
    }

    /// Deletes up to `most` doomed messages.
    pub(in crate::relay) fn purge_some(&mut self, around: &mut Surroundings<'_>, most: usize) {
        let mut left = most;
        while let Some(&id) = self.purging.front() {
            while let Some((key, position)) = self.mailboxes[id.0 as usize].take_doomed() {
                around.stats.deleted_by_order += 1;
                self.recipient_done(around, id, key, position);
                left -= 1;
                if left == 0 {
                    return;
                }
            }
            self.purging.pop_front();
            self.deliver(around, id);
            self.drop_if_unused(id);
        }
    }

    /// Sets the quotas of identities to which somebody sends at present; others have theirs from their records when a route is
    /// opened.
    pub(in crate::relay) fn set_quotas(&mut self, quotas: &[(IdentityUrl, Option<u64>)]) {
        for (identity, quota_bytes) in quotas {
            if let Some(&usage) = self.subjects.get(&Subject::Identity(identity.clone())) {
                self.usage[usage as usize].quota_bytes = *quota_bytes;
            }
        }
    }
}
