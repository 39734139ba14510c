//! `strangers`: people who talk, and an address that keeps thousands of handshakes begun beside them. In some rounds a decoy is
//! besieged and not the relay, whose processors the strangers and the kernel take all the same.

use super::talk::{self, Talk, Turns, Words};
use super::traffic::describe_relay;
use crate::failure::Failure;
use crate::measure::Round;
use crate::population::{User, make_keys};
use crate::proc_stat;
use crate::processors::Processors;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, thousands};
use crate::siege::{Decoy, Kind, Outcome, Plan, Siege};
use crate::sstp_wire::{connect, encode};
use client::SystemEntropy;
use relay_core::directory::Profile;
use relay_core::security::{self, Layer};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Where the strangers come from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);
/// Descriptors that this process needs beside the strangers'.
const SPARE_DESCRIPTORS: u64 = 100;
/// The bound that a relay has to keep.
const MOST: f64 = 2.0;

/// Do people who talk notice an address that keeps thousands of handshakes half-open?
///
/// The relay has all processors but the last. People and strangers share that one, where the strangers get what the people leave
/// (SCHED_IDLE), as if they had a machine of their own. The medians of many rounds tell more than few long ones: try --rounds 9.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Strangers {
    /// Handshakes that the strangers keep begun
    #[arg(long, default_value_t = 10_000)]
    pub(crate) attempts: u64,
    /// What they do
    #[arg(long, value_enum, default_value_t = Kind::Handshake)]
    pub(crate) kind: Kind,
    /// Milliseconds from being turned away or cut off to the next dial of the same attempt
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) pause: u64,
    #[command(flatten)]
    pub(crate) talk: Talk,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a message is lost or damaged.
pub(crate) fn run(options: &Strangers) -> Result<Report, Failure> {
    options.check()?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let processors = Processors::divide()?;
    let (relay, decoy) = processors.start(|| {
        // The last user is the one whose Connect was overheard.
        let relay = RelayProcess::start(&options.relay, options.talk.users() + 1, keys)?;
        Ok((relay, Decoy::start().map_err(Failure::system("decoy"))?))
    })?;
    let plan = options.plan(&relay);
    let beside = Plan { address: decoy.address, ..plan.clone() };
    let (mut turns, mut siege) = (Turns::default(), Outcome::default());
    for _ in 0..options.talk.timing.rounds {
        turns.quiet.push(options.talk.round(&relay)?);
        turns.beside.push(besieged(&relay, options, &beside)?.0);
        let (round, outcome) = besieged(&relay, options, &plan)?;
        turns.troubled.push(round);
        siege.add(&outcome);
    }
    Ok(report(options, &processors, &turns, &siege))
}

fn besieged(relay: &RelayProcess, options: &Strangers, plan: &Plan) -> Result<(Round, Outcome), Failure> {
    let siege = Siege::lay(plan.clone())?;
    let round = options.talk.round(relay);
    let outcome = siege.lift()?;
    talk::settle();
    Ok((round?, outcome))
}

impl Strangers {
    fn check(&self) -> Result<(), Failure> {
        let own = proc_stat::descriptor_limit(std::process::id()).unwrap_or(1024);
        let most = own.saturating_sub(SPARE_DESCRIPTORS + u64::from(self.talk.users()));
        if self.attempts > most {
            return Err(Failure::Setting(format!(
                "--attempts: there are descriptors for {most} (ulimit -n)"
            )));
        }
        self.talk.check()
    }

    /// The strangers have overheard one Connect, and have no key.
    fn plan(&self, relay: &RelayProcess) -> Plan {
        let device = User::new(self.talk.users()).device;
        let hello =
            security::hello(Layer::Device, device.as_str(), relay.keys(), &mut SystemEntropy::default());
        let mut overheard = Vec::new();
        encode(&connect(&device, hello.token.clone()), &mut overheard);
        Plan {
            address: relay.address(),
            source: SOURCE,
            attempts: self.attempts as usize,
            kind: self.kind,
            connect: overheard,
            pause: Duration::from_millis(self.pause),
        }
    }
}

fn report(options: &Strangers, processors: &Processors, turns: &Turns, siege: &Outcome) -> Report {
    let mut report = Report::new("strangers");
    report.setting("attempts", options.attempts);
    report.setting("kind", format!("{:?}", options.kind).to_lowercase());
    processors.describe(&mut report, "strangers");
    report.setting("pause", format!("{} ms", options.pause));
    options.talk.describe(&mut report);
    describe_relay(&mut report, &options.relay);
    let seconds = siege.seconds.max(f64::MIN_POSITIVE);
    let per_second = |count: u64| thousands(count as f64 / seconds);
    report.line(format!(
        "strangers: {} dials/s, {} turned away/s, {} Connects answered/s; {} connections held at the end of a round",
        per_second(siege.dials),
        per_second(siege.turned_away),
        per_second(siege.answered),
        thousands(siege.held as f64 / turns.troubled.len().max(1) as f64),
    ));
    report.result("strangers", siege);
    let elsewhere = "a siege of somebody else on this machine";
    turns.report(&mut report, Words { troubled: "attacked", elsewhere, most: MOST });
    report
}
