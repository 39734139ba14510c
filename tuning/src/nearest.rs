//! "Did you mean": the known name nearest to one that is not known.
//!
//! Owns the measure of nearness. A name is near when few edits turn it into the known one, or into a part of it:
//! `conections` is near `connections_per_shard`.

/// How far `written` is from `known`; smaller is nearer. The second number only orders equals.
type Distance = (usize, usize);

/// The one of `known` nearest to `written`, or `None` if nothing is near enough to be what was meant.
///
/// Of equally near names the first one wins.
pub(crate) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    ranked(written, known.into_iter().map(|name| (name, 0))).map(|(name, _)| name)
}

/// As [`nearest`], with a handicap in edits for each known name; gives the winner's place as well.
pub(crate) fn ranked<'k>(
    written: &str,
    known: impl IntoIterator<Item = (&'k str, usize)>,
) -> Option<(&'k str, usize)> {
    let longest_known = 64;
    if written.len() > longest_known {
        return None;
    }
    let written: Vec<char> = written.to_lowercase().replace('-', "_").chars().collect();
    let allowed = (written.len() / 3).max(1);
    known
        .into_iter()
        .enumerate()
        .map(|(place, (name, handicap))| (distance(&written, name, handicap), name, place))
        .filter(|((edits, _), _, _)| *edits <= allowed)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, name, place)| (name, place))
}

fn distance(written: &[char], known: &str, handicap: usize) -> Distance {
    let known: Vec<char> = known.to_lowercase().replace('-', "_").chars().collect();
    let whole = edits(written, &known, false);
    let part_is_telling = written.len() >= 4;
    let part = if part_is_telling { edits(written, &known, true) + 1 } else { usize::MAX };
    (whole.min(part).saturating_add(handicap), whole)
}

/// The fewest insertions, removals, replacements and swaps of neighbours that turn `written` into `known`, or, if `part`,
/// into any run of characters inside `known`.
fn edits(written: &[char], known: &[char], part: bool) -> usize {
    let width = known.len() + 1;
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = if part { vec![0; width] } else { (0..width).collect() };
    for (row, letter) in written.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for column in 1..width {
            let differs = usize::from(*letter != known[column - 1]);
            let mut best = (last[column - 1] + differs).min(last[column] + 1).min(current[column - 1] + 1);
            let swapped = row > 0
                && column > 1
                && *letter == known[column - 2]
                && written[row - 1] == known[column - 1];
            if swapped {
                best = best.min(before_last[column - 2] + 1);
            }
            current[column] = best;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    let best_end = if part { last.iter().min() } else { last.last() };
    best_end.copied().unwrap_or(written.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near() {
        let known =
            ["backlog", "sstp", "connections_per_shard", "connections_per_device", "mesh_queue_items"];
        for (written, meant) in [
            ("backlgo", Some("backlog")),
            ("bakclog", Some("backlog")),
            ("Backlog", Some("backlog")),
            ("sttp", Some("sstp")),
            ("conections", Some("connections_per_shard")),
            ("connections-per-device", Some("connections_per_device")),
            ("queue_items", Some("mesh_queue_items")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }

    #[test]
    fn edits_count_swaps_of_neighbours_once() {
        let count = |a: &str, b: &str, part| {
            edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>(), part)
        };
        assert_eq!(count("abcd", "abdc", false), 1);
        assert_eq!(count("abc", "", false), 3);
        assert_eq!(count("", "abc", false), 3);
        assert_eq!(count("bcd", "abcde", true), 0);
        assert_eq!(count("kitten", "sitting", false), 3);
    }

    #[test]
    fn a_handicap_makes_a_name_farther() {
        let known = [("idle", 1), ("idle", 0)];
        assert_eq!(ranked("idle", known), Some(("idle", 1)));
    }

    #[test]
    fn a_very_long_name_is_near_nothing() {
        assert_eq!(nearest(&"a".repeat(100_000), ["a"]), None);
    }
}
