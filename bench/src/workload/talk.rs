//! People who talk while something else goes on, and how much later their messages arrive because of it. Rounds take turns, since
//! a machine that others use is not the same from one minute to the next: quiet ones; some in which the trouble is somebody
//! else's, who takes processors and kernel all the same; and those in which it is the relay's.

use super::traffic;
use crate::failure::Failure;
use crate::load::{Done, Load};
use crate::measure::{Round, Timing, measure};
use crate::payload::Pattern;
use crate::relay_process::RelayProcess;
use crate::report::{Report, Summary, Unit};
use std::time::Duration;

/// Bytes of a message.
const PAYLOAD: usize = 100;
/// Messages of one sender that may be under way.
const WINDOW: u64 = 512;

/// People who talk.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Talk {
    /// Pairs of people who talk
    #[arg(long, default_value_t = 4)]
    pub(crate) pairs: u32,
    /// Messages a second of all of them together
    #[arg(long, default_value_t = 2000.0)]
    pub(crate) rate: f64,
    #[command(flatten)]
    pub(crate) timing: Timing,
}

impl Talk {
    /// Whether it can be.
    ///
    /// # Errors
    /// [`Failure::Setting`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.pairs == 0 || self.rate <= 0.0 || self.timing.rounds == 0 {
            return Err(Failure::Setting("--pairs, --rate and --rounds must be above 0".into()));
        }
        Ok(())
    }

    /// How many users the relay needs for it.
    pub(crate) fn users(&self) -> u32 {
        2 * self.pairs
    }

    /// One round of people who connect and talk.
    ///
    /// # Errors
    /// [`Failure`]; also if a message is lost or damaged.
    pub(crate) fn round(&self, relay: &RelayProcess) -> Result<Round, Failure> {
        let load = Load {
            pattern: Pattern::new(PAYLOAD),
            window: WINDOW,
            ask_every: 1,
            rate: Some(self.rate / f64::from(self.pairs)),
            done: Done::Acknowledged,
            acknowledged: true,
        };
        let timing = Timing { rounds: 1, ..self.timing.clone() };
        let parties = traffic::pairs(relay, self.pairs, true);
        let mut measured = measure(relay.address(), relay.id(), &load, parties, &timing)?;
        measured.rounds.pop().ok_or_else(|| Failure::Wrong("nothing was measured".into()))
    }

    /// Writes the settings into a report.
    pub(crate) fn describe(&self, report: &mut Report) {
        report.setting("talk", format!("{} messages/s between {} pairs", self.rate, self.pairs));
        traffic::describe_timing(report, &self.timing);
    }
}

/// What was measured in turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Nothing else went on.
    pub(crate) quiet: Vec<Round>,
    /// It was somebody else's trouble.
    pub(crate) beside: Vec<Round>,
    /// It was the relay's.
    pub(crate) troubled: Vec<Round>,
}

/// What the turns are called, and what is asked of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// The rounds with the relay's trouble.
    pub(crate) troubled: &'static str,
    /// The same trouble, elsewhere.
    pub(crate) elsewhere: &'static str,
    /// The bound of p99 with trouble to quiet.
    pub(crate) most: f64,
}

impl Turns {
    /// The time to delivery of all three, and how they stand to each other.
    pub(crate) fn report(&self, report: &mut Report, words: Words) {
        let kinds = [("quiet", &self.quiet), ("beside", &self.beside), (words.troubled, &self.troubled)];
        let [quiet, beside, troubled] = kinds.map(|(name, rounds)| {
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
            summary.delivery.p99_us
        });
        let to_quiet = |p99: f64| p99 / quiet.max(f64::MIN_POSITIVE);
        let (ratio, of_machine, most) = (to_quiet(troubled), to_quiet(beside), words.most);
        let verdict = if ratio <= most { "within" } else { "above" };
        report.line(format!("p99 {} to quiet: {ratio:.2}, {verdict} the bound of {most}", words.troubled));
        report.result("ratio", ratio);
        report.line(format!("of which {}: {of_machine:.2}", words.elsewhere));
        report.result("ratio_beside", of_machine);
    }
}

/// From the end of a trouble to the next round.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}
