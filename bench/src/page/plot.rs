//! Plots as SVG: bars beside each other, and lines over two axes. Written by hand, not with a plotting crate: marks carry
//! classes, so that the page's style sheet gives them the colours of a light or a dark page, and texts stay texts; a crate
//! writes fixed colours. Escaping and closing of elements is maud's. Knows nothing of what is plotted.

use super::scale::Scale;
use maud::{Markup, html};

/// Units of a plot across; at its usual size a unit is a pixel.
const WIDTH: f64 = 560.0;
/// Units that one bar takes, with its name above it.
const BAR_ROW: f64 = 42.0;
/// Units right of the longest bar, for its number.
const BAR_MARGIN: f64 = 72.0;
/// Units between names at the ends of lines.
const NAME_HEIGHT: f64 = 15.0;
/// Letters of a reason that a plot has room for.
const LONGEST_NOTE: usize = 72;

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Above it.
    pub(super) name: String,
    /// Its length, and how it is written; `None` if it is missing.
    pub(super) value: Option<(f64, String)>,
    /// A thin line from here to there.
    pub(super) range: Option<(f64, f64)>,
    /// Why it is missing.
    pub(super) note: String,
    /// Whether it is the one that the others are beside.
    pub(super) lead: bool,
}

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it measures.
    pub(super) title: String,
    /// Where things lie on it.
    pub(super) scale: Scale,
    /// How its ticks are written.
    pub(super) label: fn(f64) -> String,
}

/// One line, with a point at each measurement.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// At its end.
    pub(super) name: String,
    /// The style sheet's class for it.
    pub(super) class: String,
    /// Along the two axes, and what is said of each.
    pub(super) points: Vec<(f64, f64, String)>,
    /// Lowest and highest at each point, or none.
    pub(super) ranges: Vec<(f64, f64)>,
    /// Whether it is a help for the eye and no measurement.
    pub(super) imagined: bool,
}

/// A coordinate, short.
fn at(value: f64) -> String {
    format!("{value:.1}")
}

/// Bars, with a scale below them. `title` is for those who cannot see it.
pub(super) fn bars(title: &str, bars: &[Bar], label: fn(f64) -> String) -> Markup {
    let longest =
        bars.iter().filter_map(|bar| Some(bar.value.as_ref()?.0.max(bar.range.map_or(0.0, |it| it.1))));
    let scale = Scale::from_zero(longest.fold(0.0, f64::max));
    let across = |value: f64| 1.0 + scale.place(value) * (WIDTH - BAR_MARGIN - 1.0);
    let bottom = bars.len() as f64 * BAR_ROW + 4.0;
    html! {
        svg role="img" aria-label=(title) viewBox=(format!("0 0 {WIDTH} {}", bottom + 22.0)) {
            @for &tick in scale.ticks() {
                line class="grid" x1=(at(across(tick))) x2=(at(across(tick))) y1="0" y2=(at(bottom)) {}
                @let anchor = if tick == 0.0 { "start" } else { "middle" };
                text class="tick" x=(at(across(tick))) y=(at(bottom + 16.0)) text-anchor=(anchor) { (label(tick)) }
            }
            @for (index, bar) in bars.iter().enumerate() {
                (one_bar(bar, index as f64 * BAR_ROW, &across))
            }
            line class="axis" x1="1" x2="1" y1="0" y2=(at(bottom)) {}
        }
    }
}

fn one_bar(bar: &Bar, top: f64, across: &dyn Fn(f64) -> f64) -> Markup {
    let middle = top + 28.0;
    html! {
        text class="name" x="8" y=(at(top + 15.0)) { (bar.name) }
        @match &bar.value {
            None => {
                text class="missing" x="8" y=(at(middle + 5.0)) {
                    title { (bar.note) }
                    "missing: " (shortened(&bar.note))
                }
            }
            Some((value, written)) => {
                @let (end, beyond) = (across(*value), across(bar.range.map_or(*value, |it| it.1.max(*value))));
                path class=(if bar.lead { "bar lead" } else { "bar" }) d=(bar_outline(end, middle)) {
                    title { (bar.name) ": " (written) }
                }
                @if let Some((from, to)) = bar.range {
                    line class="range" x1=(at(across(from))) x2=(at(across(to))) y1=(at(middle)) y2=(at(middle)) {}
                }
                text class="value" x=(at(beyond + 6.0)) y=(at(middle + 4.5)) { (written) }
            }
        }
    }
}

/// From the axis to `end`, its two far corners round.
fn bar_outline(end: f64, middle: f64) -> String {
    let round = 4f64.min((end - 1.0).max(0.0));
    let (top, bottom, straight) = (middle - 8.0, middle + 8.0, end - round);
    format!(
        "M1 {top:.1}H{straight:.1}q{round:.1} 0 {round:.1} {round:.1}V{:.1}q0 {round:.1} -{round:.1} {round:.1}H1Z",
        bottom - round
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_NOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The inner edges of a plot of lines.
struct Frame<'a> {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: &'a Axis,
    y: &'a Axis,
}

impl Frame<'_> {
    fn across(&self, value: f64) -> f64 {
        self.left + self.x.scale.place(value) * (self.right - self.left)
    }

    fn down(&self, value: f64) -> f64 {
        self.bottom - self.y.scale.place(value) * (self.bottom - self.top)
    }
}

/// Lines over two axes, each with its name at its end.
pub(super) fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> Markup {
    let frame = Frame { left: 58.0, right: 412.0, top: 26.0, bottom: 272.0, x, y };
    html! {
        svg role="img" aria-label=(title) viewBox=(format!("0 0 {WIDTH} 318")) {
            (axes(&frame))
            @for line in lines { (one_line(line, &frame)) }
            @for (line, height) in lines.iter().zip(name_heights(lines, &frame)) {
                circle class=(format!("dot {}", line.class)) cx=(at(frame.right + 14.0)) cy=(at(height)) r="4" {}
                text class="name" x=(at(frame.right + 23.0)) y=(at(height + 4.5)) { (line.name) }
            }
        }
    }
}

fn axes(frame: &Frame<'_>) -> Markup {
    let Frame { left, right, bottom, x, y, .. } = frame;
    html! {
        text class="tick" x="0" y="12" { (y.title) }
        @for &tick in y.scale.ticks() {
            @let height = frame.down(tick);
            line class="grid" x1=(at(*left)) x2=(at(*right)) y1=(at(height)) y2=(at(height)) {}
            text class="tick" x=(at(left - 8.0)) y=(at(height + 4.0)) text-anchor="end" { ((y.label)(tick)) }
        }
        line class="axis" x1=(at(*left)) x2=(at(*right)) y1=(at(*bottom)) y2=(at(*bottom)) {}
        @for &tick in x.scale.ticks() {
            @let place = frame.across(tick);
            line class="axis" x1=(at(place)) x2=(at(place)) y1=(at(*bottom)) y2=(at(bottom + 4.0)) {}
            text class="tick" x=(at(place)) y=(at(bottom + 18.0)) text-anchor="middle" { ((x.label)(tick)) }
        }
        text class="tick" x=(at((left + right) / 2.0)) y=(at(bottom + 40.0)) text-anchor="middle" { (x.title) }
    }
}

fn one_line(line: &Line, frame: &Frame<'_>) -> Markup {
    let place = |point: &(f64, f64, String)| (frame.across(point.0), frame.down(point.1));
    let path: Vec<String> =
        line.points.iter().map(place).map(|(across, down)| format!("{across:.1},{down:.1}")).collect();
    let class = if line.imagined { "line imagined" } else { "line" };
    html! {
        polyline class=(format!("{class} {}", line.class)) points=(path.join(" ")) {}
        @for (point, range) in line.points.iter().zip(&line.ranges) {
            @let across = at(frame.across(point.0));
            line class=(format!("spread {}", line.class)) x1=(across) x2=(across) y1=(at(frame.down(range.0)))
                y2=(at(frame.down(range.1))) {}
        }
        @if !line.imagined {
            @for point in &line.points {
                @let (across, down) = place(point);
                circle class=(format!("dot {}", line.class)) cx=(at(across)) cy=(at(down)) r="3.2" {
                    title { (line.name) ": " (point.2) }
                }
            }
        }
    }
}

/// Where the lines' names go: at the height of their ends, moved apart as far as they need.
fn name_heights(lines: &[Line], frame: &Frame<'_>) -> Vec<f64> {
    let end = |line: &Line| line.points.last().map_or(frame.bottom, |point| frame.down(point.1));
    let mut order: Vec<(usize, f64)> = lines.iter().map(end).enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut free = f64::NEG_INFINITY;
    for (_, height) in &mut order {
        *height = height.max(free);
        free = *height + NAME_HEIGHT;
    }
    let mut free = frame.bottom;
    for (_, height) in order.iter_mut().rev() {
        *height = height.min(free);
        free = *height - NAME_HEIGHT;
    }
    order.sort_by_key(|&(index, _)| index);
    order.into_iter().map(|(_, height)| height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_at(height: f64) -> Line {
        Line {
            name: "n".into(),
            class: "s1".into(),
            points: vec![(0.0, height, String::new())],
            ranges: Vec::new(),
            imagined: false,
        }
    }

    #[test]
    fn names_of_lines_that_end_together_do_not_cover_each_other() {
        let axis = Axis { title: String::new(), scale: Scale::from_zero(100.0), label: |_| String::new() };
        let frame = Frame { left: 0.0, right: 100.0, top: 0.0, bottom: 200.0, x: &axis, y: &axis };
        let heights = name_heights(&[line_at(0.0), line_at(100.0), line_at(1.0), line_at(0.5)], &frame);
        assert_eq!(heights, [200.0, 0.0, 170.0, 185.0]);
    }

    #[test]
    fn a_missing_bar_says_why_and_a_long_reason_is_cut_between_letters() {
        let bar = Bar { name: "N".into(), value: None, range: None, note: "ä".repeat(100), lead: false };
        let drawn = bars("t", &[bar], |_| String::new()).into_string();
        assert!(drawn.contains(&format!("missing: {}…", "ä".repeat(LONGEST_NOTE))), "{drawn}");
        assert!(!drawn.contains("<path"));
    }
}
