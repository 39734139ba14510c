//! `crash`: the relay is killed under load, again and again, and whatever it had acknowledged must arrive.

use super::drain::receivers;
use super::traffic::describe_relay;
use crate::clock;
use crate::collector::{Collector, Ledger};
use crate::failure::Failure;
use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::payload::{HEAD_BYTES, Pattern};
use crate::population::{User, make_keys};
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, thousands};
use crate::sstp_wire::{Recipients, Role, SstpWire};
use crate::wire::{Wire, Witness};
use relay_core::directory::Profile;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long everything may take to come through at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the last message, how long to look for more duplicates.
const QUIET: Duration = Duration::from_millis(300);

/// Does every message that the relay has acknowledged arrive, even if it is killed (SIGKILL) in the middle of its work?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Crash {
    /// How often the relay is killed
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: u32,
    /// Pairs; in every other one the recipient is offline until the end
    #[arg(long, default_value_t = 8)]
    pub(crate) pairs: u32,
    /// Payload bytes of a message
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: usize,
    /// Messages of one sender that may be under way
    #[arg(long, default_value_t = 256)]
    pub(crate) window: u64,
    /// The longest time from a start to the next kill, in milliseconds; each time is drawn from it
    #[arg(long, default_value_t = 800)]
    pub(crate) life: u64,
    /// Seed of the times of the kills
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// A sender that sends again whatever was not acknowledged before the connection was lost.
#[derive(Debug)]
struct Sender {
    pair: u32,
    role: Role,
    connection: Option<(Link, SstpWire)>,
    /// The next message to send on this connection; messages below `acknowledged` are never sent again.
    next: u64,
    acknowledged: u64,
    /// Messages sent more than once.
    repeated: u64,
    highest: u64,
}

/// Counts acknowledgements.
struct Count(u64);

impl Witness for Count {
    fn acknowledged(&mut self, count: u64) {
        self.0 += count;
    }
    fn begin(&mut self) {}
    fn piece(&mut self, _bytes: &[u8]) {}
    fn end(&mut self) {}
}

#[derive(Debug)]
struct Senders {
    senders: Vec<Sender>,
    pattern: Pattern,
    payload: Vec<u8>,
    window: u64,
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
}

impl Senders {
    fn connect(&mut self, address: SocketAddr) -> Result<(), LoadError> {
        for (token, sender) in self.senders.iter_mut().enumerate() {
            let mut link = Link::connect(address)?;
            let mut wire = SstpWire::new(sender.role.clone());
            self.epoll.add(&link, token)?;
            wire.greet(&mut link.out);
            link.flush(&self.epoll, token)?;
            sender.connection = Some((link, wire));
            sender.repeated += sender.highest - sender.acknowledged;
            sender.next = sender.acknowledged;
        }
        Ok(())
    }

    /// Sends as far as the windows allow, if `more`, and takes in what has come. `false` once a connection is lost.
    fn turn(&mut self, patience: Duration, more: bool) -> Result<bool, LoadError> {
        for token in 0..self.senders.len() {
            self.fill(token, more);
        }
        self.epoll.wait(patience, &mut self.ready)?;
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            if !self.hear(*event)? {
                return Ok(false);
            }
        }
        self.ready = ready;
        Ok(true)
    }

    fn fill(&mut self, token: usize, more: bool) {
        let sender = &mut self.senders[token];
        let Some((link, wire)) = &mut sender.connection else { return };
        if !wire.is_ready() || !wire.may_send() {
            return;
        }
        let limit = if more { sender.acknowledged + self.window } else { sender.highest };
        while sender.next < limit {
            self.pattern.write(sender.pair, sender.next, 0, &mut self.payload);
            let prompt = sender.next % 16 == 15 || sender.next + 1 == limit;
            wire.put(&self.payload, prompt, &mut link.out);
            sender.next += 1;
        }
        sender.highest = sender.highest.max(sender.next);
        // A lost connection shows itself when it is read.
        let _ = link.flush(&self.epoll, token);
    }

    fn hear(&mut self, event: Ready) -> Result<bool, LoadError> {
        let sender = &mut self.senders[event.token];
        let Some((link, wire)) = &mut sender.connection else { return Ok(true) };
        let mut count = Count(0);
        let received = link.receive(&mut self.scratch, |input, out| {
            wire.take(input, out, &mut count).map_err(|error| LoadError::Wire { end: event.token, error })
        });
        sender.acknowledged += count.0;
        match received {
            Ok(true) => {}
            Ok(false) | Err(LoadError::Socket { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        if sender.acknowledged > sender.next {
            return Err(LoadError::TooManyAcknowledged);
        }
        let sent = if event.writable {
            link.unblock(&self.epoll, event.token)
        } else {
            link.flush(&self.epoll, event.token)
        };
        Ok(sent.is_ok())
    }

    fn acknowledged(&self) -> u64 {
        self.senders.iter().map(|sender| sender.acknowledged).sum()
    }

    fn is_settled(&self) -> bool {
        self.senders.iter().all(|sender| sender.acknowledged == sender.highest)
    }
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; in particular if an acknowledged message is lost or a message is damaged.
pub(crate) fn run(options: &Crash) -> Result<Report, Failure> {
    if options.payload < HEAD_BYTES || options.window == 0 || options.pairs == 0 {
        return Err(Failure::Setting(
            "--payload must be at least 16, --window and --pairs at least 1".into(),
        ));
    }
    let keys = Arc::new(make_keys(Profile::Modern));
    let mut relay = RelayProcess::start(&options.relay, 2 * options.pairs, keys)?;
    let pattern = Pattern::new(options.payload);
    let mut senders = senders(options, &relay, &pattern)?;
    let mut online = Collector::new(receivers(&relay, (0..options.pairs).step_by(2), &pattern))?;
    let mut restarts = Vec::new();
    let mut dice = options.seed.wrapping_mul(2).wrapping_add(1);
    for round in 0..=options.rounds {
        online.connect(relay.address())?;
        senders.connect(relay.address())?;
        if round == options.rounds {
            break;
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = options.life / 4 + (dice >> 33) % (options.life * 3 / 4).max(1);
        live(&mut senders, &mut online, Duration::from_millis(life))?;
        relay.kill();
        take_last_words(&mut senders, &mut online)?;
        restarts.push(relay.restart()?.as_secs_f64());
    }
    let everything = settle(options, &relay, &mut senders, online, &pattern)?;
    report(options, &senders, &everything, &restarts)
}

fn senders(options: &Crash, relay: &RelayProcess, pattern: &Pattern) -> Result<Senders, Failure> {
    let sender = |pair: u32| Sender {
        pair,
        role: Role {
            user: User::new(2 * pair),
            keys: relay.keys().clone(),
            collects: false,
            recipients: Recipients::One(User::new(2 * pair + 1)),
        },
        connection: None,
        next: 0,
        acknowledged: 0,
        repeated: 0,
        highest: 0,
    };
    Ok(Senders {
        senders: (0..options.pairs).map(sender).collect(),
        pattern: pattern.clone(),
        payload: vec![0; options.payload],
        window: options.window,
        epoll: Epoll::new().map_err(LoadError::from)?,
        ready: Vec::new(),
        scratch: Vec::new(),
    })
}

/// Puts load on the relay for a while.
fn live(senders: &mut Senders, online: &mut Collector, life: Duration) -> Result<(), Failure> {
    let end = clock::now() + clock::nanoseconds(life);
    while clock::now() < end {
        if !senders.turn(Duration::from_millis(1), true)? {
            return Err(Failure::Wrong("the relay closed a connection before it was killed".into()));
        }
        online.turn(Duration::ZERO)?;
    }
    Ok(())
}

/// Reads what a relay that is dead had still said: acknowledgements in the sockets are promises too.
fn take_last_words(senders: &mut Senders, online: &mut Collector) -> Result<(), Failure> {
    for token in 0..senders.senders.len() {
        while senders.hear(Ready { token, readable: true, writable: false })? {}
        senders.senders[token].connection = None;
    }
    for _ in 0..3 {
        online.turn(Duration::from_millis(1))?;
    }
    Ok(())
}

/// Lets everything come through, those who were offline included. Gives all ledgers by pair.
fn settle(
    options: &Crash,
    relay: &RelayProcess,
    senders: &mut Senders,
    mut online: Collector,
    pattern: &Pattern,
) -> Result<Vec<Totals>, Failure> {
    let deadline = clock::now() + clock::nanoseconds(PATIENCE);
    while !senders.is_settled() && clock::now() < deadline {
        senders.turn(Duration::from_millis(1), false)?;
        online.turn(Duration::ZERO)?;
    }
    if !senders.is_settled() {
        return Err(Failure::Wrong("the relay did not acknowledge everything at the end".into()));
    }
    let mut offline = Collector::new(receivers(relay, (1..options.pairs).step_by(2), pattern))?;
    offline.connect(relay.address())?;
    let ends: Vec<u64> = senders.senders.iter().map(|sender| sender.acknowledged).collect();
    let complete = |collector: &Collector, parity: usize| {
        let ends = ends.iter().skip(parity).step_by(2);
        collector.ledgers().zip(ends).all(|(ledger, &end)| ledger.received >= end)
    };
    let mut quiet_since = clock::now();
    while clock::now() < deadline && clock::now() - quiet_since < clock::nanoseconds(QUIET) {
        online.turn(Duration::from_millis(1))?;
        offline.turn(Duration::from_millis(1))?;
        if !complete(&online, 0) || !complete(&offline, 1) {
            quiet_since = clock::now();
        }
    }
    let totals = |(ledger, &end): (&Ledger, &u64)| Totals::of(ledger, end);
    let even = online.ledgers().zip(ends.iter().step_by(2)).map(totals);
    let odd = offline.ledgers().zip(ends.iter().skip(1).step_by(2)).map(totals);
    Ok(even.chain(odd).collect())
}

#[derive(Clone, Copy, Debug)]
struct Totals {
    lost: u64,
    received: u64,
    duplicates: u64,
    damaged: u64,
}

impl Totals {
    fn of(ledger: &Ledger, acknowledged: u64) -> Self {
        Self {
            lost: ledger.missing_below(acknowledged),
            received: ledger.received,
            duplicates: ledger.duplicates,
            damaged: ledger.damaged,
        }
    }
}

fn report(
    options: &Crash,
    senders: &Senders,
    totals: &[Totals],
    restarts: &[f64],
) -> Result<Report, Failure> {
    let sum = |of: fn(&Totals) -> u64| totals.iter().map(of).sum::<u64>();
    let (lost, duplicates, damaged) = (sum(|it| it.lost), sum(|it| it.duplicates), sum(|it| it.damaged));
    let repeated: u64 = senders.senders.iter().map(|sender| sender.repeated).sum();
    let slowest = restarts.iter().copied().fold(0.0, f64::max);
    let mut report = Report::new("crash");
    report.setting("rounds", options.rounds);
    report.setting("pairs", options.pairs);
    report.setting("payload", options.payload);
    report.setting("window", options.window);
    report.setting("life_ms", options.life);
    report.setting("seed", options.seed);
    describe_relay(&mut report, &options.relay);
    report.line(format!(
        "killed {} times; {} messages acknowledged, {} received, {lost} lost, {duplicates} came twice, {damaged} damaged",
        restarts.len(),
        thousands(senders.acknowledged() as f64),
        thousands(sum(|it| it.received) as f64),
    ));
    report.line(format!(
        "{repeated} messages were sent again after a kill; the slowest restart took {slowest:.2} s"
    ));
    report.result("kills", restarts.len());
    report.result("acknowledged", senders.acknowledged());
    report.result("lost", lost);
    report.result("duplicates", duplicates);
    report.result("damaged", damaged);
    report.result("sent_again", repeated);
    report.result("slowest_restart_seconds", slowest);
    if lost + damaged > 0 {
        report.print(false);
        return Err(Failure::Wrong(format!("{lost} acknowledged messages were lost and {damaged} damaged")));
    }
    Ok(report)
}
