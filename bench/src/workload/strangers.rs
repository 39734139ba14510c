//! `strangers`: people who talk, and an address that keeps thousands of handshakes begun beside them. Rounds take turns, since a
//! machine that others use is not the same from one minute to the next: quiet ones; some in which a decoy is besieged and not the
//! relay, whose processors the strangers and the kernel take all the same; and those in which it is the relay.

use super::traffic::{self, describe_relay, describe_timing};
use crate::failure::Failure;
use crate::load::{Done, Load};
use crate::measure::{Round, Timing, measure};
use crate::payload::Pattern;
use crate::population::{User, make_keys};
use crate::proc_stat;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, Summary, Unit, thousands};
use crate::siege::{Decoy, Kind, Outcome, Plan, Siege};
use crate::sstp_wire::{connect, encode};
use client::SystemEntropy;
use relay_core::directory::Profile;
use relay_core::security::{self, Layer};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a message.
const PAYLOAD: usize = 100;
/// Messages of one sender that may be under way.
const WINDOW: u64 = 512;
/// Where the strangers come from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);
/// Descriptors that this process needs beside the strangers'.
const SPARE_DESCRIPTORS: u64 = 100;
/// How long the relay may take to see strangers off who have gone.
const AFTERMATH: Duration = Duration::from_millis(500);
/// The bound that a relay has to keep.
const MOST: f64 = 2.0;

/// Do people who talk notice an address that keeps thousands of handshakes half-open?
///
/// Relay, people and strangers share this machine; the strangers' thread has the lowest priority (nice 19), as if they had a
/// machine of their own. The medians of many rounds tell more than few long ones: try --rounds 9 --seconds 4.
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
    /// Pairs of people who talk
    #[arg(long, default_value_t = 4)]
    pub(crate) pairs: u32,
    /// Messages a second of all of them together
    #[arg(long, default_value_t = 2000.0)]
    pub(crate) rate: f64,
    #[command(flatten)]
    pub(crate) timing: Timing,
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
    // The last user is the one whose Connect was overheard.
    let relay = RelayProcess::start(&options.relay, 2 * options.pairs + 1, keys)?;
    let plan = options.plan(&relay);
    let decoy = Decoy::start().map_err(Failure::system("decoy"))?;
    let beside = Plan { address: decoy.address, ..plan.clone() };
    let mut rounds = Rounds::default();
    for _ in 0..options.timing.rounds {
        rounds.quiet.push(talk(&relay, options)?);
        rounds.beside.push(besieged(&relay, options, &beside)?.0);
        let (round, outcome) = besieged(&relay, options, &plan)?;
        rounds.attacked.push(round);
        rounds.siege.add(&outcome);
    }
    Ok(report(options, &rounds))
}

/// What was measured.
#[derive(Debug, Default)]
struct Rounds {
    quiet: Vec<Round>,
    /// Besieged is the decoy.
    beside: Vec<Round>,
    attacked: Vec<Round>,
    siege: Outcome,
}

fn besieged(relay: &RelayProcess, options: &Strangers, plan: &Plan) -> Result<(Round, Outcome), Failure> {
    let siege = Siege::lay(plan.clone())?;
    let round = talk(relay, options);
    let outcome = siege.lift()?;
    std::thread::sleep(AFTERMATH);
    Ok((round?, outcome))
}

impl Strangers {
    fn check(&self) -> Result<(), Failure> {
        let own = proc_stat::descriptor_limit(std::process::id()).unwrap_or(1024);
        let most = own.saturating_sub(SPARE_DESCRIPTORS + 2 * u64::from(self.pairs));
        if self.attempts > most {
            return Err(Failure::Setting(format!(
                "--attempts: there are descriptors for {most} (ulimit -n)"
            )));
        }
        if self.pairs == 0 || self.rate <= 0.0 || self.timing.rounds == 0 {
            return Err(Failure::Setting("--pairs, --rate and --rounds must be above 0".into()));
        }
        Ok(())
    }

    /// The strangers have overheard one Connect, and have no key.
    fn plan(&self, relay: &RelayProcess) -> Plan {
        let device = User::new(2 * self.pairs).device;
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

/// One round of people who connect and talk.
fn talk(relay: &RelayProcess, options: &Strangers) -> Result<Round, Failure> {
    let load = Load {
        pattern: Pattern::new(PAYLOAD),
        window: WINDOW,
        ask_every: 1,
        rate: Some(options.rate / f64::from(options.pairs)),
        done: Done::Acknowledged,
        acknowledged: true,
    };
    let timing = Timing { rounds: 1, ..options.timing.clone() };
    let parties = traffic::pairs(relay, options.pairs, true);
    let mut measured = measure(relay.address(), relay.id(), &load, parties, &timing)?;
    measured.rounds.pop().ok_or_else(|| Failure::Wrong("nothing was measured".into()))
}

fn report(options: &Strangers, rounds: &Rounds) -> Report {
    let siege = &rounds.siege;
    let mut report = Report::new("strangers");
    report.setting("attempts", options.attempts);
    report.setting("kind", format!("{:?}", options.kind).to_lowercase());
    report.setting("priority", "strangers nice 19, relay and people as this process");
    report.setting("pause", format!("{} ms", options.pause));
    report.setting("talk", format!("{} messages/s between {} pairs", options.rate, options.pairs));
    describe_timing(&mut report, &options.timing);
    describe_relay(&mut report, &options.relay);
    let seconds = siege.seconds.max(f64::MIN_POSITIVE);
    let per_second = |count: u64| thousands(count as f64 / seconds);
    report.line(format!(
        "strangers: {} dials/s, {} turned away/s, {} Connects answered/s; {} connections held at the end of a round",
        per_second(siege.dials),
        per_second(siege.turned_away),
        per_second(siege.answered),
        thousands(siege.held as f64 / rounds.attacked.len().max(1) as f64),
    ));
    report.result("strangers", siege);
    let kinds = [("quiet", &rounds.quiet), ("beside", &rounds.beside), ("attacked", &rounds.attacked)];
    let [quiet, beside, attacked] = kinds.map(|(name, rounds)| {
        let summary = Summary::of(rounds, Unit::Delivered, PAYLOAD);
        let of_rounds = || rounds.iter().map(|round| round.tally.delivery_latency().p99_us);
        let (least, most) = (of_rounds().fold(f64::INFINITY, f64::min), of_rounds().fold(0.0, f64::max));
        report.line(format!(
            "{name}: p50 {:.0} us, p99 {:.0} us (rounds {least:.0} to {most:.0}), p99.9 {:.0} us to delivery (medians of the \
             rounds); relay {:.2}, generator {:.2} CPU s/s",
            summary.delivery.p50_us,
            summary.delivery.p99_us,
            summary.delivery.p999_us,
            summary.server_cpu,
            summary.generator_cpu,
        ));
        report.result(name, &summary);
        summary
    });
    let ratio = attacked.delivery.p99_us / quiet.delivery.p99_us.max(f64::MIN_POSITIVE);
    let verdict = if ratio <= MOST { "within" } else { "above" };
    report.line(format!("p99 attacked to quiet: {ratio:.2}, {verdict} the bound of {MOST}"));
    report.result("ratio", ratio);
    let of_machine = beside.delivery.p99_us / quiet.delivery.p99_us.max(f64::MIN_POSITIVE);
    report.line(format!("of which a siege of somebody else on this machine: {of_machine:.2}"));
    report.result("ratio_beside", of_machine);
    report
}
