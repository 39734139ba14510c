//! `online`: pairs of a sender and a receiver, both connected.

use super::traffic::{self, Traffic};
use crate::failure::Failure;
use crate::gate::Gate;
use crate::load::Done;
use crate::measure::measure;
use crate::population::make_keys;
use crate::relay_process::RelayProcess;
use crate::report::{Report, Summary, Unit};
use client::Carrier;
use relay_core::directory::Profile;
use std::sync::Arc;

/// How many messages a second does the relay pass on between people who are connected, and how long do they take?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Online {
    /// Pairs of a sender and a receiver
    #[arg(long, default_value_t = 8)]
    pub(crate) pairs: u32,
    /// The way to the relay: direct, connect, socks, long-lived, keep-alive or polling. Any but the first takes the
    /// generator more work, so compare what the relay takes; connect and socks go through the proxies of http_proxy, https_proxy and
    /// all_proxy
    #[arg(long, default_value_t = Carrier::Direct)]
    pub(crate) carrier: Carrier,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a byte, the order or a count is wrong.
pub(crate) fn run(options: &Online) -> Result<Report, Failure> {
    let traffic = &options.traffic;
    let load = traffic.load(options.pairs, Done::Acknowledged)?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let gate = Gate::plan(options.carrier, &traffic.relay)?;
    let relay = RelayProcess::start(gate.relay_options(), 2 * options.pairs, keys)?;
    let address = gate.open(&relay)?;
    let parties = traffic::pairs(&relay, options.pairs, true);
    let measured = measure(address, relay.id(), &load, parties, &traffic.timing)?;
    let mut report = Report::new("online");
    report.setting("pairs", options.pairs);
    report.setting("carrier", options.carrier.name());
    traffic.describe(&mut report, &load);
    report.summary(&Summary::of(&measured.rounds, Unit::Acknowledged, traffic.payload));
    let sent: u64 = measured.sent.iter().map(|(_, sent)| sent).sum();
    report.line(format!(
        "checked: {sent} messages sent, all acknowledged, all delivered once, in order, every byte as sent"
    ));
    report.result("checked_messages", sent);
    Ok(report)
}
