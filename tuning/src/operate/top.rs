//! `relayctl top`: one look at a relay after the other, and what changed between two.
//!
//! The view draws into ratatui's buffer; on a terminal that buffer is the screen, otherwise it is printed.

use super::print::{bytes, json, micros, seconds};
use super::{OperateError, status};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table, Wrap};
use ratatui::{Frame, Terminal};
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use tuning::operator::{Answer, Client, Mailbox, MailboxOrder, Request, ShardCounters, ShardState, Status};

/// Mailboxes that are shown.
const MAILBOXES: usize = 8;
/// Looks that the history shows.
const HISTORY: usize = 240;
/// The size of what is printed where there is no terminal.
const PRINTED: (u16, u16) = (132, 40);

/// A relay at one moment.
struct Look {
    at: Instant,
    status: Status,
    slowest: Vec<Mailbox>,
}

impl Look {
    fn take(client: &mut Client) -> Result<Self, OperateError> {
        let status = status(client)?;
        let request = Request::Mailboxes { order: MailboxOrder::Slowest, most: MAILBOXES };
        // A relay that is starting or stopping lists no mailboxes.
        let slowest = match client.ask(request, super::PATIENCE) {
            Ok(Answer::Mailboxes(mailboxes)) => mailboxes,
            Ok(_) => return Err(OperateError::Unfit),
            Err(tuning::operator::ClientError::Refused(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { at: Instant::now(), status, slowest })
    }
}

/// What happened in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Rates {
    connections: f64,
    deposited: f64,
    delivered: f64,
    received_bytes: f64,
    sent_bytes: f64,
    commits: f64,
}

impl Rates {
    fn between(before: &ShardCounters, now: &ShardCounters, seconds: f64) -> Self {
        let rate =
            |value: fn(&ShardCounters) -> u64| value(now).saturating_sub(value(before)) as f64 / seconds;
        Self {
            connections: rate(|counters| counters.connections_accepted),
            deposited: rate(|counters| counters.deposited),
            delivered: rate(|counters| counters.delivered),
            received_bytes: rate(|counters| counters.received_bytes),
            sent_bytes: rate(|counters| counters.sent_bytes),
            commits: rate(|counters| counters.log_batches),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            deposited: self.deposited + other.deposited,
            delivered: self.delivered + other.delivered,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            commits: self.commits + other.commits,
        }
    }
}

/// The view: the last look, what changed since the one before, and how the relay did before.
struct View {
    look: Look,
    /// By shard.
    rates: Vec<Rates>,
    /// Messages delivered a second.
    history: VecDeque<u64>,
}

impl View {
    fn new(look: Look) -> Self {
        let rates = vec![Rates::default(); look.status.shards.len()];
        Self { look, rates, history: VecDeque::new() }
    }

    fn next(&mut self, look: Look) {
        let seconds = look.at.duration_since(self.look.at).as_secs_f64().max(0.001);
        let shards = look.status.shards.iter().zip(&self.look.status.shards);
        self.rates =
            shards.map(|(now, before)| Rates::between(&before.counters, &now.counters, seconds)).collect();
        self.history.push_back(self.total().delivered.round() as u64);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.look = look;
    }

    fn total(&self) -> Rates {
        self.rates.iter().copied().fold(Rates::default(), Rates::plus)
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let shards = self.look.status.shards.len() as u16;
        let areas = Layout::vertical([
            Constraint::Length(4),
            Constraint::Length(4),
            Constraint::Length(shards + 2),
            Constraint::Min(3),
        ])
        .split(frame.area());
        frame.render_widget(Paragraph::new(self.head()).wrap(Wrap { trim: true }), areas[0]);
        self.draw_history(frame, areas[1]);
        frame.render_widget(self.shards(frame.area().width), areas[2]);
        frame.render_widget(self.mailboxes(), areas[3]);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let (status, total) = (&self.look.status, self.total());
        let sum = |value: fn(&ShardCounters) -> u64| {
            status.shards.iter().map(|shard| value(&shard.counters)).sum::<u64>()
        };
        let uptime = seconds((status.now_ms / 1000).saturating_sub(status.started_at));
        let mut resources = vec![Span::raw("resources ")];
        for resource in &status.resources {
            let percent = resource.used as f64 * 100.0 / resource.limit.max(1) as f64;
            let colour = match resource.level.as_str() {
                "critical" => Color::Red,
                "warning" => Color::Yellow,
                _ => Color::Green,
            };
            let text = format!("{} {percent:.0} % {}   ", resource.name, resource.level);
            resources.push(Span::styled(text, Style::new().fg(colour)));
        }
        vec![
            Line::from(format!("furrow {}   {} for {uptime}   q ends", status.version, status.state))
                .style(Style::new().add_modifier(Modifier::BOLD)),
            Line::from(format!(
                "{} connections ({} half-open, {:.0}/s new)   {} messages in {} mailboxes   {} in flight",
                sum(|counters| counters.connections),
                sum(|counters| counters.half_open),
                total.connections,
                sum(|counters| counters.messages),
                sum(|counters| counters.mailboxes),
                bytes(sum(|counters| counters.in_flight_bytes)),
            )),
            Line::from(resources),
        ]
    }

    fn draw_history(&self, frame: &mut Frame<'_>, area: Rect) {
        let total = self.total();
        let text = format!(
            "messages/s {:.0} in, {:.0} out (below)   bytes/s {} in, {} out",
            total.deposited,
            total.delivered,
            bytes(total.received_bytes as u64),
            bytes(total.sent_bytes as u64),
        );
        let areas = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).split(area);
        frame.render_widget(Paragraph::new(text), areas[0]);
        let newest: Vec<u64> =
            self.history.iter().rev().take(usize::from(area.width)).rev().copied().collect();
        frame.render_widget(Sparkline::default().data(newest), areas[1]);
    }

    fn shards(&self, width: u16) -> Table<'static> {
        let columns = columns_for(width);
        let row = |(state, rates): (&ShardState, &Rates)| {
            let style = if state.answers { Style::new() } else { Style::new().fg(Color::Red) };
            Row::new(columns.iter().map(|column| (column.text)(state, rates)).collect::<Vec<_>>())
                .style(style)
        };
        let rows: Vec<_> = self.look.status.shards.iter().zip(&self.rates).map(row).collect();
        let names: Vec<_> = columns.iter().map(|column| column.name).collect();
        let widths = columns.iter().map(|column| Constraint::Length(column.width));
        Table::new(rows, widths).header(header(&names))
    }

    fn mailboxes(&self) -> Table<'static> {
        let row = |mailbox: &Mailbox| {
            let collector = mailbox.collector.map(|(shard, number)| format!("{shard}:{number}"));
            Row::new([
                mailbox.messages.to_string(),
                mailbox.under_way.to_string(),
                bytes(mailbox.held_bytes),
                collector.unwrap_or_else(|| "-".into()),
                mailbox.identity.clone(),
                mailbox.resource.clone(),
            ])
        };
        let widths = [
            Constraint::Length(16),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(18),
            Constraint::Fill(2),
            Constraint::Fill(1),
        ];
        let head = ["slowest mailbox", "under way", "held", "connection", "identity", "resource"];
        Table::new(self.look.slowest.iter().map(row), widths).header(header(&head))
    }

    /// A look for programs.
    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Printed<'v> {
            status: &'v Status,
            per_second: Rates,
            slowest: &'v [Mailbox],
        }
        json(&Printed { status: &self.look.status, per_second: self.total(), slowest: &self.look.slowest })
    }
}

/// A column of the table of shards.
struct Column {
    name: &'static str,
    width: u16,
    /// The highest leaves first where there is no room.
    leaves: u8,
    text: fn(&ShardState, &Rates) -> String,
}

const COLUMNS: [Column; 13] = {
    const fn column(
        name: &'static str,
        width: u16,
        leaves: u8,
        text: fn(&ShardState, &Rates) -> String,
    ) -> Column {
        Column { name, width, leaves, text }
    }
    [
        column("shard", 5, 0, |state, _| state.shard.to_string()),
        column("conns", 8, 5, |state, _| state.counters.connections.to_string()),
        column("in/s", 9, 2, |_, rates| format!("{:.0}", rates.deposited)),
        column("out/s", 9, 1, |_, rates| format!("{:.0}", rates.delivered)),
        column("bytes in/s", 10, 9, |_, rates| bytes(rates.received_bytes as u64)),
        column("bytes out/s", 11, 8, |_, rates| bytes(rates.sent_bytes as u64)),
        column("mesh", 6, 11, |state, _| state.mesh_queue.to_string()),
        column("log queue", 9, 4, |state, _| state.counters.log_queue.to_string()),
        column("commits/s", 9, 10, |_, rates| format!("{:.0}", rates.commits)),
        column("commit p50", 10, 7, |state, _| micros(state.commit.p50)),
        column("p99", 7, 6, |state, _| micros(state.commit.p99)),
        column("batch p50", 9, 12, |state, _| state.batch.p50.to_string()),
        column("done p99", 8, 3, |state, _| micros(state.completion.p99)),
    ]
};

/// Those that have room, whole: half a number is a wrong one.
fn columns_for(width: u16) -> Vec<Column> {
    let mut columns = Vec::from(COLUMNS);
    let taken = |columns: &[Column]| columns.iter().map(|column| column.width + 1).sum::<u16>();
    while columns.len() > 1 && taken(&columns) > width + 1 {
        let first = columns.iter().map(|column| column.leaves).max();
        columns.retain(|column| Some(column.leaves) != first);
    }
    columns
}

fn header(names: &[&'static str]) -> Row<'static> {
    Row::new(names.iter().copied()).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}

/// Looks until the operator has seen enough, `times` times at most. Gives what is to be printed at the end.
pub(super) fn run(
    client: &mut Client,
    every: Duration,
    times: Option<u64>,
    as_json: bool,
) -> Result<String, OperateError> {
    let view = View::new(Look::take(client)?);
    if as_json || !std::io::stdout().is_terminal() {
        return print(client, view, every, times.unwrap_or(1), as_json);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(client, view, &mut terminal, every, times);
    ratatui::restore();
    outcome.map(|()| String::new())
}

fn print(
    client: &mut Client,
    mut view: View,
    every: Duration,
    times: u64,
    as_json: bool,
) -> Result<String, OperateError> {
    let mut output = std::io::stdout().lock();
    for _ in 0..times {
        std::thread::sleep(every);
        view.next(Look::take(client)?);
        let text = if as_json { view.json() } else { drawn(&view, PRINTED) };
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            other => other?,
        }
    }
    Ok(String::new())
}

/// The view as text.
fn drawn(view: &View, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory takes everything");
    terminal.draw(|frame| view.draw(frame)).expect("memory takes everything");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    let lines: Vec<String> = rows
        .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
        .collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

fn watch(
    client: &mut Client,
    mut view: View,
    terminal: &mut ratatui::DefaultTerminal,
    every: Duration,
    times: Option<u64>,
) -> Result<(), OperateError> {
    let mut looks = 0;
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        if Some(looks) == times || ended(terminal, &view, every)? {
            return Ok(());
        }
        view.next(Look::take(client)?);
        looks += 1;
    }
}

/// Waits for the next look; `true` if the operator wants no more. A terminal of another size is drawn anew.
fn ended(
    terminal: &mut ratatui::DefaultTerminal,
    view: &View,
    every: Duration,
) -> Result<bool, OperateError> {
    let until = Instant::now() + every;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if !event::poll(left)? {
            break;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
                _ => {}
            },
            Event::Resize(..) => {
                terminal.draw(|frame| view.draw(frame))?;
            }
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tuning::operator::{ResourceState, Timing};

    fn look(at: Instant, delivered: u64) -> Look {
        let counters =
            ShardCounters { connections: 3, delivered, sent_bytes: 2048 * delivered, ..Default::default() };
        let commit = Timing { count: 1, p50: 700, p99: 1900, max: 2000 };
        let shard = |shard| ShardState { shard, answers: true, counters, commit, ..Default::default() };
        let resource = |name: &str, level: &str| ResourceState {
            name: name.into(),
            level: level.into(),
            used: 91,
            limit: 100,
        };
        let status = Status {
            state: "serving".into(),
            shards: vec![shard(0), shard(1)],
            resources: vec![resource("disk", "critical")],
            ..Default::default()
        };
        let mailbox =
            Mailbox { identity: "grooveIdentity://slow@".into(), messages: 17, ..Default::default() };
        Look { at, status, slowest: vec![mailbox] }
    }

    #[test]
    fn the_view_shows_rates_latencies_resources_and_the_slowest_mailbox() {
        let start = Instant::now();
        let mut view = View::new(look(start, 100));
        view.next(look(start + Duration::from_secs(2), 300));
        assert_eq!(view.rates[1].delivered, 100.0);
        let text = drawn(&view, (140, 30));
        for wanted in [
            "serving",
            "6 connections",
            "messages/s 0 in, 200 out",
            "bytes/s 0 B in, 400 KiB out",
            "700 us",
            "1.9 ms",
            "disk 91 % critical",
            "grooveIdentity://slow@",
            "17",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn a_column_without_room_is_left_out_and_no_number_is_cut() {
        let start = Instant::now();
        let mut view = View::new(look(start, 100));
        view.next(look(start + Duration::from_secs(2), 300));
        for (width, there, left_out) in [
            (122, "batch p50", "nothing"),
            (121, "mesh", "batch p50"),
            (80, "done p99", "bytes out/s"),
            (44, "log queue", "conns"),
        ] {
            let text = drawn(&view, (width, 24));
            let head = text.lines().find(|line| line.starts_with("shard")).unwrap();
            assert!(head.contains(there) && !head.contains(left_out), "{width}: {head}");
        }
        let narrow = drawn(&view, (80, 24));
        assert!(narrow.contains("700 us") && narrow.contains("1.9 ms"), "{narrow}");
    }

    #[test]
    fn a_small_or_empty_view_is_drawn_all_the_same() {
        let view = View::new(look(Instant::now(), 0));
        for size in [(1, 1), (20, 5), (500, 2)] {
            drawn(&view, size);
        }
    }

    #[test]
    fn counters_of_a_relay_that_was_restarted_give_no_negative_rate() {
        let before = ShardCounters { delivered: 100, ..Default::default() };
        assert_eq!(Rates::between(&before, &ShardCounters::default(), 1.0), Rates::default());
    }

    #[test]
    fn a_look_for_programs_is_one_line_with_rates() {
        let start = Instant::now();
        let mut view = View::new(look(start, 0));
        view.next(look(start + Duration::from_secs(1), 5));
        let line = view.json();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(value["per_second"]["delivered"], 10.0);
        assert_eq!(value["slowest"][0]["messages"], 17);
    }
}
