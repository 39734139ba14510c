//! `relayctl store`: looking after the mail on disk. Verifies and lists logs that no relay has open, rebuilds damaged ones, and
//! copies a relay's mail and users while it runs. Owns no format: that is the storage crate's.

mod backup;
mod inspect;
mod rebuild;
mod report;
mod restore;

use crate::operate::{OperateError, Reach};
use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use storage::StorageError;
use tuning::operator::ClientError;

/// The commands.
#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Read all stored mail and check every checksum. Changes nothing; the relay must be stopped. Exit code 1 if anything
    /// is lost.
    Verify {
        /// The folder that relay.data_dir names, one log in it, or a backup.
        data: PathBuf,
        /// Print the outcome as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print what is in the logs, record by record: ids, recipients, places; never what the mail says. The relay must be
    /// stopped.
    Dump {
        /// The folder that relay.data_dir names, one log in it, or a backup.
        data: PathBuf,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Write damaged logs anew with all mail that can be read. The old ones are kept beside them. The relay must be stopped.
    Rebuild {
        /// The folder that relay.data_dir names, or one log in it.
        data: PathBuf,
        /// Print the outcome as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Copy all mail and users to a new folder, whether the relay runs or not. The relay's private key is not copied.
    Backup {
        /// The folder that relay.data_dir names.
        data: PathBuf,
        /// The folder to make.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Copy the users and the identity-targeted mail of all shards before any device-targeted mail.
        #[arg(long)]
        identity_first: bool,
        /// Print the outcome as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Add the mail of a backup to a relay, behind what it has, identity-targeted mail first: to one that is stopped (--to), which
    /// gets the users as well if it has none, or to one that runs (--running). It may have another number of shards than the
    /// backup. Mail that the relay still has, or that was restored before, is passed over; mail that was collected since the
    /// backup comes again.
    Restore {
        /// The backup. A relay that runs reads it itself, as its own user.
        from: PathBuf,
        /// The folder that relay.data_dir names, of a relay that is stopped.
        #[arg(long, value_name = "DIR", required_unless_present = "running")]
        to: Option<PathBuf>,
        /// Have the running relay take it in, while it goes on.
        #[arg(long, conflicts_with = "to")]
        running: bool,
        /// Only this mail: restore identity-targeted mail first, let the relay run, and restore the rest later.
        #[arg(long, value_enum)]
        only: Option<Only>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// A family of mail.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Only {
    /// Identity-targeted mail.
    Identity,
    /// Device-targeted mail.
    Device,
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFailure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}; or have it take the backup in while it runs: --running")]
    Runs(StorageError),
    #[error("{}: no mailbox log here; give the folder that relay.data_dir names", .0.display())]
    NoLog(PathBuf),
    #[error("{}: is there already; give a new folder", .0.display())]
    Exists(PathBuf),
    #[error("{}: no finished backup", .0.display())]
    NoBackup(PathBuf),
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Operate(#[from] OperateError),
    #[error(transparent)]
    Relay(#[from] ClientError),
    #[error("the relay's answer fits no request of this program; its version is another one")]
    Unfit,
}

impl StoreFailure {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        |error| Self::File { path, error }
    }
}

/// What a command has to say, and whether all is well.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) well: bool,
}

/// Does it. `out` gets what is too much to be kept until the end.
pub(crate) fn run(command: StoreCommand, out: &mut impl std::io::Write) -> Result<Answer, StoreFailure> {
    match command {
        StoreCommand::Verify { data, json } => inspect::verify(&data, json),
        StoreCommand::Dump { data, json } => inspect::dump(&data, json, out),
        StoreCommand::Rebuild { data, json } => rebuild::rebuild(&data, json),
        StoreCommand::Backup { data, to, identity_first, json } => {
            backup::backup(&data, &to, identity_first, json)
        }
        StoreCommand::Restore { from, to: Some(to), only, reach, running: _ } => {
            restore::into_stopped(&from, &to, only, reach.json)
        }
        StoreCommand::Restore { from, to: None, only, reach, running: _ } => {
            restore::into_running(&from, &reach, only, reach.json)
        }
    }
}

/// The logs in a folder; at least one.
fn logs(data: &Path) -> Result<Vec<PathBuf>, StoreFailure> {
    let logs = storage::log_folders(data)?;
    if logs.is_empty() { Err(StoreFailure::NoLog(data.into())) } else { Ok(logs) }
}

/// A bar of bytes on standard error; nothing is shown if that is no terminal, or with --json.
fn bar(what: &'static str, bytes: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is right");
    ProgressBar::new(bytes).with_style(style).with_prefix(what)
}
