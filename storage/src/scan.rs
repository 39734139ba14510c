//! One pass over the records of one segment: which are whole, where the whole ones end, and what is broken between.
//! Judges bytes only; what the records mean together is for `replay`.

use crate::disk::ReadBlocks;
use crate::error::StorageError;
use crate::ledger::Extent;
use crate::record::{Header, ORDINALS, PREFIX_BYTES, Prefix, RECORD_ALIGNMENT, Seed};
use crate::segment::{BLOCK, MAX_SEGMENT_BYTES, SegmentFile};

/// How much is read at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A whole record.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it begins in the segment.
    pub(crate) offset: u32,
    /// Its bytes without padding.
    pub(crate) length: u32,
    /// Its payload bytes.
    pub(crate) payload_bytes: u32,
    /// What it says.
    pub(crate) header: Header,
}

/// A stretch without whole records, although something was written there.
#[derive(Debug, Default)]
pub(crate) struct Gap {
    /// Its first byte.
    pub(crate) start: u64,
    /// The byte behind it, as far as that can be told.
    pub(crate) end: u64,
    /// The batch that it belongs to, or the latest that it may.
    pub(crate) batch: u64,
    /// The batch of the next whole record; the highest number if there is none.
    next_batch: u64,
    /// The ordinals of its first record, and of the one behind it.
    ordinals: (u32, u32),
    /// The headers of records in it of which only the payload is broken.
    pub(crate) headers: Vec<Header>,
}

impl Gap {
    /// How many records were there.
    pub(crate) fn records(&self) -> u32 {
        (self.ordinals.1.wrapping_sub(self.ordinals.0)) % ORDINALS
    }
}

/// What a pass over a segment found beside the records.
#[derive(Debug, Default)]
pub(crate) struct SegmentScan {
    /// The first byte behind the last whole record.
    pub(crate) end: u64,
    /// The highest batch number of any record.
    pub(crate) last_batch: u64,
    /// The ordinal of the record to come.
    pub(crate) next_ordinal: u32,
    /// Broken stretches, ascending.
    pub(crate) gaps: Vec<Gap>,
    /// Whole records.
    pub(crate) records: u64,
    /// Bytes of whole records.
    pub(crate) bytes: u64,
}

impl SegmentScan {
    /// The first stretch that may be of an append which was never confirmed.
    pub(crate) fn first_torn(&self) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.batch >= self.last_batch)
    }

    /// How far the segment is filled with records that were confirmed, as far as it can tell itself.
    pub(crate) fn extent(&self) -> Extent {
        match self.first_torn() {
            // Whole records behind the first torn stretch are of the same batch: nobody was told that they are stored.
            Some(gap) => Extent { end: gap.start as u32, records: gap.ordinals.0 },
            None => Extent { end: self.end as u32, records: self.next_ordinal },
        }
    }

    fn take(&mut self, offset: u64, prefix: &Prefix, header: Header) -> Found {
        self.last_batch = self.last_batch.max(prefix.batch);
        self.records += 1;
        self.bytes += u64::from(prefix.length);
        self.end = self.end.max(offset + prefix.padded());
        Found {
            offset: offset as u32,
            length: prefix.length,
            payload_bytes: prefix.length - prefix.payload_start() as u32,
            header,
        }
    }
}

/// What lies at one place of a segment.
enum Sight {
    /// A whole record.
    Whole(Prefix, Header),
    /// A prefix with a right checksum whose payload or header is wrong; the header if that is right.
    BrokenBody(Prefix, Option<Header>),
    /// Something behind a record that neither is one nor fills up the block with zeros.
    BrokenPrefix,
    /// Zeros from the end of a record to the next block.
    Padding,
    /// A block that begins with no record of this segment: never written, stale, or broken.
    Blank,
}

/// Reads a segment from its second block to its end and gives every whole record to `sink`. `confirmed` is how far its
/// successor says that it was filled: what is not found up to there is broken.
///
/// A piece of a batch begins at a block; its records follow each other and zeros fill its last block. A prefix with
/// a right checksum tells where the next record is even when its body is broken; after a broken prefix the next
/// block that begins with a record is sought. Where everything was confirmed, and so no stale bytes are, the stretches
/// between are then searched record by record.
pub(crate) async fn scan_segment<F: ReadBlocks>(
    file: &SegmentFile<F>,
    seed: Seed,
    confirmed: Extent,
    mut sink: impl FnMut(Found),
) -> Result<SegmentScan, StorageError> {
    let mut window = Window { file, seed, start: 0, data: F::Data::default() };
    let mut scan = window.walk(confirmed, &mut sink).await?;
    for gap in std::mem::take(&mut scan.gaps) {
        if gap.end <= u64::from(confirmed.end) || gap.next_batch < scan.last_batch {
            window.salvage(gap, &mut scan, &mut sink).await?;
        } else {
            scan.gaps.push(gap);
        }
    }
    Ok(scan)
}

/// The part of a segment that is in memory.
struct Window<'a, F: ReadBlocks> {
    file: &'a SegmentFile<F>,
    seed: Seed,
    start: u64,
    data: F::Data,
}

impl<F: ReadBlocks> Window<'_, F> {
    fn limit(&self) -> u64 {
        self.file.size().min(MAX_SEGMENT_BYTES)
    }

    /// From the second block to the end, from piece to piece.
    async fn walk(
        &mut self,
        confirmed: Extent,
        sink: &mut impl FnMut(Found),
    ) -> Result<SegmentScan, StorageError> {
        let mut scan = SegmentScan { end: BLOCK, ..SegmentScan::default() };
        let mut broken: Option<Gap> = None;
        let mut blank_since: Option<u64> = None;
        let mut offset = BLOCK;
        while offset + PREFIX_BYTES as u64 <= self.limit() {
            let next_block = (offset + 1).next_multiple_of(BLOCK);
            match self.look(offset).await? {
                Sight::Whole(prefix, header) => {
                    let blank = blank_since.take().map(|start| scan.gap(start, prefix.batch));
                    if let Some(gap) = broken.take().or(blank) {
                        let ordinals = (gap.ordinals.0, prefix.ordinal);
                        scan.gaps.push(Gap { end: offset, ordinals, next_batch: prefix.batch, ..gap });
                    }
                    sink(scan.take(offset, &prefix, header));
                    scan.next_ordinal = (prefix.ordinal + 1) % ORDINALS;
                    offset += prefix.padded();
                }
                Sight::BrokenBody(prefix, header) => {
                    scan.last_batch = scan.last_batch.max(prefix.batch);
                    let gap = broken.get_or_insert_with(|| scan.gap(offset, prefix.batch));
                    gap.headers.extend(header);
                    offset += prefix.padded();
                    gap.end = offset;
                    gap.ordinals.1 = (prefix.ordinal + 1) % ORDINALS;
                }
                Sight::BrokenPrefix => {
                    broken.get_or_insert_with(|| scan.gap(offset, scan.last_batch)).end = next_block;
                    offset = next_block;
                }
                Sight::Padding => offset = next_block,
                Sight::Blank => {
                    blank_since.get_or_insert(offset);
                    offset = next_block;
                }
            }
        }
        let end = u64::from(confirmed.end);
        let blank = blank_since.filter(|start| *start < end).map(|start| scan.gap(start, scan.last_batch));
        if let Some(mut gap) = broken.or(blank) {
            if gap.start < end {
                gap.end = gap.end.max(end);
                gap.ordinals.1 = confirmed.records;
            }
            scan.gaps.push(Gap { next_batch: u64::MAX, ..gap });
        }
        Ok(scan)
    }

    /// Searches a gap at every place where a record may begin, and puts what is left of it into the scan.
    async fn salvage(
        &mut self,
        gap: Gap,
        scan: &mut SegmentScan,
        sink: &mut impl FnMut(Found),
    ) -> Result<(), StorageError> {
        let (mut offset, mut ordinal) = (gap.start, gap.ordinals.0);
        let mut rest: Option<Gap> = None;
        let part =
            |start, ordinal| Gap { start, ordinals: (ordinal, ordinal), batch: gap.batch, ..Gap::default() };
        while offset < gap.end {
            match self.record_at(offset, gap.end - offset).await? {
                Some((prefix, Some(header), true)) => {
                    if let Some(open) = rest.take() {
                        let ordinals = (open.ordinals.0, prefix.ordinal);
                        scan.gaps.push(Gap { end: offset, ordinals, ..open });
                    }
                    sink(scan.take(offset, &prefix, header));
                    offset += prefix.padded();
                    ordinal = (prefix.ordinal + 1) % ORDINALS;
                }
                Some((prefix, header, _)) => {
                    rest.get_or_insert_with(|| part(offset, ordinal)).headers.extend(header);
                    offset += prefix.padded();
                }
                None => {
                    // Zeros behind a whole record may be the end of a piece.
                    if rest.is_none() && !offset.is_multiple_of(BLOCK) && self.zeros_follow(offset).await? {
                        offset = offset.next_multiple_of(BLOCK);
                        continue;
                    }
                    rest.get_or_insert_with(|| part(offset, ordinal));
                    offset += RECORD_ALIGNMENT as u64;
                }
            }
        }
        if let Some(open) = rest {
            let ordinals = (open.ordinals.0, gap.ordinals.1);
            scan.gaps.push(Gap { end: gap.end, ordinals, ..open });
        }
        Ok(())
    }

    /// The bytes from `offset`; fewer than `length` only at the end of the file.
    async fn view(&mut self, offset: u64, length: usize) -> Result<&[u8], StorageError> {
        let end = self.start + self.data.len() as u64;
        if offset < self.start || offset + length as u64 > end {
            self.start = offset / BLOCK * BLOCK;
            let wanted = (offset - self.start) as usize + length;
            let size = wanted.next_multiple_of(BLOCK as usize).max(WINDOW_BYTES);
            self.data = self.file.read(self.start, size).await?;
        }
        let from = ((offset - self.start) as usize).min(self.data.len());
        let to = (from + length).min(self.data.len());
        Ok(&self.data[from..to])
    }

    /// The record at `offset` if its prefix is right and it fits into `room`: its header if that is right, and whether
    /// its payload is.
    async fn record_at(
        &mut self,
        offset: u64,
        room: u64,
    ) -> Result<Option<(Prefix, Option<Header>, bool)>, StorageError> {
        let seed = self.seed;
        let bytes = self.view(offset, PREFIX_BYTES).await?;
        let Some(prefix) = Prefix::parse(bytes, seed, offset as u32, room) else { return Ok(None) };
        let record = self.view(offset, prefix.length as usize).await?;
        let whole = prefix.payload_is_whole(record, seed, offset as u32);
        let header = prefix.header(record, seed, offset as u32);
        Ok(Some((prefix, header, whole)))
    }

    async fn zeros_follow(&mut self, offset: u64) -> Result<bool, StorageError> {
        let rest = (offset.next_multiple_of(BLOCK) - offset) as usize;
        Ok(self.view(offset, rest).await?.iter().all(|byte| *byte == 0))
    }

    /// Judges what lies at `offset`.
    async fn look(&mut self, offset: u64) -> Result<Sight, StorageError> {
        let room = self.limit() - offset;
        Ok(match self.record_at(offset, room).await? {
            Some((prefix, Some(header), true)) => Sight::Whole(prefix, header),
            Some((prefix, header, _)) => Sight::BrokenBody(prefix, header),
            None if offset.is_multiple_of(BLOCK) => Sight::Blank,
            None if self.zeros_follow(offset).await? => Sight::Padding,
            None => Sight::BrokenPrefix,
        })
    }
}

impl SegmentScan {
    /// A gap that begins behind everything that was found so far.
    fn gap(&self, start: u64, batch: u64) -> Gap {
        let ordinals = (self.next_ordinal, self.next_ordinal);
        Gap { start, end: start, batch, ordinals, ..Gap::default() }
    }
}
