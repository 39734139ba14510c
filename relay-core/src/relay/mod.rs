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
//! Inside, four rooms talk in [`mesh`] items: `origin`, where messages come from; `mailroom`, where they wait; `outlet`, where
//! they go; `gateway`, where they go to another relay. Beside them stands `presence`: who is online, and who is told. What one
//! room hands another of the same shard goes without an item if none is before it (`rooms`).

mod action;
mod admission;
pub mod config;
mod connections;
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
mod rooms;
mod routes;
mod stats;
mod strangers;
mod table;
mod wheel;

pub use action::{Action, ReadToken, SecurityFailure};
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
pub use stats::RelayStats;

use crate::address::DeviceUrl;
use crate::directory::Directory;
use crate::sstp::output::OutputQueue;
use crate::sstp::{CloseReason, Connection, ConnectionConfig, SessionId};
use crate::store::{LogEntry, Position, Restored};
use crate::time::{Entropy, Timestamp};
use bytes::Bytes;
use gateway::Gateway;
use hashbrown::HashMap;
use last_seen::Seen;
use mailroom::{Mailroom, SweepRules};
use mesh::{Epoch, MailboxId, Mesh, OutletId};
use origin::Origin;
use outlet::Outlet;
use peer::Peer;
use presence::Presence;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use strangers::Strangers;
use table::Table;
use wheel::TimerWheel;

/// How often expired mail is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How soon again if more of it was found than is dropped at once.
const SWEEP_AGAIN: Duration = Duration::from_millis(20);

/// One shard's brain. See the module's head.
pub struct Relay {
    shard: ShardId,
    config: Arc<RelayConfig>,
    /// What connections share that HTTP carries.
    virtual_connection: Arc<ConnectionConfig>,
    directory: Box<dyn Directory>,
    entropy: Box<dyn Entropy>,
    now: Timestamp,
    peers: Table<Peer>,
    next_generation: u32,
    strangers: Strangers,
    /// Authenticated connections of each device.
    devices: HashMap<DeviceUrl, u32>,
    seen: Seen,
    origin: Origin,
    mailroom: Mailroom,
    gateway: Gateway,
    outlets: Table<Outlet>,
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
            peers: Table::new(),
            next_generation: 0,
            devices: HashMap::new(),
            seen: Seen::default(),
            mailroom: Mailroom::new(next_record),
            outlets: Table::new(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{AccountUrl, IdentityUrl};
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
