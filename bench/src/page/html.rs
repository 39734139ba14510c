//! The report as one HTML page that needs nothing else: words, plots and tables. Scripts, fonts and images from elsewhere have no
//! place in it.

use super::plot::{self, Axis, Bar, Line};
use super::results::{Curve, Entry, Part, Results};
use super::scale::{Scale, bytes, count, duration, nines, percentile, percentile_of_nines};
use super::tables::{LEAD, Section, Table, curve_name, groups, is_one_system, short};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");
/// Colours that the style sheet has for systems, and for steps of one thing.
const SYSTEM_COLOURS: usize = 6;
const STEP_COLOURS: usize = 3;

/// The whole page.
pub(super) fn write(results: &Results, sections: &[Section]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Furrow benchmark report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Furrow benchmark report" }
                    p.soft { (results.made) ", " (results.machine) }
                    nav { @for section in sections { a href=(format!("#{}", section.anchor)) { (section.title) } } }
                    (tiles(results))
                }
                main { @for section in sections { (one_section(results, section)) } }
            }
        }
    };
    page.into_string()
}

/// What Furrow does, workload by workload, and how that compares.
fn tiles(results: &Results) -> Markup {
    let workloads = groups(&results.comparison, |entry| &entry.workload);
    let rate = |entry: &&Entry| entry.per_second;
    html! {
        div.tiles {
            @for (workload, entries) in &workloads {
                @let lead = entries.iter().copied().find(|entry| entry.system == LEAD);
                @let peers = entries.iter().copied().filter(|entry| !entry.floor && entry.system != LEAD);
                @let best = peers.filter(|peer| rate(peer).is_some()).max_by(|a, b| {
                    rate(a).unwrap_or(0.0).total_cmp(&rate(b).unwrap_or(0.0))
                });
                @if let Some(lead) = lead {
                    div.tile {
                        span.soft { (workload) }
                        strong { (lead.per_second.map_or("missing".into(), |rate| format!("{}/s", count(rate)))) }
                        @if let Some((best, ratio)) = best.and_then(|best| Some((best, ratio(lead, best)?))) {
                            span.soft { (format!("{ratio:.2} × {}, the fastest peer", short(&best.system))) }
                        }
                    }
                }
            }
        }
    }
}

fn ratio(lead: &Entry, peer: &Entry) -> Option<f64> {
    let peer = peer.per_second.filter(|&rate| rate > 0.0)?;
    Some(lead.per_second? / peer)
}

fn one_section(results: &Results, section: &Section) -> Markup {
    let long = section.part == Some(Part::Latency);
    html! {
        section id=(section.anchor) {
            h2 { (section.title) }
            p.soft { (section.words) }
            @if section.tables.is_empty() { p { "Not measured." } }
            @if let (Some(part), false) = (section.part, section.tables.is_empty()) {
                div.plots { (plots(results, part)) }
            }
            @if !section.missing.is_empty() {
                ul { @for missing in &section.missing {
                    li { em { "missing: " } (missing.what) ": " (missing.why) }
                } }
            }
            @if long && !section.tables.is_empty() {
                details { summary { "The numbers of these curves" } @for table in &section.tables { (one_table(table)) } }
            } @else {
                @for table in &section.tables { (one_table(table)) }
            }
        }
    }
}

fn one_table(table: &Table) -> Markup {
    let class = |column: usize| (column >= table.words).then_some("number");
    html! {
        div.table {
            table {
                @if !table.caption.is_empty() { caption { (table.caption) } }
                thead { tr { @for (column, name) in table.head.iter().enumerate() {
                    th scope="col" class=[class(column)] { (name) }
                } } }
                tbody { @for row in &table.rows { tr { @for (column, cell) in row.iter().enumerate() {
                    td class=[class(column)] { (cell) }
                } } } }
            }
        }
    }
}

fn figure(title: &str, plot: Markup) -> Markup {
    html! { figure { h3 { (title) } (plot) } }
}

fn plots(results: &Results, part: Part) -> Markup {
    match part {
        Part::Throughput => {
            let workloads = groups(&results.comparison, |entry| &entry.workload);
            html! { @for (workload, entries) in &workloads { (throughput(workload, entries)) } }
        }
        Part::Latency => {
            let colours = Colours::of(results);
            let plots = groups(&results.latency, |curve| &curve.plot);
            html! { @for (plot, curves) in &plots { (latency(plot, curves, &colours)) } }
        }
        Part::Scaling => scaling(results),
        Part::Memory => memory(results),
    }
}

fn throughput(workload: &str, entries: &[&Entry]) -> Markup {
    let systems = entries.iter().filter(|entry| !entry.floor);
    let bar = |entry: &&Entry| Bar {
        name: entry.system.clone(),
        value: entry.per_second.map(|rate| (rate, count(rate))),
        range: entry.range,
        note: entry.note.clone(),
        lead: entry.system == LEAD,
    };
    let bars: Vec<Bar> = systems.map(bar).collect();
    if bars.is_empty() {
        return html! {};
    }
    let title = format!("{workload}, messages a second");
    figure(&title, plot::bars(&title, &bars, count))
}

/// A system has the same colour in all plots.
struct Colours<'a>(Vec<&'a str>);

impl<'a> Colours<'a> {
    fn of(results: &'a Results) -> Self {
        let compared =
            results.comparison.iter().filter(|entry| !entry.floor).map(|entry| entry.system.as_str());
        let mut systems = vec![LEAD];
        for system in compared.chain(results.latency.iter().map(|curve| curve.system.as_str())) {
            if !systems.contains(&system) {
                systems.push(system);
            }
        }
        Self(systems)
    }

    fn class(&self, system: &str) -> String {
        match self.0.iter().position(|it| *it == system) {
            Some(index) if index < SYSTEM_COLOURS => format!("s{}", index + 1),
            _ => "none".into(),
        }
    }
}

fn latency(title: &str, curves: &[&Curve], colours: &Colours<'_>) -> Markup {
    let steps = is_one_system(curves);
    let drawn = |curve: &Curve| -> Vec<(f64, f64, String)> {
        let below_one = curve.points.iter().filter(|point| point.0 < 1.0);
        below_one
            .map(|&(quantile, us)| {
                (nines(quantile), us, format!("{} {}", percentile(quantile), duration(us)))
            })
            .collect()
    };
    let line = |(index, curve): (usize, &&Curve)| Line {
        name: curve_name(curve, curves),
        class: if steps {
            format!("r{}", index.min(STEP_COLOURS - 1) + 1)
        } else {
            colours.class(&curve.system)
        },
        points: drawn(curve),
        ranges: Vec::new(),
        imagined: false,
    };
    let lines: Vec<Line> = curves.iter().enumerate().map(line).collect();
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.0 < 1.0);
    let most_quantile = points().map(|point| point.0).fold(0.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    let x = Axis {
        title: "percentile of messages".into(),
        scale: Scale::quantiles(most_quantile),
        label: percentile_of_nines,
    };
    let y = Axis { title: "latency".into(), scale: Scale::logarithmic(least, most), label: duration };
    figure(title, plot::lines(title, &x, &y, &lines))
}

fn scaling(results: &Results) -> Markup {
    let all = &results.scaling;
    let Some((first, last)) = all.first().zip(all.last()) else { return html! {} };
    let one = first.per_second / first.shards.max(1) as f64;
    let point = |shards: usize, rate: f64| {
        (shards as f64, rate, format!("{shards} shards, {} messages/s", count(rate)))
    };
    let measured = Line {
        name: LEAD.into(),
        class: "s1".into(),
        points: all.iter().map(|it| point(it.shards, it.per_second)).collect(),
        ranges: all.iter().map(|it| it.range).collect(),
        imagined: false,
    };
    let straight = Line {
        name: "one shard's × n".into(),
        class: "none".into(),
        points: [0, last.shards].map(|shards| point(shards, one * shards as f64)).into(),
        ranges: Vec::new(),
        imagined: true,
    };
    let fastest = all.iter().map(|it| it.range.1).fold(one * last.shards as f64, f64::max);
    let x = Axis { title: "shards".into(), scale: Scale::whole(last.shards), label: count };
    let y = Axis { title: "messages a second".into(), scale: Scale::from_zero(fastest), label: count };
    let title = "Online 100 B by shards";
    figure(title, plot::lines(title, &x, &y, &[straight, measured]))
}

fn memory(results: &Results) -> Markup {
    let all = &results.memory;
    let Some((first, last)) = all.first().zip(all.last()) else { return html! {} };
    let line = |name: &str, class: &str, values: Vec<(f64, f64)>| Line {
        name: name.into(),
        class: class.into(),
        points: values
            .into_iter()
            .map(|(connections, held)| {
                (connections, held, format!("{} with {}", bytes(held), count(connections)))
            })
            .collect(),
        ranges: Vec::new(),
        imagined: false,
    };
    let before = [(0.0, first.relay_bytes_before as f64)].into_iter();
    let relay = before.chain(all.iter().map(|it| (it.connections as f64, it.relay_bytes as f64))).collect();
    let kernel = [(0.0, 0.0)].into_iter();
    let kernel = kernel.chain(all.iter().map(|it| (it.connections as f64, it.kernel_bytes()))).collect();
    let most = all.iter().map(|it| it.kernel_bytes().max(it.relay_bytes as f64)).fold(0.0, f64::max);
    let x = Axis {
        title: "idle connections".into(),
        scale: Scale::from_zero(last.connections as f64),
        label: count,
    };
    let y = Axis { title: "bytes".into(), scale: Scale::from_zero(most), label: bytes };
    let lines = [line("relay process", "s1", relay), line("kernel, both ends", "s2", kernel)];
    let title = "Memory by idle connections";
    figure(title, plot::lines(title, &x, &y, &lines))
}
