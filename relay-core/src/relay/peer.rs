//! One connection as the relay sees it: the SSTP machine, who the peer has proven to be, and what it sends and collects.

use super::gateway::RemoteRelay;
use super::half_open::Source;
use super::home::ShardId;
use super::last_seen::Day;
use super::mesh::{ConnectionId, DepositId};
use super::mesh::{OutletId, RouteId, Target};
use super::routes::NamedAgain;
use super::strangers::Turn;
use crate::address::{AccountUrl, DeviceUrl};
use crate::security::Challenge;
use crate::sstp::command::FanoutEntry;
use crate::sstp::{Connection, SessionId};
use crate::time::Timestamp;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::IpAddr;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ConnectionId,
    pub(super) connection: Connection,
    /// The peer's address, if the driver knows it, and where it is counted.
    pub(super) address: Option<IpAddr>,
    pub(super) source: Option<Source>,
    /// The connection's place among those that are half-open, while it is one of them.
    pub(super) turn: Option<Turn>,
    /// First SourceDeviceURL, once Connect was accepted.
    pub(super) device: Option<DeviceUrl>,
    /// The other SourceDeviceURLs, of which nothing is proven.
    pub(super) aliases: Box<[DeviceUrl]>,
    /// The other relay that the peer is, or is called as.
    pub(super) relay: Option<RemoteRelay>,
    /// The device has proven its key.
    pub(super) authenticated: bool,
    /// The last day on which the device was noted as seen here.
    pub(super) seen_on: Day,
    /// The device's challenge, while it is open.
    pub(super) challenge: Option<Box<Challenge>>,
    pub(super) attachments: Vec<Attachment>,
    /// What the connection collects, and where that lives.
    pub(super) collects: Vec<(ShardId, Target)>,
    pub(super) senders: HashMap<SessionId, Sender>,
    pub(super) outlets: HashMap<SessionId, OutletId>,
    /// Outlets that wait for room in the output, in turn.
    pub(super) waiting_outlets: VecDeque<OutletId>,
    /// Bytes of output that the shard's sum has for this connection.
    pub(super) counted_output: usize,
    /// Its place in presence, once it has opened a session there.
    pub(super) attendee: Option<u32>,
    /// Presence waits for room in the output.
    pub(super) notify_waits: bool,
    /// Payload bytes received and not complete.
    pub(super) in_flight: u64,
    /// Which of the peer's sessions were told to stop.
    pub(super) stopped: Stopped,
    /// In the queue of those that are to be resumed.
    pub(super) resumable: bool,
    /// The driver was told not to read.
    pub(super) paused: bool,
    /// When the timer wheel will look at this connection next.
    pub(super) armed_at: Timestamp,
    /// Another shard handed the connection here, or it cannot be handed on.
    pub(super) handed_here: bool,
    /// In the list of connections with output or an end to see to.
    pub(super) touched: bool,
    /// What the connection had in the relay has been cleaned up.
    pub(super) cleaned: bool,
}

/// Which sessions of a connection have to stop because too much is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// None.
    No,
    /// Those that are in the middle of a message.
    Long,
    /// All.
    All,
}

/// An account on a connection.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) event: SessionId,
    pub(super) account: AccountUrl,
    /// While it is open; `None` once the account is attached.
    pub(super) challenge: Option<Box<Challenge>>,
}

/// A path to recipients of a session that are at home on one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct SenderRoute {
    pub(super) shard: ShardId,
    pub(super) route: RouteId,
    /// How long mail is kept if its sender does not say; `None` for the default.
    pub(super) lifetime_seconds: Option<u32>,
}

/// A session on which the peer sends.
#[derive(Debug)]
pub(super) struct Sender {
    /// One for each home shard, family and lifetime of the recipients, and one for each other relay.
    pub(super) routes: SmallVec<[SenderRoute; 1]>,
    /// For a FanoutOpen: the entries, to name them in SessionStatus.
    pub(super) entries: Option<Box<[FanoutEntry]>>,
    /// Recipients that are not in fault.
    pub(super) live: usize,
    /// Where the FanoutOpen names somebody again.
    pub(super) again: NamedAgain,
    /// The message whose end has not arrived.
    pub(super) incoming: Option<DepositId>,
    /// Routes for which the session has to hold.
    pub(super) held: usize,
    /// The session was told to stop because too much is in flight.
    pub(super) stopped: bool,
}

impl Peer {
    pub(super) fn new(id: ConnectionId, connection: Connection) -> Self {
        Self {
            id,
            connection,
            address: None,
            source: None,
            turn: None,
            device: None,
            aliases: Box::default(),
            relay: None,
            authenticated: false,
            seen_on: Day::NEVER,
            challenge: None,
            attachments: Vec::new(),
            collects: Vec::new(),
            senders: HashMap::new(),
            outlets: HashMap::new(),
            waiting_outlets: VecDeque::new(),
            counted_output: 0,
            attendee: None,
            notify_waits: false,
            in_flight: 0,
            stopped: Stopped::No,
            resumable: false,
            paused: false,
            armed_at: Timestamp(u64::MAX),
            handed_here: false,
            touched: false,
            cleaned: false,
        }
    }
}
