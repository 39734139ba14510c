//! The way back of a backup: into the folder of a relay that is stopped, or into one that runs, over its operator socket. Either may
//! have another number of shards than the relay had when the backup was made.

use super::backup::{MARK, USERS};
use super::report::{LogReport, json};
use super::{Answer, Only, StoreFailure};
use crate::operate::Reach;
use indicatif::{ProgressBar, ProgressStyle};
use relay_core::store::Family;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use storage::{BackupLogs, StoppedRelay, StorageError, UserDatabase, copy_users};
use tuning::operator::{Answer as RelayAnswer, MailFamily, Request, RestoreReport};

/// How long a relay may say nothing while it restores: it says how far it is four times a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Serialize)]
struct Restored {
    users_restored: bool,
    #[serde(flatten)]
    mail: RestoreReport,
    /// Of each log of the backup, what it holds and has lost; not from a relay that runs, whose log says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogReport>,
}

/// Into the folder of a relay that is stopped.
pub(super) fn into_stopped(
    from: &Path,
    to: &Path,
    only: Option<Only>,
    as_json: bool,
) -> Result<Answer, StoreFailure> {
    let begun = Instant::now();
    if !from.join(MARK).is_file() {
        return Err(StoreFailure::NoBackup(from.into()));
    }
    let families: &[Family] = match only {
        Some(Only::Identity) => &[Family::Identity],
        Some(Only::Device) => &[Family::Device],
        None => &[Family::Identity, Family::Device],
    };
    let backup = BackupLogs::open(from)?;
    if backup.is_empty() {
        return Err(StoreFailure::NoLog(from.into()));
    }
    let users_restored = !to.join(USERS).exists() && from.join(USERS).is_dir();
    if users_restored {
        copy_users(&from.join(USERS), &to.join(USERS))?;
    }
    let users = UserDatabase::open(to.join(USERS)).map_err(in_use)?;
    let mut relay = StoppedRelay::open(to, &backup, users.restored_mail().clone()).map_err(in_use)?;
    let bar = bar(as_json);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (counts, replays) =
        backup.restore(families, now, &mut relay, |done, total| show(&bar, done, total))?;
    relay.close()?;
    bar.finish_and_clear();
    let report = |(log, replay): (&storage::OfflineLog, &storage::Replay)| {
        let bytes = replay.messages.iter().map(|message| message.payload_bytes).sum();
        LogReport::new(log.directory(), replay.messages.len() as u64, bytes, &replay.report)
    };
    let logs: Vec<_> = backup.logs().iter().zip(&replays).map(report).collect();
    let mail = RestoreReport {
        messages: counts.messages,
        bytes: counts.bytes,
        present: counts.present,
        expired: counts.expired,
        unreadable: counts.unreadable,
        lost_in_backup: logs.iter().map(LogReport::lost_messages).sum(),
        whole: counts.unreadable == 0 && logs.iter().all(|log| log.whole),
        seconds: begun.elapsed().as_secs_f64(),
    };
    Ok(answer(Restored { users_restored, mail, logs }, as_json))
}

/// A relay that runs has another way.
fn in_use(error: StorageError) -> StoreFailure {
    match error {
        StorageError::UsersLocked { .. } | StorageError::Locked { .. } => StoreFailure::Runs(error),
        error => error.into(),
    }
}

/// Into a relay that runs. Users stay as they are there.
pub(super) fn into_running(
    from: &Path,
    reach: &Reach,
    only: Option<Only>,
    as_json: bool,
) -> Result<Answer, StoreFailure> {
    if !from.join(MARK).is_file() {
        return Err(StoreFailure::NoBackup(from.into()));
    }
    // The relay has another working folder.
    let backup = from.canonicalize().map_err(StoreFailure::file(from))?;
    let only = only.map(|only| match only {
        Only::Identity => MailFamily::Identity,
        Only::Device => MailFamily::Device,
    });
    let bar = bar(as_json);
    let request = Request::Restore { backup, only };
    let said = reach.connect()?.ask_at_length(request, PATIENCE, |done, total| show(&bar, done, total));
    bar.finish_and_clear();
    match said? {
        RelayAnswer::Restored(mail) => {
            Ok(answer(Restored { users_restored: false, mail, logs: Vec::new() }, as_json))
        }
        _ => Err(StoreFailure::Unfit),
    }
}

fn answer(restored: Restored, as_json: bool) -> Answer {
    let well = restored.mail.whole;
    let text = if as_json { json(&restored) } else { text(&restored) };
    Answer { text, well }
}

fn text(restored: &Restored) -> String {
    let RestoreReport { messages, bytes, present, expired, unreadable, seconds, .. } = restored.mail;
    let users = if restored.users_restored { "the users and " } else { "" };
    let damaged: String = restored.logs.iter().filter(|log| !log.whole).map(LogReport::text).collect();
    let mut text = format!(
        "restored {users}{messages} messages with {bytes} bytes in {seconds:.1} s\n\
         passed over: {present} that the relay has or had restored before, {expired} whose time is over\n"
    );
    if unreadable + restored.mail.lost_in_backup > 0 {
        text.push_str(&format!(
            "lost: {unreadable} messages cannot be read, {} were lost in the backup already\n",
            restored.mail.lost_in_backup
        ));
    }
    text + &damaged
}

/// A bar of messages on standard error; nothing is shown if that is no terminal, or with --json.
fn bar(as_json: bool) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} messages {per_sec} {eta}")
        .expect("the template is right");
    ProgressBar::new(0).with_style(style).with_prefix("restore")
}

fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
