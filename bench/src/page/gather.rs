//! Measures what the report shows. A part that fails is noted as missing, and the others go on.

use super::results::{Curve, Entry, FORMAT, Held, Missing, Part, Participant, Results, Scaled};
use crate::compare::{self, Compare, Kind, Line, System, Workload};
use crate::failure::Failure;
use crate::measure::{Round, Timing};
use crate::population::make_keys;
use crate::proc_stat;
use crate::report::{Summary, thousands};
use crate::workload::connections::{self, Connections};
use relay_core::directory::Profile;
use relay_core::security::ClientCredentials;
use std::sync::Arc;
use time::OffsetDateTime;

/// Shares of its own peak at which the relay's latency is measured.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];
/// How the comparison names what the machine can do.
const FLOOR: &str = "floor:";
/// Messages a second at which everybody's latency is measured: what the slowest can do with ease.
const COMMON_RATE: f64 = 20_000.0;
/// Connections that are held, in a quick report and in another.
const FEW: [u64; 3] = [500, 1_000, 2_000];
const MANY: [u64; 4] = [1_000, 4_000, 8_000, 16_000];

/// Measures everything.
pub(super) fn gather(options: &Compare, command: String) -> Results {
    let mut gathering = Gathering::begin(options, command);
    gathering.comparison();
    for kind in [Kind::Online, Kind::Durable] {
        gathering.latency(kind);
    }
    gathering.scaling();
    gathering.memory();
    gathering.results
}

struct Gathering<'a> {
    options: &'a Compare,
    timing: Timing,
    rounds: usize,
    keys: Arc<ClientCredentials>,
    results: Results,
}

impl<'a> Gathering<'a> {
    fn begin(options: &'a Compare, command: String) -> Self {
        let (timing, rounds) = options.timing();
        let participant = |(name, version, configuration): (&str, String, String)| Participant {
            name: name.to_owned(),
            version,
            configuration,
        };
        let now = OffsetDateTime::now_utc();
        let rates = format!(
            "Latency: one round for each curve; Furrow at {SHARES:?} of what it did beside the peers, and everybody at {} \
             messages a second. Memory: connections as in relay-bench run connections.",
            thousands(COMMON_RATE)
        );
        let mut settings = vec![compare::settings(options), rates];
        if cfg!(debug_assertions) {
            settings.push("Built without --release: these numbers say nothing of what Furrow can do.".into());
        }
        let results = Results {
            format: FORMAT,
            made: format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute()),
            machine: proc_stat::machine(),
            command,
            settings,
            systems: compare::systems(options).map(participant).collect(),
            comparison: Vec::new(),
            latency: Vec::new(),
            scaling: Vec::new(),
            memory: Vec::new(),
            missing: Vec::new(),
        };
        Self { options, timing, rounds, keys: Arc::new(make_keys(Profile::Modern)), results }
    }

    fn missing(&mut self, part: Part, what: impl Into<String>, why: impl ToString) {
        self.results.missing.push(Missing { part, what: what.into(), why: why.to_string() });
    }

    fn comparison(&mut self) {
        match compare::lines(self.options) {
            Ok(lines) => self.results.comparison = lines.into_iter().map(entry).collect(),
            Err(failure) => self.missing(Part::Throughput, "the comparison", failure),
        }
    }

    /// One system, once.
    fn round(
        &self,
        options: &Compare,
        workload: Workload,
        system: System,
        rate: Option<f64>,
    ) -> Result<Round, Failure> {
        let mut rounds = compare::bout(options, workload, system, rate, &self.timing, &self.keys)?;
        rounds.pop().ok_or_else(|| Failure::Wrong("the load ended before its round".into()))
    }

    /// The relay at shares of its peak, then everybody at one rate.
    fn latency(&mut self, kind: Kind) {
        let workload = Workload::first(kind);
        let is_peak = |it: &&Entry| it.workload == workload.name && it.system == System::Furrow.name();
        let Some(peak) = self.results.comparison.iter().find(is_peak).and_then(|it| it.per_second) else {
            let why = "how fast the relay can go was not measured";
            return self.missing(Part::Latency, workload.name, why);
        };
        let alone = format!("{}, Furrow at several rates", workload.name);
        for share in SHARES {
            self.curve(&alone, workload, System::Furrow, two_digits(share * peak));
        }
        let together = format!("{}, everybody at {} messages/s", workload.name, thousands(COMMON_RATE));
        for &system in System::at(kind).iter().filter(|system| !matches!(system, System::Echo(_))) {
            self.curve(&together, workload, system, COMMON_RATE);
        }
    }

    fn curve(&mut self, plot: &str, workload: Workload, system: System, rate: f64) {
        eprintln!("{plot}: {} at {}", system.name(), thousands(rate));
        let round = match self.round(self.options, workload, system, Some(rate)) {
            Ok(round) => round,
            Err(failure) => {
                let what = format!("{plot}: {} at {}", system.name(), thousands(rate));
                return self.missing(Part::Latency, what, failure);
            }
        };
        let (done, points) = match workload.kind {
            Kind::Durable => (round.tally.acknowledged, round.tally.acknowledgement_curve()),
            Kind::Online | Kind::Fanout => (round.tally.delivered, round.tally.delivery_curve()),
        };
        self.results.latency.push(Curve {
            plot: plot.to_owned(),
            system: system.name().to_owned(),
            rate,
            per_second: done as f64 / round.seconds,
            points,
        });
    }

    /// The relay with one shard, two, and so on, in turns.
    fn scaling(&mut self) {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        let counts = shard_counts(processors);
        let workload = Workload::first(Kind::Online);
        let mut rounds: Vec<Vec<Round>> = counts.iter().map(|_| Vec::new()).collect();
        for round in 0..self.rounds {
            for (&shards, done) in counts.iter().zip(&mut rounds) {
                eprintln!("{} with {shards} shard(s), round {} of {}", workload.name, round + 1, self.rounds);
                let mut options = self.options.clone();
                options.relay.shards = shards;
                match self.round(&options, workload, System::Furrow, None) {
                    Ok(measured) => done.push(measured),
                    Err(failure) => self.missing(
                        Part::Scaling,
                        format!("{shards} shard(s), round {}", round + 1),
                        failure,
                    ),
                }
            }
        }
        let unit = System::Furrow.unit(workload.kind);
        for (shards, rounds) in counts.into_iter().zip(rounds).filter(|(_, rounds)| !rounds.is_empty()) {
            let Summary { per_second, range, server_cpu, server_us_each, .. } =
                Summary::of(&rounds, unit, workload.payload);
            self.results.scaling.push(Scaled { shards, per_second, range, server_cpu, server_us_each });
        }
    }

    fn memory(&mut self) {
        let counts: &[u64] = if self.options.quick { &FEW } else { &MANY };
        for &count in counts {
            let relay = self.options.relay.clone();
            let run = Connections { count, max: false, seconds: self.timing.seconds, keep_alive: 40, relay };
            let held = connections::run(&run)
                .and_then(|report| report.found::<Held>().map_err(|error| Failure::Wrong(error.to_string())));
            match held {
                Ok(held) => self.results.memory.push(held),
                Err(failure) => {
                    self.missing(Part::Memory, format!("{} connections", thousands(count as f64)), failure);
                }
            }
        }
    }
}

fn entry(line: Line) -> Entry {
    Entry {
        floor: line.system.starts_with(FLOOR),
        workload: line.workload,
        system: line.system,
        per_second: line.per_second,
        range: line.range,
        p50_us: line.p50_us,
        p99_us: line.p99_us,
        ratio_to_furrow: line.ratio_to_furrow,
        server_cpu: line.server_cpu,
        note: line.note,
    }
}

/// 1, 2, 4 and so on, and all processors.
fn shard_counts(processors: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1), |count| Some(count * 2));
    powers.take_while(|&count| count < processors).chain([processors]).collect()
}

/// Rounded, so that it can be said.
fn two_digits(rate: f64) -> f64 {
    let grain = 10f64.powf((rate.max(10.0).log10()).floor() - 1.0);
    ((rate / grain).round() * grain).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_double_up_to_the_processors() {
        for (processors, counts) in
            [(1, vec![1]), (2, vec![1, 2]), (6, vec![1, 2, 4, 6]), (8, vec![1, 2, 4, 8])]
        {
            assert_eq!(shard_counts(processors), counts);
        }
    }

    #[test]
    fn a_rate_has_two_digits() {
        for (rate, rounded) in [(367_105.6, 370_000.0), (104.0, 100.0), (7.4, 7.0), (0.0, 1.0)] {
            assert_eq!(two_digits(rate), rounded);
        }
    }
}
