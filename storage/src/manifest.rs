//! The manifest of a log: which shard wrote it, with how many shards, and the salt of its checksums. Small, text,
//! and rebuilt from segment headers if it is lost. Never holds anything that changes with a message.

use crate::disk::{Disk, read_beginning};
use crate::error::StorageError;
use crate::segment::SegmentHeader;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// The version of the log's format as a whole.
const LOG_FORMAT: u32 = 1;
/// The manifest's file name.
pub(crate) const FILE_NAME: &str = "manifest";
const TEMPORARY_NAME: &str = "manifest.new";
const TITLE: &str = "furrow mailbox log";
/// Far more than a manifest has.
const MAX_BYTES: u64 = 4096;

/// The identity of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The shard.
    pub(crate) shard: u32,
    /// The number of shards.
    pub(crate) shards: u32,
    /// What the checksums of all segments start from.
    pub(crate) salt: u64,
}

impl Manifest {
    /// The manifest of a new log, with a salt that nobody can foresee.
    pub(crate) fn new(shard: u32, shards: u32) -> Self {
        Self { shard, shards, salt: RandomState::new().hash_one((shard, shards)) }
    }

    /// The manifest that the writer of a segment had.
    pub(crate) fn from_segment(header: &SegmentHeader) -> Self {
        Self { shard: header.shard, shards: header.shards, salt: header.salt }
    }

    /// Reads the manifest of a log on any disk; `None` if there is none.
    pub(crate) async fn read_on(disk: &impl Disk, directory: &Path) -> Result<Option<Self>, StorageError> {
        let path = directory.join(FILE_NAME);
        let content = disk.read_small(&path, MAX_BYTES + 1).await;
        Self::decode(content.map_err(|error| StorageError::io("reading", &path, error))?, path)
    }

    /// Reads the manifest of a log; `None` if there is none. Blocks.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, StorageError> {
        let path = directory.join(FILE_NAME);
        let content = read_beginning(&path, MAX_BYTES + 1);
        Self::decode(content.map_err(|error| StorageError::io("reading", &path, error))?, path)
    }

    fn decode(content: Option<Vec<u8>>, path: PathBuf) -> Result<Option<Self>, StorageError> {
        let Some(content) = content else { return Ok(None) };
        if content.len() as u64 > MAX_BYTES {
            return Err(StorageError::ManifestDamaged { path, reason: "it is too long" });
        }
        match String::from_utf8(content) {
            Ok(text) => Self::parse(&text, &path).map(Some),
            Err(_) => Err(StorageError::ManifestDamaged { path, reason: "it is not text" }),
        }
    }

    /// Writes the manifest durably, replacing any former one at once.
    pub(crate) async fn write(&self, disk: &impl Disk, directory: &Path) -> Result<(), StorageError> {
        let temporary = directory.join(TEMPORARY_NAME);
        let fault = |error| StorageError::io("writing", &temporary, error);
        disk.write_small(&temporary, self.to_text().as_bytes()).await.map_err(fault)?;
        disk.rename(&temporary, &directory.join(FILE_NAME)).await.map_err(fault)?;
        disk.sync_directory(directory).await.map_err(|error| StorageError::io("syncing", directory, error))
    }

    fn to_text(self) -> String {
        let body = format!(
            "{TITLE}\nformat {LOG_FORMAT}\nshard {}\nshards {}\nsalt {:016x}\n",
            self.shard, self.shards, self.salt
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    fn parse(text: &str, path: &Path) -> Result<Self, StorageError> {
        let damaged = |reason| StorageError::ManifestDamaged { path: path.into(), reason };
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged("its first line is not that of a manifest"));
        }
        let mut field = |name: &str| {
            let line = lines.next().ok_or(damaged("it is too short"))?;
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(' '))
                .ok_or(damaged("a line is not the expected one"))
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| damaged("a number is not one"));
        let found = number(field("format")?)?;
        if found != LOG_FORMAT {
            return Err(StorageError::UnknownFormat { path: path.into(), found, known: LOG_FORMAT });
        }
        let shard = number(field("shard")?)?;
        let shards = number(field("shards")?)?;
        let salt = u64::from_str_radix(field("salt")?, 16).map_err(|_| damaged("a number is not one"))?;
        let manifest = Self { shard, shards, salt };
        if manifest.to_text() != text {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated_disk::SimulatedDisk;
    use futures_lite::future::block_on;

    #[test]
    fn a_manifest_round_trips_through_its_directory() {
        let (disk, directory) = (SimulatedDisk::new(), Path::new("/log"));
        block_on(async {
            disk.create_directory(directory).await.unwrap();
            assert_eq!(Manifest::read_on(&disk, directory).await.unwrap(), None);
            let manifest = Manifest::new(1, 4);
            manifest.write(&disk, directory).await.unwrap();
            assert_eq!(Manifest::read_on(&disk, directory).await.unwrap(), Some(manifest));
        });
    }

    #[test]
    fn two_logs_have_different_salts() {
        assert_ne!(Manifest::new(0, 1).salt, Manifest::new(0, 1).salt);
    }

    #[test]
    fn every_changed_byte_of_a_manifest_is_noticed() {
        let text = Manifest { shard: 0, shards: 2, salt: 5 }.to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Manifest::parse(&changed, Path::new("m")).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_manifest_of_another_version_is_told_from_a_damaged_one() {
        let text = Manifest { shard: 0, shards: 2, salt: 5 }.to_text().replace("format 1", "format 2");
        let error = Manifest::parse(&text, Path::new("m")).unwrap_err();
        assert!(matches!(error, StorageError::UnknownFormat { found: 2, .. }), "{error}");
    }
}
