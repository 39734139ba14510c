//! What carries a connection: a socket of its own, or a virtual connection made of HTTP requests. Who uses it does not see
//! the difference.

use super::Signal;
use crate::tls::TlsSession;
use crate::transport::{ReadBuffers, Socket};
use bytes::Bytes;
use client::Clock;
use relay_core::http::server::{HttpServer, HttpServerConfig, Receipt, SocketId, VirtualId};
use relay_core::sstp::output::OutputQueue;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// See the module's head.
pub(super) enum Line {
    Socket(Socket),
    Virtual(VirtualLine),
}

impl Line {
    /// As [`Socket::poll_receive`].
    pub(super) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffers: &RefCell<ReadBuffers>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        match self {
            Line::Socket(socket) => socket.poll_receive(context, buffers),
            Line::Virtual(line) => line.poll_receive(context).map(Ok),
        }
    }

    /// As [`Socket::wants_write`].
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Line::Socket(socket) if socket.wants_write())
    }

    /// As [`Socket::send`].
    pub(super) fn send(&self, output: &mut OutputQueue) -> io::Result<bool> {
        match self {
            Line::Socket(socket) => socket.send(output),
            Line::Virtual(line) => line.send(output),
        }
    }

    /// As [`Socket::poll_writable`].
    pub(super) fn poll_writable(
        &self,
        context: &mut Context<'_>,
        output: &mut OutputQueue,
    ) -> Poll<io::Result<()>> {
        match self {
            Line::Socket(socket) => socket.poll_writable(context, output),
            Line::Virtual(line) => line.poll_writable(context).map(Ok),
        }
    }

    /// As [`Socket::finish_sending`].
    pub(super) fn finish_sending(&self) {
        match self {
            Line::Socket(socket) => socket.finish_sending(),
            Line::Virtual(line) => line.finish_sending(),
        }
    }

    /// As [`Socket::give_away`].
    pub(super) fn give_away(&self) -> io::Result<OwnedFd> {
        match self {
            Line::Socket(socket) => socket.give_away(),
            // The relay hands none of them on.
            Line::Virtual(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// As [`Socket::take_tls`].
    pub(super) fn take_tls(&self) -> Option<TlsSession> {
        match self {
            Line::Socket(socket) => socket.take_tls(),
            Line::Virtual(_) => None,
        }
    }
}

/// One virtual connection, for its owner. Dropping it ends it.
pub(super) struct VirtualLine {
    door: Rc<Door>,
    id: VirtualId,
}

impl VirtualLine {
    pub(super) fn new(door: Rc<Door>, id: VirtualId) -> Self {
        Self { door, id }
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let receipt = self.door.http.borrow_mut().receive(self.door.clock.now(), self.id);
        match receipt {
            Receipt::Bytes(bytes) => {
                self.door.changed.raise();
                Poll::Ready(Some(bytes))
            }
            Receipt::End => Poll::Ready(None),
            Receipt::Nothing => {
                self.door.waiting.borrow_mut().entry(self.id).or_default().reader =
                    Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn send(&self, output: &mut OutputQueue) -> io::Result<bool> {
        self.door.changed.raise();
        let sent = self.door.http.borrow_mut().send(self.door.clock.now(), self.id, output);
        sent.map_err(|ended| io::Error::new(io::ErrorKind::BrokenPipe, ended))
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.door.http.borrow().has_room(self.id) {
            return Poll::Ready(());
        }
        self.door.waiting.borrow_mut().entry(self.id).or_default().writer = Some(context.waker().clone());
        Poll::Pending
    }

    fn finish_sending(&self) {
        self.door.http.borrow_mut().finish(self.door.clock.now(), self.id);
        self.door.changed.raise();
    }
}

impl Drop for VirtualLine {
    fn drop(&mut self) {
        self.door.http.borrow_mut().release(self.door.clock.now(), self.id);
        self.door.waiting.borrow_mut().remove(&self.id);
        self.door.changed.raise();
    }
}

/// Where HTTP comes in: the machine of the shard and what belongs to it.
pub(super) struct Door {
    pub(super) http: RefCell<HttpServer>,
    pub(super) clock: Clock,
    pub(super) sockets: RefCell<HashMap<SocketId, Rc<HttpSocket>>>,
    /// Owners of virtual connections that wait for bytes or for room.
    waiting: RefCell<HashMap<VirtualId, Waiting>>,
    /// A virtual connection's owner has done something that sockets may have to hear of.
    pub(super) changed: Signal,
}

#[derive(Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// An HTTP connection.
pub(super) struct HttpSocket {
    pub(super) id: SocketId,
    pub(super) line: Line,
    pub(super) reader: Cell<Option<Waker>>,
    pub(super) writer: Cell<Option<Waker>>,
    pub(super) blocked: Cell<bool>,
    /// It is given up if it does not take its last words soon.
    pub(super) given_time: Cell<bool>,
    /// What is left to be done with it.
    pub(super) fate: Cell<super::carrier::Fate>,
}

impl Door {
    pub(super) fn new(config: HttpServerConfig, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            http: RefCell::new(HttpServer::new(config)),
            clock,
            sockets: RefCell::default(),
            waiting: RefCell::default(),
            changed: Signal::default(),
        })
    }

    pub(super) fn socket(&self, id: SocketId) -> Option<Rc<HttpSocket>> {
        self.sockets.borrow().get(&id).cloned()
    }

    /// The owner of a virtual connection may read on.
    pub(super) fn wake_reader(&self, id: VirtualId) {
        let waker = self.waiting.borrow_mut().get_mut(&id).and_then(|waiting| waiting.reader.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The owner of a virtual connection may write on.
    pub(super) fn wake_writer(&self, id: VirtualId) {
        let waker = self.waiting.borrow_mut().get_mut(&id).and_then(|waiting| waiting.writer.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
