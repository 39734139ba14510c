//! Statuses on a terminal: one line for each device, kept up to date in its place, with the time since it changed.

use client::{DeviceUrl, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A line.
struct Row {
    bar: ProgressBar,
    status: Status,
    since: Instant,
}

/// See the module's head.
pub(crate) struct StatusTable {
    lines: MultiProgress,
    rows: BTreeMap<DeviceUrl, Row>,
}

impl StatusTable {
    /// On standard output, of nothing.
    pub(crate) fn new() -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self { lines, rows: BTreeMap::new() }
    }

    /// A device has this status.
    pub(crate) fn show(&mut self, device: &DeviceUrl, status: Status) {
        let lines = &self.lines;
        let row = self.rows.entry(device.clone()).or_insert_with(|| {
            let bar = lines.add(ProgressBar::new_spinner());
            bar.set_style(style(status));
            Row { bar, status, since: Instant::now() }
        });
        if row.status != status {
            (row.status, row.since) = (status, Instant::now());
            row.bar.set_style(style(status));
        }
        row.draw(device);
    }

    /// Time has passed.
    pub(crate) fn refresh(&self) {
        self.rows.iter().for_each(|(device, row)| row.draw(device));
    }

    /// Leaves the lines as they are.
    pub(crate) fn leave(self) {
        self.rows.values().for_each(|row| row.bar.abandon());
    }
}

impl Row {
    fn draw(&self, device: &DeviceUrl) {
        self.bar.set_prefix(format!("{:<8}{:>8}", self.status, span(self.since.elapsed())));
        self.bar.set_message(device.to_string());
    }
}

fn style(status: Status) -> ProgressStyle {
    let template = match status {
        Status::Online => "{prefix:.green}  {wide_msg}",
        Status::Away => "{prefix:.yellow}  {wide_msg}",
        Status::Offline => "{prefix:.dim}  {wide_msg}",
        Status::Unknown => "{prefix:.red}  {wide_msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// A span of time, in its largest unit.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_shown_in_its_largest_unit() {
        let shown =
            [0, 59, 60, 3599, 3600, 86_399, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "2 days"]);
    }

    #[test]
    fn every_status_has_a_style_of_its_own() {
        for status in Status::ALL {
            style(status);
        }
    }
}
