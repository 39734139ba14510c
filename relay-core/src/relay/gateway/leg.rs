//! Legs: one outbound fanout session for each pair of a sender's session and a remote relay.
//!
//! A leg re-encodes the recipients for the link's version, translates positions between the sender's FanoutOpen and its own, passes
//! messages on as the link's output has room, and matches the remote relay's acknowledgements to deposits.

use super::RemoteRelay;
use crate::relay::Relay;
use crate::relay::home::ShardId;
use crate::relay::mesh::{ConnectionId, DepositId, DepositPart, Mesh, MeshItem, RemoteRecipient, RouteId};
use crate::relay::outlet::{output_room, part_room};
use crate::sstp::command::{FanoutEntry, FanoutOpen, SessionStatus};
use crate::sstp::profile::flags;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, SessionId, StatusId, Version};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a leg on its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::relay) struct LegId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl LegId {
    /// What the remote relay's acknowledgement will bring back.
    fn tag(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_tag(tag: u64) -> Self {
        Self { index: tag as u32, generation: (tag >> 32) as u32 }
    }
}

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For a link, or for room on it.
    Waiting,
    /// FanoutOpen was sent on this session.
    Open(ConnectionId, SessionId),
    /// Nothing more is sent: every recipient is in fault, or the sender's session is closed and all is sent.
    Over,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) generation: u32,
    pub(super) origin: ShardId,
    pub(super) route: RouteId,
    pub(super) relay: RemoteRelay,
    resource: Text,
    /// In the order of the outbound FanoutOpen.
    recipients: Arc<[RemoteRecipient]>,
    /// Which of them are not in fault, by the same positions.
    live: Vec<bool>,
    pub(super) stage: Stage,
    /// The link that carried it, once there was one; its acknowledgements are awaited there even when the session is over.
    pub(super) carrier: Option<ConnectionId>,
    /// The origin was told to hold the sender's session.
    held: bool,
    pub(super) backlog: VecDeque<DepositPart>,
    /// The message of which a part came from the origin, and the last one did not.
    pub(super) incoming: Option<DepositId>,
    /// The message of which a part was sent, and the last one was not.
    pub(super) begun: Option<DepositId>,
    /// Messages sent and not acknowledged, with the bytes that are released when they are.
    pub(super) sent: VecDeque<(DepositId, u64)>,
    /// The origin has closed the route.
    pub(super) closed: bool,
    /// In the queue of legs that wait for room in the output.
    queued: bool,
}

impl Leg {
    pub(super) fn new(
        generation: u32,
        origin: ShardId,
        route: RouteId,
        relay: RemoteRelay,
        resource: Text,
        recipients: Arc<[RemoteRecipient]>,
    ) -> Self {
        Self {
            generation,
            origin,
            route,
            relay,
            resource,
            live: vec![true; recipients.len()],
            recipients,
            stage: Stage::Waiting,
            carrier: None,
            held: true,
            backlog: VecDeque::new(),
            incoming: None,
            begun: None,
            sent: VecDeque::new(),
            closed: false,
            queued: false,
        }
    }

    /// FanoutOpen with exactly the entries of this relay. They repeat its URL, as "those entries" of 3.3.5.6.1 says; if the
    /// command would be too long so, the URL is left out, which means the same.
    fn fanout_open(&self, session: SessionId, relay: &Text, version: Version) -> Option<FanoutOpen> {
        let entries = |relay_url: &Text| -> Vec<FanoutEntry> {
            let entry = |recipient: &RemoteRecipient| FanoutEntry {
                identity_url: recipient.identity.clone(),
                device_url: recipient.device.clone(),
                relay_url: relay_url.clone(),
            };
            self.recipients.iter().map(entry).collect()
        };
        let open =
            |entries: Vec<FanoutEntry>| FanoutOpen::new(session, self.resource.clone(), &entries, version);
        open(entries(relay)).or_else(|| open(entries(&Text::EMPTY)))
    }

    /// Takes recipients out for good; gives their positions in the sender's FanoutOpen.
    fn fall(&mut self, places: impl Iterator<Item = usize>) -> SmallVec<[u16; 2]> {
        let mut fallen = SmallVec::new();
        for place in places {
            if self.live.get_mut(place).is_some_and(std::mem::take) {
                fallen.push(self.recipients[place].index);
            }
        }
        fallen
    }

    /// The places that a SessionStatus of the remote relay is about (3.3.5.8, row 2): its indexes count in our FanoutOpen. It
    /// speaks of itself only when it names itself, and then of all.
    fn places(&self, status: &SessionStatus) -> Vec<usize> {
        if !status.indexes.is_empty() {
            return status.indexes.iter().map(|&index| usize::from(index)).collect();
        }
        let is_named = |recipient: &RemoteRecipient| {
            recipient.identity == status.identity_url && recipient.device == status.device_url
        };
        let all = is_about_relay(status.status);
        let named = |&place: &usize| self.live[place] && (all || is_named(&self.recipients[place]));
        let most = if all { usize::MAX } else { 1 };
        (0..self.recipients.len()).filter(named).take(most).collect()
    }

    fn has_nobody(&self) -> bool {
        !self.live.contains(&true)
    }
}

/// Whether a status is about a relay as a whole (sstp-messages 5.4).
pub(in crate::relay) fn is_about_relay(status: StatusId) -> bool {
    matches!(status, StatusId::DnsLookupFailed | StatusId::HostNotReachable | StatusId::ConnectionClosed)
}

/// Tells the origin of a part that nobody gets.
pub(super) fn absorb(mesh: &mut Mesh, origin: ShardId, part: &DepositPart) {
    let (deposit, bytes) = (part.deposit, u64::from(part.payload_bytes));
    if part.last {
        mesh.complete(origin, deposit, bytes)
    } else {
        mesh.send(origin, MeshItem::Released { deposit, bytes })
    }
}

/// The way of a leg through its life.
impl Relay {
    /// Opens the leg's session on an established link.
    pub(super) fn open_leg_session(&mut self, id: LegId, connection: ConnectionId) {
        let Some(leg) = self.gateway.leg(id).filter(|leg| leg.stage == Stage::Waiting) else { return };
        let relay = Text::from(&self.config.peers[usize::from(leg.relay.0)].url);
        let leg = &self.gateway.legs[id.index as usize];
        let peer = self.peers.get_mut(connection.index()).expect("a link is a live connection");
        let opened =
            peer.connection.open_fanout(|session, version| leg.fanout_open(session, &relay, version));
        let Some(session) = opened else { return self.await_session(id) };
        let leg = &mut self.gateway.legs[id.index as usize];
        (leg.stage, leg.carrier) = (Stage::Open(connection, session), Some(connection));
        self.gateway.by_session.insert((connection, session), id);
        self.touch(connection);
    }

    /// Tells the origin whether the sender's session has to hold because of this leg (7.2).
    pub(super) fn hold_leg(&mut self, id: LegId, held: bool) {
        let Some(leg) = self.gateway.leg(id) else { return };
        if std::mem::replace(&mut leg.held, held) != held {
            let (origin, route) = (leg.origin, leg.route);
            self.mesh.send(origin, MeshItem::Hold { route, held });
        }
    }

    /// Moves parts into the link's output while there is room and leave.
    pub(super) fn flush_leg(&mut self, id: LegId) {
        while self.send_leg_part(id) {}
        self.finish_leg(id);
    }

    /// Moves one part; `false` if there is none, no room or no leave to send.
    fn send_leg_part(&mut self, id: LegId) -> bool {
        let Some(leg) = self.gateway.leg(id).filter(|leg| !leg.backlog.is_empty()) else { return false };
        let Stage::Open(connection, session) = leg.stage else { return false };
        let peer = self.peers.get_mut(connection.index()).expect("a session ends with its connection");
        if !peer.connection.may_send(session) {
            return false;
        }
        let leg = &mut self.gateway.legs[id.index as usize];
        let is_whole = leg.backlog.front().is_none_or(|part| part.last && part.index == 0);
        if peer.connection.output_bytes() >= part_room(&self.config, self.output_bytes, is_whole) {
            if !std::mem::replace(&mut leg.queued, true) {
                self.gateway.turns.entry(connection).or_default().push_back(id);
            }
            return false;
        }
        let part = leg.backlog.pop_front().expect("looked at above");
        if leg.begun.is_none() {
            peer.connection.begin_message(session, part.flags | flags::A, &part.tail);
        }
        for piece in part.payload.iter() {
            peer.connection.message_data(session, piece.clone());
        }
        let bytes = u64::from(part.payload_bytes);
        leg.begun = (!part.last).then_some(part.deposit);
        if part.last {
            peer.connection.end_message(session, id.tag());
            leg.sent.push_back((part.deposit, bytes));
        } else {
            let origin = leg.origin;
            self.mesh.send(origin, MeshItem::Released { deposit: part.deposit, bytes });
        }
        self.count_output(connection);
        self.touch(connection);
        true
    }

    /// The output of a link has drained: legs that waited send one part each, in turn.
    pub(in crate::relay) fn flush_waiting_legs(&mut self, connection: ConnectionId) {
        let mut in_vain = 0;
        loop {
            let most = output_room(&self.config, self.output_bytes);
            let Some(peer) = self.live_peer(connection) else { return };
            let output = peer.connection.output_bytes();
            let turns = self.gateway.turns.get_mut(&connection);
            if output >= most || turns.as_ref().is_some_and(|turns| in_vain > turns.len()) {
                return;
            }
            let next = turns.and_then(VecDeque::pop_front);
            let Some(id) = next else {
                self.gateway.turns.remove(&connection);
                return;
            };
            let Some(leg) = self.gateway.leg(id) else { continue };
            leg.queued = false;
            let sent = self.send_leg_part(id);
            in_vain = if sent { 0 } else { in_vain + 1 };
            if let Some(leg) =
                self.gateway.leg(id).filter(|leg| sent && !leg.backlog.is_empty() && !leg.queued)
            {
                leg.queued = true;
                self.gateway.turns.entry(connection).or_default().push_back(id);
            }
            self.finish_leg(id);
        }
    }

    /// Whether legs wait for the output of this link to drain.
    pub(in crate::relay) fn has_waiting_legs(&self, connection: ConnectionId) -> bool {
        self.gateway.turns.contains_key(&connection)
    }

    /// The remote relay has acknowledged the oldest messages of a leg (3.3.5.19).
    pub(super) fn leg_acknowledged(&mut self, tag: u64, count: u32) {
        let id = LegId::from_tag(tag);
        let Some(leg) = self.gateway.legs.get_mut(id.index as usize) else { return };
        debug_assert_eq!(leg.generation, id.generation, "a leg lives until all that it sent is settled");
        self.stats.relayed += u64::from(count);
        for (deposit, bytes) in leg.sent.drain(..count as usize) {
            self.mesh.complete(leg.origin, deposit, bytes);
        }
        self.finish_leg(id);
    }

    /// SessionStatus of the remote relay: passed on with the sender's own positions.
    pub(super) fn leg_status(&mut self, id: LegId, status: &SessionStatus) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let places = leg.places(status);
        self.fault_leg(id, status.status, places.into_iter());
    }

    /// The remote relay has refused or closed the session (3.3.5.7 row 5, 3.3.5.9 row 2).
    pub(super) fn leg_session_gone(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let Stage::Open(connection, session) = std::mem::replace(&mut leg.stage, Stage::Over) else { return };
        self.gateway.by_session.remove(&(connection, session));
        self.fault_whole_leg(id, StatusId::ConnectionClosed);
        self.feed_link(connection);
    }

    /// The link that carried the leg is lost: what was sent and not acknowledged is, for all that is known, lost too. The sender
    /// learns that before the messages are completed.
    pub(super) fn leg_link_lost(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let (origin, stage) = (leg.origin, std::mem::replace(&mut leg.stage, Stage::Over));
        let lost = std::mem::take(&mut leg.sent);
        if let Stage::Open(connection, session) = stage {
            self.gateway.by_session.remove(&(connection, session));
        }
        self.fault_whole_leg(id, StatusId::ConnectionClosed);
        for (deposit, bytes) in lost {
            self.mesh.complete(origin, deposit, bytes);
        }
    }

    /// Every recipient is in fault; nothing more is sent.
    pub(super) fn fault_whole_leg(&mut self, id: LegId, status: StatusId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let all = 0..leg.live.len();
        self.fault_leg(id, status, all);
        self.leg_over(id);
    }

    fn fault_leg(&mut self, id: LegId, status: StatusId, places: impl Iterator<Item = usize>) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let recipients = leg.fall(places);
        if recipients.is_empty() {
            return;
        }
        let (origin, route, nobody_left) = (leg.origin, leg.route, leg.has_nobody());
        self.stats.faults += recipients.len() as u64;
        self.mesh.send(origin, MeshItem::Fault { route, recipients, status });
        if nobody_left {
            self.end_leg_session(id);
        }
    }

    /// Nothing more is sent on the leg: what waits is absorbed, and holds nobody back.
    fn leg_over(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        (leg.stage, leg.begun) = (Stage::Over, None);
        let (origin, backlog) = (leg.origin, std::mem::take(&mut leg.backlog));
        for part in &backlog {
            absorb(&mut self.mesh, origin, part);
        }
        self.hold_leg(id, false);
        self.finish_leg(id);
    }

    /// Ends the leg's session, if it has one: EmptySession, as 3.3.5.9 row 3 wants it.
    pub(super) fn end_leg_session(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        if let Stage::Open(connection, session) = leg.stage {
            self.gateway.by_session.remove(&(connection, session));
            self.connection(connection).close_session(session, CloseReason::EmptySession);
            self.touch(connection);
            self.feed_link(connection);
        }
        self.leg_over(id);
    }

    /// Sees to the end of a leg whose route is closed: its session ends when all is sent, and the leg itself when all is
    /// acknowledged.
    pub(super) fn finish_leg(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id).filter(|leg| leg.closed) else { return };
        if leg.stage != Stage::Over && leg.backlog.is_empty() {
            return self.end_leg_session(id);
        }
        if leg.stage == Stage::Over && leg.sent.is_empty() {
            let leg = self.gateway.legs.remove(id.index as usize);
            self.mesh.send(leg.origin, MeshItem::RouteEnded { route: leg.route });
        }
    }
}
