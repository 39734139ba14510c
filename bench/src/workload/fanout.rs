//! `fanout`: each sender sends to many recipients by one FanoutOpen, all connected.

use super::traffic::{self, Traffic};
use crate::failure::Failure;
use crate::load::{Done, Party};
use crate::measure::measure;
use crate::population::{User, make_keys};
use crate::relay_process::RelayProcess;
use crate::report::{Report, Summary, Unit};
use crate::sstp_wire::{Recipients, SstpWire};
use relay_core::directory::Profile;
use std::sync::Arc;

/// The most recipients that one FanoutOpen of such users has room for.
const MOST_RECIPIENTS: u32 = 1000;

/// How many deliveries a second does one message to many recipients become?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Fanout {
    /// Recipients of each sender
    #[arg(long, default_value_t = 100)]
    pub(crate) recipients: u32,
    /// Senders
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: u32,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
}

/// One sender to `recipients` users, and so on.
pub(crate) fn parties(relay: &RelayProcess, senders: u32, recipients: u32) -> Vec<Party<SstpWire>> {
    let party = |sender: u32| {
        let first = sender * (recipients + 1);
        let members = first + 1..first + 1 + recipients;
        Party {
            sender,
            sending: traffic::sender(
                relay,
                first,
                Recipients::Many(members.clone().map(User::new).collect()),
            ),
            receiving: members.map(|user| traffic::receiver(relay, user)).collect(),
        }
    };
    (0..senders).map(party).collect()
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a byte, the order or a count is wrong.
pub(crate) fn run(options: &Fanout) -> Result<Report, Failure> {
    if !(1..=MOST_RECIPIENTS).contains(&options.recipients) {
        return Err(Failure::Setting(format!("--recipients must be 1 to {MOST_RECIPIENTS}")));
    }
    let traffic = &options.traffic;
    let load = traffic.load(options.senders, Done::Acknowledged)?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let users = options.senders * (options.recipients + 1);
    let relay = RelayProcess::start(&traffic.relay, users, keys)?;
    let parties = parties(&relay, options.senders, options.recipients);
    let measured = measure(relay.address(), relay.id(), &load, parties, &traffic.timing)?;
    let mut report = Report::new("fanout");
    report.setting("senders", options.senders);
    report.setting("recipients", options.recipients);
    traffic.describe(&mut report, &load);
    report.summary(&Summary::of(&measured.rounds, Unit::Delivered, traffic.payload));
    let sent: u64 = measured.sent.iter().map(|(_, sent)| sent).sum();
    report.line(format!(
        "checked: {sent} messages sent, all acknowledged, each delivered once to {} recipients, in order, every byte as sent",
        options.recipients
    ));
    report.result("checked_messages", sent);
    Ok(report)
}
