//! Two machines whose owners do random things: the invariants of message delivery and of acknowledgement.

use crate::pair::{Pair, Side, config, drain, text};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::connection::{Endpoint, Part};
use relay_core::sstp::{CloseReason, ConnectionConfig, Event, OpenResponseId, SessionId};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

/// The longest message.
const MOST_BYTES: usize = 300 * 1024;

/// What payloads are slices of; its period is a prime, so that a slice from elsewhere differs.
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..2 * MOST_BYTES).map(|n| (n % 65_537 % 251) as u8).collect());

const BOTH: [Side; 2] = [Side::Initiator, Side::Acceptor];

/// One random act. `pick` chooses among what is there.
#[derive(Clone, Debug)]
enum Act {
    Open(Side),
    Begin { side: Side, pick: usize, bytes: usize },
    Push { side: Side, pick: usize, bytes: usize },
    Finish { side: Side, pick: usize },
    Complete { side: Side, pick: usize },
    CloseOwn { side: Side, pick: usize },
    ClosePeers { side: Side, pick: usize },
    Stop { side: Side, pick: usize },
    Resume { side: Side, pick: usize },
    Deliver { from: Side, bytes: usize },
    Wait { millis: u64 },
}

fn some_act() -> impl Strategy<Value = Act> {
    let bytes = prop_oneof![4 => 0usize..3000, 2 => 0usize..40_000, 1 => 0..=MOST_BYTES].boxed();
    let side = prop_oneof![Just(Side::Initiator), Just(Side::Acceptor)];
    let chosen = (side, any::<usize>()).boxed();
    let sized = (chosen.clone(), bytes).boxed();
    prop_oneof![
        2 => chosen.clone().prop_map(|(side, _)| Act::Open(side)),
        6 => sized.clone().prop_map(|((side, pick), bytes)| Act::Begin { side, pick, bytes }),
        6 => sized.clone().prop_map(|((side, pick), bytes)| Act::Push { side, pick, bytes }),
        5 => chosen.clone().prop_map(|(side, pick)| Act::Finish { side, pick }),
        4 => chosen.clone().prop_map(|(side, pick)| Act::Complete { side, pick }),
        1 => chosen.clone().prop_map(|(side, pick)| Act::CloseOwn { side, pick }),
        1 => chosen.clone().prop_map(|(side, pick)| Act::ClosePeers { side, pick }),
        1 => chosen.clone().prop_map(|(side, pick)| Act::Stop { side, pick }),
        1 => chosen.prop_map(|(side, pick)| Act::Resume { side, pick }),
        8 => sized.prop_map(|((from, _), bytes)| Act::Deliver { from, bytes }),
        2 => (0u64..6000).prop_map(|millis| Act::Wait { millis }),
    ]
}

/// A message: its tag names it, its payload is a slice of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    tag: u64,
    bytes: usize,
}

impl Sent {
    fn payload(self) -> Bytes {
        let start = (self.tag as usize).wrapping_mul(7919) % MOST_BYTES;
        PATTERN.slice(start..start + self.bytes)
    }
}

/// A session as its originator sees it.
#[derive(Debug, Default)]
struct Outgoing {
    in_progress: Option<(Sent, Bytes)>,
    ended: Vec<Sent>,
    closed_by_us: bool,
    closed_by_peer: bool,
}

/// A session as its receiver sees it.
#[derive(Debug, Default)]
struct Incoming {
    arriving: Option<(u64, Vec<Bytes>, u32)>,
    received: Vec<Sent>,
    open: bool,
}

/// The owner of one machine.
#[derive(Debug, Default)]
struct Owner {
    outgoing: BTreeMap<u32, Outgoing>,
    incoming: BTreeMap<u32, Incoming>,
    unfinished: Vec<InboundSeq>,
    /// Tags in order of their EndMessage.
    ended: Vec<u64>,
    acknowledged: Vec<u64>,
}

/// The session that `pick` chooses among those that `fits` allows.
fn choose<T>(sessions: &BTreeMap<u32, T>, pick: usize, fits: impl Fn(&T) -> bool) -> Option<u32> {
    let fitting: Vec<u32> = sessions.iter().filter(|(_, session)| fits(session)).map(|(&id, _)| id).collect();
    (!fitting.is_empty()).then(|| fitting[pick % fitting.len()])
}

struct World {
    pair: Pair,
    owners: [Owner; 2],
    next_tag: u64,
}

impl World {
    fn new(max_held_bytes: usize) -> Self {
        let config = |endpoint| ConnectionConfig {
            idle_deadline: Duration::from_secs(1_000_000),
            max_held_bytes,
            ..config(endpoint)
        };
        Self {
            pair: Pair::established(config(Endpoint::Client), config(Endpoint::Relay)),
            owners: Default::default(),
            next_tag: 1,
        }
    }

    fn owner(&mut self, side: Side) -> &mut Owner {
        &mut self.owners[side as usize]
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Open(side) => self.open(side),
            Act::Begin { side, pick, bytes } => self.begin(side, pick, bytes),
            Act::Push { side, pick, bytes } => self.push(side, pick, bytes),
            Act::Finish { side, pick } => self.finish(side, pick),
            Act::Complete { side, pick } => self.complete(side, pick),
            Act::CloseOwn { side, pick } => self.close_own(side, pick),
            Act::ClosePeers { side, pick } => self.close_peers(side, pick),
            Act::Stop { side, pick } => self.respond(side, pick, OpenResponseId::OkStopSending),
            Act::Resume { side, pick } => self.respond(side, pick, OpenResponseId::Ok),
            Act::Deliver { from, bytes } => self.deliver(from, bytes),
            Act::Wait { millis } => self.wait(Duration::from_millis(millis)),
        }
    }

    fn open(&mut self, side: Side) {
        let session = self.pair.machine(side).open(text("app"), text("identity"), text(""));
        let session = session.expect("fewer sessions than allowed").0;
        let replaced = self.owner(side).outgoing.insert(session, Outgoing::default());
        assert!(replaced.is_none(), "SessionId {session} used twice");
    }

    fn begin(&mut self, side: Side, pick: usize, bytes: usize) {
        let machine = self.pair.machine(side);
        let idle: BTreeMap<u32, ()> = self.owners[side as usize]
            .outgoing
            .iter()
            .filter(|(id, session)| session.in_progress.is_none() && machine.may_send(SessionId(**id)))
            .map(|(&id, _)| (id, ()))
            .collect();
        let Some(id) = choose(&idle, pick, |()| true) else { return };
        let sent = Sent { tag: self.next_tag, bytes };
        self.next_tag += 1;
        let flags = if sent.tag.is_multiple_of(5) { 0x04 } else { 0 };
        let tail = format!("{}\0", sent.tag);
        self.pair.machine(side).begin_message(SessionId(id), flags, tail.as_bytes());
        let session = self.owner(side).outgoing.get_mut(&id).expect("it was chosen");
        session.in_progress = Some((sent, sent.payload()));
    }

    fn push(&mut self, side: Side, pick: usize, bytes: usize) {
        let Some(id) = choose(&self.owner(side).outgoing, pick, |session| session.in_progress.is_some())
        else {
            return;
        };
        let session = self.owner(side).outgoing.get_mut(&id).expect("it was chosen");
        let (_, rest) = session.in_progress.as_mut().expect("it was chosen so");
        let piece = rest.split_to(bytes.min(rest.len()));
        self.pair.machine(side).message_data(SessionId(id), piece);
    }

    fn finish(&mut self, side: Side, pick: usize) {
        let Some(id) = choose(&self.owner(side).outgoing, pick, |session| session.in_progress.is_some())
        else {
            return;
        };
        let session = self.owner(side).outgoing.get_mut(&id).expect("it was chosen");
        let (sent, rest) = session.in_progress.take().expect("it was chosen so");
        session.ended.push(sent);
        self.owner(side).ended.push(sent.tag);
        let machine = self.pair.machine(side);
        machine.message_data(SessionId(id), rest);
        machine.end_message(SessionId(id), sent.tag);
    }

    fn complete(&mut self, side: Side, pick: usize) {
        let unfinished = &mut self.owner(side).unfinished;
        if !unfinished.is_empty() {
            let message = unfinished.swap_remove(pick % unfinished.len());
            self.pair.machine(side).complete(message);
        }
    }

    /// The originator abandons what it was sending.
    fn close_own(&mut self, side: Side, pick: usize) {
        let open = |session: &Outgoing| !session.closed_by_us && !session.closed_by_peer;
        let Some(id) = choose(&self.owner(side).outgoing, pick, open) else { return };
        let session = self.owner(side).outgoing.get_mut(&id).expect("it was chosen");
        session.closed_by_us = true;
        session.in_progress = None;
        self.pair.machine(side).close_session(SessionId(id), CloseReason::Idle);
    }

    fn close_peers(&mut self, side: Side, pick: usize) {
        let Some(id) = choose(&self.owner(side).incoming, pick, |session| session.open) else { return };
        self.owner(side).incoming.get_mut(&id).expect("it was chosen").open = false;
        self.pair.machine(side).close_session(SessionId(id), CloseReason::QuotaWouldBeExceeded);
    }

    fn respond(&mut self, side: Side, pick: usize, response: OpenResponseId) {
        let Some(id) = choose(&self.owner(side).incoming, pick, |session| session.open) else { return };
        self.pair.machine(side).respond(SessionId(id), response);
    }

    fn deliver(&mut self, from: Side, bytes: usize) {
        for event in self.pair.deliver(from, bytes) {
            self.event(from.other(), event);
        }
        for side in BOTH {
            let machine = self.pair.machine(side);
            assert!(machine.is_established());
        }
    }

    fn wait(&mut self, time: Duration) {
        self.pair.now = self.pair.now + time;
        let now = self.pair.now;
        for side in BOTH {
            let machine = self.pair.machine(side);
            machine.handle_timeout(now);
            machine.prepare_output(now);
            for event in drain(machine, now) {
                self.event(side, event);
            }
        }
    }

    fn event(&mut self, side: Side, event: Event) {
        match event {
            Event::Open(open) => {
                let response = match open.session.0 % 6 {
                    0 => OpenResponseId::OkStopSending,
                    5 => OpenResponseId::Unknown,
                    _ => OpenResponseId::Ok,
                };
                let incoming = Incoming { open: response != OpenResponseId::Unknown, ..Default::default() };
                self.owner(side).incoming.insert(open.session.0, incoming);
                self.pair.machine(side).respond(open.session, response);
            }
            Event::SessionReady(_) | Event::SessionStopped(_) => {}
            Event::SessionRefused { session, .. } => {
                let session = self.owner(side).outgoing.get_mut(&session.0).expect("we opened it");
                session.closed_by_peer = true;
            }
            Event::SessionClosed { session, .. } => self.session_closed(side, session),
            Event::Part { session, part, end } => self.part(side, session, part, end),
            Event::Acknowledged { session, tag, count } => {
                assert_eq!(count, 1, "every message has a tag of its own");
                let owner = self.owner(side);
                let ended = &owner.outgoing[&session.0].ended;
                assert!(ended.iter().any(|sent| sent.tag == tag), "{tag} is not of {session:?}");
                owner.acknowledged.push(tag);
            }
            other => panic!("{side:?} got {other:?}"),
        }
    }

    fn session_closed(&mut self, side: Side, session: SessionId) {
        if let Some(outgoing) = self.owner(side).outgoing.get_mut(&session.0) {
            outgoing.closed_by_peer = true;
            // Some owners abandon the message in progress, some finish it: both are legal.
            if outgoing.in_progress.as_ref().is_some_and(|(sent, _)| sent.tag.is_multiple_of(2)) {
                outgoing.in_progress = None;
            }
        } else {
            self.owner(side).incoming.get_mut(&session.0).expect("it is known").open = false;
        }
    }

    fn part(&mut self, side: Side, session: SessionId, part: Part, end: Option<InboundSeq>) {
        let owner = self.owner(side);
        let incoming = owner.incoming.get_mut(&session.0).expect("it was opened");
        assert!(incoming.open, "a part on a closed session");
        let tag = std::str::from_utf8(&part.tail[..part.tail.len() - 1]).expect("ASCII");
        let tag: u64 = tag.parse().expect("we wrote a number");
        assert_eq!(part.flags, if tag.is_multiple_of(5) { 0x04 } else { 0 });
        assert_eq!(part.payload.iter().map(Bytes::len).sum::<usize>(), part.payload_bytes);
        assert!(part.payload_bytes <= relay_core::store::PART_BYTES);
        let (in_progress, slices, index) = incoming.arriving.get_or_insert_with(|| (tag, Vec::new(), 0));
        assert_eq!((*in_progress, *index), (tag, part.index));
        *index += 1;
        slices.extend(part.payload.iter().cloned());
        if let Some(end) = end {
            let (tag, slices, _) = incoming.arriving.take().expect("it was just there");
            let payload = slices.concat();
            let sent = Sent { tag, bytes: payload.len() };
            assert!(payload == sent.payload(), "message {tag} of {} bytes arrived changed", payload.len());
            incoming.received.push(sent);
            owner.unfinished.push(end);
        }
    }

    /// Everybody finishes everything.
    fn settle(&mut self) {
        for side in BOTH {
            while self.owner(side).outgoing.values().any(|session| session.in_progress.is_some()) {
                self.finish(side, 0);
            }
        }
        for _ in 0..4 {
            for side in BOTH {
                self.deliver(side, usize::MAX);
                while !self.owner(side.other()).unfinished.is_empty() {
                    self.complete(side.other(), 0);
                }
            }
            self.wait(Duration::from_secs(5));
        }
    }

    fn check(&mut self) {
        for side in BOTH {
            let machine = self.pair.machine(side);
            assert_eq!(machine.unfinished(), 0, "{side:?} has not acknowledged everything");
            assert_eq!(machine.unacknowledged(), 0, "{side:?} was not told of everything");
            assert_eq!(machine.held_bytes(), 0, "{side:?} counts bytes of messages that are gone");
            let sender = &self.owners[side as usize];
            assert_eq!(sender.acknowledged, sender.ended, "{side:?}: each once, in order of EndMessage");
            let receiver = &self.owners[side.other() as usize];
            for (id, outgoing) in &sender.outgoing {
                let received = &receiver.incoming[id].received;
                if outgoing.closed_by_us || outgoing.closed_by_peer {
                    assert!(outgoing.ended.starts_with(received), "{side:?} {id}: {received:?}");
                } else {
                    assert_eq!(received, &outgoing.ended, "{side:?} {id}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn two_machines_lose_nothing_and_acknowledge_everything_once(
        acts in vec(some_act(), 1..160),
        max_held_bytes in prop_oneof![Just(1usize << 20), 0usize..20_000],
    ) {
        let mut world = World::new(max_held_bytes);
        for side in BOTH {
            world.open(side);
            world.open(side);
            world.deliver(side, usize::MAX);
            world.deliver(side.other(), usize::MAX);
        }
        for act in acts {
            world.act(act);
        }
        world.settle();
        world.check();
    }
}
