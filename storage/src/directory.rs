//! The directory of a log when it is opened: its lock, its manifest, and which files it has. Opens files and removes
//! those that mean nothing; never reads a record.

use crate::census::Census;
use crate::disk::{Disk, ReadBlocks, names_in};
use crate::error::StorageError;
use crate::events;
use crate::manifest::Manifest;
use crate::replay::Source;
use crate::segment::{BLOCK, HeaderFault, SEGMENT_FORMAT, SegmentFile, SegmentHeader, SegmentName};
use hashbrown::HashSet;
use std::path::{Path, PathBuf};

/// Free segments that are kept for reuse; more are removed.
pub(crate) const FREE_SEGMENTS: usize = 4;

/// Missing segments that are named; a log that has lost more has lost everything.
const MISSING_NAMED: usize = 1000;

/// The file that is locked.
pub(crate) const LOCK_NAME: &str = "lock";

/// An opened directory.
#[derive(Debug)]
pub(crate) struct LogDirectory<D: Disk> {
    /// Held as long as the log is open.
    pub(crate) lock: D::Lock,
    /// What the log was last opened as.
    pub(crate) manifest: Manifest,
    /// The segments in use, by ascending number.
    pub(crate) sources: Vec<Source<D::File>>,
    /// Files for segments to come.
    pub(crate) free: Vec<SegmentFile<D::File>>,
    /// Files that are kept for their names only: the newest census lists them.
    pub(crate) retired: Vec<SegmentFile<D::File>>,
    /// What the newest segment says of the others.
    pub(crate) census: Census,
    /// The segments of the census that are not there.
    pub(crate) missing: Vec<u32>,
    /// Above every number that a file has.
    pub(crate) next_number: u32,
}

impl<D: Disk> LogDirectory<D> {
    /// Opens the directory of a log as `shard` of `shards`, creating it if there is none. Whether a log with mail was
    /// written as that shard is for the caller to check.
    pub(crate) async fn open(
        disk: &D,
        directory: &Path,
        segment_bytes: u64,
        (shard, shards): (u32, u32),
    ) -> Result<Self, StorageError> {
        let lock = lock(disk, directory).await?;
        let names = list(disk, directory).await?;
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let path = directory.join(name.file_name());
            let file = disk.open(&path).await.map_err(|error| StorageError::io("opening", &path, error))?;
            files.push((name, SegmentFile::new(file)));
        }
        let Listing { sources, spare, census, missing, highest } = Listing::of(files).await?;
        let next_number = highest
            .checked_add(1)
            .ok_or_else(|| StorageError::SegmentNumbersUsedUp { directory: directory.into() })?;
        let (mut free, mut retired) = (Vec::new(), Vec::new());
        for (number, file) in spare {
            if file.size() == segment_bytes && free.len() < FREE_SEGMENTS {
                free.push(file);
            } else if census.lists(number) {
                retired.push(file);
            } else {
                file.remove().await?;
                file.close().await?;
            }
        }
        let manifest = find_manifest(disk, directory, &sources, (shard, shards)).await?;
        let stranger =
            |source: &&Source<D::File>| source.header.is_some_and(|header| header.salt != manifest.salt);
        if let Some(source) = sources.iter().find(stranger) {
            return Err(foreign(source.file.path(), source.header));
        }
        Ok(Self { lock, manifest, sources, free, retired, census, missing, next_number })
    }
}

/// What the segment files of a log are.
#[derive(Debug)]
pub(crate) struct Listing<F> {
    /// The segments in use, by ascending number.
    pub(crate) sources: Vec<Source<F>>,
    /// Other files, by the number that they had.
    pub(crate) spare: Vec<(u32, SegmentFile<F>)>,
    /// What the newest segment says of the others.
    pub(crate) census: Census,
    /// The segments of the census that are not there.
    pub(crate) missing: Vec<u32>,
    /// The highest number of any file.
    pub(crate) highest: u32,
}

impl<F: ReadBlocks> Listing<F> {
    /// Reads the headers of segment files.
    async fn of(files: Vec<(SegmentName, SegmentFile<F>)>) -> Result<Self, StorageError> {
        let numbers: HashSet<u32> = files.iter().map(|(name, _)| name.number()).collect();
        let (mut sources, mut spare) = (Vec::new(), Vec::new());
        let mut newest: Option<(u32, Census)> = None;
        for (name, file) in files {
            let SegmentName::InUse(family, number) = name else {
                spare.push((name.number(), file));
                continue;
            };
            let path = file.path();
            let (header, census) = read_header(&file, &path).await?;
            if header.is_some_and(|header| (header.number, header.family) != (number, family)) {
                return Err(foreign(path, header));
            }
            if newest.as_ref().is_none_or(|(newest, _)| *newest < number) {
                newest = Some((number, census));
            }
            sources.push(Source { number, family, file, header });
        }
        sources.sort_unstable_by_key(|source| source.number);
        let census = newest.map(|(_, census)| census).unwrap_or_default();
        let missing = census.missing(MISSING_NAMED, |number| numbers.contains(&number));
        Ok(Self { sources, spare, census, missing, highest: numbers.into_iter().max().unwrap_or(0) })
    }

    /// The newest header that can be read.
    pub(crate) fn newest_header(&self) -> Option<SegmentHeader> {
        self.sources.iter().rev().find_map(|source| source.header)
    }
}

/// The segment files of a folder that is only read.
pub(crate) async fn list_to_read<F: ReadBlocks>(
    directory: &Path,
    open: impl Fn(&Path) -> std::io::Result<F>,
) -> Result<Listing<F>, StorageError> {
    let names = names_in(directory).map_err(|error| StorageError::io("listing", directory, error))?;
    let mut files = Vec::new();
    for name in names.iter().filter_map(|name| SegmentName::parse(name)) {
        let path = directory.join(name.file_name());
        let file = open(&path).map_err(|error| StorageError::io("opening", &path, error))?;
        files.push((name, SegmentFile::new(file)));
    }
    Listing::of(files).await
}

fn foreign(path: PathBuf, header: Option<SegmentHeader>) -> StorageError {
    StorageError::ForeignSegment { path, number: header.map_or(0, |header| header.number) }
}

async fn lock<D: Disk>(disk: &D, directory: &Path) -> Result<D::Lock, StorageError> {
    let made = disk.create_directory(directory).await;
    made.map_err(|error| StorageError::io("creating", directory, error))?;
    let path = directory.join(LOCK_NAME);
    let lock = disk.lock(&path).await.map_err(|error| StorageError::io("locking", &path, error))?;
    lock.ok_or_else(|| StorageError::Locked { directory: directory.into() })
}

async fn list(disk: &impl Disk, directory: &Path) -> Result<Vec<SegmentName>, StorageError> {
    let names = disk.list(directory).await.map_err(|error| StorageError::io("listing", directory, error))?;
    Ok(names.iter().filter_map(|name| SegmentName::parse(name)).collect())
}

async fn read_header<F: ReadBlocks>(
    file: &SegmentFile<F>,
    path: &Path,
) -> Result<(Option<SegmentHeader>, Census), StorageError> {
    let block = file.read(0, BLOCK as usize).await?;
    match SegmentHeader::parse(&block) {
        Ok(header) => Ok((Some(header), Census::parse(&block).unwrap_or_default())),
        Err(HeaderFault::Damaged) => {
            tracing::warn!(event = events::SEGMENT_HEADER_DAMAGED, path = %path.display(), "a segment header is damaged; its records are read all the same");
            Ok((None, Census::default()))
        }
        Err(HeaderFault::Version(found)) => {
            Err(StorageError::UnknownFormat { path: path.into(), found, known: SEGMENT_FORMAT })
        }
    }
}

/// The manifest as stored, as the newest readable segment header has it, or a new one.
async fn find_manifest<D: Disk>(
    disk: &D,
    directory: &Path,
    sources: &[Source<D::File>],
    (shard, shards): (u32, u32),
) -> Result<Manifest, StorageError> {
    if let Some(manifest) = Manifest::read_on(disk, directory).await? {
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
    manifest.write(disk, directory).await?;
    Ok(manifest)
}
