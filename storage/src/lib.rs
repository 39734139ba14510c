//! What a relay keeps on disk: the mailbox log of each shard and the user database of the whole relay.
//!
//! * [`MailboxLog`] is an append-only log in pre-allocated segments, written with direct I/O from one glommio
//!   executor. A batch is durable when [`MailboxLog::append`] returns. `FORMAT.md` beside this crate has every byte.
//! * [`UserDatabase`] holds devices, accounts and identities in sled and answers from any thread; in it are the users that
//!   a management server lists, and in [`ManagerStore`] what is remembered of management servers.
//!
//! The crate decides nothing about messages: who is to get one, when it expires and when it is deleted is for
//! `relay-core` to say. It opens no socket, reads no clock and starts no thread.
#![forbid(unsafe_code)]

mod append;
mod backup;
mod batch;
mod census;
mod direct_disk;
mod directory;
mod disk;
mod error;
pub mod events;
mod ledger;
mod listing;
mod log;
mod managers;
mod manifest;
mod offline;
mod plain_disk;
mod read_ahead;
mod record;
mod rehome;
mod rehome_folders;
mod replay;
mod restore;
mod scan;
mod segment;
#[cfg(test)]
mod simulated_disk;
mod transfer;
mod upkeep;
mod users;
mod users_format;
mod users_restored;
mod users_seen;

pub use backup::{Copied, copy_log, copy_users};
pub use direct_disk::{DirectDisk, DirectFile};
pub use disk::{Disk, DiskFile, ReadBlocks};
pub use error::StorageError;
pub use listing::{ListingState, QuotaChange};
pub use log::{DEFAULT_SEGMENT_BYTES, LogOptions, LogStats, MailboxLog};
pub use managers::{ManagerStore, Shared};
pub use offline::{OfflineLog, RecordKind, RecordView, log_folders, log_salt};
pub use plain_disk::{PlainData, PlainDisk, PlainFile};
pub use rehome::{Rehomed, Rehoming};
pub use rehome_folders::log_directory;
pub use replay::{Damage, LostMessage, Replay, ReplayReport};
pub use restore::{BackupLogs, RestoreCounts, RestoreInto, StoppedRelay};
pub use transfer::{Transfer, transfer};
pub use users::{UserCounts, UserDatabase};
pub use users_restored::RestoredMail;
