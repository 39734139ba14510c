//! A log that no relay has open, read only: verified, listed, and taken out of. Changes nothing in its folder.

use crate::directory::{Listing, list_to_read};
use crate::error::StorageError;
use crate::manifest::{self, Manifest};
use crate::plain_disk::PlainFile;
use crate::record::{Header, Prefix, Seed};
use crate::replay::{Replay, Source, replay};
use crate::scan::scan_segment;
use crate::segment::BLOCK;
use bytes::Bytes;
use futures_lite::future::block_on;
use relay_core::address::MailboxAddress;
use relay_core::store::{Family, Position, RecordId};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A log that is only read. While it is there, no relay can open the log.
#[derive(Debug)]
pub struct OfflineLog {
    directory: PathBuf,
    listing: Listing<PlainFile>,
    manifest: Manifest,
    /// What is wrong with the manifest, if a segment's header stands in for it.
    manifest_fault: Option<StorageError>,
    _lock: Option<File>,
}

/// A record as it lies in a segment, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// The segment.
    pub segment: u32,
    /// Its family.
    pub family: Family,
    /// Where the record begins.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
    /// Its payload bytes.
    pub payload_bytes: u32,
    /// The message that it is about.
    pub id: RecordId,
    /// What it says.
    pub what: RecordKind,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Part 0 of a message.
    FirstPart {
        /// Whether the message ends with it.
        last: bool,
        /// When the message is no longer worth delivering, in seconds since the Unix epoch.
        expires_at: u64,
        /// Who is to get it.
        recipients: Vec<MailboxAddress>,
    },
    /// A later part.
    LaterPart {
        /// Counts from 0.
        index: u32,
        /// Whether the message ends with it.
        last: bool,
    },
    /// One recipient is done, by its place among the recipients.
    DeleteRecipient(u32),
    /// All recipients are done.
    Delete,
}

impl OfflineLog {
    /// Opens the log in a folder, which may be a copy of one.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if a relay runs on it, [`StorageError::Unidentified`] if neither the manifest nor any
    /// segment says which log it is, and what else forbids to read it.
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        let lock = share(directory)?;
        let listing = block_on(list_to_read(directory, PlainFile::open_to_read))?;
        let (found, manifest_fault) = match Manifest::read(directory) {
            Ok(found) => (found, None),
            Err(fault) => (None, Some(fault)),
        };
        let stand_in = || listing.newest_header().map(|header| Manifest::from_segment(&header));
        let manifest = found
            .or_else(stand_in)
            .ok_or_else(|| StorageError::Unidentified { directory: directory.into() })?;
        Ok(Self { directory: directory.into(), listing, manifest, manifest_fault, _lock: lock })
    }

    /// The shard that wrote it, and the number of shards then.
    pub fn shard(&self) -> (u32, u32) {
        (self.manifest.shard, self.manifest.shards)
    }

    /// The random number by which this log differs from every other.
    pub fn salt(&self) -> u64 {
        self.manifest.salt
    }

    /// What is wrong with its manifest; the log can be read all the same.
    pub fn manifest_fault(&self) -> Option<&StorageError> {
        self.manifest_fault.as_ref()
    }

    /// The size of its newest segment, for another log like it.
    pub fn segment_bytes(&self) -> u64 {
        self.listing.sources.last().map_or(crate::DEFAULT_SEGMENT_BYTES, |source| source.file.size())
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> u64 {
        self.listing.sources.iter().map(|source| source.file.size()).sum()
    }

    /// Reads everything and checks all checksums. `progress` gets the bytes of each segment that is done.
    ///
    /// # Errors
    /// What the system said; what cannot be understood is in the report instead.
    pub fn replay(&self, progress: impl FnMut(u64)) -> Result<Replay, StorageError> {
        let Listing { sources, missing, .. } = &self.listing;
        Ok(block_on(replay(sources, self.manifest.salt, missing, progress))?.replay)
    }

    /// Shows every record, segment by segment. `progress` as with [`OfflineLog::replay`].
    ///
    /// # Errors
    /// What the system said.
    pub fn records(
        &self,
        mut show: impl FnMut(RecordView),
        mut progress: impl FnMut(u64),
    ) -> Result<(), StorageError> {
        for Source { number, family, file, .. } in &self.listing.sources {
            let (segment, family) = (*number, *family);
            let seed = Seed::new(self.manifest.salt, segment);
            let scan = scan_segment(file, seed, Default::default(), |found| {
                let (offset, length, payload_bytes) = (found.offset, found.length, found.payload_bytes);
                let id = found.header.id();
                let what = RecordKind::of(found.header);
                show(RecordView { segment, family, offset, length, payload_bytes, id, what });
            });
            block_on(scan)?;
            progress(file.size());
        }
        Ok(())
    }

    /// The payload of a part that [`OfflineLog::replay`] found.
    ///
    /// # Errors
    /// [`StorageError::PartDamaged`] if its bytes have changed since, otherwise what the system said.
    pub fn read(&self, position: Position) -> Result<Bytes, StorageError> {
        let source = self.listing.sources.iter().find(|source| source.number == position.segment);
        let Some(source) = source else { return Err(StorageError::NotStored { position }) };
        let start = u64::from(position.offset) / BLOCK * BLOCK;
        let from = (u64::from(position.offset) - start) as usize;
        let data = block_on(source.file.read(start, from + position.length as usize))?;
        let seed = Seed::new(self.manifest.salt, position.segment);
        let payload = data.get(from..from + position.length as usize).and_then(|record| {
            let prefix = Prefix::parse(record, seed, position.offset, u64::from(position.length))?;
            let whole = prefix.payload_is_whole(record, seed, position.offset);
            whole.then(|| Bytes::copy_from_slice(&record[prefix.payload_start()..]))
        });
        payload.ok_or_else(|| StorageError::PartDamaged { position, path: source.file.path() })
    }

    /// Its folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl RecordKind {
    fn of(header: Header) -> Self {
        match header {
            Header::FirstPart { last, head, .. } => Self::FirstPart {
                last,
                expires_at: head.header.expires_at,
                recipients: head.recipients.to_vec(),
            },
            Header::LaterPart { index, last, .. } => Self::LaterPart { index, last },
            Header::DeleteRecipient { recipient, .. } => Self::DeleteRecipient(recipient),
            Header::Delete { .. } => Self::Delete,
        }
    }
}

/// The folders of a relay's logs: `shard-NNNN` in its data folder, or the folder itself if it is a log.
///
/// # Errors
/// What the system said of the folder.
pub fn log_folders(data: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let fault = |error| StorageError::io("listing", data, error);
    if data.join(manifest::FILE_NAME).is_file() {
        return Ok(vec![data.into()]);
    }
    let names = crate::disk::names_in(data).map_err(fault)?;
    let is_log = |name: &&String| {
        name.strip_prefix("shard-")
            .is_some_and(|number| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut folders: Vec<_> = names.iter().filter(is_log).map(|name| data.join(name)).collect();
    folders.sort();
    Ok(folders)
}

/// The random number by which the log in a folder differs from every other, be it in use or not; `None` without a manifest.
///
/// # Errors
/// A manifest that is not one, or what the system said.
pub fn log_salt(directory: &Path) -> Result<Option<u64>, StorageError> {
    Ok(Manifest::read(directory)?.map(|manifest| manifest.salt))
}

/// Keeps relays away as long as the answer is held. A copy of a log has no lock file, and needs none.
fn share(directory: &Path) -> Result<Option<File>, StorageError> {
    let path = directory.join(crate::directory::LOCK_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("locking", &path, error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { directory: directory.into() }),
        Err(TryLockError::Error(error)) => Err(StorageError::io("locking", &path, error)),
    }
}
