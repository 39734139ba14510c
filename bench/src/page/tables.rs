//! The numbers of a report as tables and words, part by part. Everything that the plots show is in them; the page and the Markdown
//! file both write these.

use super::results::{Curve, Entry, Held, Missing, Part, Participant, Results, Scaled};
use super::scale::{count, percentile};
use crate::report::thousands;

/// The name of the relay among the systems.
pub(super) const LEAD: &str = "Furrow";

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Above it; may be empty.
    pub(super) caption: String,
    /// How many of the first columns are words; the others are numbers.
    pub(super) words: usize,
    /// Names of the columns.
    pub(super) head: Vec<String>,
    /// Rows, each as long as the head.
    pub(super) rows: Vec<Vec<String>>,
}

/// A part of a report.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Which one; `None` for how it was measured.
    pub(super) part: Option<Part>,
    /// Its anchor.
    pub(super) anchor: &'static str,
    /// Its title.
    pub(super) title: &'static str,
    /// What it answers and how to read it.
    pub(super) words: &'static str,
    /// Its numbers.
    pub(super) tables: Vec<Table>,
    /// What is missing from it.
    pub(super) missing: Vec<Missing>,
}

const THROUGHPUT: &str = "Messages a second, as fast as each system goes, all systems in turns on the same machine. Counted are \
    messages acknowledged to their sender; for systems that do not acknowledge, and for fanout, messages received. A thin line \
    reaches from the slowest round to the fastest. p50 and p99 in the table are at full load: they are the window divided by the \
    rate, and no measure of a system's latency.";
const LATENCY: &str = "Open loop: messages are sent when they are due, whether or not earlier ones are done, and time counts from \
    that moment, so that a stall is seen. Online: until the recipient has the message. Durable: until the sender has the \
    acknowledgement. If less was done than asked for, the system or the generator did not keep up.";
const SCALING: &str = "Online, 100 bytes, acknowledged: the same work with one shard, two, and so on, in turns. The dashed line is \
    one shard's rate times their number. The generator takes its share of the same processors.";
const MEMORY: &str = "Authenticated connections that do nothing but keep alive. The relay's memory is all that its process has \
    resident; the kernel's is for both ends of each connection, the generator's among them.";
const METHOD: &str = "Servers and generator run on one machine over loopback and share its processors. Every server is started \
    fresh for each round, with the configuration given here, and its files are removed after it.";

/// The parts of a report, all of them, in their order.
pub(super) fn sections(results: &Results) -> Vec<Section> {
    let part = |part, anchor, title, words, tables| {
        let missing = results.missing.iter().filter(|it| it.part == part).cloned().collect();
        Section { part: Some(part), anchor, title, words, tables, missing }
    };
    vec![
        part(
            Part::Throughput,
            "throughput",
            "Throughput beside the peers",
            THROUGHPUT,
            some(comparison(results)),
        ),
        part(Part::Latency, "latency", "Latency", LATENCY, curves(results)),
        part(Part::Scaling, "scaling", "Scaling by shards", SCALING, some(scaling(results))),
        part(Part::Memory, "memory", "Memory by connections", MEMORY, some(memory(results))),
        Section {
            part: None,
            anchor: "method",
            title: "How it was measured",
            words: METHOD,
            tables: vec![settings(results), systems(results)],
            missing: Vec::new(),
        },
    ]
}

/// The table, if anything is in it.
fn some(table: Table) -> Vec<Table> {
    if table.rows.is_empty() { Vec::new() } else { vec![table] }
}

/// Items that have the same key, in the order in which the keys come first.
pub(super) fn groups<'a, T>(items: &'a [T], key: impl Fn(&'a T) -> &'a str) -> Vec<(&'a str, Vec<&'a T>)> {
    let mut groups: Vec<(&str, Vec<&T>)> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|(name, _)| *name == key(item)) {
            Some((_, members)) => members.push(item),
            None => groups.push((key(item), vec![item])),
        }
    }
    groups
}

/// A system's name without what is said of it in brackets.
pub(super) fn short(system: &str) -> &str {
    system.split(" (").next().unwrap_or(system)
}

/// Whether all curves are one system's, at several rates.
pub(super) fn is_one_system(curves: &[&Curve]) -> bool {
    curves.len() > 1 && curves.iter().all(|curve| curve.system == curves[0].system)
}

/// What a curve is called beside the others of its plot.
pub(super) fn curve_name(curve: &Curve, curves: &[&Curve]) -> String {
    match is_one_system(curves) {
        true => format!("{}/s", count(curve.rate)),
        false => short(&curve.system).to_owned(),
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), thousands)
}

fn fraction(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.2}"))
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn comparison(results: &Results) -> Table {
    let row = |entry: &Entry| {
        let name = match entry.note.is_empty() {
            true => entry.system.clone(),
            false => format!("{}, missing: {}", entry.system, entry.note),
        };
        vec![
            entry.workload.clone(),
            name,
            number(entry.per_second),
            number(entry.range.map(|range| range.0)),
            number(entry.range.map(|range| range.1)),
            number(entry.p50_us),
            number(entry.p99_us),
            fraction(entry.ratio_to_furrow),
            fraction(entry.server_cpu),
        ]
    };
    Table {
        caption: "Each system, and what the machine itself can do (floor)".into(),
        words: 2,
        head: head(&[
            "Workload",
            "System",
            "per second",
            "slowest round",
            "fastest round",
            "p50 µs",
            "p99 µs",
            "ratio to Furrow",
            "server CPU s/s",
        ]),
        rows: results.comparison.iter().map(row).collect(),
    }
}

fn curves(results: &Results) -> Vec<Table> {
    let plots = groups(&results.latency, |curve| &curve.plot);
    plots.into_iter().map(|(plot, curves)| curve_table(plot, &curves)).collect()
}

fn curve_table(plot: &str, curves: &[&Curve]) -> Table {
    let mut quantiles: Vec<f64> =
        curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0)).collect();
    quantiles.sort_by(f64::total_cmp);
    quantiles.dedup();
    let row = |name: String, cell: &dyn Fn(&Curve) -> String| {
        [name].into_iter().chain(curves.iter().map(|curve| cell(curve))).collect::<Vec<_>>()
    };
    let mut rows = vec![
        row("asked for, messages/s".into(), &|curve| thousands(curve.rate)),
        row("done, messages/s".into(), &|curve| thousands(curve.per_second)),
    ];
    for quantile in quantiles {
        let name = if quantile < 1.0 { percentile(quantile) } else { "longest".into() };
        rows.push(row(format!("{name}, µs"), &|curve| {
            number(curve.points.iter().find(|point| point.0 == quantile).map(|point| point.1))
        }));
    }
    let names = curves.iter().map(|curve| curve_name(curve, curves));
    Table { caption: plot.to_owned(), words: 1, head: ["".into()].into_iter().chain(names).collect(), rows }
}

fn scaling(results: &Results) -> Table {
    let one = results.scaling.first().map_or(0.0, |first| first.per_second / first.shards.max(1) as f64);
    let row = |it: &Scaled| {
        vec![
            it.shards.to_string(),
            thousands(it.per_second),
            thousands(it.range.0),
            thousands(it.range.1),
            fraction((one > 0.0).then(|| it.per_second / one)),
            fraction(Some(it.server_cpu)),
            fraction(Some(it.server_us_each)),
        ]
    };
    Table {
        caption: String::new(),
        words: 0,
        head: head(&[
            "Shards",
            "messages/s",
            "slowest round",
            "fastest round",
            "times one shard",
            "server CPU s/s",
            "server CPU µs each",
        ]),
        rows: results.scaling.iter().map(row).collect(),
    }
}

fn memory(results: &Results) -> Table {
    let row = |it: &Held| {
        vec![
            thousands(it.connections as f64),
            thousands(it.relay_bytes as f64),
            thousands(it.relay_bytes_before as f64),
            thousands(it.process_bytes_per_connection),
            thousands(it.kernel_bytes()),
            thousands(it.kernel_bytes_per_connection_both_ends),
            thousands(it.connects_per_second),
            format!("{:.1}", it.idle_cpu * 100.0),
        ]
    };
    Table {
        caption: String::new(),
        words: 0,
        head: head(&[
            "Connections",
            "relay bytes",
            "before they came",
            "relay bytes each",
            "kernel bytes",
            "kernel bytes each",
            "connects/s",
            "idle CPU %",
        ]),
        rows: results.memory.iter().map(row).collect(),
    }
}

fn settings(results: &Results) -> Table {
    let facts = [("Machine", &results.machine), ("Command", &results.command), ("Date", &results.made)];
    let rows = facts.into_iter().chain(results.settings.iter().map(|setting| ("Setting", setting)));
    Table {
        caption: "Machine, command and settings".into(),
        words: 2,
        head: head(&["What", "How"]),
        rows: rows.map(|(name, value)| vec![name.to_owned(), value.clone()]).collect(),
    }
}

fn systems(results: &Results) -> Table {
    let row = |it: &Participant| vec![it.name.clone(), it.version.clone(), it.configuration.clone()];
    Table {
        caption: "Systems".into(),
        words: 3,
        head: head(&["System", "Version", "Configuration"]),
        rows: results.systems.iter().map(row).collect(),
    }
}
