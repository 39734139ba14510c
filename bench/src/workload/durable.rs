//! `durable`: recipients are offline, so an acknowledgement means that the disk has the message.

use super::traffic::{self, Traffic};
use crate::failure::Failure;
use crate::load::Done;
use crate::measure::measure;
use crate::population::make_keys;
use crate::relay_process::RelayProcess;
use crate::report::{Report, Summary, Unit};
use relay_core::directory::Profile;
use std::sync::Arc;

/// How many messages a second does the relay put on the disk, fsync before acknowledgement, and how long does that take?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Durable {
    /// Senders, each with a recipient of its own who is offline
    #[arg(long, default_value_t = 8)]
    pub(crate) senders: u32,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
}

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(options: &Durable) -> Result<Report, Failure> {
    let traffic = &options.traffic;
    let load = traffic.load(options.senders, Done::Acknowledged)?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let relay = RelayProcess::start(&traffic.relay, 2 * options.senders, keys)?;
    let parties = traffic::pairs(&relay, options.senders, false);
    let measured = measure(relay.address(), relay.id(), &load, parties, &traffic.timing)?;
    let mut report = Report::new("durable");
    report.setting("senders", options.senders);
    traffic.describe(&mut report, &load);
    report.summary(&Summary::of(&measured.rounds, Unit::Acknowledged, traffic.payload));
    let sent: u64 = measured.sent.iter().map(|(_, sent)| sent).sum();
    report.line(format!("{sent} messages sent, all acknowledged; `run drain` also collects and checks them"));
    report.result("sent_messages", sent);
    Ok(report)
}
