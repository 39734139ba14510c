//! Two benches whose relays know each other as peers, with wires between them that the test may hold or cut.

use crate::bench::Bench;
use bytes::Bytes;
use relay_core::address::DeviceUrl;
use relay_core::directory::SecretKey;
use relay_core::relay::{Action, ConnectionId, DialFailure, PeerRelay, RelayConfig, RemoteRelay};
use relay_core::security::PeerSecrets;
use relay_core::sstp::command::FanoutEntry;
use relay_core::sstp::text::Text;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The relays' URLs; the first sorts first.
pub(crate) const URLS: [&str; 2] = ["dpp://one", "dpp://two"];

/// What each relay proves when it calls.
pub(crate) fn secret_of(caller: usize) -> SecretKey {
    SecretKey::new(vec![caller as u8 + 1; 32])
}

fn peer(of: usize) -> PeerRelay {
    let other = 1 - of;
    let secrets = PeerSecrets { calling: secret_of(of), called: secret_of(other) };
    PeerRelay {
        url: DeviceUrl::new(URLS[other]).unwrap(),
        addresses: Arc::new([URLS[other].to_owned()]),
        secrets,
    }
}

/// One end of a wire.
struct End {
    relay: usize,
    shard: usize,
    id: Option<ConnectionId>,
    /// What was sent to it and has not arrived.
    arriving: VecDeque<Bytes>,
}

/// What becomes of calls.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Calls {
    Answered,
    Fail(DialFailure),
    /// The test answers them with [`Pair::answer_call`].
    Held,
}

pub(crate) struct Pair {
    pub(crate) benches: [Bench; 2],
    wires: Vec<[End; 2]>,
    pub(crate) calls: Calls,
    /// Calls that were begun, by the calling relay and its shard.
    pub(crate) begun: Vec<(usize, usize)>,
    held: VecDeque<(usize, usize)>,
    /// Whether bytes move on the wires.
    pub(crate) wires_run: bool,
    /// The most bytes that arrive at once.
    pub(crate) piece: usize,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(1, |_, _| {})
    }

    /// `change` is told which of the two relays it changes.
    pub(crate) fn with(shards: u16, change: impl Fn(usize, &mut RelayConfig)) -> Self {
        let bench = |relay: usize| {
            Bench::named(URLS[relay], shards, |config| {
                config.peers = Arc::new([peer(relay)]);
                change(relay, config);
            })
        };
        Self {
            benches: [bench(0), bench(1)],
            wires: Vec::new(),
            calls: Calls::Answered,
            begun: Vec::new(),
            held: VecDeque::new(),
            wires_run: true,
            piece: usize::MAX,
        }
    }

    /// An entry for an account's identity at a relay, as a client of the other one names it.
    pub(crate) fn entry_at(&self, relay: usize, account: usize, on_device: bool) -> FanoutEntry {
        let relay_url = Text::new(URLS[relay]).unwrap();
        FanoutEntry { relay_url, ..self.benches[relay].entry(account, on_device) }
    }

    /// Wires that both ends know.
    pub(crate) fn links(&self) -> usize {
        self.wires.iter().filter(|wire| wire.iter().all(|end| end.id.is_some())).count()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        for bench in &mut self.benches {
            bench.pass(time);
        }
        self.exchange();
    }

    /// All wires break, with everything on them.
    pub(crate) fn cut(&mut self) {
        for [one, two] in &mut self.wires {
            for end in [one, two] {
                end.arriving.clear();
                if let Some(id) = end.id.take() {
                    let bench = &mut self.benches[end.relay];
                    bench.relays[end.shard].disconnected(bench.now, id);
                }
            }
        }
        self.exchange();
    }

    /// Everything that can happen without time passing happens.
    pub(crate) fn exchange(&mut self) {
        loop {
            let mut moved = false;
            for relay in 0..2 {
                self.benches[relay].exchange();
                moved |= self.take_calls(relay);
            }
            for wire in 0..self.wires.len() {
                for end in 0..2 {
                    moved |= self.put(wire, end) | (self.wires_run && self.take(wire, end));
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn take_calls(&mut self, relay: usize) -> bool {
        let mut calls = 0;
        for shard in 0..self.benches[relay].relays.len() {
            let home = usize::from(peer(relay).home(self.benches[relay].relays.len() as u16).0);
            if shard == home {
                let before = self.benches[relay].actions.len();
                self.benches[relay].actions.retain(|action| !matches!(action, Action::Dial { .. }));
                calls = before - self.benches[relay].actions.len();
                self.begun.extend(std::iter::repeat_n((relay, shard), calls));
                self.held.extend(std::iter::repeat_n((relay, shard), calls));
            }
        }
        match self.calls {
            Calls::Held => {}
            Calls::Answered => while self.answer_call() {},
            Calls::Fail(failure) => {
                for (relay, shard) in std::mem::take(&mut self.held) {
                    let bench = &mut self.benches[relay];
                    bench.relays[shard].dial_failed(bench.now, RemoteRelay(0), failure);
                }
            }
        }
        calls > 0
    }

    /// The oldest held call reaches the other relay; `false` if there is none.
    pub(crate) fn answer_call(&mut self) -> bool {
        let Some((relay, shard)) = self.held.pop_front() else { return false };
        let bench = &mut self.benches[relay];
        let Some(id) = bench.relays[shard].dialed(bench.now, RemoteRelay(0), None) else { return true };
        let caller = End { relay, shard, id: Some(id), arriving: VecDeque::new() };
        let relay = 1 - relay;
        let bench = &mut self.benches[relay];
        let shard = usize::from(peer(relay).home(bench.relays.len() as u16).0);
        let id = bench.relays[shard].connected(bench.now, None, None);
        let called = End { relay, shard, id: Some(id), arriving: VecDeque::new() };
        self.wires.push([caller, called]);
        true
    }

    fn put(&mut self, wire: usize, end: usize) -> bool {
        let End { relay, shard, id, .. } = self.wires[wire][end];
        let Some(id) = id else { return false };
        let bench = &mut self.benches[relay];
        let shard = &mut bench.relays[shard];
        shard.handle_timeout(bench.now);
        let Some(output) = shard.prepare_output(bench.now, id) else { return false };
        let bytes = output.take();
        shard.sent(bench.now, id);
        let finished = shard.is_finished(id);
        if finished {
            shard.disconnected(bench.now, id);
            self.wires[wire][end].id = None;
        }
        let moved = !bytes.is_empty();
        if moved {
            self.wires[wire][1 - end].arriving.push_back(bytes);
        }
        moved || finished
    }

    fn take(&mut self, wire: usize, end: usize) -> bool {
        let other_is_gone = self.wires[wire][1 - end].id.is_none();
        let End { relay, shard, id, ref mut arriving } = self.wires[wire][end];
        let Some(found) = id else { return false };
        let bench = &mut self.benches[relay];
        let shard = &mut bench.relays[shard];
        match arriving.front_mut() {
            Some(bytes) if shard.wants_read(found) => {
                let piece = bytes.split_to(bytes.len().min(self.piece));
                if bytes.is_empty() {
                    arriving.pop_front();
                }
                shard.received(bench.now, found, piece);
                true
            }
            None if other_is_gone => {
                shard.disconnected(bench.now, found);
                self.wires[wire][end].id = None;
                true
            }
            _ => false,
        }
    }
}
