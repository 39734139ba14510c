//! Rounds become a report: median, spread, percentiles, what the server used; as text for people and as JSON.

use crate::measure::Round;
use crate::tally::Latency;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What counts as work done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Messages acknowledged to their senders.
    Acknowledged,
    /// Messages received by their recipients.
    Delivered,
}

impl Unit {
    fn count(self, round: &Round) -> u64 {
        match self {
            Unit::Acknowledged => round.tally.acknowledged,
            Unit::Delivered => round.tally.delivered,
        }
    }

    fn latency(self, round: &Round) -> Latency {
        match self {
            Unit::Acknowledged => round.tally.acknowledgement_latency(),
            Unit::Delivered => round.tally.delivery_latency(),
        }
    }
}

/// The middle of some numbers; zero of none.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

/// A workload's result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// What per_second counts.
    pub(crate) unit: Unit,
    /// Median of the rounds.
    pub(crate) per_second: f64,
    /// Slowest and fastest round.
    pub(crate) range: (f64, f64),
    /// Payload megabytes (10^6) a second.
    pub(crate) megabytes_per_second: f64,
    /// Medians of the rounds' percentiles, to acknowledgement or to delivery as `unit` says.
    pub(crate) latency: Latency,
    /// To acknowledgement.
    pub(crate) acknowledgement: Latency,
    /// To delivery.
    pub(crate) delivery: Latency,
    /// CPU seconds a second of the server.
    pub(crate) server_cpu: f64,
    /// Of the generator.
    pub(crate) generator_cpu: f64,
    /// The server's CPU microseconds for one unit.
    pub(crate) server_us_each: f64,
    /// The server's resident bytes, the most of all rounds.
    pub(crate) server_resident_bytes: u64,
    /// Units of all rounds together.
    pub(crate) total: u64,
}

impl Summary {
    /// Of rounds with payloads of `payload` bytes.
    pub(crate) fn of(rounds: &[Round], unit: Unit, payload: usize) -> Self {
        let middle = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        let rate = |round: &Round| unit.count(round) as f64 / round.seconds;
        let latency = |of: &dyn Fn(&Round) -> Latency| Latency {
            p50_us: middle(&|round| of(round).p50_us),
            p99_us: middle(&|round| of(round).p99_us),
            p999_us: middle(&|round| of(round).p999_us),
        };
        let per_second = middle(&rate);
        let slowest = rounds.iter().map(rate).fold(f64::INFINITY, f64::min);
        let fastest = rounds.iter().map(rate).fold(0.0, f64::max);
        Self {
            unit,
            per_second,
            range: (if slowest.is_finite() { slowest } else { 0.0 }, fastest),
            megabytes_per_second: per_second * payload as f64 / 1e6,
            latency: latency(&|round| unit.latency(round)),
            acknowledgement: latency(&|round| round.tally.acknowledgement_latency()),
            delivery: latency(&|round| round.tally.delivery_latency()),
            server_cpu: middle(&|round| round.server_cpu / round.seconds),
            generator_cpu: middle(&|round| round.own_cpu / round.seconds),
            server_us_each: middle(&|round| round.server_cpu * 1e6 / unit.count(round).max(1) as f64),
            server_resident_bytes: rounds.iter().map(|round| round.resident).max().unwrap_or(0),
            total: rounds.iter().map(|round| unit.count(round)).sum(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let latency = |name: &str, latency: &Latency| {
            format!(
                "latency to {name}: p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us",
                latency.p50_us, latency.p99_us, latency.p999_us
            )
        };
        let unit = match self.unit {
            Unit::Acknowledged => "acknowledged",
            Unit::Delivered => "delivered",
        };
        let mut lines = vec![format!(
            "{} messages/s {unit} (median; slowest round {}, fastest {}), {:.1} MB/s",
            thousands(self.per_second),
            thousands(self.range.0),
            thousands(self.range.1),
            self.megabytes_per_second,
        )];
        if self.acknowledgement != Latency::default() {
            lines.push(latency("acknowledgement", &self.acknowledgement));
        }
        if self.delivery != Latency::default() {
            lines.push(latency("delivery", &self.delivery));
        }
        lines.push(format!(
            "server: {:.2} CPU s/s, {:.3} us each, {:.1} MiB resident; generator: {:.2} CPU s/s",
            self.server_cpu,
            self.server_us_each,
            self.server_resident_bytes as f64 / (1 << 20) as f64,
            self.generator_cpu
        ));
        lines
    }
}

/// A number with its thousands set apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// What is printed of one run: its settings, then what it showed.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    workload: &'static str,
    settings: Map<String, Value>,
    lines: Vec<String>,
    results: Map<String, Value>,
}

impl Report {
    /// Of a workload.
    pub(crate) fn new(workload: &'static str) -> Self {
        let mut report = Self { workload, settings: Map::new(), lines: Vec::new(), results: Map::new() };
        report.setting("machine", crate::proc_stat::machine());
        report
    }

    /// Something that was set.
    pub(crate) fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.into(), value.into());
    }

    /// Something that was found, in words.
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Something that was found, for programs.
    pub(crate) fn result(&mut self, name: &str, value: impl Serialize) {
        self.results.insert(name.into(), json!(value));
    }

    /// The summary of the rounds.
    pub(crate) fn summary(&mut self, summary: &Summary) {
        self.lines.extend(summary.lines());
        if let Value::Object(fields) = json!(summary) {
            self.results.extend(fields);
        }
    }

    /// What was found, those parts of it that `T` has.
    ///
    /// # Errors
    /// Something that `T` has was not found.
    pub(crate) fn found<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_value(Value::Object(self.results))
    }

    /// Prints it, as one JSON object or as text.
    pub(crate) fn print(&self, json: bool) {
        if json {
            let mut object = Map::new();
            object.insert("workload".into(), self.workload.into());
            object.insert("settings".into(), Value::Object(self.settings.clone()));
            object.extend(self.results.clone());
            println!("{}", Value::Object(object));
        } else {
            println!("{}", self.workload);
            for (name, value) in &self.settings {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                println!("  {name:<14}{value}");
            }
            for line in &self.lines {
                println!("  {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (numbers, middle) in [(vec![], 0.0), (vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 3.0, 2.0], 2.5)]
        {
            assert_eq!(median(numbers), middle);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1 000"), (1_234_567.0, "1 234 567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
