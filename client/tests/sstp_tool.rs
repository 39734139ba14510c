//! The tool `sstp` as a user runs it, against a small relay over loopback TCP.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "the relay has more than this test uses")]

mod relay;

use relay::TestRelay;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a run of the tool came to.
struct Run {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_slice(&self.stdout).unwrap()
    }
}

async fn sstp(directory: &Path, arguments: &[&str], input: &[u8]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sstp"));
    command.arg("--dir").arg(directory).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Run { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

/// A directory with a registered client, and its identity.
async fn member(relay: &TestRelay, parent: &Path, name: &str) -> (PathBuf, String) {
    let (directory, file) = (parent.join(name), parent.join("relay.toml"));
    std::fs::write(&file, relay.identity().to_toml()).unwrap();
    let made = sstp(&directory, &["--json", "init", "--relay", file.to_str().unwrap()], b"").await.json();
    assert_eq!(made["fingerprint"], relay.identity().fingerprint());
    let registered = sstp(&directory, &["register", "--json"], b"").await.json();
    (directory, registered["identity"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_message_goes_from_one_directory_to_the_other() {
    let relay = TestRelay::start().await;
    let parent = tempfile::tempdir().unwrap();
    let (alice, _) = member(&relay, parent.path(), "alice").await;
    let (bob, to_bob) = member(&relay, parent.path(), "bob").await;
    let me = sstp(&bob, &["whoami", "--json"], b"").await.json();
    assert_eq!(me["identities"][0], to_bob);

    let sent = sstp(&alice, &["send", "--to", &to_bob, "--user-ref", "greeting"], b"hello\n").await;
    assert_eq!((sent.code, &sent.stdout[..]), (0, &b"delivered 6 bytes\n"[..]), "{}", sent.stderr);
    let got = sstp(&bob, &["--json", "receive", "--count", "1"], b"").await.json();
    assert_eq!((got["text"].as_str(), got["user_ref"].as_str()), (Some("hello\n"), Some("greeting")));

    let device = me["device"].as_str().unwrap();
    let sent = sstp(&alice, &["--json", "send", "--to", &to_bob, "--device", device, "-"], b"again").await;
    assert_eq!(sent.json()["bytes"], 5);
    let out = parent.path().join("inbox");
    let got = sstp(&bob, &["--json", "receive", "--count", "1", "--out", out.to_str().unwrap()], b"").await;
    let file = got.json()["file"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(file).unwrap(), b"again");
    assert_eq!(relay.stored(), 0);
}

#[tokio::test]
async fn a_file_goes_through_standard_output_unchanged() {
    let relay = TestRelay::start().await;
    let parent = tempfile::tempdir().unwrap();
    let (directory, identity) = member(&relay, parent.path(), "me").await;
    let body: Vec<u8> = (0..1_500_000u32).map(|at| (at % 251) as u8).collect();
    let file = parent.path().join("file");
    std::fs::write(&file, &body).unwrap();
    let sent = sstp(&directory, &["send", "--to", &identity, file.to_str().unwrap()], b"").await;
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    let got = sstp(&directory, &["receive", "--stdout", "--count", "1"], b"").await;
    assert!(got.stdout == body);
}

#[tokio::test]
async fn exit_codes_say_what_went_wrong() {
    let relay = TestRelay::start().await;
    let parent = tempfile::tempdir().unwrap();
    let nobody = client::new_identity_url();
    let to_nobody = ["send", "--to", nobody.as_str()];

    let missing = sstp(&parent.path().join("none"), &to_nobody, b"").await;
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("sstp init"), "{}", missing.stderr);
    assert_eq!(sstp(parent.path(), &["send"], b"").await.code, 2);

    let (directory, _) = member(&relay, parent.path(), "me").await;
    assert_eq!(sstp(&directory, &to_nobody, b"").await.code, 4);
    let waited = sstp(&directory, &["receive", "--count", "1", "--timeout", "0.05"], b"").await;
    assert_eq!(waited.code, 3);
    assert_eq!(sstp(&directory, &["receive", "--timeout", "0.05"], b"").await.code, 0);

    let stranger = parent.path().join("stranger");
    relay.profile().create(&stranger).unwrap();
    let refused = sstp(&stranger, &["--json", "send", "--to", nobody.as_str()], b"").await;
    assert_eq!(refused.code, 4);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!((error["event"].as_str(), error["kind"].as_str()), (Some("error"), Some("refused")));

    let mut offline = relay.profile();
    offline.relay.addresses = vec!["127.0.0.1:1".into()];
    let directory = parent.path().join("offline");
    offline.create(&directory).unwrap();
    let unreachable = sstp(&directory, &["send", "--to", nobody.as_str(), "--timeout", "0.2"], b"").await;
    assert_eq!(unreachable.code, 3);
    assert!(unreachable.stderr.contains("cannot be reached"), "{}", unreachable.stderr);
}

#[tokio::test]
async fn a_device_of_which_no_relay_tells_is_unknown_and_the_exit_code_says_why() {
    let relay = TestRelay::start().await;
    let parent = tempfile::tempdir().unwrap();
    let device = "dpp://relay.example/device";
    let watch = ["--json", "presence", "watch", "--once", "--timeout", "0.2", device];

    // This relay has no presence.
    let (directory, _) = member(&relay, parent.path(), "me").await;
    let refused = sstp(&directory, &["presence", "watch", device], b"").await;
    assert_eq!((refused.code, &refused.stdout[..]), (4, &b"unknown dpp://relay.example/device\n"[..]));
    assert!(refused.stderr.contains("presence"), "{}", refused.stderr);
    assert_eq!(sstp(&directory, &["presence", "set", "online"], b"").await.code, 4);

    let mut offline = relay.profile();
    offline.relay.addresses = vec!["127.0.0.1:1".into()];
    let directory = parent.path().join("offline");
    offline.create(&directory).unwrap();
    let unreachable = sstp(&directory, &watch, b"").await;
    assert_eq!(unreachable.code, 3, "{}", unreachable.stderr);
    let told: Value = serde_json::from_slice(&unreachable.stdout).unwrap();
    assert_eq!((told["device"].as_str(), told["status"].as_str()), (Some(device), Some("unknown")));
}
