//! `drain`: senders leave mail for people who are offline; then these come, all at once, and collect it.

use super::traffic::{self, Traffic};
use crate::clock;
use crate::collector::{Collector, Ledger};
use crate::failure::Failure;
use crate::load::Done;
use crate::measure::measure;
use crate::population::{User, make_keys};
use crate::proc_stat::Usage;
use crate::relay_process::RelayProcess;
use crate::report::{Report, thousands};
use crate::sstp_wire::{Recipients, Role};
use relay_core::directory::Profile;
use std::sync::Arc;
use std::time::Duration;

/// How long it may take until the next message comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How fast do people who come online get the mail that waits for them, and is it all there?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Drain {
    /// Senders, each with a recipient of its own
    #[arg(long, default_value_t = 8)]
    pub(crate) senders: u32,
    /// Kill the relay (SIGKILL) and start it again before the mail is collected
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
}

/// Receivers of the pairs' mail, with their ledgers.
pub(crate) fn receivers(
    relay: &RelayProcess,
    pairs: impl Iterator<Item = u32>,
    pattern: &crate::payload::Pattern,
) -> Vec<(Role, Ledger)> {
    let receiver = |pair: u32| {
        let user = User::new(2 * pair + 1);
        let role = Role { user, keys: relay.keys().clone(), collects: true, recipients: Recipients::Nobody };
        (role, Ledger::new(pattern.clone(), pair))
    };
    pairs.map(receiver).collect()
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if mail is lost, damaged or comes twice.
pub(crate) fn run(options: &Drain) -> Result<Report, Failure> {
    let traffic = &options.traffic;
    let load = traffic.load(options.senders, Done::Acknowledged)?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let mut relay = RelayProcess::start(&traffic.relay, 2 * options.senders, keys)?;
    let parties = traffic::pairs(&relay, options.senders, false);
    let measured = measure(relay.address(), relay.id(), &load, parties, &traffic.timing)?;
    let sent: u64 = measured.sent.iter().map(|(_, sent)| sent).sum();
    let mut report = Report::new("drain");
    report.setting("senders", options.senders);
    report.setting("restart", options.restart);
    traffic.describe(&mut report, &load);
    if options.restart {
        relay.kill();
        let took = relay.restart()?;
        report.line(format!(
            "killed with {} messages waiting; it listened again after {:.2} s",
            thousands(sent as f64),
            took.as_secs_f64()
        ));
        report.result("restart_seconds", took.as_secs_f64());
    }
    collect(options, &relay, &load.pattern, &measured.sent, sent, &mut report)?;
    Ok(report)
}

fn collect(
    options: &Drain,
    relay: &RelayProcess,
    pattern: &crate::payload::Pattern,
    sent: &[(u32, u64)],
    total: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut collector = Collector::new(receivers(relay, 0..options.senders, pattern))?;
    let (before, start) = (relay.usage(), clock::now());
    collector.connect(relay.address())?;
    let mut end = start;
    let mut count = 0;
    while count < total && clock::now() - end < clock::nanoseconds(PATIENCE) {
        collector.turn(Duration::from_millis(20))?;
        let received = collector.ledgers().map(|ledger| ledger.received).sum();
        if received > count {
            (count, end) = (received, clock::now());
        }
    }
    let seconds = (end - start) as f64 / 1e9;
    let used = Usage::of(relay.id());
    let per_second = count as f64 / seconds;
    let lost: u64 = sent
        .iter()
        .map(|&(sender, count)| {
            collector.ledgers().nth(sender as usize).map_or(count, |ledger| ledger.missing_below(count))
        })
        .sum();
    let sum = |of: fn(&Ledger) -> u64| collector.ledgers().map(of).sum::<u64>();
    let (duplicates, damaged) = (sum(|it| it.duplicates), sum(|it| it.damaged));
    let out_of_order = sum(|it| it.out_of_order);
    report.line(format!(
        "{} of {} messages collected in {seconds:.2} s: {}/s, {:.1} MB/s; server {:.3} us each, {:.1} MiB resident",
        thousands(count as f64),
        thousands(total as f64),
        thousands(per_second),
        per_second * pattern.mean() as f64 / 1e6,
        (used.cpu() - before.cpu()) * 1e6 / total.max(1) as f64,
        used.resident as f64 / (1 << 20) as f64,
    ));
    report.line(format!("{lost} lost, {duplicates} twice, {damaged} damaged, {out_of_order} out of order"));
    report.result("per_second", per_second);
    report.result("messages", total);
    report.result("seconds", seconds);
    report.result("lost", lost);
    report.result("duplicates", duplicates);
    report.result("damaged", damaged);
    if lost + damaged + duplicates + out_of_order > 0 {
        report.print(false);
        return Err(Failure::Wrong(
            "not everything that was acknowledged was collected once, whole and in order".into(),
        ));
    }
    Ok(())
}
