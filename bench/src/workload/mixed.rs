//! `mixed`: what a day is like: messages of all lengths, some to many recipients, while people come and go.

use super::auth::Slots;
use super::traffic::{self, describe_relay, describe_timing};
use crate::failure::Failure;
use crate::load::{Done, Load, LoadError, Party};
use crate::measure::{Measured, Timing, measure};
use crate::payload::Pattern;
use crate::population::{User, make_keys};
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, Summary, Unit};
use crate::sstp_wire::{Recipients, SstpWire};
use relay_core::directory::Profile;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One sender in so many sends to many: 5 %.
const FANOUT_EVERY: u32 = 20;
/// Users who come and go.
const GUESTS: u32 = 500;
/// How often those who come and go do so.
const CHURN_TICK: Duration = Duration::from_millis(50);

/// What does the relay do with messages of all lengths (Zipf), 5 % of them to many recipients, while people come and go?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(crate) crowd: Crowd,
    #[command(flatten)]
    pub(crate) timing: Timing,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Who does what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Crowd {
    /// Senders; one in 20 sends to many recipients, the others to one
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(crate) senders: u32,
    /// Recipients of those who send to many
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) recipients: u32,
    /// The longest payload in bytes; the shortest has 64
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    pub(crate) longest: u32,
    /// Messages of one sender that may be under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: u32,
    /// Connections that come, prove who they are, attach and go, in a second
    #[arg(long, default_value_t = 100)]
    pub(crate) churn: u32,
}

impl Crowd {
    /// Users that take part.
    fn users(&self) -> u32 {
        (0..self.senders).map(|sender| 1 + self.recipients_of(sender)).sum()
    }

    fn recipients_of(&self, sender: u32) -> u32 {
        if sender.is_multiple_of(FANOUT_EVERY) { self.recipients } else { 1 }
    }

    fn parties(&self, relay: &RelayProcess) -> Vec<Party<SstpWire>> {
        let mut first = 0;
        let mut parties = Vec::new();
        for sender in 0..self.senders {
            let members = first + 1..first + 1 + self.recipients_of(sender);
            let users: Vec<_> = members.clone().map(User::new).collect();
            let recipients = match &users[..] {
                [one] => Recipients::One(one.clone()),
                _ => Recipients::Many(users),
            };
            let sending = traffic::sender(relay, first, recipients);
            first = members.end;
            let receiving = members.map(|user| traffic::receiver(relay, user)).collect();
            parties.push(Party { sender, sending, receiving });
        }
        parties
    }

    /// Writes the settings into a report.
    pub(crate) fn describe(&self, report: &mut Report) {
        report.setting("senders", self.senders);
        report.setting("recipients", self.recipients);
        report.setting("longest", self.longest);
        report.setting("window", self.window);
        report.setting("churn", self.churn);
    }
}

/// Starts a relay and lets the crowd have its day; also the number of guests who came, and the mean length of a payload.
///
/// # Errors
/// [`Failure`]; also if a byte, the order or a count is wrong.
pub(crate) fn a_day(
    crowd: &Crowd,
    timing: &Timing,
    options: &RelayOptions,
) -> Result<(Measured, u64, usize), Failure> {
    let pattern = Pattern::zipf(crowd.longest as usize);
    let mean = pattern.mean();
    let load = Load {
        pattern,
        window: u64::from(crowd.window),
        ask_every: u64::from(crowd.window / 2).clamp(1, 64),
        rate: None,
        done: Done::Acknowledged,
        acknowledged: true,
    };
    let keys = Arc::new(make_keys(Profile::Modern));
    let users = crowd.users();
    let relay = RelayProcess::start(options, users + GUESTS, keys)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guests = scope.spawn(|| come_and_go(&relay, users, crowd.churn, &over));
        let measured = measure(relay.address(), relay.id(), &load, crowd.parties(&relay), timing);
        over.store(true, Ordering::SeqCst);
        let guests = guests.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((measured?, guests, mean))
    })
}

/// So many connections a second by users from `first` on, until it is over; how many there were.
fn come_and_go(
    relay: &RelayProcess,
    first: u32,
    per_second: u32,
    over: &AtomicBool,
) -> Result<u64, LoadError> {
    let in_a_tick = (f64::from(per_second) * CHURN_TICK.as_secs_f64()).ceil() as u64;
    if in_a_tick == 0 {
        return Ok(0);
    }
    let mut slots = Slots::new(relay, first..first + GUESTS, 1)?;
    let (mut came, mut tick) = (0, crate::clock::now());
    while !over.load(Ordering::SeqCst) {
        while slots.tally.acknowledged < came + in_a_tick && !over.load(Ordering::SeqCst) {
            slots.run(Duration::from_millis(1))?;
        }
        came = slots.tally.acknowledged;
        tick += crate::clock::nanoseconds(CHURN_TICK);
        crate::clock::sleep_until(tick);
    }
    Ok(came)
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a byte, the order or a count is wrong.
pub(crate) fn run(options: &Mixed) -> Result<Report, Failure> {
    let (measured, guests, mean) = a_day(&options.crowd, &options.timing, &options.relay)?;
    let mut report = Report::new("mixed");
    options.crowd.describe(&mut report);
    describe_timing(&mut report, &options.timing);
    describe_relay(&mut report, &options.relay);
    report.summary(&Summary::of(&measured.rounds, Unit::Acknowledged, mean));
    let sent: u64 = measured.sent.iter().map(|(_, sent)| sent).sum();
    report.line(format!(
        "checked: {sent} messages of {mean} bytes on average sent, all acknowledged, all delivered once to everybody, in order, \
         every byte as sent; {guests} connections came and went"
    ));
    report.result("checked_messages", sent);
    report.result("guests", guests);
    report.result("mean_payload", mean);
    Ok(report)
}
