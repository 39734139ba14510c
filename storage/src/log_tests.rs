//! Tests of the whole log on real files: what is confirmed survives, what is deleted stays deleted, and what the disk
//! spoils is reported.

use super::*;
use crate::directory::{FREE_SEGMENTS, LOCK_NAME};
use crate::{Damage, ReplayReport};
use futures_lite::future::zip;
use glommio::{LocalExecutorBuilder, Placement};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::store::{LogEntry, MessageHead, MessageHeader, Restored};
use rustix::fs::OFlags;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

const KIB: u64 = 1024;

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(512 * 1024)
        .make()
        .expect("an executor needs little")
        .run(future)
}

pub(super) fn options(directory: &Path, segment_bytes: u64) -> LogOptions {
    LogOptions { directory: directory.into(), segment_bytes, shard: 0, shards: 1 }
}

async fn open(directory: &TempDir, segment_bytes: u64) -> (MailboxLog, Replay) {
    MailboxLog::open(options(directory.path(), segment_bytes)).await.unwrap()
}

pub(super) fn head(recipients: u32) -> MessageHead {
    let address = |number| MailboxAddress {
        account: AccountUrl::new(format!("account-{number}")).unwrap(),
        identity: IdentityUrl::new("grooveIdentity://x").unwrap(),
        device: (number % 2 == 0).then(|| DeviceUrl::new("dpp://device").unwrap()),
        resource: ResourceUrl::new("r").unwrap(),
    };
    let header = MessageHeader { flags: 0x42, tail: Bytes::from_static(b"tail"), expires_at: 77 };
    MessageHead { header, recipients: (0..recipients).map(address).collect() }
}

fn part_of(id: u64, (index, last): (u32, bool), payload: &[u8]) -> LogEntry {
    let middle = payload.len() / 2;
    let slices = [&payload[..middle], &payload[middle..]];
    LogEntry::Part {
        id: RecordId(id),
        family: if id.is_multiple_of(2) { Family::Device } else { Family::Identity },
        index,
        last,
        head: (index == 0).then(|| head(2)),
        payload: slices.into_iter().map(Bytes::copy_from_slice).collect(),
    }
}

pub(super) fn message(id: u64, payload: &[u8]) -> LogEntry {
    part_of(id, (0, true), payload)
}

pub(super) fn payload(id: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (id as usize + at * 7) as u8 | 1).collect()
}

pub(super) fn delete(id: u64, parts: &[Position]) -> LogEntry {
    let LogEntry::Part { family, .. } = message(id, b"") else { unreachable!() };
    LogEntry::Delete { id: RecordId(id), family, parts: parts.iter().copied().collect() }
}

pub(super) fn delete_recipient(id: u64, first: Position, recipient: u32) -> LogEntry {
    let LogEntry::Part { family, .. } = message(id, b"") else { unreachable!() };
    LogEntry::DeleteRecipient { id: RecordId(id), family, first, recipient }
}

pub(super) fn ids(replay: &Replay) -> Vec<u64> {
    replay.messages.iter().map(|message| message.id.0).collect()
}

fn files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
    files.sort();
    files
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

fn flip(path: &Path, offset: u64) {
    let mut byte = [0];
    File::open(path).unwrap().read_exact_at(&mut byte, offset).unwrap();
    overwrite(path, offset, &[byte[0] ^ 0x10]);
}

async fn content(log: &MailboxLog, message: &Restored) -> Vec<u8> {
    let mut content = Vec::new();
    for part in &message.parts {
        content.extend_from_slice(&log.read(part.0).await.unwrap());
    }
    content
}

#[test]
fn small_parts_are_read_right_one_by_one_all_at_once_and_while_more_are_appended_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 1024 * KIB).await;
        let body = |id: u64| format!("message {id} ").repeat(1 + id as usize % 90).into_bytes();
        let mut positions = Vec::new();
        for round in 0..6u64 {
            let batch: Vec<_> = (0..150).map(|n| message(round * 150 + n, &body(round * 150 + n))).collect();
            positions.extend(log.append(&batch).await.unwrap());
            // Windows that were read now hold less than will be there after the next round.
            for (id, &position) in positions.iter().enumerate().rev().take(20) {
                assert_eq!(log.read(position).await.unwrap(), body(id as u64), "record {id}");
            }
        }
        let log = &log;
        let pairs = positions.iter().enumerate();
        let results = pairs.map(|(id, &position)| async move { (id, log.read(position).await.unwrap()) });
        for result in join_all(results).await {
            assert_eq!(result.1, body(result.0 as u64), "record {}", result.0);
        }
    });
}

/// Polls all futures together.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in pending.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *output = Some(value);
            }
        }
        let done = pending.iter().all(|(_, output)| output.is_some());
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

/// The flags with which this process holds the files in a directory open, as the kernel has them.
fn open_flags(directory: &Path) -> Vec<OFlags> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let ours = descriptors.filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| {
            target.starts_with(directory) && target.file_name().is_some_and(|name| name != LOCK_NAME)
        })
    });
    let flags = ours.map(|entry| {
        let info = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        OFlags::from_bits_retain(u32::from_str_radix(octal, 8).unwrap())
    });
    flags.collect()
}

#[test]
fn every_write_to_a_segment_is_durable_when_it_ends_whether_the_segment_is_new_or_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        for _ in 0..2 {
            let (log, _) = open(&directory, 64 * KIB).await;
            log.append(&[message(1, b"identity"), message(2, b"device")]).await.unwrap();
            let flags = open_flags(&directory.path().canonicalize().unwrap());
            assert!(flags.len() >= 2, "{flags:?}");
            assert!(flags.iter().all(|flags| flags.contains(OFlags::DSYNC | OFlags::DIRECT)), "{flags:?}");
            log.close().await.unwrap();
        }
    });
}

#[test]
fn a_log_may_be_named_by_a_relative_path() {
    let directory = tempfile::Builder::new().prefix("relative-log-").tempdir_in(".").unwrap();
    let relative = Path::new(".").join(directory.path().file_name().unwrap());
    run(async {
        let (log, _) = MailboxLog::open(options(&relative, 64 * KIB)).await.unwrap();
        let positions = log.append(&[message(1, b"payload")]).await.unwrap();
        assert_eq!(&log.read(positions[0]).await.unwrap()[..], b"payload");
        log.close().await.unwrap();
    });
}

#[test]
fn a_confirmed_message_is_read_back_and_survives_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, replay) = open(&directory, 256 * KIB).await;
        assert_eq!((replay.messages.len(), replay.highest_id), (0, RecordId(0)));
        let batch = [message(2, &payload(2, 100)), message(3, &payload(3, 5000)), message(4, b"")];
        let positions = log.append(&batch).await.unwrap();
        assert_eq!(log.read(positions[0]).await.unwrap(), payload(2, 100));
        assert_eq!(log.read(positions[1]).await.unwrap(), payload(3, 5000));
        assert_eq!(log.read(positions[2]).await.unwrap(), payload(4, 0));
        let stats = log.stats();
        assert_eq!((stats.batches, stats.records, stats.syncs, stats.segments), (1, 3, 2, 2));
        log.close().await.unwrap();

        let (log, replay) = open(&directory, 256 * KIB).await;
        assert_eq!(ids(&replay), [2, 3, 4]);
        assert_eq!(replay.highest_id, RecordId(4));
        let expected = ReplayReport {
            segments: 2,
            read_bytes: 2 * 256 * KIB,
            records: 3,
            bytes: replay.report.bytes,
            ..Default::default()
        };
        assert_eq!(replay.report, expected);
        let first = &replay.messages[0];
        assert_eq!((&first.head, &first.pending[..], first.payload_bytes), (&head(2), &[0, 1][..], 100));
        assert_eq!((first.family, first.parts[0].0), (Family::Device, positions[0]));
        assert_eq!(replay.messages[1].family, Family::Identity);
        assert_eq!(content(&log, &replay.messages[1]).await, payload(3, 5000));
    });
}

#[test]
fn appending_goes_on_in_the_same_segments_after_a_clean_close() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        for id in (2..=12).step_by(2) {
            let (log, replay) = open(&directory, 64 * KIB).await;
            assert_eq!(ids(&replay), (2..id).step_by(2).collect::<Vec<_>>());
            log.append(&[message(id, &payload(id, 700))]).await.unwrap();
            assert_eq!(log.stats().segments, 1);
        }
    });
}

#[test]
fn a_deleted_message_is_gone_at_once_and_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 256 * KIB).await;
        let positions = log.append(&[message(2, b"two"), message(4, b"four")]).await.unwrap();
        assert_eq!(log.append(&[delete(2, &positions[..1])]).await.unwrap(), []);
        let gone = log.read(positions[0]).await.unwrap_err();
        assert!(matches!(gone, StorageError::NotStored { position } if position == positions[0]), "{gone}");
        log.append(&[delete(2, &positions[..1])]).await.unwrap();
        let (live, dead) = (log.stats().live_bytes, log.stats().dead_bytes);
        drop(log);
        let (log, replay) = open(&directory, 256 * KIB).await;
        assert_eq!((ids(&replay), replay.highest_id), (vec![4], RecordId(4)));
        assert_eq!((log.stats().live_bytes, log.stats().dead_bytes), (live, dead));
    });
}

#[test]
fn a_recipient_that_is_done_is_no_longer_pending_and_the_last_one_ends_the_message() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 256 * KIB).await;
        let at = log.append(&[message(2, b"two")]).await.unwrap()[0];
        log.append(&[delete_recipient(2, at, 0)]).await.unwrap();
        drop(log);
        let (log, replay) = open(&directory, 256 * KIB).await;
        assert_eq!(replay.messages[0].pending, [1]);
        log.append(&[delete_recipient(2, at, 1)]).await.unwrap();
        drop(log);
        let (log, replay) = open(&directory, 256 * KIB).await;
        assert_eq!((ids(&replay), log.stats().live_bytes), (vec![], 0));
    });
}

#[test]
fn a_message_counts_only_with_all_its_parts() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let parts: Vec<Vec<u8>> = (0..5).map(|part| payload(part, 30_000)).collect();
        for (index, part) in parts.iter().enumerate() {
            let whole = part_of(2, (index as u32, index == 4), part);
            let unfinished = part_of(4, (index as u32, false), part);
            log.append(&[whole, unfinished]).await.unwrap();
        }
        log.append(&[part_of(6, (1, true), b"no part 0")]).await.unwrap();
        drop(log);
        let (log, replay) = open(&directory, 64 * KIB).await;
        assert_eq!((ids(&replay), replay.highest_id), (vec![2], RecordId(6)));
        assert_eq!(replay.messages[0].payload_bytes, 150_000);
        assert_eq!(content(&log, &replay.messages[0]).await, parts.concat());
    });
}

#[test]
fn a_batch_that_fills_segments_goes_on_in_the_next_and_none_of_them_is_given_up_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 32 * KIB).await;
        log.append(&[message(3, b"makes the identity segment the older one")]).await.unwrap();
        let batch: Vec<_> = (10..60).map(|id| message(id, &payload(id, 9000))).collect();
        let positions = log.append(&batch).await.unwrap();
        for (id, position) in (10..60).zip(&positions) {
            assert_eq!(log.read(*position).await.unwrap(), payload(id, 9000));
        }
        drop(log);
        let (_, replay) = open(&directory, 32 * KIB).await;
        assert_eq!(ids(&replay)[1..], (10..60).collect::<Vec<_>>());
    });
}

#[test]
fn sustained_appends_and_deletes_keep_the_number_of_files_bounded() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 32 * KIB).await;
        let mut previous: Option<(u64, Position)> = None;
        for id in 2..400 {
            let mut batch = vec![message(id, &payload(id, 3000))];
            batch.extend(previous.map(|(id, position)| delete(id, &[position])));
            previous = Some((id, log.append(&batch).await.unwrap()[0]));
        }
        assert!(files(directory.path(), "").len() <= 4 + FREE_SEGMENTS + 2, "{:?}", log.stats());
        drop(log);
        let (log, replay) = open(&directory, 32 * KIB).await;
        assert_eq!((ids(&replay), replay.highest_id), (vec![399], RecordId(399)));
        assert_eq!(content(&log, &replay.messages[0]).await, payload(399, 3000));
    });
}

#[test]
fn ids_go_on_above_deleted_ones_whose_segments_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 16 * KIB).await;
        for id in (2..100).step_by(2) {
            let at = log.append(&[message(id, &payload(id, 3000))]).await.unwrap();
            log.append(&[delete(id, &at)]).await.unwrap();
            log.maintain().await.unwrap();
        }
        drop(log);
        for _ in 0..3 {
            let (log, replay) = open(&directory, 16 * KIB).await;
            assert_eq!((ids(&replay), replay.highest_id), (vec![], RecordId(98)));
            log.maintain().await.unwrap();
        }
    });
}

#[test]
fn a_deletion_holds_as_long_as_any_part_of_its_message_is_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 32 * KIB).await;
        // Parts 0 and 1 fill one segment; part 2 shares its segment with a message that stays.
        let mut parts = Vec::new();
        for index in 0..3 {
            let part = part_of(2, (index, index == 2), &payload(2, 13_000));
            parts.extend(log.append(&[part]).await.unwrap());
        }
        assert!(parts[0].segment != parts[2].segment);
        let stays = log.append(&[message(4, b"stays")]).await.unwrap()[0];
        assert_eq!(stays.segment, parts[2].segment);
        log.append(&[message(6, &payload(6, 12_000))]).await.unwrap();
        log.append(&[delete(2, &parts)]).await.unwrap();
        for id in (8..40).step_by(2) {
            let at = log.append(&[message(id, &payload(id, 12_000))]).await.unwrap();
            log.append(&[delete(id, &at)]).await.unwrap();
        }
        log.maintain().await.unwrap();
        drop(log);
        let (_, replay) = open(&directory, 32 * KIB).await;
        assert_eq!(ids(&replay), [4, 6]);
    });
}

#[test]
fn a_torn_last_batch_is_cut_at_every_sector_and_costs_nothing_that_was_confirmed() {
    let length = 3 * 4096;
    for recycled in [0x00, 0xa5] {
        for cut in 0..=length / 512 {
            let directory = tempfile::tempdir().unwrap();
            run(async {
                let (log, _) = open(&directory, 64 * KIB).await;
                let first: Vec<_> = (1..5).map(|id| message(id * 2, &payload(id, 300))).collect();
                log.append(&first).await.unwrap();
                let torn: Vec<_> = (5..12).map(|id| message(id * 2, &payload(id, 1300))).collect();
                let positions = log.append(&torn).await.unwrap();
                let start = u64::from(positions[0].offset);
                drop(log);
                let path = &files(directory.path(), "device")[0];
                let lost = vec![recycled; length as usize - cut as usize * 512];
                overwrite(path, start + cut * 512, &lost);

                let (log, replay) = open(&directory, 64 * KIB).await;
                let whole =
                    |position: &&Position| u64::from(position.offset + position.length) <= start + cut * 512;
                let kept = 4 + positions.iter().filter(whole).count();
                assert_eq!(replay.messages.len(), kept, "cut at sector {cut}");
                assert_eq!(replay.report.damaged, [], "cut at sector {cut}");
                log.append(&[message(100, b"afterwards")]).await.unwrap();
                drop(log);
                let (_, again) = open(&directory, 64 * KIB).await;
                assert_eq!(again.messages.len(), kept + 1, "cut at sector {cut}");
                assert_eq!(again.report.damaged, [], "cut at sector {cut}");
            });
        }
    }
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let batch: Vec<_> = (1..5).map(|id| message(id * 2, &payload(id, 300))).collect();
        let positions = log.append(&batch).await.unwrap();
        log.append(&[message(20, b"the next batch")]).await.unwrap();
        let path = &files(directory.path(), "device")[0];
        let spoilt = positions[1];
        flip(path, u64::from(spoilt.offset + spoilt.length) - 1);
        let error = log.read(spoilt).await.unwrap_err();
        assert!(matches!(error, StorageError::PartDamaged { .. }), "{error}");
        drop(log);
        let (_, replay) = open(&directory, 64 * KIB).await;
        assert_eq!(ids(&replay), [2, 6, 8, 20]);
        let expected = Damage {
            segment: spoilt.segment,
            family: Family::Device,
            offset: u64::from(spoilt.offset),
            bytes: u64::from(positions[2].offset - spoilt.offset),
            records: 1,
        };
        assert_eq!(replay.report.damaged, [expected]);
        let lost = &replay.report.lost[0];
        assert_eq!((replay.report.lost.len(), lost.id, lost.family), (1, RecordId(4), Family::Device));
        assert_eq!(lost.recipients, head(2).recipients.to_vec(), "whose mailboxes have lost it");
        assert_eq!(replay.report.torn_tail_bytes, 0);
    });
}

#[test]
fn a_broken_prefix_costs_one_record_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let batch: Vec<_> = (1..5).map(|id| message(id * 2, &payload(id, 300))).collect();
        let positions = log.append(&batch).await.unwrap();
        log.append(&[message(20, b"the next batch")]).await.unwrap();
        let third = log.append(&[message(22, b"and one more")]).await.unwrap();
        flip(&files(directory.path(), "device")[0], u64::from(positions[1].offset) + 8);
        drop(log);
        let (log, replay) = open(&directory, 64 * KIB).await;
        assert_eq!(ids(&replay), [2, 6, 8, 20, 22]);
        let [damage] = &replay.report.damaged[..] else { panic!("{:?}", replay.report) };
        assert_eq!((damage.offset, damage.records), (u64::from(positions[1].offset), 1));
        assert_eq!(log.read(third[0]).await.unwrap(), "and one more");
        for message in &replay.messages[..3] {
            assert_eq!(content(&log, message).await, payload(message.id.0 / 2, 300));
        }
    });
}

#[test]
fn damage_at_the_end_of_a_full_segment_is_not_taken_for_a_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 16 * KIB).await;
        let first = log.append(&[message(2, &payload(2, 11_000))]).await.unwrap()[0];
        let second = log.append(&[message(4, &payload(4, 11_000))]).await.unwrap()[0];
        assert!(first.segment != second.segment);
        drop(log);
        flip(&files(directory.path(), "device")[0], u64::from(first.offset) + 1000);
        let (_, replay) = open(&directory, 16 * KIB).await;
        assert_eq!(ids(&replay), [4]);
        assert_eq!((replay.report.damaged.len(), replay.report.torn_tail_bytes), (1, 0));
    });
}

#[test]
fn a_piece_at_the_end_of_a_full_segment_that_is_gone_is_reported_with_its_records() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 32 * KIB).await;
        log.append(&[message(2, &payload(2, 11_000))]).await.unwrap();
        let last: Vec<_> = (2..5).map(|id| message(id * 2, &payload(id, 300))).collect();
        let last = log.append(&last).await.unwrap();
        let next = log.append(&[message(20, &payload(20, 20_000))]).await.unwrap();
        assert!(next[0].segment != last[0].segment);
        drop(log);
        overwrite(&files(directory.path(), "device")[0], u64::from(last[0].offset), &[0; 512]);
        let (_, replay) = open(&directory, 32 * KIB).await;
        assert_eq!(ids(&replay)[..1], [2]);
        let [damage] = &replay.report.damaged[..] else { panic!("{:?}", replay.report) };
        assert_eq!(damage.offset, u64::from(last[0].offset));
        // What lies behind the lost sector is found again, record by record.
        assert_eq!(u64::from(damage.records) + replay.messages.len() as u64, 5);
        assert_eq!(replay.report.torn_tail_bytes, 0);
    });
}

#[test]
fn a_segment_whose_file_is_gone_is_named_and_one_that_was_given_up_is_not() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 16 * KIB).await;
        let mut stored = Vec::new();
        for id in (2..42).step_by(2) {
            stored.push((id, log.append(&[message(id, &payload(id, 11_000))]).await.unwrap()[0]));
        }
        // Many more are given up at once than are kept for reuse.
        let gone: Vec<_> = stored[..12].iter().map(|(id, at)| delete(*id, &[*at])).collect();
        log.append(&gone).await.unwrap();
        log.maintain().await.unwrap();
        assert!(log.stats().free_segments <= FREE_SEGMENTS as u64);
        drop(log);
        let (log, replay) = open(&directory, 16 * KIB).await;
        assert!(replay.report.is_whole(), "{:?}", replay.report);
        drop(log);
        let lost = stored[14].1.segment;
        std::fs::remove_file(directory.path().join(format!("device-{lost:010}.segment"))).unwrap();
        let (log, replay) = open(&directory, 16 * KIB).await;
        assert_eq!(replay.report.missing, [lost]);
        assert_eq!(ids(&replay), [26, 28, 32, 34, 36, 38, 40]);
        // A new segment counts anew.
        log.append(&[message(50, &payload(50, 11_000))]).await.unwrap();
        drop(log);
        let (_, replay) = open(&directory, 16 * KIB).await;
        assert!(replay.report.is_whole(), "{:?}", replay.report);
        assert!(files(directory.path(), "free").len() <= FREE_SEGMENTS);
    });
}

#[test]
fn what_a_recycled_segment_held_before_is_not_replayed() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let old: Vec<_> = (1..9).map(|id| message(id * 2, &payload(id, 3900))).collect();
        let positions = log.append(&old).await.unwrap();
        let next = log.append(&[message(20, &payload(20, 30_000))]).await.unwrap();
        assert!(next[0].segment != positions[0].segment);
        let deletions: Vec<_> =
            (1..9).zip(&positions).map(|(id, position)| delete(id * 2, &[*position])).collect();
        log.append(&deletions).await.unwrap();
        log.maintain().await.unwrap();
        assert_eq!((log.stats().segments, log.stats().free_segments), (1, 2));
        let reused = log.append(&[message(22, &payload(22, 30_000))]).await.unwrap()[0];
        assert_eq!((log.stats().segments, log.stats().free_segments), (2, 1));
        drop(log);
        let path = files(directory.path(), "device").pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let stale = payload(8, 3900);
        assert!(bytes.windows(100).any(|window| window == &stale[..100]), "the old bytes are still there");
        let (log, replay) = open(&directory, 64 * KIB).await;
        assert_eq!(ids(&replay), [20, 22]);
        assert_eq!((replay.report.torn_tail_bytes, replay.report.damaged.len()), (0, 0));
        assert_eq!(log.read(reused).await.unwrap(), payload(22, 30_000));
    });
}

#[test]
fn one_message_that_nobody_collects_does_not_keep_the_segments_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 32 * KIB).await;
        let stays = log.append(&[message(2, b"nobody comes"), message(4, b"x")]).await.unwrap();
        log.append(&[delete_recipient(2, stays[0], 1)]).await.unwrap();
        let mut previous = (4, stays[1]);
        for id in (6..400).step_by(2) {
            let batch = [message(id, &payload(id, 3000)), delete(previous.0, &[previous.1])];
            previous = (id, log.append(&batch).await.unwrap()[0]);
            while log.wants_maintenance() {
                log.maintain().await.unwrap();
            }
        }
        let stats = log.stats();
        assert!(stats.segments <= 7 && stats.emptied_segments > 0, "{stats:?}");
        assert_eq!(log.read(stays[0]).await.unwrap(), "nobody comes");
        drop(log);
        let (log, replay) = open(&directory, 32 * KIB).await;
        assert_eq!(ids(&replay), [2, previous.0]);
        assert_eq!(replay.messages[0].pending, [0], "who was done stays done when the message moves");
        assert_eq!(content(&log, &replay.messages[0]).await, b"nobody comes");
    });
}

#[test]
fn one_append_at_a_time_and_a_dropped_one_spoils_nothing() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let batch = [message(2, b"two")];
        let mut first = Box::pin(log.append(&batch));
        assert!(futures_lite::future::poll_once(&mut first).await.is_none());
        assert!(matches!(log.append(&batch).await, Err(StorageError::AppendInFlight)));
        drop(first);
        let at = log.append(&batch).await.unwrap()[0];
        assert_eq!(log.read(at).await.unwrap(), "two");
        drop(log);
        assert_eq!(ids(&open(&directory, 64 * KIB).await.1), [2]);
    });
}

#[test]
fn reads_go_on_while_a_batch_is_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let at = log.append(&[message(2, b"two")]).await.unwrap()[0];
        let batch = [message(4, b"four")];
        let mut append = Box::pin(log.append(&batch));
        assert!(futures_lite::future::poll_once(&mut append).await.is_none());
        let (read, appended) = zip(log.read(at), append).await;
        assert_eq!((read.unwrap(), appended.unwrap().len()), (Bytes::from_static(b"two"), 1));
    });
}

#[test]
fn an_entry_that_no_log_may_hold_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        let mut headless = message(2, b"");
        let LogEntry::Part { head, .. } = &mut headless else { unreachable!() };
        *head = None;
        let mut nobody = message(2, b"");
        let LogEntry::Part { head, .. } = &mut nobody else { unreachable!() };
        *head = Some(self::head(0));
        let none = delete(2, &[]);
        for entry in [headless, nobody, none, message(2, &vec![0; 128 * 1024 + 1])] {
            let result = log.append(&[message(4, b"fine"), entry]).await;
            assert!(matches!(result, Err(StorageError::InvalidEntry { index: 1, .. })), "{result:?}");
        }
        let result = log.append(&[message(2, &payload(2, 64 * 1024))]).await;
        assert!(matches!(result, Err(StorageError::EntryTooLarge { index: 0, .. })), "{result:?}");
        assert_eq!(log.stats(), LogStats::default());
    });
}

#[test]
fn a_log_opens_only_as_the_shard_that_wrote_it_unless_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let as_shard = |shard, shards| {
            MailboxLog::open(LogOptions { shard, shards, ..options(directory.path(), 64 * KIB) })
        };
        let (log, _) = as_shard(0, 1).await.unwrap();
        let at = log.append(&[message(2, b"two")]).await.unwrap()[0];
        let taken = as_shard(0, 1).await.unwrap_err();
        assert!(matches!(taken, StorageError::Locked { .. }), "{taken}");
        drop(log);
        for (shard, shards) in [(0, 2), (1, 2)] {
            let wrong = as_shard(shard, shards).await.unwrap_err();
            assert!(matches!(wrong, StorageError::WrongShard { stored_shards: 1, .. }), "{wrong}");
        }
        let (log, _) = as_shard(0, 1).await.unwrap();
        log.append(&[delete(2, &[at])]).await.unwrap();
        drop(log);
        let (log, replay) = as_shard(1, 2).await.unwrap();
        assert_eq!(replay.highest_id, RecordId(2));
        log.append(&[message(4, b"four")]).await.unwrap();
        drop(log);
        assert_eq!(ids(&as_shard(1, 2).await.unwrap().1), [4]);
        assert!(as_shard(0, 1).await.is_err());
    });
}

#[test]
fn a_lost_manifest_or_a_spoilt_segment_header_costs_no_message() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let (log, _) = open(&directory, 64 * KIB).await;
        log.append(&[message(2, b"two"), message(3, b"three")]).await.unwrap();
        drop(log);
        std::fs::remove_file(directory.path().join("manifest")).unwrap();
        assert_eq!(ids(&open(&directory, 64 * KIB).await.1), [2, 3]);
        flip(&files(directory.path(), "device")[0], 20);
        let (log, replay) = open(&directory, 64 * KIB).await;
        assert_eq!(ids(&replay), [2, 3]);
        assert_eq!(replay.report.damaged.len(), 1);
        assert_eq!(replay.report.damaged[0].offset, 0);
        log.append(&[message(4, b"four")]).await.unwrap();
        drop(log);
        assert_eq!(ids(&open(&directory, 64 * KIB).await.1), [2, 3, 4]);
    });
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(async {
        for directory in [&one, &other] {
            let (log, _) = open(directory, 64 * KIB).await;
            log.append(&[message(2, b"two")]).await.unwrap();
        }
        let path = &files(one.path(), "device")[0];
        std::fs::copy(path, other.path().join("device-0000000009.segment")).unwrap();
        let misnamed = MailboxLog::open(options(other.path(), 64 * KIB)).await.unwrap_err();
        assert!(matches!(misnamed, StorageError::ForeignSegment { .. }), "{misnamed}");
        std::fs::remove_file(other.path().join("device-0000000009.segment")).unwrap();
        std::fs::copy(path, &files(other.path(), "device")[0]).unwrap();
        let foreign = MailboxLog::open(options(other.path(), 64 * KIB)).await.unwrap_err();
        assert!(matches!(foreign, StorageError::ForeignSegment { .. }), "{foreign}");
    });
}

#[test]
fn impossible_options_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        for bytes in [0, 4096, 10_000, (1 << 31) + 4096] {
            let refused = MailboxLog::open(options(directory.path(), bytes)).await.unwrap_err();
            assert!(matches!(refused, StorageError::SegmentSize(_)), "{bytes}");
        }
        let shard = LogOptions { shard: 2, shards: 2, ..options(directory.path(), 64 * KIB) };
        assert!(matches!(MailboxLog::open(shard).await, Err(StorageError::ShardNumber { .. })));
    });
}
