//! The links between relays: calls that are answered late or not at all, and wires with a relay at each end. Everything that a
//! shard reads from and writes to, be it a client's wire or one end of a link, is a [`Place`].

use crate::network::{Pipe, RelayEnd};
use crate::scenario::RELAYS;
use crate::world::World;
use bytes::Bytes;
use relay_core::address::DeviceUrl;
use relay_core::directory::SecretKey;
use relay_core::relay::{ConnectionId, DialFailure, PeerRelay, RemoteRelay, ShardId};
use relay_core::security::PeerSecrets;
use relay_core::time::Timestamp;
use std::sync::Arc;

/// How calls go wrong, each in a thousand.
#[derive(Clone, Copy, Default)]
pub(crate) struct LinkFaults {
    pub(crate) cut: u64,
    pub(crate) unanswered: u64,
}

/// A link: the caller's end first.
pub(crate) struct Link {
    pub(crate) ends: [RelayEnd; 2],
    /// What goes to each end.
    pub(crate) pipes: [Pipe; 2],
}

/// A call on its way.
struct Call {
    due: Timestamp,
    /// The shard that calls, among those of all relays.
    shard: usize,
    relay: RemoteRelay,
}

#[derive(Default)]
pub(crate) struct Links {
    pub(crate) links: Vec<Link>,
    calls: Vec<Call>,
}

/// What a shard reads from and writes to.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// A client's wire.
    Wire(usize),
    /// One end of a link.
    Link(usize, usize),
}

/// The other relay of two, as each of them knows it.
pub(crate) fn peer(relay: usize) -> PeerRelay {
    let other = 1 - relay;
    let secret = |caller: usize| SecretKey::new(vec![caller as u8 + 1; 32]);
    PeerRelay {
        url: DeviceUrl::new(RELAYS[other]).unwrap(),
        addresses: Arc::new([String::new()]),
        secrets: PeerSecrets { calling: secret(relay), called: secret(other) },
    }
}

impl Links {
    pub(crate) fn are_quiet(&self) -> bool {
        // What is on its way to an end that is gone is read by nobody.
        let mut ways = self.links.iter().flat_map(|link| link.ends.iter().zip(&link.pipes));
        self.calls.is_empty() && ways.all(|(end, pipe)| matches!(end, RelayEnd::Gone) || pipe.is_empty())
    }

    pub(crate) fn call(&mut self, due: Timestamp, shard: usize, relay: RemoteRelay) {
        self.calls.push(Call { due, shard, relay });
    }

    /// Both ends learn that nothing more comes.
    pub(crate) fn hang_up(&mut self, now: Timestamp) {
        self.links.iter_mut().flat_map(|link| &mut link.pipes).for_each(|pipe| pipe.close(now));
    }
}

impl World {
    /// Calls of a shard that are due.
    pub(crate) fn answer_calls(&mut self, shard: usize) {
        let now = self.now;
        let is_due = |call: &Call| call.shard == shard && call.due <= now;
        while let Some(index) = self.links.calls.iter().position(is_due) {
            let Call { relay, .. } = self.links.calls.swap_remove(index);
            let fails = self.dice.chance(self.scenario.link.unanswered);
            let caller = &mut self.shards[shard].relay;
            if fails {
                let failure = self.dice.pick(&[DialFailure::NameNotFound, DialFailure::Unreachable]);
                caller.dial_failed(now, relay, failure);
            } else if let Some(id) = caller.dialed(now, relay, None) {
                let shards = usize::from(self.scenario.shards);
                let other = (1 - shard / shards) * shards + self.dice.below(shards);
                let called = RelayEnd::Arriving { shard: other, handed_over: None };
                let ends = [RelayEnd::Open { shard, id }, called];
                self.links.links.push(Link { ends, pipes: Default::default() });
            }
        }
    }

    pub(crate) fn cut_a_link(&mut self) {
        if self.dice.chance(self.scenario.link.cut) && !self.links.links.is_empty() {
            let link = self.dice.below(self.links.links.len());
            for pipe in &mut self.links.links[link].pipes {
                pipe.cut(self.now, &mut self.dice);
            }
        }
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let links = (0..self.links.links.len()).flat_map(|link| [Place::Link(link, 0), Place::Link(link, 1)]);
        (0..self.wires.len()).map(Place::Wire).chain(links)
    }

    /// The relay's end at a place, what comes there and what goes out.
    pub(crate) fn place(&mut self, place: Place) -> (&mut RelayEnd, &mut Pipe, &mut Pipe) {
        match place {
            Place::Wire(wire) => {
                let wire = &mut self.wires[wire];
                (&mut wire.relay, &mut wire.to_relay, &mut wire.to_client)
            }
            Place::Link(link, end) => {
                let Link { ends, pipes: [to_caller, to_called] } = &mut self.links.links[link];
                match end {
                    0 => (&mut ends[0], to_caller, to_called),
                    _ => (&mut ends[1], to_called, to_caller),
                }
            }
        }
    }

    pub(crate) fn place_of(&mut self, shard: usize, connection: ConnectionId) -> Option<Place> {
        let is_it = |end: &RelayEnd| matches!(*end, RelayEnd::Open { shard: at, id } if (at, id) == (shard, connection));
        self.places().find(|&place| is_it(self.place(place).0))
    }

    pub(crate) fn hand_off(&mut self, shard: usize, connection: ConnectionId, to: ShardId, bytes: Bytes) {
        let first = self.first_shard(shard);
        if let Some(place) = self.place_of(shard, connection) {
            *self.place(place).0 =
                RelayEnd::Arriving { shard: first + usize::from(to.0), handed_over: Some(bytes) };
        }
    }

    /// The first shard of the relay that a shard belongs to.
    pub(crate) fn first_shard(&self, shard: usize) -> usize {
        let shards = usize::from(self.scenario.shards);
        shard / shards * shards
    }
}
