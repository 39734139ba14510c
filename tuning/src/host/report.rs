//! Findings as text for people, as JSON, and as a script that makes the changes. The script is printed and never run.

use super::finding::{Change, Finding, Verdict};
use serde_json::json;
use std::fmt::Write as _;

/// Where the script puts what has to hold after a restart of the machine.
const SYSCTL_FILE: &str = "/etc/sysctl.d/91-furrow-host.conf";
const TMPFILES_FILE: &str = "/etc/tmpfiles.d/furrow-host.conf";

/// The change as a command of a shell.
fn command(change: &Change) -> String {
    match change {
        Change::Sysctl(key, value) => format!("sysctl -w {key}='{value}'"),
        Change::Write(path, value) => format!("echo {value} > {path}"),
        Change::Command(command) => command.clone(),
        Change::ByHand(words) => format!("by hand: {words}"),
    }
}

/// The findings for people: what is not right with its reason and its change, the rest in a line each.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { topic, verdict, found, wanted, why, changes } = finding;
        let _ = writeln!(text, "{:8} {topic}: {found}", verdict.as_str());
        if *verdict == Verdict::Right {
            continue;
        }
        let _ = writeln!(text, "         wanted  {wanted}\n         why     {why}");
        for change in changes {
            let _ = writeln!(text, "         change  {}", command(change));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.verdict == wanted).count();
    let _ = writeln!(
        text,
        "\n{} right, {} wrong, {} to improve, {} unknown",
        count(Verdict::Right),
        count(Verdict::Wrong),
        count(Verdict::Advice),
        count(Verdict::Unknown)
    );
    text
}

/// The findings as one JSON array.
pub fn json(findings: &[Finding]) -> String {
    let finding = |finding: &Finding| {
        json!({
            "topic": finding.topic,
            "verdict": finding.verdict.as_str(),
            "found": finding.found,
            "wanted": finding.wanted,
            "why": finding.why,
            "changes": finding.changes.iter().map(command).collect::<Vec<_>>(),
        })
    };
    let all: Vec<_> = findings.iter().map(finding).collect();
    format!("{:#}\n", serde_json::Value::from(all))
}

/// A script that makes every change, and keeps it over restarts of the machine. Read it before it is run.
pub fn plan(findings: &[Finding]) -> String {
    let changes =
        || findings.iter().flat_map(|finding| finding.changes.iter().map(move |change| (finding, change)));
    let mut script = String::from(
        "#!/bin/sh\n# Changes to this machine for a Furrow relay, from `relayctl host check --plan`. Read it, then run it as root.\n\
         set -eu\n",
    );
    heredoc(
        &mut script,
        SYSCTL_FILE,
        changes().filter_map(|(finding, change)| match change {
            Change::Sysctl(key, value) => Some(format!("# {}\n{key} = {value}", finding.why)),
            _ => None,
        }),
        "sysctl --load",
    );
    heredoc(
        &mut script,
        TMPFILES_FILE,
        changes().filter_map(|(finding, change)| match change {
            Change::Write(path, value) => Some(format!("# {}\nw {path} - - - - {value}", finding.why)),
            _ => None,
        }),
        "systemd-tmpfiles --create",
    );
    for (finding, change) in changes() {
        match change {
            Change::Command(command) => {
                let _ = writeln!(script, "\n# {}: {}\n{command}", finding.topic, finding.why);
            }
            Change::ByHand(words) => {
                let _ = writeln!(script, "\n# By hand ({}): {words}", finding.topic);
            }
            _ => {}
        }
    }
    script
}

/// Writes lines into a file, and has it obeyed; nothing if there are none.
fn heredoc(script: &mut String, file: &str, lines: impl Iterator<Item = String>, obey: &str) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        let _ = writeln!(script, "\ncat > {file} <<'END'\n{}\nEND\n{obey} {file}", lines.join("\n"));
    }
}
