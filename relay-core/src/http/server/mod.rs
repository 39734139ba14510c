//! The relay's end of HTTP: all HTTP connections of one shard and the virtual connections that they make up, as one machine
//! without I/O.
//!
//! Inputs: accepted sockets, their bytes, their ends, the time, and from the owner of a virtual connection what it has to
//! send. Outputs: bytes for sockets, and [`Action`]s. After every input the driver sees to:
//!
//! * [`HttpServer::take_touched`]: sockets that may have output or are to be closed;
//! * [`HttpServer::next_action`]: the rest.
//!
//! The GET and POST halves of a virtual connection arrive in either order, on whichever shard: a socket whose request
//! names a GUID that another shard owns is handed over with all that was received on it.
//!
//! **Lost and repeated requests.** Polling counts its requests, so a repeated one is answered with the same answer again,
//! which makes a lost answer harmless; the published text says nothing of it, and a client of that text never repeats. LongLived and KeepAlive count nothing: there,
//! what may be lost with a socket ends the virtual connection, and SSTP sends it again over the next one.
//!
//! **Whose it is.** Who knows a GUID owns its virtual connection; clients make them of 192 random bits. By configuration a virtual
//! connection also stays with the address that began it; not by default, since proxy farms have many addresses (7.8).

mod keep_alive;
mod limits;
mod long_lived;
mod polling;
mod requests;
mod sockets;
mod timers;
mod virtual_connection;

pub use sockets::SocketId;
pub use virtual_connection::VirtualId;

use super::guid::Guid;
use super::profile::INBOX_BYTES;
use super::target::Encapsulation;
use crate::relay::ShardId;
use crate::sstp::output::OutputQueue;
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::HashMap;
use limits::Strangers;
use slab::Slab;
use sockets::{Phase, Socket};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
use timers::Timers;
use virtual_connection::Virtual;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct HttpServerConfig {
    /// This shard.
    pub shard: ShardId,
    /// Shards of the relay, at least 1.
    pub shards: u16,
    /// HTTP connections of the shard that carry no virtual connection; a further one is turned away.
    pub max_strangers: usize,
    /// The same from one address (IPv6: from one /64).
    pub max_strangers_per_address: usize,
    /// How long a request may take to arrive.
    pub request_deadline: Duration,
    /// The poll interval that is dictated while there is little to do, in whole seconds, at least 1.
    pub poll_interval: Duration,
    /// A virtual connection belongs to the address that began it.
    pub bind_address: bool,
}

/// Something that only the driver can do.
#[derive(Debug)]
pub enum Action {
    /// Give the socket and these bytes to another shard, which calls [`HttpServer::accepted`] with them. The socket is
    /// unknown here from now on.
    HandOver {
        /// The socket.
        socket: SocketId,
        /// The owner of its virtual connection.
        shard: ShardId,
        /// Everything received on it so far.
        bytes: Bytes,
    },
    /// A virtual connection has begun: it wants an owner, or [`HttpServer::release`].
    Opened {
        /// The virtual connection.
        connection: VirtualId,
        /// Whose socket began it.
        address: Option<IpAddr>,
    },
    /// [`HttpServer::receive`] has something to say, bytes or the end.
    Readable(VirtualId),
    /// [`HttpServer::send`], which had left something, may go on.
    Writable(VirtualId),
    /// Reading from this socket, which [`HttpServer::wants_read`] had denied, may go on.
    Resume(SocketId),
}

/// What a virtual connection has for its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Bytes of the stream.
    Bytes(Bytes),
    /// Nothing now; [`Action::Readable`] follows.
    Nothing,
    /// It has ended, and all its bytes were received.
    End,
}

/// The virtual connection has ended, so nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the virtual connection has ended")]
pub struct Ended;

/// Counters of one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpStats {
    /// Virtual connections that have begun, by encapsulation: LongLived, KeepAlive, Polling.
    pub opened: [u64; 3],
    /// Sockets handed to the shard that owns their GUID.
    pub handed_over: u64,
    /// Requests answered with an error.
    pub refused: u64,
    /// Polls answered again.
    pub repeated: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct HttpServer {
    config: HttpServerConfig,
    now: Timestamp,
    generation: u32,
    sockets: Slab<Socket>,
    connections: Slab<Virtual>,
    by_guid: HashMap<Guid, VirtualId>,
    strangers: Strangers,
    timers: Timers,
    /// Sockets whose next request may be there already.
    unread: Vec<SocketId>,
    touched: Vec<SocketId>,
    actions: VecDeque<Action>,
    polling: usize,
    stats: HttpStats,
}

impl HttpServer {
    /// A shard without HTTP connections.
    pub fn new(config: HttpServerConfig) -> Self {
        Self {
            config,
            now: Timestamp(0),
            generation: 0,
            sockets: Slab::new(),
            connections: Slab::new(),
            by_guid: HashMap::new(),
            strangers: Strangers::default(),
            timers: Timers::default(),
            unread: Vec::new(),
            touched: Vec::new(),
            actions: VecDeque::new(),
            polling: 0,
            stats: HttpStats::default(),
        }
    }

    /// A socket was accepted, or handed over by another shard with what was received on it. `None` if there are too
    /// many that carry nothing yet: the driver drops it.
    pub fn accepted(
        &mut self,
        now: Timestamp,
        address: Option<IpAddr>,
        handed_over: Option<Bytes>,
    ) -> Option<SocketId> {
        self.now = now;
        if !self.strangers.enter(address, &self.config) {
            return None;
        }
        let id = SocketId { index: self.sockets.vacant_key() as u32, generation: self.next_generation() };
        let socket = Socket::new(id, address, handed_over.is_some());
        self.sockets.insert(socket);
        self.arm_socket(id, now + self.config.request_deadline);
        if let Some(bytes) = handed_over {
            self.received(now, id, bytes);
        }
        Some(id)
    }

    /// Bytes arrived on a socket.
    pub fn received(&mut self, now: Timestamp, id: SocketId, bytes: Bytes) {
        self.now = now;
        self.bytes_received(id, bytes);
        self.settle();
    }

    /// A socket is gone, be it lost or closed by the driver. It is unknown from now on.
    pub fn lost(&mut self, now: Timestamp, id: SocketId) {
        self.now = now;
        self.drop_socket(id);
        self.settle();
    }

    /// Whether the driver may read from the socket. Once denied, [`Action::Resume`] follows.
    pub fn wants_read(&self, id: SocketId) -> bool {
        let Some(socket) = self.socket(id) else { return true };
        let streams = matches!(socket.phase, Phase::Upload);
        let connection = socket.attached.filter(|_| streams).and_then(|id| self.connection(id));
        connection.is_none_or(|connection| connection.ended || connection.inbox_bytes < INBOX_BYTES)
    }

    /// Sockets that may have output or are to be closed, since the last call. For each: [`HttpServer::output`], send,
    /// [`HttpServer::sent`], and once [`HttpServer::is_finished`], close it and call [`HttpServer::lost`].
    pub fn take_touched(&mut self, into: &mut Vec<SocketId>) {
        for id in self.touched.drain(..) {
            if let Some(socket) = self.sockets.get_mut(id.index as usize).filter(|socket| socket.id == id) {
                socket.touched = false;
                into.push(id);
            }
        }
    }

    /// What is to be sent on a socket; `None` if it is unknown.
    pub fn output(&mut self, id: SocketId) -> Option<&mut OutputQueue> {
        self.socket_mut(id).map(|socket| &mut socket.output)
    }

    /// Output of a socket has been sent: what waited for room goes on. More may be there afterwards.
    pub fn sent(&mut self, now: Timestamp, id: SocketId) {
        self.now = now;
        if let Some(connection) = self.socket(id).and_then(|socket| socket.attached) {
            self.pump(connection);
        }
        self.settle();
    }

    /// Whether the socket is to be closed and all its output is sent.
    pub fn is_finished(&self, id: SocketId) -> bool {
        self.socket(id).is_none_or(|socket| matches!(socket.phase, Phase::Ending) && socket.output.is_empty())
    }

    /// Whether the socket is to be closed once its output is sent.
    pub fn is_ending(&self, id: SocketId) -> bool {
        self.socket(id).is_some_and(|socket| matches!(socket.phase, Phase::Ending))
    }

    /// What a virtual connection has for its owner.
    pub fn receive(&mut self, now: Timestamp, id: VirtualId) -> Receipt {
        self.now = now;
        let Some(connection) = self.connection_mut(id) else { return Receipt::End };
        match connection.inbox.pop_front() {
            Some(bytes) => {
                let before = connection.inbox_bytes;
                connection.inbox_bytes -= bytes.len();
                let has_room = before >= INBOX_BYTES && connection.inbox_bytes < INBOX_BYTES;
                if has_room {
                    self.inbox_has_room(id);
                    self.settle();
                }
                Receipt::Bytes(bytes)
            }
            None if connection.ended => Receipt::End,
            None => Receipt::Nothing,
        }
    }

    /// Takes the front of `output`, as much as there is room for, and removes it there; whether all of it went. If not,
    /// [`Action::Writable`] follows.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn send(&mut self, now: Timestamp, id: VirtualId, output: &mut OutputQueue) -> Result<bool, Ended> {
        self.now = now;
        loop {
            let connection = self.connection_mut(id).filter(|connection| !connection.ended).ok_or(Ended)?;
            let taken = connection.take(output);
            self.pump(id);
            if output.is_empty() {
                break;
            }
            if taken == 0 {
                self.connection_mut(id).ok_or(Ended)?.blocked = true;
                break;
            }
        }
        self.settle();
        Ok(output.is_empty())
    }

    /// Whether [`HttpServer::send`] would take something.
    pub fn has_room(&self, id: VirtualId) -> bool {
        self.connection(id).is_none_or(|connection| connection.ended || connection.room() > 0)
    }

    /// Nothing more comes from the owner: once what it sent has been carried, the virtual connection ends.
    pub fn finish(&mut self, now: Timestamp, id: VirtualId) {
        self.now = now;
        if let Some(connection) = self.connection_mut(id) {
            connection.finishing = true;
            self.pump(id);
            self.settle();
        }
    }

    /// The owner gives the virtual connection up. It is unknown from now on.
    pub fn release(&mut self, now: Timestamp, id: VirtualId) {
        self.now = now;
        if self.connection(id).is_some() {
            self.end(id);
            self.connections.remove(id.index as usize);
            self.settle();
        }
    }

    /// When [`HttpServer::handle_timeout`] is next due; `None` if nothing is.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Acts on everything that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(due) = self.timers.expire(now) {
            match due {
                timers::Due::Socket(id) => self.socket_due(id),
                timers::Due::Virtual(id) => self.connection_due(id),
            }
        }
        self.settle();
    }

    /// The next thing that only the driver can do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sockets and virtual connections at present.
    pub fn counts(&self) -> (usize, usize) {
        (self.sockets.len(), self.connections.len())
    }

    /// Counters.
    pub fn stats(&self) -> HttpStats {
        self.stats
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Sees to what one input has brought about for others.
    fn settle(&mut self) {
        while let Some(id) = self.unread.pop() {
            self.read_requests(id);
        }
    }

    /// Carries what waits in the outbox as far as it goes now.
    fn pump(&mut self, id: VirtualId) {
        let Some(connection) = self.connection(id).filter(|connection| !connection.ended) else { return };
        match connection.encapsulation() {
            Encapsulation::LongLived => self.pump_long_lived(id),
            Encapsulation::KeepAlive => self.pump_keep_alive(id),
            Encapsulation::Polling => self.pump_polling(id),
        }
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.blocked && connection.room() > 0 {
            connection.blocked = false;
            self.actions.push_back(Action::Writable(id));
        }
    }

    /// The owner has taken what was received: requests that waited for that are answered, sockets are read again.
    fn inbox_has_room(&mut self, id: VirtualId) {
        let Some(connection) = self.connection(id).filter(|connection| !connection.ended) else { return };
        match connection.encapsulation() {
            Encapsulation::LongLived => {
                if let Some(post) = connection.post {
                    self.actions.push_back(Action::Resume(post));
                }
            }
            Encapsulation::KeepAlive => self.answer_post(id),
            Encapsulation::Polling => self.pump_polling(id),
        }
    }
}
