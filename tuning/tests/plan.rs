//! `relayctl plan` on the command line: an answer, its JSON, and clear words about what is wrong.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

fn plan(arguments: &str) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_relayctl"))
        .arg("plan")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_plan_has_every_answer_its_settings_its_assumptions_and_the_figures_with_their_sources() {
    let (code, text, errors) = plan("--users 20000 --devices 40000 --message-rate 200");
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for word in [
        "shards",
        "memory",
        "disk",
        "network",
        "descriptors",
        "Settings for furrow.toml",
        "[shards]",
        "Assumed",
        "RESULTS.md, beside the peers, online 100 B",
        "storage/FORMAT.md",
    ] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn the_json_is_whole_and_its_settings_are_toml() {
    let (code, text, _) = plan("--users 1000 --message-rate 5 --offline-share 0 --json");
    assert_eq!(code, Some(0));
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["work"]["connections"], 1000.0);
    assert_eq!(plan["work"]["stored_per_second"], 0.0);
    assert_eq!(plan["preset"], "small");
    let settings: toml::Table = plan["settings"].as_str().unwrap().parse().unwrap();
    assert_eq!(settings["shards"]["count"], toml::Value::from(1));
    assert!(plan["measured"]["online_us"]["source"].is_string());
}

#[test]
fn what_is_wrong_is_said_and_ends_with_2() {
    for (arguments, word) in [
        ("--users 10", "--message-rate"),
        ("--users 0 --message-rate 1", "1..=1000000000"),
        ("--users 10 --message-rate -1", "--message-rate"),
        ("--users 10 --message-rate nan", "a number of messages a second from 0"),
        ("--users 10 --message-rate 1 --offline-share 140%", "a share from 0 to 1, or from 0% to 100%"),
        ("--users 10 --message-rate 1 --busy 0", "from 5% to 100%"),
        ("--users 10 --message-rate 1 --message-size 2GiB", "a message may have 1 GiB at most"),
        ("--users 10 --message-rate 1 --message-size 1.5KiB", "has a fraction"),
        ("--users 10 --message-rate 1 --lifetime 30", "has no unit"),
        ("--users 10 --message-rate 1 --away 0s", "a time from 1 s to 3650 days"),
        ("--users 10 --message-rate 1 --measured /no/such/file", "/no/such/file: No such file"),
    ] {
        let (code, output, errors) = plan(arguments);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments}");
        assert!(errors.contains(word), "{arguments}: {errors}");
    }
}
