//! The mailbox log of one shard: appends batches durably, reads parts back, and gives segments that nothing needs to
//! the next ones. Lives on one glommio executor. Owns every file of its directory; keeps no index of messages and
//! never decides that a message is to be deleted.

use crate::batch::{self, Encoded, Piece};
use crate::directory::{FREE_SEGMENTS, LogDirectory};
use crate::error::StorageError;
use crate::ledger::Ledger;
use crate::manifest::Manifest;
use crate::record::{Prefix, Seed};
use crate::replay::{Replay, Replayed, replay};
use crate::segment::{BLOCK, MAX_SEGMENT_BYTES, SegmentFile, SegmentHeader, SegmentName, sync_directory};
use bytes::Bytes;
use futures_lite::future::zip;
use glommio::sync::{Permit, Semaphore};
use hashbrown::HashMap;
use relay_core::store::{Family, LogEntry, Position, RecordId};
use rkyv::util::AlignedVec;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::PathBuf;

/// The size of segments unless the configuration says otherwise: 64 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

const FAMILIES: [Family; 2] = [Family::Device, Family::Identity];

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
    pub fdatasyncs: u64,
}

/// The log of one shard's mailboxes. Its methods take `&self`, so that reads go on while a batch is in flight.
#[derive(Debug)]
pub struct MailboxLog {
    options: LogOptions,
    manifest: Manifest,
    state: RefCell<State>,
    appending: Cell<bool>,
    /// Held by whoever changes which files there are.
    files_change: Semaphore,
    /// Its lock goes when the log goes.
    _lock: File,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    files: HashMap<u32, SegmentFile>,
    free: Vec<SegmentFile>,
    /// By family: where appends go, and up to where the newest segment is confirmed.
    active: [Option<u32>; 2],
    confirmed_end: [u32; 2],
    /// Segments with records of the append that is under way, which no account knows yet.
    in_flight: Vec<u32>,
    next_number: u32,
    next_batch: u64,
    highest_id: RecordId,
    headers: AlignedVec,
    done: LogStats,
    #[cfg(test)]
    failing_sync: bool,
}

/// A record that got its place.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Its number in the family's list.
    index: usize,
    position: Position,
}

/// A batch on its way.
#[derive(Clone, Copy)]
struct Batch<'a> {
    number: u64,
    entries: &'a [LogEntry],
    headers: &'a [u8],
}

impl MailboxLog {
    /// Opens the log in a directory, or begins one there, and reads everything that it holds.
    ///
    /// Unreadable stretches do not fail it: they are in the report.
    ///
    /// # Errors
    /// [`StorageError`]: bad options, a directory in use, a manifest or segment of another log, shard or version, or a
    /// refusal by the system.
    pub async fn open(options: LogOptions) -> Result<(Self, Replay), StorageError> {
        options.check()?;
        let shard = (options.shard, options.shards);
        let found = LogDirectory::open(&options.directory, options.segment_bytes, shard).await?;
        let Replayed { replay, ledger, tails, last_batch } =
            replay(&found.sources, found.manifest.salt).await?;
        let manifest = adopt(found.manifest, &options, replay.messages.is_empty())?;
        let newest = FAMILIES.map(|family| ledger.newest(family));
        let tail = |number: u32| tails.get(&number).copied();
        let state = State {
            active: newest.map(|number| number.filter(|number| tail(*number).is_some_and(|tail| tail.clean))),
            confirmed_end: newest.map(|number| number.and_then(tail).map_or(0, |tail| tail.end)),
            in_flight: Vec::new(),
            ledger,
            files: found.sources.into_iter().map(|source| (source.number, source.file)).collect(),
            free: found.free,
            next_number: found.next_number,
            next_batch: last_batch + 1,
            highest_id: replay.highest_id,
            headers: AlignedVec::new(),
            done: LogStats::default(),
            #[cfg(test)]
            failing_sync: false,
        };
        let log = Self {
            options,
            manifest,
            state: RefCell::new(state),
            appending: Cell::new(false),
            files_change: Semaphore::new(1),
            _lock: found.lock,
        };
        Ok((log, replay))
    }

    /// Appends one batch and makes it durable: few writes, and one fdatasync for each segment that it touches, which is
    /// one per family but for the batch that fills a segment up. Answers a position for every
    /// [`LogEntry::Part`], in order.
    ///
    /// Poll it to its end: a dropped append counts as failed.
    ///
    /// # Errors
    /// Nothing of the batch counts then, and the log stays usable: give the same entries again, or give them up. Parts
    /// of a failed batch may nevertheless reappear in a later replay. [`StorageError::AppendInFlight`] if one is
    /// under way, [`StorageError::InvalidEntry`] and [`StorageError::EntryTooLarge`] before anything is written, otherwise what
    /// the system said.
    pub async fn append(&self, entries: &[LogEntry]) -> Result<Vec<Position>, StorageError> {
        let mut turn = AppendTurn::take(self)?;
        if entries.is_empty() {
            turn.finished = true;
            return Ok(Vec::new());
        }
        let mut headers = std::mem::take(&mut self.state.borrow_mut().headers);
        let room = self.options.segment_bytes - BLOCK;
        let lists = batch::encode(entries, &self.state.borrow().ledger, room, &mut headers);
        turn.finished = lists.is_err();
        let lists = lists?;
        let number = self.begin_batch(entries);
        let batch = Batch { number, entries, headers: &headers };
        let mut placed = [Vec::new(), Vec::new()];
        let [device, identity] = &mut placed;
        let results = zip(
            self.append_family(Family::Device, &lists[0], batch, device),
            self.append_family(Family::Identity, &lists[1], batch, identity),
        )
        .await;
        turn.finished = true;
        let mut state = self.state.borrow_mut();
        state.headers = headers;
        match results {
            (Ok(()), Ok(())) => Ok(state.confirm(entries, &lists, &placed)),
            (Err(error), _) | (_, Err(error)) => {
                state.disown(entries, &lists, &placed);
                Err(error)
            }
        }
    }

    /// The payload of a live part, its checksum verified.
    ///
    /// # Errors
    /// [`StorageError::NotStored`] if no live part lies there, [`StorageError::PartDamaged`] if the disk changed it,
    /// otherwise what the system said.
    pub async fn read(&self, position: Position) -> Result<Bytes, StorageError> {
        let file = self.file_of(position)?;
        let offset = u64::from(position.offset);
        let start = offset / BLOCK * BLOCK;
        let length = (offset - start) as usize + position.length as usize;
        let data = file.read(start, length.next_multiple_of(BLOCK as usize)).await?;
        let seed = Seed::new(self.manifest.salt, position.segment);
        let record = data.get((offset - start) as usize..length).unwrap_or_default();
        let prefix = Prefix::parse(record, seed, position.offset, u64::from(position.length));
        match prefix {
            Some(prefix) if prefix.kind.is_part() && prefix.body_is_whole(record, seed, position.offset) => {
                Ok(Bytes::copy_from_slice(&record[prefix.payload_start()..]))
            }
            // It may have been deleted, and its segment filled anew, while the read was in flight.
            _ => Err(self.file_of(position).map_or_else(
                |error| error,
                |file| StorageError::PartDamaged { position, path: file.path() },
            )),
        }
    }

    /// Gives up the segments that nothing needs and has a spare one ready when a segment is more than half full, so that
    /// an append seldom has to. Worth calling when the shard is idle; appends do the same when they must.
    ///
    /// # Errors
    /// What the system said; nothing is lost by it.
    pub async fn maintain(&self) -> Result<(), StorageError> {
        let _permit = self.change_files().await;
        self.reclaim().await?;
        let wanted = {
            let state = self.state.borrow();
            let half_full = |number| {
                let size = state.files.get(&number).map_or(0, SegmentFile::size);
                u64::from(state.ledger.end(number)) > size / 2
            };
            state.free.is_empty() && state.active.into_iter().flatten().any(half_full)
        };
        if wanted {
            let spare = self.create_file().await?;
            self.state.borrow_mut().free.push(spare);
        }
        Ok(())
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
        for file in state.files.into_values().chain(state.free) {
            result = file.close().await.and(result);
        }
        result
    }

    fn file_of(&self, position: Position) -> Result<SegmentFile, StorageError> {
        let state = self.state.borrow();
        let file = state.files.get(&position.segment).filter(|_| state.ledger.is_live(position));
        file.cloned().ok_or(StorageError::NotStored { position })
    }

    /// Gives the batch its number and notes its ids.
    fn begin_batch(&self, entries: &[LogEntry]) -> u64 {
        let mut state = self.state.borrow_mut();
        let highest = entries.iter().map(id_of).max();
        state.highest_id = state.highest_id.max(highest.unwrap_or(RecordId(0)));
        let number = state.next_batch;
        state.next_batch += 1;
        number
    }

    /// Appends one family's records. What got a place is in `placed`, whether or not it succeeds.
    async fn append_family(
        &self,
        family: Family,
        list: &[Encoded],
        batch: Batch<'_>,
        placed: &mut Vec<Placed>,
    ) -> Result<(), StorageError> {
        let result = self.append_list(family, list, batch, placed).await;
        if result.is_err() {
            // After an error nobody knows what the pages of that segment will become: nothing more goes there.
            self.state.borrow_mut().active[family as usize] = None;
        }
        result
    }

    async fn append_list(
        &self,
        family: Family,
        list: &[Encoded],
        batch: Batch<'_>,
        placed: &mut Vec<Placed>,
    ) -> Result<(), StorageError> {
        let mut touched: Vec<SegmentFile> = Vec::new();
        while placed.len() < list.len() {
            let active = self.state.borrow().active[family as usize];
            let number = match active {
                Some(number) => number,
                None => self.roll(family).await?,
            };
            let (file, pieces) = self.state.borrow_mut().reserve(number, list, placed.len());
            if pieces.is_empty() {
                self.state.borrow_mut().active[family as usize] = None;
                continue;
            }
            for piece in &pieces {
                self.write_piece(&file, (number, piece), list, batch, placed).await?;
            }
            touched.push(file);
        }
        for file in touched {
            self.sync(&file).await?;
        }
        Ok(())
    }

    async fn write_piece(
        &self,
        file: &SegmentFile,
        (number, piece): (u32, &Piece),
        list: &[Encoded],
        batch: Batch<'_>,
        placed: &mut Vec<Placed>,
    ) -> Result<(), StorageError> {
        let mut buffer = file.buffer(piece.bytes as usize);
        let seed = Seed::new(self.manifest.salt, number);
        let content = (batch.entries, batch.headers);
        let offsets = batch::fill(buffer.as_bytes_mut(), piece, list, content, (seed, batch.number));
        placed.extend(piece.records.clone().zip(offsets).map(|(index, offset)| Placed {
            index,
            position: Position { segment: number, offset, length: list[index].length },
        }));
        self.state.borrow_mut().done.bytes_written += piece.bytes;
        file.write(buffer, piece.offset).await
    }

    async fn sync(&self, file: &SegmentFile) -> Result<(), StorageError> {
        self.state.borrow_mut().done.fdatasyncs += 1;
        #[cfg(test)]
        if self.state.borrow().failing_sync {
            return Err(StorageError::io("syncing", &file.path(), std::io::Error::other("a test")));
        }
        file.sync().await
    }

    async fn change_files(&self) -> Permit<'_> {
        self.files_change.acquire_permit(1).await.expect("the semaphore is never closed")
    }

    /// Begins a new segment of the family and makes it the one to append to.
    async fn roll(&self, family: Family) -> Result<u32, StorageError> {
        let _permit = self.change_files().await;
        if let Err(error) = self.reclaim().await {
            tracing::warn!(%error, "segments that nothing needs could not be given up");
        }
        let spare = self.state.borrow_mut().free.pop();
        let file = match spare {
            Some(file) => file,
            None => self.create_file().await?,
        };
        let header = self.next_header(family)?;
        if let Err(error) = self.enlist(&file, &header).await {
            discard(file).await;
            return Err(error);
        }
        let mut state = self.state.borrow_mut();
        state.ledger.begin(header.number, family, header.highest_id, BLOCK as u32);
        state.files.insert(header.number, file);
        state.active[family as usize] = Some(header.number);
        state.confirmed_end[family as usize] = BLOCK as u32;
        Ok(header.number)
    }

    fn next_header(&self, family: Family) -> Result<SegmentHeader, StorageError> {
        let number = self.take_number()?;
        let state = self.state.borrow();
        Ok(SegmentHeader {
            number,
            family,
            shard: self.manifest.shard,
            shards: self.manifest.shards,
            salt: self.manifest.salt,
            highest_id: state.highest_id,
            predecessor: state.ledger.newest(family).unwrap_or(0),
            predecessor_end: state.confirmed_end[family as usize],
        })
    }

    fn take_number(&self) -> Result<u32, StorageError> {
        let mut state = self.state.borrow_mut();
        let number = state.next_number;
        let directory = || self.options.directory.clone();
        state.next_number = number
            .checked_add(1)
            .ok_or_else(|| StorageError::SegmentNumbersUsedUp { directory: directory() })?;
        Ok(number)
    }

    /// Makes a free file a segment, durably: first what it is, then its name.
    async fn enlist(&self, file: &SegmentFile, header: &SegmentHeader) -> Result<(), StorageError> {
        file.write_header(header).await?;
        let name = SegmentName::InUse(header.family, header.number).file_name();
        file.rename(&self.options.directory.join(name)).await?;
        sync_directory(&self.options.directory).await
    }

    async fn create_file(&self) -> Result<SegmentFile, StorageError> {
        let name = SegmentName::Free(self.take_number()?).file_name();
        SegmentFile::create(&self.options.directory.join(name), self.options.segment_bytes).await
    }

    /// Turns the segments that nothing needs into free files, as long as that frees others. The caller holds the permit.
    async fn reclaim(&self) -> Result<(), StorageError> {
        loop {
            let dead: Vec<(u32, SegmentFile)> = self.state.borrow().recyclable();
            if dead.is_empty() {
                return Ok(());
            }
            for (number, file) in &dead {
                let name = SegmentName::Free(*number).file_name();
                file.rename(&self.options.directory.join(name)).await?;
            }
            // Deletions elsewhere are void only when no replay can find what they deleted.
            sync_directory(&self.options.directory).await?;
            for (number, file) in dead {
                let keep = self.state.borrow_mut().retire(number, self.options.segment_bytes);
                if !keep {
                    discard(file).await;
                }
            }
        }
    }
}

impl State {
    /// Lays out what fits of the list in the segment, and takes that room.
    fn reserve(&mut self, number: u32, list: &[Encoded], from: usize) -> (SegmentFile, Vec<Piece>) {
        let file = self.files.get(&number).expect("an active segment has a file").clone();
        let offset = u64::from(self.ledger.end(number));
        let limit = file.size() / BLOCK * BLOCK;
        let pieces = batch::lay_out(list, from, offset, limit);
        if let Some(piece) = pieces.last() {
            self.ledger.set_end(number, (piece.offset + piece.bytes) as u32);
            self.in_flight.push(number);
        }
        (file, pieces)
    }

    /// The whole batch is durable: puts it on the accounts and answers the positions of its parts, in order.
    fn confirm(
        &mut self,
        entries: &[LogEntry],
        lists: &[Vec<Encoded>; 2],
        placed: &[Vec<Placed>; 2],
    ) -> Vec<Position> {
        let mut positions = vec![None; entries.len()];
        for (list, placed) in lists.iter().zip(placed) {
            for Placed { index, position } in placed {
                let encoded = &list[*index];
                let entry = &entries[encoded.entry];
                self.ledger.saw_id(position.segment, id_of(entry));
                match entry {
                    LogEntry::Part { .. } => {
                        self.ledger.add_part(*position);
                        positions[encoded.entry] = Some(*position);
                    }
                    LogEntry::DeleteRecipient { .. } => {
                        self.ledger.add_deletion(position.segment, &encoded.targets);
                    }
                    LogEntry::Delete { id, parts, .. } => {
                        parts.iter().for_each(|part| self.ledger.remove_part(*part));
                        self.ledger.add_deletion(position.segment, &encoded.targets);
                        self.ledger.forget_ghosts(*id);
                    }
                }
            }
        }
        for family in FAMILIES.into_iter().filter(|family| !lists[*family as usize].is_empty()) {
            let newest = self.ledger.newest(family);
            self.confirmed_end[family as usize] = newest.map_or(0, |number| self.ledger.end(number));
        }
        self.done.batches += 1;
        self.done.records += entries.len() as u64;
        positions.into_iter().flatten().collect()
    }

    /// The batch failed: remembers where copies of its parts may lie that do not count.
    fn disown(&mut self, entries: &[LogEntry], lists: &[Vec<Encoded>; 2], placed: &[Vec<Placed>; 2]) {
        for (list, placed) in lists.iter().zip(placed) {
            for Placed { index, position } in placed {
                let entry = &entries[list[*index].entry];
                self.ledger.saw_id(position.segment, id_of(entry));
                if let LogEntry::Part { id, .. } = entry {
                    self.ledger.add_ghost(*id, position.segment);
                }
            }
        }
    }

    fn recyclable(&self) -> Vec<(u32, SegmentFile)> {
        let kept = |number| self.active.contains(&Some(number)) || self.in_flight.contains(&number);
        let numbers = self.ledger.recyclable(kept);
        numbers.into_iter().filter_map(|number| Some((number, self.files.get(&number)?.clone()))).collect()
    }

    /// Takes a void segment off the accounts. Answers whether its file waits for reuse now.
    fn retire(&mut self, number: u32, segment_bytes: u64) -> bool {
        self.ledger.retire(number);
        let file = self.files.remove(&number);
        match file.filter(|file| file.size() == segment_bytes && self.free.len() < FREE_SEGMENTS) {
            Some(file) => {
                self.free.push(file);
                true
            }
            None => false,
        }
    }
}

/// The right to append, one at a time. A dropped append leaves unknown bytes behind, so no other goes to its segments.
struct AppendTurn<'a> {
    log: &'a MailboxLog,
    finished: bool,
}

impl<'a> AppendTurn<'a> {
    fn take(log: &'a MailboxLog) -> Result<Self, StorageError> {
        if log.appending.replace(true) {
            return Err(StorageError::AppendInFlight);
        }
        Ok(Self { log, finished: false })
    }
}

impl Drop for AppendTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.log.state.borrow_mut();
        state.in_flight.clear();
        if !self.finished {
            state.active = [None, None];
        }
        self.log.appending.set(false);
    }
}

fn id_of(entry: &LogEntry) -> RecordId {
    match entry {
        LogEntry::Part { id, .. } | LogEntry::DeleteRecipient { id, .. } | LogEntry::Delete { id, .. } => *id,
    }
}

/// Checks that the log was written as the shard that it is opened as; an empty one becomes it.
fn adopt(stored: Manifest, options: &LogOptions, empty: bool) -> Result<Manifest, StorageError> {
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
    adopted.write(&options.directory)?;
    Ok(adopted)
}

/// Removes a file that no longer means anything. If that fails it is found as a free one when the log is opened again.
async fn discard(file: SegmentFile) {
    let path = file.path();
    let removed = file.remove().await;
    if let Err(error) = removed.and(file.close().await) {
        tracing::warn!(path = %path.display(), %error, "a segment file that nothing needs could not be removed");
    }
}

#[cfg(test)]
#[path = "log_history_tests.rs"]
mod history_tests;
#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
