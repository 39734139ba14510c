//! Mail from a backup, part by part (`relay::redeposit`).

use super::appends::PendingPart;
use super::{Mailroom, Message, MessageKey, PartState, Recipients, StoredPart, Surroundings};
use crate::relay::operator::{Listed, Page};
use crate::relay::redeposit::{Durable, RedepositPart};
use crate::store::{Family, MessageHead, RecordId};
use hashbrown::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// What is coming back.
#[derive(Debug, Default)]
pub(super) struct Redeposits {
    /// Messages whose end has not arrived, by their numbers.
    begun: HashMap<u64, MessageKey>,
    /// Who waits for a part to be durable.
    waiting: HashMap<(MessageKey, u32), Durable>,
}

impl Redeposits {
    /// A part is durable, or not needed any more.
    pub(super) fn part_done(&mut self, key: MessageKey, index: u32) {
        // Hardly ever is anything restored.
        if !self.waiting.is_empty()
            && let Some(durable) = self.waiting.remove(&(key, index))
        {
            durable.fetch_add(1, Ordering::Release);
        }
    }
}

impl Mailroom {
    pub(in crate::relay) fn redeposit(
        &mut self,
        around: &mut Surroundings<'_>,
        part: RedepositPart,
        durable: &Durable,
    ) {
        let key = match (part.head, self.redeposits.begun.get(&part.number)) {
            (Some(head), None) => self.begin_redeposit(part.number, part.family, head),
            (None, Some(&key)) => key,
            _ => return debug_assert!(false, "a message begins with its head, once"),
        };
        let bytes = part.payload.len() as u32;
        let message = &mut self.messages[key as usize];
        debug_assert_eq!(message.part_count(), part.index, "parts arrive in order");
        message.bytes += u64::from(bytes);
        message.arrived = part.last;
        let payload = [part.payload].into_iter().collect();
        message.parts.push(StoredPart { payload, bytes, state: PartState::Queued });
        let (id, recipients) = (message.id, message.recipients.clone());
        for mailbox in &recipients.mailboxes {
            let usage = self.mailboxes[mailbox.0 as usize].usage;
            self.usage[usage as usize].bytes += u64::from(bytes);
        }
        self.redeposits.waiting.insert((key, part.index), durable.clone());
        self.appends.push(PendingPart { key, id, index: part.index });
        if part.last {
            self.redeposits.begun.remove(&part.number);
            for (place, &mailbox) in recipients.mailboxes.iter().enumerate() {
                self.mailboxes[mailbox.0 as usize].queue.push_back((key, place as u32));
                self.deliver(around, mailbox);
            }
            self.let_go(&recipients);
        }
    }

    fn begin_redeposit(&mut self, number: u64, family: Family, head: MessageHead) -> MessageKey {
        let mailboxes: Vec<_> = head.recipients.iter().map(|address| self.mailbox(address)).collect();
        // As if a route led there, until the message is in them.
        mailboxes.iter().for_each(|mailbox| self.mailboxes[mailbox.0 as usize].routes += 1);
        let id = RecordId(self.next_record);
        self.next_record += 1;
        let recipients = Rc::new(Recipients { addresses: head.recipients, mailboxes });
        let key =
            self.messages.insert(Message::begun(id, family, head.header, recipients, None)) as MessageKey;
        self.redeposits.begun.insert(number, key);
        key
    }

    pub(in crate::relay) fn give_up_redeposit(&mut self, around: &mut Surroundings<'_>, number: u64) {
        let Some(key) = self.redeposits.begun.remove(&number) else { return };
        let recipients = self.messages[key as usize].recipients.clone();
        self.abandon(around, key);
        self.let_go(&recipients);
    }

    fn let_go(&mut self, recipients: &Recipients) {
        for &mailbox in &recipients.mailboxes {
            self.mailboxes[mailbox.0 as usize].routes -= 1;
            self.drop_if_unused(mailbox);
        }
    }

    pub(in crate::relay) fn list_messages(&self, page: Page) -> Listed<RecordId> {
        let end = page.from.saturating_add(page.look_at).min(self.messages.end());
        let found = (page.from..end).filter_map(|index| self.messages.get(index));
        let entries = found.map(|message| message.id).take(page.most).collect();
        Listed { entries, next: (end < self.messages.end()).then_some(end) }
    }
}
