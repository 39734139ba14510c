//! The byte pipe to the relay over one TCP connection, perhaps through a tunnel that a proxy opens, perhaps with TLS; small writes
//! are sent at once.

use super::proxies::{Proxy, split};
use crate::tls::{RelayTls, TlsSession};
use bytes::{Bytes, BytesMut};
use relay_core::http::proxy::{Connect, Progress, ProxyError, Socks};
use relay_core::sstp::output::OutputQueue;
use relay_core::sstp::profile::PORT;
use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the relay may take to close after our last words.
const LINGER: Duration = Duration::from_secs(1);
/// What one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// Slices of one write.
const WRITE_SLICES: usize = 64;

/// A connection to the relay.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: TcpStream,
    tls: Option<TlsSession>,
    buffer: BytesMut,
}

/// What stands between this machine and the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Through<'a> {
    Nothing,
    /// An HTTP proxy that opens a tunnel by CONNECT.
    Connect(&'a Proxy),
    /// A SOCKS 5 proxy.
    Socks(&'a Proxy),
}

impl Stream {
    /// Connects to the relay at `address`.
    pub(crate) async fn dial(
        address: &str,
        through: Through<'_>,
        tls: Option<&RelayTls>,
    ) -> io::Result<Self> {
        let stream = match through {
            Through::Nothing => TcpStream::connect(address).await?,
            Through::Connect(proxy) => {
                let (mut connect, hello) = Connect::new(address, proxy.credentials.as_ref());
                tunnel(proxy, hello, |bytes| connect.receive(bytes)).await?
            }
            Through::Socks(proxy) => {
                let (host, port) = split(address);
                let port = port.and_then(|port| port.parse().ok()).unwrap_or(PORT);
                let (mut socks, hello) =
                    Socks::new(host.trim_matches(['[', ']']), port, proxy.credentials.as_ref())
                        .map_err(io::Error::other)?;
                tunnel(proxy, hello, |bytes| socks.receive(bytes)).await?
            }
        };
        stream.set_nodelay(true)?;
        let tls = tls.map(RelayTls::session).transpose().map_err(io::Error::other)?;
        let mut dialled = Self { stream, tls, buffer: BytesMut::new() };
        dialled.shake_hands().await?;
        Ok(dialled)
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

/// Connects to a proxy and lets it open a tunnel.
async fn tunnel(
    proxy: &Proxy,
    hello: Bytes,
    mut receive: impl FnMut(&[u8]) -> Result<Progress, ProxyError>,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(&proxy.address).await?;
    stream.write_all(&hello).await?;
    // One octet more than asked for would belong to the tunnel, in which a relay does not speak first.
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match receive(&buffer[..length]).map_err(io::Error::other)? {
            Progress::Send(bytes) => stream.write_all(&bytes).await?,
            Progress::Open(first) if first.is_empty() => return Ok(stream),
            Progress::Open(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the other end speaks first"));
            }
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
