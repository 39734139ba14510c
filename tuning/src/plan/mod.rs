//! `relayctl plan`: how large a machine a relay needs for so many users and so much mail, and with which settings. Owns the arguments;
//! [`measured`] has what was measured, [`model`] computes with it, [`mod@print`] says it.
//!
//! It looks at no machine (that is `relayctl host check`) and at no relay.

mod measured;
mod model;
mod print;

use clap::Args;
use measured::{Measured, ReportError};
use model::{Load, Plan};
use std::path::PathBuf;
use tuning::{ByteSize, Span};

pub(crate) const HELP: &str = "\
Examples:
  A company: 20000 people with two devices each, 200 messages a second when they are busiest:
    relayctl plan --users 20000 --devices 40000 --message-rate 200
  Many small messages to groups, nine recipients in ten online:
    relayctl plan --users 1000000 --message-rate 20000 --recipients 8 --message-size 300 --offline-share 10%
  With what `relay-bench report` measured on your own machine, for programs:
    relayctl plan --users 50000 --message-rate 500 --measured bench-report/results.json --json

The answer is an estimate from measurements on one small machine, with everything assumed printed below it: a place to begin,
and no promise. Measure your own with `relay-bench` (bench/RESULTS.md), and watch `relayctl top` and the alerts of RUNBOOK.md.

Exit codes: 0 the plan is on standard output, 1 it could not be written, 2 the command line or the file of figures is wrong.";

/// The load that is planned for.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Users that are registered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    users: u64,
    /// Devices of all users together [default: one for each].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    devices: Option<u64>,
    /// Messages that are sent in a second when most are, by all users together.
    #[arg(long, value_name = "N", value_parser = rate)]
    message_rate: f64,
    /// Recipients of a message, on average.
    #[arg(long, value_name = "N", default_value = "1", value_parser = recipients)]
    recipients: f64,
    /// Payload of a message, on average.
    #[arg(long, value_name = "SIZE", default_value = "1 KiB", value_parser = size)]
    message_size: ByteSize,
    /// Devices that are offline when most messages are sent: 40% or 0.4. So many recipients' copies go to the disk.
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    offline_share: f64,
    /// How long a message waits for somebody who is offline, on average.
    #[arg(long, value_name = "TIME", default_value = "12 h", value_parser = time)]
    away: Span,
    /// After how long a message that nobody collects is deleted (mail.lifetime).
    #[arg(long, value_name = "TIME", default_value = "30 days", value_parser = time)]
    lifetime: Span,
    /// The message rate at its highest, as a multiple of its mean over a day.
    #[arg(long, value_name = "N", default_value = "3", value_parser = peak)]
    peak_to_mean: f64,
    /// How busy a processor may be when most messages are sent.
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = busy)]
    busy: f64,
    /// Compute with the figures of a report: the results.json that `relay-bench report` writes. What it lacks is taken from the figures
    /// that this program has.
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The plan, as text or JSON.
///
/// # Errors
/// [`ReportError`] if the file of `--measured` is none.
pub(crate) fn answer(arguments: &Arguments) -> Result<String, ReportError> {
    let mut measured = Measured::ours();
    if let Some(path) = &arguments.measured {
        measured.take_report(path)?;
    }
    let load = Load {
        users: arguments.users as f64,
        devices: arguments.devices.unwrap_or(arguments.users) as f64,
        message_rate: arguments.message_rate,
        recipients: arguments.recipients,
        message_bytes: arguments.message_size.bytes() as f64,
        offline_share: arguments.offline_share,
        away_seconds: arguments.away.duration().as_secs_f64(),
        lifetime_seconds: arguments.lifetime.duration().as_secs_f64(),
        peak_to_mean: arguments.peak_to_mean,
        busy: arguments.busy,
    };
    let plan = Plan::new(load, measured);
    Ok(if arguments.json { print::json(&plan) } else { print::text(&plan) })
}

fn number(text: &str, least: f64, most: f64, what: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{what} from {least} to {most}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e9, "a number of messages a second")
}

fn recipients(text: &str) -> Result<f64, String> {
    number(text, 1.0, 65_535.0, "a number of recipients")
}

fn peak(text: &str) -> Result<f64, String> {
    number(text, 1.0, 1000.0, "a number")
}

/// `40%` or `0.4`.
fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 1, or from 0% to 100%".into()),
    }
}

fn busy(text: &str) -> Result<f64, String> {
    match share(text) {
        Ok(share) if share >= 0.05 => Ok(share),
        _ => Err("a share from 0.05 to 1, or from 5% to 100%".into()),
    }
}

fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: tuning::UnitError| error.to_string())?;
    if size.bytes() > model::MAX_MESSAGE_BYTES {
        return Err(format!("a message may have {} at most", ByteSize::new(model::MAX_MESSAGE_BYTES)));
    }
    Ok(size)
}

fn time(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: tuning::UnitError| error.to_string())?;
    let day = 24 * 3600 * 1000;
    if !(1000..=3650 * day).contains(&span.as_millis()) {
        return Err("a time from 1 s to 3650 days".into());
    }
    Ok(span)
}
