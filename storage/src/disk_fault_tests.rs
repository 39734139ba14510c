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

/// A log of many messages of both families, some deleted, in several segments, and which of them live.
async fn filled(disk: &SimulatedDisk) -> Vec<u64> {
    let (log, _) = open(disk, 32 * KIB).await;
    let mut stored = Vec::new();
    for id in 2..120 {
        stored.push((
            id,
            log.append(&[message(id, &payload(id, 100 + id as usize % 7 * 300))]).await.unwrap()[0],
        ));
    }
    let gone: Vec<_> =
        stored.extract_if(.., |(id, _)| *id % 5 == 0).map(|(id, at)| delete(id, &[at])).collect();
    log.append(&gone).await.unwrap();
    // So that the newest segments hold nothing but this, and all before is known to be confirmed.
    log.append(&[message(1000, &payload(1, 26_000)), message(1001, &payload(1, 26_000))]).await.unwrap();
    stored.iter().map(|(id, _)| *id).chain([1000, 1001]).collect()
}

#[test]
fn every_flipped_bit_is_noticed_and_its_loss_told_exactly() {
    let disk = SimulatedDisk::new();
    block_on(async {
        let alive = filled(&disk).await;
        let world = disk.world();
        let paths: Vec<_> = disk.paths().into_iter().filter(|path| path.extension().is_some()).collect();
        let (mut named, mut counted) = (0, 0);
        for round in 0..600_u64 {
            let disk = SimulatedDisk::holding(world.clone());
            let mixed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let path = &paths[mixed as usize % paths.len()];
            let length = disk.content(path).unwrap().len();
            disk.flip(path, (mixed >> 20) as usize % length, 1 << (mixed % 8));
            let (log, replay) = open(&disk, 32 * KIB).await;
            let report = &replay.report;
            let found = ids(&replay);
            let lost: Vec<u64> = alive.iter().copied().filter(|id| !found.contains(id)).collect();
            let known: Vec<u64> = report.lost.iter().map(|message| message.id.0).collect();
            assert!(known.iter().all(|id| lost.contains(id)), "round {round}: {report:?} but lost {lost:?}");
            let torn = u64::from(report.torn_tail_bytes > 0);
            assert!(
                lost.len() as u64 <= report.damaged_records() + torn,
                "round {round}: {report:?} {lost:?}"
            );
            assert!(report.damaged_records() <= 1, "round {round}: one bit spoils one record: {report:?}");
            // What is found is right, and a deleted message comes back only if its deletion is what was spoilt.
            let back = found.iter().filter(|id| !alive.contains(id)).count() as u64;
            assert!(back <= report.damaged_records(), "round {round}: {report:?} {found:?}");
            for message in &replay.messages {
                log.read(message.parts[0].0).await.unwrap();
            }
            named += known.len();
            counted += report.damaged_records();
        }
        println!("{counted} records were spoilt, {named} of them known with their mailboxes");
        assert!(named > 50 && counted > named as u64, "{named} of {counted}");
    });
}

#[test]
fn every_lost_segment_is_named() {
    let disk = SimulatedDisk::new();
    block_on(async {
        let alive = filled(&disk).await;
        let world = disk.world();
        let segments: Vec<_> =
            disk.paths().into_iter().filter(|path| !path.to_str().unwrap().contains("free")).collect();
        let segments: Vec<_> = segments.into_iter().filter(|path| path.extension().is_some()).collect();
        // The newest of all is not in any census.
        let number = |path: &PathBuf| {
            path.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap().parse::<u32>()
        };
        let newest = segments.iter().map(|path| number(path).unwrap()).max().unwrap();
        for path in segments.iter().filter(|path| number(path).unwrap() != newest) {
            let disk = SimulatedDisk::holding(world.clone());
            disk.lose(path);
            let (_, replay) = open(&disk, 32 * KIB).await;
            assert_eq!(replay.report.missing, [number(path).unwrap()]);
            assert!(ids(&replay).len() < alive.len() + 30);
        }
        assert!(segments.len() > 4);
    });
}
