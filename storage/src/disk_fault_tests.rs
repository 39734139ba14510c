//! A disk that refuses, fills up and stalls under the log: every refusal has its defined outcome, and the log goes on by itself.

use super::tests::{delete, ids, message, payload};
use super::*;
use crate::simulated_disk::{Operation, SimulatedDisk};
use futures_lite::future::{block_on, poll_once, zip};
use std::io::ErrorKind;

const KIB: u64 = 1024;

async fn open(disk: &SimulatedDisk, segment_bytes: u64) -> (MailboxLog<SimulatedDisk>, Replay) {
    let directory = PathBuf::from("/log");
    let options = LogOptions { directory, segment_bytes, shard: 0, shards: 1 };
    MailboxLog::open_on(disk.clone(), options).await.unwrap()
}

#[test]
fn on_a_full_disk_messages_are_refused_but_deletions_still_go_through_and_make_room() {
    let disk = SimulatedDisk::new();
    block_on(async {
        let (log, _) = open(&disk, 32 * KIB).await;
        let mut stored = Vec::new();
        for id in (2..12).step_by(2) {
            stored.push((id, log.append(&[message(id, &payload(id, 25_000))]).await.unwrap()[0]));
        }
        disk.set_fault(|operation, _| (operation == Operation::Create).then_some(ErrorKind::StorageFull));
        let refused = log.append(&[message(12, &payload(12, 25_000))]).await.unwrap_err();
        assert!(matches!(refused, StorageError::NoSpace { .. }), "{refused}");
        assert_eq!(log.read(stored[0].1).await.unwrap(), payload(2, 25_000));
        for _ in 0..20 {
            for (id, position) in &stored {
                log.append(&[delete(*id, &[*position])]).await.unwrap();
            }
        }
        log.append(&[message(12, &payload(12, 25_000))]).await.unwrap();
        drop(log);
        assert_eq!(ids(&open(&disk, 32 * KIB).await.1), [12]);
    });
}


#[test]
fn after_a_failed_sync_the_batch_can_be_tried_again_and_its_deletion_covers_both_copies() {
    let disk = SimulatedDisk::new();
    block_on(async {
        let (log, _) = open(&disk, 64 * KIB).await;
        let stays = log.append(&[message(2, b"stays")]).await.unwrap()[0];
        disk.set_fault(|operation, _| (operation == Operation::Sync).then_some(ErrorKind::Other));
        assert!(matches!(log.append(&[message(4, b"again")]).await, Err(StorageError::Io { .. })));
        disk.heal();
        let again = log.append(&[message(4, b"again")]).await.unwrap()[0];
        assert!(again.segment != stays.segment);
        assert_eq!(log.read(again).await.unwrap(), "again");
        log.append(&[delete(4, &[again])]).await.unwrap();
        // Everything behind the first segment, where the failed copy lies, is used again.
        for id in (6..20).step_by(2) {
            let at = log.append(&[message(id, &payload(id, 50_000))]).await.unwrap();
            log.append(&[delete(id, &at)]).await.unwrap();
        }
        assert_eq!(log.stats().live_bytes, u64::from(stays.length));
        drop(log);
        let (_, replay) = open(&disk, 64 * KIB).await;
        assert_eq!(ids(&replay), [2]);
        assert_eq!(replay.report.damaged, []);
    });
}


#[test]
fn while_the_disk_stalls_a_batch_waits_and_reads_go_on() {
    let disk = SimulatedDisk::new();
    block_on(async {
        let (log, _) = open(&disk, 64 * KIB).await;
        let at = log.append(&[message(2, b"two")]).await.unwrap()[0];
        disk.stall(Some(Operation::Sync));
        let batch = [message(4, b"four")];
        let mut append = Box::pin(log.append(&batch));
        for _ in 0..100 {
            assert!(poll_once(&mut append).await.is_none());
            assert_eq!(log.read(at).await.unwrap(), "two");
        }
        disk.stall(None);
        assert_eq!(append.await.unwrap().len(), 1);
    });
}

#[test]
fn upkeep_that_the_disk_refuses_loses_nothing_and_is_made_up_for() {
    let refused = [Operation::Create, Operation::Rename, Operation::SyncDirectory, Operation::Write];
    for (operation, seed) in refused.into_iter().zip(0..) {
        let disk = SimulatedDisk::new();
        disk.be_restless(seed);
        block_on(async {
            let (log, _) = open(&disk, 32 * KIB).await;
            let stays = log.append(&[message(2, b"stays"), message(3, b"too")]).await.unwrap();
            let mut previous: Option<(u64, Position)> = None;
            for id in 4..90 {
                if id % 10 == 3 {
                    disk.set_fault(move |asked, _| (asked == operation).then_some(ErrorKind::Other));
                    // Whether anything of it is asked for depends on the history; the log must be whole in any case.
                    let _ = log.maintain().await;
                    disk.heal();
                }
                let mut batch = vec![message(id, &payload(id, 3000))];
                batch.extend(previous.map(|(id, position)| delete(id, &[position])));
                let (appended, maintained) = zip(log.append(&batch), log.maintain()).await;
                maintained.unwrap();
                previous = Some((id, appended.unwrap()[0]));
            }
            assert_eq!(log.read(stays[0]).await.unwrap(), "stays");
            drop(log);
            let (_, replay) = open(&disk, 32 * KIB).await;
            assert_eq!(ids(&replay), [2, 3, 89], "{operation:?} refused");
            assert!(disk.paths().len() < 20, "{operation:?} refused: {:?}", disk.paths());
        });
    }
}
