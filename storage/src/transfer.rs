//! Taking all mail of one log over into another: what rebuilding a damaged log and restoring a backup come down to.

use crate::error::StorageError;
use crate::log::{LogOptions, MailboxLog};
use crate::offline::OfflineLog;
use crate::plain_disk::PlainDisk;
use crate::replay::ReplayReport;
use futures_lite::future::block_on;
use relay_core::store::{Family, LogEntry, MessageHead, RecordId, Restored};

/// A batch is written when it holds so much payload.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Or so many records.
const BATCH_RECORDS: usize = 4096;

/// What was taken over, and what could not be.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// Messages that now are in the new log.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Messages of which a part changed on the disk while they were read.
    pub unreadable: u64,
    /// What the old log holds and has lost.
    pub report: ReplayReport,
}

/// Appends every message of `from` that belongs to one of `families` and that somebody still waits for to the log in
/// `into`, behind what is there, in the old order; for those recipients only who wait. Durable when it returns. `progress` gets
/// the payload bytes of each message that is done.
///
/// Blocks; for tools, while no relay has the log open.
///
/// # Errors
/// [`StorageError`] of either log. What was appended until then stays.
pub fn transfer(
    from: &OfflineLog,
    into: LogOptions,
    families: &[Family],
    mut progress: impl FnMut(u64),
) -> Result<Transfer, StorageError> {
    let source = from.replay(|_| {})?;
    let mut done = Transfer { report: source.report, ..Transfer::default() };
    block_on(async {
        let (log, target) = MailboxLog::open_on(PlainDisk, into).await?;
        let mut next = target.highest_id.0 + 1;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for message in source.messages.iter().filter(|message| families.contains(&message.family)) {
            match copies(from, message, RecordId(next)) {
                Ok(parts) => batch.extend(parts),
                Err(StorageError::PartDamaged { .. }) => {
                    done.unreadable += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            next += 1;
            bytes += message.payload_bytes;
            done.messages += 1;
            done.payload_bytes += message.payload_bytes;
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_RECORDS {
                log.append(&batch).await?;
                batch.clear();
                bytes = 0;
            }
            progress(message.payload_bytes);
        }
        log.append(&batch).await?;
        log.close().await
    })?;
    Ok(done)
}

/// The parts of a message as a new one.
fn copies(from: &OfflineLog, message: &Restored, id: RecordId) -> Result<Vec<LogEntry>, StorageError> {
    let recipients = message.pending.iter().map(|place| message.head.recipients[*place as usize].clone());
    let mut head =
        Some(MessageHead { header: message.head.header.clone(), recipients: recipients.collect() });
    let count = message.parts.len();
    let parts = message.parts.iter().enumerate().map(|(index, (position, _))| {
        Ok(LogEntry::Part {
            id,
            family: message.family,
            index: index as u32,
            last: index + 1 == count,
            head: head.take(),
            payload: [from.read(*position)?].into_iter().collect(),
        })
    });
    parts.collect()
}
