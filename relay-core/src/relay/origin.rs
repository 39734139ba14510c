//! The origin: what peers send. Sessions become routes to the mailrooms that are home to their recipients, messages become
//! deposits, and a message is acknowledged to its sender when every mailroom has completed it.
//!
//! Invariant: payload bytes are in flight from the moment a part is received until each mailroom that it went to has released
//! them; the sums per connection and per shard stop the senders before they run away.

use super::gateway::{self, EndedBy, RemoteGroups, RemoteRelay, RouteState};
use super::mesh::{ConnectionId, DepositId, DepositPart, MeshItem, RouteId, RouteRecipient};
use super::peer::{Sender, SenderRoute, Stopped};
use super::routes::{self, Group};
use super::table::Table;
use super::{Action, Relay};
use crate::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use crate::directory::Unreadable;
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::command::{FanoutEntry, FanoutOpen, Message, Open, SessionStatus};
use crate::sstp::connection::Part;
use crate::sstp::profile::{RESOURCE_WAN_DPP, flags};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, OpenResponseId, SessionId, StatusId, Version};
use crate::time::Timestamp;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// A message that has begun and is not completed everywhere.
#[derive(Debug)]
pub(super) struct Deposit {
    connection: ConnectionId,
    /// The other relay that it came from, if it did.
    relay: Option<RemoteRelay>,
    /// Once its end has arrived: what to acknowledge, and since when.
    end: Option<(InboundSeq, Timestamp)>,
    /// Mailrooms that have not completed it.
    outstanding: u32,
}

/// Where a route comes from.
#[derive(Debug)]
pub(super) struct RouteSource {
    generation: u32,
    pub(super) connection: ConnectionId,
    pub(super) session: SessionId,
    pub(super) state: RouteState,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Origin {
    routes: Table<RouteSource>,
    next_generation: u32,
    deposits: Table<Deposit>,
    /// Of these, messages whose end has arrived.
    ended: usize,
    /// Payload bytes in flight, all connections together.
    in_flight: u64,
    /// Of these, what came from each other relay, on whichever link.
    from_relays: Vec<u64>,
    /// Stopped connections of which little is in flight, in the order in which they are to be resumed.
    resumable: VecDeque<ConnectionId>,
}

impl Origin {
    /// For so many other relays.
    pub(super) fn new(relays: usize) -> Self {
        Self { from_relays: vec![0; relays], ..Self::default() }
    }

    /// Messages that are not completed, and their payload bytes in flight.
    pub(super) fn in_flight(&self) -> (usize, u64) {
        (self.deposits.len(), self.in_flight)
    }

    /// Messages that have been received whole and are not completed.
    pub(super) fn unanswered(&self) -> usize {
        self.ended
    }
}

/// The table of routes.
impl Origin {
    pub(super) fn add_route(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        state: RouteState,
    ) -> RouteId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let source = RouteSource { generation, connection, session, state };
        RouteId { index: self.routes.insert(source) as u32, generation }
    }

    pub(super) fn route_mut(&mut self, route: RouteId) -> Option<&mut RouteSource> {
        self.routes.get_mut(route.index as usize).filter(|source| source.generation == route.generation)
    }

    pub(super) fn remove_route(&mut self, route: RouteId) {
        self.routes.remove(route.index as usize);
    }
}

/// Why a recipient cannot be sent to.
enum Unreachable {
    Unknown,
    LockedOut,
    /// Nobody knows yet: the directory cannot be read.
    Unreadable,
}

impl From<Unreadable> for Unreachable {
    fn from(Unreadable: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// Why there is no session.
enum NoSession {
    Refused(OpenResponseId),
    /// No ResponseId says "later", so the connection ends, to be made again later.
    Later,
}

impl From<OpenResponseId> for NoSession {
    fn from(response: OpenResponseId) -> Self {
        Self::Refused(response)
    }
}

/// What a FanoutOpen asks for.
struct Fanout {
    recipients: Vec<RouteRecipient>,
    remote: RemoteGroups,
    entries: Box<[FanoutEntry]>,
    /// Positions of recipients that must not get mail.
    locked_out: Vec<u16>,
}

impl Relay {
    /// Open (3.3.5.5).
    pub(super) fn open_received(&mut self, id: ConnectionId, open: Open) {
        let session = open.session;
        if open.resource_url.as_str() == RESOURCE_WAN_DPP {
            // Presence is told to clients; a relay has no business in it.
            return match self.peer(id).relay {
                None => self.presence_open_received(id, &open),
                Some(_) => self.connection(id).respond(session, OpenResponseId::NoResource),
            };
        }
        match self.session_for(id, &open) {
            Ok(recipient) => {
                self.start_session(
                    id,
                    session,
                    vec![recipient],
                    &open.resource_url,
                    RemoteGroups::new(),
                    None,
                );
            }
            Err(reason) => self.no_session(id, session, reason),
        }
    }

    fn no_session(&mut self, id: ConnectionId, session: SessionId, reason: NoSession) {
        match reason {
            NoSession::Refused(response) => self.connection(id).respond(session, response),
            NoSession::Later => self.send_back_later(id),
        }
    }

    fn session_for(&self, id: ConnectionId, open: &Open) -> Result<RouteRecipient, NoSession> {
        let resource = self.resource_for(id, &open.resource_url)?;
        self.recipient(0, &resource, &open.identity_url, &open.device_url).map_err(|reason| match reason {
            Unreachable::Unknown | Unreachable::LockedOut => OpenResponseId::Unknown.into(),
            Unreachable::Unreadable => NoSession::Later,
        })
    }

    fn resource_for(&self, id: ConnectionId, resource: &Text) -> Result<ResourceUrl, OpenResponseId> {
        let allowed = self.config.deposit_by_anyone || self.peer(id).authenticated;
        let resource = ResourceUrl::new(resource.as_bytes()).map_err(|_| OpenResponseId::Unknown)?;
        if allowed { Ok(resource) } else { Err(OpenResponseId::Unknown) }
    }

    /// FanoutOpen (3.3.5.6), from row 2 on.
    pub(super) fn fanout_open_received(&mut self, id: ConnectionId, open: FanoutOpen) {
        let session = open.session;
        if open.is_empty() {
            return self.connection(id).respond_empty_fanout(session);
        }
        match self.fanout_session_for(id, &open) {
            Ok(Fanout { recipients, remote, entries, locked_out }) => {
                self.start_session(id, session, recipients, &open.resource_url, remote, Some(entries));
                self.report_faults(id, session, &locked_out, StatusId::LockedOut);
            }
            Err(reason) => self.no_session(id, session, reason),
        }
    }

    fn fanout_session_for(&self, id: ConnectionId, open: &FanoutOpen) -> Result<Fanout, NoSession> {
        let entries: Box<[FanoutEntry]> = open.entries().collect();
        let own = &self.config.connection.local_device_urls;
        let foreign = |entry: &FanoutEntry| gateway::is_remote(entry, own);
        if entries.iter().any(foreign) && !self.single_hop_supported(id) {
            return Err(OpenResponseId::FanoutNotSupported.into());
        }
        if open.resource_url.as_str() == RESOURCE_WAN_DPP || open.len() > self.config.max_fanout_recipients {
            return Err(OpenResponseId::NoResource.into());
        }
        let resource = self.resource_for(id, &open.resource_url)?;
        let mut recipients = Vec::with_capacity(entries.len());
        let mut remote = RemoteGroups::new();
        let mut locked_out = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if foreign(entry) {
                self.group_remote(&mut remote, index as u16, entry)?;
                continue;
            }
            match self.recipient(index as u16, &resource, &entry.identity_url, &entry.device_url) {
                Ok(recipient) => recipients.push(recipient),
                Err(Unreachable::LockedOut) => locked_out.push(index as u16),
                Err(Unreachable::Unknown) => return Err(OpenResponseId::Unknown.into()),
                Err(Unreachable::Unreadable) => return Err(NoSession::Later),
            }
        }
        Ok(Fanout { recipients, remote, entries, locked_out })
    }

    fn recipient(
        &self,
        index: u16,
        resource: &ResourceUrl,
        identity: &Text,
        device: &Text,
    ) -> Result<RouteRecipient, Unreachable> {
        let identity = IdentityUrl::new(identity.as_bytes()).map_err(|_| Unreachable::Unknown)?;
        let record = self.directory.identity(&identity)?.ok_or(Unreachable::Unknown)?;
        let (account, lifetime_seconds) = (record.account, record.lifetime_seconds);
        if self.is_account_locked_out(&account)? {
            return Err(Unreachable::LockedOut);
        }
        let (device, quota_bytes) = if device.is_empty() {
            (None, record.quota_bytes)
        } else {
            (Some(self.recipient_device(&account, device)?), Some(self.config.quota_per_device))
        };
        let address = MailboxAddress { account, identity, device, resource: resource.clone() };
        Ok(RouteRecipient { index, address, quota_bytes, lifetime_seconds })
    }

    fn recipient_device(&self, account: &AccountUrl, device: &Text) -> Result<DeviceUrl, Unreachable> {
        let device = DeviceUrl::new(device.as_bytes()).map_err(|_| Unreachable::Unknown)?;
        let record = self.directory.device(&device)?.ok_or(Unreachable::Unknown)?;
        if record.locked_out {
            return Err(Unreachable::LockedOut);
        }
        if record.accounts.contains(account) { Ok(device) } else { Err(Unreachable::Unknown) }
    }

    fn start_session(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        recipients: Vec<RouteRecipient>,
        resource: &Text,
        remote: RemoteGroups,
        entries: Option<Box<[FanoutEntry]>>,
    ) {
        let (groups, again) = routes::group(recipients, self.config.shards);
        let local: usize = groups.iter().map(|group| group.recipients.len()).sum();
        let live = local + remote.iter().map(|(_, members)| members.len()).sum::<usize>();
        let mut routes = SmallVec::new();
        for Group { shard, family, lifetime_seconds, recipients, .. } in groups {
            let route = self.origin.add_route(id, session, RouteState::Local);
            self.mesh.send(shard, MeshItem::OpenRoute { route, family, recipients: recipients.into() });
            routes.push(SenderRoute { shard, route, lifetime_seconds });
        }
        if self.deposits_stopped.is_some() || self.peer(id).relay.is_some() {
            self.stop_if_congested(id, None);
        }
        let held = remote.len();
        self.open_remote_routes(id, session, resource, remote, |(shard, route)| {
            routes.push(SenderRoute { shard, route, lifetime_seconds: None });
        });
        let peer = self.peer_mut(id);
        let stopped = peer.stopped == Stopped::All;
        let response = if stopped || held > 0 { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
        let sender = Sender { routes, entries, live, again, incoming: None, held, stopped };
        peer.senders.insert(session, sender);
        peer.connection.respond(session, response);
    }

    /// The peer, or we, have ended a session on which the peer sent.
    pub(super) fn end_sender(&mut self, id: ConnectionId, session: SessionId, by: EndedBy) {
        if let Some(sender) = self.peer_mut(id).senders.remove(&session) {
            for SenderRoute { shard, route, .. } in sender.routes {
                let source = self.origin.route_mut(route).expect("a session has its routes");
                match source.state {
                    RouteState::Local => self.origin.remove_route(route),
                    _ => source.state = RouteState::Ending(by),
                }
                self.mesh.send(shard, MeshItem::CloseRoute { route });
            }
        }
    }

    /// A part of a message (3.3.5.12): on its way to every mailroom that has a recipient.
    pub(super) fn part_received(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        part: Part,
        end: Option<InboundSeq>,
    ) {
        let said = Message::ephemeral_seconds(part.flags, &part.tail);
        let default = self.config.lifetime.as_secs();
        let now = self.now;
        let refuses = self.refuses_deposits();
        let peer = self.peers.get_mut(id.index()).expect("events come from live connections");
        let Some(sender) = peer.senders.get_mut(&session).filter(|sender| sender.live > 0) else {
            if !self.presence_part(id, session, &part, end)
                && let Some(end) = end
            {
                self.connection(id).complete(end);
            }
            return;
        };
        if refuses && sender.incoming.is_none() {
            return self.refuse_deposit(id, session, end);
        }
        let deposit = *sender.incoming.get_or_insert_with(|| {
            let outstanding = sender.routes.len() as u32;
            let deposit = Deposit { connection: id, relay: peer.relay, end: None, outstanding };
            DepositId(self.origin.deposits.insert(deposit) as u32)
        });
        if end.is_some() {
            sender.incoming = None;
            self.origin.deposits[deposit.0 as usize].end = end.map(|end| (end, self.now));
            self.origin.ended += 1;
        }
        let long = (end.is_none() || part.index > 0).then_some(session);
        let in_flight = part.payload_bytes as u64 * sender.routes.len() as u64;
        peer.in_flight += in_flight;
        self.origin.in_flight += in_flight;
        if let Some(relay) = peer.relay.and(self.origin.deposits[deposit.0 as usize].relay) {
            self.origin.from_relays[usize::from(relay.0)] += in_flight;
        }
        let expires_at = |lifetime_seconds: Option<u32>| {
            now.as_secs().saturating_add(said.or(lifetime_seconds).map_or(default, u64::from))
        };
        let (&last, routes) = sender.routes.split_last().expect("who is live has a route to the recipients");
        let mut deposit_part = DepositPart {
            route: last.route,
            deposit,
            index: part.index,
            last: end.is_some(),
            flags: part.flags & !flags::A,
            tail: part.tail,
            expires_at: 0,
            payload: part.payload,
            payload_bytes: part.payload_bytes as u32,
        };
        for &SenderRoute { shard, route, lifetime_seconds } in routes {
            (deposit_part.route, deposit_part.expires_at) = (route, expires_at(lifetime_seconds));
            self.mesh.send(shard, MeshItem::Deposit(deposit_part.clone()));
        }
        (deposit_part.route, deposit_part.expires_at) = (last.route, expires_at(last.lifetime_seconds));
        self.send_deposit(last.shard, deposit_part);
        self.stop_if_congested(id, long);
    }

    pub(super) fn released(&mut self, deposit: DepositId, bytes: u64) {
        let Deposit { connection, relay, .. } = self.origin.deposits[deposit.0 as usize];
        self.origin.in_flight -= bytes;
        if let Some(peer) = self.live_peer(connection) {
            peer.in_flight -= bytes;
            self.resume_in_turn(connection);
        }
        if let Some(relay) = relay {
            self.origin.from_relays[usize::from(relay.0)] -= bytes;
            self.resume_links_of(relay);
        }
    }

    /// What a connection has in flight, as its limits count it. For another relay that is all that came from it, also on links
    /// that are lost: else each new one could bring as much again.
    fn counted_in_flight(&self, id: ConnectionId) -> u64 {
        let peer = self.peer(id);
        peer.relay.map_or(peer.in_flight, |relay| self.origin.from_relays[usize::from(relay.0)])
    }

    /// Queues a stopped connection for being resumed, once little enough of it is in flight.
    fn resume_in_turn(&mut self, id: ConnectionId) {
        let low = self.config.connection_in_flight_bytes / 2;
        let peer = self.peer(id);
        if peer.stopped == Stopped::No || peer.resumable || self.counted_in_flight(id) > low {
            return;
        }
        let peer = self.peer_mut(id);
        if peer.relay.is_none() {
            peer.resumable = true;
            self.origin.resumable.push_back(id);
        } else if self.deposits_stopped.is_none() {
            self.resume_sender(id);
        }
    }

    fn resume_links_of(&mut self, relay: RemoteRelay) {
        let mut next = 0;
        while let Some(id) = self.gateway.link(relay, next) {
            next += 1;
            if self.live_peer(id).is_some() {
                self.resume_in_turn(id);
            }
        }
    }

    /// Deposits are taken again: links that were stopped for that go on.
    pub(super) fn resume_links(&mut self) {
        let links = self.peers.iter().filter(|(_, peer)| peer.relay.is_some());
        let ids: Vec<_> = links.map(|(_, peer)| peer.id).collect();
        for id in ids {
            self.resume_in_turn(id);
        }
    }

    pub(super) fn completed(&mut self, id: DepositId, bytes: u64) {
        self.released(id, bytes);
        let deposit = &mut self.origin.deposits[id.0 as usize];
        deposit.outstanding -= 1;
        if deposit.outstanding > 0 {
            return;
        }
        let deposit = self.origin.deposits.remove(id.0 as usize);
        self.origin.ended -= usize::from(deposit.end.is_some());
        let Some((end, since)) = deposit.end else { return };
        self.stats.completion.record(self.now.since(since));
        if let Some(peer) = self.live_peer(deposit.connection) {
            peer.connection.complete(end);
            self.touch(deposit.connection);
        }
    }

    /// Recipients of a route get nothing more (7.2).
    pub(super) fn fault(&mut self, route: RouteId, recipients: &[u16], status: StatusId) {
        let Some(source) = self.origin.route_mut(route) else { return };
        let (id, session) = (source.connection, source.session);
        if source.state == RouteState::Ending(EndedBy::Sender) {
            return self.fault_after_close(id);
        }
        let Some(peer) = self.live_peer(id) else { return };
        let Some(sender) = peer.senders.get_mut(&session) else { return };
        sender.live -= recipients.len();
        if sender.entries.is_some() || status == StatusId::LockedOut {
            let indexes = routes::all_indexes(recipients, &sender.again);
            self.report_faults(id, session, &indexes, status);
        } else {
            self.connection(id).close_session(session, CloseReason::QuotaWouldBeExceeded);
            self.end_sender(id, session, EndedBy::Relay);
        }
        self.touch(id);
    }

    /// SessionStatus for each affected recipient, in one command where the version can or where it is their relay that is affected;
    /// Close if none is left.
    fn report_faults(&mut self, id: ConnectionId, session: SessionId, indexes: &[u16], status: StatusId) {
        if indexes.is_empty() {
            return;
        }
        let peer = self.peer_mut(id);
        let entries = peer.senders.get(&session).and_then(|sender| sender.entries.as_deref());
        let about_relay = gateway::is_about_relay(status);
        let status_of = |index: u16, indexes: Vec<u16>| {
            let entry = entries.map(|entries| &entries[usize::from(index)]);
            let (device_url, identity_url) = match entry {
                None => (Text::EMPTY, Text::EMPTY),
                Some(entry) if about_relay => (entry.relay_url.clone(), Text::EMPTY),
                Some(entry) => (entry.device_url.clone(), entry.identity_url.clone()),
            };
            SessionStatus { session, status, device_url, identity_url, indexes }
        };
        let several = indexes.len() > 1 && peer.connection.version() == Version::V1_6;
        let commands: Vec<SessionStatus> = if several {
            vec![status_of(indexes[0], indexes.to_vec())]
        } else if about_relay {
            vec![status_of(indexes[0], Vec::new())]
        } else {
            indexes.iter().map(|&index| status_of(index, Vec::new())).collect()
        };
        let nobody_left = peer.senders.get(&session).is_none_or(|sender| sender.live == 0);
        for command in commands {
            peer.connection.session_status(command);
        }
        if nobody_left {
            peer.connection.close_session(session, CloseReason::EmptySession);
            self.end_sender(id, session, EndedBy::Relay);
        }
    }

    /// Whether this connection is to be slowed down for what all have in flight. Never one to another relay: what waits for that
    /// relay's acknowledgements would keep us from reading them, or from letting it send while it does the same to us. Its own
    /// bytes in flight wait for our disk alone.
    fn congested_for(&self, id: ConnectionId, factor: u64) -> bool {
        self.peer(id).relay.is_none() && self.congested(factor)
    }

    fn congested(&self, factor: u64) -> bool {
        let (_, in_flight) = self.origin.in_flight();
        in_flight > factor * self.config.shard_in_flight_bytes
            || self.mesh.longest() as u64 > factor * self.config.mesh_queue_items as u64
    }

    /// Stops a connection's sessions if too much is in flight. What one connection has too much of comes from those of its
    /// sessions that are in the middle of a long message, `long` among them; the others go on beside them until half as much
    /// again is in flight.
    pub(super) fn stop_if_congested(&mut self, id: ConnectionId, long: Option<SessionId>) {
        let limit = self.config.connection_in_flight_bytes;
        let congested = self.congested_for(id, 1) || self.deposits_stopped.is_some();
        let in_flight = self.counted_in_flight(id);
        let peer = self.peer(id);
        if peer.stopped == Stopped::All || (in_flight <= limit && !congested) {
            return;
        }
        let is_long =
            |session: SessionId, sender: &Sender| sender.incoming.is_some() || long == Some(session);
        let is_short = || !peer.senders.iter().any(|(&session, sender)| is_long(session, sender));
        let all = congested || in_flight > limit + limit / 2 || peer.stopped == Stopped::No && is_short();
        match peer.stopped {
            Stopped::No => self.stats.stops += 1,
            // The long ones are stopped already.
            _ if !all && long.is_none() => return,
            _ => {}
        }
        let peer = self.peer_mut(id);
        peer.stopped = if all { Stopped::All } else { Stopped::Long };
        for (&session, sender) in &mut peer.senders {
            if !sender.stopped && (all || is_long(session, sender)) {
                sender.stopped = true;
                peer.connection.respond(session, OpenResponseId::OkStopSending);
            }
        }
        // Stopped by the congestion of others, it may have nothing in flight whose release would resume it.
        self.resume_in_turn(id);
    }

    /// Whether the driver may read from a connection: not while twice the bytes that stopped it are in flight, and not
    /// while the relay shuts down, but for the Connect of a newcomer, which is told to come again.
    pub(super) fn may_read(&mut self, id: ConnectionId) -> bool {
        let limit = 2 * self.config.connection_in_flight_bytes;
        if self.live_peer(id).is_none() {
            return true;
        }
        let congested = self.congested_for(id, 2);
        let in_flight = self.counted_in_flight(id);
        let draining = self.draining;
        let peer = self.peer_mut(id);
        let draining = draining && peer.connection.is_established();
        peer.paused = draining || peer.stopped != Stopped::No && (in_flight > limit || congested);
        !peer.paused
    }

    /// Resumes stopped connections for which there is room again, the longest waiting first.
    pub(super) fn resume_stopped(&mut self) {
        let low = self.config.connection_in_flight_bytes / 2;
        let stopped = self.deposits_stopped.is_some();
        while !stopped && !self.origin.resumable.is_empty() && !self.congested(1) {
            let Some(id) = self.origin.resumable.pop_front() else { break };
            let Some(peer) = self.live_peer(id) else { continue };
            peer.resumable = false;
            if peer.in_flight <= low {
                self.resume_sender(id);
            }
        }
    }

    fn resume_sender(&mut self, id: ConnectionId) {
        let peer = self.peer_mut(id);
        peer.stopped = Stopped::No;
        for (&session, sender) in &mut peer.senders {
            if std::mem::take(&mut sender.stopped) && sender.held == 0 {
                peer.connection.respond(session, OpenResponseId::Ok);
            }
        }
        if std::mem::take(&mut peer.paused) {
            self.actions.push_back(Action::Resume { connection: id });
        }
        self.touch(id);
    }
}
