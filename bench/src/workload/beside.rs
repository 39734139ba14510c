//! `beside`: short messages at a rate, and long ones beside them: on the same connection, on another one, and to somebody who is
//! not there. Rounds take turns with quiet ones, and with ones in which as many bytes go through the machine and not
//! through the relay: what those add is not the relay's.

use super::traffic::{describe_relay, describe_timing};
use crate::failure::Failure;
use crate::haul::{Heard, Place, SHORT, Scene, USERS};
use crate::measure::Timing;
use crate::payload::Pattern;
use crate::population::make_keys;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, median};
use relay_core::directory::Profile;
use std::sync::Arc;

/// Do people who talk notice somebody who sends 64 MiB messages beside them?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Beside {
    /// Bytes of a long message
    #[arg(long, default_value_t = 64 << 20)]
    pub(crate) long: usize,
    /// Short messages a second
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// --shards 0 means one here, so that all meet on it; the generator has one thread whatever --threads says
    #[command(flatten)]
    pub(crate) timing: Timing,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a message is lost or damaged.
pub(crate) fn run(options: &Beside) -> Result<Report, Failure> {
    if options.long < SHORT || options.rate <= 0.0 || options.timing.rounds == 0 {
        return Err(Failure::Setting("--long, --rate and --rounds must be above 0".into()));
    }
    let keys = Arc::new(make_keys(Profile::Modern));
    let settings = RelayOptions { shards: options.relay.shards.max(1), ..options.relay.clone() };
    let relay = RelayProcess::start(&settings, USERS, keys)?;
    let long = Pattern::new(options.long);
    let mut rounds: [Vec<Heard>; 5] = Default::default();
    for _ in 0..options.timing.rounds {
        let mut fastest: f64 = 0.0;
        for (index, place) in
            [Place::Nowhere, Place::Session, Place::Connection, Place::Offline].into_iter().enumerate()
        {
            let heard = round(&relay, options, place, &long)?;
            fastest = fastest.max(heard.hauled as f64 / heard.seconds);
            rounds[index].push(heard);
        }
        rounds[4].push(round(&relay, options, Place::Decoy(fastest), &long)?);
    }
    Ok(report(options, &settings, &rounds))
}

fn round(relay: &RelayProcess, options: &Beside, place: Place, long: &Pattern) -> Result<Heard, Failure> {
    let Timing { warm_up, seconds, .. } = options.timing;
    let mut scene = Scene::connect(relay, place, long.clone())?;
    let mut heard = scene.run(options.rate, warm_up, seconds)?;
    if place == Place::Offline {
        heard.checked = scene.collect(relay)?;
    }
    Ok(heard)
}

const NAMES: [(&str, &str); 5] = [
    ("quiet", "nothing else"),
    ("session", "on another session of the same connections"),
    ("connection", "on other connections of the shard"),
    ("offline", "to somebody who is not there"),
    ("decoy", "as much to a thread of the generator and back, past the relay"),
];

fn report(options: &Beside, relay: &RelayOptions, rounds: &[Vec<Heard>; 5]) -> Report {
    let mut report = Report::new("beside");
    report.setting("long", options.long);
    report.setting("talk", format!("{} messages/s of {SHORT} bytes, open loop", options.rate));
    describe_timing(&mut report, &options.timing);
    describe_relay(&mut report, relay);
    let percentiles = |rounds: &[Heard]| {
        let of = |of: &dyn Fn(&Heard) -> f64| median(rounds.iter().map(of).collect());
        (
            of(&|heard| heard.tally.delivery_latency().p50_us),
            of(&|heard| heard.tally.delivery_latency().p99_us),
        )
    };
    let (quiet_p50, quiet_p99) = percentiles(&rounds[0]);
    for ((name, words), rounds) in NAMES.into_iter().zip(rounds) {
        let (p50, p99) = percentiles(rounds);
        let worst = rounds.iter().map(|heard| heard.tally.delivery_latency().p99_us).fold(0.0, f64::max);
        let megabytes =
            median(rounds.iter().map(|heard| heard.hauled as f64 / heard.seconds / 1e6).collect());
        let checked: u64 = rounds.iter().map(|heard| heard.checked).sum();
        report.line(format!(
            "{name:<11}p50 {p50:>6.0} us ({:>+6.2} ms), p99 {p99:>6.0} us ({:>+6.2} ms; worst round {worst:.0} us); long: \
             {megabytes:.0} MB/s, {checked} messages checked; {words}",
            (p50 - quiet_p50) / 1000.0,
            (p99 - quiet_p99) / 1000.0,
        ));
        report.result(
            name,
            serde_json::json!({
                "p50_us": p50, "p99_us": p99, "worst_p99_us": worst,
                "added_p50_ms": (p50 - quiet_p50) / 1000.0, "added_p99_ms": (p99 - quiet_p99) / 1000.0,
                "long_megabytes_per_second": megabytes, "long_messages_checked": checked,
            }),
        );
    }
    report
}
