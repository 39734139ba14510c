//! One segment file: its name, its header block, and its reading and writing on whatever disk. Knows no records.

use crate::census::Census;
use crate::disk::{DiskFile, ReadBlocks};
use crate::error::StorageError;
use crate::ledger::Extent;
use relay_core::store::{Family, RecordId};
use std::path::{Path, PathBuf};

/// The block of direct I/O: headers and batches begin at multiples of it.
pub(crate) const BLOCK: u64 = 4096;

/// The largest segment: offsets in it are 32 bits, with some to spare.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 1 << 31;

/// The version of the segment format.
pub(crate) const SEGMENT_FORMAT: u32 = 2;

const MAGIC: [u8; 8] = *b"FurrowSg";
const HEADER_BYTES: usize = 64;

/// What a file of the log's directory is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentName {
    /// A segment in use.
    InUse(Family, u32),
    /// A pre-allocated file whose content means nothing.
    Free(u32),
}

impl SegmentName {
    /// The file name.
    pub(crate) fn file_name(self) -> String {
        match self {
            Self::InUse(Family::Device, number) => format!("device-{number:010}.segment"),
            Self::InUse(Family::Identity, number) => format!("identity-{number:010}.segment"),
            Self::Free(number) => format!("free-{number:010}.segment"),
        }
    }

    /// Reads a file name; `None` if it is not that of a segment.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.strip_suffix(".segment")?.split_once('-')?;
        let number = number.parse().ok()?;
        let parsed = match kind {
            "device" => Self::InUse(Family::Device, number),
            "identity" => Self::InUse(Family::Identity, number),
            "free" => Self::Free(number),
            _ => return None,
        };
        (parsed.file_name() == name).then_some(parsed)
    }

    /// The segment's number.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::InUse(_, number) | Self::Free(number) => number,
        }
    }
}

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The segment's number.
    pub(crate) number: u32,
    /// What it holds.
    pub(crate) family: Family,
    /// The shard that wrote it.
    pub(crate) shard: u32,
    /// The number of shards then.
    pub(crate) shards: u32,
    /// The salt of the log.
    pub(crate) salt: u64,
    /// The highest id of the whole log when the segment was begun.
    pub(crate) highest_id: RecordId,
    /// The segment of the same family that was filled before; 0 if none.
    pub(crate) predecessor: u32,
    /// How far the predecessor was filled with confirmed records.
    pub(crate) predecessor_extent: Extent,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Bad magic or checksum.
    Damaged,
    /// Another format version.
    Version(u32),
}

impl SegmentHeader {
    fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        block[..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        block[12..16].copy_from_slice(&self.number.to_le_bytes());
        block[16..20].copy_from_slice(&family_code(self.family).to_le_bytes());
        block[20..24].copy_from_slice(&self.shard.to_le_bytes());
        block[24..28].copy_from_slice(&self.shards.to_le_bytes());
        block[28..36].copy_from_slice(&self.salt.to_le_bytes());
        block[36..44].copy_from_slice(&self.highest_id.0.to_le_bytes());
        block[44..48].copy_from_slice(&self.predecessor.to_le_bytes());
        block[48..52].copy_from_slice(&self.predecessor_extent.end.to_le_bytes());
        block[52..56].copy_from_slice(&self.predecessor_extent.records.to_le_bytes());
        let crc = crc32c::crc32c(&block[..HEADER_BYTES - 4]);
        block[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header block.
    pub(crate) fn parse(block: &[u8]) -> Result<Self, HeaderFault> {
        let block: &[u8; HEADER_BYTES] = block.first_chunk().ok_or(HeaderFault::Damaged)?;
        let word = |at: usize| u32::from_le_bytes(*block[at..].first_chunk().expect("within the header"));
        let long = |at: usize| u64::from_le_bytes(*block[at..].first_chunk().expect("within the header"));
        if block[..8] != MAGIC || word(HEADER_BYTES - 4) != crc32c::crc32c(&block[..HEADER_BYTES - 4]) {
            return Err(HeaderFault::Damaged);
        }
        if word(8) != SEGMENT_FORMAT {
            return Err(HeaderFault::Version(word(8)));
        }
        let family = match word(16) {
            0 => Family::Device,
            1 => Family::Identity,
            _ => return Err(HeaderFault::Damaged),
        };
        Ok(Self {
            number: word(12),
            family,
            shard: word(20),
            shards: word(24),
            salt: long(28),
            highest_id: RecordId(long(36)),
            predecessor: word(44),
            predecessor_extent: Extent { end: word(48), records: word(52) },
        })
    }
}

fn family_code(family: Family) -> u32 {
    match family {
        Family::Device => 0,
        Family::Identity => 1,
    }
}

/// An open segment file: a file of some disk, whose errors say what was tried.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile<F>(F);

impl<F: ReadBlocks> SegmentFile<F> {
    pub(crate) fn new(file: F) -> Self {
        Self(file)
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    /// The file's present path.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// Reads up to `length` bytes from an aligned offset.
    pub(crate) async fn read(&self, offset: u64, length: usize) -> Result<F::Data, StorageError> {
        self.0.read(offset, length).await.map_err(|error| StorageError::io("reading", &self.path(), error))
    }
}

impl<F: DiskFile> SegmentFile<F> {
    /// Writes the header block and makes it durable.
    pub(crate) async fn write_header(
        &self,
        header: &SegmentHeader,
        census: &Census,
    ) -> Result<(), StorageError> {
        let mut block = self.buffer(BLOCK as usize);
        header.encode(block.as_mut());
        census.encode(block.as_mut());
        self.write(block, 0).await?;
        self.sync().await
    }

    /// A buffer for [`SegmentFile::write`]; its content is undefined.
    pub(crate) fn buffer(&self, bytes: usize) -> F::Buffer {
        self.0.buffer(bytes)
    }

    /// Writes a buffer at an aligned offset; not durable before [`SegmentFile::sync`].
    pub(crate) async fn write(&self, buffer: F::Buffer, offset: u64) -> Result<(), StorageError> {
        self.0.write(buffer, offset).await.map_err(|error| StorageError::io("writing", &self.path(), error))
    }

    /// Makes everything written durable.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        self.0.sync().await.map_err(|error| StorageError::io("syncing", &self.path(), error))
    }

    /// Gives the file another name in the same directory; durable after the directory is synced.
    pub(crate) async fn rename(&self, path: &Path) -> Result<(), StorageError> {
        self.0.rename(path).await.map_err(|error| StorageError::io("renaming", &self.path(), error))
    }

    /// Gives the file's space back; its name stays.
    pub(crate) async fn cut(&self) -> Result<(), StorageError> {
        self.0.cut().await.map_err(|error| StorageError::io("cutting", &self.path(), error))
    }

    /// Removes the file from its directory.
    pub(crate) async fn remove(&self) -> Result<(), StorageError> {
        self.0.remove().await.map_err(|error| StorageError::io("removing", &self.path(), error))
    }

    /// Closes the file, if nobody reads from it any more.
    pub(crate) async fn close(self) -> Result<(), StorageError> {
        let path = self.path();
        self.0.close().await.map_err(|error| StorageError::io("closing", &path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        number: 7,
        family: Family::Identity,
        shard: 1,
        shards: 2,
        salt: 0x0123_4567_89ab_cdef,
        highest_id: RecordId(u64::MAX),
        predecessor: 5,
        predecessor_extent: Extent { end: 8192, records: 77 },
    };

    #[test]
    fn a_name_round_trips_and_only_its_own_spelling_is_one() {
        for name in [
            SegmentName::InUse(Family::Device, 0),
            SegmentName::InUse(Family::Identity, u32::MAX),
            SegmentName::Free(12),
        ] {
            assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        }
        for other in ["device-1.segment", "device-0000000001", "spare-0000000001.segment", "manifest"] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_round_trips() {
        let mut block = vec![0xff; BLOCK as usize];
        HEADER.encode(&mut block);
        assert_eq!(SegmentHeader::parse(&block), Ok(HEADER));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut block = vec![0; BLOCK as usize];
        HEADER.encode(&mut block);
        for bit in 0..HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::parse(&block), Err(HeaderFault::Damaged), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_header_of_another_version_is_told_from_a_damaged_one() {
        let mut block = vec![0; BLOCK as usize];
        HEADER.encode(&mut block);
        block[8] = 3;
        let crc = crc32c::crc32c(&block[..HEADER_BYTES - 4]);
        block[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::parse(&block), Err(HeaderFault::Version(3)));
    }
}
