//! `recovery`: a relay starts on a log of a known size. How long does it read, and what does the mail in it cost in memory?

use super::traffic::describe_relay;
use crate::failure::Failure;
use crate::population::{User, make_keys};
use crate::proc_stat::Usage;
use crate::relay_process::{RelayError, RelayOptions, RelayProcess};
use crate::report::{Report, thousands};
use bytes::Bytes;
use futures_lite::future::block_on;
use relay_core::address::{MailboxAddress, ResourceUrl};
use relay_core::directory::Profile;
use relay_core::relay::home::home;
use relay_core::store::{Family, LogEntry, MessageHead, MessageHeader, PART_BYTES, RecordId};
use std::path::Path;
use std::sync::Arc;
use storage::{LogOptions, MailboxLog, OfflineLog, PlainDisk, log_folders};

/// A batch is written when it holds so many records.
const BATCH_RECORDS: u64 = 1024;
/// Every one of these messages has been acknowledged, and its record is dead.
const DEAD_EVERY: u64 = 4;
const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// How long does a relay take to start on the mail that it has, per GiB of its log?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Recovery {
    /// Size of the logs of all shards together, in MiB
    #[arg(long, default_value_t = 1024)]
    pub(crate) mebibytes: u64,
    /// Payload bytes of a message
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=PART_BYTES as i64))]
    pub(crate) payload: u32,
    /// Recipients, each with a mailbox
    #[arg(long, default_value_t = 1000)]
    pub(crate) recipients: u32,
    /// Starts that are timed
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    bytes: u64,
    live: u64,
    dead: u64,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if the relay does not start.
pub(crate) fn run(options: &Recovery) -> Result<Report, Failure> {
    let keys = Arc::new(make_keys(Profile::Modern));
    let mut relay = RelayProcess::start(&options.relay, options.recipients, keys)?;
    relay.kill();
    let mut empty = f64::INFINITY;
    let mut resident_empty = 0;
    for _ in 0..options.rounds.max(1) {
        empty = empty.min(relay.restart()?.as_secs_f64());
        resident_empty = Usage::of(relay.id()).resident;
        relay.kill();
    }
    let written = fill(options, &relay.directory().join("data"))?;
    let mut report = Report::new("recovery");
    report.setting("mebibytes", options.mebibytes);
    report.setting("payload", options.payload);
    report.setting("recipients", options.recipients);
    report.setting("rounds", options.rounds);
    describe_relay(&mut report, &options.relay);
    let gib = written.bytes as f64 / GIB;
    report.line(format!(
        "{gib:.2} GiB of log: {} messages that wait, {} that were acknowledged",
        thousands(written.live as f64),
        thousands(written.dead as f64)
    ));
    let (mut best, mut resident) = (f64::INFINITY, 0);
    for round in 1..=options.rounds.max(1) {
        let took = relay.restart()?.as_secs_f64();
        resident = Usage::of(relay.id()).resident;
        relay.kill();
        let reading = (took - empty).max(0.0);
        report.line(format!(
            "round {round}: listens after {took:.2} s ({empty:.2} s without mail), {:.2} s per GiB, {:.0} MiB/s",
            reading / gib,
            gib * 1024.0 / reading.max(1e-3)
        ));
        best = best.min(reading);
    }
    let for_mail = resident.saturating_sub(resident_empty) as f64;
    report.line(format!(
        "{:.0} MiB resident, {:.0} MiB without mail: {:.0} bytes for each message that waits",
        resident as f64 / MIB,
        resident_empty as f64 / MIB,
        for_mail / written.live.max(1) as f64
    ));
    report.result("seconds_per_gib", best / gib);
    report.result("gib", gib);
    report.result("start_seconds_without_mail", empty);
    report.result("messages", written.live);
    report.result("bytes_per_message", for_mail / written.live.max(1) as f64);
    Ok(report)
}

/// Writes mail into the logs of a relay that does not run, at most 4 MiB more than asked for.
fn fill(options: &Recovery, data: &Path) -> Result<Written, Failure> {
    let failed = |error| Failure::Relay(RelayError::Users(error));
    let folders = log_folders(data).map_err(failed)?;
    let each = (options.mebibytes << 20) / folders.len().max(1) as u64;
    let mut all = Written::default();
    for folder in folders {
        let log = OfflineLog::open(&folder).map_err(failed)?;
        let ((shard, shards), segment_bytes) = (log.shard(), log.segment_bytes());
        drop(log);
        let recipients: Vec<MailboxAddress> = (0..options.recipients)
            .map(|number| address(&User::new(number)))
            .filter(|address| u32::from(home(&address.account, shards as u16).0) == shard)
            .collect();
        if recipients.is_empty() {
            continue;
        }
        let options_of_log = LogOptions { directory: folder, segment_bytes, shard, shards };
        let written = block_on(write(options_of_log, &recipients, options.payload, each)).map_err(failed)?;
        all.bytes += written.bytes;
        all.live += written.live;
        all.dead += written.dead;
    }
    Ok(all)
}

fn address(user: &User) -> MailboxAddress {
    MailboxAddress {
        account: user.account.clone(),
        identity: user.identity.clone(),
        device: Some(user.device.clone()),
        resource: ResourceUrl::new("bench").expect("a URL"),
    }
}

async fn write(
    options: LogOptions,
    recipients: &[MailboxAddress],
    payload: u32,
    bytes: u64,
) -> Result<Written, storage::StorageError> {
    let (log, replay) = MailboxLog::open_on(PlainDisk, options).await?;
    let payload = Bytes::from(vec![0x5a; payload as usize]);
    let (mut written, mut id) = (Written::default(), replay.highest_id.0);
    while written.bytes < bytes {
        let batch: Vec<LogEntry> = (0..BATCH_RECORDS)
            .map(|place| {
                let recipient = recipients[((id + place) % recipients.len() as u64) as usize].clone();
                message(RecordId(id + 1 + place), recipient, payload.clone())
            })
            .collect();
        let positions = log.append(&batch).await?;
        let dead: Vec<LogEntry> = positions
            .iter()
            .zip(1u64..)
            .filter(|(_, place)| place.is_multiple_of(DEAD_EVERY))
            .map(|(position, place)| LogEntry::Delete {
                id: RecordId(id + place),
                family: Family::Device,
                parts: [*position].into_iter().collect(),
            })
            .collect();
        log.append(&dead).await?;
        id += BATCH_RECORDS;
        written.dead += dead.len() as u64;
        written.live += BATCH_RECORDS - dead.len() as u64;
        written.bytes = log.stats().bytes_written;
    }
    log.close().await?;
    Ok(written)
}

fn message(id: RecordId, recipient: MailboxAddress, payload: Bytes) -> LogEntry {
    let header = MessageHeader { flags: 0, tail: Bytes::from_static(&[0]), expires_at: u64::from(u32::MAX) };
    LogEntry::Part {
        id,
        family: Family::Device,
        index: 0,
        last: true,
        head: Some(MessageHead { header, recipients: [recipient].into() }),
        payload: [payload].into_iter().collect(),
    }
}
