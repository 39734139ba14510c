//! Everything that can go wrong on disk, one variant per cause, each telling what to do next. Decides nothing.

use relay_core::store::Position;
use std::io;
use std::path::{Path, PathBuf};

/// Why the mailbox log or the user database could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The system refused an operation on a file of the log.
    #[error("{operation} {}: {source}. Check the disk and the kernel log; nothing unconfirmed counts as stored", path.display())]
    Io {
        /// What was tried, as a verb in its -ing form.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or a quota on it, is full.
    #[error("no space left while {operation} {}: free some space or add some; the log goes on by itself then", path.display())]
    NoSpace {
        /// What was tried, as a verb in its -ing form.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Another process, or another log of this one, has the directory open.
    #[error("{} is in use: stop the other relay that has it open, or give this one its own directory", directory.display())]
    Locked {
        /// The log's directory.
        directory: PathBuf,
    },
    /// A copy could not keep up with what changes.
    #[error("{} changes faster than it can be copied: try again when there is less traffic", directory.display())]
    TooBusy {
        /// The folder that was to be copied.
        directory: PathBuf,
    },
    /// A segment size that the format cannot hold.
    #[error("segments of {0} bytes: take a multiple of 4096 between 8192 and 2147483648")]
    SegmentSize(u64),
    /// A shard number that is not below the number of shards.
    #[error("shard {shard} of {shards}: shards are numbered from 0, so the number must be below the count")]
    ShardNumber {
        /// The shard asked for.
        shard: u32,
        /// The number of shards asked for.
        shards: u32,
    },
    /// The log was written as another shard, or with another number of shards, and still holds messages.
    #[error(
        "{} holds mail of shard {stored_shard} of {stored_shards} but was opened as shard {shard} of {shards}: \
         only a relay that starts with all its logs re-homes them",
        directory.display()
    )]
    WrongShard {
        /// The log's directory.
        directory: PathBuf,
        /// The shard that wrote it.
        stored_shard: u32,
        /// The number of shards when it was written.
        stored_shards: u32,
        /// The shard that it was opened as.
        shard: u32,
        /// The number of shards that it was opened with.
        shards: u32,
    },
    /// The manifest is not one.
    #[error("{} is damaged ({reason}): restore it from a backup, or move it away and it is rebuilt from the segments", path.display())]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file in a format of another version.
    #[error(
        "{} has format {found}, this relay reads format {known}; nothing was changed. {}",
        path.display(),
        other_format(path, *found, *known)
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The one this crate reads.
        known: u32,
    },
    /// A segment file whose header names another segment, or another log.
    #[error("{} does not belong here (its header is that of segment {number} of another name or log): move it away", path.display())]
    ForeignSegment {
        /// The file.
        path: PathBuf,
        /// The number in its header.
        number: u32,
    },
    /// The manifest is gone and no segment header can stand in for it.
    #[error("{} has segments but neither a manifest nor a readable segment header: restore the manifest from a backup", directory.display())]
    Unidentified {
        /// The log's directory.
        directory: PathBuf,
    },
    /// Segment numbers are 32 bits and all used.
    #[error("all segment numbers of {} are used: move its mail to a new log", directory.display())]
    SegmentNumbersUsedUp {
        /// The log's directory.
        directory: PathBuf,
    },
    /// A second append while one is under way: a defect of the caller.
    #[error("an append is already in flight: wait for it and give both batches as one")]
    AppendInFlight,
    /// An entry that no log may hold: a defect of the caller. Nothing of its batch was written.
    #[error("entry {index} of the batch cannot be stored: {reason}")]
    InvalidEntry {
        /// Its place in the batch.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry larger than a segment. Nothing of its batch was written.
    #[error(
        "entry {index} of the batch needs {bytes} bytes, a segment holds {limit}: use larger segments or fewer recipients"
    )]
    EntryTooLarge {
        /// Its place in the batch.
        index: usize,
        /// Bytes of the whole record.
        bytes: u64,
        /// Bytes that fit in a segment.
        limit: u64,
    },
    /// No live part lies at that position: it was deleted, or never written.
    #[error("no part is stored at segment {} offset {}: it was deleted or never written", position.segment, position.offset)]
    NotStored {
        /// The position asked for.
        position: Position,
    },
    /// The bytes on disk are not those that were written.
    #[error(
        "the part at offset {} of {} is damaged: check the disk; delete the message or restore it from a backup",
        position.offset, path.display()
    )]
    PartDamaged {
        /// Where it lies.
        position: Position,
        /// The segment file.
        path: PathBuf,
    },
    /// The user database is open elsewhere.
    #[error("the user database {} is in use: only one relay may open it; stop the other one", path.display())]
    UsersLocked {
        /// Its directory.
        path: PathBuf,
    },
    /// sled refused.
    #[error(
        "the user database failed: {0}. Check the disk; if it says corruption, restore the database from a backup"
    )]
    Users(#[from] sled::Error),
    /// A value of the user database is not what this crate writes.
    #[error(
        "the {tree} record of {key} in the user database is damaged ({reason}): register it again or restore a backup"
    )]
    UserRecordDamaged {
        /// `device`, `account` or `identity`.
        tree: &'static str,
        /// The URL, as far as it is one.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl StorageError {
    /// Turns what the system said of `path` into an error; a full disk gets its own variant.
    pub(crate) fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation, path: path.into() }
            }
            _ => Self::Io { operation, path: path.into(), source },
        }
    }
}

/// What to do about a file of another format.
fn other_format(path: &Path, found: u32, known: u32) -> String {
    if found > known {
        return "A newer relay wrote it: install that version again, or a later one".into();
    }
    let folder = path.parent().unwrap_or(path).display();
    format!(
        "An older relay wrote it: install that version again and let it run until its mailboxes are empty (relayctl \
         mailboxes) or you give the rest up; stop it, move the folder away (mv {folder} {folder}.format-{found}), and \
         start this one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_another_format_is_refused_with_what_to_do_step_by_step() {
        let path = PathBuf::from("/data/shard-0001/device-0000000007.segment");
        let said = |found| StorageError::UnknownFormat { path: path.clone(), found, known: 2 }.to_string();
        let older = said(1);
        for part in [
            "format 1",
            "reads format 2",
            "relayctl mailboxes",
            "mv /data/shard-0001 /data/shard-0001.format-1",
        ] {
            assert!(older.contains(part), "{older}");
        }
        assert!(said(3).contains("newer relay"), "{}", said(3));
    }
}
