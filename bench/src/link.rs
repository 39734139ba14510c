//! A nonblocking TCP connection with its buffers, and the epoll instance that watches many. Knows no protocol.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Least room for one read.
const READ_BYTES: usize = 256 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    /// The beginning of a command whose end has not arrived.
    rest: Vec<u8>,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    sent: usize,
    /// The kernel took no more; writing waits for its word.
    blocked: bool,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::adopt(TcpStream::connect(address)?)
    }

    /// Takes a connected stream.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn adopt(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, rest: Vec::new(), out: Vec::new(), sent: 0, blocked: false })
    }

    /// Reads once and gives everything not yet used to `take`, which says how much it has used. `scratch` is
    /// shared by all links of a thread, so that an idle link owns no read buffer. `false` at the end of the stream.
    ///
    /// # Errors
    /// Of the system, or of `take`.
    pub(crate) fn receive<E: From<io::Error>>(
        &mut self,
        scratch: &mut Vec<u8>,
        take: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<bool, E> {
        let held = self.rest.len();
        if scratch.len() < held + READ_BYTES {
            scratch.resize(held + READ_BYTES, 0);
        }
        scratch[..held].copy_from_slice(&self.rest);
        let count = match self.stream.read(&mut scratch[held..]) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let input = &scratch[..held + count];
        let used = take(input, &mut self.out)?;
        self.rest.clear();
        self.rest.extend_from_slice(&input[used..]);
        Ok(true)
    }

    /// Writes what is to be sent, as far as the kernel takes it.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn flush(&mut self, epoll: &Epoll, token: usize) -> io::Result<()> {
        if self.blocked || self.out.is_empty() {
            return Ok(());
        }
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return epoll.watch_writing(self, token, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// The kernel takes bytes again.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn unblock(&mut self, epoll: &Epoll, token: usize) -> io::Result<()> {
        if std::mem::take(&mut self.blocked) {
            epoll.watch_writing(self, token, false)?;
        }
        self.flush(epoll, token)
    }

    /// Closes with a reset, so that thousands of closed connections do not hold ports.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Leaves what is not sent at once with us and not with the kernel, as whoever has more urgent things to say does.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn keep_unsent(&self, most_in_kernel: u32) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(most_in_kernel)
    }

    /// Bytes that wait to be sent.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Gives the buffers of an idle link back.
    pub(crate) fn shrink(&mut self) {
        self.rest.shrink_to_fit();
        self.out.shrink_to_fit();
    }
}

/// What a link is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// Which link.
    pub(crate) token: usize,
    /// Bytes to read, the end of the stream, or an error.
    pub(crate) readable: bool,
    /// Room to write.
    pub(crate) writable: bool,
}

/// An epoll instance.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Epoll {
    /// An instance that watches nothing.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(512) })
    }

    /// Watches a link for bytes to read.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn add(&self, link: &Link, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.fd, &link.stream, EventData::new_u64(token as u64), EventFlags::IN)?)
    }

    /// Watches any descriptor for bytes to read.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn add_source(&self, source: impl std::os::fd::AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, EventData::new_u64(token as u64), EventFlags::IN)?)
    }

    fn watch_writing(&self, link: &Link, token: usize, writing: bool) -> io::Result<()> {
        let flags = if writing { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.fd, &link.stream, EventData::new_u64(token as u64), flags)?)
    }

    /// Waits for at most `patience`, and fills `ready` with what is ready.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn wait(&mut self, patience: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        if !self.look()? && !patience.is_zero() {
            // ppoll keeps time to the nanosecond, which epoll_wait does not.
            let timeout =
                Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => self.look()?,
                Err(error) => return Err(error.into()),
            };
        }
        let writable = EventFlags::OUT;
        ready.extend(self.events.drain(..).map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64() as usize,
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                writable: flags.intersects(writable),
            }
        }));
        Ok(())
    }

    fn look(&mut self) -> io::Result<bool> {
        self.events.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.events), Some(&now)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
