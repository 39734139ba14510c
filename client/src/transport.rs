//! The byte pipe to the relay: TCP, one address after another, small writes sent at once.

use bytes::{Bytes, BytesMut};
use relay_core::sstp::output::OutputQueue;
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one address may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the relay may take to close after our last words.
const LINGER: Duration = Duration::from_secs(1);
/// What one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// Slices of one write.
const WRITE_SLICES: usize = 64;

/// A connection to the relay.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Transport {
    /// Tries the addresses in their order.
    pub(crate) async fn dial(addresses: Vec<String>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
        for address in addresses {
            match timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    tracing::debug!(address, "connected");
                    return Ok(Self { stream, buffer: BytesMut::new() });
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(address, error = %last, "cannot connect");
        }
        Err(last)
    }

    /// Waits until it can be read (if wanted) or written (if wanted).
    pub(crate) async fn ready(&self, read: bool, write: bool) -> io::Result<()> {
        let interest = match (read, write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        self.stream.ready(interest).await.map(drop)
    }

    /// What has arrived; `None` if nothing has.
    ///
    /// # Errors
    /// As of the system; [`io::ErrorKind::UnexpectedEof`] if the relay has closed.
    pub(crate) fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(self.buffer.split().freeze())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends as much as goes without waiting; whether anything went.
    pub(crate) fn write(&mut self, output: &mut OutputQueue) -> io::Result<bool> {
        let mut any = false;
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let filled = output.gather(&mut slices);
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(sent) => output.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            any = true;
        }
        Ok(any)
    }

    /// Sends the last words and waits a little for the relay to have read them: closing at once with unread input would
    /// take them back.
    pub(crate) async fn hang_up(mut self, last_words: Bytes) {
        let farewell = async {
            self.stream.write_all(&last_words).await?;
            self.stream.shutdown().await?;
            while self.stream.read_buf(&mut self.buffer).await? > 0 {
                self.buffer.clear();
            }
            io::Result::Ok(())
        };
        if let Ok(Err(error)) = timeout(LINGER, farewell).await {
            tracing::debug!(%error, "the relay did not take our last words");
        }
    }
}
