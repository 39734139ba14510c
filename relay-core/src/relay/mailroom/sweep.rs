//! The purge pass: mail whose lifetime is over, that cannot be read, or whose device does not come any more. A little at a time, so
//! that no connection notices.
//!
//! A device is taken for abandoned when it was last seen that long ago (`relay::last_seen`) and no connection collects its mail
//! now; or, if that was never written down, when mail for it has waited that long: had it connected since, it would have got
//! that mail. Mail that has waited for less than a day is left alone in any case, so that a device which is just coming back
//! is known to be there before its mail is looked at.

use super::{Mailbox, Mailroom, MessageKey, Surroundings};
use crate::address::{DeviceUrl, MailboxAddress};
use crate::directory::Unreadable;
use crate::relay::last_seen::Day;
use crate::relay::mesh::{MailboxId, Target};
use crate::sstp::command::Message;
use std::sync::Arc;
use std::time::Duration;

/// Mailboxes looked at in one pass: a million in a quarter of an hour, at no visible cost.
const MAILBOXES: usize = 1024;
/// Messages dropped in one pass.
const MESSAGES: usize = 1024;
/// Devices looked up in one pass; the user database may have to read a page for each.
const LOOK_UPS: usize = 32;
/// Mail that came in this time is not taken for that of an abandoned device.
const RESPITE: Duration = Duration::from_secs(24 * 3600);

/// When mail is dropped.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct SweepRules {
    /// How long a message is kept whose sender does not say.
    pub(in crate::relay) lifetime: Duration,
    /// How long after a device was last seen all mail for it is dropped.
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
        let end = (self.sweep.from + MAILBOXES).min(self.mailboxes.end());
        let mut left = MESSAGES;
        let mut look_ups = LOOK_UPS;
        while self.sweep.from < end {
            let index = self.sweep.from;
            if look_ups == 0 {
                return true;
            }
            self.sweep.purging = self.abandoned(around, index, rules, &mut look_ups);
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
        if end == self.mailboxes.end() {
            self.sweep.from = 0;
        }
        false
    }

    /// The mailbox's address, if it is that of an abandoned device and its mail is to be dropped.
    fn abandoned(
        &mut self,
        around: &Surroundings<'_>,
        index: usize,
        rules: SweepRules,
        look_ups: &mut usize,
    ) -> Option<Arc<MailboxAddress>> {
        let mailbox = self.mailboxes.get(index)?;
        let device = mailbox.address.device.as_ref()?;
        let target = self.targets.get_mut(&mailbox.target)?;
        if !target.collectors.is_empty() {
            return None;
        }
        let &(oldest, _) = mailbox.queue.front()?;
        if self.sweep.purging.as_ref() == Some(&mailbox.address) {
            return Some(mailbox.address.clone());
        }
        let header = &self.messages[oldest as usize].header;
        let lifetime = Message::ephemeral_seconds(header.flags, &header.tail);
        let came_at = header.expires_at.saturating_sub(lifetime.map_or(rules.lifetime.as_secs(), u64::from));
        let is_over = |from: u64, time: Duration| from.saturating_add(time.as_secs()) <= around.now.as_secs();
        if !is_over(came_at, RESPITE.min(rules.abandoned_after))
            || !is_over(target.seen_on.end_seconds(), rules.abandoned_after)
        {
            return None;
        }
        *look_ups -= 1;
        target.seen_on = last_there(around, device, came_at)?;
        is_over(target.seen_on.end_seconds(), rules.abandoned_after).then(|| mailbox.address.clone())
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

/// The last day on which a device was there, as far as anything tells. `None` if that cannot be read now: nothing is dropped
/// then.
fn last_there(around: &Surroundings<'_>, device: &DeviceUrl, mail_came_at: u64) -> Option<Day> {
    match around.directory.last_seen(device) {
        Ok(Some(seen_at)) => Some(Day::of_seconds(seen_at)),
        Ok(None) => Some(Day::of_seconds(mail_came_at)),
        Err(Unreadable) => None,
    }
}
