//! What a plan says, as text for people and as JSON for programs. Computes nothing.

use super::model::Plan;

/// Bytes with a unit, three digits.
pub(super) fn bytes(bytes: f64) -> String {
    with_unit(bytes, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn bits(bits: f64) -> String {
    with_unit(bits, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

fn with_unit(mut number: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < units.len() {
        number /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || number >= 99.95 { 0 } else { 1 };
    format!("{number:.digits$} {}", units[unit])
}

/// Thousands set apart.
fn count(number: f64) -> String {
    let digits = format!("{:.0}", number);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn rate(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 { format!("{number:.2}") } else { count(number) }
}

/// For people.
pub(super) fn text(plan: &Plan) -> String {
    let (load, work, needs) = (&plan.load, &plan.work, &plan.needs);
    let mut text = String::new();
    let mut section = |title: &str, lines: &[(&str, String)]| {
        text += title;
        text.push('\n');
        for (name, value) in lines {
            text += &format!("  {name:<24}{value}\n");
        }
        text.push('\n');
    };
    section(
        "At the peak",
        &[
            ("users, devices", format!("{}, {}", count(load.users), count(load.devices))),
            ("connections", count(work.connections)),
            ("messages sent", format!("{}/s of {}", rate(load.message_rate), bytes(load.message_bytes))),
            (
                "copies delivered",
                format!(
                    "{}/s, of them {}/s stored first",
                    rate(work.deliveries_per_second),
                    rate(work.stored_per_second)
                ),
            ),
            (
                "mail that waits",
                format!("{} messages, {}", count(work.waiting_messages), bytes(work.waiting_bytes)),
            ),
        ],
    );
    section(
        "What that takes",
        &[
            ("shards", format!("{} (a processor each; {:.2} processors' work)", needs.shards, needs.cpu)),
            ("memory", bytes(needs.memory)),
            (
                "  connections",
                format!(
                    "{}, and {} of the kernel",
                    bytes(needs.memory_connections),
                    bytes(needs.memory_kernel)
                ),
            ),
            ("  mail that waits", bytes(needs.memory_mail)),
            ("  users", bytes(needs.memory_users)),
            (
                "  shards, on its way",
                format!("{} and {}", bytes(needs.memory_shards), bytes(needs.memory_buffers)),
            ),
            ("disk", format!("{}, written with {}/s", bytes(needs.disk), bytes(needs.disk_write_per_second))),
            ("network", format!("{} in, {} out", bits(needs.network_in_bits), bits(needs.network_out_bits))),
            ("descriptors", format!("{} (LimitNOFILE)", count(needs.descriptors))),
            ("back after a restart", format!("within {} s", count(needs.return_seconds))),
        ],
    );
    text += "Settings for furrow.toml\n";
    for line in plan.settings.lines() {
        text += if line.is_empty() { "" } else { "  " };
        text += line;
        text.push('\n');
    }
    for (title, lines) in [("Think about", &plan.notes), ("Assumed", &plan.assumptions)] {
        if !lines.is_empty() {
            text += &format!("\n{title}\n");
            lines.iter().for_each(|line| text += &format!("  * {line}\n"));
        }
    }
    text += "\nMeasured\n";
    for figure in plan.measured.all() {
        text += &format!("  {:>12}  {}\n{:16}{}\n", precise(figure.value), figure.what, "", figure.source);
    }
    text
}

/// Three digits that count.
fn precise(number: f64) -> String {
    if number >= 100.0 { count(number) } else { format!("{number:.2}") }
}

/// For programs.
pub(super) fn json(plan: &Plan) -> String {
    let mut text = serde_json::to_string(plan).expect("a plan is numbers and texts");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_that_are_read_easily() {
        for (number, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.0 kB"),
            (999_960.0, "1.0 MB"),
            (2.5e9, "2.5 GB"),
            (123e18, "123000 PB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bits(12.3e6), "12.3 Mbit/s");
        assert_eq!((count(1_234_567.0), rate(0.25)), ("1 234 567".into(), "0.25".into()));
    }
}
