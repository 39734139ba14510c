//! The purge pass: mail whose lifetime is over, that cannot be read, or whose device does not come any more. A little at a time, so
//! that no connection notices.
//!
//! A device is taken for abandoned when mail for it has waited that long and no connection collects it. Had it connected
//! since, it would have got that mail; so nothing needs to be kept of when a device was last seen.

use super::{Mailbox, Mailroom, MessageKey, Surroundings};
use crate::address::MailboxAddress;
use crate::relay::mesh::{MailboxId, Target};
use crate::sstp::command::Message;
use std::sync::Arc;
use std::time::Duration;

/// Mailboxes looked at in one pass: a million in a quarter of an hour, at no visible cost.
const MAILBOXES: usize = 1024;
/// Messages dropped in one pass.
const MESSAGES: usize = 1024;

/// When mail is dropped.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct SweepRules {
    /// How long a message is kept whose sender does not say.
    pub(in crate::relay) lifetime: Duration,
    /// How long mail waits for a device before all mail for it is dropped.
    pub(in crate::relay) abandoned_after: Duration,
}

/// Where the pass is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The mailbox to look at next.
    from: usize,
    /// Its address, if its device is abandoned and not all of its mail is dropped yet.
    purging: Option<Arc<MailboxAddress>>,
}

impl Mailroom {
    /// Looks at the next mailboxes that nobody collects from, and drops some of their mail if its time has come; called now
    /// and then, it gets round to all. Says whether more is to be dropped at once.
    pub(in crate::relay) fn sweep(&mut self, around: &mut Surroundings<'_>, rules: SweepRules) -> bool {
        let end = (self.sweep.from + MAILBOXES).min(self.mailboxes.capacity());
        let mut left = MESSAGES;
        while self.sweep.from < end {
            let index = self.sweep.from;
            self.sweep.purging = self.abandoned(around, index, rules);
            while let Some(undeliverable) = self.take_undeliverable(around, index) {
                if self.sweep.purging.is_some() {
                    around.stats.purged += 1;
                    self.recipient_done(around, MailboxId(index as u32), undeliverable.0, undeliverable.1);
                } else {
                    self.drop_undeliverable(around, MailboxId(index as u32), undeliverable);
                }
                left -= 1;
                if left == 0 {
                    return true;
                }
            }
            self.drop_if_unused(MailboxId(index as u32));
            self.sweep = Sweep { from: index + 1, purging: None };
        }
        if end == self.mailboxes.capacity() {
            self.sweep.from = 0;
        }
        false
    }

    /// The mailbox's address, if it is that of a device for which its oldest mail has waited too long.
    fn abandoned(
        &self,
        around: &Surroundings<'_>,
        index: usize,
        rules: SweepRules,
    ) -> Option<Arc<MailboxAddress>> {
        let mailbox = self.mailboxes.get(index).filter(|mailbox| mailbox.address.device.is_some())?;
        let target = self.targets.get(&mailbox.target);
        if target.is_some_and(|target| !target.collectors.is_empty()) {
            return None;
        }
        let &(oldest, _) = mailbox.queue.front()?;
        let header = &self.messages[oldest as usize].header;
        let lifetime = Message::ephemeral_seconds(header.flags, &header.tail);
        let came_at = header.expires_at.saturating_sub(lifetime.map_or(rules.lifetime.as_secs(), u64::from));
        let too_long = came_at.saturating_add(rules.abandoned_after.as_secs()) <= around.now.as_secs();
        let begun = self.sweep.purging.as_ref() == Some(&mailbox.address);
        (too_long || begun).then(|| mailbox.address.clone())
    }

    /// Somebody has come to collect: if it is for mail that is being dropped, the rest of it stays.
    pub(super) fn end_purge(&mut self, target: &Target) {
        let purged = self.mailboxes.get(self.sweep.from).filter(|_| self.sweep.purging.is_some());
        if purged.is_some_and(|mailbox| mailbox.target == *target) {
            self.sweep.purging = None;
        }
    }

    /// Takes the oldest message of a mailbox that nobody collects from, if it is to be dropped. What a purge dooms is left
    /// to it.
    fn take_undeliverable(&mut self, around: &Surroundings<'_>, index: usize) -> Option<(MessageKey, u32)> {
        let idle = |mailbox: &&mut Mailbox| mailbox.delivery.is_idle() && mailbox.doomed == 0;
        let mailbox = self.mailboxes.get_mut(index).filter(idle)?;
        let &(key, _) = mailbox.queue.front()?;
        let stays = self.sweep.purging.is_none() && self.messages[key as usize].is_deliverable(around.now);
        if stays { None } else { mailbox.queue.pop_front() }
    }
}
