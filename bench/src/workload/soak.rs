//! `soak`: the mixed load for a long time, to see whether anything grows or slows down.

use super::mixed::{Crowd, a_day};
use super::traffic::describe_relay;
use crate::failure::Failure;
use crate::measure::{Round, Timing};
use crate::relay_process::RelayOptions;
use crate::report::{Report, Summary, Unit, median, thousands};

/// Seconds of one sample.
const SAMPLE_SECONDS: f64 = 10.0;

/// Does anything grow or slow down in the long run?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    pub(crate) minutes: f64,
    #[command(flatten)]
    pub(crate) crowd: Crowd,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a byte, the order or a count is wrong.
pub(crate) fn run(options: &Soak) -> Result<Report, Failure> {
    let samples = (options.minutes * 60.0 / SAMPLE_SECONDS).round();
    if !(3.0..=100_000.0).contains(&samples) {
        return Err(Failure::Setting("--minutes must be 0.5 to 16000".into()));
    }
    let timing = Timing { seconds: SAMPLE_SECONDS, rounds: samples as usize, warm_up: 5.0, threads: 1 };
    let (measured, guests, mean) = a_day(&options.crowd, &timing, &options.relay)?;
    let mut report = Report::new("soak");
    report.setting("minutes", options.minutes);
    options.crowd.describe(&mut report);
    describe_relay(&mut report, &options.relay);
    report.summary(&Summary::of(&measured.rounds, Unit::Acknowledged, mean));
    let third = measured.rounds.len().div_ceil(3);
    let (first, last) = (&measured.rounds[..third], &measured.rounds[measured.rounds.len() - third..]);
    let rate = |rounds: &[Round]| {
        median(rounds.iter().map(|round| round.tally.acknowledged as f64 / round.seconds).collect())
    };
    let memory = |rounds: &[Round]| median(rounds.iter().map(|round| round.resident as f64).collect());
    report.line(format!(
        "first third: {} messages/s, {:.1} MiB resident; last third: {} messages/s, {:.1} MiB; {guests} connections came and went",
        thousands(rate(first)),
        memory(first) / 1_048_576.0,
        thousands(rate(last)),
        memory(last) / 1_048_576.0,
    ));
    report.result("rate_last_to_first", rate(last) / rate(first));
    report.result("memory_last_to_first", memory(last) / memory(first));
    report.result("guests", guests);
    Ok(report)
}
