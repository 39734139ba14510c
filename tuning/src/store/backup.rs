//! Backups of mail and users; `restore` is their way back.
//!
//! A backup is a folder with the logs as `shard-NNNN`, the user database as `users`, and a file `backup.json`, written
//! last: without it, the backup is not finished.

use super::report::json;
use super::{Answer, StoreFailure, bar, logs};
use relay_core::store::Family;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use storage::{copy_log, copy_users};

/// The file without which a backup is not finished.
pub(super) const MARK: &str = "backup.json";
/// The folder of the user database.
pub(super) const USERS: &str = "users";

/// What a backup holds.
#[derive(Debug, Serialize)]
struct Backup {
    furrow_backup: u32,
    shards: usize,
    accounts: usize,
    devices: usize,
    segments: u64,
    bytes: u64,
    /// How often a log had to be listed anew, since it gave segments up meanwhile.
    repeated: u64,
}

/// `store backup`.
pub(super) fn backup(
    data: &Path,
    to: &Path,
    identity_first: bool,
    as_json: bool,
) -> Result<Answer, StoreFailure> {
    let logs = logs(data)?;
    if to.exists() {
        return Err(StoreFailure::Exists(to.into()));
    }
    std::fs::create_dir_all(to).map_err(StoreFailure::file(to))?;
    let mut backup = Backup {
        furrow_backup: 1,
        shards: logs.len(),
        accounts: 0,
        devices: 0,
        segments: 0,
        bytes: 0,
        repeated: 0,
    };
    if data.join(USERS).is_dir() {
        let users = copy_users(&data.join(USERS), &to.join(USERS))?;
        (backup.accounts, backup.devices) = (users.accounts, users.devices);
    }
    let passes: &[&[Family]] = if identity_first {
        &[&[Family::Identity], &[Family::Device]]
    } else {
        &[&[Family::Device, Family::Identity]]
    };
    let bar = bar("backup", logs.iter().map(|log| folder_bytes(log)).sum(), as_json);
    for families in passes {
        for log in &logs {
            let copied = copy_log(log, &to.join(name(log)), families, |bytes| bar.inc(bytes))?;
            backup.segments += copied.segments;
            backup.bytes += copied.bytes;
            backup.repeated += copied.repeated;
        }
    }
    bar.finish_and_clear();
    write_mark(to, &json(&backup)).map_err(StoreFailure::file(to))?;
    let text = format!(
        "{}: {} accounts, {} devices, {} segments with {} bytes of {} shards\n\
         the relay's key file is not in it; `relayctl store verify` checks the mail\n",
        to.display(),
        backup.accounts,
        backup.devices,
        backup.segments,
        backup.bytes,
        backup.shards
    );
    Ok(Answer { text: if as_json { json(&backup) } else { text }, well: true })
}

fn name(folder: &Path) -> PathBuf {
    folder.file_name().map_or_else(|| PathBuf::from("shard-0000"), PathBuf::from)
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}

fn write_mark(to: &Path, content: &str) -> std::io::Result<()> {
    let mut file = File::create(to.join(MARK))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    File::open(to)?.sync_all()
}
