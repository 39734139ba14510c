//! One shard's whole brain, as a machine without I/O.
//!
//! Inputs: connections, their bytes, items from other shards, results of the log, the time. Outputs: bytes to send, items for
//! other shards, records to append, and [`Action`]s. A driver calls an input and then sees to the outputs, in any order:
//!
//! * [`Relay::take_touched`]: connections that may have output or have ended;
//! * [`Relay::outbox`]: items for another shard;
//! * [`Relay::take_batch`]: records for the log, one batch at a time;
//! * [`Relay::next_action`]: the rest.
//!
//! Inside, four rooms talk only in [`mesh`] items, on one shard as between two: `origin`, where messages come from;
//! `mailroom`, where they wait; `outlet`, where they go; `gateway`, where they go to another relay. Beside them stands
//! `presence`: who is online, and who is told.

mod admission;
pub mod config;
mod gateway;
mod half_open;
pub mod home;
mod last_seen;
pub mod latency;
mod mailroom;
pub mod management;
pub mod mesh;
pub mod operator;
mod origin;
mod outlet;
mod peer;
mod presence;
pub mod redeposit;
mod routes;
mod strangers;
mod wheel;

pub use admission::{RegisterFailure, Registered, Registration};
pub use config::RelayConfig;
pub use gateway::{DialFailure, PeerRelay, RemoteRelay};
pub use half_open::HalfOpen;
pub use home::ShardId;
pub use latency::Latencies;
pub use management::{Order, Receipt};
pub use mesh::{ConnectionId, MeshItem};
pub use operator::{Intake, Listed, MailboxOrder, Page, Snapshot, Whom};
pub use presence::{Note, PresenceConfig, PresenceCounts, PresenceStats, PublicationId, WatchedId};

use crate::address::{AccountUrl, DeviceUrl, MailboxAddress};
use crate::directory::Directory;
use crate::security::{MessageId, SecurityError};
use crate::sstp::connection::Ended;
use crate::sstp::output::OutputQueue;
use crate::sstp::{CloseReason, Connection, ConnectionConfig, Event, SessionId};
use crate::store::{LogEntry, Position, RecordId, Restored};
use crate::time::{Entropy, Timestamp};
use bytes::Bytes;
use gateway::{EndedBy, Gateway};
use hashbrown::HashMap;
use last_seen::Seen;
use mailroom::{Enqueued, Mailroom, MessageKey, Surroundings, SweepRules};
use mesh::{DepositPart, Epoch, MailboxId, Mesh, OutletId};
use origin::Origin;
use outlet::Outlet;
use peer::Peer;
use presence::{NOTIFY_TAG, Presence};
use slab::Slab;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use strangers::Strangers;
use wheel::TimerWheel;

/// How often expired mail is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How soon again if more of it was found than is dropped at once.
const SWEEP_AGAIN: Duration = Duration::from_millis(20);

/// Names a read of the log that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadToken(u32);

/// Something that only the driver can do.
#[derive(Debug)]
pub enum Action {
    /// Give the connection's socket and these bytes to another shard, which calls [`Relay::connected`] with them. The
    /// connection is unknown here from now on.
    HandOff {
        /// The connection.
        connection: ConnectionId,
        /// Its home.
        shard: ShardId,
        /// Everything received on it so far.
        bytes: Bytes,
    },
    /// Read from the log and call [`Relay::read_done`].
    Read {
        /// To be given back.
        token: ReadToken,
        /// What to read.
        position: Position,
    },
    /// Make a transport to another relay, at the first of its addresses that answers, and call [`Relay::dialed`] or
    /// [`Relay::dial_failed`].
    Dial {
        /// The relay.
        relay: RemoteRelay,
        /// `HOST:PORT`, at least one.
        addresses: Arc<[String]>,
    },
    /// Judge a registration and call [`Relay::registered`].
    Register(Registration),
    /// Reading from this connection, which [`Relay::wants_read`] had denied, may go on.
    Resume {
        /// The connection.
        connection: ConnectionId,
    },
    /// Something for the security log; a bounded number of them a minute, for each address and in all.
    SecurityFailed(SecurityFailure),
    /// A stored message cannot be read back and has left this mailbox undelivered, for the log.
    Lost {
        /// The message.
        message: RecordId,
        /// Whose it was.
        mailbox: Arc<MailboxAddress>,
    },
    /// A connection has ended, for the log.
    Ended {
        /// The connection.
        connection: ConnectionId,
        /// Its device, if it came that far.
        device: Option<DeviceUrl>,
        /// How.
        how: Ended,
    },
}

/// A failed authentication or registration.
#[derive(Debug)]
pub struct SecurityFailure {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer's address, if it is known.
    pub address: Option<IpAddr>,
    /// The device that it claims to be.
    pub device: Option<DeviceUrl>,
    /// The account concerned, if one is.
    pub account: Option<AccountUrl>,
    /// The security message that failed, or in whose place something else stood.
    pub message: MessageId,
    /// What was wrong.
    pub reason: SecurityError,
    /// Earlier failures from the same address that were not told, to spare the log.
    pub untold: u32,
}

/// Counters of one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Connections taken, those handed here included.
    pub connections: u64,
    /// Connections handed to another shard.
    pub handed_off: u64,
    /// Devices that have proven themselves.
    pub authenticated: u64,
    /// Accounts attached.
    pub attached: u64,
    /// Registrations accepted.
    pub registered: u64,
    /// Failed authentications and registrations.
    pub security_failures: u64,
    /// Connections turned away because their address had too many half-open ones.
    pub turned_away: u64,
    /// Half-open connections that were dropped to make room.
    pub pushed_out: u64,
    /// Connects answered with TryLater, and Attaches with AuthenticationFailed, because their address had failed too often or
    /// had too many half-open connections.
    pub put_off: u64,
    /// Registers answered with Busy.
    pub busy: u64,
    /// Messages that arrived at this shard's mailroom.
    pub deposits: u64,
    /// Messages completed towards their origin.
    pub completed: u64,
    /// Messages acknowledged by a recipient.
    pub delivered: u64,
    /// Parts written to the log.
    pub stored_parts: u64,
    /// Parts that were delivered before the log took them, and so never written.
    pub cancelled: u64,
    /// Messages dropped because the device that they are for does not come any more.
    pub purged: u64,
    /// Messages dropped for a recipient because their lifetime was over.
    pub expired: u64,
    /// Messages that could not be read back from the log.
    pub unreadable: u64,
    /// Messages deleted by order of the management server.
    pub deleted_by_order: u64,
    /// Recipients taken out of sessions because their mailbox was full or they were locked out.
    pub faults: u64,
    /// Times that a connection's sessions were stopped.
    pub stops: u64,
    /// Bytes received on connections.
    pub received_bytes: u64,
    /// Payload bytes that arrived at this shard's mailroom.
    pub deposited_bytes: u64,
    /// Payload bytes of messages acknowledged by a recipient.
    pub delivered_bytes: u64,
    /// Messages refused because the relay takes no more mail.
    pub refused_deposits: u64,
    /// Connects answered with TryLater because the relay takes no more connections.
    pub refused_newcomers: u64,
    /// From the end of a message to its completion: what its sender waits for.
    pub completion: Latencies,
    /// Of presence.
    pub presence: PresenceStats,
    /// Links to other relays that came to be, whichever side called.
    pub links: u64,
    /// Messages acknowledged by other relays.
    pub relayed: u64,
}

/// One shard's brain. See the module's head.
pub struct Relay {
    shard: ShardId,
    config: Arc<RelayConfig>,
    /// What connections share that HTTP carries.
    virtual_connection: Arc<ConnectionConfig>,
    directory: Box<dyn Directory>,
    entropy: Box<dyn Entropy>,
    now: Timestamp,
    peers: Slab<Peer>,
    next_generation: u32,
    strangers: Strangers,
    /// Authenticated connections of each device.
    devices: HashMap<DeviceUrl, u32>,
    seen: Seen,
    origin: Origin,
    mailroom: Mailroom,
    gateway: Gateway,
    outlets: Slab<Outlet>,
    next_outlet: u32,
    /// A run of acknowledgements of one outlet's messages, not yet sent to its mailroom.
    acknowledged: Option<(ShardId, MailboxId, Epoch, u32)>,
    /// Outlets that owe their mailroom credit.
    credited: Vec<OutletId>,
    /// Bytes in the outputs of all connections.
    output_bytes: usize,
    presence: Presence,
    mesh: Mesh,
    wheel: TimerWheel,
    sweep_at: Timestamp,
    touched: Vec<ConnectionId>,
    actions: VecDeque<Action>,
    draining: bool,
    /// Since when no messages are taken.
    deposits_stopped: Option<Timestamp>,
    /// Whether connections are taken.
    newcomers: bool,
    stats: RelayStats,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("shard", &self.shard)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// A shard without connections. `next_record` is one above the highest record of its log.
    pub fn new(
        shard: ShardId,
        config: Arc<RelayConfig>,
        directory: Box<dyn Directory>,
        entropy: Box<dyn Entropy>,
        now: Timestamp,
        next_record: u64,
    ) -> Self {
        Self {
            shard,
            mesh: Mesh::new(shard, config.shards),
            strangers: Strangers::new(config.half_open.clone()),
            gateway: Gateway::new(config.peers.len()),
            origin: Origin::new(config.peers.len()),
            presence: Presence::new(&config.presence, config.shards),
            virtual_connection: Arc::new(config.connection.for_virtual_connections()),
            config,
            directory,
            entropy,
            now,
            peers: Slab::new(),
            next_generation: 0,
            devices: HashMap::new(),
            seen: Seen::default(),
            mailroom: Mailroom::new(next_record),
            outlets: Slab::new(),
            next_outlet: 0,
            acknowledged: None,
            credited: Vec::new(),
            output_bytes: 0,
            wheel: TimerWheel::new(now),
            sweep_at: now + SWEEP_EVERY,
            touched: Vec::new(),
            actions: VecDeque::new(),
            draining: false,
            deposits_stopped: None,
            newcomers: true,
            stats: RelayStats::default(),
        }
    }

    /// Takes a message that replay found, before any connection.
    pub fn restore(&mut self, message: Restored) {
        self.mailroom.restore(message);
    }

    /// A transport was accepted, or handed over by another shard with what was received on it. A peer without an address
    /// counts among the shard's half-open connections only.
    pub fn connected(
        &mut self,
        now: Timestamp,
        address: Option<IpAddr>,
        handed_over: Option<Bytes>,
    ) -> ConnectionId {
        let id = self.admit(now, address, self.config.connection.clone());
        self.peer_mut(id).handed_here = handed_over.is_some();
        match handed_over {
            Some(bytes) => self.received(now, id, bytes),
            None => self.arm(id),
        }
        id
    }

    /// A virtual connection has begun, which HTTP carries ([`crate::http`]). Everything holds for it that holds for a
    /// transport of its own, but it stays on the shard that owns its GUID: mail of accounts that live elsewhere comes
    /// through the mesh. Something is said on it every 45 s at least, or proxies give it up.
    pub fn connected_virtually(&mut self, now: Timestamp, address: Option<IpAddr>) -> ConnectionId {
        let id = self.admit(now, address, self.virtual_connection.clone());
        self.peer_mut(id).handed_here = true;
        self.arm(id);
        id
    }

    fn admit(
        &mut self,
        now: Timestamp,
        address: Option<IpAddr>,
        config: Arc<ConnectionConfig>,
    ) -> ConnectionId {
        self.now = now;
        let source = address.map(|address| self.strangers.source(address, &mut *self.entropy));
        let connection = Connection::acceptor(config, now);
        let id = self.insert_peer(|id| Peer { address, source, ..Peer::new(id, connection) });
        self.peer_mut(id).turn = Some(self.strangers.enter(source, id));
        self.make_room();
        id
    }

    /// Bytes arrived on a connection.
    pub fn received(&mut self, now: Timestamp, id: ConnectionId, bytes: Bytes) {
        self.now = now;
        self.stats.received_bytes += bytes.len() as u64;
        if let Some(peer) = self.live_peer(id) {
            peer.connection.receive(now, bytes);
            self.poll_connection(id);
            self.settle();
        }
    }

    /// The transport of a connection is gone, be it lost or closed by the driver after the end. The connection is unknown
    /// from now on.
    pub fn disconnected(&mut self, now: Timestamp, id: ConnectionId) {
        self.now = now;
        if let Some(peer) = self.live_peer(id) {
            peer.connection.transport_lost();
            self.poll_connection(id);
            if self.live_peer(id).is_some() {
                self.uncount_output(id);
                self.peers.remove(id.index());
            }
            self.settle();
        }
    }

    /// An item from another shard.
    pub fn mesh_received(&mut self, now: Timestamp, from: ShardId, item: MeshItem) {
        self.now = now;
        self.mesh_item(from, item);
    }

    /// Call after a run of [`Relay::mesh_received`].
    pub fn mesh_drained(&mut self) {
        self.settle();
    }

    /// Items for another shard, to be taken from the front as its queue has room. Call [`Relay::outbox_drained`] afterwards.
    pub fn outbox(&mut self, to: ShardId) -> &mut VecDeque<MeshItem> {
        self.post_presence(to);
        self.mesh.outbox(to)
    }

    /// Items have been taken from outboxes.
    pub fn outbox_drained(&mut self) {
        self.mesh.drained();
        self.settle();
    }

    /// Moves the records that are due into `batch`, about `most` payload bytes; empty if there are none. One batch is out
    /// at a time: [`Relay::appended`] or [`Relay::append_failed`] comes before the next one.
    pub fn take_batch(&mut self, most: u64, batch: &mut Vec<LogEntry>) {
        self.mailroom.take_batch(self.appends_by(), most, batch);
    }

    /// The same as [`Relay::take_batch`] without any mail, for a disk that is full: mail waits then, senders are held back by
    /// what they have in flight, and what is delivered goes on making room.
    pub fn take_deletions(&mut self, batch: &mut Vec<LogEntry>) {
        self.mailroom.take_deletions(batch);
    }

    /// Whether a batch is worth taking now.
    pub fn has_appends(&self) -> bool {
        self.mailroom.appends_due().is_some_and(|due| due <= self.appends_by())
    }

    /// Up to when the log may take what waits for it.
    fn appends_by(&self) -> Timestamp {
        if self.draining { Timestamp(u64::MAX) } else { self.now }
    }

    /// Whether nothing waits for the log and nothing is being written.
    pub fn is_settled(&self) -> bool {
        self.mailroom.is_settled()
    }

    /// The batch is durable. `positions` are those of its parts, in order.
    pub fn appended(&mut self, now: Timestamp, positions: &[Position]) {
        self.now = now;
        self.in_mailroom(|room, around| room.appended(around, positions));
        self.settle();
    }

    /// The batch could not be made durable; its records will come again.
    pub fn append_failed(&mut self, now: Timestamp, batch: Vec<LogEntry>) {
        self.now = now;
        self.in_mailroom(|room, around| room.append_failed(around, batch));
        self.settle();
    }

    /// Whether somebody still waits for a read that [`Action::Read`] asked for. If not, [`Relay::read_done`] is called all the
    /// same, with whatever there is.
    pub fn wants_read_done(&self, token: ReadToken) -> bool {
        self.mailroom.wants_read(token)
    }

    /// The payload of a part that [`Action::Read`] asked for; `None` if it cannot be read.
    pub fn read_done(&mut self, now: Timestamp, token: ReadToken, payload: Option<Bytes>) {
        self.now = now;
        self.in_mailroom(|room, around| room.read_done(around, token, payload));
        self.settle();
    }

    /// A registration was judged.
    pub fn registered(&mut self, now: Timestamp, id: ConnectionId, event: SessionId, outcome: Registered) {
        self.now = now;
        self.registration_done(id, event, outcome);
        self.settle();
    }

    /// When [`Relay::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Timestamp {
        let purging = self.mailroom.is_purging().then_some(self.now);
        let due = [self.wheel.next(), self.next_soon(), self.links_due(), purging];
        due.into_iter().flatten().fold(self.sweep_at, Timestamp::min)
    }

    /// When to call [`Relay::handle_timeout`] for presence, or for records that are not due yet: sooner than the wheel may say,
    /// and changed by any input.
    pub fn next_soon(&self) -> Option<Timestamp> {
        let appends = self.mailroom.appends_due().filter(|due| *due > self.appends_by());
        self.presence.next_due().into_iter().chain(appends).min()
    }

    /// Acts on everything that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        let mut due = Vec::new();
        self.wheel.expire(now, &mut due);
        let draining = self.draining;
        for (id, at) in due {
            let Some(peer) = self.live_peer(id).filter(|peer| peer.armed_at == at) else { continue };
            peer.armed_at = Timestamp(u64::MAX);
            if peer.paused && !draining {
                peer.connection.excuse_silence(now);
            }
            if peer.connection.poll_timeout().is_some_and(|at| at <= now) {
                peer.connection.handle_timeout(now);
                self.poll_connection(id);
                self.touch(id);
            }
            self.arm(id);
        }
        self.presence_timeout();
        self.call_links();
        if self.mailroom.is_purging() {
            self.purge_on();
        }
        if now >= self.sweep_at {
            let RelayConfig { lifetime, abandoned_after, .. } = *self.config;
            let rules = SweepRules { lifetime, abandoned_after };
            let more = self.in_mailroom(|room, around| room.sweep(around, rules));
            self.sweep_at = now + if more { SWEEP_AGAIN } else { SWEEP_EVERY };
            self.note_who_stays();
        }
        self.settle();
    }

    /// Connections that may have output, or have ended, since the last call. For each: [`Relay::prepare_output`], send,
    /// [`Relay::sent`], and once [`Relay::is_finished`], close the transport and call [`Relay::disconnected`].
    pub fn take_touched(&mut self, into: &mut Vec<ConnectionId>) {
        for id in self.touched.drain(..) {
            if let Some(peer) = self.peers.get_mut(id.index()).filter(|peer| peer.id == id) {
                peer.touched = false;
                into.push(id);
            }
        }
    }

    /// The output of a connection, with the acknowledgements that are due; `None` if the connection is unknown.
    pub fn prepare_output(&mut self, now: Timestamp, id: ConnectionId) -> Option<&mut OutputQueue> {
        self.now = now;
        let peer = self.live_peer(id)?;
        peer.connection.prepare_output(now);
        self.arm(id);
        self.count_output(id);
        Some(self.live_peer(id)?.connection.output())
    }

    /// Whether the connection has ended and all its output is sent.
    pub fn is_finished(&self, id: ConnectionId) -> bool {
        self.peers
            .get(id.index())
            .filter(|peer| peer.id == id)
            .is_none_or(|peer| peer.connection.is_ended() && peer.connection.output_bytes() == 0)
    }

    /// Whether the driver may read from the connection. Once denied, [`Action::Resume`] follows.
    pub fn wants_read(&mut self, id: ConnectionId) -> bool {
        self.may_read(id)
    }

    /// The next thing that only the driver can do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Shutting down: no new connections, no more messages from those that are there. What has been received goes on
    /// to completion; once [`Relay::is_settled`], [`Relay::close_all`] sends the last acknowledgements.
    pub fn drain(&mut self, now: Timestamp) {
        self.now = now;
        self.draining = true;
    }

    /// Ends all connections with ConnectClose Resting. Each gets a ReturnTime of its own from the configured range, so that
    /// they do not all come back in one second.
    pub fn close_all(&mut self, now: Timestamp) {
        let (return_time, spread) = (self.config.return_time, self.config.return_time_spread);
        self.send_away(now, &Whom::Everybody, CloseReason::Resting, return_time, spread);
    }

    /// Obeys another configuration from now on: limits at the next decision, deadlines with the next connection. The number
    /// of shards, and who shares the counters of half-open connections, stay as they were.
    pub fn reconfigure(&mut self, config: Arc<RelayConfig>) {
        debug_assert_eq!(config.shards, self.config.shards, "mail would move to other homes");
        self.config = config;
    }

    /// Connections at present.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// Messages and mailboxes held at present.
    pub fn mail(&self) -> (usize, usize) {
        self.mailroom.counts()
    }

    /// Messages received here and not completed, and their payload bytes in flight.
    pub fn in_flight(&self) -> (usize, u64) {
        self.origin.in_flight()
    }

    /// Bytes that wait to be sent, on all connections.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Messages received whole on this shard's connections and not yet completed.
    pub fn unanswered(&self) -> usize {
        self.origin.unanswered()
    }

    /// Counters.
    pub fn stats(&self) -> RelayStats {
        self.stats
    }
}

/// How the rooms reach each other.
impl Relay {
    fn in_mailroom<T>(&mut self, work: impl FnOnce(&mut Mailroom, &mut Surroundings<'_>) -> T) -> T {
        let (mailroom, mut around) = self.mailroom();
        work(mailroom, &mut around)
    }

    fn mailroom(&mut self) -> (&mut Mailroom, Surroundings<'_>) {
        let around = Surroundings {
            now: self.now,
            quota_per_identity: self.config.quota_per_identity,
            directory: &*self.directory,
            commit_delay: self.config.commit_delay,
            mesh: &mut self.mesh,
            actions: &mut self.actions,
            stats: &mut self.stats,
        };
        (&mut self.mailroom, around)
    }

    fn peer(&self, id: ConnectionId) -> &Peer {
        &self.peers[id.index()]
    }

    fn peer_mut(&mut self, id: ConnectionId) -> &mut Peer {
        &mut self.peers[id.index()]
    }

    fn connection(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.peer_mut(id).connection
    }

    /// The connection, if it is still the one that the id was made for.
    fn live_peer(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index()).filter(|peer| peer.id == id)
    }

    fn touch(&mut self, id: ConnectionId) {
        let peer = self.peer_mut(id);
        if !peer.touched {
            peer.touched = true;
            self.touched.push(id);
        }
    }

    /// Sees to it that the wheel looks at the connection when it is next due.
    fn arm(&mut self, id: ConnectionId) {
        let Some(peer) = self.live_peer(id) else { return };
        if let Some(due) = peer.connection.poll_timeout()
            && due < peer.armed_at
        {
            peer.armed_at = due;
            self.wheel.insert(id, due);
        }
    }

    /// Handles what a connection has to say.
    fn poll_connection(&mut self, id: ConnectionId) {
        let now = self.now;
        while let Some(peer) = self.live_peer(id) {
            if let Some((session, part, end)) = peer.connection.poll_message() {
                self.part_received(id, session, part, Some(end));
            } else if let Some(event) = peer.connection.poll(now) {
                self.connection_event(id, event);
            } else {
                break;
            }
        }
        self.send_acknowledged();
        if self.live_peer(id).is_some() {
            self.touch(id);
        }
    }

    fn insert_peer(&mut self, make: impl FnOnce(ConnectionId) -> Peer) -> ConnectionId {
        let entry = self.peers.vacant_entry();
        let id = ConnectionId { index: entry.key() as u32, generation: self.next_generation };
        self.next_generation = self.next_generation.wrapping_add(1);
        entry.insert(make(id));
        self.stats.connections += 1;
        self.touch(id);
        id
    }

    fn connection_event(&mut self, id: ConnectionId, event: Event) {
        let event = match self.peer(id).relay {
            Some(relay) => self.link_event(id, relay, event),
            None => Some(event),
        };
        let Some(event) = event else { return };
        match event {
            Event::Connect(connect) => self.connect_received(id, *connect),
            Event::ConnectAuthenticate { token } => self.connect_authenticate_received(id, &token),
            Event::Open(open) => self.open_received(id, open),
            Event::FanoutOpen(open) => self.fanout_open_received(id, open),
            Event::SessionReady(session) => {
                if !self.presence_ready(id, session) {
                    self.outlet_ready(id, session);
                }
            }
            Event::SessionStopped(_) => {}
            Event::SessionRefused { session, .. } => {
                self.outlet_gone(id, session);
                self.presence_session_gone(id, session);
            }
            Event::SessionClosed { session, .. } => {
                self.end_sender(id, session, EndedBy::Sender);
                self.outlet_gone(id, session);
                self.detach(id, session);
                self.presence_session_gone(id, session);
            }
            Event::MessageTooLong(session) => {
                self.end_sender(id, session, EndedBy::Relay);
                self.presence_session_gone(id, session);
            }
            Event::Attach(request) => self.attach_received(id, request),
            Event::AttachAuthenticate { event, token } => {
                self.attach_authenticate_received(id, event, &token)
            }
            Event::Register(request) => self.register_received(id, request),
            Event::Part { session, part, end } => self.part_received(id, session, part, end),
            Event::Acknowledged { tag: NOTIFY_TAG, count, .. } => self.presence_acknowledged(id, count),
            Event::Acknowledged { tag, count, .. } => self.outlet_acknowledged(tag, count),
            Event::Ended(how) => self.clean_up(id, how),
            // Of the sessions that we open, only those to other relays have several recipients.
            Event::SessionStatus(_) => {}
            Event::ConnectResponse { .. } | Event::AttachResponse { .. } | Event::RegisterResponse { .. } => {
                debug_assert!(false, "a relay asks for none of these, but as the caller of another");
            }
        }
    }

    /// A connection has ended: whatever it had in the relay goes, and its unacknowledged mail is delivered again.
    fn clean_up(&mut self, id: ConnectionId, how: Ended) {
        self.send_acknowledged();
        let peer = self.peer_mut(id);
        if std::mem::replace(&mut peer.cleaned, true) {
            return;
        }
        let senders: Vec<_> = peer.senders.keys().copied().collect();
        let outlets: Vec<_> = peer.outlets.keys().copied().collect();
        let collects = std::mem::take(&mut peer.collects);
        peer.attachments.clear();
        peer.challenge = None;
        let device = peer.device.take();
        let authenticated = peer.authenticated;
        self.no_stranger(id);
        self.presence_connection_gone(id);
        if let Some(device) = device.as_ref().filter(|_| authenticated)
            && let Some(connections) = self.devices.get_mut(device)
        {
            *connections -= 1;
            if *connections == 0 {
                self.devices.remove(device);
            }
        }
        for session in senders {
            self.end_sender(id, session, EndedBy::Relay);
        }
        if let Some(relay) = self.peer(id).relay {
            self.link_lost(id, relay, how);
        }
        for (shard, target) in collects {
            self.mesh.send(shard, MeshItem::Uncollect { target, connection: id });
        }
        for session in outlets {
            self.outlet_gone(id, session);
        }
        self.actions.push_back(Action::Ended { connection: id, device, how });
    }

    fn mesh_item(&mut self, from: ShardId, item: MeshItem) {
        match item {
            MeshItem::OpenRoute { route, family, recipients } => {
                self.in_mailroom(|room, _| room.open_route(from, route, family, &recipients));
            }
            MeshItem::OpenLeg { route, relay, resource, recipients } => {
                self.open_leg(from, route, relay, resource, recipients);
            }
            MeshItem::Hold { route, held } => self.hold(route, held),
            MeshItem::RouteEnded { route } => self.route_ended(route),
            MeshItem::CloseRoute { route } if self.gateway.has(from, route) => self.close_leg(from, route),
            MeshItem::CloseRoute { route } => {
                self.in_mailroom(|room, around| room.close_route(around, from, route));
            }
            MeshItem::Deposit(part) => self.deposited(from, part),
            MeshItem::Released { deposit, bytes } => self.released(deposit, bytes),
            MeshItem::Completed(run) => {
                run.into_iter().for_each(|(deposit, bytes)| self.completed(deposit, u64::from(bytes)));
            }
            MeshItem::Fault { route, recipients, status } => self.fault(route, &recipients, status),
            MeshItem::Collect { target, connection } => {
                self.in_mailroom(|room, around| room.collect(around, from, target, connection));
            }
            MeshItem::Uncollect { target, connection } => {
                self.in_mailroom(|room, around| room.uncollect(around, from, target, connection));
            }
            MeshItem::OpenOutlet { connection, mailbox, epoch, address } => {
                self.open_outlet(from, connection, mailbox, epoch, &address);
            }
            MeshItem::OutletReady { mailbox, epoch, outlet, window } => {
                self.in_mailroom(|room, around| {
                    room.outlet_ready(around, from, mailbox, epoch, outlet, window)
                });
            }
            MeshItem::OutletClosed { mailbox, epoch } => {
                self.in_mailroom(|room, around| room.outlet_closed(around, mailbox, epoch));
            }
            MeshItem::Deliver(part) => self.deliver(part),
            MeshItem::Credit { mailbox, epoch, cost } => {
                self.in_mailroom(|room, around| room.credit(around, mailbox, epoch, cost));
            }
            MeshItem::Acknowledged { mailbox, epoch, count } => {
                self.in_mailroom(|room, around| room.acknowledged(around, mailbox, epoch, count));
            }
            MeshItem::CloseOutlet { outlet } => self.close_outlet(outlet),
            MeshItem::Presence(notes) => self.presence_notes(from, notes),
            MeshItem::Order(order, receipt) => self.obey(&order, &receipt),
            MeshItem::Evict { target, connection, .. } => self.evict(connection, &target),
        }
    }

    /// Sends a part to the mailroom or gateway. On this shard, where nothing is before it, that is there at once.
    fn send_deposit(&mut self, to: ShardId, part: DepositPart) {
        if to == self.shard && self.mesh.is_local_empty() {
            self.deposited(to, part);
        } else {
            self.mesh.send(to, MeshItem::Deposit(part));
        }
    }

    fn deposited(&mut self, from: ShardId, part: DepositPart) {
        if self.gateway.has(from, part.route) {
            return self.leg_deposit(from, part);
        }
        let (mailroom, mut around) = self.mailroom();
        let Some(arrived) = mailroom.deposit(&mut around, from, part) else { return };
        let mut all_on_its_way = true;
        for place in 0..arrived.recipients() {
            let (mailroom, mut around) = self.mailroom();
            match mailroom.enqueue(&mut around, &arrived, place) {
                Enqueued::Passed(to, outlet) => self.pass(to, outlet, arrived.key()),
                Enqueued::OnItsWay => {}
                Enqueued::Waits => all_on_its_way = false,
            }
        }
        let (mailroom, mut around) = self.mailroom();
        mailroom.enqueued(&mut around, arrived, all_on_its_way);
    }

    /// Gives a whole message to an outlet: here, where nothing is before it, out of the mailroom's own memory.
    fn pass(&mut self, to: ShardId, outlet: OutletId, key: MessageKey) {
        let at_once = to == self.shard && self.mesh.is_local_empty();
        if at_once && self.deliver_whole(outlet, key) {
            return;
        }
        let part = self.mailroom.whole_part(key, outlet);
        match at_once {
            true => self.deliver(part),
            false => self.mesh.send(to, MeshItem::Deliver(part)),
        }
    }

    /// Lets the rooms of this shard say to each other what they have to say.
    fn settle(&mut self) {
        loop {
            self.post_presence(self.shard);
            while let Some(item) = self.mesh.next_local() {
                self.mesh_item(self.shard, item);
            }
            self.send_credits();
            self.resume_stopped();
            if self.mesh.is_local_empty() && !self.presence.has_notes(self.shard) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::IdentityUrl;
    use crate::directory::{AccountRecord, DeviceRecord, IdentityRecord, Unreadable};
    use crate::sstp::connection::Endpoint;
    use crate::sstp::text::Text;

    struct Nobody;

    impl Directory for Nobody {
        fn device(&self, _: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
            Ok(None)
        }
        fn account(&self, _: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
            Ok(None)
        }
        fn identity(&self, _: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
            Ok(None)
        }
    }

    impl Entropy for Nobody {
        fn fill(&mut self, _: &mut [u8]) {}
    }

    /// Every message on a connection arms an earlier deadline than the one of the keep-alive.
    #[test]
    fn traffic_does_not_gather_timers() {
        let url = Text::new("dpp://relay").unwrap();
        let config = ConnectionConfig::new(Endpoint::Relay, vec![url.clone()], Text::EMPTY);
        let config = Arc::new(RelayConfig::new(Arc::new(config), 1));
        let mut now = Timestamp(1_000_000);
        let mut relay = Relay::new(ShardId(0), config, Box::new(Nobody), Box::new(Nobody), now, 1);
        let id = relay.connected(now, None, None);
        let device = Text::new("dpp://device").unwrap();
        let client = ConnectionConfig::new(Endpoint::Client, vec![device], Text::EMPTY);
        let mut client = Connection::initiator(Arc::new(client), now, url, Bytes::new());
        let mut most = 0;
        for round in 0..2000 {
            // An unknown resource is refused; the end of a message on its session counts, and is acknowledged by timer.
            if client.is_established()
                && let Some(session) = client.open(Text::new("r").unwrap(), Text::EMPTY, Text::EMPTY)
            {
                client.begin_message(session, 0, b"\0");
                client.end_message(session, round);
            }
            client.prepare_output(now);
            relay.received(now, id, client.output().take());
            let output = relay.prepare_output(now, id).map(|output| output.take());
            client.receive(now, output.expect("the connection lives"));
            while client.poll(now).is_some() {}
            now = now + Duration::from_millis(700);
            relay.handle_timeout(now);
            most = most.max(relay.wheel.len());
        }
        assert!(client.is_established());
        assert!(most < 20, "{most} timers of one connection");
    }
}
