//! Presence under churn: devices come, overlap, go, publish, watch and do not listen, shards stand still and their queues are
//! full; and in the end everybody has to know the truth.
//!
//! What must hold:
//! * every subscriber comes to know the status that the device's sessions publish, all of them the same;
//! * a device that always has one publishing connection, if not always the same, is never said to be offline to who knew
//!   it as present;
//! * a Notify names a device once, and at most one item of notes waits between two shards;
//! * nothing is left when everybody is gone.

mod actor;

use crate::dice::Dice;
use crate::network::{RelayEnd, WireFaults};
use crate::population::Population;
use actor::Actor;
use relay_core::presence::Status;
use relay_core::relay::{Action, MeshItem, PresenceCounts, Relay, RelayConfig, ShardId};
use relay_core::sstp::CloseReason;
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use relay_core::time::Timestamp;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Steps after which a healed world must be at rest.
const PATIENCE: usize = 20_000;
/// Connections of one device at once.
const CONNECTIONS: usize = 3;

pub(crate) struct PresenceWorld {
    now: Timestamp,
    dice: Dice,
    people: Rc<Population>,
    relays: Vec<Relay>,
    /// Not driven before then.
    stopped_until: Vec<Timestamp>,
    /// `mesh[from][to]`.
    mesh: Vec<Vec<VecDeque<MeshItem>>>,
    mesh_capacity: usize,
    wires: WireFaults,
    actors: Vec<Actor>,
    /// Devices that are always present from their first word on.
    anchored: BTreeSet<usize>,
    /// How much happens, in a thousand.
    churn: u64,
    steps: usize,
}

impl PresenceWorld {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let shards = dice.between(1, 4) as usize;
        let devices: Vec<Vec<usize>> =
            (0..dice.between(2, 8) as usize).map(|account| vec![account]).collect();
        let people = Rc::new(Population::new(devices.len(), 1, &devices, &mut dice));
        people.register_all_but(&[]);
        let now = Timestamp(1_700_000_000_000 + seed % 1000);
        let config = Self::relay_config(shards as u16, &mut dice);
        let relay = |shard: usize| {
            let directory = Box::new(people.directory.clone());
            let entropy = Box::new(Dice::new(seed + shard as u64));
            Relay::new(ShardId(shard as u16), config.clone(), directory, entropy, now, 1)
        };
        let count = devices.len();
        Self {
            relays: (0..shards).map(relay).collect(),
            stopped_until: vec![Timestamp(0); shards],
            mesh: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            mesh_capacity: dice.pick(&[1, 4, 4096]),
            wires: WireFaults {
                piece: dice.pick(&[7, 1000, 70_000]),
                delay: dice.pick(&[0, 10, 200]),
                buffer: dice.pick(&[1000, 20_000, 300_000]),
            },
            actors: Vec::new(),
            anchored: (0..count).filter(|_| dice.chance(300)).collect(),
            churn: dice.pick(&[50, 300, 900]),
            steps: dice.between(100, 500) as usize,
            now,
            people,
            dice,
        }
    }

    fn relay_config(shards: u16, dice: &mut Dice) -> Arc<RelayConfig> {
        let urls = vec![Text::new("dpp://relay").unwrap()];
        let connection = ConnectionConfig::new(Endpoint::Relay, urls, Text::EMPTY);
        let mut config = RelayConfig::new(Arc::new(connection), shards);
        config.max_connections_per_device = 1000;
        config.connection_output_bytes = dice.pick(&[1, 300, 256 << 10]);
        config.presence.window = Duration::from_millis(dice.pick(&[0, 20, 100, 1000]));
        config.presence.offline_damping = Duration::from_millis(dice.pick(&[0, 0, 500, 5000]));
        Arc::new(config)
    }

    /// The whole schedule.
    pub(crate) fn run(mut self) {
        for _ in 0..self.steps {
            self.misbehave();
            let pause = match self.dice.below(100) {
                0 => self.dice.between(1000, 5000),
                1..10 => self.dice.between(20, 500),
                _ => self.dice.between(0, 10),
            };
            self.step(pause);
        }
        self.heal();
        self.settle();
        self.check_agreement();
        self.leave();
    }

    fn misbehave(&mut self) {
        if self.dice.chance(15) {
            let shard = self.dice.below(self.relays.len());
            self.stopped_until[shard] = Timestamp(self.now.0 + self.dice.between(1, 3000));
        }
        if self.dice.chance(self.churn) {
            let device = self.dice.below(self.people.devices.len());
            self.come(device);
        }
        for place in 0..self.actors.len() {
            if self.dice.chance(self.churn / 3) {
                self.do_something(place);
            }
        }
        self.hand_over();
    }

    /// A device connects, once more perhaps.
    fn come(&mut self, device: usize) {
        let own: Vec<&Actor> =
            self.actors.iter().filter(|actor| actor.device == device && !actor.gone).collect();
        let has_anchor = own.iter().any(|actor| actor.is_anchor && actor.is_known_present());
        if own.len() >= CONNECTIONS || (self.anchored.contains(&device) && !own.is_empty() && !has_anchor) {
            return;
        }
        let first = own.is_empty();
        let shard = self.dice.below(self.relays.len());
        let mut actor = Actor::connect(device, shard, &self.people, self.now, &mut self.dice);
        actor.is_anchor = first && self.anchored.contains(&device);
        self.actors.push(actor);
    }

    fn do_something(&mut self, place: usize) {
        let dice = &mut self.dice;
        let count = self.people.devices.len();
        let actor = &mut self.actors[place];
        if actor.gone {
            return;
        }
        let some: Vec<usize> = (0..count).filter(|_| dice.chance(400)).collect();
        let present = dice.pick(&[Status::Online, Status::Away]);
        match dice.below(12) {
            0..3 if actor.is_ready() => actor.publish(present, dice),
            3 if actor.is_ready() && !actor.is_anchor => {
                let status = dice.pick(&[Status::Offline, Status::Unknown]);
                actor.publish(status, dice);
            }
            4..7 if actor.is_ready() && !some.is_empty() => actor.watch(&some, dice),
            7 if actor.is_ready() && !some.is_empty() => actor.unwatch(&some, dice),
            8 => {
                let stop = !actor.is_stopped();
                actor.stop(stop);
            }
            9 if actor.is_ready() => actor.hang_up_on(dice),
            10 if !actor.is_anchor => actor.begin_anew(),
            11 if !actor.is_anchor && dice.chance(500) => {
                actor.connection.close(CloseReason::NoReason, 0);
            }
            11 if !actor.is_anchor => {
                actor.wire.cut(self.now, dice);
                actor.connection.transport_lost();
            }
            _ => {}
        }
    }

    /// Another connection takes over from one that kept its device present.
    fn hand_over(&mut self) {
        for old in 0..self.actors.len() {
            let device = self.actors[old].device;
            if !self.actors[old].is_anchor || !self.dice.chance(self.churn / 3) {
                continue;
            }
            let is_successor = |actor: &Actor| actor.device == device && actor.is_known_present();
            let new = (0..self.actors.len()).find(|&new| new != old && is_successor(&self.actors[new]));
            if let Some(new) = new {
                self.actors[old].is_anchor = false;
                self.actors[new].is_anchor = true;
            }
        }
    }

    /// Time passes, and everything that is due happens.
    fn step(&mut self, pause: u64) {
        self.now.0 += pause;
        for shard in 0..self.relays.len() {
            if self.stopped_until[shard] <= self.now {
                self.drive(shard);
            }
        }
        for place in 0..self.actors.len() {
            self.drive_actor(place);
        }
        self.actors.retain(|actor| !actor.gone || !matches!(actor.wire.relay, RelayEnd::Gone));
        for (from, relay) in self.relays.iter_mut().enumerate() {
            for to in (0..self.stopped_until.len()).filter(|&to| to != from) {
                let outbox = relay.outbox(ShardId(to as u16));
                let waiting = outbox.iter().filter(|item| matches!(item, MeshItem::Presence(_))).count();
                assert!(waiting <= 1, "{waiting} items of notes wait");
            }
        }
    }
}

/// A shard's driver.
impl PresenceWorld {
    fn drive(&mut self, shard: usize) {
        let now = self.now;
        if self.relays[shard].poll_timeout() <= now {
            self.relays[shard].handle_timeout(now);
        }
        for place in 0..self.actors.len() {
            self.receive(shard, place);
        }
        self.serve(shard);
        for from in 0..self.relays.len() {
            let queue = &mut self.mesh[from][shard];
            let count = self.dice.below(queue.len() + 2).min(queue.len());
            for item in queue.drain(..count) {
                self.relays[shard].mesh_received(now, ShardId(from as u16), item);
            }
        }
        self.relays[shard].mesh_drained();
        self.serve(shard);
    }

    fn receive(&mut self, shard: usize, place: usize) {
        let now = self.now;
        match &mut self.actors[place].wire.relay {
            RelayEnd::Arriving { shard: at, handed_over } if *at == shard => {
                let id = self.relays[shard].connected(now, None, handed_over.take());
                self.actors[place].wire.relay = RelayEnd::Open { shard, id };
            }
            RelayEnd::Open { shard: at, id } if *at == shard => {
                let id = *id;
                while let Some(piece) = self.actors[place].wire.to_relay.take(now) {
                    self.relays[shard].received(now, id, piece);
                    self.act(shard);
                    if !matches!(self.actors[place].wire.relay, RelayEnd::Open { .. }) {
                        return;
                    }
                }
                let wire = &mut self.actors[place].wire;
                if wire.to_relay.has_ended(now) {
                    wire.relay = RelayEnd::Gone;
                    wire.to_client.close(now);
                    self.relays[shard].disconnected(now, id);
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, shard: usize) {
        while let Some(action) = self.relays[shard].next_action() {
            match action {
                Action::HandOff { connection, shard: to, bytes } => {
                    let arriving = RelayEnd::Arriving { shard: usize::from(to.0), handed_over: Some(bytes) };
                    let is_it = |actor: &&mut Actor| matches!(actor.wire.relay, RelayEnd::Open { shard: at, id } if (at, id) == (shard, connection));
                    self.actors.iter_mut().find(is_it).expect("it has a wire").wire.relay = arriving;
                }
                Action::Ended { .. } | Action::Resume { .. } => {}
                other => panic!("presence asks for no {other:?}"),
            }
        }
    }

    fn serve(&mut self, shard: usize) {
        let now = self.now;
        self.act(shard);
        self.relays[shard].take_touched(&mut Vec::new());
        for actor in &mut self.actors {
            let RelayEnd::Open { shard: at, id } = actor.wire.relay else { continue };
            if at != shard {
                continue;
            }
            while let Some(output) = self.relays[shard].prepare_output(now, id) {
                let before = output.len();
                actor.wire.to_client.fill(output, now, self.wires, &mut self.dice);
                let sent = output.len() < before;
                self.relays[shard].sent(now, id);
                if !sent {
                    break;
                }
            }
            if self.relays[shard].is_finished(id) {
                actor.wire.relay = RelayEnd::Gone;
                actor.wire.to_client.close(now);
                self.relays[shard].disconnected(now, id);
            }
        }
        for (to, queue) in self.mesh[shard].iter_mut().enumerate().filter(|(to, _)| *to != shard) {
            let outbox = self.relays[shard].outbox(ShardId(to as u16));
            while queue.len() < self.mesh_capacity
                && let Some(item) = outbox.pop_front()
            {
                queue.push_back(item);
            }
        }
        self.relays[shard].outbox_drained();
    }

    fn drive_actor(&mut self, place: usize) {
        let (now, actor) = (self.now, &mut self.actors[place]);
        while let Some(piece) = actor.wire.to_client.take(now) {
            actor.connection.receive(now, piece);
            actor.poll(now, &self.anchored, &mut self.dice);
        }
        if actor.wire.to_client.has_ended(now) {
            actor.connection.transport_lost();
        }
        actor.poll(now, &self.anchored, &mut self.dice);
        if !actor.gone {
            actor.act(now);
        }
        actor.connection.prepare_output(now);
        actor.wire.to_relay.fill(actor.connection.output(), now, self.wires, &mut self.dice);
        if actor.connection.is_ended() && actor.connection.output_bytes() == 0 {
            actor.wire.to_relay.close(now);
        }
    }
}

/// The end of the schedule.
impl PresenceWorld {
    /// No more faults, and everybody listens.
    fn heal(&mut self) {
        self.churn = 0;
        self.wires = WireFaults { piece: 70_000, delay: 10, buffer: 300_000 };
        self.stopped_until.fill(Timestamp(0));
        for device in 0..self.people.devices.len() {
            if self.dice.chance(700) {
                self.come(device);
            }
        }
    }

    fn settle(&mut self) {
        for step in 0..PATIENCE {
            for actor in &mut self.actors {
                if actor.is_stopped() && !actor.gone {
                    actor.stop(false);
                }
                if actor.is_ready() && actor.watches.is_empty() {
                    let everybody: Vec<usize> = (0..self.people.devices.len()).collect();
                    actor.watch(&everybody, &mut self.dice);
                }
            }
            if step > 100 && self.is_at_rest() {
                return;
            }
            let pause = if step % 20 == 19 { 1000 } else { self.dice.between(1, 50) };
            self.step(pause);
        }
        panic!("the world does not come to rest");
    }

    fn is_at_rest(&mut self) -> bool {
        let shards = self.relays.len() as u16;
        let is_quiet = |relay: &mut Relay| {
            relay.next_soon().is_none() && (0..shards).all(|to| relay.outbox(ShardId(to)).is_empty())
        };
        self.relays.iter_mut().all(is_quiet)
            && self.mesh.iter().flatten().all(VecDeque::is_empty)
            && self.actors.iter().all(|actor| {
                actor.is_settled()
                    && !actor.gone
                    && actor.wire.to_relay.is_empty()
                    && actor.wire.to_client.is_empty()
            })
    }

    /// Everybody who watches a device knows its status, which is one that a session publishes.
    fn check_agreement(&self) {
        for device in 0..self.people.devices.len() {
            let published = self.actors.iter().filter(|actor| actor.device == device);
            let mut possible: Vec<Status> = published.filter_map(|actor| actor.published).collect();
            possible.retain(|status| status.is_present());
            if possible.is_empty() {
                possible.push(Status::Offline);
            }
            let watching = self.actors.iter().filter(|actor| actor.watches.contains(&device));
            let seen: Vec<_> = watching.map(|actor| actor.view.get(&device).copied()).collect();
            let agreed = seen.iter().all(|status| *status == seen[0]);
            let is_true = seen.iter().flatten().all(|status| possible.contains(status));
            assert!(
                agreed && is_true && !seen.contains(&None),
                "device {device} is {possible:?}, and is seen as {seen:?}"
            );
        }
    }

    /// Everybody goes, and nothing is left.
    fn leave(mut self) {
        for actor in &mut self.actors {
            actor.connection.close(CloseReason::NoReason, 0);
        }
        for _ in 0..600 {
            self.step(10);
        }
        for relay in &self.relays {
            assert_eq!(relay.connections(), 0);
            assert_eq!(relay.presence(), PresenceCounts::default());
        }
    }
}
