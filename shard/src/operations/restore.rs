//! Taking a backup in while the relay runs. A blocking thread reads the backup, and gives the shards a bounded amount of it at a
//! time: the next comes when what came before is durable. Shards deal with it as with any other mail; nothing is stopped.

use super::socket::say;
use super::{Deck, State};
use crate::command::{Command, NoAnswer};
use crate::events;
use crate::monitor::{Level, Resource};
use relay_core::relay::redeposit::{Durable, RedepositPart};
use relay_core::relay::{Page, ShardId};
use relay_core::store::{Family, RecordId};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use storage::{BackupLogs, OfflineLog, RestoreInto, RestoredMail, StorageError};
use tokio::net::unix::OwnedWriteHalf;
use tokio::runtime::Handle;
use tuning::operator::{Answer, ErrorCause, MailFamily, Outcome, Refusal, RestoreReport};

/// How long a shard may take to take something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether what was given is durable.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often the operator is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Entries of a table that a shard looks at in one turn.
const LOOK_AT: usize = 4096;
/// The file without which a backup is not finished.
const MARK: &str = "backup.json";

/// Why a backup is not taken in, or not to its end.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("the relay stops")]
    Stopping,
    #[error("the operator has gone")]
    Gone,
    #[error(
        "the disk is nearly full: make room, then restore again; what is restored already is passed over"
    )]
    DiskCritical,
}

/// How far it is, and whether anybody still wants it.
#[derive(Debug, Default)]
struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    gone: AtomicBool,
}

/// Takes the mail of a backup in. The operator is told now and then how far it is; if that fails, the restore ends.
pub(super) async fn restore(
    deck: &Arc<Deck>,
    backup: PathBuf,
    only: Option<MailFamily>,
    operator: &mut OwnedWriteHalf,
) -> io::Result<Outcome> {
    let refusal = |cause, message: String| Ok(Outcome::Error(Refusal { cause, message }));
    if deck.state() != State::Serving {
        return refusal(ErrorCause::NotServing, format!("the relay is {}", deck.state().name()));
    }
    let Ok(_only_one) = deck.restoring.try_lock() else {
        return refusal(ErrorCause::Failed, "another backup is being restored".into());
    };
    if !backup.join(MARK).is_file() {
        let message = format!("{}: no finished backup that the relay can read", backup.display());
        return refusal(ErrorCause::BadValue, message);
    }
    tracing::info!(event = events::RESTORE_BEGUN, backup = %backup.display(), "a backup is taken in");
    let progress = Arc::new(Progress::default());
    let work = {
        let (deck, progress, runtime, backup) =
            (deck.clone(), progress.clone(), Handle::current(), backup.clone());
        move || take_in(&deck, &runtime, &progress, &backup, only)
    };
    let mut work = tokio::task::spawn_blocking(work);
    let outcome = loop {
        match tokio::time::timeout(TELL_EVERY, &mut work).await {
            Ok(outcome) => break outcome,
            Err(_elapsed) => {
                let [done, total] =
                    [&progress.done, &progress.total].map(|count| count.load(Ordering::Relaxed));
                let answer = Answer::Restoring { done, total };
                if let Err(error) = say(operator, Outcome::Answer(answer)).await {
                    progress.gone.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    match outcome {
        Ok(Ok(report)) => {
            tracing::info!(event = events::RESTORED, backup = %backup.display(), messages = report.messages, present = report.present, expired = report.expired, unreadable = report.unreadable, seconds = report.seconds, "a backup was taken in");
            Ok(Outcome::Answer(Answer::Restored(report)))
        }
        Ok(Err(error)) => {
            tracing::error!(event = events::NOT_RESTORED, backup = %backup.display(), %error, "a backup was not taken in to its end");
            refusal(ErrorCause::Failed, error.to_string())
        }
        Err(panicked) => refusal(ErrorCause::Failed, panicked.to_string()),
    }
}

fn take_in(
    deck: &Arc<Deck>,
    runtime: &Handle,
    progress: &Arc<Progress>,
    backup: &Path,
    only: Option<MailFamily>,
) -> Result<RestoreReport, RestoreError> {
    let begun = Instant::now();
    let logs = BackupLogs::open(backup)?;
    let families: &[Family] = match only {
        Some(MailFamily::Identity) => &[Family::Identity],
        Some(MailFamily::Device) => &[Family::Device],
        None => &[Family::Identity, Family::Device],
    };
    let mut relay = RunningRelay::new(deck, runtime, progress, &logs)?;
    let now = deck.around.clock.now().as_secs();
    let outcome = logs.restore(families, now, &mut relay, |done, total| {
        progress.done.store(done, Ordering::Relaxed);
        progress.total.store(total, Ordering::Relaxed);
    });
    relay.give_up_what_is_open();
    let (counts, replays) = outcome?;
    Ok(RestoreReport {
        messages: counts.messages,
        bytes: counts.bytes,
        present: counts.present,
        expired: counts.expired,
        unreadable: counts.unreadable,
        lost_in_backup: replays.iter().map(|replay| replay.report.lost.len() as u64).sum(),
        whole: counts.unreadable == 0 && replays.iter().all(|replay| replay.report.is_whole()),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// The shards of the relay as mail is restored into them.
struct RunningRelay<'a> {
    deck: &'a Arc<Deck>,
    runtime: &'a Handle,
    progress: &'a Progress,
    /// By the salt of a log that is in use, the messages that are there.
    present: HashMap<u64, HashSet<RecordId>>,
    restored: RestoredMail,
    /// By shard, what is given to it next.
    parts: Vec<Vec<RedepositPart>>,
    /// Messages that were begun and not ended, and where.
    open: HashMap<u64, Vec<ShardId>>,
    /// Those of them whose end is on its way.
    ending: Vec<u64>,
}

impl<'a> RunningRelay<'a> {
    fn new(
        deck: &'a Arc<Deck>,
        runtime: &'a Handle,
        progress: &'a Progress,
        backup: &BackupLogs,
    ) -> Result<Self, RestoreError> {
        let shards = usize::from(deck.around.shards.count());
        let mut this = Self {
            deck,
            runtime,
            progress,
            present: HashMap::new(),
            restored: deck.around.users.restored_mail().clone(),
            parts: vec![Vec::new(); shards],
            open: HashMap::new(),
            ending: Vec::new(),
        };
        for shard in deck.around.shards.all() {
            let log = storage::log_salt(&storage::log_directory(&deck.data, shard.0))?;
            // What another log's ids mean is not known.
            if let Some(salt) =
                log.filter(|salt| backup.logs().iter().any(|log: &OfflineLog| log.salt() == *salt))
            {
                let ids = this.messages_of(shard)?;
                this.present.insert(salt, ids);
            }
        }
        Ok(this)
    }

    /// All messages that a shard has now.
    fn messages_of(&self, shard: ShardId) -> Result<HashSet<RecordId>, RestoreError> {
        let mut ids = HashSet::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let page = Page { from: first, look_at: LOOK_AT, most: LOOK_AT };
            let listed = self.ask(shard, |reply| Command::Messages { page, reply })?;
            ids.extend(listed.entries);
            from = listed.next;
        }
        Ok(ids)
    }

    fn ask<T>(
        &self,
        shard: ShardId,
        command: impl FnOnce(crate::command::Reply<T>) -> Command,
    ) -> Result<T, RestoreError> {
        Ok(self.runtime.block_on(self.deck.around.shards.ask(shard, PATIENCE, command))?)
    }

    fn may_go_on(&self) -> Result<(), RestoreError> {
        if self.progress.gone.load(Ordering::Relaxed) {
            return Err(RestoreError::Gone);
        }
        match self.deck.state() {
            State::Serving | State::Draining | State::Quiescent => Ok(()),
            State::Starting | State::Stopping => Err(RestoreError::Stopping),
        }
    }

    fn disk_is_critical(&self) -> bool {
        let monitor = self.deck.monitor();
        let mut levels = monitor.levels();
        levels.any(|(resource, level, _)| resource == Resource::Disk && level == Level::Critical)
    }

    /// What was begun and will not be ended is taken back. A shard that does not answer has ended, and forgotten it.
    fn give_up_what_is_open(&mut self) {
        for number in self.open.keys().copied().collect::<Vec<_>>() {
            let _forgotten = self.give_up(number);
        }
    }
}

impl RestoreInto for RunningRelay<'_> {
    type Error = RestoreError;

    fn shards(&self) -> u16 {
        self.deck.around.shards.count()
    }

    fn has(&mut self, log: u64, id: RecordId) -> Result<bool, RestoreError> {
        let present = self.present.get(&log).is_some_and(|ids| ids.contains(&id));
        Ok(present || self.restored.contains(log, id)?)
    }

    fn take(&mut self, shard: ShardId, part: RedepositPart) -> Result<(), RestoreError> {
        if part.index == 0 && !part.last {
            self.open.entry(part.number).or_default().push(shard);
        } else if part.last {
            self.ending.push(part.number);
        }
        self.parts[usize::from(shard.0)].push(part);
        Ok(())
    }

    fn give_up(&mut self, number: u64) -> Result<(), RestoreError> {
        self.parts.iter_mut().for_each(|parts| parts.retain(|part| part.number != number));
        for shard in self.open.remove(&number).unwrap_or_default() {
            self.ask(shard, |reply| Command::GiveUpRedeposit { number, reply })?;
        }
        Ok(())
    }

    fn commit(&mut self, restored: &[(u64, RecordId)]) -> Result<(), RestoreError> {
        if self.disk_is_critical() {
            return Err(RestoreError::DiskCritical);
        }
        let durable = Durable::new(AtomicUsize::new(0));
        let mut given = 0;
        for shard in self.deck.around.shards.all() {
            let parts = std::mem::take(&mut self.parts[usize::from(shard.0)]);
            given += parts.len();
            if !parts.is_empty() {
                let durable = durable.clone();
                self.ask(shard, |reply| Command::Redeposit { parts, durable, reply })?;
            }
        }
        while durable.load(Ordering::Acquire) < given {
            self.may_go_on()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        self.restored.insert(restored)?;
        for number in self.ending.drain(..) {
            self.open.remove(&number);
        }
        Ok(())
    }
}
