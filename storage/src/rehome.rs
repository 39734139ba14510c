//! Re-homing: a relay with another number of shards has other homes for its accounts, so that before its shards start all
//! stored mail is copied into new logs, one for each new shard.
//!
//! One pass on one executor reads every old log and writes, beside them, the new ones; the old ones stay as they are until
//! all new ones are durable and have become the relay's logs by one rename (`rehome_folders`). A pass that is interrupted
//! before starts over, one that is interrupted after is finished at the next start. A message is copied
//! once for each new home that it has recipients in, and only for those who still wait for it. Never decides what expires.

use crate::error::StorageError;
use crate::events;
use crate::log::{LogOptions, MailboxLog};
use crate::manifest::Manifest;
use crate::rehome_folders::{Folders, Pauses};
use crate::restore::homes;
use relay_core::relay::ShardId;
use relay_core::store::{LogEntry, MessageHead, RecordId, Restored};
use std::path::{Path, PathBuf};

/// A new log's batch is written when it holds so much payload, or so many records.
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_RECORDS: usize = if cfg!(test) { 7 } else { 4096 };
/// After how many messages progress is logged.
const REPORT_EVERY: u64 = 100_000;

/// Where the logs of a relay lie, and for how many shards they are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehoming {
    /// The relay's data folder, with a log in `shard-NNNN` for each shard. No shard may run.
    pub data: PathBuf,
    /// The number of shards that the relay starts with.
    pub shards: u16,
    /// Bytes of a segment of the new logs; see [`LogOptions`].
    pub segment_bytes: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rehomed {
    /// Messages that somebody waited for.
    pub messages: u64,
    /// Messages that were written: more than those read if recipients of one now have different homes.
    pub copies: u64,
    /// Payload bytes written.
    pub bytes: u64,
    /// Messages that the disk had damaged: they could not be copied. If there are any, or if something in a log could not be
    /// told to be a message, the old logs are kept as `kept-shard-NNNN-N`.
    pub unreadable: u64,
}

impl Rehoming {
    /// Whether the logs are those of another number of shards, or a former pass is to be finished. Quick: reads no record.
    ///
    /// # Errors
    /// [`StorageError`]: a manifest that is not one, or a refusal by the system.
    pub fn is_needed(&self) -> Result<bool, StorageError> {
        let folders = Folders(&self.data);
        // What an interrupted pass has left is in nobody's way if the old number of shards has come back.
        folders.discard_building()?;
        let finished = folders.finish(&mut Pauses::none())?;
        if finished {
            tracing::info!(
                event = events::REHOMING_FINISHED,
                "re-homing, which had been interrupted, is finished"
            );
        }
        Ok(!folders.are_homes_of(self.shards)?)
    }

    /// Copies all mail into logs for [`Rehoming::shards`] and lets them take the place of the old ones. On a glommio executor.
    ///
    /// # Errors
    /// [`StorageError`]. The relay may be started again then, with any number of shards: no mail is lost or doubled.
    pub async fn run(&self) -> Result<Rehomed, StorageError> {
        self.run_with(&mut Pauses::none()).await
    }

    async fn run_with(&self, pauses: &mut Pauses) -> Result<Rehomed, StorageError> {
        let folders = Folders(&self.data);
        folders.discard_building()?;
        folders.finish(pauses)?;
        let mut new = NewLogs::open(self, &folders.building(), pauses).await?;
        let logs = folders.logs()?;
        let mut keep_old = false;
        for (number, directory) in &logs {
            keep_old |= new.take_over(*number, directory, self.segment_bytes, pauses).await?;
        }
        let done = new.close(pauses).await?;
        folders.commit(self.shards, keep_old || done.unreadable > 0, pauses)?;
        pauses.pass(&self.data)?;
        folders.finish(pauses)?;
        let Rehomed { messages, copies, bytes, unreadable } = done;
        let (from, to) = (logs.len(), self.shards);
        tracing::info!(
            event = events::REHOMED,
            from,
            to,
            messages,
            copies,
            bytes,
            unreadable,
            "stored mail has new homes"
        );
        Ok(done)
    }
}

/// Opens a log as whatever shard wrote it.
async fn open_as_written(
    number: u32,
    directory: &Path,
    segment_bytes: u64,
) -> Result<(MailboxLog, crate::Replay), StorageError> {
    let options = |shard, shards| LogOptions { directory: directory.into(), segment_bytes, shard, shards };
    if let Some(manifest) = Manifest::read(directory)? {
        return MailboxLog::open(options(manifest.shard, manifest.shards)).await;
    }
    // Without a manifest the log knows from its segments what it is, and says so when it is opened as something else.
    match MailboxLog::open(options(number, number + 1)).await {
        Err(StorageError::WrongShard { stored_shard, stored_shards, .. }) => {
            MailboxLog::open(options(stored_shard, stored_shards)).await
        }
        other => other,
    }
}

/// The log of a new shard while it is filled.
struct NewLog {
    log: MailboxLog,
    next_id: u64,
    batch: Vec<LogEntry>,
    batch_bytes: usize,
}

impl NewLog {
    async fn add(&mut self, entry: LogEntry, pauses: &mut Pauses, at: &Path) -> Result<(), StorageError> {
        if let LogEntry::Part { payload, .. } = &entry {
            self.batch_bytes += payload.iter().map(bytes::Bytes::len).sum::<usize>();
        }
        self.batch.push(entry);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_RECORDS {
            self.write(pauses, at).await?;
        }
        Ok(())
    }

    async fn write(&mut self, pauses: &mut Pauses, at: &Path) -> Result<(), StorageError> {
        if !self.batch.is_empty() {
            pauses.pass(at)?;
            self.log.append(&self.batch).await?;
            self.batch.clear();
            self.batch_bytes = 0;
        }
        Ok(())
    }
}

/// All new logs.
struct NewLogs {
    directory: PathBuf,
    logs: Vec<NewLog>,
    done: Rehomed,
}

impl NewLogs {
    async fn open(rehoming: &Rehoming, directory: &Path, pauses: &mut Pauses) -> Result<Self, StorageError> {
        let mut logs = Vec::with_capacity(usize::from(rehoming.shards));
        for shard in 0..rehoming.shards {
            pauses.pass(directory)?;
            let options = LogOptions {
                directory: crate::log_directory(directory, shard),
                segment_bytes: rehoming.segment_bytes,
                shard: u32::from(shard),
                shards: u32::from(rehoming.shards),
            };
            let (log, _nothing) = MailboxLog::open(options).await?;
            logs.push(NewLog { log, next_id: 1, batch: Vec::new(), batch_bytes: 0 });
        }
        Ok(Self { directory: directory.into(), logs, done: Rehomed::default() })
    }

    /// Copies what an old log holds. Says whether there is something in it that cannot be read.
    async fn take_over(
        &mut self,
        number: u32,
        directory: &Path,
        segment_bytes: u64,
        pauses: &mut Pauses,
    ) -> Result<bool, StorageError> {
        pauses.pass(directory)?;
        let (old, replay) = open_as_written(number, directory, segment_bytes).await?;
        for damage in &replay.report.damaged {
            tracing::error!(
                event = events::REHOMED_LOG_DAMAGED,
                log = %directory.display(),
                ?damage,
                "the log that is re-homed is damaged"
            );
        }
        let total = replay.messages.len();
        tracing::info!(
            event = events::REHOMING,
            log = %directory.display(),
            copied = 0,
            of = total,
            "re-homing stored mail"
        );
        for (copied, message) in replay.messages.iter().enumerate() {
            self.copy(&old, message, pauses).await?;
            if (copied as u64 + 1).is_multiple_of(REPORT_EVERY) {
                tracing::info!(
                    event = events::REHOMING,
                    log = %directory.display(),
                    copied = copied + 1,
                    of = total,
                    "re-homing stored mail"
                );
            }
        }
        old.close().await?;
        Ok(!replay.report.is_whole())
    }

    /// Copies one message to each home that it has recipients in. Ids ascend as they did, so that order is kept.
    async fn copy(
        &mut self,
        old: &MailboxLog,
        message: &Restored,
        pauses: &mut Pauses,
    ) -> Result<(), StorageError> {
        let homes = homes(message, self.logs.len() as u16);
        let ids: Vec<RecordId> = homes.keys().map(|home| self.next_id(*home)).collect();
        self.done.messages += 1;
        let count = message.parts.len();
        for (index, (position, _)) in message.parts.iter().enumerate() {
            let payload = match old.read(*position).await {
                Ok(payload) => payload,
                Err(error @ StorageError::PartDamaged { .. }) => {
                    // Parts that are copied already are none without the last one.
                    tracing::error!(event = events::NOT_REHOMED, %error, "a stored message cannot be re-homed");
                    self.done.unreadable += 1;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            for ((home, recipients), id) in homes.iter().zip(&ids) {
                let head =
                    MessageHead { header: message.head.header.clone(), recipients: recipients.clone() };
                let part = LogEntry::Part {
                    id: *id,
                    family: message.family,
                    index: index as u32,
                    last: index + 1 == count,
                    head: (index == 0).then_some(head),
                    payload: [payload.clone()].into_iter().collect(),
                };
                self.done.bytes += payload.len() as u64;
                self.logs[usize::from(home.0)].add(part, pauses, &self.directory).await?;
            }
        }
        self.done.copies += homes.len() as u64;
        Ok(())
    }

    fn next_id(&mut self, home: ShardId) -> RecordId {
        let log = &mut self.logs[usize::from(home.0)];
        log.next_id += 1;
        RecordId(log.next_id - 1)
    }

    async fn close(self, pauses: &mut Pauses) -> Result<Rehomed, StorageError> {
        for mut new in self.logs {
            new.write(pauses, &self.directory).await?;
            new.log.close().await?;
        }
        Ok(self.done)
    }
}

#[cfg(test)]
#[path = "rehome_tests.rs"]
pub(crate) mod tests;
