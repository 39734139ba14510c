//! The report as Markdown: its words and tables.

use super::results::Results;
use super::tables::{Section, Table};

/// The whole file.
pub(super) fn write(results: &Results, sections: &[Section]) -> String {
    let mut text = format!(
        "# Furrow benchmark report\n\n{}, {}. Command: {}\n",
        escaped(&results.made),
        escaped(&results.machine),
        escaped(&results.command)
    );
    for section in sections {
        text += &format!("\n## {}\n\n{}\n", section.title, section.words);
        if section.tables.is_empty() {
            text += "\nNot measured.\n";
        }
        for table in &section.tables {
            text += &rows(table);
        }
        for missing in &section.missing {
            text += &format!("\n* missing: {}: {}\n", escaped(&missing.what), escaped(&missing.why));
        }
    }
    text
}

fn rows(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escape = |cells: &[String]| -> Vec<String> { cells.iter().map(|cell| escaped(cell)).collect() };
    let rule: String =
        (0..table.head.len()).map(|column| if column < table.words { "|---" } else { "|--:" }).collect();
    let body: String = table.rows.iter().map(|row| line(&escape(row))).collect();
    let caption =
        if table.caption.is_empty() { String::new() } else { format!("\n{}:\n", escaped(&table.caption)) };
    format!("{caption}\n{}{rule}|\n{body}", line(&escape(&table.head)))
}

/// A text that is not taken for Markdown, HTML or the end of a cell.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\n' | '\r' => out.push(' '),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_end_its_row() {
        let table = Table {
            caption: String::new(),
            words: 1,
            head: vec!["a|b".into(), "n".into()],
            rows: vec![vec!["<b>\n`x`".into(), "1".into()]],
        };
        assert_eq!(rows(&table), "\n| a\\|b | n |\n|---|--:|\n| &lt;b> \\`x\\` | 1 |\n");
    }
}
