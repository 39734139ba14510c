//! The world of one schedule: the shards of a relay with their mesh and disks, the wires and the clients, one clock, and the
//! driver that a shard's brain asks for. It also breaks things, and in the end mends them and looks at what is left.

use crate::allowance::Allowances;
use crate::client::{Client, Habits, Stream};
use crate::defaults::Defaults;
use crate::dice::Dice;
use crate::disk::{Disk, DiskFaults};
use crate::links::{LinkFaults, Links, Place};
use crate::management::Management;
use crate::model::Model;
use crate::network::{RelayEnd, Wire, WireFaults};
use crate::population::Population;
use crate::scenario::{Scenario, WorldFaults};
use relay_core::address::{MailboxAddress, ResourceUrl};
use relay_core::relay::{Action, ConnectionId, MeshItem, Registered, Registration, Relay, ShardId};
use relay_core::security::{self, RegisterContext, RegisterVerdict, RelayKeys};
use relay_core::sstp::connection::Ended;
use relay_core::sstp::profile::flags;
use relay_core::sstp::{CloseReason, SessionId};
use relay_core::store::PART_BYTES;
use relay_core::time::Timestamp;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Steps after which a healed world must be at rest.
const PATIENCE: usize = 20_000;

/// One shard with what its driver holds.
pub(crate) struct Shard {
    pub(crate) relay: Relay,
    disk: Disk,
    /// Not driven before then.
    stopped_until: Timestamp,
    registrations: Vec<(Timestamp, ConnectionId, SessionId, Registered)>,
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) dice: Dice,
    pub(crate) scenario: Scenario,
    pub(crate) people: Rc<Population>,
    keys: RelayKeys,
    /// Of all relays: those of the first one come first.
    pub(crate) shards: Vec<Shard>,
    /// `mesh[from][to]`.
    mesh: Vec<Vec<VecDeque<MeshItem>>>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) links: Links,
    clients: Vec<Client>,
    pub(crate) model: Model,
    pub(crate) management: Option<Management>,
    pub(crate) defaults: Option<Defaults>,
    /// Messages not yet written by anybody.
    to_write: usize,
    /// A restart in order is under way.
    draining: bool,
    /// The relay is down until then.
    down_until: Timestamp,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::draw(&mut dice);
        Self::of(seed, dice, scenario)
    }

    /// A world with a management server, in which nothing is ever calm.
    pub(crate) fn managed(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario { calm: false, ..Scenario::draw(&mut dice) };
        let mut world = Self::of(seed, dice, scenario);
        world.management = Some(Management::new(seed, world.shards.len()));
        world.defaults = Defaults::new(seed, &world.scenario);
        world
    }

    fn of(seed: u64, mut dice: Dice, scenario: Scenario) -> Self {
        let accounts = scenario.devices.iter().flatten().max().map_or(0, |most| most + 1);
        let people = Rc::new(Population::new(accounts, scenario.identities, &scenario.devices, &mut dice));
        people.register_all_but(&scenario.strangers);
        let keys = RelayKeys::generate(&mut dice);
        let shards = usize::from(scenario.shards) * scenario.relays.len();
        let relays = scenario.relays.len();
        let client = |device: usize| {
            let config = scenario.client_config((&people.devices[device].url).into());
            Client::new(device, config, scenario.client_window, people.clone(), keys.public().clone(), relays)
        };
        let clients = (0..people.devices.len()).map(client).collect();
        let mut world = Self {
            now: Timestamp(1_700_000_000_000 + seed % 1000),
            model: Model::new(scenario.calm, Allowances::new(scenario.relays.iter().map(AsRef::as_ref))),
            management: None,
            defaults: None,
            mesh: (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect(),
            shards: Vec::new(),
            wires: Vec::new(),
            links: Links::default(),
            to_write: scenario.messages,
            draining: false,
            down_until: Timestamp(0),
            dice,
            scenario,
            people,
            keys,
            clients,
        };
        let disks = (0..shards).map(Disk::new).collect();
        world.start(disks);
        world.make_streams();
        world
    }

    /// Starts the relay on what the disks hold.
    fn start(&mut self, disks: Vec<Disk>) {
        self.forget_requests();
        self.forget_defaults();
        self.shards.clear();
        self.links = Links::default();
        let shards = usize::from(self.scenario.shards);
        for (shard, disk) in disks.into_iter().enumerate() {
            let mut relay = Relay::new(
                ShardId((shard % shards) as u16),
                self.scenario.relays[shard / shards].clone(),
                Box::new(self.people.directory.clone()),
                Box::new(Dice::new(self.dice.roll())),
                self.now,
                disk.next_record(),
            );
            for message in disk.replay() {
                relay.restore(message);
            }
            let stopped_until = Timestamp(0);
            self.shards.push(Shard { relay, disk, stopped_until, registrations: Vec::new() });
        }
    }

    fn make_streams(&mut self) {
        let count = self.dice.between(1, 2 * self.clients.len() as u64) as usize;
        for number in 0..count {
            let fanout = self.dice.chance(500);
            let resource = ResourceUrl::new(format!("resource:{}", self.dice.below(3))).unwrap();
            let recipients = if fanout { self.dice.between(1, 6) } else { 1 };
            let recipients: Arc<[_]> = (0..recipients).map(|_| self.recipient(&resource)).collect();
            let sender = self.dice.below(self.clients.len());
            match recipients.iter().all(|recipient| self.clients[sender].elsewhere(recipient).is_none()) {
                true => self.model.allowances.local_stream(number, self.clients[sender].relay()),
                false => self.model.allowances.crossing_stream(&recipients),
            }
            let (queue, not_before) = (VecDeque::new(), Timestamp(0));
            self.clients[sender].streams.push(Stream {
                number,
                resource,
                recipients,
                fanout,
                queue,
                not_before,
            });
        }
    }

    fn recipient(&mut self, resource: &ResourceUrl) -> MailboxAddress {
        let strangers = &self.scenario.strangers;
        let known =
            |account: &usize| !strangers.iter().any(|&n| self.people.devices[n].accounts.contains(account));
        let accounts: Vec<usize> = (0..self.people.accounts.len()).filter(known).collect();
        let account = self.dice.pick(&accounts);
        let identity = self.dice.below(self.scenario.identities);
        let device = self.dice.chance(500).then(|| self.dice.pick(&self.people.accounts[account].devices));
        self.people.mailbox(account, identity, device, resource)
    }

    /// The whole schedule.
    pub(crate) fn run(mut self) {
        for _ in 0..self.scenario.steps {
            let pause = match self.dice.below(100) {
                0 => self.dice.between(1000, 10_000),
                1..10 => self.dice.between(20, 500),
                _ => self.dice.between(0, 10),
            };
            self.write_messages();
            self.misbehave();
            self.step(pause);
        }
        self.heal();
        self.settle();
        self.check_rest();
        self.leave();
    }

    /// Clients think of something to send.
    fn write_messages(&mut self) {
        if self.to_write == 0 || !self.dice.chance(500) {
            return;
        }
        let count = self.dice.between(1, 10).min(self.to_write as u64) as usize;
        self.to_write -= count;
        let senders: Vec<usize> =
            (0..self.clients.len()).filter(|&n| !self.clients[n].streams.is_empty()).collect();
        let sender = self.dice.pick(&senders);
        let stream = self.dice.below(self.clients[sender].streams.len());
        let stream = &mut self.clients[sender].streams[stream];
        for _ in 0..count {
            let dice = &mut self.dice;
            let bytes = match dice.below(10) {
                _ if dice.chance(self.scenario.empty_messages) => 0,
                0 => dice.between(1, self.scenario.largest_message as u64),
                _ => dice.between(1, 500),
            } as usize;
            let lifetime = dice.chance(100).then(|| dice.pick(&[1, 3, 86_400]));
            let mut bits = if lifetime.is_some() { flags::E } else { 0 };
            bits |= if dice.chance(100) { flags::D } else { 0 };
            bits |= if dice.chance(200) { flags::A } else { 0 };
            let droppable = bits & flags::D != 0 || lifetime.is_some_and(|seconds| seconds < 86_400);
            let recipients = stream.recipients.clone();
            let message = self.model.message(stream.number, recipients, bits, lifetime, bytes, droppable);
            stream.queue.push_back(message);
        }
    }

    fn misbehave(&mut self) {
        let WorldFaults { wire_cut, shard_stop, crash, restart, goes_offline } = self.scenario.world;
        if self.dice.chance(wire_cut) && !self.wires.is_empty() {
            let wire = self.dice.below(self.wires.len());
            self.wires[wire].cut(self.now, &mut self.dice);
        }
        self.cut_a_link();
        if self.dice.chance(shard_stop) {
            let shard = self.dice.below(self.shards.len());
            self.shards[shard].stopped_until = Timestamp(self.now.0 + self.dice.between(1, 5000));
        }
        if self.dice.chance(goes_offline) {
            let client = self.dice.below(self.clients.len());
            self.go_offline(client);
        }
        if self.dice.chance(restart) && !self.draining {
            self.draining = true;
            self.shards.iter_mut().for_each(|shard| shard.relay.drain(self.now));
        }
        if self.dice.chance(crash) {
            self.crash();
        }
    }

    fn go_offline(&mut self, client: usize) {
        let pause = self.dice.between(1, 20_000);
        let client = &mut self.clients[client];
        let Some(online) = &mut client.online else { return };
        if self.dice.chance(500) {
            online.connection.close(CloseReason::NoReason, 0);
        } else {
            let wire = online.wire;
            self.wires[wire].cut(self.now, &mut self.dice);
            client.lost(self.now, &mut self.model, &mut self.dice);
        }
        client.not_before = Timestamp(self.now.0 + pause);
    }

    /// Everything that a process holds is gone.
    fn crash(&mut self) {
        for wire in &mut self.wires {
            wire.cut(self.now, &mut self.dice);
            wire.relay = RelayEnd::Gone;
        }
        self.mesh.iter_mut().flatten().for_each(VecDeque::clear);
        let mut disks: Vec<Disk> = self.shards.drain(..).map(|shard| shard.disk).collect();
        for disk in &mut disks {
            disk.crash(&mut self.dice);
            self.model.damaged(&disk.damaged);
        }
        self.start(disks);
        self.draining = false;
        self.down_until = Timestamp(self.now.0 + self.dice.between(0, 2000));
        self.model.next_life();
    }

    /// Time passes, and everything that is due happens, in some order.
    fn step(&mut self, pause: u64) {
        self.now.0 += pause;
        let mut order: Vec<usize> = (0..self.shards.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.dice.below(last + 1));
        }
        for shard in order {
            if self.shards[shard].stopped_until <= self.now && self.down_until <= self.now {
                self.drive(shard);
            }
        }
        for client in 0..self.clients.len() {
            self.drive_client(client);
        }
        self.check_bounds();
        if self.draining {
            self.finish_restart();
        }
        self.manage();
        self.change_defaults();
    }

    /// Once everything is durable, the last acknowledgements go out and the relay starts again.
    fn finish_restart(&mut self) {
        let done = |shard: &Shard| shard.relay.is_settled() && shard.relay.in_flight().0 == 0;
        if !self.shards.iter().all(done) {
            return;
        }
        for shard in 0..self.shards.len() {
            self.shards[shard].relay.close_all(self.now);
            self.drive(shard);
        }
        for shard in 0..self.shards.len() {
            self.drive(shard);
        }
        let mut disks: Vec<Disk> = self.shards.drain(..).map(|shard| shard.disk).collect();
        disks.iter_mut().for_each(|disk| disk.crash(&mut self.dice));
        for wire in &mut self.wires {
            wire.to_client.close(self.now);
            wire.relay = RelayEnd::Gone;
        }
        self.mesh.iter_mut().flatten().for_each(VecDeque::clear);
        self.start(disks);
        self.draining = false;
        self.model.next_life();
    }
}

/// A shard's driver.
impl World {
    fn drive(&mut self, shard: usize) {
        let now = self.now;
        if self.shards[shard].relay.poll_timeout() <= now {
            self.shards[shard].relay.handle_timeout(now);
        }
        self.read_letters(shard);
        self.hear_defaults(shard);
        self.answer_calls(shard);
        self.receive(shard);
        self.serve(shard);
        self.mesh_in(shard);
        self.serve(shard);
        let Shard { relay, disk, registrations, .. } = &mut self.shards[shard];
        disk.run(relay, now, self.scenario.disk, &mut self.dice);
        self.model.damaged(&disk.damaged);
        while let Some(index) = registrations.iter().position(|(due, ..)| *due <= now) {
            let (_, id, event, outcome) = registrations.swap_remove(index);
            relay.registered(now, id, event, outcome);
        }
        self.serve(shard);
    }

    /// Takes what has arrived on the shard's wires.
    fn receive(&mut self, shard: usize) {
        for place in self.places() {
            match self.place(place).0 {
                RelayEnd::Arriving { shard: at, handed_over } if *at == shard => {
                    let bytes = handed_over.take();
                    let id = self.shards[shard].relay.connected(self.now, None, bytes);
                    *self.place(place).0 = RelayEnd::Open { shard, id };
                }
                RelayEnd::Open { shard: at, id } if *at == shard => {
                    let id = *id;
                    self.read(shard, place, id);
                }
                _ => {}
            }
        }
    }

    /// Reads from one wire, until it is handed over to another shard.
    fn read(&mut self, shard: usize, place: Place, id: ConnectionId) {
        let (now, mut taken) = (self.now, 0);
        while taken < self.scenario.read_bytes && self.shards[shard].relay.wants_read(id) {
            let Some(piece) = self.place(place).1.take(now) else { break };
            taken += piece.len();
            self.shards[shard].relay.received(now, id, piece);
            self.act(shard);
            if !matches!(self.place(place).0, RelayEnd::Open { .. }) {
                return;
            }
        }
        let (end, comes, goes) = self.place(place);
        if comes.has_ended(now) {
            *end = RelayEnd::Gone;
            goes.close(now);
            self.shards[shard].relay.disconnected(now, id);
        }
    }

    /// Sees to everything that the shard has to say.
    fn serve(&mut self, shard: usize) {
        self.act(shard);
        self.send(shard);
        self.mesh_out(shard);
        let Shard { relay, disk, .. } = &mut self.shards[shard];
        let delay = self.dice.between(0, self.scenario.append_delay);
        disk.take_batch(relay, self.now, delay, self.scenario.batch_bytes);
    }

    fn act(&mut self, shard: usize) {
        while let Some(action) = self.shards[shard].relay.next_action() {
            match action {
                Action::HandOff { connection, shard: to, bytes } => {
                    self.hand_off(shard, connection, to, bytes)
                }
                Action::Read { token, position } => {
                    let due = Timestamp(self.now.0 + self.dice.between(0, self.scenario.append_delay));
                    self.shards[shard].disk.read(token, position, due);
                }
                Action::Register(registration) => self.register(shard, registration),
                Action::Dial { relay, .. } => {
                    let due = Timestamp(self.now.0 + self.dice.between(0, 300));
                    self.links.call(due, shard, relay);
                }
                Action::Resume { .. } | Action::Lost { .. } => {}
                Action::SecurityFailed(failure) => {
                    let account = failure.account.as_ref().filter(|url| self.people.was_locked_out(url));
                    assert!(account.is_some(), "authentication failed: {failure:?}");
                }
                Action::Ended { how, connection, .. } => {
                    assert!(
                        !matches!(how, Ended::Violation(_)),
                        "a client broke the protocol: {connection:?} {how:?}"
                    );
                }
            }
        }
    }

    fn register(&mut self, shard: usize, registration: Registration) {
        let Registration { connection, event, device, account, token } = registration;
        let directory = &self.people.directory;
        let context = RegisterContext {
            keys: &self.keys,
            device: &device,
            account: &account,
            directory,
            pre_authentication_required: false,
        };
        let outcome = match security::answer_register(&token, &context) {
            RegisterVerdict::Accepted { changes, response } => {
                changes.into_iter().for_each(|change| directory.0.borrow_mut().apply(change));
                Registered::Answered { response, failure: None }
            }
            refused => panic!("a registration was refused: {refused:?}"),
        };
        let due = Timestamp(self.now.0 + self.dice.between(0, 100));
        self.shards[shard].registrations.push((due, connection, event, outcome));
    }

    /// Output goes onto the wires, as far as these have room. One that was full may have room again without the relay's
    /// knowing, so all are looked at.
    fn send(&mut self, shard: usize) {
        self.shards[shard].relay.take_touched(&mut Vec::new());
        for place in self.places() {
            if let RelayEnd::Open { shard: at, id } = *self.place(place).0
                && at == shard
            {
                self.flush(shard, place, id);
            }
        }
    }

    fn flush(&mut self, shard: usize, place: Place, id: ConnectionId) {
        let (now, wire) = (self.now, self.scenario.wire);
        loop {
            let mut goes = std::mem::take(self.place(place).2);
            let relay = &mut self.shards[shard].relay;
            let sent = relay.prepare_output(now, id).is_some_and(|output| {
                let before = output.len();
                goes.fill(output, now, wire, &mut self.dice);
                output.len() < before
            });
            relay.sent(now, id);
            *self.place(place).2 = goes;
            if !sent {
                break;
            }
        }
        if self.shards[shard].relay.is_finished(id) {
            let (end, _, goes) = self.place(place);
            *end = RelayEnd::Gone;
            goes.close(now);
            self.shards[shard].relay.disconnected(now, id);
        }
    }

    fn mesh_out(&mut self, shard: usize) {
        let first = self.first_shard(shard);
        let relay = &mut self.shards[shard].relay;
        let mut moved = false;
        let own = self.mesh[shard][first..][..usize::from(self.scenario.shards)].iter_mut();
        for (to, queue) in own.enumerate().filter(|(to, _)| first + *to != shard) {
            let outbox = relay.outbox(ShardId(to as u16));
            while queue.len() < self.scenario.mesh_capacity
                && let Some(item) = outbox.pop_front()
            {
                queue.push_back(item);
                moved = true;
            }
        }
        if moved {
            relay.outbox_drained();
        }
    }

    fn mesh_in(&mut self, shard: usize) {
        let first = self.first_shard(shard);
        let relay = &mut self.shards[shard].relay;
        let own = self.mesh[first..][..usize::from(self.scenario.shards)].iter_mut();
        for (from, queues) in own.enumerate() {
            let count = self.dice.below(queues[shard].len() + 2).min(queues[shard].len());
            for item in queues[shard].drain(..count) {
                relay.mesh_received(self.now, ShardId(from as u16), item);
            }
        }
        relay.mesh_drained();
    }

    fn drive_client(&mut self, number: usize) {
        let (now, habits) = (self.now, self.scenario.habits);
        let client = &mut self.clients[number];
        let Some(online) = &client.online else {
            if client.not_before <= now && self.down_until <= now {
                let shards = usize::from(self.scenario.shards);
                self.wires.push(Wire::new(client.relay() * shards + self.dice.below(shards)));
                client.connect(now, self.wires.len() - 1, habits, &mut self.dice);
            }
            return;
        };
        let place = online.wire;
        while let Some(piece) = self.wires[place].to_client.take(now) {
            client.receive(now, piece, &mut self.model, &mut self.dice);
        }
        if self.wires[place].to_client.has_ended(now) {
            client.lost(now, &mut self.model, &mut self.dice);
        }
        client.act(now, &mut self.model, &mut self.dice);
        let Some(online) = &mut client.online else { return };
        online.connection.prepare_output(now);
        let to_relay = &mut self.wires[place].to_relay;
        to_relay.fill(online.connection.output(), now, self.scenario.wire, &mut self.dice);
        let nobody_reads = self.wires[place].to_client.has_ended(now);
        if online.connection.is_ended() && (online.connection.output_bytes() == 0 || nobody_reads) {
            self.wires[place].to_relay.close(now);
            client.online = None;
        }
    }
}

/// The end of the schedule, and what must hold all along.
impl World {
    /// No more faults; everybody connects anew.
    fn heal(&mut self) {
        self.scenario.world = WorldFaults::default();
        self.scenario.disk = DiskFaults::default();
        self.scenario.link = LinkFaults::default();
        self.scenario.habits = Habits::default();
        self.scenario.wire = WireFaults { piece: 70_000, delay: 10, buffer: 300_000 };
        self.scenario.read_bytes = 65_536;
        (self.scenario.append_delay, self.scenario.batch_bytes) = (5, 1 << 20);
        self.shards.iter_mut().for_each(|shard| shard.stopped_until = Timestamp(0));
        self.mend_management();
        self.mend_defaults();
        if !self.scenario.calm {
            self.all_connect_anew();
        }
    }

    pub(crate) fn all_connect_anew(&mut self) {
        for client in 0..self.clients.len() {
            self.go_offline(client);
            self.clients[client].not_before = self.now;
        }
    }

    fn settle(&mut self) {
        for step in 0..PATIENCE {
            if self.is_at_rest() {
                return;
            }
            let pause = if step % 20 == 19 { 1000 } else { self.dice.between(1, 50) };
            self.step(pause);
        }
        panic!("the world does not come to rest:\n{}", self.describe());
    }

    fn is_at_rest(&mut self) -> bool {
        let count = self.scenario.shards;
        let at_rest = |shard: &mut Shard| {
            (0..count).all(|to| shard.relay.outbox(ShardId(to)).is_empty())
                && shard.relay.is_settled()
                && shard.relay.in_flight().0 == 0
                && shard.relay.mail().0 == 0
                && shard.disk.is_idle()
        };
        !self.draining
            && self.management.as_ref().is_none_or(Management::is_at_rest)
            && self.defaults.as_ref().is_none_or(Defaults::is_at_rest)
            && self.shards.iter_mut().all(at_rest)
            && self.mesh.iter().flatten().all(VecDeque::is_empty)
            && self.links.are_quiet()
            && self.clients.iter().all(Client::is_satisfied)
            && self.wires.iter().all(|wire| {
                matches!(wire.relay, RelayEnd::Gone) || wire.to_relay.is_empty() && wire.to_client.is_empty()
            })
    }

    fn describe(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for client in &self.clients {
            let wire = client.online.as_ref().map(|online| &self.wires[online.wire]);
            lines.push(format!("{}; {wire:?}", client.describe()));
        }
        for (n, shard) in self.shards.iter().enumerate() {
            let relay = &shard.relay;
            lines.push(format!(
                "shard {n}: settled {}, in flight {:?}, mail {:?}, disk idle {}, {:?}",
                relay.is_settled(),
                relay.in_flight(),
                relay.mail(),
                shard.disk.is_idle(),
                relay.stats()
            ));
        }
        lines.push(format!("mesh {:?}", self.mesh.iter().flatten().map(VecDeque::len).collect::<Vec<_>>()));
        lines.join("\n")
    }

    /// What holds when everything has been delivered and acknowledged.
    fn check_rest(&mut self) {
        self.model.check_promises();
        for shard in &mut self.shards {
            assert_eq!(shard.relay.in_flight(), (0, 0), "bytes in flight of no message");
        }
    }

    /// Everybody goes; nothing may be left in memory or on the disk.
    fn leave(mut self) {
        for client in &mut self.clients {
            client.not_before = Timestamp(u64::MAX);
            if let Some(online) = &mut client.online {
                online.connection.close(CloseReason::NoReason, 0);
            }
        }
        self.links.hang_up(self.now);
        for _ in 0..2000 {
            self.step(5);
        }
        for client in &self.clients {
            assert!(client.online.is_none(), "{}", client.describe());
        }
        for shard in &self.shards {
            let relay = &shard.relay;
            assert_eq!(relay.connections(), 0, "connections of nobody");
            assert_eq!(relay.output_bytes(), 0, "output of nobody");
            assert_eq!(
                (relay.mail(), relay.in_flight()),
                ((0, 0), (0, 0)),
                "left behind: {}",
                self.describe()
            );
            let alive = shard.disk.replay();
            assert!(alive.is_empty(), "the log still holds what everybody has: {alive:?}");
        }
    }

    /// Nothing grows without bound, whoever is slow.
    fn check_bounds(&mut self) {
        let shards = u64::from(self.scenario.shards);
        // What one connection may add when it is already too much: a read, and what it held of unfinished messages, to
        // every shard and both families.
        let read = (self.scenario.read_bytes + self.scenario.wire.piece + 2 * 2055) as u64;
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let config = &self.scenario.relays[number / usize::from(self.scenario.shards)];
            // To the shards of both families, and to the other relay.
            let added = (read + config.connection.max_held_bytes as u64 + 2055) * (2 * shards + 1);
            // Links stand apart: they are stopped for what came from their relay and waits for the disk, and not for what all
            // connections have in flight.
            let of_links = 2 * config.connection_in_flight_bytes * config.peers.len() as u64;
            let connections = shard.relay.connections() as u64 + 1;
            let most = 2 * config.shard_in_flight_bytes + of_links + connections * added;
            let (_, bytes) = shard.relay.in_flight();
            assert!(bytes <= most, "{bytes} bytes in flight, at most {most} expected");
            // One part where nothing else is, and answers.
            let part = PART_BYTES + PART_BYTES / 100 + 8192;
            let most = config.shard_output_bytes.max(config.connection_output_bytes)
                + shard.relay.connections() * part;
            let bytes = shard.relay.output_bytes();
            assert!(bytes <= most, "{bytes} bytes of output, at most {most} expected");
        }
    }
}
