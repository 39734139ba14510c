//! One pass over the records of one segment: which are whole, where the whole ones end, and what is broken between.
//! Judges bytes only; what the records mean together is for `replay`.

use crate::disk::ReadBlocks;
use crate::error::StorageError;
use crate::record::{Header, PREFIX_BYTES, Prefix, Seed};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Its first byte.
    pub(crate) start: u64,
    /// The byte behind it, as far as that can be told.
    pub(crate) end: u64,
    /// The batch that it belongs to, or the latest that it may.
    pub(crate) batch: u64,
}

/// What a pass over a segment found beside the records.
#[derive(Debug, Default)]
pub(crate) struct SegmentScan {
    /// The first byte behind the last whole record.
    pub(crate) end: u64,
    /// The highest batch number of any record.
    pub(crate) last_batch: u64,
    /// Broken stretches, ascending.
    pub(crate) gaps: Vec<Gap>,
    /// Whole records.
    pub(crate) records: u64,
    /// Bytes of whole records.
    pub(crate) bytes: u64,
}

/// What lies at one place of a segment.
enum Sight {
    /// A whole record.
    Whole(Prefix, Header),
    /// A prefix with a right checksum whose header or payload is wrong.
    BrokenBody(Prefix),
    /// Something behind a record that neither is one nor fills up the block with zeros.
    BrokenPrefix,
    /// Zeros from the end of a record to the next block.
    Padding,
    /// A block that begins with no record of this segment: never written, stale, or broken.
    Blank,
}

/// Reads a segment from its second block to its end and gives every whole record to `sink`, in order.
///
/// A piece of a batch begins at a block; its records follow each other and zeros fill its last block. A prefix with
/// a right checksum tells where the next record is even when its body is broken; after a broken prefix the next
/// block that begins with a record is sought.
pub(crate) async fn scan_segment<F: ReadBlocks>(
    file: &SegmentFile<F>,
    seed: Seed,
    mut sink: impl FnMut(Found),
) -> Result<SegmentScan, StorageError> {
    let limit = file.size().min(MAX_SEGMENT_BYTES);
    let mut window = Window { file, start: 0, data: F::Data::default() };
    let mut scan = SegmentScan { end: BLOCK, ..SegmentScan::default() };
    let mut broken: Option<Gap> = None;
    let mut blank_since: Option<u64> = None;
    let mut offset = BLOCK;
    while offset + PREFIX_BYTES as u64 <= limit {
        let next_block = (offset + 1).next_multiple_of(BLOCK);
        match window.look(offset, limit - offset, seed).await? {
            Sight::Whole(prefix, header) => {
                let blank = blank_since.take().map(|start| Gap { start, end: offset, batch: prefix.batch });
                scan.gaps.extend(broken.take().map(|gap| Gap { end: offset, ..gap }).or(blank));
                scan.last_batch = scan.last_batch.max(prefix.batch);
                scan.records += 1;
                scan.bytes += u64::from(prefix.length);
                scan.end = offset + prefix.padded();
                sink(Found {
                    offset: offset as u32,
                    length: prefix.length,
                    payload_bytes: prefix.length - prefix.payload_start() as u32,
                    header,
                });
                offset += prefix.padded();
            }
            Sight::BrokenBody(prefix) => {
                scan.last_batch = scan.last_batch.max(prefix.batch);
                widen(&mut broken, offset, offset + prefix.padded(), prefix.batch);
                offset += prefix.padded();
            }
            Sight::BrokenPrefix => {
                widen(&mut broken, offset, next_block, scan.last_batch);
                offset = next_block;
            }
            Sight::Padding => offset = next_block,
            Sight::Blank => {
                blank_since.get_or_insert(offset);
                offset = next_block;
            }
        }
    }
    scan.gaps.extend(broken);
    Ok(scan)
}

fn widen(gap: &mut Option<Gap>, start: u64, end: u64, batch: u64) {
    gap.get_or_insert(Gap { start, end, batch }).end = end;
}

/// The part of a segment that is in memory.
struct Window<'a, F: ReadBlocks> {
    file: &'a SegmentFile<F>,
    start: u64,
    data: F::Data,
}

impl<F: ReadBlocks> Window<'_, F> {
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

    /// Judges what lies at `offset`, where `room` bytes are left.
    async fn look(&mut self, offset: u64, room: u64, seed: Seed) -> Result<Sight, StorageError> {
        let bytes = self.view(offset, PREFIX_BYTES).await?;
        let prefix = Prefix::parse(bytes, seed, offset as u32, room);
        let Some(prefix) = prefix else {
            if offset.is_multiple_of(BLOCK) {
                return Ok(Sight::Blank);
            }
            let rest = (offset.next_multiple_of(BLOCK) - offset) as usize;
            let padding = self.view(offset, rest).await?.iter().all(|byte| *byte == 0);
            return Ok(if padding { Sight::Padding } else { Sight::BrokenPrefix });
        };
        let record = self.view(offset, prefix.length as usize).await?;
        if !prefix.body_is_whole(record, seed, offset as u32) {
            return Ok(Sight::BrokenBody(prefix));
        }
        let header = Header::parse(prefix.kind, &record[PREFIX_BYTES..prefix.payload_start()]);
        Ok(header.map_or(Sight::BrokenBody(prefix), |header| Sight::Whole(prefix, header)))
    }
}
