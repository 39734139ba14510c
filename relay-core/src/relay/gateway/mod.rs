//! The gateway: the way to recipients at other relays (single-hop fanout, sstp-behaviour 3.3.5.6.1).
//!
//! To an origin it is what a mailroom is: a route is opened, deposits come, and each is completed once. Behind it is a *leg*
//! for each route, which is one fanout session on the *link* to the remote relay. All legs to one relay live on one shard, with the
//! link.
//!
//! Invariants:
//! * A message is completed towards its origin exactly once: when the remote relay has acknowledged it, or when the origin was
//!   told before, in the same order of items, that the leg's recipients are in fault. So a sender never takes an
//!   acknowledgement for more than it is: what was lost with a link it has been told to be lost, and has its own copy of.
//! * Payload is counted at the origin until it is in the link's output; the last part of a message until it is acknowledged, which
//!   bounds what may be unacknowledged. Nothing is stored here: mail at rest is the mailroom's.
//! * A faulted recipient stays so for the life of the sender's session; a new session tries it again.
//! * Nothing that came from another relay goes to a third one.
//!
//! Here: the tables and what comes from origins. [`leg`]: the outbound sessions. [`link`]: calling, being called, losing.
//! [`entrance`]: the origin's side.

mod entrance;
mod leg;
mod link;
mod peers;

pub use link::DialFailure;
pub use peers::{PeerRelay, RemoteRelay};

pub(super) use entrance::{EndedBy, RemoteGroups, RouteState, is_remote};
pub(super) use leg::is_about_relay;

use super::Relay;
use super::home::ShardId;
use super::mesh::{ConnectionId, DepositPart, RemoteRecipient, RouteId};
use crate::sstp::SessionId;
use crate::sstp::text::Text;
use hashbrown::HashMap;
use leg::{Leg, LegId, Stage};
use link::Link;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// By [`RemoteRelay`]; those whose home is another shard are never used.
    links: Vec<Link>,
    legs: Slab<Leg>,
    /// Legs whose route is open at its origin: by the origin's shard and the route's index there.
    by_route: HashMap<(ShardId, u32), LegId>,
    by_session: HashMap<(ConnectionId, SessionId), LegId>,
    /// Legs that wait for room in their connection's output, in turn.
    turns: HashMap<ConnectionId, VecDeque<LegId>>,
    next_generation: u32,
}

impl Gateway {
    pub(super) fn new(relays: usize) -> Self {
        Self { links: (0..relays).map(|_| Link::default()).collect(), ..Self::default() }
    }

    /// Whether this route of that shard leads here, and not to a mailroom.
    pub(super) fn has(&self, from: ShardId, route: RouteId) -> bool {
        self.by_route.contains_key(&(from, route.index))
    }

    /// A relay's links, one by one, the oldest first.
    pub(super) fn link(&self, relay: RemoteRelay, index: usize) -> Option<ConnectionId> {
        self.links[usize::from(relay.0)].connections().get(index).copied()
    }

    fn leg(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.get_mut(id.index as usize).filter(|leg| leg.generation == id.generation)
    }
}

/// What origins say.
impl Relay {
    pub(super) fn open_leg(
        &mut self,
        from: ShardId,
        route: RouteId,
        relay: RemoteRelay,
        resource: Text,
        recipients: Arc<[RemoteRecipient]>,
    ) {
        let generation = self.gateway.next_generation;
        self.gateway.next_generation = generation.wrapping_add(1);
        let leg = Leg::new(generation, from, route, relay, resource, recipients);
        let id = LegId { index: self.gateway.legs.insert(leg) as u32, generation };
        let before = self.gateway.by_route.insert((from, route.index), id);
        debug_assert!(before.is_none(), "an origin waits for RouteEnded before it uses an index again");
        self.open_or_wait(id);
    }

    /// A part for a leg: into its backlog, or, if nobody is left to get it, nowhere.
    pub(super) fn leg_deposit(&mut self, from: ShardId, part: DepositPart) {
        let id = self.gateway.by_route[&(from, part.route.index)];
        let Some(leg) = self.gateway.leg(id) else { return };
        debug_assert_eq!(leg.route, part.route, "an origin opens a route before it uses it");
        leg.incoming = (!part.last).then_some(part.deposit);
        if leg.stage == Stage::Over {
            return leg::absorb(&mut self.mesh, from, &part);
        }
        leg.backlog.push_back(part);
        self.flush_leg(id);
    }

    /// The sender's session is gone. Whole messages still go; one that has only begun does not.
    pub(super) fn close_leg(&mut self, from: ShardId, route: RouteId) {
        let Some(id) = self.gateway.by_route.remove(&(from, route.index)) else { return };
        let Some(leg) = self.gateway.leg(id) else { return };
        leg.closed = true;
        if let Some(deposit) = leg.incoming.take() {
            let mut bytes = 0;
            while let Some(part) = leg.backlog.pop_back_if(|part| part.deposit == deposit) {
                bytes += u64::from(part.payload_bytes);
            }
            // Of a message in progress only the end of the session is the end.
            let begun = leg.begun == Some(deposit);
            self.mesh.complete(from, deposit, bytes);
            if begun {
                self.end_leg_session(id);
            }
        }
        self.finish_leg(id);
    }
}
