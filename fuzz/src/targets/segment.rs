//! Replay of a mailbox log with one segment of whatever content. FORMAT.md says what the offsets here mean.

use bytes::Bytes;
use futures_lite::future::block_on;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::store::{Family, LogEntry, MessageHead, MessageHeader, RecordId};
use std::path::Path;
use storage::{LogOptions, MailboxLog, OfflineLog, PlainDisk};

const BLOCK: usize = 4096;
const SEGMENT: &str = "device-0000000002.segment";
const NUMBER: u32 = 2;
const SALT: u64 = 0x0123_4567_89ab_cdef;

/// Always the same salt, so that a find repeats itself.
fn write_manifest(folder: &Path) {
    let body = format!("furrow mailbox log\nformat 1\nshard 0\nshards 1\nsalt {SALT:016x}\n");
    let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
    std::fs::write(folder.join("manifest"), text).expect("the temporary folder takes files");
}

fn part(id: u64, (index, last): (u32, bool), bytes: usize) -> LogEntry {
    let recipient = |number: u32| MailboxAddress {
        account: AccountUrl::new(format!("account-{number}")).expect("a URL"),
        identity: IdentityUrl::new("identity").expect("a URL"),
        device: Some(DeviceUrl::new("device").expect("a URL")),
        resource: ResourceUrl::new("resource").expect("a URL"),
    };
    let header = MessageHeader { flags: 1, tail: Bytes::from_static(b"\0tail"), expires_at: 7 };
    LogEntry::Part {
        id: RecordId(id),
        family: Family::Device,
        index,
        last,
        head: (index == 0).then(|| MessageHead { header, recipients: (0..3).map(recipient).collect() }),
        payload: [Bytes::from(vec![id as u8; bytes])].into_iter().collect(),
    }
}

/// A segment as the log itself writes it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_manifest(folder.path());
    let options =
        LogOptions { directory: folder.path().into(), segment_bytes: 32 * 1024, shard: 0, shards: 1 };
    block_on(async {
        let (log, _) = MailboxLog::open_on(PlainDisk, options).await.expect("an empty folder is a log");
        let first = [part(1, (0, true), 100), part(2, (0, false), 3000), part(3, (0, true), 0)];
        let at = log.append(&first).await.expect("there is room");
        let (family, first) = (Family::Device, at[0]);
        let more = [
            part(2, (1, true), 500),
            LogEntry::DeleteRecipient { id: RecordId(1), family, first, recipient: 1 },
            LogEntry::Delete { id: RecordId(3), family, parts: [at[2]].into_iter().collect() },
        ];
        log.append(&more).await.expect("there is room");
    });
    let segments = std::fs::read_dir(folder.path()).expect("it is there").flatten();
    let path = segments.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("device-"));
    let mut data = std::fs::read(path.expect("something was appended")).expect("it can be read");
    // Its number depends on how many files were made before.
    data[12..16].copy_from_slice(&NUMBER.to_le_bytes());
    make_right(&mut data);
    let mut with_right_checksums = data.clone();
    with_right_checksums.push(1);
    vec![data, with_right_checksums]
}

/// Reads it all. Of inputs of odd length all checksums are made right first, so that what is behind them is reached.
pub(crate) fn run(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_manifest(folder.path());
    let mut data = data.to_vec();
    if data.len() % 2 == 1 {
        make_right(&mut data);
    }
    std::fs::write(folder.path().join(SEGMENT), data).expect("the temporary folder takes files");
    let Ok(log) = OfflineLog::open(folder.path()) else { return };
    let replay = log.replay(|_| {}).expect("the file can be read");
    let mut records = 0;
    log.records(|_| records += 1, |_| {}).expect("the file can be read");
    assert!(records <= replay.report.records);
    for (position, bytes) in replay.messages.iter().flat_map(|message| &message.parts) {
        let payload = log.read(*position).expect("what replay found can be read");
        assert_eq!(payload.len(), *bytes as usize);
    }
}

/// Writes right checksums to the header and to every record that can be one by its lengths.
fn make_right(data: &mut [u8]) {
    if data.len() < BLOCK {
        return;
    }
    let crc = crc32c::crc32c(&data[..60]);
    data[60..64].copy_from_slice(&crc.to_le_bytes());
    let salted = crc32c::crc32c_append(crc32c::crc32c(&SALT.to_le_bytes()), &NUMBER.to_le_bytes());
    let mut at = BLOCK;
    while at + 32 <= data.len() {
        let word =
            |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]) as usize;
        let (length, header) = (word(at + 8), word(at + 12));
        if length < 32 || header > length - 32 || length > data.len() - at {
            at = (at + 1).next_multiple_of(BLOCK);
            continue;
        }
        let seed = crc32c::crc32c_append(salted, &(at as u32).to_le_bytes());
        let payload = crc32c::crc32c_append(seed, &data[at + 32 + header..at + length]);
        let header = crc32c::crc32c_append(seed, &data[at + 32..at + 32 + header]);
        data[at + 4..at + 8].copy_from_slice(&payload.to_le_bytes());
        data[at + 28..at + 32].copy_from_slice(&header.to_le_bytes());
        let prefix = crc32c::crc32c_append(seed, &data[at + 4..at + 32]);
        data[at..at + 4].copy_from_slice(&prefix.to_le_bytes());
        at = (at + length).next_multiple_of(8);
    }
}
