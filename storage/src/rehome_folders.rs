//! The folders of re-homing: which logs there are, where the new ones are built, the one rename that makes them count, and
//! what follows it. Moves and removes folders; never reads a record.
//!
//! In the data folder lie `shard-NNNN`, the logs; `rehoming` with logs that are being built, which mean nothing; and
//! `rehomed-to-N`, which is `rehoming` renamed: its logs are the truth, and each of them replaces the `shard-NNNN` of
//! its name. So at any moment the mail lies whole in one place, and that place can be told from the names alone.

use crate::error::StorageError;
use crate::events;
use crate::manifest::Manifest;
use std::fs::File;
use std::path::{Path, PathBuf};

const BUILDING: &str = "rehoming";
const BUILT: &str = "rehomed-to-";
const LOG: &str = "shard-";
/// A file in the folder of new logs: the old ones hold something unreadable and are to be kept.
const KEEP_OLD: &str = "keep-old";
/// Where old logs are kept.
const KEPT: &str = "kept-";

/// The folder of a shard's log in a relay's data folder.
pub fn log_directory(data: &Path, shard: u16) -> PathBuf {
    data.join(log_name(u32::from(shard)))
}

fn log_name(shard: u32) -> String {
    format!("{LOG}{shard:04}")
}

/// A pause between two steps of re-homing, at which a test may stop it.
#[derive(Debug)]
pub(crate) struct Pauses {
    /// How many more are passed; `None` is all.
    left: Option<u32>,
}

impl Pauses {
    /// It is never stopped.
    pub(crate) fn none() -> Self {
        Self { left: None }
    }

    /// It is stopped at the pause after so many.
    #[cfg(test)]
    pub(crate) fn after(passed: u32) -> Self {
        Self { left: Some(passed) }
    }

    /// Passes one, or fails as if the process had ended here.
    pub(crate) fn pass(&mut self, at: &Path) -> Result<(), StorageError> {
        match &mut self.left {
            Some(0) => {
                let stopped = std::io::Error::from(std::io::ErrorKind::Interrupted);
                Err(StorageError::io("re-homing in", at, stopped))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The data folder as re-homing sees it.
#[derive(Debug)]
pub(crate) struct Folders<'a>(pub(crate) &'a Path);

impl Folders<'_> {
    /// The number and folder of every log, ascending.
    pub(crate) fn logs(&self) -> Result<Vec<(u32, PathBuf)>, StorageError> {
        let mut logs = Vec::new();
        for name in names(self.0)? {
            let Some(number) = name.strip_prefix(LOG).and_then(|digits| digits.parse().ok()) else {
                continue;
            };
            if log_name(number) == name {
                logs.push((number, self.0.join(name)));
            }
        }
        logs.sort_unstable();
        Ok(logs)
    }

    /// Whether every log is one of `shards` and there is none too many. A log that does not exist yet is right.
    pub(crate) fn are_homes_of(&self, shards: u16) -> Result<bool, StorageError> {
        let shards = u32::from(shards);
        for (number, directory) in self.logs()? {
            let right = match Manifest::read(&directory)? {
                Some(manifest) => (manifest.shard, manifest.shards) == (number, shards),
                None => !has_segments(&directory)?,
            };
            if !right || number >= shards {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where new logs are built.
    pub(crate) fn building(&self) -> PathBuf {
        self.0.join(BUILDING)
    }

    /// Removes what an interrupted pass had built.
    pub(crate) fn discard_building(&self) -> Result<(), StorageError> {
        remove(&self.building())
    }

    /// Makes the built logs of `shards` the relay's logs, at one moment: the rename.
    pub(crate) fn commit(
        &self,
        shards: u16,
        keep_old: bool,
        pauses: &mut Pauses,
    ) -> Result<(), StorageError> {
        let building = self.building();
        if keep_old {
            let mark = building.join(KEEP_OLD);
            File::create(&mark)
                .and_then(|file| file.sync_all())
                .map_err(|error| StorageError::io("writing", &mark, error))?;
        }
        for name in names(&building)?.into_iter().filter(|name| name.starts_with(LOG)) {
            sync(&building.join(name))?;
        }
        sync(&building)?;
        pauses.pass(&building)?;
        rename(&building, &self.0.join(format!("{BUILT}{shards}")))?;
        sync(self.0)
    }

    /// If new logs count, lets them take the place of the old ones. Does nothing otherwise; can be stopped at any point and
    /// done again. Says whether there were new logs.
    pub(crate) fn finish(&self, pauses: &mut Pauses) -> Result<bool, StorageError> {
        let built = names(self.0)?
            .into_iter()
            .find_map(|name| Some((name.strip_prefix(BUILT)?.parse::<u32>().ok()?, self.0.join(&name))));
        let Some((shards, built)) = built else { return Ok(false) };
        let keep_old = built.join(KEEP_OLD).exists();
        for (number, old) in self.logs()? {
            // A log of a new one's number is an old one as long as the new one has not moved.
            if number >= shards || built.join(log_name(number)).exists() {
                pauses.pass(&old)?;
                if keep_old { self.keep(&old)? } else { remove(&old)? }
            }
        }
        for name in names(&built)?.into_iter().filter(|name| name.starts_with(LOG)) {
            pauses.pass(&built)?;
            rename(&built.join(&name), &self.0.join(&name))?;
        }
        sync(self.0)?;
        sync(&built)?;
        pauses.pass(&built)?;
        remove(&built)?;
        sync(self.0)?;
        Ok(true)
    }

    /// Moves an old log to a name that nobody opens.
    fn keep(&self, old: &Path) -> Result<(), StorageError> {
        let name = old.file_name().unwrap_or_default().to_string_lossy();
        let kept = (0u32..).map(|count| self.0.join(format!("{KEPT}{name}-{count}")));
        let kept = kept.take(10_000).find(|kept| !kept.exists());
        let full =
            || StorageError::io("keeping", old, std::io::Error::from(std::io::ErrorKind::AlreadyExists));
        let kept = kept.ok_or_else(full)?;
        tracing::warn!(event = events::OLD_LOG_KEPT, log = %kept.display(), "an old log with unreadable mail is kept here");
        rename(old, &kept)
    }
}

fn has_segments(directory: &Path) -> Result<bool, StorageError> {
    Ok(names(directory)?.iter().any(|name| name.ends_with(".segment") && !name.starts_with("free-")))
}

/// The names in a folder that are text; none if there is no folder.
fn names(directory: &Path) -> Result<Vec<String>, StorageError> {
    let fault = |error| StorageError::io("listing", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(fault)?.file_name().into_string());
    }
    Ok(names)
}

fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    std::fs::rename(from, to).map_err(|error| StorageError::io("renaming", from, error))
}

fn remove(directory: &Path) -> Result<(), StorageError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io("removing", directory, error))
        }
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<(), StorageError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StorageError::io("syncing", directory, error))
}
