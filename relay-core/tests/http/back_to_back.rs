//! Both ends back to back over a network that cuts bytes anywhere, delays, closes and loses connections: what arrives is the beginning of
//! what was sent, in both directions, and all of it where nothing was lost that cannot be asked for again.

use crate::desk::{START, config};
use bytes::Bytes;
use proptest::prelude::*;
use relay_core::http::Encapsulation;
use relay_core::http::client::{self, HttpClient, HttpClientConfig, Wire};
use relay_core::http::server::{Action, HttpServer, Receipt, SocketId, VirtualId};
use relay_core::sstp::output::OutputQueue;
use relay_core::time::{Entropy, Timestamp};
use std::time::Duration;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

impl Entropy for Dice {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|octet| *octet = self.below(256) as u8);
    }
}

/// A TCP connection.
struct Cable {
    socket: SocketId,
    up: Vec<u8>,
    down: Vec<u8>,
    client_closed: bool,
    relay_closed: bool,
}

struct World {
    dice: Dice,
    now: Timestamp,
    relay: HttpServer,
    client: HttpClient,
    cables: [Option<Cable>; 2],
    dialling: Vec<Wire>,
    connection: Option<VirtualId>,
    /// Connections that may still be lost.
    losses: usize,
    relay_output: OutputQueue,
    client_output: OutputQueue,
    up: Vec<u8>,
    down: Vec<u8>,
    relay_ended: bool,
}

fn stream(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7) as u8 ^ salt).collect()
}

fn queue(bytes: &[u8]) -> OutputQueue {
    let mut output = OutputQueue::default();
    output.encode(|out| out.extend_from_slice(bytes));
    output
}

impl World {
    fn new(encapsulation: Encapsulation, seed: u64, losses: usize, up: &[u8], down: &[u8]) -> Self {
        let mut dice = Dice(seed);
        let config_of_client = HttpClientConfig { encapsulation, authority: "relay:80".into(), proxy: None };
        let client = HttpClient::new(config_of_client, START, &mut dice);
        Self {
            dice,
            now: START,
            relay: HttpServer::new(config()),
            client,
            cables: [None, None],
            dialling: Vec::new(),
            connection: None,
            losses,
            relay_output: queue(down),
            client_output: queue(up),
            up: Vec::new(),
            down: Vec::new(),
            relay_ended: false,
        }
    }

    /// Both ends do what they have to; nothing moves on the network.
    fn settle(&mut self) {
        while let Some(action) = self.client.next_action() {
            match action {
                client::Action::Dial(wire) => self.dialling.push(wire),
                client::Action::Send(wire, bytes) => {
                    if let Some(cable) = &mut self.cables[wire as usize] {
                        cable.up.extend_from_slice(&bytes);
                    }
                    self.client.sent(self.now, wire);
                }
                client::Action::HangUp(wire) => {
                    self.dialling.retain(|dialled| *dialled != wire);
                    if let Some(cable) = self.cables[wire as usize].take() {
                        self.relay.lost(self.now, cable.socket);
                    }
                }
            }
        }
        self.client.send(self.now, &mut self.client_output);
        while let Some(bytes) = self.client.receive(self.now) {
            self.down.extend_from_slice(&bytes);
        }
        self.settle_relay();
    }

    fn settle_relay(&mut self) {
        while let Some(action) = self.relay.next_action() {
            if let Action::Opened { connection, .. } = action {
                assert_eq!(self.connection.replace(connection), None, "one virtual connection");
            }
        }
        if let Some(connection) = self.connection {
            loop {
                match self.relay.receive(self.now, connection) {
                    Receipt::Bytes(bytes) => self.up.extend_from_slice(&bytes),
                    Receipt::Nothing => break,
                    Receipt::End => {
                        self.relay_ended = true;
                        break;
                    }
                }
            }
            if !self.relay_ended && !self.up.is_empty() {
                let _ = self.relay.send(self.now, connection, &mut self.relay_output);
            }
        }
        let mut touched = Vec::new();
        self.relay.take_touched(&mut touched);
        for cable in self.cables.iter_mut().flatten() {
            if let Some(output) = self.relay.output(cable.socket) {
                cable.down.extend_from_slice(&output.take());
                self.relay.sent(self.now, cable.socket);
            }
            cable.relay_closed |= self.relay.is_finished(cable.socket);
        }
    }

    /// One thing happens on the network.
    fn step(&mut self) {
        self.settle();
        if !self.dialling.is_empty() && self.dice.below(2) == 0 {
            let wire = self.dialling.swap_remove(self.dice.below(self.dialling.len()));
            let socket = self.relay.accepted(self.now, None, None).expect("there is room");
            let cable = Cable { socket, up: vec![], down: vec![], client_closed: false, relay_closed: false };
            self.cables[wire as usize] = Some(cable);
            return self.client.connected(self.now, wire);
        }
        let wire = [Wire::Get, Wire::Post][self.dice.below(2)];
        let (lose, upwards, most) =
            (self.losses > 0 && self.dice.below(40) == 0, self.dice.below(2) == 0, self.dice.below(3000) + 1);
        let Some(cable) = &mut self.cables[wire as usize] else { return self.pass_time() };
        if lose {
            self.losses -= 1;
            let socket = cable.socket;
            self.cables[wire as usize] = None;
            self.relay.lost(self.now, socket);
            return self.client.lost(self.now, wire);
        }
        if upwards && !cable.up.is_empty() {
            let bytes: Vec<u8> = cable.up.drain(..most.min(cable.up.len())).collect();
            if self.relay.wants_read(cable.socket) {
                return self.relay.received(self.now, cable.socket, Bytes::from(bytes));
            }
            cable.up.splice(..0, bytes);
        } else if !cable.down.is_empty() {
            let bytes: Vec<u8> = cable.down.drain(..most.min(cable.down.len())).collect();
            return self.client.received(self.now, wire, &bytes);
        } else if cable.relay_closed && !cable.client_closed {
            let socket = cable.socket;
            self.cables[wire as usize] = None;
            self.relay.lost(self.now, socket);
            return self.client.lost(self.now, wire);
        }
        self.pass_time();
    }

    fn pass_time(&mut self) {
        self.now = self.now + Duration::from_millis(self.dice.below(300) as u64);
        self.relay.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
    }
}

fn encapsulations() -> impl Strategy<Value = Encapsulation> {
    prop_oneof![Just(Encapsulation::LongLived), Just(Encapsulation::KeepAlive), Just(Encapsulation::Polling)]
}

/// Runs until everything has arrived or an end has given up; the world then.
fn run(encapsulation: Encapsulation, seed: u64, losses: usize, up: &[u8], down: &[u8]) -> World {
    let mut world = World::new(encapsulation, seed, losses, up, down);
    for _ in 0..200_000 {
        let all = world.up.len() == up.len() && world.down.len() == down.len();
        if all || world.client.failure().is_some() || world.relay_ended {
            break;
        }
        world.step();
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn without_losses_everything_arrives_in_order(
        encapsulation in encapsulations(), seed: u64, up in 1usize..100_000, down in 0usize..100_000,
    ) {
        let (up, down) = (stream(up, 1), stream(down, 2));
        let world = run(encapsulation, seed, 0, &up, &down);
        prop_assert_eq!(world.client.failure(), None);
        prop_assert!(world.up == up, "{} of {} up", world.up.len(), up.len());
        prop_assert!(world.down == down, "{} of {} down", world.down.len(), down.len());
    }

    #[test]
    fn with_losses_what_arrives_is_a_beginning_and_polling_loses_nothing(
        encapsulation in encapsulations(), seed: u64, losses in 1usize..20,
        up in 1usize..60_000, down in 0usize..60_000,
    ) {
        let (up, down) = (stream(up, 1), stream(down, 2));
        let world = run(encapsulation, seed, losses, &up, &down);
        prop_assert!(up.starts_with(&world.up));
        prop_assert!(down.starts_with(&world.down));
        let whole = world.up == up && world.down == down;
        prop_assert!(whole || world.client.failure().is_some() || world.relay_ended);
    }

    #[test]
    fn polling_survives_every_loss_that_is_not_four_times_the_same(seed: u64, up in 1usize..60_000, down in 0usize..60_000) {
        let (up, down) = (stream(up, 1), stream(down, 2));
        let world = run(Encapsulation::Polling, seed, 3, &up, &down);
        prop_assert_eq!(world.client.failure(), None);
        prop_assert!(world.up == up && world.down == down);
    }
}
