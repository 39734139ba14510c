//! The metrics of the relay in the text format of Prometheus.
//!
//! Names follow its conventions; what they are is in [`tuning::operator::COUNTER_FAMILIES`] for what shards count, in
//! [`crate::histogram`] for distributions, and here for the rest.

use super::machine::cpu_seconds;
use super::{Deck, State};
use crate::histogram::{Distribution, SHAPES, Shape};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use relay_core::relay::ShardId;
use tuning::operator::{COUNTER_FAMILIES, MetricKind};

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything there is to know now.
pub(super) fn text(deck: &Deck) -> String {
    let mut families = shard_families(deck);
    families.extend(SHAPES.iter().enumerate().map(|(place, shape)| distribution_family(deck, place, shape)));
    families.extend(mesh_families(deck));
    families.extend(relay_families(deck));
    families.extend(process_families(deck));
    // A family without a number, such as the queues between shards of a relay with one, has no text.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("the table of families is right, and text goes to memory")
}

fn family(name: &str, help: &str, kind: MetricType, numbers: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(numbers);
    family
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let label = |&(name, value): &(&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name(name.into());
        label.set_value(value.into());
        label
    };
    pairs.iter().map(label).collect()
}

fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

fn counter(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn shard_families(deck: &Deck) -> Vec<MetricFamily> {
    let shards: Vec<_> = deck.around.board.all().collect();
    let described = COUNTER_FAMILIES.iter().map(|described| {
        let mut numbers = Vec::new();
        for (ShardId(shard), shown) in &shards {
            for member in described.members {
                let shard = shard.to_string();
                let pairs: Vec<_> = [("shard", shard.as_str())].into_iter().chain(member.label).collect();
                let value = (member.value)(&shown.counters) as f64;
                numbers.push(match described.kind {
                    MetricKind::Counter => counter(&pairs, value),
                    MetricKind::Gauge => gauge(&pairs, value),
                });
            }
        }
        let kind = match described.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
        };
        family(described.name, described.help, kind, numbers)
    });
    described.collect()
}

fn distribution_family(deck: &Deck, place: usize, shape: &Shape) -> MetricFamily {
    let numbers = deck.around.board.all().map(|(ShardId(shard), shown)| {
        let mut metric = Metric::from_label(labels(&[("shard", &shard.to_string())]));
        metric.set_histogram(histogram(shape, &shown.distributions[place]));
        metric
    });
    family(shape.name, shape.help, MetricType::HISTOGRAM, numbers.collect())
}

fn histogram(shape: &Shape, of: &Distribution) -> Histogram {
    let mut below = 0;
    let buckets = shape.bounds().into_iter().zip(of.counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound as f64 / shape.scale);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count);
    histogram.set_sample_sum(of.sum as f64 / shape.scale);
    histogram
}

fn mesh_families(deck: &Deck) -> [MetricFamily; 2] {
    let shards = &deck.around.shards;
    let (mut waiting, mut full) = (Vec::new(), Vec::new());
    for from in shards.all() {
        for to in shards.all().filter(|&to| to != from) {
            let (items, stalls) = shards.queue(from, to);
            let (from, to) = (from.0.to_string(), to.0.to_string());
            let pairs = [("from_shard", from.as_str()), ("to_shard", to.as_str())];
            waiting.push(gauge(&pairs, items as f64));
            full.push(counter(&pairs, stalls as f64));
        }
    }
    [
        family(
            "furrow_mesh_queue_items",
            "Items that wait in the queue between two shards.",
            MetricType::GAUGE,
            waiting,
        ),
        family(
            "furrow_mesh_queue_full_total",
            "Times that the queue between two shards was full.",
            MetricType::COUNTER,
            full,
        ),
    ]
}

fn relay_families(deck: &Deck) -> Vec<MetricFamily> {
    let now = deck.around.clock.now();
    let ages = deck.around.board.all().filter(|(_, shown)| shown.at.0 > 0);
    let ages = ages.map(|(ShardId(shard), shown)| {
        gauge(&[("shard", &shard.to_string())], now.since(shown.at).as_secs_f64())
    });
    let states =
        State::ALL.map(|state| gauge(&[("state", state.name())], f64::from(u8::from(state == deck.state()))));
    let monitor = deck.monitor();
    let (mut levels, mut ratios) = (Vec::new(), Vec::new());
    for (resource, level, usage) in monitor.levels() {
        let pairs = [("resource", resource.name())];
        levels.push(gauge(&pairs, f64::from(level as u8)));
        if usage.limit > 0 {
            ratios.push(gauge(&pairs, usage.used as f64 / usage.limit as f64));
        }
    }
    vec![
        family(
            "furrow_build_info",
            "Always 1; the version is in the label.",
            MetricType::GAUGE,
            vec![gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ),
        family(
            "furrow_state",
            "Where the relay is in its life: 1 for one state.",
            MetricType::GAUGE,
            states.into(),
        ),
        family(
            "furrow_shard_age_seconds",
            "Time since the shard last said what it counts; it does so several times a second.",
            MetricType::GAUGE,
            ages.collect(),
        ),
        family(
            "furrow_resource_level",
            "Level of what the resource monitor watches: 0 ok, 1 warning, 2 critical.",
            MetricType::GAUGE,
            levels,
        ),
        family(
            "furrow_resource_used_ratio",
            "Used part of what the resource monitor watches.",
            MetricType::GAUGE,
            ratios,
        ),
    ]
}

/// What every process shows, under the names that every process uses for it.
fn process_families(deck: &Deck) -> Vec<MetricFamily> {
    let latest = deck.machine().latest();
    let one = |value: f64| vec![gauge(&[], value)];
    let mut families = vec![
        family(
            "process_cpu_seconds_total",
            "Processor time used, in seconds.",
            MetricType::COUNTER,
            vec![counter(&[], cpu_seconds())],
        ),
        family(
            "process_start_time_seconds",
            "Start of the process in seconds since the Unix epoch.",
            MetricType::GAUGE,
            one(deck.started.as_secs() as f64),
        ),
    ];
    if let Some(memory) = latest.memory {
        let help = "Resident memory in bytes.";
        families.push(family(
            "process_resident_memory_bytes",
            help,
            MetricType::GAUGE,
            one(memory.used as f64),
        ));
    }
    if let Some(descriptors) = latest.descriptors {
        let (open, most) = ("Open file descriptors.", "File descriptors that the process may open.");
        families.push(family("process_open_fds", open, MetricType::GAUGE, one(descriptors.used as f64)));
        families.push(family("process_max_fds", most, MetricType::GAUGE, one(descriptors.limit as f64)));
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::COMMIT;

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let mut of = Distribution { count: 6, sum: 3_000_000, ..Distribution::default() };
        (of.counts[0], of.counts[2]) = (2, 3);
        let histogram = histogram(&COMMIT, &of);
        let buckets: Vec<_> = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect();
        assert_eq!(buckets[..4], [2, 2, 5, 5]);
        assert_eq!(histogram.get_bucket()[0].upper_bound(), 50e-6);
        assert_eq!((histogram.get_sample_count(), histogram.get_sample_sum()), (6, 3.0));
    }
}
