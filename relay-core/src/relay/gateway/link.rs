//! Links: the connections to one remote relay, whichever side called.
//!
//! A link is called when a leg needs it, one attempt at a time, with a growing pause after a failure. When both relays call at
//! the same time, the call of the one whose URL sorts first stands, and the other is told CrossedConnections. A connection
//! counts once both sides have proven themselves; of several the newest gets the new sessions.

use super::leg::{LegId, Stage};
use super::peers::{PeerRelay, RemoteRelay};
use crate::address::DeviceUrl;
use crate::client::Backoff;
use crate::directory::{DeviceRecord, Unreadable};
use crate::relay::mesh::ConnectionId;
use crate::relay::peer::Peer;
use crate::relay::{Action, Relay};
use crate::security::{self, Hello, HelloAnswer, MessageId, SecurityError};
use crate::sstp::connection::Ended;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, ConnectResponseId, Connection, Event, StatusId};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// A leg waits for the next call if that is so near; else its recipients are in fault at once.
const WAITS_FOR_CALL: Duration = Duration::from_secs(5);

/// Why the driver could not reach a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// No address of it could be found.
    NameNotFound,
    /// None of its addresses answered.
    Unreachable,
}

impl DialFailure {
    fn status(self) -> StatusId {
        match self {
            DialFailure::NameNotFound => StatusId::DnsLookupFailed,
            DialFailure::Unreachable => StatusId::HostNotReachable,
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Link {
    /// Connections on which both sides have proven themselves, the newest last.
    connections: Vec<ConnectionId>,
    call: Call,
    backoff: Backoff,
    /// RetryTime of the refusal that ends the present call.
    retry_time: Duration,
    /// The last call met one of the other side, and no link has come of either yet.
    crossed: bool,
    last_failure: StatusId,
    /// Legs without a session: no link is up, or no session is free on it.
    waiting: VecDeque<LegId>,
}

/// Our own call.
#[derive(Debug, Default)]
enum Call {
    #[default]
    None,
    /// The next one may begin then.
    Paused(Timestamp),
    /// The driver makes a transport.
    Dialing,
    /// Connect was sent; both must have proven themselves by `due`.
    Connecting { connection: ConnectionId, hello: Box<Hello>, due: Timestamp },
}

impl Default for Link {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            call: Call::None,
            backoff: Backoff::default(),
            retry_time: Duration::ZERO,
            crossed: false,
            last_failure: StatusId::HostNotReachable,
            waiting: VecDeque::new(),
        }
    }
}

impl Link {
    /// Those on which both sides have proven themselves.
    pub(super) fn connections(&self) -> &[ConnectionId] {
        &self.connections
    }

    /// When [`Relay::call_links`] has something to do.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self.call {
            Call::Paused(until) if !self.waiting.is_empty() => Some(until),
            Call::Connecting { due, .. } => Some(due),
            _ => None,
        }
    }

    fn is_calling_on(&self, id: ConnectionId) -> bool {
        matches!(self.call, Call::Connecting { connection, .. } if connection == id)
    }
}

/// What the driver says.
impl Relay {
    /// A transport that [`Action::Dial`] asked for is there; `address` is the other relay's. `None` if it is wanted no more, since
    /// the other relay has called meanwhile: it is to be closed.
    pub fn dialed(
        &mut self,
        now: Timestamp,
        relay: RemoteRelay,
        address: Option<IpAddr>,
    ) -> Option<ConnectionId> {
        self.now = now;
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if !matches!(link.call, Call::Dialing) {
            return None;
        }
        link.call = Call::None;
        if !link.connections.is_empty() || self.draining {
            return None;
        }
        let config = self.config.connection.clone();
        let due = now + config.connect_deadline + config.authenticate_deadline;
        let peer = &self.config.peers[usize::from(relay.0)];
        let own_url = config.local_device_urls[0].clone();
        let hello = security::peer_hello(own_url.as_str(), &peer.secrets.calling, &mut *self.entropy);
        let target = Text::from(&peer.url);
        let url = peer.url.clone();
        let connection = Connection::initiator(config, now, target, hello.token.clone());
        let id = self.insert_peer(|id| Peer {
            device: Some(url),
            relay: Some(relay),
            address,
            ..Peer::new(id, connection)
        });
        self.gateway.links[usize::from(relay.0)].call =
            Call::Connecting { connection: id, hello: Box::new(hello), due };
        self.arm(id);
        Some(id)
    }

    /// A transport that [`Action::Dial`] asked for could not be made.
    pub fn dial_failed(&mut self, now: Timestamp, relay: RemoteRelay, failure: DialFailure) {
        self.now = now;
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if matches!(link.call, Call::Dialing) {
            self.call_failed(relay, failure.status(), Duration::ZERO);
            self.settle();
        }
    }
}

/// Calling.
impl Relay {
    /// A new leg: onto the link, or into its queue.
    pub(super) fn open_or_wait(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let relay = leg.relay;
        let now = self.now;
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if let Some(&connection) = link.connections.last() {
            return self.open_leg_session(id, connection);
        }
        let hopeless = matches!(link.call, Call::Paused(until) if until.since(now) > WAITS_FOR_CALL);
        if hopeless || self.draining {
            let status = link.last_failure;
            return self.fault_whole_leg(id, status);
        }
        link.waiting.push_back(id);
        self.call_if_due(relay);
    }

    /// A leg found no free session on the link: it has its turn when one ends.
    pub(super) fn await_session(&mut self, id: LegId) {
        let Some(leg) = self.gateway.leg(id) else { return };
        let relay = usize::from(leg.relay.0);
        self.gateway.links[relay].waiting.push_back(id);
    }

    fn call_if_due(&mut self, relay: RemoteRelay) {
        let link = &mut self.gateway.links[usize::from(relay.0)];
        let due = match link.call {
            Call::None => true,
            Call::Paused(until) => until <= self.now,
            Call::Dialing | Call::Connecting { .. } => false,
        };
        if due && link.connections.is_empty() && !link.waiting.is_empty() && !self.draining {
            link.call = Call::Dialing;
            let addresses = self.config.peers[usize::from(relay.0)].addresses.clone();
            self.actions.push_back(Action::Dial { relay, addresses });
        }
    }

    /// When [`Relay::call_links`] is next due.
    pub(in crate::relay) fn links_due(&self) -> Option<Timestamp> {
        self.gateway.links.iter().filter_map(Link::due).min()
    }

    /// Calls that are due begin; those that take too long end.
    pub(in crate::relay) fn call_links(&mut self) {
        for relay in (0..self.gateway.links.len()).map(|index| RemoteRelay(index as u16)) {
            match self.gateway.links[usize::from(relay.0)].call {
                Call::Connecting { connection, due, .. } if due <= self.now => {
                    self.end_call(connection, CloseReason::DeviceAuthenticationFailed);
                }
                _ => self.call_if_due(relay),
            }
        }
    }

    fn end_call(&mut self, id: ConnectionId, reason: CloseReason) {
        self.connection(id).close(reason, 0);
        self.poll_connection(id);
    }

    /// A call came to nothing: the next one waits, and those who waited for this one learn why.
    fn call_failed(&mut self, relay: RemoteRelay, status: StatusId, imposed: Duration) {
        self.pause_calls(relay, imposed);
        let link = &mut self.gateway.links[usize::from(relay.0)];
        (link.last_failure, link.crossed) = (status, false);
        if !link.connections.is_empty() {
            return;
        }
        for id in std::mem::take(&mut link.waiting) {
            if self.gateway.leg(id).is_some_and(|leg| leg.stage == Stage::Waiting) {
                self.fault_whole_leg(id, status);
            }
        }
    }

    /// Begins the pause before the next call.
    fn pause_calls(&mut self, relay: RemoteRelay, imposed: Duration) {
        let link = &mut self.gateway.links[usize::from(relay.0)];
        link.call = Call::Paused(self.now + link.backoff.next(imposed, &mut *self.entropy));
    }

    /// What happens on a connection to another relay; gives back what is not the gateway's.
    pub(in crate::relay) fn link_event(
        &mut self,
        id: ConnectionId,
        relay: RemoteRelay,
        event: Event,
    ) -> Option<Event> {
        let leg = |relay: &Self, session| relay.gateway.by_session.get(&(id, session)).copied();
        match event {
            Event::ConnectResponse { response, retry_time, token } => {
                self.link_answered(id, relay, response, retry_time, &token);
            }
            Event::SessionReady(session) => {
                if let Some(leg) = leg(self, session) {
                    self.gateway.links[usize::from(relay.0)].backoff.reset();
                    self.flush_leg(leg);
                    self.hold_leg(leg, false);
                }
            }
            Event::SessionStopped(session) => {
                if let Some(leg) = leg(self, session) {
                    self.hold_leg(leg, true);
                }
            }
            Event::SessionRefused { session, .. } => {
                if let Some(leg) = leg(self, session) {
                    self.leg_session_gone(leg);
                }
            }
            Event::SessionStatus(status) => {
                if let Some(leg) = leg(self, status.session) {
                    self.leg_status(leg, &status);
                }
            }
            Event::SessionClosed { session, reason } => match leg(self, session) {
                Some(leg) => self.leg_session_gone(leg),
                None => return Some(Event::SessionClosed { session, reason }),
            },
            Event::Acknowledged { tag, count, .. } => self.leg_acknowledged(tag, count),
            other => return Some(other),
        }
        None
    }

    /// The other relay has answered our Connect.
    fn link_answered(
        &mut self,
        id: ConnectionId,
        relay: RemoteRelay,
        response: ConnectResponseId,
        retry_time: u32,
        token: &[u8],
    ) {
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if response != ConnectResponseId::Ok {
            // Ended::Refused follows.
            let imposes = response == ConnectResponseId::TryLater;
            link.retry_time = Duration::from_secs(if imposes { retry_time.into() } else { 0 });
            return;
        }
        let Call::Connecting { connection, hello, .. } = &link.call else { return };
        // Without a token comes a ConnectClose, if the calls have crossed; `due` is for those who send none.
        if *connection != id || token.is_empty() {
            return;
        }
        match hello.answer(token) {
            Ok(HelloAnswer::Proof { token }) => {
                self.connection(id).connect_authenticate(token);
                self.gateway.links[usize::from(relay.0)].call = Call::None;
                let device = self.config.peers[usize::from(relay.0)].url.clone();
                *self.devices.entry(device).or_insert(0) += 1;
                self.link_proven(id, relay);
            }
            Ok(HelloAnswer::RegistrationNeeded | HelloAnswer::Failed) => {
                self.report(id, MessageId::SecConnectResponse, None, SecurityError::NotAPeer);
                self.end_call(id, CloseReason::DeviceAuthenticationFailed);
            }
            Err(reason) => {
                self.report(id, MessageId::SecConnectResponse, None, reason);
                self.end_call(id, CloseReason::DeviceAuthenticationFailed);
            }
        }
    }
}

/// Being called, and what both ways have in common.
impl Relay {
    /// The relay of this URL, if it is known.
    pub(in crate::relay) fn remote_relay(&self, url: &[u8]) -> Option<RemoteRelay> {
        let place = self.config.peers.iter().position(|peer| peer.url.as_bytes() == url)?;
        Some(RemoteRelay(place as u16))
    }

    /// The record by which a device's Connect is judged. That of another relay comes from the configuration alone.
    pub(in crate::relay) fn device_record(
        &self,
        device: &DeviceUrl,
    ) -> Result<Option<DeviceRecord>, Unreadable> {
        match self.remote_relay(device.as_bytes()) {
            Some(relay) => Ok(Some(PeerRelay::record(&self.config.peers[usize::from(relay.0)]))),
            None => self.directory.device(device),
        }
    }

    /// Whether a Connect of this device meets a call of ours that stands.
    pub(in crate::relay) fn crosses_our_call(&self, device: &DeviceUrl) -> bool {
        let Some(relay) = self.remote_relay(device.as_bytes()) else { return false };
        let calling = matches!(self.gateway.links[usize::from(relay.0)].call, Call::Connecting { .. });
        calling && self.config.connection.local_device_urls[0].as_bytes() < device.as_bytes()
    }

    /// Both sides of a connection have proven themselves: it is a link.
    pub(in crate::relay) fn link_proven(&mut self, id: ConnectionId, relay: RemoteRelay) {
        let peer = self.peer_mut(id);
        (peer.relay, peer.authenticated) = (Some(relay), true);
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if matches!(link.call, Call::Paused(_)) {
            link.call = Call::None;
        }
        link.connections.push(id);
        link.crossed = false;
        let waiting = std::mem::take(&mut link.waiting);
        self.stats.links += 1;
        for leg in waiting {
            self.open_leg_session(leg, id);
        }
    }

    /// A session on a link has ended: one of the legs that wait for one has its turn.
    pub(super) fn feed_link(&mut self, connection: ConnectionId) {
        let Some(relay) = self.peer(connection).relay else { return };
        while let Some(id) = self.gateway.links[usize::from(relay.0)].waiting.pop_front() {
            if self.gateway.leg(id).is_some_and(|leg| leg.stage == Stage::Waiting) {
                return self.open_leg_session(id, connection);
            }
        }
    }

    /// A connection to another relay, or one that was to become it, has ended.
    pub(in crate::relay) fn link_lost(&mut self, id: ConnectionId, relay: RemoteRelay, how: Ended) {
        self.gateway.turns.remove(&id);
        let link = &mut self.gateway.links[usize::from(relay.0)];
        let was_up = link.connections.contains(&id);
        link.connections.retain(|&connection| connection != id);
        let calling = link.is_calling_on(id);
        let imposed = match how {
            Ended::ByPeer { reason: CloseReason::Resting, return_time } => {
                Duration::from_secs(return_time.into())
            }
            Ended::Refused(_) => std::mem::take(&mut link.retry_time),
            _ => Duration::ZERO,
        };
        let met = matches!(how, Ended::ByPeer { reason: CloseReason::CrossedConnections, .. });
        if calling && met && !link.crossed {
            // The other side's call stands: it is awaited for a pause.
            self.pause_calls(relay, imposed);
            self.gateway.links[usize::from(relay.0)].crossed = true;
        } else if calling {
            self.call_failed(relay, StatusId::HostNotReachable, imposed);
        } else if was_up && link.connections.is_empty() && matches!(link.call, Call::None) {
            self.pause_calls(relay, imposed);
        }
        if was_up {
            self.lose_legs(id);
        }
        let link = &mut self.gateway.links[usize::from(relay.0)];
        if let Some(&other) = link.connections.last() {
            for leg in std::mem::take(&mut link.waiting) {
                self.open_leg_session(leg, other);
            }
        }
    }

    fn lose_legs(&mut self, connection: ConnectionId) {
        let carried = self.gateway.legs.iter().filter(|(_, leg)| leg.carrier == Some(connection));
        let carried: Vec<LegId> =
            carried.map(|(index, leg)| LegId { index: index as u32, generation: leg.generation }).collect();
        for id in carried {
            self.leg_link_lost(id);
        }
    }
}
