//! What was counted and timed in one round.

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones.
const LONGEST: u64 = 60_000_000_000;
/// Where a percentile curve has its points, as far as there are messages enough to tell.
const QUANTILES: [f64; 17] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.99975, 0.9999,
    0.99999, 0.999999,
];

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

    /// Time to acknowledgement, as a curve.
    pub(crate) fn acknowledgement_curve(&self) -> Vec<(f64, f64)> {
        curve(&self.acknowledgements)
    }

    /// Time to delivery, as a curve.
    pub(crate) fn delivery_curve(&self) -> Vec<(f64, f64)> {
        curve(&self.deliveries)
    }

    /// Time to delivery.
    pub(crate) fn delivery_latency(&self) -> Latency {
        Latency::of(&self.deliveries)
    }
}

/// Quantiles and microseconds, the longest at quantile 1; empty if nothing was measured.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let told = |quantile: &f64| (1.0 - quantile) * histogram.len() as f64 >= 1.0;
    let point = |quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1000.0);
    QUANTILES.into_iter().filter(told).chain([1.0]).map(point).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_quantiles_that_its_messages_can_tell_and_the_longest() {
        let mut tally = Tally::default();
        assert_eq!(tally.delivery_curve(), []);
        (1..=100).for_each(|milliseconds| tally.delivery(milliseconds * 1_000_000));
        let curve = tally.delivery_curve();
        let quantiles: Vec<f64> = curve.iter().map(|point| point.0).collect();
        assert_eq!(quantiles, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 1.0]);
        assert!(curve.is_sorted_by(|a, b| a.1 <= b.1));
        assert!((99_000.0..=101_000.0).contains(&curve[9].1));
    }
}
