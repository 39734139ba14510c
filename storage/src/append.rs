//! Appending to a mailbox log: a batch gets its places, is written and made durable, and only then counts. Never chooses
//! which segments live on; that is for `upkeep`.

use crate::batch::{self, Encoded, Piece};
use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::ledger::Extent;
use crate::log::{FAMILIES, MailboxLog, State};
use crate::record::{Seed, Stamp};
use crate::segment::{BLOCK, SegmentFile};
use futures_lite::future::zip;
use futures_util::stream::{self, StreamExt};
use relay_core::store::{Family, LogEntry, Position, RecordId};
use std::cell::Cell;
use std::future::ready;

/// Pieces of a batch that are written at the same time; each is up to a MiB of memory.
const PIECES_AT_A_TIME: usize = 4;

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

/// Room for some records of a batch in one segment.
#[derive(Debug)]
struct Room<F> {
    number: u32,
    file: SegmentFile<F>,
    pieces: Vec<Piece>,
    /// The ordinal of the first record of each piece.
    ordinals: Vec<u32>,
}

impl<D: Disk> MailboxLog<D> {
    /// Appends one batch and makes it durable: few writes into each segment that it touches, which is one per family but for
    /// the batch that fills a segment up. Answers a position for every [`LogEntry::Part`], in order.
    ///
    /// Poll it to its end: a dropped append counts as failed.
    ///
    /// # Errors
    /// Nothing of the batch counts then, and the log stays usable: give the same entries again, or give them up. Parts
    /// of a failed batch may nevertheless reappear in a later replay. [`StorageError::AppendInFlight`] if one is
    /// under way, [`StorageError::InvalidEntry`] and [`StorageError::EntryTooLarge`] before anything is written, otherwise what
    /// the system said.
    pub async fn append(&self, entries: &[LogEntry]) -> Result<Vec<Position>, StorageError> {
        if self.appending.replace(true) {
            return Err(StorageError::AppendInFlight);
        }
        let _turn = Turn(&self.appending);
        self.append_in_turn(entries).await
    }

    /// Appends a batch of the user's or of upkeep's as soon as no other is being written.
    async fn append_in_turn(&self, entries: &[LogEntry]) -> Result<Vec<Position>, StorageError> {
        let _permit = self.writing.acquire_permit(1).await.expect("the semaphore is never closed");
        self.append_batch(entries).await
    }

    /// Appends a batch; the caller has the permit to write.
    pub(crate) async fn append_batch(&self, entries: &[LogEntry]) -> Result<Vec<Position>, StorageError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut headers = std::mem::take(&mut self.state.borrow_mut().headers);
        let room = self.options.segment_bytes - BLOCK;
        let lists = batch::encode(entries, &self.state.borrow().ledger, room, &mut headers)?;
        let number = self.begin_batch(entries);
        let batch = Batch { number, entries, headers: &headers };
        let mut placed = [Vec::new(), Vec::new()];
        let [device, identity] = &mut placed;
        let mut unfinished = Unfinished { log: self, dropped: true };
        let results = zip(
            self.append_family(Family::Device, &lists[0], batch, device),
            self.append_family(Family::Identity, &lists[1], batch, identity),
        )
        .await;
        unfinished.dropped = false;
        drop(unfinished);
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
        let mut touched = Vec::new();
        while placed.len() < list.len() {
            let active = self.state.borrow().active[family as usize];
            let reserved =
                active.and_then(|number| self.state.borrow_mut().reserve(number, list, placed.len()));
            let Some(room) = reserved else {
                let with_parts = list.iter().any(|encoded| encoded.header.kind.is_part());
                self.roll(family, with_parts).await?;
                continue;
            };
            let result = self.write_pieces(&room, list, batch, placed).await;
            self.seal_after_error(family, result)?;
            touched.push(room.file);
        }
        for file in touched {
            let result = self.sync(&file).await;
            self.seal_after_error(family, result)?;
        }
        Ok(())
    }

    /// After an error nobody knows what the pages of the segment will become: nothing more goes there.
    fn seal_after_error(&self, family: Family, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if result.is_err() {
            self.state.borrow_mut().active[family as usize] = None;
        }
        result
    }

    /// Writes what got room, a few pieces at a time. All have their places when it ends, whether or not it succeeds.
    async fn write_pieces(
        &self,
        room: &Room<D::File>,
        list: &[Encoded],
        batch: Batch<'_>,
        placed: &mut Vec<Placed>,
    ) -> Result<(), StorageError> {
        let pieces = room.pieces.iter().zip(&room.ordinals);
        let writes = stream::iter(pieces).map(|(piece, ordinal)| {
            let stamp = Stamp { batch: batch.number, ordinal: *ordinal };
            let buffer = self.fill_piece(room, (piece, stamp), list, batch, placed);
            room.file.write(buffer, piece.offset)
        });
        writes.buffer_unordered(PIECES_AT_A_TIME).fold(Ok(()), |all, one| ready(all.and(one))).await
    }

    fn fill_piece(
        &self,
        room: &Room<D::File>,
        (piece, stamp): (&Piece, Stamp),
        list: &[Encoded],
        batch: Batch<'_>,
        placed: &mut Vec<Placed>,
    ) -> <D::File as DiskFile>::Buffer {
        let mut buffer = room.file.buffer(piece.bytes as usize);
        let seed = Seed::new(self.manifest.salt, room.number);
        let content = (batch.entries, batch.headers);
        let offsets = batch::fill(buffer.as_mut(), piece, list, content, (seed, stamp));
        placed.extend(piece.records.clone().zip(offsets).map(|(index, offset)| Placed {
            index,
            position: Position { segment: room.number, offset, length: list[index].length },
        }));
        self.state.borrow_mut().done.bytes_written += piece.bytes;
        buffer
    }

    async fn sync(&self, file: &SegmentFile<D::File>) -> Result<(), StorageError> {
        self.state.borrow_mut().done.syncs += 1;
        file.sync().await
    }
}

impl<F: DiskFile> State<F> {
    /// Lays out what fits of the list in the segment, and takes that room; `None` if nothing does.
    fn reserve(&mut self, number: u32, list: &[Encoded], from: usize) -> Option<Room<F>> {
        let file = self.files.get(&number).expect("an active segment has a file").clone();
        let offset = u64::from(self.ledger.end(number));
        let pieces = batch::lay_out(list, from, offset, file.size() / BLOCK * BLOCK);
        let last = pieces.last()?;
        self.ledger.set_end(number, (last.offset + last.bytes) as u32);
        let take = |piece: &Piece| self.ledger.take_ordinals(number, piece.records.len() as u32);
        let ordinals = pieces.iter().map(take).collect();
        self.in_flight.push(number);
        Some(Room { number, file, pieces, ordinals })
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
                    LogEntry::DeleteRecipient { id, recipient, .. } => {
                        self.ledger.add_done_recipient(*id, *recipient);
                        self.ledger.add_deletion(position.segment, &encoded.targets);
                    }
                    LogEntry::Delete { id, parts, .. } => {
                        parts.iter().for_each(|part| self.ledger.remove_part(*part));
                        self.ledger.add_deletion(position.segment, &encoded.targets);
                        self.ledger.forget_message(*id);
                    }
                }
            }
        }
        for family in FAMILIES.into_iter().filter(|family| !lists[*family as usize].is_empty()) {
            let newest = self.ledger.newest(family);
            self.confirmed[family as usize] =
                newest.map_or_else(Extent::default, |number| self.ledger.extent(number));
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
}

/// Resets a flag when whatever set it is over, however it ends.
pub(crate) struct Turn<'a>(pub(crate) &'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A batch that is being written. If it is dropped before its end, unknown bytes stay behind and nothing more goes to its
/// segments.
struct Unfinished<'a, D: Disk> {
    log: &'a MailboxLog<D>,
    dropped: bool,
}

impl<D: Disk> Drop for Unfinished<'_, D> {
    fn drop(&mut self) {
        let mut state = self.log.state.borrow_mut();
        state.in_flight.clear();
        if self.dropped {
            state.active = [None, None];
        }
    }
}

fn id_of(entry: &LogEntry) -> RecordId {
    match entry {
        LogEntry::Part { id, .. } | LogEntry::DeleteRecipient { id, .. } | LogEntry::Delete { id, .. } => *id,
    }
}
