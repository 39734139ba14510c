//! The shard's connections: what each has to say goes to the room that it concerns, and what an ended one leaves is cleaned up.

use super::gateway::EndedBy;
use super::mesh::{ConnectionId, MeshItem};
use super::peer::Peer;
use super::presence::NOTIFY_TAG;
use super::{Action, Relay};
use crate::sstp::connection::Ended;
use crate::sstp::{Connection, Event};

impl Relay {
    pub(super) fn peer(&self, id: ConnectionId) -> &Peer {
        &self.peers[id.index()]
    }

    pub(super) fn peer_mut(&mut self, id: ConnectionId) -> &mut Peer {
        &mut self.peers[id.index()]
    }

    pub(super) fn connection(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.peer_mut(id).connection
    }

    /// The connection, if it is still the one that the id was made for.
    pub(super) fn live_peer(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index()).filter(|peer| peer.id == id)
    }

    pub(super) fn touch(&mut self, id: ConnectionId) {
        let peer = self.peer_mut(id);
        if !peer.touched {
            peer.touched = true;
            self.touched.push(id);
        }
    }

    /// Sees to it that the wheel looks at the connection when it is next due.
    pub(super) fn arm(&mut self, id: ConnectionId) {
        let Some(peer) = self.live_peer(id) else { return };
        if let Some(due) = peer.connection.poll_timeout()
            && due < peer.armed_at
        {
            peer.armed_at = due;
            self.wheel.insert(id, due);
        }
    }

    /// Handles what a connection has to say.
    pub(super) fn poll_connection(&mut self, id: ConnectionId) {
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

    pub(super) fn insert_peer(&mut self, make: impl FnOnce(ConnectionId) -> Peer) -> ConnectionId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let name = |index: usize| ConnectionId { index: index as u32, generation };
        let id = name(self.peers.insert_with(|index| make(name(index))));
        self.stats.connections += 1;
        self.touch(id);
        id
    }

    pub(super) fn connection_event(&mut self, id: ConnectionId, event: Event) {
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
    pub(super) fn clean_up(&mut self, id: ConnectionId, how: Ended) {
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
}
