//! `auth`: connections that prove who they are, and registrations.

use super::traffic::{describe_relay, describe_timing};
use crate::clock;
use crate::failure::Failure;
use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::measure::Timing;
use crate::population::{User, make_keys};
use crate::proc_stat::Usage;
use crate::registrar;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, median, thousands};
use crate::sstp_wire::{Recipients, Role, SstpWire};
use crate::tally::{Latency, Tally};
use crate::wire::{Deaf, Wire};
use relay_core::directory::Profile;
use relay_core::security::ClientCredentials;
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Users who take turns in connecting.
const USERS: u32 = 2000;

/// How many devices a second prove who they are, and how many register, in each security profile?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Auth {
    /// Handshakes under way at the same time
    #[arg(long, default_value_t = 64)]
    pub(crate) concurrent: u32,
    #[command(flatten)]
    pub(crate) timing: Timing,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// What one profile does.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    connects_per_second: f64,
    connect: Latency,
    server_us_per_connect: f64,
    registrations_per_second: f64,
    registration: Latency,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if anybody is refused.
pub(crate) fn run(options: &Auth) -> Result<Report, Failure> {
    let mut report = Report::new("auth");
    report.setting("concurrent", options.concurrent);
    describe_timing(&mut report, &options.timing);
    describe_relay(&mut report, &options.relay);
    report.line(
        "a connect is Connect, ConnectAuthenticate, Attach and AttachAuthenticate on a new TCP connection",
    );
    for (name, profile) in [("modern", Profile::Modern), ("legacy", Profile::Legacy)] {
        let outcome = one_profile(options, profile)?;
        report.line(format!(
            "{name}: {} connects/s (p50 {:.0} us, p99 {:.0} us; server {:.1} us each), {} registrations/s (p50 {:.0} us, \
             p99 {:.0} us)",
            thousands(outcome.connects_per_second),
            outcome.connect.p50_us,
            outcome.connect.p99_us,
            outcome.server_us_per_connect,
            thousands(outcome.registrations_per_second),
            outcome.registration.p50_us,
            outcome.registration.p99_us,
        ));
        report.result(name, outcome);
    }
    Ok(report)
}

fn one_profile(options: &Auth, profile: Profile) -> Result<Outcome, Failure> {
    let keys = Arc::new(make_keys(profile));
    let relay = RelayProcess::start(&options.relay, USERS, keys.clone())?;
    let round = Duration::from_secs_f64(options.timing.seconds);
    let mut slots = Slots::new(&relay, 0..USERS, options.concurrent)?;
    slots.run(Duration::from_secs_f64(options.timing.warm_up))?;
    let mut rates = Vec::new();
    let mut tally = Tally::default();
    let (before, mut connects) = (Usage::of(relay.id()), 0);
    for _ in 0..options.timing.rounds {
        let start = clock::now();
        slots.tally = Tally::default();
        slots.run(round)?;
        connects += slots.tally.acknowledged;
        rates.push(slots.tally.acknowledged as f64 * 1e9 / (clock::now() - start) as f64);
        tally.add(&slots.tally);
    }
    let cpu = Usage::of(relay.id()).cpu() - before.cpu();
    drop(slots);
    let registered = registrar::register_many(&relay, &keys, options.concurrent.min(32), round)?;
    Ok(Outcome {
        connects_per_second: median(rates),
        connect: tally.acknowledgement_latency(),
        server_us_per_connect: cpu * 1e6 / connects.max(1) as f64,
        registrations_per_second: registered.per_second,
        registration: registered.latency,
    })
}

/// Handshakes under way; when one is over, the next one takes its place.
pub(crate) struct Slots<'a> {
    relay: &'a RelayProcess,
    users: Range<u32>,
    keys: Arc<ClientCredentials>,
    epoll: Epoll,
    slots: Vec<(Link, SstpWire, u64)>,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
    next_user: u32,
    /// What was done, with the time from connecting to attached.
    pub(crate) tally: Tally,
}

impl<'a> Slots<'a> {
    /// Begins `count` handshakes. The users of these numbers take turns.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) fn new(relay: &'a RelayProcess, users: Range<u32>, count: u32) -> Result<Self, LoadError> {
        let mut slots = Self {
            relay,
            next_user: users.start,
            users,
            keys: relay.keys().clone(),
            epoll: Epoll::new()?,
            slots: Vec::new(),
            ready: Vec::new(),
            scratch: Vec::new(),
            tally: Tally::default(),
        };
        for token in 0..count.max(1) as usize {
            let slot = slots.begin(token)?;
            slots.slots.push(slot);
        }
        Ok(slots)
    }

    fn begin(&mut self, token: usize) -> Result<(Link, SstpWire, u64), LoadError> {
        let began = clock::now();
        let mut link = Link::connect(self.relay.address())?;
        link.reset_on_close()?;
        let role = Role {
            user: User::new(self.next_user),
            keys: self.keys.clone(),
            collects: true,
            recipients: Recipients::Nobody,
        };
        self.next_user =
            if self.next_user + 1 < self.users.end { self.next_user + 1 } else { self.users.start };
        let mut wire = SstpWire::new(role);
        self.epoll.add(&link, token)?;
        wire.greet(&mut link.out);
        link.flush(&self.epoll, token)?;
        Ok((link, wire, began))
    }

    /// Goes on for so long.
    ///
    /// # Errors
    /// [`LoadError`]; also if anybody is refused.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), LoadError> {
        let end = clock::now() + clock::nanoseconds(time);
        while clock::now() < end {
            self.epoll.wait(Duration::from_millis(20), &mut self.ready)?;
            for event in std::mem::take(&mut self.ready) {
                self.advance(event.token)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, token: usize) -> Result<(), LoadError> {
        let (link, wire, began) = &mut self.slots[token];
        let open = link.receive(&mut self.scratch, |input, out| {
            wire.take(input, out, &mut Deaf).map_err(|error| LoadError::Wire { end: token, error })
        })?;
        if !open {
            return Err(LoadError::Closed(token));
        }
        link.flush(&self.epoll, token)?;
        if wire.is_ready() {
            self.tally.acknowledgement(clock::now() - *began);
            self.tally.acknowledged += 1;
            self.slots[token] = self.begin(token)?;
        }
        Ok(())
    }
}
