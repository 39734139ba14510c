//! What was counted and timed in one round.

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones.
const LONGEST: u64 = 60_000_000_000;

/// Counts and latencies of one round. Latencies are in nanoseconds, from the time at which the message was meant to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages acknowledged to their senders.
    pub(crate) acknowledged: u64,
    /// Messages received, by all receivers together.
    pub(crate) delivered: u64,
    acknowledgements: Histogram<u64>,
    deliveries: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, LONGEST, 2).expect("the bounds are in order")
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            acknowledgements: histogram(),
            deliveries: histogram(),
        }
    }
}

impl Tally {
    /// An acknowledgement came after so long.
    pub(crate) fn acknowledgement(&mut self, latency: u64) {
        self.acknowledgements.saturating_record(latency);
    }

    /// A message was received after so long.
    pub(crate) fn delivery(&mut self, latency: u64) {
        self.deliveries.saturating_record(latency);
    }

    /// Takes another thread's tally of the same round in.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.acknowledgements.add(&other.acknowledgements).expect("all have the same bounds");
        self.deliveries.add(&other.deliveries).expect("all have the same bounds");
    }

    /// Time to acknowledgement.
    pub(crate) fn acknowledgement_latency(&self) -> Latency {
        Latency::of(&self.acknowledgements)
    }

    /// Time to delivery.
    pub(crate) fn delivery_latency(&self) -> Latency {
        Latency::of(&self.deliveries)
    }
}

/// Percentiles in microseconds; zero if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Latency {
    /// Half are faster.
    pub(crate) p50_us: f64,
    /// One in a hundred is slower.
    pub(crate) p99_us: f64,
    /// One in a thousand is slower.
    pub(crate) p999_us: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| match histogram.is_empty() {
            true => 0.0,
            false => histogram.value_at_quantile(quantile) as f64 / 1000.0,
        };
        Self { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) }
    }
}
