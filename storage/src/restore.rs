//! Taking the mail of a backup over into a relay, stopped or running: which messages, for whom, in which order. Where they go is
//! for [`RestoreInto`] to say; [`StoppedRelay`] writes them into the logs of a relay that does not run.
//!
//! A message goes to the shards that are home to its recipients, however many shards the relay had when the backup was made, and
//! for those alone who still waited for it. It keeps its flags and the time when it expires and gets a new id. One that the relay
//! still has, or that was restored before, is passed over; identity-targeted mail, small and urgent, comes first.

use crate::error::StorageError;
use crate::log::{LogOptions, MailboxLog};
use crate::offline::{OfflineLog, log_folders};
use crate::plain_disk::PlainDisk;
use crate::replay::Replay;
use crate::users_restored::RestoredMail;
use futures_lite::future::block_on;
use hashbrown::{HashMap, HashSet};
use relay_core::address::MailboxAddress;
use relay_core::relay::ShardId;
use relay_core::relay::home::home;
use relay_core::relay::redeposit::RedepositPart;
use relay_core::store::{Family, LogEntry, MessageHead, RecordId, Restored};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What is restored is made durable when so much payload of it is on its way.
const ROUND_BYTES: u64 = 1024 * 1024;
/// Or so many parts.
const ROUND_PARTS: usize = 2048;

/// Where restored mail goes.
pub trait RestoreInto {
    /// What can go wrong.
    type Error: From<StorageError>;

    /// How many shards the relay has.
    fn shards(&self) -> u16;

    /// Whether the relay has a message already: it is still there under the id that it had in the log with this salt, or was
    /// restored before.
    ///
    /// # Errors
    /// It cannot be told.
    fn has(&mut self, log: u64, id: RecordId) -> Result<bool, Self::Error>;

    /// Takes a part. Those of a message come in order.
    ///
    /// # Errors
    /// It cannot be taken; nothing more is restored then.
    fn take(&mut self, shard: ShardId, part: RedepositPart) -> Result<(), Self::Error>;

    /// The message that was begun under this number cannot be read to its end.
    ///
    /// # Errors
    /// As [`RestoreInto::take`].
    fn give_up(&mut self, number: u64) -> Result<(), Self::Error>;

    /// Makes everything that was taken durable, and then remembers that these messages, each named by the salt of its log and
    /// its id there, have been restored.
    ///
    /// # Errors
    /// It could not be made durable, or not be remembered; a repetition may restore some of it twice.
    fn commit(&mut self, restored: &[(u64, RecordId)]) -> Result<(), Self::Error>;
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// Messages restored.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages that the relay had already, or that had been restored before.
    pub present: u64,
    /// Messages whose lifetime was over.
    pub expired: u64,
    /// Messages of which a part could not be read.
    pub unreadable: u64,
}

/// A backup that is open: its logs.
#[derive(Debug)]
pub struct BackupLogs(Vec<OfflineLog>);

impl BackupLogs {
    /// Opens the logs of a backup.
    ///
    /// # Errors
    /// [`StorageError`] of a log.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let logs = log_folders(folder)?;
        Ok(Self(logs.iter().map(|log| OfflineLog::open(log)).collect::<Result<_, _>>()?))
    }

    /// Whether there is no log.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The logs.
    pub fn logs(&self) -> &[OfflineLog] {
        &self.0
    }

    /// Bytes of their segments.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(OfflineLog::bytes).sum()
    }

    /// Restores the mail of `families` that is worth delivering at `now`, in seconds since the Unix epoch: all logs family by
    /// family, each in the order of its ids. `progress` gets messages done and messages in all, now and then. Gives the
    /// counts, and what each log was found to hold and to have lost.
    ///
    /// # Errors
    /// What `target` says, or a log. What was committed until then stays.
    pub fn restore<T: RestoreInto>(
        &self,
        families: &[Family],
        now: u64,
        target: &mut T,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(RestoreCounts, Vec<Replay>), T::Error> {
        let mut found = Vec::with_capacity(self.0.len());
        for log in &self.0 {
            found.push(log.replay(|_| {})?);
        }
        let wanted = |message: &&Restored| families.contains(&message.family);
        let total = found.iter().flat_map(|replay| &replay.messages).filter(wanted).count() as u64;
        let mut pass =
            Pass { target, now, next_number: 0, round: Round::default(), counts: RestoreCounts::default() };
        let mut done = 0;
        for family in families {
            for (log, replay) in self.0.iter().zip(&found) {
                for message in replay.messages.iter().filter(|message| message.family == *family) {
                    pass.message(log, message)?;
                    done += 1;
                    if pass.round.is_full() {
                        pass.commit()?;
                        progress(done, total);
                    }
                }
            }
            pass.commit()?;
            progress(done, total);
        }
        Ok((pass.counts, found))
    }
}

/// What is on its way.
#[derive(Default)]
struct Round {
    messages: Vec<(u64, RecordId)>,
    parts: usize,
    bytes: u64,
}

impl Round {
    fn is_full(&self) -> bool {
        self.parts >= ROUND_PARTS || self.bytes >= ROUND_BYTES
    }
}

struct Pass<'a, T> {
    target: &'a mut T,
    now: u64,
    next_number: u64,
    round: Round,
    counts: RestoreCounts,
}

impl<T: RestoreInto> Pass<'_, T> {
    fn message(&mut self, log: &OfflineLog, message: &Restored) -> Result<(), T::Error> {
        if message.head.header.expires_at <= self.now {
            self.counts.expired += 1;
            return Ok(());
        }
        if self.target.has(log.salt(), message.id)? {
            self.counts.present += 1;
            return Ok(());
        }
        let homes = homes(message, self.target.shards());
        let number = self.next_number;
        self.next_number += 1;
        let count = message.parts.len();
        for (index, (position, _)) in message.parts.iter().enumerate() {
            let payload = match log.read(*position) {
                Ok(payload) => payload,
                Err(StorageError::PartDamaged { .. }) => {
                    self.counts.unreadable += 1;
                    return self.target.give_up(number);
                }
                Err(error) => return Err(error.into()),
            };
            // A long message is not held in memory as a whole.
            if self.round.is_full() {
                self.commit()?;
            }
            for (shard, recipients) in &homes {
                let head =
                    || MessageHead { header: message.head.header.clone(), recipients: recipients.clone() };
                let part = RedepositPart {
                    number,
                    family: message.family,
                    index: index as u32,
                    last: index + 1 == count,
                    head: (index == 0).then(head),
                    payload: payload.clone(),
                };
                self.target.take(*shard, part)?;
                self.round.parts += 1;
                self.round.bytes += payload.len() as u64;
            }
        }
        self.round.messages.push((log.salt(), message.id));
        self.counts.messages += 1;
        self.counts.bytes += message.payload_bytes;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), T::Error> {
        let round = std::mem::take(&mut self.round);
        if round.parts > 0 { self.target.commit(&round.messages) } else { Ok(()) }
    }
}

/// Those who still waited for a message, by their homes, in the order of its recipients.
pub(crate) fn homes(message: &Restored, shards: u16) -> BTreeMap<ShardId, Arc<[MailboxAddress]>> {
    let mut homes: BTreeMap<ShardId, Vec<MailboxAddress>> = BTreeMap::new();
    for position in &message.pending {
        let recipient = &message.head.recipients[*position as usize];
        homes.entry(home(&recipient.account, shards)).or_default().push(recipient.clone());
    }
    homes.into_iter().map(|(home, recipients)| (home, recipients.into())).collect()
}

/// The logs of a relay that does not run, to restore into. While it is there, no relay can open them.
#[derive(Debug)]
pub struct StoppedRelay {
    logs: Vec<TargetLog>,
    /// By the salt of a log, the messages in it.
    present: HashMap<u64, HashSet<RecordId>>,
    restored: RestoredMail,
}

#[derive(Debug)]
struct TargetLog {
    log: MailboxLog<PlainDisk>,
    next_id: u64,
    batch: Vec<LogEntry>,
    /// Messages whose parts are coming, and their new ids.
    begun: HashMap<u64, RecordId>,
}

impl StoppedRelay {
    /// Opens the logs in a relay's data folder, and reads them. If there are none, they become logs for as many shards, with
    /// segments of as many bytes, as `like` has. `restored` is what the relay's user database remembers.
    ///
    /// # Errors
    /// [`StorageError`]: in particular [`StorageError::Locked`] if the relay runs, and [`StorageError::WrongShard`] if its logs
    /// are those of different numbers of shards, which a start of the relay puts right.
    pub fn open(data: &Path, like: &BackupLogs, restored: RestoredMail) -> Result<Self, StorageError> {
        let found = if data.is_dir() { log_folders(data)? } else { Vec::new() };
        let found_log = found.first().map(|folder| OfflineLog::open(folder)).transpose()?;
        let model = found_log.as_ref().or(like.0.first());
        let (shards, segment_bytes) =
            model.map_or((1, crate::DEFAULT_SEGMENT_BYTES), |log| (log.shard().1, log.segment_bytes()));
        drop(found_log);
        let mut this = Self { logs: Vec::new(), present: HashMap::new(), restored };
        for shard in 0..shards {
            let directory = crate::log_directory(data, shard as u16);
            let options = LogOptions { directory, segment_bytes, shard, shards };
            let (log, replay) = block_on(MailboxLog::open_on(PlainDisk, options))?;
            let ids = replay.messages.iter().map(|message| message.id).collect();
            this.present.insert(log.salt(), ids);
            let next_id = replay.highest_id.0 + 1;
            this.logs.push(TargetLog { log, next_id, batch: Vec::new(), begun: HashMap::new() });
        }
        Ok(this)
    }

    /// Closes the logs.
    ///
    /// # Errors
    /// What the system said.
    pub fn close(self) -> Result<(), StorageError> {
        self.logs.into_iter().try_for_each(|target| block_on(target.log.close()))
    }
}

impl RestoreInto for StoppedRelay {
    type Error = StorageError;

    fn shards(&self) -> u16 {
        self.logs.len() as u16
    }

    fn has(&mut self, log: u64, id: RecordId) -> Result<bool, StorageError> {
        let present = self.present.get(&log).is_some_and(|ids| ids.contains(&id));
        Ok(present || self.restored.contains(log, id)?)
    }

    fn take(&mut self, shard: ShardId, part: RedepositPart) -> Result<(), StorageError> {
        let target = &mut self.logs[usize::from(shard.0)];
        let id = *target.begun.entry(part.number).or_insert_with(|| {
            target.next_id += 1;
            RecordId(target.next_id - 1)
        });
        if part.last {
            target.begun.remove(&part.number);
        }
        target.batch.push(LogEntry::Part {
            id,
            family: part.family,
            index: part.index,
            last: part.last,
            head: part.head,
            payload: [part.payload].into_iter().collect(),
        });
        Ok(())
    }

    /// Without its last part it is no message.
    fn give_up(&mut self, number: u64) -> Result<(), StorageError> {
        for target in &mut self.logs {
            target.begun.remove(&number);
        }
        Ok(())
    }

    fn commit(&mut self, restored: &[(u64, RecordId)]) -> Result<(), StorageError> {
        for target in &mut self.logs {
            block_on(target.log.append(&target.batch))?;
            target.batch.clear();
        }
        self.restored.insert(restored)
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
