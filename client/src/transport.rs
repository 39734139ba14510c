//! The byte pipe to the relay: TCP, perhaps with TLS, one address after another, small writes sent at once.

use crate::relay_identity::RelayIdentity;
use crate::tls::{RelayTls, TlsSession};
use bytes::{Bytes, BytesMut};
use relay_core::sstp::output::OutputQueue;
use std::io::{self, IoSlice, Read, Write};
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
    tls: Option<TlsSession>,
    buffer: BytesMut,
}

impl Transport {
    /// Tries the relay's addresses in their order: those for TLS if its identity has any, and then no others.
    pub(crate) async fn dial(relay: RelayIdentity) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
        let addresses = relay.tls.as_ref().map_or(&relay.addresses, |tls| &tls.addresses);
        for address in addresses {
            match timeout(DIAL_TIMEOUT, Self::dial_one(address, relay.tls.as_ref())).await {
                Ok(Ok(transport)) => {
                    tracing::debug!(address, tls = transport.tls.is_some(), "connected");
                    return Ok(transport);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(address, error = %last, "cannot connect");
        }
        Err(last)
    }

    async fn dial_one(address: &str, tls: Option<&RelayTls>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let tls = tls.map(RelayTls::session).transpose().map_err(io::Error::other)?;
        let mut transport = Self { stream, tls, buffer: BytesMut::new() };
        transport.shake_hands().await?;
        Ok(transport)
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.is_handshaking() || tls.wants_write() {
            match tls.flush(Trying(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
                Ok(()) if !tls.is_handshaking() => {}
                Ok(()) => {
                    self.stream.readable().await?;
                    match tls.read(Trying(&self.stream), &mut self.buffer) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            // The alert that says why; the handshake has failed either way.
                            let _ = tls.flush(Trying(&self.stream));
                            return Err(error);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until it can be read (if wanted) or written (if wanted).
    pub(crate) async fn ready(&self, read: bool, write: bool) -> io::Result<()> {
        let write = write || self.tls.as_ref().is_some_and(TlsSession::wants_write);
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
        let read = match &mut self.tls {
            None => self.stream.try_read_buf(&mut self.buffer).and_then(|length| match length {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            }),
            Some(tls) => Self::decrypt(&self.stream, tls, &mut self.buffer),
        };
        match read {
            Err(error) if self.buffer.is_empty() && error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // An error that came behind something comes again.
            _ => Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze())),
        }
    }

    fn decrypt(stream: &TcpStream, tls: &mut TlsSession, buffer: &mut BytesMut) -> io::Result<()> {
        while buffer.len() < READ_BYTES {
            tls.read(Trying(stream), buffer)?;
        }
        Ok(())
    }

    /// Sends as much as goes without waiting; whether anything went.
    pub(crate) fn write(&mut self, output: &mut OutputQueue) -> io::Result<bool> {
        let mut any = false;
        loop {
            let had = output.len();
            let written = match &mut self.tls {
                None if output.is_empty() => return Ok(any),
                None => {
                    let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                    let filled = output.gather(&mut slices);
                    self.stream.try_write_vectored(&slices[..filled]).map(|sent| output.advance(sent))
                }
                Some(tls) if output.is_empty() && !tls.wants_write() => return Ok(any),
                Some(tls) => tls.encrypt(output).and_then(|()| tls.flush(Trying(&self.stream))),
            };
            any |= output.len() < had;
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the last words and waits a little for the relay to have read them: closing at once with unread input would
    /// take them back.
    pub(crate) async fn hang_up(mut self, mut last_words: Bytes) {
        let farewell = async {
            if let Some(tls) = &mut self.tls {
                last_words = tls.close(&last_words)?.into();
            }
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

/// A socket that is read and written without waiting.
struct Trying<'a>(&'a TcpStream);

impl Read for Trying<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Trying<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
