//! What must be true: which messages there are, what their senders were promised, and what the recipients got.
//!
//! It knows nothing of shards, disks and wires.

use crate::allowance::Allowances;
use bytes::Bytes;
use relay_core::address::{AccountUrl, MailboxAddress};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// Position of a message in [`Model::messages`]; its UserRef on the wire.
pub(crate) type MessageNumber = usize;

/// Counts what happens, so that before and after are clear within a millisecond.
pub(crate) type Moment = u64;

/// The sender of a message was told that a recipient has it.
pub(crate) struct Promise {
    /// When it had been sent.
    pub(crate) sent: Moment,
    /// When the sender was told.
    pub(crate) made: Moment,
    /// Its lifetime may be over within the schedule.
    pub(crate) may_expire: bool,
}

/// One message that a client wants delivered.
pub(crate) struct Message {
    /// Everything behind the flags: UserRef, and the lifetime if there is one.
    pub(crate) tail: Bytes,
    pub(crate) flags: u8,
    /// In seconds, if its sender says.
    pub(crate) lifetime: Option<u32>,
    pub(crate) bytes: usize,
    /// In the order of the sender's FanoutOpen.
    pub(crate) recipients: Arc<[MailboxAddress]>,
    /// The sender's stream, unique in the schedule.
    pub(crate) stream: usize,
    /// May be dropped without a word: flag D, or a short lifetime, or a part that the disk cannot read.
    pub(crate) droppable: bool,
    /// When it was first sent, and when last; 0 for never.
    pub(crate) first_sent: Moment,
    pub(crate) last_sent: Moment,
    /// By the recipients' positions.
    pub(crate) promised: BTreeMap<usize, Promise>,
    /// From when on nobody who connects may get it, in seconds.
    gone_by: Option<u64>,
    /// How often each mailbox got it.
    pub(crate) delivered: HashMap<MailboxAddress, u32>,
}

pub(crate) struct Model {
    pub(crate) messages: Vec<Message>,
    /// No fault happens in this schedule, so that nothing may arrive twice.
    pub(crate) calm: bool,
    /// For each stream and mailbox: the newest message first delivered in this life of the relay.
    newest: BTreeMap<(usize, MailboxAddress), MessageNumber>,
    now: Moment,
    pub(crate) allowances: Allowances,
    /// When the last purge of an account was answered.
    purged: HashMap<AccountUrl, Moment>,
    /// The account of a purge that is not answered yet.
    being_purged: Option<AccountUrl>,
    /// When accounts that are locked out were.
    locked_out: HashMap<AccountUrl, Moment>,
}

impl Model {
    pub(crate) fn new(calm: bool, allowances: Allowances) -> Self {
        Self {
            messages: Vec::new(),
            calm,
            newest: BTreeMap::new(),
            now: 0,
            allowances,
            purged: HashMap::new(),
            being_purged: None,
            locked_out: HashMap::new(),
        }
    }

    pub(crate) fn message(
        &mut self,
        stream: usize,
        recipients: Arc<[MailboxAddress]>,
        flags: u8,
        lifetime: Option<u32>,
        bytes: usize,
        droppable: bool,
    ) -> MessageNumber {
        let number = self.messages.len();
        let mut tail = format!("{number}\0").into_bytes();
        tail.extend(lifetime.iter().flat_map(|seconds| seconds.to_le_bytes()));
        self.messages.push(Message {
            tail: tail.into(),
            flags,
            lifetime,
            bytes,
            recipients,
            stream,
            droppable,
            first_sent: 0,
            last_sent: 0,
            promised: BTreeMap::new(),
            gone_by: None,
            delivered: HashMap::new(),
        });
        number
    }

    /// The payload of a message: a piece of one long random text, at a place that depends on the message.
    pub(crate) fn payload(&self, number: MessageNumber) -> Bytes {
        static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
            let mut dice = crate::dice::Dice::new(0);
            (0..1 << 20).map(|_| dice.roll() as u8).collect::<Vec<_>>().into()
        });
        let start = number * 7919 % (1 << 19);
        TEXT.slice(start..start + self.messages[number].bytes)
    }

    /// The sender of a message was told that all its recipients but `faulted` have it.
    pub(crate) fn acknowledged(&mut self, now: Timestamp, number: MessageNumber, faulted: &BTreeSet<usize>) {
        self.check_quotas(number, faulted);
        let message = &mut self.messages[number];
        message.gone_by = self.allowances.gone_by(message, now);
        let may_expire = self.allowances.may_expire(message, message.last_sent);
        for place in (0..message.recipients.len()).filter(|place| !faulted.contains(place)) {
            let since = self.locked_out.get(&message.recipients[place].account);
            assert!(
                since.is_none_or(|&since| message.last_sent < since),
                "message {number} was acknowledged for {:?}, who is locked out",
                message.recipients[place]
            );
            let (sent, made) = (message.last_sent, self.now);
            message.promised.insert(place, Promise { sent, made, may_expire });
        }
    }

    /// The sender begins to send a message, for the first time or again.
    pub(crate) fn sent(&mut self, number: MessageNumber) {
        self.now += 1;
        let message = &mut self.messages[number];
        self.allowances.sent(&message.recipients, message.bytes);
        message.last_sent = self.now;
        if message.first_sent == 0 {
            message.first_sent = self.now;
        }
    }

    /// What was before is told apart from what comes.
    pub(crate) fn next_moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A purge is asked for: what is sent from now on may be gone, too, until it is answered.
    pub(crate) fn purge(&mut self, account: &AccountUrl) {
        self.being_purged = Some(account.clone());
    }

    /// A purge was answered: what was sent before may be gone.
    pub(crate) fn purged(&mut self, account: &AccountUrl) {
        self.being_purged = None;
        let now = self.next_moment();
        self.purged.insert(account.clone(), now);
    }

    /// That an account is locked out was answered: what is sent from now on must not reach it.
    pub(crate) fn locked_out(&mut self, account: &AccountUrl) {
        let now = self.next_moment();
        self.locked_out.insert(account.clone(), now);
    }

    /// An account is about to be let in again.
    pub(crate) fn let_in(&mut self, account: &AccountUrl) {
        self.locked_out.remove(account);
    }

    /// Whether mail for a mailbox that was sent at this moment may have been deleted by order.
    pub(crate) fn may_be_purged(&self, mailbox: &MailboxAddress, sent: Moment) -> bool {
        self.being_purged.as_ref() == Some(&mailbox.account)
            || self.purged.get(&mailbox.account).is_some_and(|&purged| sent < purged)
    }

    /// A client that connected at this time got a message for a mailbox.
    pub(crate) fn delivered(
        &mut self,
        connected_at: Timestamp,
        mailbox: &MailboxAddress,
        flags: u8,
        tail: &[u8],
        payload: &[u8],
    ) {
        let name = relay_core::sstp::command::Message::user_ref(tail);
        let number: MessageNumber = std::str::from_utf8(name).unwrap().parse().expect("a UserRef of ours");
        assert!(payload == self.payload(number), "message {number} arrived changed, {} bytes", payload.len());
        let calm = self.calm;
        // One copy may be gone, later messages delivered, and the message sent again.
        let first_sent = self.messages[number].first_sent;
        let may_be_gone = self.may_be_purged(mailbox, first_sent)
            || self.allowances.may_expire(&self.messages[number], first_sent);
        let message = &mut self.messages[number];
        assert!(
            message.gone_by.is_none_or(|gone_by| connected_at.as_secs() < gone_by),
            "message {number} reached {mailbox:?}, who connected when its lifetime was over"
        );
        let wanted = message.recipients.iter().filter(|recipient| *recipient == mailbox).count() as u32;
        assert!(wanted > 0, "message {number} arrived in {mailbox:?}, to which it was not sent");
        let a = relay_core::sstp::profile::flags::A;
        let since = self.locked_out.get(&mailbox.account);
        assert!(
            since.is_none_or(|&since| message.first_sent < since),
            "message {number} reached {mailbox:?}, who was locked out before it was sent"
        );
        assert_eq!((flags & !a, tail), (message.flags & !a, &message.tail[..]), "head of message {number}");
        let count = message.delivered.entry(mailbox.clone()).or_insert(0);
        *count += 1;
        assert!(
            !calm || *count <= wanted,
            "message {number} arrived {count} times though nothing went wrong"
        );
        if *count == 1 && !message.droppable && !may_be_gone {
            let newest = self.newest.entry((message.stream, mailbox.clone())).or_insert(number);
            assert!(*newest <= number, "message {number} arrived behind {newest} of the same session");
            *newest = number;
        }
    }

    /// A disk could not read parts of these: they are lost by no fault of the relay.
    pub(crate) fn damaged(&mut self, names: &BTreeSet<String>) {
        for name in names {
            let number: MessageNumber = name.parse().expect("a UserRef of ours");
            self.messages[number].droppable = true;
        }
    }

    /// The relay was started again: order is promised within one life.
    pub(crate) fn next_life(&mut self) {
        self.newest.clear();
    }

    /// Everybody who was promised a message must have it by now.
    pub(crate) fn check_promises(&self) {
        for (number, message) in self.messages.iter().enumerate().filter(|(_, message)| !message.droppable) {
            for (&place, promise) in message.promised.iter().filter(|(_, promise)| !promise.may_expire) {
                let mailbox = &message.recipients[place];
                let is_purged =
                    self.purged.get(&mailbox.account).is_some_and(|&purged| promise.sent < purged);
                assert!(
                    is_purged || message.delivered.contains_key(mailbox),
                    "message {number} was acknowledged, and lost for {mailbox:?}"
                );
            }
        }
    }
}
