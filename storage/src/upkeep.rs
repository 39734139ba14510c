//! The life of segments: begun, given up when nothing needs them, used again, and emptied when little in them is live.
//! Writes no batch by itself but to move what is live.

use crate::append::Turn;
use crate::census::Census;
use crate::directory::FREE_SEGMENTS;
use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::events;
use crate::ledger::Extent;
use crate::log::{MailboxLog, State};
use crate::record::{Header, Seed};
use crate::scan::scan_segment;
use crate::segment::{BLOCK, SegmentFile, SegmentHeader, SegmentName};
use glommio::sync::Permit;
use relay_core::store::{Family, LogEntry, Position, RecordId};

/// Free files that only batches of deletions may use: a full disk can be emptied only by writing deletions.
const RESERVED_FILES: usize = 1;

/// Payload bytes that are moved in one batch: the user's append waits for no more.
const MOVE_BYTES: u64 = 1024 * 1024;

/// Deletions that are moved in one batch.
const MOVE_DELETIONS: usize = 4096;

impl<D: Disk> MailboxLog<D> {
    /// Does what keeps the log small and appends quick: gives up segments that nothing needs, empties at most one of
    /// which little is live (when the log takes more than twice the live bytes and four segments), and has a spare file
    /// ready. Appends go on meanwhile. Call it whenever [`MailboxLog::wants_maintenance`]; it does nothing
    /// while another call of it is under way.
    ///
    /// Positions stay valid when parts move.
    ///
    /// # Errors
    /// What the system said, or [`StorageError::PartDamaged`] for a live part that cannot be moved (its segment stays then);
    /// nothing is lost by it.
    pub async fn maintain(&self) -> Result<(), StorageError> {
        if self.maintaining.replace(true) {
            return Ok(());
        }
        let _turn = Turn(&self.maintaining);
        self.give_up_dead_segments().await?;
        let victim = self.state.borrow().victim(self.options.segment_bytes);
        if let Some(victim) = victim {
            let emptied = self.empty_segment(victim).await;
            self.state.borrow_mut().emptying = None;
            emptied?;
            self.give_up_dead_segments().await?;
        }
        let _permit = self.change_files().await;
        if self.state.borrow().wants_spare() {
            let spare = self.create_file().await?;
            self.state.borrow_mut().free.push(spare);
        }
        Ok(())
    }

    /// Whether [`MailboxLog::maintain`] has something to do. Looks at every segment, not at messages.
    pub fn wants_maintenance(&self) -> bool {
        let state = self.state.borrow();
        let victim = || state.victim(self.options.segment_bytes).is_some();
        !self.maintaining.get() && (state.wants_spare() || !state.recyclable().is_empty() || victim())
    }

    async fn change_files(&self) -> Permit<'_> {
        self.files_change.acquire_permit(1).await.expect("the semaphore is never closed")
    }

    async fn give_up_dead_segments(&self) -> Result<(), StorageError> {
        let _permit = self.change_files().await;
        self.reclaim().await
    }

    /// Begins a new segment of the family and makes it the one to append to.
    pub(crate) async fn roll(&self, family: Family, with_parts: bool) -> Result<(), StorageError> {
        let _permit = self.change_files().await;
        if let Err(error) = self.reclaim().await {
            tracing::warn!(event = events::SEGMENTS_NOT_GIVEN_UP, %error, "segments that nothing needs could not be given up");
        }
        let file = self.take_file(with_parts).await?;
        let header = self.next_header(family)?;
        let census = Census::of(self.state.borrow().ledger.numbers().chain([header.number]));
        if let Err(error) = self.enlist(&file, &header, &census).await {
            discard(file).await;
            return Err(error);
        }
        let outdated = self.state.borrow_mut().begin_segment(&header, file, census);
        // Now that no census lists them, their names mean nothing.
        for file in outdated {
            discard(file).await;
        }
        Ok(())
    }

    /// A free file, created if need be. The reserve goes only to a batch without parts.
    async fn take_file(&self, with_parts: bool) -> Result<SegmentFile<D::File>, StorageError> {
        while self.state.borrow().free.len() <= RESERVED_FILES {
            match self.create_file().await {
                Ok(file) => self.state.borrow_mut().free.push(file),
                Err(error) if with_parts => return Err(error),
                Err(error) => {
                    let reserve = self.state.borrow_mut().free.pop();
                    return reserve.ok_or(error);
                }
            }
        }
        Ok(self.state.borrow_mut().free.pop().expect("more than the reserve is there"))
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
            predecessor_extent: state.confirmed[family as usize],
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
    async fn enlist(
        &self,
        file: &SegmentFile<D::File>,
        header: &SegmentHeader,
        census: &Census,
    ) -> Result<(), StorageError> {
        file.write_header(header, census).await?;
        let name = SegmentName::InUse(header.family, header.number).file_name();
        file.rename(&self.options.directory.join(name)).await?;
        self.sync_directory().await
    }

    async fn sync_directory(&self) -> Result<(), StorageError> {
        let directory = &self.options.directory;
        let synced = self.disk.sync_directory(directory).await;
        synced.map_err(|error| StorageError::io("syncing", directory, error))
    }

    async fn create_file(&self) -> Result<SegmentFile<D::File>, StorageError> {
        let name = SegmentName::Free(self.take_number()?).file_name();
        let path = self.options.directory.join(name);
        let created = self.disk.create(&path, self.options.segment_bytes).await;
        created.map(SegmentFile::new).map_err(|error| StorageError::io("allocating space for", &path, error))
    }

    /// Turns the segments that nothing needs into free files, as long as that frees others. The caller holds the permit.
    async fn reclaim(&self) -> Result<(), StorageError> {
        loop {
            let dead: Vec<(u32, SegmentFile<D::File>)> = self.state.borrow().recyclable();
            if dead.is_empty() {
                return Ok(());
            }
            for (number, file) in &dead {
                let name = SegmentName::Free(*number).file_name();
                file.rename(&self.options.directory.join(name)).await?;
            }
            // Deletions elsewhere are void only when no replay can find what they deleted.
            self.sync_directory().await?;
            for (number, file) in dead {
                let kept = self.state.borrow_mut().retire(number, self.options.segment_bytes);
                if !kept {
                    self.shed(number, file).await;
                }
            }
        }
    }

    /// Gives the space of a void file back. Its name stays as long as a census lists it, or it would be taken for missing.
    async fn shed(&self, number: u32, file: SegmentFile<D::File>) {
        if !self.state.borrow().census.lists(number) {
            return discard(file).await;
        }
        if let Err(error) = file.cut().await {
            tracing::warn!(event = events::SEGMENT_KEEPS_SPACE, path = %file.path().display(), %error, "a segment file that nothing needs keeps its space");
        }
        self.state.borrow_mut().retired.push(file);
    }

    /// Moves what is still needed in a segment to the end of the log, so that nothing needs it any more.
    async fn empty_segment(&self, victim: u32) -> Result<(), StorageError> {
        let (family, parts) = {
            let mut state = self.state.borrow_mut();
            state.emptying = Some(victim);
            (state.ledger.family(victim), state.ledger.live_parts(victim))
        };
        let Some(family) = family else { return Ok(()) };
        let deletions = self.needed_deletions(victim, family).await?;
        let mut rest = &parts[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |part: &&Position| {
                bytes += u64::from(part.length);
                bytes <= MOVE_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (group, others) = rest.split_at(count);
            self.move_parts(family, group).await?;
            rest = others;
        }
        for group in deletions.chunks(MOVE_DELETIONS) {
            let _permit = self.writing_permit().await;
            self.append_batch(group).await?;
        }
        let mut state = self.state.borrow_mut();
        state.ledger.clear_deletions(victim);
        state.done.emptied_segments += 1;
        Ok(())
    }

    async fn writing_permit(&self) -> Permit<'_> {
        self.writing.acquire_permit(1).await.expect("the semaphore is never closed")
    }

    /// The deletions in a segment that make records of other segments void.
    async fn needed_deletions(&self, victim: u32, family: Family) -> Result<Vec<LogEntry>, StorageError> {
        let mut deletions = Vec::new();
        let file = self.state.borrow().files.get(&victim).cloned();
        let needed = self.state.borrow().ledger.deletions(victim) > 0;
        let Some(file) = file.filter(|_| needed) else { return Ok(deletions) };
        let anywhere = |segment| Position { segment, offset: 0, length: 0 };
        let nothing = Extent::default();
        scan_segment(&file, Seed::new(self.manifest.salt, victim), nothing, |found| {
            let ledger = &self.state.borrow().ledger;
            let others = |segment: &u32| *segment != victim && ledger.exists(*segment);
            match found.header {
                Header::Delete { id, segments } if segments.iter().any(others) => {
                    let parts = segments.into_iter().filter(others).map(anywhere).collect();
                    deletions.push(LogEntry::Delete { id, family, parts });
                }
                Header::DeleteRecipient { id, segments, recipient } => {
                    deletions.extend(segments.into_iter().filter(others).map(|segment| {
                        LogEntry::DeleteRecipient { id, family, first: anywhere(segment), recipient }
                    }));
                }
                _ => {}
            }
        })
        .await?;
        Ok(deletions)
    }

    /// Appends copies of live parts, lets them count instead, and says again which recipients are done with them.
    async fn move_parts(&self, family: Family, parts: &[Position]) -> Result<(), StorageError> {
        let mut copies = Vec::with_capacity(parts.len());
        for at in parts {
            copies.extend(self.copy_of(family, *at).await?.map(|entry| (*at, entry)));
        }
        let _permit = self.writing_permit().await;
        copies.retain(|(from, _)| self.state.borrow().ledger.is_live(*from));
        let (from, entries): (Vec<Position>, Vec<LogEntry>) = copies.into_iter().unzip();
        let positions = self.append_batch(&entries).await?;
        let mut again = Vec::new();
        for ((from, entry), to) in from.into_iter().zip(&entries).zip(positions) {
            let LogEntry::Part { id, index, .. } = entry else { continue };
            let mut state = self.state.borrow_mut();
            state.ledger.move_part(*id, from, to);
            if *index == 0 {
                again.extend(state.ledger.done_recipients(*id).map(|recipient| LogEntry::DeleteRecipient {
                    id: *id,
                    family,
                    first: to,
                    recipient,
                }));
            }
        }
        self.append_batch(&again).await?;
        Ok(())
    }

    /// The entry that a part was appended as; `None` if it is not live any more.
    async fn copy_of(&self, family: Family, at: Position) -> Result<Option<LogEntry>, StorageError> {
        let read = self.fetch(at).await?;
        if !self.state.borrow().ledger.is_live(at) {
            return Ok(None);
        }
        let header = read.as_ref().and_then(|read| read.header());
        let (Some(read), Some(header)) = (read, header) else {
            self.state.borrow_mut().stuck.insert(at.segment);
            return Err(self.damaged(at));
        };
        let part = |id: RecordId, index, last, head| LogEntry::Part {
            id,
            family,
            index,
            last,
            head,
            payload: [read.payload()].into_iter().collect(),
        };
        Ok(match header {
            Header::FirstPart { id, last, head } => Some(part(id, 0, last, Some(head))),
            Header::LaterPart { id, index, last } => Some(part(id, index, last, None)),
            Header::DeleteRecipient { .. } | Header::Delete { .. } => None,
        })
    }
}

impl<F: DiskFile> State<F> {
    /// A segment is begun, durably, and appended to from now on. Answers the files whose names the old census needed.
    fn begin_segment(
        &mut self,
        header: &SegmentHeader,
        file: SegmentFile<F>,
        census: Census,
    ) -> Vec<SegmentFile<F>> {
        let family = header.family;
        self.ledger.begin(header.number, family, header.highest_id, BLOCK as u32);
        self.files.insert(header.number, file);
        self.active[family as usize] = Some(header.number);
        self.confirmed[family as usize] = Extent { end: BLOCK as u32, records: 0 };
        self.census = census;
        std::mem::take(&mut self.retired)
    }

    fn is_kept(&self, number: u32) -> bool {
        let in_use = self.active.contains(&Some(number)) || self.in_flight.contains(&number);
        in_use || self.emptying == Some(number)
    }

    /// The segment that is worth emptying, if the log has grown too large for what is live in it.
    fn victim(&self, segment_bytes: u64) -> Option<u32> {
        self.ledger.sparsest(segment_bytes, |number| self.is_kept(number) || self.stuck.contains(&number))
    }

    /// Whether a file more should wait: one for the reserve, and one for a family whose segment is more than half full.
    fn wants_spare(&self) -> bool {
        let half_full = |number: u32| {
            let size = self.files.get(&number).map_or(0, SegmentFile::size);
            u64::from(self.ledger.end(number)) > size / 2
        };
        self.free.len() <= RESERVED_FILES && self.active.into_iter().flatten().any(half_full)
    }

    fn recyclable(&self) -> Vec<(u32, SegmentFile<F>)> {
        let kept = |number| self.is_kept(number);
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

/// Removes a file that no longer means anything. If that fails it is found as a free one when the log is opened again.
async fn discard(file: SegmentFile<impl DiskFile>) {
    let path = file.path();
    let removed = file.remove().await;
    if let Err(error) = removed.and(file.close().await) {
        tracing::warn!(event = events::SEGMENT_NOT_REMOVED, path = %path.display(), %error, "a segment file that nothing needs could not be removed");
    }
}
