//! Metrics as a scraper sees them: the text, its conventions, the dashboard that is drawn of it, and health.

use crate::running::Running;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A metric of the text.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    /// Name and labels of each number, with the number.
    numbers: BTreeMap<String, f64>,
}

/// The text format, read strictly: HELP, TYPE, then the numbers of one metric, each metric once.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&current), "{series} under {current}");
            let family = families.get_mut(&current).unwrap();
            assert!(
                family.numbers.insert(series.to_owned(), value.parse().unwrap()).is_none(),
                "{series} twice"
            );
        }
    }
    families
}

fn scrape(relay: &Running) -> BTreeMap<String, Family> {
    let (status, text) = relay.get("/metrics");
    assert_eq!(status, 200);
    parse(&text)
}

fn sum(families: &BTreeMap<String, Family>, name: &str) -> f64 {
    families[name].numbers.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_follow_the_conventions_and_count_what_happens() {
    let relay = Running::start(|_| {});
    let (alice, bob) = (relay.person().await, relay.person().await);
    for _ in 0..10 {
        alice.send(&bob, 100).await;
        bob.receive().await;
    }
    // Each shard shows what it counts in its own time.
    relay.eventually("what happened is counted", || {
        let families = scrape(&relay);
        sum(&families, "furrow_messages_delivered_total") == 10.0
            && sum(&families, "furrow_authentications_total") == 4.0
            && sum(&families, "furrow_messages_deposited_total") == 10.0
    });
    let families = scrape(&relay);
    assert_eq!(sum(&families, "furrow_connections"), 2.0);
    assert_eq!(sum(&families, "furrow_messages_deposited_total"), 10.0);
    assert_eq!(sum(&families, "furrow_deposited_bytes_total"), 1000.0);
    assert_eq!(sum(&families, "furrow_delivered_bytes_total"), 1000.0);
    assert!(sum(&families, "furrow_sent_bytes_total") > 1000.0);
    assert_eq!(sum(&families, "furrow_authentications_total"), 4.0, "two devices, two accounts");
    for (name, family) in &families {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(name.starts_with("furrow_") || name.starts_with("process_"), "{name}");
        assert!(!family.help.is_empty() && !family.numbers.is_empty(), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        match family.kind.as_str() {
            "histogram" => check_histogram(name, family),
            "counter" | "gauge" => assert!(family.numbers.values().all(|value| *value >= 0.0), "{name}"),
            kind => panic!("{name} is a {kind}"),
        }
    }
    assert!(families["furrow_message_completion_duration_seconds"].kind == "histogram");
}

fn check_histogram(name: &str, family: &Family) {
    for shard in ["0", "1"] {
        let label = format!("shard=\"{shard}\"");
        let of = |suffix: &str| {
            let series =
                family.numbers.iter().filter(|(series, _)| series.starts_with(&format!("{name}{suffix}{{")));
            series
                .filter(|(series, _)| series.contains(&label))
                .map(|(series, value)| (series.clone(), *value))
                .collect::<Vec<_>>()
        };
        let mut buckets: Vec<(f64, f64)> = of("_bucket")
            .into_iter()
            .map(|(series, value)| {
                let bound = series.split_once("le=\"").unwrap().1.split_once('"').unwrap().0;
                (if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, value)
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
        let last = buckets.last().unwrap();
        assert!(last.0.is_infinite());
        assert_eq!(of("_count"), [(format!("{name}_count{{{label}}}"), last.1)]);
        assert_eq!(of("_sum").len(), 1);
    }
}

/// Names of metrics in a query: words before a brace.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.match_indices('{').map(|(end, _)| {
        let start = query[..end].rfind(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(0, |at| at + 1);
        query[start..end].to_owned()
    });
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_metric_of_the_dashboard_is_there_and_every_metric_is_on_the_dashboard() {
    let relay = Running::start(|_| {});
    relay.eventually("the monitor has looked", || scrape(&relay).contains_key("process_open_fds"));
    let families = scrape(&relay);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let shown: BTreeSet<String> =
        queries.flat_map(|target| names(target["expr"].as_str().unwrap())).collect();
    assert!(shown.len() > 20, "{shown:?}");
    let known = |name: &str| {
        families.contains_key(name) || {
            let histogram = name.strip_suffix("_bucket").and_then(|name| families.get(name));
            histogram.is_some_and(|family| family.kind == "histogram")
        }
    };
    let unknown: Vec<_> = shown.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    let off = [
        "furrow_build_info",
        "furrow_mailboxes",
        "furrow_in_flight_bytes",
        "furrow_delivery_sessions",
        "furrow_log_records_total",
        "process_start_time_seconds",
    ];
    let missing: Vec<_> = families
        .keys()
        .filter(|name| {
            !shown.contains(*name)
                && !shown.contains(&format!("{name}_bucket"))
                && !off.contains(&name.as_str())
        })
        .collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

#[test]
fn other_paths_and_methods_are_refused_and_health_is_told() {
    let relay = Running::start(|_| {});
    assert_eq!(relay.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(relay.get("/readyz"), (200, "ok\n".into()));
    assert_eq!(relay.get("/").0, 404);
    assert_eq!(relay.get("/metrics/").0, 404);
    assert_eq!(relay.http("POST /metrics").0, 405);
    assert_eq!(relay.http("HEAD /healthz"), (200, String::new()));
}
