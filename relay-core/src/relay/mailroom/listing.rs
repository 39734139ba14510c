//! Mailboxes as an operator sees them. Changes nothing.

use super::{Mailbox, Mailroom};
use crate::relay::operator::{Listed, MailboxOrder, MailboxView, Page};
use std::cmp::Reverse;

impl Mailroom {
    /// See [`crate::relay::Relay::list_mailboxes`].
    pub(in crate::relay) fn list(&self, page: Page, order: MailboxOrder) -> Listed<MailboxView> {
        let end = page.from.saturating_add(page.look_at).min(self.mailboxes.end());
        let found = (page.from..end).filter_map(|index| self.mailboxes.get(index));
        let views = found.filter(|mailbox| !mailbox.queue.is_empty()).map(|mailbox| self.view(mailbox));
        let mut entries: Vec<_> = views.filter(|view| view.rank(order) > 0).collect();
        entries.sort_by_key(|view| Reverse(view.rank(order)));
        entries.truncate(page.most);
        Listed { entries, next: (end < self.mailboxes.end()).then_some(end) }
    }

    fn view(&self, mailbox: &Mailbox) -> MailboxView {
        MailboxView {
            address: mailbox.address.clone(),
            messages: mailbox.queue.len(),
            under_way: mailbox.delivery.handed(),
            held_bytes: self.usage[mailbox.usage as usize].bytes,
            collectors: self.targets.get(&mailbox.target).map_or(0, |target| target.collectors.len()),
            collector: mailbox.delivery.collector(),
        }
    }

    /// Records that wait for the log.
    pub(in crate::relay) fn waiting_appends(&self) -> usize {
        self.appends.len()
    }
}
