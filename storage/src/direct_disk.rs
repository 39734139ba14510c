//! The real disk: files with direct I/O through glommio's ring, on the executor that opens them. Knows no format.

use crate::disk::{Disk, DiskFile, ReadBlocks, create_durably, names_in, read_beginning};
use crate::events;
use glommio::io::{Directory, DmaBuffer, DmaFile, OpenOptions, ReadResult};
use rustix::fs::OFlags;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the lock file says: a block, since it is also the file by which the disk is tried out.
const LOCK_TEXT: &[u8] =
    b"Whoever holds the lock on this file is the relay that this mailbox log belongs to.\n";
const LOCK_BYTES: usize = 4096;

/// A write ends when it is durable, with all that is needed to read it again. It takes the ring once instead of twice, and on
/// disks that can write through their cache nothing else has to leave it.
const DURABLE_WRITES: i32 = OFlags::DSYNC.bits() as i32;

/// The disk as the kernel gives it. For use on a glommio executor only.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectDisk;

/// A file with direct I/O.
#[derive(Clone, Debug)]
pub struct DirectFile {
    file: Rc<DmaFile>,
    size: u64,
}

impl Disk for DirectDisk {
    type File = DirectFile;
    type Lock = File;

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        create_durably(path)
    }

    async fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let mut lock = File::options().create(true).truncate(false).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // glommio finds out whether the disk can be polled for completions by one read of the first file that it opens on a
        // device, and takes "yes" from a file without data (every later read would fail then), so that file must not be
        // a fresh segment.
        let mut text = LOCK_TEXT.to_vec();
        text.resize(LOCK_BYTES, b'\n');
        lock.write_all(&text)?;
        lock.sync_all()?;
        self.open(path).await?.close().await?;
        Ok(Some(lock))
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        names_in(directory)
    }

    async fn open(&self, path: &Path) -> io::Result<DirectFile> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(DURABLE_WRITES).dma_open(path).await?;
        let size = file.file_size().await?;
        Ok(DirectFile { file: Rc::new(file), size })
    }

    /// All blocks are allocated, so that no later write changes more than data.
    async fn create(&self, path: &Path, size: u64) -> io::Result<DirectFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600).custom_flags(DURABLE_WRITES);
        let file = options.dma_open(path).await?;
        if let Err(error) = file.pre_allocate(size, false).await {
            if let Err(left) = file.remove().await {
                tracing::warn!(event = events::SEGMENT_LEFT_BEHIND, path = %path.display(), error = %left, "an unfinished segment file stays behind");
            }
            return Err(error.into());
        }
        Ok(DirectFile { file: Rc::new(file), size })
    }

    async fn read_small(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        read_beginning(path, most)
    }

    async fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let directory = Directory::open(path).await?;
        let synced = directory.sync().await;
        directory.close().await?;
        Ok(synced?)
    }
}

impl ReadBlocks for DirectFile {
    type Data = ReadResult;

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> PathBuf {
        self.file.path().map(|path| path.to_path_buf()).unwrap_or_default()
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<ReadResult> {
        Ok(self.file.read_at_aligned(offset, length).await?)
    }
}

impl DiskFile for DirectFile {
    type Buffer = DmaBuffer;

    fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(bytes)
    }

    async fn write(&self, buffer: DmaBuffer, offset: u64) -> io::Result<()> {
        let length = buffer.len();
        match self.file.write_at(buffer, offset).await? {
            written if written == length => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Every write was durable when it ended: nothing is left to do.
    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn rename(&self, path: &Path) -> io::Result<()> {
        Ok(self.file.rename(path).await?)
    }

    async fn cut(&self) -> io::Result<()> {
        Ok(self.file.truncate(0).await?)
    }

    async fn remove(&self) -> io::Result<()> {
        Ok(self.file.remove().await?)
    }

    async fn close(self) -> io::Result<()> {
        self.file.close_rc().await?;
        Ok(())
    }
}
