//! Copying the files of a relay's logs while the relay runs.
//!
//! A segment that is not the newest of its family is immutable until it is void, and then it is renamed before anything is
//! written to it. So a listing of the folder in which no segment vanishes until all of them are copied is the log as it was when
//! the listing was made, with perhaps some mail that came later; the newest segments are copied last, and a batch that was being
//! written is a torn tail in the copy. If one vanishes, what was live in it lies in newer ones by then: the listing is made
//! again, and what is immutable is not copied twice.

use crate::disk::{create_durably, names_in};
use crate::error::StorageError;
use crate::manifest;
use crate::segment::SegmentName;
use relay_core::store::Family;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Listings that may turn out to be outdated before the log is called too busy. Each leaves less to copy.
const ROUNDS: usize = 100;
/// Bytes that are copied at once; where they are all zero, the copy has a hole.
const CHUNK: usize = 256 * 1024;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Segments in the copy.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// How often the log had changed its segments meanwhile.
    pub repeated: u64,
}

/// Copies the log in `from`, which may be in use, to the folder `to`, which is made if it is not there. The segments of
/// `families` are copied in their order, and only those. Durable when it returns. `progress` gets the bytes of each chunk.
///
/// Blocks; not for a shard's thread.
///
/// # Errors
/// What the system said; [`StorageError::TooBusy`] if the log gives up segments faster than they can be copied.
pub fn copy_log(
    from: &Path,
    to: &Path,
    families: &[Family],
    mut progress: impl FnMut(u64),
) -> Result<Copied, StorageError> {
    let fault = |error| StorageError::io("copying", from, error);
    create_durably(to).map_err(|error| StorageError::io("creating", to, error))?;
    let mut whole: BTreeSet<String> = BTreeSet::new();
    for repeated in 0..ROUNDS as u64 {
        let numbers = numbers(from).map_err(fault)?;
        let listed = segments(from, families).map_err(fault)?;
        let copied = copy_listed(from, to, &listed, &mut whole, &mut progress);
        let now = segments(from, families).map_err(fault)?;
        let vanished = listed.iter().any(|segment| !now.contains(segment));
        match copied {
            Ok(()) if !vanished => {}
            Err(error) if !vanished => return Err(fault(error)),
            _ => continue,
        }
        let names: BTreeSet<String> = listed.iter().map(|segment| segment.file_name()).collect();
        let bytes = finish(to, families, &names, &numbers)
            .map_err(|error| StorageError::io("finishing", to, error))?;
        copy_small(&from.join(manifest::FILE_NAME), &to.join(manifest::FILE_NAME)).map_err(fault)?;
        File::open(to)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| StorageError::io("syncing", to, error))?;
        return Ok(Copied { segments: names.len() as u64, bytes, repeated });
    }
    Err(StorageError::TooBusy { directory: from.into() })
}

/// The segments in use: by family in the order asked for, the newest of each last.
fn segments(from: &Path, families: &[Family]) -> io::Result<Vec<SegmentName>> {
    let mut found: Vec<_> = names_in(from)?.iter().filter_map(|name| SegmentName::parse(name)).collect();
    let place = |name: &SegmentName| match name {
        SegmentName::InUse(family, _) => families.iter().position(|wanted| wanted == family),
        SegmentName::Free(_) => None,
    };
    found.retain(|name| place(name).is_some());
    found.sort_by_key(|name| (place(name), name.number()));
    Ok(found)
}

/// Copies what is not in `whole` yet, and puts in there what cannot change any more.
fn copy_listed(
    from: &Path,
    to: &Path,
    listed: &[SegmentName],
    whole: &mut BTreeSet<String>,
    progress: &mut impl FnMut(u64),
) -> io::Result<()> {
    let newest = |family: Family| {
        let of_family = |name: &&SegmentName| matches!(name, SegmentName::InUse(of, _) if *of == family);
        listed.iter().rfind(of_family).copied()
    };
    for segment in listed {
        let name = segment.file_name();
        if whole.contains(&name) {
            continue;
        }
        copy_file(&from.join(&name), &to.join(&name), progress)?;
        let SegmentName::InUse(family, _) = *segment else { continue };
        // It was void and used again while it was copied, unless it is still there under its name.
        if newest(family) != Some(*segment) && from.join(&name).exists() {
            whole.insert(name);
        }
    }
    Ok(())
}

/// Copies a file durably, leaving out what is zero.
fn copy_file(from: &Path, to: &Path, progress: &mut impl FnMut(u64)) -> io::Result<()> {
    let source = File::open(from)?;
    let length = source.metadata()?.len();
    let copy = File::create(to)?;
    copy.set_len(length)?;
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let size = (length - offset).min(CHUNK as u64) as usize;
        source.read_exact_at(&mut chunk[..size], offset)?;
        if chunk[..size].iter().any(|byte| *byte != 0) {
            copy.write_all_at(&chunk[..size], offset)?;
        }
        offset += size as u64;
        progress(size as u64);
    }
    copy.sync_all()
}

fn copy_small(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// The numbers of all segment files, in use or not.
fn numbers(folder: &Path) -> io::Result<BTreeSet<u32>> {
    Ok(names_in(folder)?
        .iter()
        .filter_map(|name| SegmentName::parse(name))
        .map(SegmentName::number)
        .collect())
}

/// Removes copies of segments of these families that are void by now, and leaves an empty file for each segment that is not
/// copied, so that it is not taken for missing. Answers the bytes of the copies.
fn finish(
    to: &Path,
    families: &[Family],
    names: &BTreeSet<String>,
    listed: &BTreeSet<u32>,
) -> io::Result<u64> {
    let mut bytes = 0;
    for segment in segments(to, families)? {
        let name = segment.file_name();
        let path = to.join(&name);
        if names.contains(&name) {
            bytes += path.metadata()?.len();
            let stand_in = to.join(SegmentName::Free(segment.number()).file_name());
            if stand_in.exists() {
                std::fs::remove_file(stand_in)?;
            }
        } else {
            std::fs::remove_file(path)?;
        }
    }
    for number in listed.difference(&numbers(to)?) {
        File::create(to.join(SegmentName::Free(*number).file_name()))?;
    }
    Ok(bytes)
}

/// Copies the folder of a user database that may be in use. It changes only when a user registers, so it is copied again until
/// nothing in it changed meanwhile; then the copy is opened and every record in it is read.
///
/// # Errors
/// What the system said; [`StorageError::TooBusy`] if it never held still; an error of the copy.
pub fn copy_users(from: &Path, to: &Path) -> Result<crate::UserCounts, StorageError> {
    let fault = |error| StorageError::io("copying", from, error);
    for _ in 0..ROUNDS {
        let before = stamps(from).map_err(fault)?;
        if to.exists() {
            std::fs::remove_dir_all(to).map_err(|error| StorageError::io("clearing", to, error))?;
        }
        let copied = copy_tree(from, to);
        if stamps(from).map_err(fault)? != before {
            continue;
        }
        copied.map_err(fault)?;
        let users = crate::UserDatabase::open(to)?;
        let damaged = users.devices().find_map(Result::err);
        let damaged = damaged.or_else(|| users.accounts().find_map(Result::err));
        return match damaged.or_else(|| users.identities().find_map(Result::err)) {
            Some(error) => Err(error),
            None => Ok(users.counts()),
        };
    }
    Err(StorageError::TooBusy { directory: from.into() })
}

/// Every file below a folder with its size and the time of its last change.
fn stamps(folder: &Path) -> io::Result<BTreeSet<(std::path::PathBuf, u64, std::time::SystemTime)>> {
    let mut stamps = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            stamps.extend(self::stamps(&entry.path())?);
        } else {
            stamps.insert((entry.path(), about.len(), about.modified()?));
        }
    }
    Ok(stamps)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    create_durably(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.metadata()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            copy_small(&entry.path(), &target)?;
        }
    }
    File::open(to)?.sync_all()
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
