//! The one module that touches glommio's sockets, so that another io_uring driver can be tried in its place.
//!
//! Reads land in large buffers that all connections of the shard share; a connection owns none. Writes go out many commands at
//! a time, as the vector of slices that the connection has queued.

use crate::activation::Inherited;
use crate::tls::{Certificate, TlsSession};
use bytes::{Buf, Bytes, BytesMut};
use futures_lite::AsyncRead;
use futures_lite::AsyncWrite;
use glommio::net::{TcpListener, TcpStream};
use relay_core::sstp::output::OutputQueue;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Type};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Size of a shared read buffer. A hundred-byte message takes a thousandth of it, so the allocation is none per message.
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// The most that one read takes, and the least room that it is given.
const READ_BYTES: usize = 64 * 1024;
const LEAST_ROOM_BYTES: usize = 16 * 1024;
/// Slices that one send takes; the kernel allows 1024.
const SEND_SLICES: usize = 256;

/// Bytes that the kernel takes and does not send at once. More would only wait there, before whatever is said next on the
/// same connection; what waits with us goes out in turn.
const UNSENT_BYTES: u32 = 128 * 1024;

/// What is spoken on the connections of a listener.
#[derive(Clone)]
pub enum Protocol {
    /// SSTP.
    Sstp,
    /// SSTP inside TLS, with this certificate.
    Tls(Certificate),
    /// SSTP inside HTTP.
    Http,
}

/// A listening socket of one shard. All shards listen on the same address (SO_REUSEPORT), unless the socket is inherited.
pub struct Listener {
    socket: TcpListener,
    inherited: bool,
    protocol: Protocol,
}

impl Listener {
    /// Binds and listens. Must be called on a glommio executor. The kernel ends a connection
    /// whose peer takes nothing of what is sent to it for `peer_timeout`, even if it goes on sending itself.
    ///
    /// # Errors
    /// What the system says, for example that the address is in use.
    pub fn bind(
        address: SocketAddr,
        backlog: usize,
        peer_timeout: Duration,
        protocol: Protocol,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_options(&socket, peer_timeout)?;
        socket.bind(&address.into())?;
        socket.listen(backlog as i32)?;
        Ok(Self { socket: adopt_listener(socket.into()), inherited: false, protocol })
    }

    /// As [`Listener::bind`], with a socket that listens already. It stays open with its owner, and with it those who wait
    /// to be accepted. Only one shard of a relay may call [`Listener::accept`]: glommio switches the socket between blocking
    /// and not around each accept, and the switch belongs to all copies of the descriptor.
    ///
    /// # Errors
    /// What the system says.
    pub fn inherit(inherited: &Inherited, peer_timeout: Duration, protocol: Protocol) -> io::Result<Self> {
        let socket = socket2::Socket::from(inherited.socket.try_clone()?);
        // A relay that was killed may have left it the other way.
        socket.set_nonblocking(false)?;
        set_options(&socket, peer_timeout)?;
        Ok(Self { socket: adopt_listener(socket.into()), inherited: true, protocol })
    }

    /// Whether one shard accepts here for all.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says; most are about that one connection, or about descriptors that have run out.
    pub async fn accept(&self) -> io::Result<Socket> {
        let stream = self.socket.accept().await?;
        Ok(Socket { stream: RefCell::new(stream), tls: RefCell::new(None) })
    }

    /// Whether its connections speak TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.protocol, Protocol::Tls(_))
    }

    /// Whether its connections speak HTTP.
    pub fn is_http(&self) -> bool {
        matches!(self.protocol, Protocol::Http)
    }

    /// Puts TLS around a socket that was accepted here, if the listener is for TLS.
    ///
    /// # Errors
    /// None in practice: the certificate was checked when it was read.
    pub fn wrap(&self, socket: Socket) -> io::Result<Socket> {
        if let Protocol::Tls(certificate) = &self.protocol {
            let session = certificate.accept().map_err(io::Error::other)?;
            socket.tls.replace(Some(Box::new(Tls { session, sending: false })));
        }
        Ok(socket)
    }
}

/// What is accepted inherits these, at no call of its own.
fn set_options(listener: &socket2::Socket, peer_timeout: Duration) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    listener.set_tcp_user_timeout(Some(peer_timeout))
}

/// A connected socket, perhaps with TLS around it; who uses it does not see the difference.
pub struct Socket {
    stream: RefCell<TcpStream>,
    /// Apart, since most have none.
    tls: RefCell<Option<Box<Tls>>>,
}

struct Tls {
    session: TlsSession,
    /// The ring has the first ciphertext and has not said how much of it went.
    sending: bool,
}

impl Socket {
    /// Connects to an address. Must be called on a glommio executor.
    ///
    /// # Errors
    /// What the system says, and that it took longer than `patience`.
    pub async fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(address, patience).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: RefCell::new(stream), tls: RefCell::new(None) })
    }

    /// Takes over a socket that another shard gave away. Must be called on a glommio executor.
    pub fn adopt(fd: OwnedFd, tls: Option<TlsSession>) -> Self {
        let tls = tls.map(|session| Box::new(Tls { session, sending: false }));
        Self { stream: RefCell::new(adopt_stream(fd)), tls: RefCell::new(tls) }
    }

    /// The descriptor, to be given away with [`Socket::take_tls`].
    ///
    /// # Errors
    /// No descriptor is left for the moment of passing over, or the ring is still sending from it.
    pub fn give_away(&self) -> io::Result<OwnedFd> {
        if self.tls.borrow().as_ref().is_some_and(|tls| tls.sending) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        borrow(&self.stream.borrow()).try_clone_to_owned()
    }

    /// Its TLS, if it has one; nothing more is to be done with the socket itself.
    pub fn take_tls(&self) -> Option<TlsSession> {
        self.tls.take().map(|tls| tls.session)
    }

    /// The peer's address, for the log.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.borrow().peer_addr().ok()
    }

    /// Receives into one of `buffers`; `None` at the end of the stream. With TLS there may be nothing yet for the owner in
    /// what came: then the bytes are empty. In either case there may be something to send: see [`Socket::wants_write`].
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffers: &RefCell<ReadBuffers>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let mut buffers = buffers.borrow_mut();
        let room = buffers.room();
        let length = match Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, room) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
            Poll::Ready(Ok(length)) => length,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let mut tls = self.tls.borrow_mut();
        let Some(tls) = &mut *tls else { return Poll::Ready(Ok(Some(buffers.take(length)))) };
        let received = tls.session.receive(&room[..length]);
        if received.is_err() {
            // The alert that says why; a peer that does not take it at once is not waited for.
            let _ = self.send_ciphertext(tls);
        }
        Poll::Ready(received)
    }

    /// Whether TLS has something to send, apart from what its owner has.
    pub fn wants_write(&self) -> bool {
        self.tls.borrow().as_ref().is_some_and(|tls| tls.session.wants_write())
    }

    /// Sends the front of `output` as far as the kernel takes it at once, and removes it there. `Ok(false)` if the kernel's
    /// buffer is full: see [`Socket::poll_writable`].
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&self, output: &mut OutputQueue) -> io::Result<bool> {
        let mut tls = self.tls.borrow_mut();
        let Some(tls) = &mut *tls else { return self.send_plain(output) };
        loop {
            tls.session.encrypt(output)?;
            if !tls.session.wants_write() {
                return Ok(true);
            }
            if !self.send_ciphertext(tls)? {
                return Ok(false);
            }
        }
    }

    fn send_plain(&self, output: &mut OutputQueue) -> io::Result<bool> {
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SEND_SLICES];
            let filled = output.gather(&mut slices);
            let Some(sent) = self.send_slices(&slices[..filled])? else { return Ok(false) };
            output.advance(sent);
        }
        Ok(true)
    }

    /// Sends all ciphertext, or says `false` if the kernel does not take it now.
    fn send_ciphertext(&self, tls: &mut Tls) -> io::Result<bool> {
        if tls.sending {
            return Ok(false);
        }
        let ciphertext = tls.session.ciphertext()?;
        while !ciphertext.is_empty() {
            let Some(sent) = self.send_slices(&[IoSlice::new(ciphertext)])? else { return Ok(false) };
            ciphertext.advance(sent);
        }
        Ok(true)
    }

    /// How much the kernel took at once; `None` if nothing.
    fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let stream = self.stream.borrow();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let mut nothing = SendAncillaryBuffer::new(&mut []);
            match rustix::net::sendmsg(borrow(&stream), slices, &mut nothing, flags) {
                Ok(sent) => return Ok(Some(sent)),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the kernel takes bytes again, by sending the first of `output` through the ring.
    pub fn poll_writable(&self, context: &mut Context<'_>, output: &mut OutputQueue) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut *self.tls.borrow_mut() {
            return self.poll_ciphertext(context, tls);
        }
        let mut first = [IoSlice::new(&[])];
        if output.gather(&mut first) == 0 {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut *self.stream.borrow_mut()).poll_write(context, &first[0]) {
            Poll::Ready(Ok(sent)) => {
                output.advance(sent);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_ciphertext(&self, context: &mut Context<'_>, tls: &mut Tls) -> Poll<io::Result<()>> {
        let ciphertext = tls.session.ciphertext()?;
        if ciphertext.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let sent = Pin::new(&mut *self.stream.borrow_mut()).poll_write(context, ciphertext);
        tls.sending = sent.is_pending();
        match sent {
            Poll::Ready(Ok(sent)) => {
                ciphertext.advance(sent);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Closes it with a reset: the kernel forgets it at once, and exchanges no farewells with somebody who may have thousands
    /// more to close.
    pub fn reset(self) {
        // If it fails the connection is closed in the ordinary way.
        let _ = socket2::SockRef::from(&borrow(&self.stream.borrow())).set_linger(Some(Duration::ZERO));
    }

    /// Tells the peer that nothing more comes. What it has sent is still to be read, or the kernel would reset the connection
    /// and our last words with it.
    pub fn finish_sending(&self) {
        if let Some(tls) = &mut *self.tls.borrow_mut() {
            tls.session.close();
            // A peer that does not take it at once is not waited for.
            let _ = self.send_ciphertext(tls);
        }
        let stream = self.stream.borrow();
        // A connection that is broken already needs no goodbye.
        let _ = socket2::SockRef::from(&borrow(&stream)).shutdown(Shutdown::Write);
    }
}

/// The buffers into which a shard reads.
#[derive(Debug, Default)]
pub struct ReadBuffers {
    /// Zeroed, and all of it free: what was received has been split off its front.
    free: BytesMut,
}

impl ReadBuffers {
    fn room(&mut self) -> &mut [u8] {
        if self.free.len() < LEAST_ROOM_BYTES {
            self.free = BytesMut::zeroed(READ_BUFFER_BYTES);
        }
        let most = self.free.len().min(READ_BYTES);
        &mut self.free[..most]
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.free.split_to(length).freeze()
    }
}

#[expect(unsafe_code, reason = "glommio's streams lend their descriptor only as a number")]
fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and closes it only when it is dropped, which the borrow of `stream` forbids for
    // the lifetime of the result.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

#[expect(unsafe_code, reason = "glommio takes a socket of ours only as a number")]
fn adopt_stream(fd: OwnedFd) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the ownership that the stream takes.
    unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) }
}

#[expect(unsafe_code, reason = "glommio's own bind has a fixed backlog")]
fn adopt_listener(fd: OwnedFd) -> TcpListener {
    // SAFETY: `into_raw_fd` gives up the ownership that the listener takes.
    unsafe { TcpListener::from_raw_fd(fd.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::{tcp_nodelay, tcp_user_timeout};

    #[test]
    #[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    fn what_is_accepted_has_the_options_of_its_listener() {
        let executor = glommio::LocalExecutor::default();
        executor.run(async {
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = Listener::bind(local, 4, Duration::from_secs(135), Protocol::Sstp).unwrap();
            let address = listener.socket.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            let accepted = listener.accept().await.unwrap();
            let stream = accepted.stream.borrow();
            assert!(tcp_nodelay(borrow(&stream)).unwrap());
            assert_eq!(tcp_user_timeout(borrow(&stream)).unwrap(), 135_000);
            let unsent = socket2::SockRef::from(&borrow(&stream)).tcp_notsent_lowat().unwrap();
            assert_eq!(unsent, UNSENT_BYTES);
            drop(client);
        });
    }
}
