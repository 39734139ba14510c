//! `connections`: many devices that have authenticated and do nothing but stay.

use super::connection_limits::{Machine, Plan};
use super::traffic::{self, describe_relay};
use crate::children::Running;
use crate::failure::Failure;
use crate::holder::Held;
use crate::load::{Done, Load};
use crate::measure::{Timing, measure};
use crate::payload::Pattern;
use crate::population::make_keys;
use crate::proc_stat;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, Summary, Unit, thousands};
use relay_core::directory::Profile;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pairs of the trickle.
pub(super) const PAIRS: u32 = 4;
/// Messages a second of the trickle.
const TRICKLE: f64 = 200.0;
/// Generator processes that connect at the same time. More would only wait for one another, and for their handshakes.
const DIALING: usize = 4;
/// How much does an idle authenticated connection cost, how fast do they come, and do those who talk notice them?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connections {
    /// Connections to hold
    #[arg(long, default_value_t = 10_000, conflicts_with = "max")]
    pub(crate) count: u64,
    /// Hold as many as the machine allows
    #[arg(long)]
    pub(crate) max: bool,
    /// Seconds of idling, and of the trickle
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds between two keep-alives of a connection, by either end; the relay drops who is silent for three times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) keep_alive: u64,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(options: &Connections) -> Result<Report, Failure> {
    let machine = Machine::this();
    let wanted = (!options.max).then_some(options.count);
    let mut plan = Plan::new(&machine, wanted, &options.relay);
    let (every, patience) = (options.keep_alive, 3 * options.keep_alive);
    plan.relay.settings.push(format!("timers.keep_alive='{every} s'"));
    plan.relay.settings.push(format!("timers.idle='{patience} s'"));
    eprintln!("{}", plan.advice());
    let count = plan.count as u32;
    eprintln!("holding {count} and {} of the trickle; registering them first", 2 * PAIRS);
    let keys = Arc::new(make_keys(Profile::Modern));
    let relay = RelayProcess::start(&plan.relay, 2 * PAIRS + count, keys.clone())?;
    let key_file = relay.directory().join("bench.key");
    write_keys(&key_file, &keys.encode())?;

    let mut report = Report::new("connections");
    report.setting(
        "wanted",
        wanted.map_or("as many as the machine allows".into(), |wanted| wanted.to_string()),
    );
    report.setting("seconds", options.seconds);
    report.setting("trickle", format!("{TRICKLE} messages/s between {PAIRS} pairs"));
    describe_relay(&mut report, &plan.relay);
    report.line(plan.advice());
    report.result("reachable", plan.limit.most);

    let quiet = trickle(&relay, options)?;
    let (before, kernel_before) = (relay.usage(), proc_stat::kernel_bytes());
    let share = machine.connections_a_holder() as u32;
    let (mut holders, held) = hold(&relay, &key_file, count, share, options.keep_alive)?;
    let (after, kernel_after) = (relay.usage(), proc_stat::kernel_bytes());
    describe_connecting(&mut report, &held, after.cpu() - before.cpu());
    let each =
        |before: u64, after: u64| (after.saturating_sub(before)) as f64 / f64::from(held.connections.max(1));
    let (process, kernel) = (each(before.resident, after.resident), each(kernel_before, kernel_after));
    report.line(format!(
        "each costs {process:.0} bytes of the relay's memory, and {kernel:.0} bytes of the kernel's for both ends"
    ));
    let in_all = after.resident;
    report.line(format!(
        "the relay's memory is {} MB in all, {} MB of it before they came",
        in_all / 1_000_000,
        before.resident / 1_000_000
    ));
    report.result("relay_bytes", in_all);
    report.result("relay_bytes_before", before.resident);
    report.result("process_bytes_per_connection", process);
    report.result("kernel_bytes_per_connection_both_ends", kernel);

    std::thread::sleep(Duration::from_secs_f64(options.seconds));
    let idle = (relay.usage().cpu() - after.cpu()) / options.seconds;
    report.line(format!("idle, keep-alives included, the relay uses {:.2} % of a CPU", idle * 100.0));
    report.result("idle_cpu", idle);
    let busy = trickle(&relay, options)?;
    report.line(format!(
        "a trickle among them: p50 {:.0} us, p99 {:.0} us to delivery; without them p50 {:.0} us, p99 {:.0} us",
        busy.delivery.p50_us, busy.delivery.p99_us, quiet.delivery.p50_us, quiet.delivery.p99_us
    ));
    report.result("trickle", busy.delivery);
    report.result("trickle_without", quiet.delivery);
    if let Some(lost) = holders.iter_mut().find_map(Running::ended) {
        return Err(Failure::Wrong(format!(
            "connections were lost while they idled: a generator ended, {lost}"
        )));
    }
    Ok(report)
}

fn write_keys(path: &Path, keys: &[u8]) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(Failure::system("keys"))?;
    file.write_all(keys).map_err(Failure::system("keys"))
}

fn trickle(relay: &RelayProcess, options: &Connections) -> Result<Summary, Failure> {
    let load = Load {
        pattern: Pattern::new(100),
        window: 512,
        ask_every: 1,
        rate: Some(TRICKLE / f64::from(PAIRS)),
        done: Done::Acknowledged,
        acknowledged: true,
    };
    let timing = Timing { seconds: options.seconds, rounds: 1, warm_up: 0.3, threads: 1 };
    let parties = traffic::pairs(relay, PAIRS, true);
    let measured = measure(relay.address(), relay.id(), &load, parties, &timing)?;
    Ok(Summary::of(&measured.rounds, Unit::Delivered, 100))
}

/// Starts the holders, some at a time, and waits until they have connected.
fn hold(
    relay: &RelayProcess,
    keys: &Path,
    count: u32,
    per_holder: u32,
    keep_alive: u64,
) -> Result<(Vec<Running>, Held), Failure> {
    let program = std::env::current_exe().map_err(Failure::system("own program"))?;
    let start = Instant::now();
    let mut all = Held { connections: 0, seconds: 0.0, stopped_by: None };
    let mut holders: Vec<Running> = Vec::new();
    let (mut next, mut connected) = (0, 0);
    while next < count || connected < holders.len() {
        if next < count && holders.len() < connected + DIALING && all.stopped_by.is_none() {
            let share = per_holder.min(count - next).max(1);
            let mut command = Command::new(&program);
            command.arg("hold").arg("--address").arg(relay.address().to_string()).arg("--keys").arg(keys);
            command.args(["--first", &(2 * PAIRS + next).to_string(), "--count", &share.to_string()]);
            command.args(["--keep-alive", &keep_alive.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            holders.push(Running::start(&mut command).map_err(Failure::system("generator process"))?);
            next += share;
            continue;
        }
        let Some(holder) = holders.get_mut(connected) else { break };
        let held = word_of(holder)?;
        connected += 1;
        all.connections += held.connections;
        all.stopped_by = all.stopped_by.or(held.stopped_by);
        eprintln!("{} connections after {:.0} s", all.connections, start.elapsed().as_secs_f64());
    }
    all.seconds = start.elapsed().as_secs_f64();
    Ok((holders, all))
}

/// What a holder says when it has connected.
fn word_of(holder: &mut Running) -> Result<Held, Failure> {
    let output = holder.take_output().expect("it was piped and is taken once");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(Failure::system("generator process"))?;
    serde_json::from_str(&line).map_err(|_| Failure::Wrong("a generator process ended without a word".into()))
}

fn describe_connecting(report: &mut Report, held: &Held, cpu: f64) {
    let per_second = f64::from(held.connections) / held.seconds;
    report.line(format!(
        "{} authenticated connections held, after {:.1} s: {} connects/s, {:.0} us of the relay's CPU each",
        thousands(f64::from(held.connections)),
        held.seconds,
        thousands(per_second),
        cpu * 1e6 / f64::from(held.connections.max(1)),
    ));
    if let Some(reason) = &held.stopped_by {
        report.line(format!("there are no more because: {reason}"));
        report.result("stopped_by", reason);
    }
    report.result("connections", held.connections);
    report.result("connects_per_second", per_second);
}
