//! Backups of a relay that runs, and their way back into one that runs, be it the same or another one.

use crate::running::{Person, Running, in_time};
use client::Message;
use relay_core::store::Family;
use std::path::{Path, PathBuf};
use storage::{copy_log, copy_users, log_folders};
use tuning::operator::{Answer, ErrorCause, MailFamily, Request, RestoreReport};

/// A backup of a running relay, as `relayctl store backup` makes it.
fn back_up(relay: &Running, to: &Path) {
    let both = [Family::Identity, Family::Device];
    for log in log_folders(relay.data()).unwrap() {
        copy_log(&log, &to.join(log.file_name().unwrap()), &both, |_| {}).unwrap();
    }
    copy_users(&relay.data().join("users"), &to.join("users")).unwrap();
    std::fs::write(to.join("backup.json"), "{}").unwrap();
}

fn restore(relay: &Running, backup: &Path, only: Option<MailFamily>) -> RestoreReport {
    let mut told = 0;
    let request = Request::Restore { backup: backup.into(), only };
    match relay.ask_at_length(request, |_, _| told += 1) {
        Answer::Restored(report) => report,
        other => panic!("{other:?} after {told} words"),
    }
}

async fn send_device(from: &Person, to: &Person, bytes: usize) {
    let message = Message::to(to.profile.identities[0].clone()).device(to.profile.device_url.clone());
    let message = message.body(vec![9; bytes]);
    in_time(in_time(from.client.send(message)).await.unwrap()).await.unwrap();
}

/// Everything that a person gets, by length.
async fn receive(who: &Person, count: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    for _ in 0..count {
        lengths.push(who.receive().await);
    }
    lengths.sort_unstable();
    lengths
}

/// Mail for one who is away, some of it in several parts; gives its lengths.
async fn fill(from: &Person, to: &Person) -> Vec<usize> {
    let mut lengths: Vec<usize> = (1..30).collect();
    lengths.push(700_000);
    for &length in &lengths {
        from.send(to, length).await;
    }
    send_device(from, to, 400_000).await;
    lengths.push(400_000);
    lengths.sort_unstable();
    lengths
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    (folder, backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_takes_back_only_what_it_has_no_more_and_nothing_twice() {
    let relay = Running::start(|_| {});
    let (alice, mut bob) = (relay.person().await, relay.person().await);
    bob.client.close().await;
    let lengths = fill(&alice, &bob).await;
    let (_folder, backup) = folder();
    back_up(&relay, &backup);
    let report = restore(&relay, &backup, None);
    assert_eq!((report.messages, report.present), (0, lengths.len() as u64), "all of it is still there");
    bob.come_back().await;
    assert_eq!(receive(&bob, lengths.len()).await, lengths);
    relay.eventually("the mail is gone", || {
        relay.status().shards.iter().all(|shard| shard.counters.messages == 0)
    });
    // What was collected since comes again, while its recipient is there; the urgent mail first, if so wished.
    let report = restore(&relay, &backup, Some(MailFamily::Identity));
    assert_eq!((report.messages, report.present, report.whole), (lengths.len() as u64 - 1, 0, true));
    let report = restore(&relay, &backup, None);
    assert_eq!((report.messages, report.present), (1, lengths.len() as u64 - 1));
    assert_eq!(receive(&bob, lengths.len()).await, lengths);
    let report = restore(&relay, &backup, None);
    assert_eq!((report.messages, report.present), (0, lengths.len() as u64), "it was restored before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_into_a_running_relay_with_another_number_of_shards() {
    let old = Running::start(|_| {});
    let (alice, bob) = (old.person().await, old.person().await);
    bob.client.close().await;
    let lengths = fill(&alice, &bob).await;
    let (_folder, backup) = folder();
    back_up(&old, &backup);
    for shards in [1, 3] {
        let mut new = Running::start(|config| config.shards.count = shards);
        let mut moved = bob.moved_to(&new).await;
        moved.client.close().await;
        let report = restore(&new, &backup, None);
        assert_eq!((report.messages, report.present), (lengths.len() as u64, 0));
        // It is durable once it is said to be restored.
        new.kill_and_restart();
        moved.come_back().await;
        assert_eq!(receive(&moved, lengths.len()).await, lengths, "{shards} shards");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backup_is_refused() {
    let relay = Running::start(|_| {});
    let (_folder, backup) = folder();
    assert_eq!(relay.refused(Request::Restore { backup, only: None }), ErrorCause::BadValue);
}
