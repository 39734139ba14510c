//! The command line of `relayctl`: what it prints and with which exit code it ends.

use std::process::{Command, Output};

fn relayctl(arguments: &[&str]) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_relayctl")).args(arguments).output().expect("it runs");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn check_ends_with_0_for_a_right_file_and_2_for_a_wrong_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("furrow.toml");
    let name = file.to_str().unwrap();
    let (code, default, _) = relayctl(&["config", "default", "--url", "grooveDNS://h"]);
    assert_eq!(code, Some(0));
    std::fs::write(&file, default).unwrap();
    assert_eq!(relayctl(&["config", "check", name]), (Some(0), format!("{name}: right\n"), String::new()));

    std::fs::write(&file, "[relay]\nurl = 'x'\nshard.count = 2\n").unwrap();
    let (code, output, errors) = relayctl(&["config", "check", name]);
    assert_eq!((code, output.as_str()), (Some(2), ""));
    assert_eq!(errors, format!("{name}:3: relay.shard: unknown key\n"));
}

#[test]
fn any_host_does_not_ask_for_the_processors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("furrow.toml");
    std::fs::write(&file, "relay.url = 'x'\nshards.cores = [65535]\n").unwrap();
    let name = file.to_str().unwrap();
    assert_eq!(relayctl(&["config", "check", name]).0, Some(2));
    assert_eq!(relayctl(&["config", "check", "--any-host", name]).0, Some(0));
}

#[test]
fn default_refuses_a_url_that_is_none() {
    let (code, output, errors) = relayctl(&["config", "default", "--url", "a b"]);
    assert_eq!((code, output.as_str()), (Some(2), ""));
    assert!(errors.contains("relay.url: \"a b\" is not a URL to SSTP"), "{errors}");
}

#[test]
fn explain_and_reference_print_and_an_unknown_key_ends_with_2() {
    let (code, text, _) = relayctl(&["config", "explain", "mail.deposit"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("mail.deposit\n\nWho may leave mail.\n"), "{text}");
    let (code, _, errors) = relayctl(&["config", "explain", "mail.deposits"]);
    assert_eq!(
        (code, errors.as_str()),
        (Some(2), "mail.deposits: unknown key; did you mean `mail.deposit`?\n")
    );
    assert_eq!(relayctl(&["config", "reference"]), (Some(0), tuning::reference(), String::new()));
}

#[test]
fn version_and_help_with_examples_are_there() {
    assert_eq!(relayctl(&["--version"]).1, format!("relayctl {}\n", env!("CARGO_PKG_VERSION")));
    assert!(relayctl(&["--help"]).1.contains("relayctl config check furrow.toml"));
    assert!(relayctl(&["config", "--help"]).1.contains("relayctl config explain timers.idle"));
    assert_eq!(relayctl(&[]).0, Some(2));
}

#[test]
fn what_concerns_users_is_handed_on_to_relayd_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (own, relayd) = (folder.path().join("relayctl"), folder.path().join("relayd"));
    // Written by other processes: a descriptor of ours, inherited by what another test starts, would keep them from being run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_relayctl")).arg(&own).status().unwrap();
    assert!(copied.success());
    let user = |arguments: &[&str]| Command::new(&own).arg("user").args(arguments).output().unwrap();
    let alone = user(&["list"]);
    assert_eq!(alone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&alone.stderr).contains("relayd"), "{alone:?}");

    let script = r#"printf '#!/bin/sh\necho "$@"\nexit 7\n' > "$0" && chmod 755 "$0""#;
    assert!(Command::new("sh").args(["-c", script]).arg(&relayd).status().unwrap().success());
    let handed_on = user(&["lock", "--data", "/x", "--device", "dpp://d", "--help"]);
    assert_eq!(handed_on.status.code(), Some(7));
    assert_eq!(handed_on.stdout, b"user lock --data /x --device dpp://d --help\n");
}
