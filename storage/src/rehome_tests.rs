//! Tests of re-homing on real files: whatever step it is stopped at, the mail is there whole, once, and in its order.

use super::*;
use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use relay_core::address::{AccountUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::relay::home::home;
use relay_core::store::{Family, MessageHeader, PART_BYTES};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 256 * 1024;
const ACCOUNTS: u32 = 12;

/// What an account is to get, in order: the payloads.
pub(crate) type Mail = BTreeMap<String, Vec<Vec<u8>>>;

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(512 * 1024);
    builder.make().expect("an executor needs little").run(future)
}

fn address(account: u32) -> MailboxAddress {
    MailboxAddress {
        account: AccountUrl::new(format!("grooveAccount://{account}@")).unwrap(),
        identity: IdentityUrl::new("grooveIdentity://x").unwrap(),
        device: None,
        resource: ResourceUrl::new("r").unwrap(),
    }
}

fn rehoming(data: &Path, shards: u16) -> Rehoming {
    Rehoming { data: data.into(), shards, segment_bytes: SEGMENT_BYTES }
}

pub(crate) async fn open(data: &Path, shard: u16, shards: u16) -> (MailboxLog, crate::Replay) {
    let options = LogOptions {
        directory: crate::log_directory(data, shard),
        segment_bytes: SEGMENT_BYTES,
        shard: u32::from(shard),
        shards: u32::from(shards),
    };
    MailboxLog::open(options).await.unwrap()
}

/// A message of several parts: all but the last are full.
fn parts(id: u64, recipients: &[u32], payload: &[u8]) -> Vec<LogEntry> {
    let header =
        MessageHeader { flags: 2, tail: Bytes::from(format!("tail {id}")), expires_at: 1_000_000 + id };
    let head =
        MessageHead { header, recipients: recipients.iter().map(|account| address(*account)).collect() };
    let chunks: Vec<_> = payload.chunks(PART_BYTES).collect();
    let part = |(index, chunk): (usize, &&[u8])| LogEntry::Part {
        id: RecordId(id),
        family: if id.is_multiple_of(3) { Family::Identity } else { Family::Device },
        index: index as u32,
        last: index + 1 == chunks.len(),
        head: (index == 0).then(|| head.clone()),
        payload: [Bytes::copy_from_slice(chunk)].into_iter().collect(),
    };
    chunks.iter().enumerate().map(part).collect()
}

/// Writes logs of `shards`: every account gets some messages alone, some with all others of its home, of which some are done
/// for one recipient, and one large one.
pub(crate) fn fill(data: &Path, shards: u16) -> Mail {
    let mut mail = Mail::new();
    for shard in 0..shards {
        let here: Vec<u32> =
            (0..ACCOUNTS).filter(|number| home(&address(*number).account, shards).0 == shard).collect();
        run(async {
            let (log, _) = open(data, shard, shards).await;
            let mut id = 0u64;
            let mut note = |account: u32, payload: &[u8]| {
                mail.entry(address(account).account.to_string()).or_default().push(payload.to_vec());
            };
            for round in 0..3u32 {
                for account in &here {
                    id += 1;
                    let payload = [id.to_le_bytes(), u64::from(*account).to_le_bytes()].concat();
                    log.append(&parts(id, &[*account], &payload)).await.unwrap();
                    note(*account, &payload);
                }
                id += 1;
                let size = if round == 1 { 2 * PART_BYTES + 5 } else { 500 };
                let payload = vec![id as u8; size];
                let positions = log.append(&parts(id, &here, &payload)).await.unwrap();
                let done = round as usize % here.len();
                here.iter()
                    .enumerate()
                    .filter(|(position, _)| *position != done)
                    .for_each(|(_, account)| note(*account, &payload));
                let family = if id.is_multiple_of(3) { Family::Identity } else { Family::Device };
                let deletion = LogEntry::DeleteRecipient {
                    id: RecordId(id),
                    family,
                    first: positions[0],
                    recipient: done as u32,
                };
                log.append(&[deletion]).await.unwrap();
                id += 1;
                let positions = log.append(&parts(id, &here, b"deleted")).await.unwrap();
                let family = if id.is_multiple_of(3) { Family::Identity } else { Family::Device };
                let deletion =
                    LogEntry::Delete { id: RecordId(id), family, parts: positions.into_iter().collect() };
                log.append(&[deletion]).await.unwrap();
            }
            log.close().await.unwrap();
        });
    }
    mail
}

/// What the logs hold, and that each account's mail lies with its home.
pub(crate) fn read(data: &Path, shards: u16) -> Mail {
    let mut mail = Mail::new();
    for shard in 0..shards {
        run(async {
            let (log, replay) = open(data, shard, shards).await;
            for message in replay.messages {
                let mut payload = Vec::new();
                for (position, _) in &message.parts {
                    payload.extend_from_slice(&log.read(*position).await.unwrap());
                }
                for position in &message.pending {
                    let account = &message.head.recipients[*position as usize].account;
                    assert_eq!(home(account, shards).0, shard, "{account} is at its home");
                    mail.entry(account.to_string()).or_default().push(payload.clone());
                }
            }
            log.close().await.unwrap();
        });
    }
    mail
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn names(data: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Re-homes as a relay that starts does.
fn start(data: &Path, shards: u16) {
    let rehoming = rehoming(data, shards);
    if rehoming.is_needed().unwrap() {
        run(rehoming.run()).unwrap();
    }
    assert!(!rehoming.is_needed().unwrap());
    let expected: Vec<_> = (0..shards).map(|shard| format!("shard-{shard:04}")).collect();
    assert_eq!(names(data), expected, "nothing else is left");
}

#[test]
fn mail_goes_home_through_any_number_of_shards_in_its_order() {
    let data = TempDir::new().unwrap();
    let expected = fill(data.path(), 1);
    assert!(!rehoming(data.path(), 1).is_needed().unwrap());
    for shards in [2, 3, 7, 1] {
        start(data.path(), shards);
        assert_eq!(read(data.path(), shards), expected, "{shards} shards");
    }
}

#[test]
fn a_pass_that_is_stopped_at_any_step_loses_and_doubles_nothing() {
    let origin = TempDir::new().unwrap();
    let expected = fill(origin.path(), 2);
    for (to, then) in [(3, 3), (1, 2), (3, 1)] {
        let mut steps = 0;
        loop {
            let data = TempDir::new().unwrap();
            copy_folder(origin.path(), data.path());
            let stopped = run(rehoming(data.path(), to).run_with(&mut Pauses::after(steps))).is_err();
            start(data.path(), then);
            assert_eq!(read(data.path(), then), expected, "stopped after {steps} of 2 -> {to}, then {then}");
            if !stopped {
                break;
            }
            steps += 1;
        }
        assert!(steps > 14, "there were {steps} steps");
    }
}

#[test]
fn a_pass_that_is_stopped_again_and_again_comes_to_its_end() {
    let data = TempDir::new().unwrap();
    let expected = fill(data.path(), 2);
    let mut pauses = 0;
    while run(rehoming(data.path(), 5).run_with(&mut Pauses::after(pauses))).is_err() {
        pauses += 1;
    }
    start(data.path(), 5);
    assert_eq!(read(data.path(), 5), expected);
}

#[test]
fn a_recipient_who_is_done_gets_no_copy_and_homes_get_one_each() {
    let data = TempDir::new().unwrap();
    run(async {
        let (log, _) = open(data.path(), 0, 1).await;
        let accounts: Vec<u32> = (0..ACCOUNTS).collect();
        let positions = log.append(&parts(1, &accounts, b"to all")).await.unwrap();
        let done = LogEntry::DeleteRecipient {
            id: RecordId(1),
            family: Family::Device,
            first: positions[0],
            recipient: 4,
        };
        log.append(&[done]).await.unwrap();
        log.close().await.unwrap();
    });
    let done = run(rehoming(data.path(), 2).run()).unwrap();
    assert_eq!(done, Rehomed { messages: 1, copies: 2, bytes: 12, unreadable: 0 });
    let mut recipients = 0;
    for shard in 0..2 {
        let (_log, replay) = run(open(data.path(), shard, 2));
        let [message] = &replay.messages[..] else { panic!("one copy") };
        assert_eq!(message.head.header.tail, "tail 1");
        assert_eq!(message.head.header.expires_at, 1_000_001);
        assert_eq!(message.family, Family::Device);
        recipients += message.pending.len();
        assert_eq!(message.pending.len(), message.head.recipients.len());
        assert!(!message.head.recipients.contains(&address(4)));
    }
    assert_eq!(recipients, ACCOUNTS as usize - 1);
}

#[test]
fn logs_with_damage_are_kept_and_the_rest_is_copied() {
    let data = TempDir::new().unwrap();
    let first = run(async {
        let (log, _) = open(data.path(), 0, 1).await;
        let first = log.append(&parts(1, &[0], &[7; 5000])).await.unwrap()[0];
        log.append(&parts(2, &[1], b"whole")).await.unwrap();
        log.close().await.unwrap();
        first
    });
    let segment = names(&data.path().join("shard-0000"))
        .into_iter()
        .find(|name| name.starts_with("device") && name.contains(&format!("{:010}", first.segment)))
        .unwrap();
    let segment = fs::File::options().write(true).open(data.path().join("shard-0000").join(segment)).unwrap();
    segment.write_at(b"spoilt", u64::from(first.offset) + 2000).unwrap();
    run(rehoming(data.path(), 2).run()).unwrap();
    assert_eq!(names(data.path()), ["kept-shard-0000-0", "shard-0000", "shard-0001"]);
    let mail = read(data.path(), 2);
    assert_eq!(mail.into_values().collect::<Vec<_>>(), [[b"whole"]]);
}

#[test]
fn a_log_without_its_manifest_is_known_by_its_segments() {
    let data = TempDir::new().unwrap();
    let expected = fill(data.path(), 2);
    fs::remove_file(data.path().join("shard-0001/manifest")).unwrap();
    start(data.path(), 3);
    assert_eq!(read(data.path(), 3), expected);
}

#[test]
fn empty_logs_and_no_logs_are_re_homed_too() {
    let data = TempDir::new().unwrap();
    assert!(!rehoming(data.path(), 2).is_needed().unwrap(), "a new relay has nothing to copy");
    run(async {
        for shard in 0..3 {
            open(data.path(), shard, 3).await.0.close().await.unwrap();
        }
    });
    start(data.path(), 2);
    assert_eq!(read(data.path(), 2), Mail::new());
}
