//! What shards say to each other. Presence has its own words ([`Note`]); four rooms of the relay talk in these items: the
//! *origin* (the sender's connection), the *mailroom* (the recipient's home), the *outlet* (the recipient's connection) and
//! the *gateway* (the link to another relay). Rooms of one shard use them as well, but for what can be said at once.
//!
//! Items between two shards arrive in the order in which they were sent; nothing else is assumed. Every index is followed
//! by something that tells an old owner from a new one: a generation, an epoch, or the rule that it is freed only
//! by the other side's last word.

use super::gateway::RemoteRelay;
use super::home::ShardId;
use super::management::{Order, Receipt};
use super::presence::Note;
use crate::address::{AccountUrl, DeviceUrl, MailboxAddress};
use crate::sstp::StatusId;
use crate::sstp::text::Text;
use crate::store::{Chain, Family};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a connection on its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ConnectionId {
    /// A number that is unique on the shard for as long as it runs, for drivers' tables and for logs.
    pub fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The index alone: dense, reused.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Names a sender's path to the recipients that one shard is home to, at its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Names a message that an origin has begun and not seen completed. Freed by the last [`MeshItem::Completed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DepositId(pub(super) u32);

/// Names a mailbox at its home. What refers to a delivery also carries its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MailboxId(pub(super) u32);

/// Names a delivery session on the recipient's shard. The generation tells deliveries of different homes apart, whose
/// epochs may be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutletId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Tells one delivery of a mailbox from the next; unique on the home shard for as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub(super) u32);

/// Whose mail a connection collects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Device-targeted mail of one account on one device.
    Device(AccountUrl, DeviceUrl),
    /// Identity-targeted mail of all identities of an account.
    Account(AccountUrl),
}

impl Target {
    /// The account whose mail it is.
    pub fn account(&self) -> &AccountUrl {
        match self {
            Target::Device(account, _) | Target::Account(account) => account,
        }
    }
}

/// A recipient as the origin names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRecipient {
    /// Position in the sender's FanoutOpen; 0 for an Open.
    pub index: u16,
    /// The mailbox.
    pub address: MailboxAddress,
    /// The most bytes of mail that may wait for the identity or device; `None` for the default of identities.
    pub quota_bytes: Option<u64>,
    /// How long mail for it is kept if its sender does not say, in seconds; `None` for the default. The origin sees to it.
    pub lifetime_seconds: Option<u32>,
}

/// A recipient at another relay as the origin names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRecipient {
    /// Position in the sender's FanoutOpen.
    pub index: u16,
    /// Its IdentityURL, a valid one.
    pub identity: Text,
    /// Its DeviceURL, a valid one, or empty.
    pub device: Text,
}

/// One part of a message on its way to a mailroom, or to the gateway.
#[derive(Clone, Debug)]
pub struct DepositPart {
    /// The route's index at the origin.
    pub route: RouteId,
    /// The message.
    pub deposit: DepositId,
    /// Counts from 0.
    pub index: u32,
    /// Whether the message ends here.
    pub last: bool,
    /// Flag byte, without A.
    pub flags: u8,
    /// UserRef and optional fields.
    pub tail: Bytes,
    /// End of the message's lifetime in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The payload.
    pub payload: Chain,
    /// Bytes in `payload`.
    pub payload_bytes: u32,
}

/// One part of a message on its way to a recipient's connection.
#[derive(Clone, Debug)]
pub struct DeliveryPart {
    /// The delivery session.
    pub outlet: OutletId,
    /// On the first part: flag byte and tail of the Message command.
    pub head: Option<(u8, Bytes)>,
    /// The payload.
    pub payload: Chain,
    /// Bytes in `payload`.
    pub payload_bytes: u32,
    /// Whether the message ends here.
    pub last: bool,
}

/// What the commands around a part take of a window: Message and EndMessage with an ordinary head.
const PART_OVERHEAD: u32 = 32;

/// What a part of so many payload bytes takes of its outlet's window; see [`DeliveryPart::cost`].
pub(super) fn part_cost(payload_bytes: u32) -> u32 {
    payload_bytes + PART_OVERHEAD
}

impl DeliveryPart {
    /// What the part takes of its outlet's window, and what the outlet gives back. Never 0, so that empty messages
    /// neither pass the window nor go without the credit that fetches the next ones.
    pub(super) fn cost(&self) -> u32 {
        part_cost(self.payload_bytes)
    }

    /// Whether it is all of its message.
    pub(super) fn is_whole(&self) -> bool {
        self.head.is_some() && self.last
    }
}

/// Messages that one item says to be completed; more would make all items larger.
const COMPLETED_TOGETHER: usize = 8;

/// One thing that one room says to another.
#[derive(Clone, Debug)]
pub enum MeshItem {
    /// Origin to mailroom: messages on `route` are for these recipients, all homed there and of one family.
    OpenRoute {
        /// Chosen by the origin.
        route: RouteId,
        /// Decides the segment family.
        family: Family,
        /// Never empty.
        recipients: Arc<[RouteRecipient]>,
    },
    /// Origin to gateway: messages on `route` are for these recipients of one other relay.
    OpenLeg {
        /// Chosen by the origin.
        route: RouteId,
        /// The other relay.
        relay: RemoteRelay,
        /// The resource of the session.
        resource: Text,
        /// Never empty.
        recipients: Arc<[RemoteRecipient]>,
    },
    /// Gateway to origin: the sender's session is to hold because of this route, or not any more. A route begins held.
    Hold {
        /// The route.
        route: RouteId,
        /// Whether to hold.
        held: bool,
    },
    /// Gateway to origin: the last word about a route that was closed; its index is free.
    RouteEnded {
        /// The route.
        route: RouteId,
    },
    /// Origin to mailroom or gateway: nothing more comes on the route. An unfinished message is abandoned.
    CloseRoute {
        /// The route.
        route: RouteId,
    },
    /// Origin to mailroom or gateway.
    Deposit(DepositPart),
    /// Mailroom or gateway to origin: that many payload bytes of the message are no longer in flight.
    Released {
        /// The message.
        deposit: DepositId,
        /// Payload bytes.
        bytes: u64,
    },
    /// Mailroom or gateway to origin, exactly once for each message and route: every recipient of the route has acknowledged
    /// the message, or has it durably, or is not to get it. Each with its payload bytes that were still in flight.
    Completed(SmallVec<[(DepositId, u32); COMPLETED_TOGETHER]>),
    /// Mailroom or gateway to origin: these recipients of the route get nothing more.
    Fault {
        /// The route.
        route: RouteId,
        /// Their positions in the sender's FanoutOpen.
        recipients: SmallVec<[u16; 2]>,
        /// Why.
        status: StatusId,
    },
    /// Outlet side to mailroom: this connection takes mail of the target.
    Collect {
        /// Whose mail.
        target: Target,
        /// The connection.
        connection: ConnectionId,
    },
    /// Outlet side to mailroom: not any more; its deliveries are over.
    Uncollect {
        /// Whose mail.
        target: Target,
        /// The connection.
        connection: ConnectionId,
    },
    /// Mailroom to outlet side: open a session for this mailbox.
    OpenOutlet {
        /// The connection that is to deliver.
        connection: ConnectionId,
        /// The mailbox.
        mailbox: MailboxId,
        /// The delivery.
        epoch: Epoch,
        /// What the Open names.
        address: Arc<MailboxAddress>,
    },
    /// Outlet side to mailroom: the client accepted the session; send.
    OutletReady {
        /// The mailbox.
        mailbox: MailboxId,
        /// The delivery.
        epoch: Epoch,
        /// Where to send to.
        outlet: OutletId,
        /// What parts that are on the way may cost in all: their payload, and something for the commands around it.
        window: u32,
    },
    /// Outlet side to mailroom: the delivery is over; what was not acknowledged is to be delivered again.
    OutletClosed {
        /// The mailbox.
        mailbox: MailboxId,
        /// The delivery.
        epoch: Epoch,
    },
    /// Mailroom to outlet.
    Deliver(DeliveryPart),
    /// Outlet to mailroom: a part has reached the connection's output.
    Credit {
        /// The mailbox.
        mailbox: MailboxId,
        /// The delivery.
        epoch: Epoch,
        /// What the part cost of the window.
        cost: u32,
    },
    /// Outlet to mailroom: the client has acknowledged so many more messages, the oldest ones.
    Acknowledged {
        /// The mailbox.
        mailbox: MailboxId,
        /// The delivery.
        epoch: Epoch,
        /// Messages.
        count: u32,
    },
    /// Mailroom to outlet: end the session.
    CloseOutlet {
        /// The delivery session.
        outlet: OutletId,
    },
    /// Any shard to mailroom: what the management server wants of accounts that are at home there.
    Order(Order, Receipt),
    /// Mailroom to outlet side: this connection is not to collect the mail of the target any more.
    Evict {
        /// Whose account is locked out.
        target: Target,
        /// The connection.
        connection: ConnectionId,
        /// That of the order.
        receipt: Receipt,
    },
    /// Presence to presence: all that there is to tell at this moment, never empty.
    Presence(Vec<Note>),
}

/// A shard's end of the mesh: what waits to go to each shard, itself included.
#[derive(Debug)]
pub(super) struct Mesh {
    outboxes: Vec<VecDeque<MeshItem>>,
    this: ShardId,
    /// Items for the other shard that had most of them, when they were last taken or since.
    longest: usize,
}

impl Mesh {
    pub(super) fn new(this: ShardId, shards: u16) -> Self {
        Self { outboxes: (0..shards).map(|_| VecDeque::new()).collect(), this, longest: 0 }
    }

    #[inline]
    pub(super) fn send(&mut self, to: ShardId, item: MeshItem) {
        let outbox = &mut self.outboxes[usize::from(to.0)];
        outbox.push_back(item);
        if to != self.this {
            self.longest = self.longest.max(outbox.len());
        }
    }

    /// Sends [`MeshItem::Completed`], in one item with what was completed just before.
    pub(super) fn complete(&mut self, to: ShardId, deposit: DepositId, bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or_else(|_| {
            self.send(to, MeshItem::Released { deposit, bytes });
            0
        });
        match self.outboxes[usize::from(to.0)].back_mut() {
            Some(MeshItem::Completed(run)) if run.len() < COMPLETED_TOGETHER => run.push((deposit, bytes)),
            _ => self.send(to, MeshItem::Completed(SmallVec::from_iter([(deposit, bytes)]))),
        }
    }

    /// The next item that this shard sent to itself.
    pub(super) fn next_local(&mut self) -> Option<MeshItem> {
        self.outboxes[usize::from(self.this.0)].pop_front()
    }

    pub(super) fn is_local_empty(&self) -> bool {
        self.outboxes[usize::from(self.this.0)].is_empty()
    }

    pub(super) fn outbox(&mut self, to: ShardId) -> &mut VecDeque<MeshItem> {
        &mut self.outboxes[usize::from(to.0)]
    }

    /// Whether notes of presence wait for a shard.
    pub(super) fn holds_presence(&self, to: ShardId) -> bool {
        self.outboxes[usize::from(to.0)].iter().any(|item| matches!(item, MeshItem::Presence(_)))
    }

    /// Items that wait for the fullest other shard.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Items have been taken.
    pub(super) fn drained(&mut self) {
        let this = usize::from(self.this.0);
        let others = self.outboxes.iter().enumerate().filter(|(shard, _)| *shard != this);
        self.longest = others.map(|(_, items)| items.len()).max().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);

    fn said(mesh: &mut Mesh) -> Vec<String> {
        let said = mesh.outbox(THERE).drain(..).map(|item| match item {
            MeshItem::Completed(run) => run
                .iter()
                .map(|(deposit, bytes)| format!("{}:{bytes}", deposit.0))
                .collect::<Vec<_>>()
                .join(" "),
            MeshItem::Released { deposit, bytes } => format!("{} released {bytes}", deposit.0),
            other => format!("{other:?}"),
        });
        said.collect()
    }

    #[test]
    fn completions_that_follow_one_another_go_in_one_item_and_overtake_nothing() {
        let mut mesh = Mesh::new(HERE, 2);
        (0..10).for_each(|deposit| mesh.complete(THERE, DepositId(deposit), 5));
        mesh.send(THERE, MeshItem::Released { deposit: DepositId(11), bytes: 1 });
        mesh.complete(THERE, DepositId(10), 0);
        assert_eq!(mesh.longest(), 4);
        assert_eq!(said(&mut mesh), ["0:5 1:5 2:5 3:5 4:5 5:5 6:5 7:5", "8:5 9:5", "11 released 1", "10:0"]);
        mesh.drained();
        assert_eq!(mesh.longest(), 0);
    }

    #[test]
    fn more_bytes_than_a_completion_can_say_are_released_before_it() {
        let mut mesh = Mesh::new(HERE, 2);
        mesh.complete(THERE, DepositId(1), u64::from(u32::MAX));
        mesh.complete(THERE, DepositId(2), 1 << 32);
        assert_eq!(said(&mut mesh), ["1:4294967295", "2 released 4294967296", "2:0"]);
    }

    /// They are copied on their way; more bytes cost every message.
    #[test]
    fn an_item_is_no_larger_than_the_part_of_a_message() {
        assert_eq!(size_of::<MeshItem>(), size_of::<DepositPart>());
    }
}
