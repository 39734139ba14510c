//! The machine as files: /proc, /sys and /run below a folder, so that a made-up tree can be looked at as well.
//!
//! Reads only, and never more than a file of such a kind can have.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files of /proc/net and /proc/interrupts grow with the machine; what lies beyond is not looked at.
const MOST_BYTES: u64 = 4 << 20;

/// The folder under which a machine's files lie: `/` for this one.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The machine below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text without the white space around it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut text = String::new();
        File::open(self.path(path)).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that is one number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The numbers of a file, with white space between.
    pub(super) fn numbers(&self, path: impl AsRef<Path>) -> Option<Vec<u64>> {
        self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    /// Whether there is such a file or folder.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The names in a folder, in order.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The value behind `name:` in a file of such lines, as in /proc/meminfo.
    pub(super) fn field(&self, path: impl AsRef<Path>, name: &str) -> Option<String> {
        let text = self.text(path)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }
}
