//! SECURITY.md promises a test for each threat: they are all there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the table calls the files.
const FILES: [(&str, &str); 22] = [
    ("handshakes", "relay-core/src/security/tests/handshakes.rs"),
    ("registrations", "relay-core/src/security/tests/registrations.rs"),
    ("attacks", "relay-core/src/security/tests/attacks.rs"),
    ("core/strangers", "relay-core/tests/strangers.rs"),
    ("core/admission", "relay-core/tests/relay_rules/admission.rs"),
    ("core/deposit", "relay-core/tests/relay_rules/deposit.rs"),
    ("core/http", "relay-core/tests/http/port_80_rules.rs"),
    ("core/publishing", "relay-core/tests/relay_rules/presence/publishing.rs"),
    ("core/telling", "relay-core/tests/relay_rules/presence/telling.rs"),
    ("core/peers", "relay-core/tests/relay_rules/peers.rs"),
    ("peer keys", "relay-core/src/security/peers.rs"),
    ("relay/strangers", "shard/tests/strangers.rs"),
    ("relay/tls", "shard/tests/tls.rs"),
    ("relay/tokens", "shard/tests/tokens.rs"),
    ("relay/operator", "shard/tests/operator/commands.rs"),
    ("relay/init", "shard/src/init.rs"),
    ("relay/socket", "shard/src/operations/socket.rs"),
    ("users", "storage/src/users_tests.rs"),
    ("relay/management", "shard/tests/management.rs"),
    ("spmr/secured", "relay-core/src/spmr/secured.rs"),
    ("spmr/tests", "relay-core/src/spmr/tests.rs"),
    ("spmr/xml", "relay-core/src/spmr/xml.rs"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file and name of each test in the last column of a row.
fn tests(column: &str) -> Vec<(&str, &str)> {
    let mut file = "";
    let mut found = Vec::new();
    // Outside the backticks stands the file, unless it is the same again; inside them the test.
    for (index, part) in column.split('`').enumerate() {
        let word = part.trim_matches([' ', ',', ';']);
        match index % 2 {
            0 if word.is_empty() => {}
            0 => file = word,
            _ => found.push((file, word)),
        }
    }
    found
}

#[test]
fn every_test_that_security_md_names_exists() {
    let table = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let sources: HashMap<_, _> = FILES
        .iter()
        .map(|&(name, path)| (name, std::fs::read_to_string(root().join(path)).unwrap()))
        .collect();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() >= 25, "the table was found");
    for row in rows {
        let columns: Vec<_> = row.trim_matches('|').split('|').collect();
        let [_, _, shown_by] = columns[..] else { panic!("not three columns: {row}") };
        let tests = tests(shown_by);
        assert!(!tests.is_empty(), "no test: {row}");
        for (file, test) in tests {
            let source = sources.get(file).unwrap_or_else(|| panic!("which file is {file:?}? {row}"));
            assert!(source.contains(&format!("fn {test}(")), "{file} has no test {test}");
        }
    }
}
