//! The directory of a log when it is opened: its lock, its manifest, and which files it has. Opens files and removes
//! those that mean nothing; never reads a record.

use crate::error::StorageError;
use crate::events;
use crate::manifest::Manifest;
use crate::replay::Source;
use crate::segment::{BLOCK, HeaderFault, SEGMENT_FORMAT, SegmentFile, SegmentHeader, SegmentName};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Free segments that are kept for reuse; more are removed.
pub(crate) const FREE_SEGMENTS: usize = 4;

const LOCK_NAME: &str = "lock";
const LOCK_TEXT: &[u8] =
    b"Whoever holds the lock on this file is the relay that this mailbox log belongs to.\n";

/// An opened directory.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    /// Held as long as the log is open.
    pub(crate) lock: File,
    /// What the log was last opened as.
    pub(crate) manifest: Manifest,
    /// The segments in use, by ascending number.
    pub(crate) sources: Vec<Source>,
    /// Files for segments to come.
    pub(crate) free: Vec<SegmentFile>,
    /// Above every number that a file has.
    pub(crate) next_number: u32,
}

impl LogDirectory {
    /// Opens the directory of a log as `shard` of `shards`, creating it if there is none. Whether a log with mail was
    /// written as that shard is for the caller to check.
    pub(crate) async fn open(
        directory: &Path,
        segment_bytes: u64,
        (shard, shards): (u32, u32),
    ) -> Result<Self, StorageError> {
        let lock = lock(directory)?;
        settle_polling(directory).await?;
        let names = list(directory)?;
        let highest = names.iter().map(|name| name.number()).max().unwrap_or(0);
        let next_number = highest
            .checked_add(1)
            .ok_or_else(|| StorageError::SegmentNumbersUsedUp { directory: directory.into() })?;
        let (mut sources, mut free) = (Vec::new(), Vec::new());
        for name in names {
            let path = directory.join(name.file_name());
            let file = SegmentFile::open(&path).await?;
            match name {
                SegmentName::InUse(family, number) => {
                    let header = read_header(&file, &path).await?;
                    if header.is_some_and(|header| (header.number, header.family) != (number, family)) {
                        return Err(foreign(path, header));
                    }
                    sources.push(Source { number, family, file, header });
                }
                SegmentName::Free(_) if file.size() == segment_bytes && free.len() < FREE_SEGMENTS => {
                    free.push(file);
                }
                SegmentName::Free(_) => {
                    file.remove().await?;
                    file.close().await?;
                }
            }
        }
        sources.sort_unstable_by_key(|source| source.number);
        let manifest = find_manifest(directory, &sources, (shard, shards))?;
        let stranger = |source: &&Source| source.header.is_some_and(|header| header.salt != manifest.salt);
        if let Some(source) = sources.iter().find(stranger) {
            return Err(foreign(source.file.path(), source.header));
        }
        Ok(Self { lock, manifest, sources, free, next_number })
    }
}

fn foreign(path: PathBuf, header: Option<SegmentHeader>) -> StorageError {
    StorageError::ForeignSegment { path, number: header.map_or(0, |header| header.number) }
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    std::fs::create_dir_all(directory).map_err(|error| StorageError::io("creating", directory, error))?;
    let path = directory.join(LOCK_NAME);
    let fault = |error| StorageError::io("locking", &path, error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { directory: directory.into() }),
        Err(TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// Lets glommio find out whether the disk can be polled for completions. It does so by one read of the first file that it
/// opens on a device, and takes "yes" from a file without data (every later read would fail then), so that file must not
/// be a fresh segment.
async fn settle_polling(directory: &Path) -> Result<(), StorageError> {
    let path = directory.join(LOCK_NAME);
    let fault = |error| StorageError::io("preparing", &path, error);
    let mut block = LOCK_TEXT.to_vec();
    block.resize(BLOCK as usize, b'\n');
    let mut file = File::options().write(true).open(&path).map_err(fault)?;
    file.write_all(&block).and_then(|()| file.sync_all()).map_err(fault)?;
    SegmentFile::open(&path).await?.close().await
}

fn list(directory: &Path) -> Result<Vec<SegmentName>, StorageError> {
    let fault = |error| StorageError::io("listing", directory, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name();
        names.extend(name.to_str().and_then(SegmentName::parse));
    }
    Ok(names)
}

async fn read_header(file: &SegmentFile, path: &Path) -> Result<Option<SegmentHeader>, StorageError> {
    let block = file.read(0, BLOCK as usize).await?;
    match SegmentHeader::parse(&block) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderFault::Damaged) => {
            tracing::warn!(event = events::SEGMENT_HEADER_DAMAGED, path = %path.display(), "a segment header is damaged; its records are read all the same");
            Ok(None)
        }
        Err(HeaderFault::Version(found)) => {
            Err(StorageError::UnknownFormat { path: path.into(), found, known: SEGMENT_FORMAT })
        }
    }
}

/// The manifest as stored, as the newest readable segment header has it, or a new one.
fn find_manifest(
    directory: &Path,
    sources: &[Source],
    (shard, shards): (u32, u32),
) -> Result<Manifest, StorageError> {
    if let Some(manifest) = Manifest::read(directory)? {
        return Ok(manifest);
    }
    let manifest = match sources.iter().rev().find_map(|source| source.header) {
        Some(header) => {
            tracing::warn!(event = events::MANIFEST_REBUILT, directory = %directory.display(), "the manifest is missing and was rebuilt from a segment");
            Manifest::from_segment(&header)
        }
        None if sources.is_empty() => Manifest::new(shard, shards),
        None => return Err(StorageError::Unidentified { directory: directory.into() }),
    };
    manifest.write(directory)?;
    Ok(manifest)
}
