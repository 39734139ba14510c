//! The seam below the log: the few things that it asks of a disk. [`crate::DirectDisk`] is the real one; a test puts a
//! simulated one there, which loses, tears and refuses, so that what is tested is the code that runs.
//!
//! Everything is dispatched statically. The traits promise nothing of durability but what they say: a write is
//! durable after [`DiskFile::sync`], a name after [`Disk::sync_directory`], and until then any part of either may be lost.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A file that can be read in blocks. Clones are the same file.
pub trait ReadBlocks: Clone + Debug {
    /// What was read: aligned to at least 8 bytes in memory.
    type Data: Deref<Target = [u8]> + Clone + Debug + Default;

    /// Bytes of the file when it was opened or created.
    fn size(&self) -> u64;

    /// The file's present path.
    fn path(&self) -> PathBuf;

    /// Reads from `offset`, a multiple of 4096, up to `length` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system said.
    fn read(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Self::Data>>;
}

/// A file that a log writes.
pub trait DiskFile: ReadBlocks {
    /// What is written from.
    type Buffer: AsMut<[u8]>;

    /// A buffer for [`DiskFile::write`]; its content is undefined.
    fn buffer(&self, bytes: usize) -> Self::Buffer;

    /// Writes a buffer at an offset, both multiples of 4096; not durable before [`DiskFile::sync`].
    ///
    /// # Errors
    /// What the system said; nobody knows then what the file holds there.
    fn write(&self, buffer: Self::Buffer, offset: u64) -> impl Future<Output = io::Result<()>>;

    /// Makes everything durable that was written, and the file's size.
    ///
    /// # Errors
    /// What the system said; nobody knows then what of the file is durable.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Gives the file another name in the same directory; durable after [`Disk::sync_directory`].
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Takes all content away and gives its space back.
    ///
    /// # Errors
    /// What the system said.
    fn cut(&self) -> impl Future<Output = io::Result<()>>;

    /// Removes the file's name; durable after [`Disk::sync_directory`].
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self) -> impl Future<Output = io::Result<()>>;

    /// Closes the file, if no clone of it is left.
    ///
    /// # Errors
    /// What the system said.
    fn close(self) -> impl Future<Output = io::Result<()>>;
}

/// What keeps files.
pub trait Disk: Clone + Debug {
    /// Its files.
    type File: DiskFile;

    /// Held as long as nobody else may have the log.
    type Lock: Debug;

    /// Makes a directory with its parents, durably; nothing if it is there.
    ///
    /// # Errors
    /// What the system said.
    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Takes the lock that the file at `path` stands for, creating it; `None` if another has it.
    ///
    /// # Errors
    /// What the system said.
    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<Self::Lock>>>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self, directory: &Path) -> impl Future<Output = io::Result<Vec<String>>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system said.
    fn open(&self, path: &Path) -> impl Future<Output = io::Result<Self::File>>;

    /// Creates a file of `size` bytes that all have their place on the disk. Leaves nothing behind when it fails.
    ///
    /// # Errors
    /// What the system said.
    fn create(&self, path: &Path, size: u64) -> impl Future<Output = io::Result<Self::File>>;

    /// The first `most` bytes of a small file; `None` if there is no such file.
    ///
    /// # Errors
    /// What the system said.
    fn read_small(&self, path: &Path, most: u64) -> impl Future<Output = io::Result<Option<Vec<u8>>>>;

    /// Creates or replaces a small file with this content, which is durable afterwards; its name is not.
    ///
    /// # Errors
    /// What the system said; the file may hold any part of the content then.
    fn write_small(&self, path: &Path, content: &[u8]) -> impl Future<Output = io::Result<()>>;

    /// Renames a file in its directory, replacing any file of the new name.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system said.
    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
}

/// Makes a directory with its parents so that each is durable in the one above it; the new ones are for their owner only.
pub(crate) fn create_durably(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_durably(parent)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    std::fs::File::open(parent)?.sync_all()
}

/// The first `most` bytes of a file; `None` if there is no such file.
pub(crate) fn read_beginning(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// The names in a directory that are text.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
