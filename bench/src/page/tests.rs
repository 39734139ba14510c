//! The page and the Markdown of fixed results.

use super::results::*;
use super::*;
use quick_xml::Reader;
use quick_xml::events::Event;

/// A text that would break out of any place that does not escape it.
const NASTY: &str = "</title><script>alert(\"1\")</script>&'|`";

fn entry(workload: &str, system: &str, per_second: Option<f64>) -> Entry {
    Entry {
        workload: workload.into(),
        system: system.into(),
        floor: system.starts_with("floor:"),
        per_second,
        range: per_second.map(|rate| (rate * 0.9, rate * 1.1)),
        p50_us: per_second.map(|_| 1810.0),
        p99_us: per_second.map(|_| 5030.0),
        ratio_to_furrow: per_second.map(|rate| rate / 1_835_528.0),
        server_cpu: None,
        note: if per_second.is_none() { "nats-server: not installed".into() } else { String::new() },
    }
}

fn curve(plot: &str, system: &str, rate: f64) -> Curve {
    let points = vec![(0.0, 100.0), (0.5, 410.0), (0.99, 2_345.0), (0.999, 17_654.0), (1.0, 18_765.0)];
    Curve { plot: plot.into(), system: system.into(), rate, per_second: rate, points }
}

fn held(connections: u64) -> Held {
    Held {
        connections,
        relay_bytes: 30_000_000 + connections * 4_800,
        relay_bytes_before: 30_000_000,
        process_bytes_per_connection: 4_800.0,
        kernel_bytes_per_connection_both_ends: 8_900.0,
        connects_per_second: 8_600.0,
        idle_cpu: 0.068,
    }
}

fn fixed() -> Results {
    let scaled = |shards: usize| Scaled {
        shards,
        per_second: 1_193_000.0 * shards as f64,
        range: (1_138_000.0, 2_500_000.0),
        server_cpu: 1.0,
        server_us_each: 0.83,
    };
    Results {
        format: FORMAT,
        made: "2026-11-23 07:00 UTC".into(),
        machine: "a machine".into(),
        command: "relay-bench report --quick".into(),
        settings: vec!["2 rounds".into()],
        systems: vec![Participant {
            name: "Furrow".into(),
            version: "relayd 0".into(),
            configuration: "c".into(),
        }],
        comparison: vec![
            entry("online 100 B", "Furrow", Some(1_835_528.0)),
            entry("online 100 B", "Mosquitto QoS 1", Some(68_928.0)),
            entry("online 100 B", "NATS core (no acknowledgement)", None),
            entry("disk", "floor: fdatasync", Some(6_607.0)),
        ],
        latency: vec![
            curve("alone", "Furrow", 370_000.0),
            curve("alone", "Furrow", 920_000.0),
            curve("together", "Furrow", 20_000.0),
            curve("together", "Mosquitto QoS 1", 20_000.0),
        ],
        scaling: vec![scaled(1), scaled(2)],
        memory: vec![held(1_000), held(16_000)],
        missing: vec![Missing {
            part: Part::Memory,
            what: "32 000 connections".into(),
            why: "memory".into(),
        }],
    }
}

fn page(results: &Results) -> String {
    html::write(results, &tables::sections(results))
}

fn file(results: &Results) -> String {
    markdown::write(results, &tables::sections(results))
}

/// The names of all elements and the text between them; panics if anything is not closed in its turn.
fn elements(page: &str) -> (Vec<String>, String) {
    let mut reader = Reader::from_str(page);
    // HTML's elements without an end are looked after here.
    reader.config_mut().check_end_names = false;
    let (mut open, mut seen, mut text) = (Vec::<String>::new(), Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                let name = start.name().as_ref().to_owned();
                start.attributes().for_each(|attribute| assert!(attribute.is_ok(), "{start:?}"));
                if name != "meta" {
                    open.push(name.clone());
                }
                seen.push(name);
            }
            Event::End(end) => assert_eq!(open.pop().unwrap(), end.name().as_ref()),
            Event::Text(words) => text += &words,
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    (seen, text)
}

#[test]
fn the_page_is_well_formed_and_has_every_section_and_plot() {
    let page = page(&fixed());
    let (seen, text) = elements(&page);
    for anchor in ["throughput", "latency", "scaling", "memory", "method"] {
        assert!(page.contains(&format!("<section id=\"{anchor}\">")), "{anchor}");
    }
    let count = |name: &str| seen.iter().filter(|it| *it == name).count();
    assert_eq!((count("section"), count("svg"), count("table")), (5, 5, 7));
    for words in
        ["a machine", "relay-bench report --quick", "2 rounds", "relayd 0", "nats-server: not installed"]
    {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn the_page_needs_nothing_from_outside_and_follows_the_reader_s_colours() {
    let page = page(&fixed());
    for outside in ["<script", "<link", "<img", "http:", "https:", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn every_number_is_in_a_table_of_the_page_and_of_the_markdown() {
    let results = fixed();
    let (page, file) = (page(&results), file(&results));
    for number in [
        "1 835 528",
        "68 928",
        "6 607",
        "1 810",
        "5 030",
        "0.04",
        "370 000",
        "920 000",
        "410",
        "2 345",
        "17 654",
        "18 765",
        "1 193 000",
        "1 138 000",
        "2.00",
        "34 800 000",
        "30 000 000",
        "142 400 000",
        "4 800",
        "8 900",
        "8 600",
        "6.8",
    ] {
        assert!(page.contains(&format!(">{number}</td>")), "{number}");
        assert!(file.contains(&format!(" {number} |")), "{number}");
    }
}

#[test]
fn what_is_missing_is_said_with_its_reason() {
    let results = fixed();
    for text in [page(&results), file(&results)] {
        assert!(text.contains("NATS core (no acknowledgement), missing: nats-server: not installed"));
        assert!(text.contains("32 000 connections: memory"));
    }
    let nothing = Results::default();
    elements(&page(&nothing));
    for text in [page(&nothing), file(&nothing)] {
        assert_eq!(text.matches("Not measured.").count(), 4);
    }
}

#[test]
fn texts_are_escaped_wherever_they_come_from() {
    let mut results = fixed();
    for text in [&mut results.made, &mut results.machine, &mut results.command, &mut results.settings[0]] {
        *text = NASTY.into();
    }
    results.systems[0].name = NASTY.into();
    results.comparison[1].system = NASTY.into();
    results.comparison[2].workload = NASTY.into();
    results.comparison[2].note = NASTY.into();
    results.latency[0].plot = NASTY.into();
    results.latency[2].system = NASTY.into();
    results.missing[0].why = NASTY.into();
    let page = page(&results);
    elements(&page);
    assert!(!page.contains("<script"));
    assert!(!file(&results).contains("<script"));
}

#[test]
fn odd_numbers_do_not_break_the_page() {
    for odd in [0.0, -1.0, f64::MAX, f64::NAN, f64::INFINITY] {
        let mut results = fixed();
        results.comparison[0] = entry("online 100 B", "Furrow", Some(odd));
        results.latency[0].points = vec![(odd, odd), (0.5, odd)];
        results.scaling[0].per_second = odd;
        results.scaling[1].shards = 0;
        results.memory[0].kernel_bytes_per_connection_both_ends = odd;
        results.memory[1].connections = u64::MAX;
        elements(&page(&results));
    }
}

#[test]
fn saved_results_are_drawn_as_those_that_were_measured() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.json");
    let results = fixed();
    std::fs::write(&path, serde_json::to_string(&results).unwrap()).unwrap();
    assert_eq!(page(&read(&path).unwrap()), page(&results));

    std::fs::write(&path, serde_json::to_string(&Results { format: FORMAT + 1, ..results }).unwrap())
        .unwrap();
    assert!(matches!(read(&path), Err(Failure::Setting(_))));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(read(&path), Err(Failure::Setting(_))));
}
