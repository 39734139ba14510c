//! The disk through ordinary blocking calls: for tools, which may wait, and need no ring. Never for a shard's thread.

use crate::disk::{Disk, DiskFile, ReadBlocks, create_durably, names_in, read_beginning};
use rkyv::util::AlignedVec;
use std::cell::RefCell;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The disk through ordinary calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDisk;

/// An open file.
#[derive(Clone, Debug)]
pub struct PlainFile {
    file: Rc<File>,
    path: Rc<RefCell<PathBuf>>,
    size: u64,
}

/// Bytes that were read.
#[derive(Clone, Debug, Default)]
pub struct PlainData(Rc<AlignedVec>);

impl Deref for PlainData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl PlainFile {
    /// Opens a file that is only read.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?, path)
    }

    fn new(file: File, path: &Path) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Rc::new(file), path: Rc::new(RefCell::new(path.to_owned())), size })
    }
}

impl Disk for PlainDisk {
    type File = PlainFile;
    type Lock = File;

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        create_durably(path)
    }

    async fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let lock = File::options().create(true).truncate(false).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        names_in(directory)
    }

    async fn open(&self, path: &Path) -> io::Result<PlainFile> {
        PlainFile::new(File::options().read(true).write(true).open(path)?, path)
    }

    async fn create(&self, path: &Path, size: u64) -> io::Result<PlainFile> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(size)?;
        PlainFile::new(file, path)
    }

    async fn read_small(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        read_beginning(path, most)
    }

    async fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        std::fs::write(path, content)?;
        File::open(path)?.sync_all()
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl ReadBlocks for PlainFile {
    type Data = PlainData;

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> PathBuf {
        self.path.borrow().clone()
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<PlainData> {
        let length = (length as u64).min(self.size.saturating_sub(offset)) as usize;
        let mut data = AlignedVec::with_capacity(length);
        data.resize(length, 0);
        self.file.read_exact_at(&mut data, offset)?;
        Ok(PlainData(Rc::new(data)))
    }
}

impl DiskFile for PlainFile {
    type Buffer = Vec<u8>;

    fn buffer(&self, bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    async fn write(&self, buffer: Vec<u8>, offset: u64) -> io::Result<()> {
        self.file.write_all_at(&buffer, offset)
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    async fn rename(&self, path: &Path) -> io::Result<()> {
        std::fs::rename(self.path(), path)?;
        self.path.replace(path.to_owned());
        Ok(())
    }

    async fn cut(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    async fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(self.path())
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
