//! What the report's page is drawn from, as it is saved. Holds measurements; takes none and draws none.

use serde::{Deserialize, Serialize};

/// The shape of the file; raised when an older one can no longer be read.
pub(super) const FORMAT: u32 = 1;

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub(super) struct Results {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Date and time, in words.
    pub(super) made: String,
    /// The machine, in one line.
    pub(super) machine: String,
    /// The command that was given.
    pub(super) command: String,
    /// What was set, in words.
    pub(super) settings: Vec<String>,
    /// Who took part.
    pub(super) systems: Vec<Participant>,
    /// The work beside the peers, as fast as it goes, and what the machine can do.
    pub(super) comparison: Vec<Entry>,
    /// Percentile curves at rates.
    pub(super) latency: Vec<Curve>,
    /// By number of shards.
    pub(super) scaling: Vec<Scaled>,
    /// By number of connections.
    pub(super) memory: Vec<Held>,
    /// What could not be measured.
    pub(super) missing: Vec<Missing>,
}

/// A system that took part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Participant {
    /// Its name.
    pub(super) name: String,
    /// As it says itself.
    pub(super) version: String,
    /// In words.
    pub(super) configuration: String,
}

/// One system at one workload. Everything is `None` if it failed or is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its name.
    pub(super) workload: String,
    /// Its name.
    pub(super) system: String,
    /// Whether it is what the machine can do, and no system.
    pub(super) floor: bool,
    /// Median of the rounds.
    pub(super) per_second: Option<f64>,
    /// Slowest and fastest round.
    pub(super) range: Option<(f64, f64)>,
    /// Half are faster.
    pub(super) p50_us: Option<f64>,
    /// One in a hundred is slower.
    pub(super) p99_us: Option<f64>,
    /// per_second, divided by Furrow's.
    pub(super) ratio_to_furrow: Option<f64>,
    /// CPU seconds a second.
    pub(super) server_cpu: Option<f64>,
    /// Why it is missing; else empty.
    pub(super) note: String,
}

/// Latencies of one system at one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Curve {
    /// Curves of the same plot are drawn together.
    pub(super) plot: String,
    /// Who.
    pub(super) system: String,
    /// Messages a second that were asked for.
    pub(super) rate: f64,
    /// That were done.
    pub(super) per_second: f64,
    /// Quantile and microseconds, rising; the longest at quantile 1.
    pub(super) points: Vec<(f64, f64)>,
}

/// The relay with so many shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaled {
    /// Shards.
    pub(super) shards: usize,
    /// Median of the rounds.
    pub(super) per_second: f64,
    /// Slowest and fastest round.
    pub(super) range: (f64, f64),
    /// CPU seconds a second.
    pub(super) server_cpu: f64,
    /// CPU microseconds for one message.
    pub(super) server_us_each: f64,
}

/// The relay with so many idle connections; the names are those of `run connections --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Held, authenticated.
    pub(super) connections: u64,
    /// The relay's resident bytes with them.
    pub(super) relay_bytes: u64,
    /// Before they came.
    pub(super) relay_bytes_before: u64,
    /// The difference, for one.
    pub(super) process_bytes_per_connection: f64,
    /// Of the kernel, for one.
    pub(super) kernel_bytes_per_connection_both_ends: f64,
    /// How fast they came.
    pub(super) connects_per_second: f64,
    /// CPU seconds a second while they idle.
    pub(super) idle_cpu: f64,
}

impl Held {
    /// Bytes of the kernel for all of them.
    pub(super) fn kernel_bytes(&self) -> f64 {
        self.kernel_bytes_per_connection_both_ends * self.connections as f64
    }
}

/// Something that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Missing {
    /// Where it would be shown.
    pub(super) part: Part,
    /// What.
    pub(super) what: String,
    /// Why.
    pub(super) why: String,
}

/// The parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// Beside the peers.
    Throughput,
    /// Percentile curves.
    Latency,
    /// By shards.
    Scaling,
    /// By connections.
    Memory,
}
