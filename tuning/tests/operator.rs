//! `relayctl` against an operator's socket that is played from a script: what it asks, what it prints, how it ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

/// Answers one request with this line, and gives the request.
fn relay(socket: &Path, reply: &str) -> JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let reply = format!("{reply}\n");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        (&stream).write_all(reply.as_bytes()).unwrap();
        request.trim_end().to_owned()
    })
}

fn relayctl(arguments: &[&str]) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_relayctl")).args(arguments).output().expect("it runs");
    (status.code(), text(stdout), text(stderr))
}

/// What the tool asks with these arguments, and what it prints when it is answered so.
fn asks(arguments: &[&str], reply: &str) -> (String, Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relayd.sock");
    let relay = relay(&socket, reply);
    let arguments: Vec<&str> =
        arguments.iter().copied().chain(["--socket", socket.to_str().unwrap()]).collect();
    let (code, output, errors) = relayctl(&arguments);
    (relay.join().unwrap(), code, output, errors)
}

const DONE: &str = r#"{"v":1,"answer":"done"}"#;

#[test]
fn every_command_asks_what_the_protocol_has_for_it() {
    let table: [(&[&str], &str); 11] = [
        (&["connections", "--most", "7"], r#"{"v":1,"command":"connections","filter":"everybody","most":7}"#),
        (
            &["connections", "--account", "a"],
            r#"{"v":1,"command":"connections","filter":{"account":"a"},"most":100}"#,
        ),
        (
            &["mailboxes", "--order", "slowest"],
            r#"{"v":1,"command":"mailboxes","order":"slowest","most":20}"#,
        ),
        (&["devices", "clear-keys", "--device", "d"], r#"{"v":1,"command":"clear-keys","device":"d"}"#),
        (&["devices", "clear-keys", "--account", "a"], r#"{"v":1,"command":"clear-keys","account":"a"}"#),
        (
            &["disconnect", "--connection", "1:4294967297", "--return-time", "9"],
            r#"{"v":1,"command":"disconnect","filter":{"connection":{"shard":1,"number":4294967297}},"return_seconds":9}"#,
        ),
        (
            &["disconnect", "--address", "::1"],
            r#"{"v":1,"command":"disconnect","filter":{"address":"::1"},"return_seconds":null}"#,
        ),
        (
            &["disconnect", "--all"],
            r#"{"v":1,"command":"disconnect","filter":"everybody","return_seconds":null}"#,
        ),
        (&["drain"], r#"{"v":1,"command":"drain"}"#),
        (&["drain", "--undo"], r#"{"v":1,"command":"end-drain"}"#),
        (&["log-level", "debug"], r#"{"v":1,"command":"log-level","level":"debug"}"#),
    ];
    for (arguments, request) in table {
        let (asked, code, output, errors) = asks(arguments, DONE);
        assert_eq!(asked, request, "{arguments:?}");
        assert_eq!((code, output.as_str(), errors.as_str()), (Some(0), "done\n", ""));
    }
}

#[test]
fn json_is_the_answer_in_one_line() {
    let (_, code, output, _) = asks(&["reload", "--json"], DONE);
    assert_eq!((code, output.as_str()), (Some(0), "\"done\"\n"));
    let reply = r#"{"v":1,"answer":{"mailboxes":[{"identity":"i","messages":3,"of_tomorrow":true}]}}"#;
    let (_, _, output, _) = asks(&["mailboxes", "--json"], reply);
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(value["mailboxes"][0]["messages"], 3);
}

#[test]
fn status_and_listings_are_tables_for_people() {
    let reply = r#"{"v":1,"answer":{"status":{"version":"1.2","state":"serving","pid":42,"started_at":100,"now_ms":3700000,
        "log_level":"info","metrics":["127.0.0.1:9249"],"resources":[{"name":"disk","level":"warning","used":85,"limit":100}],
        "shards":[{"shard":0,"answers":true,"counters":{"connections":5,"taking_deposits":1,"taking_connections":1}},
        {"shard":1,"answers":false}]}}}"#;
    let (_, code, output, _) = asks(&["status"], &reply.replace('\n', ""));
    assert_eq!(code, Some(0));
    for wanted in
        ["relayd 1.2, process 42, serving for 1 h 0 min", "http://127.0.0.1:9249/metrics", "does not answer"]
    {
        assert!(output.contains(wanted), "{wanted} in\n{output}");
    }
    assert!(
        output
            .lines()
            .any(|line| line.starts_with("disk") && line.contains("warning") && line.ends_with("85"))
    );
    let reply = r#"{"v":1,"answer":{"connections":{"connections":[{"shard":1,"number":7,"device":"dpp://d"}],"more":true}}}"#;
    let (_, _, output, _) = asks(&["connections"], reply);
    assert!(
        output.contains("1:7") && output.contains("half-open") && output.contains("and more"),
        "{output}"
    );
}

#[test]
fn a_refusal_and_an_absent_relay_end_with_1_and_say_why() {
    let reply = r#"{"v":1,"error":{"cause":"not-found","message":"there is no such connection"}}"#;
    let (_, code, output, errors) = asks(&["disconnect", "--device", "d"], reply);
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert_eq!(errors, "relayctl: there is no such connection\n");
    let (code, _, errors) = relayctl(&["status", "--socket", "/nonexistent/relayd.sock"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("/nonexistent/relayd.sock") && errors.contains("Does the relay run"), "{errors}");
}

#[test]
fn nonsense_for_a_reply_is_told() {
    for reply in ["nonsense", r#"{"v":1}"#, r#"{"v":1,"answer":{"of_tomorrow":1}}"#] {
        let (_, code, _, errors) = asks(&["status"], reply);
        assert_eq!(code, Some(1), "{reply}");
        assert!(errors.contains("cannot be read"), "{errors}");
    }
}

#[test]
fn the_socket_is_found_through_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("furrow.toml");
    std::fs::write(&config, "relay.url = 'x'\nrelay.data_dir = 'd'\noperator.socket = 'o.sock'\n").unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    let relay = relay(&folder.path().join("d/o.sock"), DONE);
    assert_eq!(relayctl(&["reload", "--config", config.to_str().unwrap()]).0, Some(0));
    assert_eq!(relay.join().unwrap(), r#"{"v":1,"command":"reload"}"#);
}

#[test]
fn a_command_line_that_says_nothing_or_too_much_ends_with_2() {
    let wrong: [&[&str]; 7] = [
        &["disconnect", "--socket", "s"],
        &["disconnect", "--device", "d", "--all", "--socket", "s"],
        &["connections", "--device", "d", "--account", "a"],
        &["connections", "--most", "0"],
        &["devices", "clear-keys"],
        &["disconnect", "--connection", "seven"],
        &["status", "--config", "/nonexistent/furrow.toml"],
    ];
    for arguments in wrong {
        assert_eq!(relayctl(arguments).0, Some(2), "{arguments:?}");
    }
}

#[test]
fn top_prints_looks_where_there_is_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("relayd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let relay = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        for line in BufReader::new(&stream).lines() {
            let line = line.unwrap();
            let reply = if line.contains("status") {
                r#"{"v":1,"answer":{"status":{"state":"serving","shards":[{"shard":0,"answers":true}]}}}"#
            } else {
                r#"{"v":1,"answer":{"mailboxes":[{"identity":"slow","messages":9}]}}"#
            };
            (&stream).write_all(format!("{reply}\n").as_bytes()).unwrap();
            asked.push(line);
        }
        asked.len()
    });
    let arguments = ["top", "--every", "0.1", "--times", "2", "--socket", socket.to_str().unwrap()];
    let (code, output, _) = relayctl(&arguments);
    assert_eq!(code, Some(0));
    assert_eq!(output.matches("slow").count(), 4, "a heading and a mailbox in each look:\n{output}");
    assert_eq!(relay.join().unwrap(), 6, "one look to begin with, and two that are printed");
}

#[test]
fn a_backup_is_restored_into_a_running_relay_which_says_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().canonicalize().unwrap();
    let name = backup.to_str().unwrap();
    let arguments = ["store", "restore", name, "--running", "--only", "identity"];
    let socket = folder.path().join("unused.sock");
    let (code, _, errors) = relayctl(&[&arguments[..], &["--socket", socket.to_str().unwrap()]].concat());
    assert_eq!(code, Some(1));
    assert!(errors.contains("no finished backup"), "{errors}");

    std::fs::write(backup.join("backup.json"), "{}").unwrap();
    let restored = r#"{"messages":7,"bytes":70,"present":3,"expired":1,"whole":true,"seconds":0.5}"#;
    let reply = format!(
        "{{\"v\":1,\"answer\":{{\"restoring\":{{\"done\":1,\"total\":11}}}}}}\n{{\"v\":1,\"answer\":{{\"restored\":{restored}}}}}"
    );
    let (asked, code, output, errors) = asks(&arguments, &reply);
    assert_eq!(asked, format!(r#"{{"v":1,"command":"restore","backup":"{name}","only":"identity"}}"#));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(output.starts_with("restored 7 messages with 70 bytes"), "{output}");
    assert!(output.contains("3 that the relay has or had restored before, 1 whose time is over"), "{output}");
    let json = [&arguments[..], &["--json"]].concat();
    let (_, _, output, _) = asks(&json, &reply);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&output).unwrap()["present"], 3);
    let refused = r#"{"v":1,"error":{"cause":"failed","message":"another backup is being restored"}}"#;
    let (_, code, _, errors) = asks(&arguments, refused);
    assert_eq!(code, Some(1));
    assert!(errors.contains("another backup is being restored"), "{errors}");
}
