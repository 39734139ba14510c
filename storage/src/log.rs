//! The mailbox log of one shard: what it is made of, opening, reading and closing. Appending is in `append`, the life of
//! segments in `upkeep`. Lives on one glommio executor. Owns every file of its directory; keeps no index of messages
//! and never decides that a message is to be deleted.

use crate::census::Census;
use crate::direct_disk::DirectDisk;
use crate::directory::LogDirectory;
use crate::disk::{Disk, ReadBlocks};
use crate::error::StorageError;
use crate::ledger::{Extent, Ledger};
use crate::manifest::Manifest;
use crate::read_ahead::ReadAhead;
use crate::record::{Header, Prefix, Seed};
use crate::replay::{Replay, Replayed, replay};
use crate::segment::{BLOCK, MAX_SEGMENT_BYTES, SegmentFile};
use bytes::Bytes;
use glommio::sync::Semaphore;
use hashbrown::{HashMap, HashSet};
use relay_core::store::{Family, Position, RecordId};
use rkyv::util::AlignedVec;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::path::PathBuf;

/// The size of segments unless the configuration says otherwise: 64 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

pub(crate) const FAMILIES: [Family; 2] = [Family::Device, Family::Identity];

/// Where a log lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The log's own directory; created if it does not exist.
    pub directory: PathBuf,
    /// Bytes of a segment, all allocated when it is created: a multiple of 4096, from 8192 to 2 GiB. Must hold the
    /// largest record: [`relay_core::store::PART_BYTES`] and the recipients.
    pub segment_bytes: u64,
    /// The shard whose mail it holds.
    pub shard: u32,
    /// The number of shards.
    pub shards: u32,
}

impl LogOptions {
    fn check(&self) -> Result<(), StorageError> {
        let sizes = 2 * BLOCK..=MAX_SEGMENT_BYTES;
        if !sizes.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(BLOCK) {
            return Err(StorageError::SegmentSize(self.segment_bytes));
        }
        if self.shard >= self.shards {
            return Err(StorageError::ShardNumber { shard: self.shard, shards: self.shards });
        }
        Ok(())
    }
}

/// What a log holds and has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments in use.
    pub segments: u64,
    /// Allocated files that wait for reuse.
    pub free_segments: u64,
    /// Bytes of records whose parts somebody still waits for.
    pub live_bytes: u64,
    /// All other bytes up to the end of the records of each segment.
    pub dead_bytes: u64,
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes written for batches, padding included.
    pub bytes_written: u64,
    /// Times that data was made durable.
    pub syncs: u64,
    /// Segments that were emptied by moving what little was live in them.
    pub emptied_segments: u64,
}

/// The log of one shard's mailboxes. Its methods take `&self`, so that reads go on while a batch is in flight.
///
/// `D` is the disk that it lies on: [`DirectDisk`] but for tests.
#[derive(Debug)]
pub struct MailboxLog<D: Disk = DirectDisk> {
    pub(crate) disk: D,
    pub(crate) options: LogOptions,
    pub(crate) manifest: Manifest,
    pub(crate) state: RefCell<State<D::File>>,
    read_ahead: ReadAhead<<D::File as ReadBlocks>::Data>,
    /// Whether the user of the log has an append under way.
    pub(crate) appending: Cell<bool>,
    /// Whether upkeep is under way.
    pub(crate) maintaining: Cell<bool>,
    /// Held by whoever writes a batch.
    pub(crate) writing: Semaphore,
    /// Held by whoever changes which files there are; taken after `writing` if both are.
    pub(crate) files_change: Semaphore,
    /// Its lock goes when the log goes.
    _lock: D::Lock,
}

/// What changes in the life of a log.
#[derive(Debug)]
pub(crate) struct State<F> {
    pub(crate) ledger: Ledger,
    pub(crate) files: HashMap<u32, SegmentFile<F>>,
    /// Files for segments to come. The last one is for batches that only delete, so that a full disk can be emptied.
    pub(crate) free: Vec<SegmentFile<F>>,
    /// By family: where appends go, and how far the newest segment is filled with confirmed records.
    pub(crate) active: [Option<u32>; 2],
    pub(crate) confirmed: [Extent; 2],
    /// Which segments the newest header lists, and void files whose names it needs.
    pub(crate) census: Census,
    pub(crate) retired: Vec<SegmentFile<F>>,
    /// Segments with records of the append that is under way, which no account knows yet.
    pub(crate) in_flight: Vec<u32>,
    /// The segment that is being emptied.
    pub(crate) emptying: Option<u32>,
    /// Segments with damaged live parts, which cannot be emptied.
    pub(crate) stuck: HashSet<u32>,
    pub(crate) next_number: u32,
    pub(crate) next_batch: u64,
    pub(crate) highest_id: RecordId,
    /// Room for the headers of a batch.
    pub(crate) headers: AlignedVec,
    pub(crate) done: LogStats,
}

impl MailboxLog {
    /// [`MailboxLog::open_on`] the real disk, on the glommio executor of the caller.
    ///
    /// # Errors
    /// As there.
    pub async fn open(options: LogOptions) -> Result<(Self, Replay), StorageError> {
        Self::open_on(DirectDisk, options).await
    }
}

impl<D: Disk> MailboxLog<D> {
    /// Opens the log in a directory, or begins one there, and reads everything that it holds.
    ///
    /// Unreadable stretches do not fail it: they are in the report.
    ///
    /// # Errors
    /// [`StorageError`]: bad options, a directory in use, a manifest or segment of another log, shard or version, or a
    /// refusal by the system.
    pub async fn open_on(disk: D, options: LogOptions) -> Result<(Self, Replay), StorageError> {
        options.check()?;
        // glommio opens a directory, to sync it, by its absolute path only.
        let directory = std::path::absolute(&options.directory)
            .map_err(|error| StorageError::io("finding", &options.directory, error))?;
        let options = LogOptions { directory, ..options };
        let shard = (options.shard, options.shards);
        let found = LogDirectory::open(&disk, &options.directory, options.segment_bytes, shard).await?;
        let Replayed { replay, ledger, tails, last_batch } =
            replay(&found.sources, found.manifest.salt, &found.missing, |_| {}).await?;
        let manifest = adopt(&disk, found.manifest, &options, replay.messages.is_empty()).await?;
        let newest = FAMILIES.map(|family| ledger.newest(family));
        let tail = |number: u32| tails.get(&number).copied();
        let state = State {
            active: newest.map(|number| number.filter(|number| tail(*number).is_some_and(|tail| tail.clean))),
            confirmed: newest.map(|number| number.and_then(tail).map(|tail| tail.extent).unwrap_or_default()),
            census: found.census,
            retired: found.retired,
            in_flight: Vec::new(),
            emptying: None,
            stuck: HashSet::new(),
            ledger,
            files: found.sources.into_iter().map(|source| (source.number, source.file)).collect(),
            free: found.free,
            next_number: found.next_number,
            next_batch: last_batch + 1,
            highest_id: replay.highest_id,
            headers: AlignedVec::new(),
            done: LogStats::default(),
        };
        let log = Self {
            disk,
            options,
            manifest,
            state: RefCell::new(state),
            read_ahead: ReadAhead::default(),
            appending: Cell::new(false),
            maintaining: Cell::new(false),
            writing: Semaphore::new(1),
            files_change: Semaphore::new(1),
            _lock: found.lock,
        };
        Ok((log, replay))
    }

    /// The payload of a live part, its checksum verified.
    ///
    /// # Errors
    /// [`StorageError::NotStored`] if no live part lies there, [`StorageError::PartDamaged`] if the disk changed it,
    /// otherwise what the system said.
    pub async fn read(&self, position: Position) -> Result<Bytes, StorageError> {
        loop {
            let at = self.state.borrow().ledger.resolve(position);
            if !self.state.borrow().ledger.is_live(at) {
                return Err(StorageError::NotStored { position });
            }
            if let Some(part) = self.fetch(at).await? {
                return Ok(part.payload());
            }
            // Deleted or moved, and its segment filled anew, while the read was in flight?
            let ledger = &self.state.borrow().ledger;
            if ledger.resolve(position) == at && ledger.is_live(at) {
                return Err(self.damaged(at));
            }
        }
    }

    /// The random number by which this log differs from every other.
    pub fn salt(&self) -> u64 {
        self.manifest.salt
    }

    /// What the log holds and has done.
    pub fn stats(&self) -> LogStats {
        let state = self.state.borrow();
        let (live_bytes, dead_bytes) = state.ledger.bytes();
        LogStats {
            segments: state.ledger.segments() as u64,
            free_segments: state.free.len() as u64,
            live_bytes,
            dead_bytes,
            ..state.done
        }
    }

    /// Closes the files. Everything confirmed is durable already.
    ///
    /// # Errors
    /// What the system said of the last file that it would not close; all are given up.
    pub async fn close(self) -> Result<(), StorageError> {
        let state = self.state.into_inner();
        let mut result = Ok(());
        for file in state.files.into_values().chain(state.free).chain(state.retired) {
            result = file.close().await.and(result);
        }
        result
    }

    /// The record at a position that is resolved already; `None` if its bytes are not those of a live part.
    pub(crate) async fn fetch(&self, at: Position) -> Result<Option<PartRead<Data<D>>>, StorageError> {
        let file = self.state.borrow().files.get(&at.segment).cloned();
        let Some(file) = file else { return Ok(None) };
        let (offset, length) = (u64::from(at.offset), u64::from(at.length));
        if let Some((window, start)) = self.read_ahead.window(&file, at.segment, offset, length).await {
            if let Some(part) = self.parse(window, start, at) {
                return Ok(Some(part));
            }
            self.read_ahead.forget(at.segment, start);
        }
        let start = offset / BLOCK * BLOCK;
        let length = (offset + length - start).next_multiple_of(BLOCK);
        let data = file.read(start, length as usize).await?;
        Ok(self.parse(data, start, at))
    }

    /// The part's record in `data`, which was read from `start` on.
    fn parse(&self, data: Data<D>, start: u64, at: Position) -> Option<PartRead<Data<D>>> {
        let from = (u64::from(at.offset) - start) as usize;
        let record = data.get(from..from + at.length as usize)?;
        let seed = Seed::new(self.manifest.salt, at.segment);
        let prefix = Prefix::parse(record, seed, at.offset, u64::from(at.length))
            .filter(|prefix| prefix.kind.is_part() && prefix.payload_is_whole(record, seed, at.offset))?;
        Some(PartRead { data, from, place: (seed, at.offset), prefix })
    }

    /// The error for a live part that is damaged.
    pub(crate) fn damaged(&self, position: Position) -> StorageError {
        let state = self.state.borrow();
        let path = state.files.get(&position.segment).map(SegmentFile::path).unwrap_or_default();
        StorageError::PartDamaged { position, path }
    }
}

/// What a disk's files read into.
type Data<D> = <<D as Disk>::File as ReadBlocks>::Data;

/// A part's record in memory, its checksums verified.
pub(crate) struct PartRead<B> {
    data: B,
    from: usize,
    place: (Seed, u32),
    prefix: Prefix,
}

impl<B: Deref<Target = [u8]>> PartRead<B> {
    fn record(&self) -> &[u8] {
        &self.data[self.from..self.from + self.prefix.length as usize]
    }

    /// Its header, unless it is one of another version.
    pub(crate) fn header(&self) -> Option<Header> {
        let (seed, offset) = self.place;
        self.prefix.header(self.record(), seed, offset)
    }

    /// A copy of its payload.
    pub(crate) fn payload(&self) -> Bytes {
        Bytes::copy_from_slice(&self.record()[self.prefix.payload_start()..])
    }
}

/// Checks that the log was written as the shard that it is opened as; an empty one becomes it.
async fn adopt(
    disk: &impl Disk,
    stored: Manifest,
    options: &LogOptions,
    empty: bool,
) -> Result<Manifest, StorageError> {
    let (shard, shards) = (options.shard, options.shards);
    if (stored.shard, stored.shards) == (shard, shards) {
        return Ok(stored);
    }
    if !empty {
        return Err(StorageError::WrongShard {
            directory: options.directory.clone(),
            stored_shard: stored.shard,
            stored_shards: stored.shards,
            shard,
            shards,
        });
    }
    let adopted = Manifest { shard, shards, ..stored };
    adopted.write(disk, &options.directory).await?;
    Ok(adopted)
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "disk_fault_tests.rs"]
mod disk_fault_tests;
#[cfg(test)]
#[path = "log_history_tests.rs"]
mod history_tests;
#[cfg(test)]
#[path = "log_model.rs"]
mod log_model;
#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
