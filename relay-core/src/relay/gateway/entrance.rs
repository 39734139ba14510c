//! The origin's side of single-hop fanout: which entries of a FanoutOpen are at other relays, the routes to them, and the end of those
//! routes.

use super::peers::RemoteRelay;
use crate::address::{DeviceUrl, IdentityUrl};
use crate::relay::Relay;
use crate::relay::home::ShardId;
use crate::relay::mesh::{ConnectionId, MeshItem, RemoteRecipient, RouteId};
use crate::sstp::command::FanoutEntry;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, OpenResponseId, SessionId};

/// Recipients at other relays, by relay, in the order of their entries.
pub(in crate::relay) type RemoteGroups = Vec<(RemoteRelay, Vec<RemoteRecipient>)>;

/// Who has ended a session on which a peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum EndedBy {
    /// The sender, who still counts on what is on its way.
    Sender,
    /// The relay, which has told the sender so; or the connection is gone.
    Relay,
}

/// How a route to another relay stands at its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum RouteState {
    /// To a mailroom: it needs no state.
    Local,
    /// In use.
    Remote {
        /// The gateway asks the sender to hold.
        held: bool,
    },
    /// Closed, and not yet forgotten at the gateway.
    Ending(EndedBy),
}

/// Whether an entry's recipient is at another relay (3.3.5.6 rows 3 and 4).
pub(in crate::relay) fn is_remote(entry: &FanoutEntry, own: &[Text]) -> bool {
    !entry.relay_url.is_empty() && !own.contains(&entry.relay_url)
}

impl Relay {
    /// SingleHopSupported for this connection (3.3.5.6 row 4): only for a device that has proven itself, and not for another relay,
    /// which has its one hop behind it.
    pub(in crate::relay) fn single_hop_supported(&self, id: ConnectionId) -> bool {
        let peer = self.peer(id);
        !self.config.peers.is_empty() && peer.authenticated && peer.relay.is_none()
    }

    /// Puts a remote entry to those of its relay. Whether the recipient exists is for that relay to say.
    pub(in crate::relay) fn group_remote(
        &self,
        groups: &mut RemoteGroups,
        index: u16,
        entry: &FanoutEntry,
    ) -> Result<(), OpenResponseId> {
        let relay = self.remote_relay(entry.relay_url.as_bytes()).ok_or(OpenResponseId::Unknown)?;
        let (identity, device) = (entry.identity_url.clone(), entry.device_url.clone());
        let valid = IdentityUrl::new(identity.as_bytes()).is_ok()
            && (device.is_empty() || DeviceUrl::new(device.as_bytes()).is_ok());
        if !valid {
            return Err(OpenResponseId::Unknown);
        }
        let recipient = RemoteRecipient { index, identity, device };
        match groups.iter_mut().find(|(group, _)| *group == relay) {
            Some((_, members)) => members.push(recipient),
            None => groups.push((relay, vec![recipient])),
        }
        Ok(())
    }

    /// Opens the routes of a session to other relays, each at the shard that holds the link.
    pub(in crate::relay) fn open_remote_routes(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        resource: &Text,
        groups: RemoteGroups,
        mut opened: impl FnMut((ShardId, RouteId)),
    ) {
        for (relay, recipients) in groups {
            let shard = self.config.peers[usize::from(relay.0)].home(self.config.shards);
            let route = self.origin.add_route(id, session, RouteState::Remote { held: true });
            let resource = resource.clone();
            self.mesh
                .send(shard, MeshItem::OpenLeg { route, relay, resource, recipients: recipients.into() });
            opened((shard, route));
        }
    }

    /// The gateway asks a sender's session to hold, or to go on (7.2).
    pub(in crate::relay) fn hold(&mut self, route: RouteId, held: bool) {
        let Some(source) = self.origin.route_mut(route) else { return };
        let RouteState::Remote { held: before } = &mut source.state else { return };
        if std::mem::replace(before, held) == held {
            return;
        }
        let (id, session) = (source.connection, source.session);
        let Some(peer) = self.live_peer(id) else { return };
        let Some(sender) = peer.senders.get_mut(&session) else { return };
        let stopped = sender.stopped;
        let was_held = sender.held > 0;
        if held {
            sender.held += 1
        } else {
            sender.held -= 1
        }
        let is_held = sender.held > 0;
        if was_held != is_held && !stopped {
            let response = if is_held { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
            peer.connection.respond(session, response);
            self.touch(id);
        }
    }

    /// The gateway has forgotten a route that was closed.
    pub(in crate::relay) fn route_ended(&mut self, route: RouteId) {
        self.origin.remove_route(route);
    }

    /// A fault on a route that its sender has closed. No SessionStatus can reach the sender any more, and it still waits for
    /// acknowledgements of what it sent there. These would be false; so the connection ends, and the sender keeps its copies.
    pub(in crate::relay) fn fault_after_close(&mut self, id: ConnectionId) {
        if self.live_peer(id).is_some_and(|peer| !peer.connection.is_ended()) {
            self.connection(id).close(CloseReason::InternalError, 0);
            self.poll_connection(id);
        }
    }
}
