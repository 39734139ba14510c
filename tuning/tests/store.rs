//! `relayctl store` on real folders: what it finds, what it leaves alone, and with which exit code it ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use futures_lite::future::block_on;
use relay_core::address::{AccountUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::directory::DirectoryChange;
use relay_core::store::{Family, LogEntry, MessageHead, MessageHeader, Position, RecordId};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use storage::{LogOptions, MailboxLog, PlainDisk, UserDatabase};

fn relayctl(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_relayctl")).arg("store").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let (code, output, errors) = relayctl(arguments);
    (code, serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}{errors}")))
}

fn message(id: u64) -> LogEntry {
    let recipient = MailboxAddress {
        account: AccountUrl::new("account").unwrap(),
        identity: IdentityUrl::new("identity").unwrap(),
        device: None,
        resource: ResourceUrl::new("r").unwrap(),
    };
    let header = MessageHeader { flags: 0, tail: Bytes::new(), expires_at: 1 << 40 };
    LogEntry::Part {
        id: RecordId(id),
        family: if id.is_multiple_of(2) { Family::Device } else { Family::Identity },
        index: 0,
        last: true,
        head: Some(MessageHead { header, recipients: vec![recipient].into() }),
        payload: [Bytes::from_static(b"a secret")].into_iter().collect(),
    }
}

/// A relay's data folder with nine messages, five of them identity-targeted, on one of two shards, and a user.
fn data(folder: &Path) -> (PathBuf, Vec<Position>) {
    let data = folder.join("data");
    let mut positions = Vec::new();
    for shard in 0..2 {
        let directory = data.join(format!("shard-000{shard}"));
        let options = LogOptions { directory, segment_bytes: 64 * 1024, shard, shards: 2 };
        let (log, _) = block_on(MailboxLog::open_on(PlainDisk, options)).unwrap();
        if shard == 0 {
            positions = block_on(log.append(&(1..10).map(message).collect::<Vec<_>>())).unwrap();
        }
    }
    let users = UserDatabase::open(data.join("users")).unwrap();
    let account = DirectoryChange::Account(AccountUrl::new("account").unwrap(), Some(Default::default()));
    users.apply(&[account]).unwrap();
    (data, positions)
}

fn spoil(data: &Path, at: Position) {
    let path = data.join(format!("shard-0000/device-{:010}.segment", at.segment));
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"?", u64::from(at.offset + at.length) - 3).unwrap();
}

#[test]
fn verify_ends_with_0_for_whole_mail_and_with_1_for_damaged_mail_which_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (data, positions) = data(folder.path());
    let name = data.to_str().unwrap();
    let (code, found) = json(&["verify", name, "--json"]);
    assert_eq!((code, &found["messages"], &found["whole"]), (Some(0), &9.into(), &true.into()));
    // Another batch behind it, so that what is spoilt was certainly confirmed.
    let directory = data.join("shard-0000");
    let options = LogOptions { directory, segment_bytes: 64 * 1024, shard: 0, shards: 2 };
    let (log, _) = block_on(MailboxLog::open_on(PlainDisk, options)).unwrap();
    block_on(log.append(&[message(20)])).unwrap();
    assert_eq!(relayctl(&["verify", name]).0, Some(1), "a relay runs on it");
    drop(log);
    spoil(&data, positions[3]);
    let (code, found) = json(&["verify", name, "--json"]);
    assert_eq!((code, &found["messages"], &found["whole"]), (Some(1), &9.into(), &false.into()));
    assert_eq!(found["logs"][0]["lost"][0]["id"], 4);
    let (_, text, _) = relayctl(&["verify", name]);
    assert!(text.contains("lost: device message 4 for identity of account (r)"), "{text}");

    let (code, rebuilt) = json(&["rebuild", name, "--json"]);
    assert_eq!((code, &rebuilt[0]["messages"]), (Some(0), &9.into()));
    let (code, found) = json(&["verify", name, "--json"]);
    assert_eq!((code, &found["messages"]), (Some(0), &9.into()));
    assert!(data.join("shard-0000.before-rebuild-0").is_dir());
}

#[test]
fn dump_shows_headers_and_never_what_mail_says() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data(folder.path());
    let (code, text, _) = relayctl(&["dump", data.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(text.contains("message 9: part 0, the last, 8 bytes for identity of account (r)"), "{text}");
    assert!(!text.contains("secret"));
    let (_, lines, _) = relayctl(&["dump", data.to_str().unwrap(), "--json"]);
    assert_eq!(lines.lines().count(), 9);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_backup_of_an_open_store_is_restored_in_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data(folder.path());
    let directory = data.join("shard-0000");
    let options = LogOptions { directory, segment_bytes: 64 * 1024, shard: 0, shards: 2 };
    let running = block_on(MailboxLog::open_on(PlainDisk, options)).unwrap();
    let users = UserDatabase::open(data.join("users")).unwrap();
    let [to, new] = ["backup", "new"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let (code, made) = json(&["backup", data.to_str().unwrap(), "--to", &to, "--identity-first", "--json"]);
    assert_eq!((code, &made["shards"], &made["accounts"]), (Some(0), &2.into(), &1.into()));
    drop((running, users));
    assert_eq!(relayctl(&["backup", data.to_str().unwrap(), "--to", &to]).0, Some(1), "it is there already");
    assert_eq!(relayctl(&["verify", &to]).0, Some(0));

    let restore = |only| json(&["restore", &to, "--to", &new, "--only", only, "--json"]).1;
    let first = restore("identity");
    assert_eq!((&first["messages"], &first["users_restored"]), (&5.into(), &true.into()));
    let second = restore("device");
    assert_eq!((&second["messages"], &second["users_restored"]), (&4.into(), &false.into()));
    let again = restore("device");
    assert_eq!((&again["messages"], &again["present"]), (&0.into(), &4.into()), "nothing comes twice");
    assert_eq!(json(&["verify", &new, "--json"]).1["messages"], 9);
    let users = UserDatabase::open(Path::new(&new).join("users")).unwrap();
    assert_eq!(users.counts().accounts, 1);
    let (code, _, errors) = relayctl(&["restore", &to, "--to", &new]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("--running"), "a relay has it open: {errors}");
}

#[test]
fn a_folder_without_logs_and_an_unfinished_backup_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    for arguments in [vec!["verify", name], vec!["restore", name, "--to", "x"], vec!["rebuild", name]] {
        let (code, output, errors) = relayctl(&arguments);
        assert_eq!((code, output.as_str()), (Some(1), ""), "{errors}");
        assert!(errors.contains(name), "{errors}");
    }
}
