//! What must be true: which messages there are, what their senders were promised, and what the recipients got.
//!
//! It knows nothing of shards, disks and wires.

use bytes::Bytes;
use relay_core::address::{AccountUrl, MailboxAddress};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// Position of a message in [`Model::messages`]; its UserRef on the wire.
pub(crate) type MessageNumber = usize;

/// Counts what happens, so that before and after are clear within a millisecond.
type Moment = u64;

/// One message that a client wants delivered.
pub(crate) struct Message {
    /// Everything behind the flags: UserRef, and the lifetime if there is one.
    pub(crate) tail: Bytes,
    pub(crate) flags: u8,
    pub(crate) bytes: usize,
    /// In the order of the sender's FanoutOpen.
    pub(crate) recipients: Arc<[MailboxAddress]>,
    /// The sender's stream, unique in the schedule.
    pub(crate) stream: usize,
    /// May be dropped without a word: flag D, or a short lifetime, or a part that the disk cannot read.
    pub(crate) droppable: bool,
    /// When it was first sent, and when last; 0 for never.
    first_sent: Moment,
    last_sent: Moment,
    /// Positions of recipients of whom the sender was told that they have it, and when it had been sent.
    promised: BTreeMap<usize, Moment>,
    /// How often each mailbox got it.
    delivered: HashMap<MailboxAddress, u32>,
}

pub(crate) struct Model {
    pub(crate) messages: Vec<Message>,
    /// No fault happens in this schedule, so that nothing may arrive twice.
    pub(crate) calm: bool,
    /// For each stream and mailbox: the newest message first delivered in this life of the relay.
    newest: BTreeMap<(usize, MailboxAddress), MessageNumber>,
    now: Moment,
    /// When the last purge of an account was answered.
    purged: HashMap<AccountUrl, Moment>,
    /// The account of a purge that is not answered yet.
    being_purged: Option<AccountUrl>,
    /// When accounts that are locked out were.
    locked_out: HashMap<AccountUrl, Moment>,
}

impl Model {
    pub(crate) fn new(calm: bool) -> Self {
        Self {
            messages: Vec::new(),
            calm,
            newest: BTreeMap::new(),
            now: 0,
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
            bytes,
            recipients,
            stream,
            droppable,
            first_sent: 0,
            last_sent: 0,
            promised: BTreeMap::new(),
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
    pub(crate) fn acknowledged(&mut self, number: MessageNumber, faulted: &BTreeSet<usize>) {
        let message = &mut self.messages[number];
        for place in (0..message.recipients.len()).filter(|place| !faulted.contains(place)) {
            let since = self.locked_out.get(&message.recipients[place].account);
            assert!(
                since.is_none_or(|&since| message.last_sent < since),
                "message {number} was acknowledged for {:?}, who is locked out",
                message.recipients[place]
            );
            message.promised.insert(place, message.last_sent);
        }
    }

    /// The sender begins to send a message, for the first time or again.
    pub(crate) fn sent(&mut self, number: MessageNumber) {
        self.now += 1;
        let message = &mut self.messages[number];
        message.last_sent = self.now;
        if message.first_sent == 0 {
            message.first_sent = self.now;
        }
    }

    /// A purge is asked for: what is sent from now on may be gone, too, until it is answered.
    pub(crate) fn purge(&mut self, account: &AccountUrl) {
        self.being_purged = Some(account.clone());
    }

    /// A purge was answered: what was sent before may be gone.
    pub(crate) fn purged(&mut self, account: &AccountUrl) {
        self.being_purged = None;
        self.now += 1;
        self.purged.insert(account.clone(), self.now);
    }

    /// That an account is locked out was answered: what is sent from now on must not reach it.
    pub(crate) fn locked_out(&mut self, account: &AccountUrl) {
        self.now += 1;
        self.locked_out.insert(account.clone(), self.now);
    }

    /// An account is about to be let in again.
    pub(crate) fn let_in(&mut self, account: &AccountUrl) {
        self.locked_out.remove(account);
    }

    /// A client got a message for a mailbox.
    pub(crate) fn delivered(&mut self, mailbox: &MailboxAddress, flags: u8, tail: &[u8], payload: &[u8]) {
        let name = relay_core::sstp::command::Message::user_ref(tail);
        let number: MessageNumber = std::str::from_utf8(name).unwrap().parse().expect("a UserRef of ours");
        assert!(payload == self.payload(number), "message {number} arrived changed, {} bytes", payload.len());
        let calm = self.calm;
        let message = &mut self.messages[number];
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
        // One copy may have been purged, later messages delivered, and the message sent again.
        let may_be_purged = self.being_purged.as_ref() == Some(&mailbox.account)
            || self.purged.get(&mailbox.account).is_some_and(|&purged| message.first_sent < purged);
        if *count == 1 && !message.droppable && !may_be_purged {
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
            for (&place, &sent) in &message.promised {
                let mailbox = &message.recipients[place];
                let is_purged = self.purged.get(&mailbox.account).is_some_and(|&purged| sent < purged);
                assert!(
                    is_purged || message.delivered.contains_key(mailbox),
                    "message {number} was acknowledged, and lost for {mailbox:?}"
                );
            }
        }
    }
}
