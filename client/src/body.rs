//! Bodies of outgoing messages: in memory, or read in pieces while they are sent.

use bytes::Bytes;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// The future of [`BodySource::read`].
pub type Read<'a> = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>>;

/// A body that can be read in pieces, again and again with the same result: it is read from the beginning once more after
/// each loss of the connection.
pub trait BodySource: Send + Sync + 'static {
    /// Bytes in all.
    fn length(&self) -> u64;

    /// Reads 1 to `max` bytes at `offset`, which is below the length. Fewer than `max` are allowed; none, or an error, make the message fail.
    fn read(&self, offset: u64, max: usize) -> Read<'_>;
}

/// The body of a message.
#[derive(Clone)]
pub struct Body(pub(crate) Source);

#[derive(Clone)]
pub(crate) enum Source {
    Whole(Bytes),
    Pieces(Arc<dyn BodySource>),
}

impl Body {
    /// A body that is read while it is sent.
    pub fn source(source: impl BodySource) -> Self {
        Self(Source::Pieces(Arc::new(source)))
    }

    /// The content of a file, read while it is sent. The file must not change before the delivery is resolved.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn file(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::opened_file(File::open(path)?)
    }

    /// As [`Body::file`], of a file that is open already; its position plays no part.
    ///
    /// # Errors
    /// If its length cannot be told.
    pub fn opened_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self::source(FileSource { file: Arc::new(file), length }))
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        match &self.0 {
            Source::Whole(bytes) => bytes.len() as u64,
            Source::Pieces(source) => source.length(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl BodySource for Body {
    fn length(&self) -> u64 {
        self.length()
    }

    fn read(&self, offset: u64, max: usize) -> Read<'_> {
        match &self.0 {
            Source::Pieces(source) => source.read(offset, max),
            Source::Whole(bytes) => {
                let start = bytes.len().min(offset as usize);
                let piece = bytes.slice(start..bytes.len().min(start.saturating_add(max)));
                Box::pin(std::future::ready(Ok(piece)))
            }
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.length())
    }
}

macro_rules! from_bytes {
    ($($whole:ty),*) => {$(
        impl From<$whole> for Body {
            fn from(whole: $whole) -> Body {
                Body(Source::Whole(whole.into()))
            }
        }
    )*};
}
from_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

struct FileSource {
    file: Arc<File>,
    length: u64,
}

impl BodySource for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, max: usize) -> Read<'_> {
        let file = self.file.clone();
        let max = max.min((self.length - offset).min(usize::MAX as u64) as usize);
        let read = move || {
            let mut piece = vec![0; max];
            file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        };
        Box::pin(async move { tokio::task::spawn_blocking(read).await.map_err(io::Error::other)? })
    }
}
