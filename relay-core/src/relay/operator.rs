//! What an operator sees of a shard and can tell it: listings in bounded pages, ending connections, and what is taken in.
//!
//! Looking changes nothing. A listing looks at so many entries of a table and says where the next page begins; entries that come
//! or go between two pages may be missed or, with their index used again, seen anew.
//!
//! While deposits are stopped (relay-product-operations 7.1), new sessions are opened with OkStopSending and those that are
//! there get it too: senders wait, and nothing is refused to who obeys. Who begins a message all the same has its session
//! closed with QuotaWouldBeExceeded, after a while for what was on its way. Stored mail goes on being delivered.

use super::Relay;
use super::gateway::EndedBy;
use super::home::ShardId;
use super::mesh::ConnectionId;
use super::peer::{Peer, Stopped};
use crate::address::{AccountUrl, DeviceUrl, MailboxAddress};
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::{CloseReason, SessionId};
use crate::time::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long after deposits were stopped a message may still begin: it may have been on its way.
const DEPOSITS_GRACE: Duration = Duration::from_secs(10);
/// Accounts that a [`ConnectionView`] names.
const ACCOUNTS_SHOWN: usize = 8;

/// What a shard takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// Whether messages are taken.
    pub deposits: bool,
    /// Whether connections are taken; if not, a Connect gets TryLater.
    pub newcomers: bool,
}

impl Intake {
    /// Everything.
    pub const OPEN: Intake = Intake { deposits: true, newcomers: true };
}

/// What a shard has at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections.
    pub connections: usize,
    /// Of these, connections whose device has not proven its key.
    pub half_open: usize,
    /// Devices with an authenticated connection.
    pub devices: usize,
    /// Messages that wait in mailboxes or are on their way to recipients.
    pub messages: usize,
    /// Mailboxes with mail, or to which a session leads.
    pub mailboxes: usize,
    /// Messages received on this shard's connections and not completed.
    pub incomplete: usize,
    /// Their payload bytes.
    pub in_flight_bytes: u64,
    /// Sessions on which mail is delivered.
    pub outlets: usize,
    /// Records that wait for the log.
    pub log_queue: usize,
    /// Shutting down, or taken out of service.
    pub draining: bool,
    /// What is taken in.
    pub intake: Intake,
}

/// Which part of a table to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Index of the first entry; 0 for the first page.
    pub from: usize,
    /// Entries to look at.
    pub look_at: usize,
    /// Entries to list at most.
    pub most: usize,
}

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// What was found.
    pub entries: Vec<T>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<usize>,
}

/// Which connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// All.
    Everybody,
    /// The one with this number, see [`ConnectionId::as_u64`].
    Connection(u64),
    /// Those whose first SourceDeviceURL this is, proven or not.
    Device(DeviceUrl),
    /// Those on which this account is attached, or whose proven device it is on.
    Account(AccountUrl),
    /// Those from this address.
    Address(IpAddr),
}

impl Whom {
    fn includes(&self, peer: &Peer) -> bool {
        match self {
            Whom::Everybody => true,
            Whom::Connection(number) => peer.id.as_u64() == *number,
            Whom::Device(device) => peer.device.as_ref() == Some(device),
            Whom::Account(account) => peer.collects.iter().any(|(_, target)| target.account() == account),
            Whom::Address(address) => peer.address.map(|found| found.to_canonical()) == Some(*address),
        }
    }
}

/// A connection as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// The connection.
    pub id: ConnectionId,
    /// The peer's address, if it is known.
    pub address: Option<IpAddr>,
    /// First SourceDeviceURL, once Connect was accepted.
    pub device: Option<DeviceUrl>,
    /// The device has proven its key.
    pub authenticated: bool,
    /// Accounts attached; at most eight are named.
    pub accounts: Vec<AccountUrl>,
    /// Sessions on which the peer sends.
    pub senders: usize,
    /// Sessions on which it is delivered to.
    pub outlets: usize,
    /// Payload bytes received on it and not complete.
    pub in_flight_bytes: u64,
    /// Bytes that wait to be sent.
    pub output_bytes: usize,
    /// Messages sent to it and not acknowledged.
    pub unacknowledged: usize,
    /// Its sessions were told to stop sending.
    pub stopped: bool,
}

/// What a listing of mailboxes has first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxOrder {
    /// Most bytes held for the identity or device.
    Bytes,
    /// Most messages.
    Messages,
    /// Most messages among those that somebody collects from: the slowest recipients.
    Slowest,
}

/// A mailbox as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxView {
    /// Whose it is.
    pub address: Arc<MailboxAddress>,
    /// Messages that its recipient has not acknowledged.
    pub messages: usize,
    /// Of these, messages that are on their way to the recipient.
    pub under_way: usize,
    /// Bytes held for its identity or device, other resources included: what the quota counts.
    pub held_bytes: u64,
    /// Connections that collect from it.
    pub collectors: usize,
    /// The shard of the connection that it is delivered to, and the connection.
    pub collector: Option<(ShardId, ConnectionId)>,
}

impl MailboxView {
    /// Whether and how far in front a listing in this order has it.
    pub fn rank(&self, order: MailboxOrder) -> u64 {
        match order {
            MailboxOrder::Bytes => self.held_bytes,
            MailboxOrder::Messages => self.messages as u64,
            MailboxOrder::Slowest if self.collectors == 0 => 0,
            MailboxOrder::Slowest => self.messages as u64,
        }
    }
}

impl Relay {
    /// What the shard has now. Costs the same however much that is.
    pub fn snapshot(&self) -> Snapshot {
        let (messages, mailboxes) = self.mailroom.counts();
        let (incomplete, in_flight_bytes) = self.origin.in_flight();
        Snapshot {
            connections: self.peers.len(),
            half_open: self.strangers.len(),
            devices: self.devices.len(),
            messages,
            mailboxes,
            incomplete,
            in_flight_bytes,
            outlets: self.outlets.len(),
            log_queue: self.mailroom.waiting_appends(),
            draining: self.draining,
            intake: self.intake(),
        }
    }

    /// Lists connections by index.
    pub fn list_connections(&self, page: Page, whom: &Whom) -> Listed<ConnectionView> {
        let mut entries = Vec::new();
        let end = page.from.saturating_add(page.look_at).min(self.peers.end());
        for index in page.from..end {
            if entries.len() == page.most {
                return Listed { entries, next: Some(index) };
            }
            if let Some(peer) = self.peers.get(index).filter(|peer| whom.includes(peer)) {
                entries.push(view(peer));
            }
        }
        Listed { entries, next: (end < self.peers.end()).then_some(end) }
    }

    /// Lists those mailboxes of a page that come first in `order`; without mail, or for
    /// [`MailboxOrder::Slowest`] without anybody who collects, a mailbox is not listed.
    pub fn list_mailboxes(&self, page: Page, order: MailboxOrder) -> Listed<MailboxView> {
        self.mailroom.list(page, order)
    }

    /// Ends connections. `return_time` means something with [`CloseReason::Resting`]. Returns how many
    /// had not ended yet.
    pub fn disconnect(
        &mut self,
        now: Timestamp,
        whom: &Whom,
        reason: CloseReason,
        return_time: Duration,
    ) -> usize {
        self.send_away(now, whom, reason, return_time, Duration::ZERO)
    }

    /// As [`Relay::disconnect`], but each connection is told a ReturnTime of its own, up to `spread` later.
    pub(super) fn send_away(
        &mut self,
        now: Timestamp,
        whom: &Whom,
        reason: CloseReason,
        return_time: Duration,
        spread: Duration,
    ) -> usize {
        self.now = now;
        let found = self.peers.iter().filter(|(_, peer)| whom.includes(peer));
        let ids: Vec<_> = found.map(|(_, peer)| peer.id).collect();
        let mut ended = 0;
        for id in ids {
            let return_time = self.draw_return_time(return_time, spread);
            let connection = self.connection(id);
            ended += usize::from(!connection.is_ended());
            if connection.is_established() {
                connection.close(reason, return_time);
            } else {
                connection.transport_lost();
            }
            self.poll_connection(id);
        }
        self.settle();
        ended
    }

    /// Whole seconds, evenly from `least` to `least + spread`.
    fn draw_return_time(&mut self, least: Duration, spread: Duration) -> u32 {
        let mut drawn = [0; 8];
        if !spread.is_zero() {
            self.entropy.fill(&mut drawn);
        }
        let later = u64::from_le_bytes(drawn) % (spread.as_secs() + 1);
        u32::try_from(least.as_secs() + later).unwrap_or(u32::MAX)
    }

    /// What is taken in.
    pub fn intake(&self) -> Intake {
        Intake { deposits: self.deposits_stopped.is_none(), newcomers: self.newcomers }
    }

    /// Says what to take in from now on. See the module's head for what senders are told.
    pub fn set_intake(&mut self, now: Timestamp, intake: Intake) {
        self.now = now;
        self.newcomers = intake.newcomers;
        if intake.deposits {
            self.deposits_stopped = None;
            self.resume_links();
        } else if self.deposits_stopped.is_none() {
            self.deposits_stopped = Some(now);
            let senders = self.peers.iter().filter(|(_, peer)| !peer.senders.is_empty());
            let ids: Vec<_> = senders.map(|(_, peer)| peer.id).collect();
            for id in ids {
                self.stop_if_congested(id, None);
                self.touch(id);
            }
        }
        self.settle();
    }

    /// Whether a message that begins now is refused.
    pub(super) fn refuses_deposits(&self) -> bool {
        self.deposits_stopped.is_some_and(|since| self.now.since(since) > DEPOSITS_GRACE)
    }

    /// A message begins although deposits have long been stopped.
    pub(super) fn refuse_deposit(&mut self, id: ConnectionId, session: SessionId, end: Option<InboundSeq>) {
        self.stats.refused_deposits += 1;
        self.connection(id).close_session(session, CloseReason::QuotaWouldBeExceeded);
        self.end_sender(id, session, EndedBy::Relay);
        // Only behind the Close, which the sender takes as the answer to the message.
        if let Some(end) = end {
            self.connection(id).complete(end);
        }
        self.touch(id);
    }
}

fn view(peer: &Peer) -> ConnectionView {
    let attached = peer.attachments.iter().filter(|attachment| attachment.challenge.is_none());
    ConnectionView {
        id: peer.id,
        address: peer.address,
        device: peer.device.clone(),
        authenticated: peer.authenticated,
        accounts: attached.map(|attachment| attachment.account.clone()).take(ACCOUNTS_SHOWN).collect(),
        senders: peer.senders.len(),
        outlets: peer.outlets.len(),
        in_flight_bytes: peer.in_flight,
        output_bytes: peer.connection.output_bytes(),
        unacknowledged: peer.connection.unacknowledged(),
        stopped: peer.stopped != Stopped::No,
    }
}
