//! The one module that touches glommio's sockets, so that another io_uring driver can be tried in its place.
//!
//! Reads land in large buffers that all connections of the shard share; a connection owns none. Writes go out many commands at
//! a time, as the vector of slices that the connection has queued.

use bytes::{Bytes, BytesMut};
use futures_lite::AsyncRead;
use futures_lite::AsyncWrite;
use glommio::net::{TcpListener, TcpStream};
use relay_core::sstp::output::OutputQueue;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, Type};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Size of a shared read buffer. A hundred-byte message takes a thousandth of it, so the allocation is none per message.
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// The most that one read takes, and the least room that it is given.
const READ_BYTES: usize = 64 * 1024;
const LEAST_ROOM_BYTES: usize = 16 * 1024;
/// Slices that one send takes; the kernel allows 1024.
const SEND_SLICES: usize = 256;

/// A listening socket of one shard. All shards listen on the same address (SO_REUSEPORT).
pub struct Listener(TcpListener);

impl Listener {
    /// Binds and listens. Must be called on a glommio executor.
    ///
    /// # Errors
    /// What the system says, for example that the address is in use.
    pub fn bind(address: SocketAddr, backlog: usize) -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog as i32)?;
        Ok(Self(adopt_listener(socket.into())))
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says; most are about that one connection, or about descriptors that have run out.
    pub async fn accept(&self) -> io::Result<Socket> {
        let stream = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Socket(RefCell::new(stream)))
    }
}

/// A connected socket.
pub struct Socket(RefCell<TcpStream>);

impl Socket {
    /// Takes over a socket that another shard gave away. Must be called on a glommio executor.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(RefCell::new(adopt_stream(fd)))
    }

    /// Gives the socket away.
    ///
    /// # Errors
    /// No descriptor is left for the moment of passing over.
    pub fn give_away(&self) -> io::Result<OwnedFd> {
        borrow(&self.0.borrow()).try_clone_to_owned()
    }

    /// The peer's address, for the log.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.borrow().peer_addr().ok()
    }

    /// Receives into one of `buffers`; empty at the end of the stream.
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffers: &RefCell<ReadBuffers>,
    ) -> Poll<io::Result<Bytes>> {
        let mut buffers = buffers.borrow_mut();
        let room = buffers.room();
        let length = match Pin::new(&mut *self.0.borrow_mut()).poll_read(context, room) {
            Poll::Ready(Ok(length)) => length,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Ok(buffers.take(length)))
    }

    /// Sends the front of `output` as far as the kernel takes it at once, and removes it there. `Ok(false)` if the kernel's
    /// buffer is full: see [`Socket::poll_writable`].
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&self, output: &mut OutputQueue) -> io::Result<bool> {
        let stream = self.0.borrow();
        let fd = borrow(&stream);
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SEND_SLICES];
            let filled = output.gather(&mut slices);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let mut nothing = SendAncillaryBuffer::new(&mut []);
            match rustix::net::sendmsg(fd, &slices[..filled], &mut nothing, flags) {
                Ok(sent) => output.advance(sent),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Waits until the kernel takes bytes again, by sending the first of `output` through the ring.
    pub fn poll_writable(&self, context: &mut Context<'_>, output: &mut OutputQueue) -> Poll<io::Result<()>> {
        let mut first = [IoSlice::new(&[])];
        if output.gather(&mut first) == 0 {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut *self.0.borrow_mut()).poll_write(context, &first[0]) {
            Poll::Ready(Ok(sent)) => {
                output.advance(sent);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Tells the peer that nothing more comes. What it has sent is still to be read, or the kernel would reset the connection
    /// and our last words with it.
    pub fn finish_sending(&self) {
        let stream = self.0.borrow();
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
