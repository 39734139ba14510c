//! Logs that are verified, rebuilt, copied while they change, and restored.

use super::*;
use crate::{LogOptions, MailboxLog, OfflineLog, PlainDisk, RecordKind, StorageError, transfer};
use bytes::Bytes;
use futures_lite::future::block_on;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::store::{LogEntry, MessageHead, MessageHeader, Position, RecordId};

const BOTH: [Family; 2] = [Family::Identity, Family::Device];
const SEGMENT_BYTES: u64 = 32 * 1024;

fn options(directory: &Path) -> LogOptions {
    LogOptions { directory: directory.into(), segment_bytes: SEGMENT_BYTES, shard: 0, shards: 1 }
}

fn open(directory: &Path) -> (MailboxLog<PlainDisk>, crate::Replay) {
    block_on(MailboxLog::open_on(PlainDisk, options(directory))).unwrap()
}

fn message(id: u64, bytes: usize) -> LogEntry {
    let address = |number: u32| MailboxAddress {
        account: AccountUrl::new(format!("account-{number}")).unwrap(),
        identity: IdentityUrl::new("identity").unwrap(),
        device: Some(DeviceUrl::new("device").unwrap()),
        resource: ResourceUrl::new("r").unwrap(),
    };
    let header = MessageHeader { flags: 0, tail: Bytes::new(), expires_at: 5 };
    LogEntry::Part {
        id: RecordId(id),
        family: if id.is_multiple_of(2) { Family::Device } else { Family::Identity },
        index: 0,
        last: true,
        head: Some(MessageHead { header, recipients: (0..2).map(address).collect() }),
        payload: [Bytes::from(vec![id as u8; bytes])].into_iter().collect(),
    }
}

fn delete(id: u64, at: Position) -> LogEntry {
    let LogEntry::Part { family, .. } = message(id, 0) else { unreachable!() };
    LogEntry::Delete { id: RecordId(id), family, parts: [at].into_iter().collect() }
}

fn ids(directory: &Path) -> Vec<u64> {
    let replay = OfflineLog::open(directory).unwrap().replay(|_| {}).unwrap();
    assert!(replay.report.is_whole(), "{:?}", replay.report);
    replay.messages.iter().map(|message| message.id.0).collect()
}

fn append(log: &MailboxLog<PlainDisk>, entries: &[LogEntry]) -> Vec<Position> {
    block_on(log.append(entries)).unwrap()
}

#[test]
fn verifying_and_listing_a_log_changes_nothing_and_keeps_relays_away() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path());
    let at = append(&log, &[message(1, 100), message(2, 50_00), message(3, 10)]);
    append(&log, &[delete(3, at[2])]);
    let running = OfflineLog::open(folder.path()).unwrap_err();
    assert!(matches!(running, StorageError::Locked { .. }), "{running}");
    drop(log);
    let before = stamps(folder.path()).unwrap();
    let offline = OfflineLog::open(folder.path()).unwrap();
    let mut bytes = 0;
    let replay = offline.replay(|done| bytes += done).unwrap();
    assert_eq!((replay.messages.len(), bytes), (2, offline.bytes()));
    let mut records = Vec::new();
    offline.records(|record| records.push((record.id.0, record.payload_bytes, record.what)), |_| {}).unwrap();
    records.sort_by_key(|(id, bytes, _)| (*id, std::cmp::Reverse(*bytes)));
    assert_eq!(
        records.iter().map(|(id, bytes, _)| (*id, *bytes)).collect::<Vec<_>>(),
        [(1, 100), (2, 5000), (3, 10), (3, 0)]
    );
    assert_eq!(records[3].2, RecordKind::Delete);
    let RecordKind::FirstPart { recipients, .. } = &records[0].2 else { panic!("{records:?}") };
    assert_eq!(recipients.len(), 2);
    let kept_away = block_on(MailboxLog::open_on(PlainDisk, options(folder.path()))).unwrap_err();
    assert!(matches!(kept_away, StorageError::Locked { .. }), "{kept_away}");
    drop(offline);
    assert_eq!(stamps(folder.path()).unwrap(), before);
}

#[test]
fn a_copy_made_while_the_log_rolls_recycles_and_moves_mail_holds_all_that_lived_throughout() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let (log, _) = open(&live);
    let stays: Vec<u64> = vec![2, 3, 40, 41];
    let mut last: Option<(u64, Position)> = None;
    let step = |id: u64, last: Option<(u64, Position)>| {
        let mut batch = vec![message(id, 9000)];
        batch.extend(last.map(|(id, at)| delete(id, at)));
        let at = append(&log, &batch)[0];
        while log.wants_maintenance() {
            block_on(log.maintain()).unwrap();
        }
        if stays.contains(&id) { None } else { Some((id, at)) }
    };
    for id in 1..60 {
        last = step(id, last);
    }
    // Between the chunks of the copy the log goes on, for a while.
    let mut id = 60;
    let copy = folder.path().join("copy");
    let copied = copy_log(&live, &copy, &BOTH, |_| {
        if id < 200 {
            last = step(id, last);
            id += 1;
        }
    });
    let copied = copied.unwrap();
    assert!(copied.repeated > 0, "{copied:?}");
    let found = ids(&copy);
    assert!(stays.iter().all(|id| found.contains(id)), "{found:?}");
    drop(log);
    assert!(stays.iter().all(|id| ids(&live).contains(id)));
}

#[test]
fn a_copy_of_one_family_has_only_its_mail_and_is_restored_behind_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let [live, copy, target] = ["live", "copy", "target"].map(|name| folder.path().join(name));
    let (log, _) = open(&live);
    append(&log, &(1..9).map(|id| message(id, 3000)).collect::<Vec<_>>());
    copy_log(&live, &copy, &[Family::Identity], |_| {}).unwrap();
    assert_eq!(ids(&copy), [1, 3, 5, 7]);
    drop(log);

    let (log, _) = open(&target);
    append(&log, &[message(20, 10)]);
    drop(log);
    let offline = OfflineLog::open(&copy).unwrap();
    let mut bytes = 0;
    let done = transfer(&offline, options(&target), &BOTH, |done| bytes += done).unwrap();
    assert_eq!((done.messages, done.payload_bytes, bytes), (4, 12_000, 12_000));
    let (log, replay) = open(&target);
    let restored: Vec<_> = replay.messages.iter().map(|message| (message.id.0, message.family)).collect();
    assert_eq!(restored[0], (20, Family::Device));
    assert_eq!(restored[1..], [21, 22, 23, 24].map(|id| (id, Family::Identity)));
    let payload = block_on(log.read(replay.messages[2].parts[0].0)).unwrap();
    assert_eq!(payload, vec![3; 3000]);
}

#[test]
fn a_damaged_log_without_its_manifest_is_rebuilt_without_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    let (log, _) = open(&old);
    let at = append(&log, &(1..9).map(|id| message(id, 3000)).collect::<Vec<_>>());
    append(&log, &[message(10, 5), message(11, 5), delete(8, at[7])]);
    drop(log);
    let spoilt = old.join(format!("device-{:010}.segment", at[3].segment));
    let file = File::options().write(true).open(&spoilt).unwrap();
    file.write_all_at(&[0x77], u64::from(at[3].offset + at[3].length) - 5).unwrap();
    std::fs::write(old.join("manifest"), "nonsense").unwrap();
    let offline = OfflineLog::open(&old).unwrap();
    assert!(offline.manifest_fault().is_some());
    let done = transfer(&offline, options(&new), &BOTH, |_| {}).unwrap();
    assert_eq!((done.messages, done.report.lost.len()), (8, 1));
    assert_eq!(done.report.lost[0].id, RecordId(4));
    assert_eq!(ids(&new).len(), 8);
}

#[test]
fn a_copy_of_the_user_database_is_made_while_it_is_open_and_can_be_read() {
    use relay_core::directory::DirectoryChange;
    let folder = tempfile::tempdir().unwrap();
    let users = crate::UserDatabase::open(folder.path().join("users")).unwrap();
    let change =
        |name: &str| DirectoryChange::Account(AccountUrl::new(name).unwrap(), Some(Default::default()));
    users.apply(&[change("a"), change("b")]).unwrap();
    let counts = copy_users(&folder.path().join("users"), &folder.path().join("copy")).unwrap();
    assert_eq!(counts.accounts, 2);
}

#[test]
fn no_folder_of_a_log_is_found_by_another_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["shard-0001", "shard-0000", "shard-0000.old", "shard-x", "users"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let found = crate::log_folders(folder.path()).unwrap();
    assert_eq!(found, ["shard-0000", "shard-0001"].map(|name| folder.path().join(name)));
    assert_eq!(crate::log_folders(&found[0]).unwrap(), Vec::<std::path::PathBuf>::new());
    drop(open(&found[0]));
    assert_eq!(crate::log_folders(&found[0]).unwrap(), [found[0].clone()]);
}
