//! Answers of the relay for people, and for programs.

use std::fmt::Write;
use tuning::operator::{Answer, Connection, Mailbox, ResourceState, ShardState, Status};

/// The answer as one line of JSON.
pub(super) fn json(answer: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(answer).expect("answers have only text keys");
    line.push('\n');
    line
}

/// The answer for people.
pub(super) fn text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status_text(status),
        Answer::Connections { connections, more } => connections_text(connections, *more),
        Answer::Mailboxes(mailboxes) => mailboxes_text(mailboxes),
        Answer::Disconnected(count) => format!("{count} connection{} ended\n", plural(*count)),
        Answer::Drained(0) => "drained: no connection is left\n".into(),
        Answer::Drained(left) => {
            format!("drained, but {left} connection{} did not go in time\n", plural(*left))
        }
        Answer::Done => "done\n".into(),
        other => format!("{other:?}\n"),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Rows below a head, in columns as wide as what is in them; the last one is not padded.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let cells = row.iter().zip(&widths).enumerate();
        let padded =
            cells.map(
                |(column, (cell, &width))| {
                    if column + 1 == head.len() { cell.clone() } else { format!("{cell:<width$}") }
                },
            );
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes in three digits or four.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    match (unit, value) {
        (0, _) => format!("{count} B"),
        (unit, value) if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        (unit, value) => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A span of time, given in microseconds.
pub(super) fn micros(count: u64) -> String {
    match count {
        0 => "-".into(),
        1..1000 => format!("{count} us"),
        1000..10_000 => format!("{:.1} ms", count as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", count as f64 / 1e3),
        _ => format!("{:.1} s", count as f64 / 1e6),
    }
}

/// A span of time in its two largest units.
pub(super) fn seconds(count: u64) -> String {
    let (days, hours, minutes) = (count / 86_400, count / 3600 % 24, count / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{count} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", count % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn status_text(status: &Status) -> String {
    let mut text = String::new();
    let uptime = seconds((status.now_ms / 1000).saturating_sub(status.started_at));
    // Writing to a String does not fail.
    let _ =
        writeln!(text, "relayd {}, process {}, {} for {uptime}", status.version, status.pid, status.state);
    let metrics: Vec<String> =
        status.metrics.iter().map(|address| format!("http://{address}/metrics")).collect();
    let metrics = if metrics.is_empty() { "none".into() } else { metrics.join(", ") };
    let _ = writeln!(text, "log level {}, metrics {metrics}\n", status.log_level);
    let resources: Vec<_> = status.resources.iter().map(resource_row).collect();
    text.push_str(&table(&["resource", "level", "used", "of", "percent"], &resources));
    text.push('\n');
    let head = [
        "shard",
        "connections",
        "half-open",
        "messages",
        "mailboxes",
        "in flight",
        "log queue",
        "log",
        "commit p99",
        "",
    ];
    let shards: Vec<_> = status.shards.iter().map(shard_row).collect();
    text.push_str(&table(&head, &shards));
    text
}

fn resource_row(state: &ResourceState) -> Vec<String> {
    let counted = matches!(state.name.as_str(), "descriptors" | "connections");
    let amount = |count: u64| if counted { count.to_string() } else { bytes(count) };
    let percent = (state.used as f64 * 100.0 / state.limit.max(1) as f64).round();
    vec![
        state.name.clone(),
        state.level.clone(),
        amount(state.used),
        amount(state.limit),
        percent.to_string(),
    ]
}

fn shard_row(state: &ShardState) -> Vec<String> {
    let counters = &state.counters;
    let remarks = [
        (!state.answers, "does not answer"),
        (counters.draining > 0, "drained"),
        (state.answers && counters.taking_deposits == 0, "takes no messages"),
        (state.answers && counters.taking_connections == 0, "takes no connections"),
    ];
    let remarks: Vec<_> = remarks.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect();
    vec![
        state.shard.to_string(),
        counters.connections.to_string(),
        counters.half_open.to_string(),
        counters.messages.to_string(),
        counters.mailboxes.to_string(),
        bytes(counters.in_flight_bytes),
        counters.log_queue.to_string(),
        bytes(counters.log_live_bytes),
        micros(state.commit.p99),
        remarks.join(", "),
    ]
}

fn connections_text(connections: &[Connection], more: bool) -> String {
    let head = [
        "connection",
        "address",
        "state",
        "sends",
        "gets",
        "in flight",
        "output",
        "unacknowledged",
        "device",
        "accounts",
    ];
    let row = |connection: &Connection| {
        let state = match (connection.authenticated, connection.stopped) {
            (false, _) => "half-open",
            (true, true) => "stopped",
            (true, false) => "open",
        };
        vec![
            format!("{}:{}", connection.shard, connection.number),
            connection.address.map_or("-".into(), |address| address.to_string()),
            state.into(),
            connection.senders.to_string(),
            connection.outlets.to_string(),
            bytes(connection.in_flight_bytes),
            bytes(connection.output_bytes as u64),
            connection.unacknowledged.to_string(),
            connection.device.clone().unwrap_or_else(|| "-".into()),
            connection.accounts.join(" "),
        ]
    };
    let mut text = table(&head, &connections.iter().map(row).collect::<Vec<_>>());
    if more {
        text.push_str("and more: raise --most, or say which\n");
    }
    text
}

fn mailboxes_text(mailboxes: &[Mailbox]) -> String {
    let head = [
        "shard",
        "held",
        "messages",
        "under way",
        "collected by",
        "identity",
        "device",
        "resource",
        "account",
    ];
    let row = |mailbox: &Mailbox| {
        let collector = mailbox.collector.map(|(shard, number)| format!("{shard}:{number}"));
        vec![
            mailbox.shard.to_string(),
            bytes(mailbox.held_bytes),
            mailbox.messages.to_string(),
            mailbox.under_way.to_string(),
            collector.unwrap_or_else(|| "-".into()),
            mailbox.identity.clone(),
            mailbox.device.clone().unwrap_or_else(|| "-".into()),
            mailbox.resource.clone(),
            mailbox.account.clone(),
        ]
    };
    table(&head, &mailboxes.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["1".to_owned(), "long cell".into(), "x".into()],
            vec!["22222".into(), "b".into(), "".into()],
        ];
        assert_eq!(
            table(&["a", "b", "last"], &rows),
            "a      b          last\n1      long cell  x\n22222  b\n"
        );
    }

    #[test]
    fn amounts_are_short() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (10 << 10, "10 KiB"), (1 << 40, "1.0 TiB")]
        {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in
            [(0, "-"), (999, "999 us"), (1500, "1.5 ms"), (25_000, "25 ms"), (2_000_000, "2.0 s")]
        {
            assert_eq!(micros(count), text);
        }
        for (count, text) in [(5, "5 s"), (65, "1 min 5 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(seconds(count), text);
        }
    }
}
