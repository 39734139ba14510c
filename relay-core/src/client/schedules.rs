//! Seeded schedules of everything that may go wrong between a client and its relay, against the promise to the sender:
//! at least once, in order for each destination, and an end for every message.

use super::scripted_relay::*;
use super::*;
use crate::sstp::{CloseReason, OpenResponseId};
use crate::time::Entropy;
use hashbrown::HashMap;
use std::time::Duration;

const RECIPIENTS: [&str; 4] = ["a", "b", "c", "d"];
const STEPS: usize = 120;

struct Schedule {
    random: Seeded,
    script: Script,
    /// Messages sent, by their id, with recipient and body.
    sent: HashMap<MessageId, (&'static str, Vec<u8>)>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let script = Script::with(Welcome::Anyone, |config| {
            config.limits.open_sessions = 3;
            config.limits.output_high_water = 4096;
        });
        Self { random: Seeded(seed), script, sent: HashMap::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    fn send(&mut self) {
        let to = RECIPIENTS[self.below(4) as usize];
        let number = self.sent.len() as u64;
        let pulled = self.below(3) == 0;
        let (body, whole) = match pulled {
            // Bodies of distinct lengths tell pulled messages apart.
            true => (Body::Pulled { length: 20_000 + number }, pattern(0, 20_000 + number as usize)),
            false => {
                let mut whole = number.to_le_bytes().to_vec();
                whole.resize(8 + self.below(9000) as usize, 7);
                (Body::Whole(whole.clone().into()), whole.into())
            }
        };
        let id = self.script.client.send(OutgoingMessage::new(destination(to), body)).unwrap();
        self.sent.insert(id, (to, whole.to_vec()));
    }

    fn step(&mut self) {
        match self.below(12) {
            0..5 => self.send(),
            5 => self.script.cut(),
            6 => self.script.acknowledging = !self.script.acknowledging,
            7 => self.with_session(|script, session| {
                script.relay().close_session(session, CloseReason::Idle);
            }),
            8 => self.with_session(|script, session| {
                script.relay().respond(session, OpenResponseId::OkStopSending);
            }),
            9 => self.with_session(|script, session| script.relay().respond(session, OpenResponseId::Ok)),
            10 if self.script.relay.is_some() => self.script.acknowledge_all(),
            _ => {
                let pause = Duration::from_millis(self.below(2000));
                self.script.pass(pause);
            }
        }
        // Not always: the next step then finds both sides in the middle of something.
        if self.below(3) > 0 {
            self.script.run();
        } else {
            self.script.run_client();
        }
    }

    fn with_session(&mut self, act: impl FnOnce(&mut Script, crate::sstp::SessionId)) {
        if self.script.relay.is_some() && !self.script.opens.is_empty() {
            let index = self.below(self.script.opens.len() as u64) as usize;
            let session = self.script.opens[index].0;
            act(&mut self.script, session);
        }
    }

    /// All obstacles go away, and time passes.
    fn settle(&mut self) {
        self.script.acknowledging = true;
        self.script.cut();
        self.script.pass(Duration::from_secs(600));
    }

    fn check(&self, seed: u64) {
        let mut ends: HashMap<MessageId, usize> = HashMap::new();
        for event in &self.script.events {
            match event {
                Event::Delivered { message, .. } => {
                    *ends.entry(*message).or_default() += 1;
                    let (to, body) = &self.sent[message];
                    assert!(self.script.bodies(to).contains(body), "seed {seed}: {message:?} never arrived");
                }
                Event::Failed { message, failure: SendFailure::Closed(CloseReason::Idle) } => {
                    *ends.entry(*message).or_default() += 1;
                }
                Event::Failed { message, failure } => panic!("seed {seed}: {message:?} {failure}"),
                _ => {}
            }
        }
        assert_eq!(ends.len(), self.sent.len(), "seed {seed}: every message has an end");
        assert!(ends.values().all(|count| *count == 1), "seed {seed}: one end");
        for to in RECIPIENTS {
            self.check_order(to, seed);
        }
    }

    fn check_order(&self, to: &str, seed: u64) {
        let mut sent: Vec<_> = self.sent.iter().filter(|(_, (recipient, _))| *recipient == to).collect();
        sent.sort_unstable_by_key(|(id, _)| **id);
        let arrived = self.script.bodies(to);
        let first = |body: &Vec<u8>| arrived.iter().position(|found| found == body);
        let firsts: Vec<_> = sent.iter().filter_map(|(_, (_, body))| first(body)).collect();
        assert!(firsts.is_sorted(), "seed {seed}: order to {to}: {firsts:?}");
    }
}

#[test]
fn every_message_ends_once_and_arrives_in_order_whatever_happens() {
    for seed in 0..60 {
        let mut schedule = Schedule::new(seed);
        for _ in 0..STEPS {
            schedule.step();
        }
        schedule.settle();
        schedule.check(seed);
    }
}
