//! One virtual connection: what was received, what waits to be sent, and which sockets carry it.

use super::super::guid::Guid;
use super::super::profile::{
    CONNECTION_ESTABLISHMENT, HELD_GET, INBOX_BYTES, NETWORK_RECEIVE_IO, OUTBOX_BYTES,
};
use super::super::target::Encapsulation;
use super::keep_alive::KeepAlive;
use super::long_lived::LongLived;
use super::polling::Polling;
use super::sockets::SocketId;
use super::{Action, HttpServer};
use crate::sstp::output::OutputQueue;
use crate::time::Timestamp;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::IpAddr;
use std::time::Duration;

/// How long a request that is held back because the owner does not take what was received may wait.
pub(super) const HELD_BACK: Duration = HELD_GET;

/// Names a virtual connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// How it is carried, with what that needs to know.
#[derive(Debug)]
pub(super) enum Carriage {
    LongLived(LongLived),
    KeepAlive(KeepAlive),
    Polling(Box<Polling>),
}

impl Carriage {
    pub(super) fn encapsulation(&self) -> Encapsulation {
        match self {
            Carriage::LongLived(_) => Encapsulation::LongLived,
            Carriage::KeepAlive(_) => Encapsulation::KeepAlive,
            Carriage::Polling(_) => Encapsulation::Polling,
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Virtual {
    pub(super) id: VirtualId,
    guid: Guid,
    /// Whose socket began it.
    pub(super) address: Option<IpAddr>,
    began: Timestamp,
    pub(super) carriage: Carriage,
    /// The socket of the GET half, and of the POST half; Polling has only the latter.
    pub(super) get: Option<SocketId>,
    pub(super) post: Option<SocketId>,
    pub(super) established: bool,
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) inbox_bytes: usize,
    pub(super) outbox: BytesMut,
    /// The owner has more than there was room for.
    pub(super) blocked: bool,
    /// The owner sends nothing more.
    pub(super) finishing: bool,
    pub(super) ended: bool,
    pub(super) armed: Option<Timestamp>,
}

impl Virtual {
    pub(super) fn new(
        id: VirtualId,
        guid: Guid,
        address: Option<IpAddr>,
        now: Timestamp,
        carriage: Carriage,
    ) -> Self {
        Self {
            id,
            guid,
            address,
            began: now,
            carriage,
            get: None,
            post: None,
            established: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            outbox: BytesMut::new(),
            blocked: false,
            finishing: false,
            ended: false,
            armed: None,
        }
    }

    pub(super) fn guid(&self) -> &Guid {
        &self.guid
    }

    pub(super) fn encapsulation(&self) -> Encapsulation {
        self.carriage.encapsulation()
    }

    pub(super) fn room(&self) -> usize {
        OUTBOX_BYTES.saturating_sub(self.outbox.len())
    }

    pub(super) fn inbox_is_full(&self) -> bool {
        self.inbox_bytes >= INBOX_BYTES
    }

    /// Moves the front of the owner's output into the outbox; how much.
    pub(super) fn take(&mut self, output: &mut OutputQueue) -> usize {
        let mut taken = 0;
        while self.room() > 0 && !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = output.gather(&mut slices);
            let mut count = 0;
            for slice in &slices[..filled] {
                let piece = &slice[..slice.len().min(self.room())];
                self.outbox.extend_from_slice(piece);
                count += piece.len();
            }
            output.advance(count);
            taken += count;
        }
        taken
    }

    /// When it is to be looked at next.
    pub(super) fn due(&self) -> Option<Timestamp> {
        if self.ended {
            return None;
        }
        if !self.established {
            return Some(self.began + CONNECTION_ESTABLISHMENT);
        }
        match &self.carriage {
            Carriage::LongLived(state) => Some(state.heard + NETWORK_RECEIVE_IO),
            Carriage::KeepAlive(state) => Some(state.due()),
            Carriage::Polling(state) => Some(state.due()),
        }
    }
}

impl HttpServer {
    pub(super) fn connection(&self, id: VirtualId) -> Option<&Virtual> {
        self.connections.get(id.index as usize).filter(|connection| connection.id == id)
    }

    pub(super) fn connection_mut(&mut self, id: VirtualId) -> Option<&mut Virtual> {
        self.connections.get_mut(id.index as usize).filter(|connection| connection.id == id)
    }

    /// Bytes of the stream have arrived.
    pub(super) fn deliver(&mut self, id: VirtualId, bytes: Bytes) {
        let Some(connection) = self.connection_mut(id) else { return };
        if bytes.is_empty() {
            return;
        }
        connection.inbox_bytes += bytes.len();
        connection.inbox.push_back(bytes);
        if connection.inbox.len() == 1 {
            self.actions.push_back(Action::Readable(id));
        }
    }

    /// Ends a virtual connection: its sockets are closed once their output is sent, its GUID is free, and its owner is told.
    pub(super) fn end(&mut self, id: VirtualId) {
        let Some(connection) = self.connection_mut(id).filter(|connection| !connection.ended) else { return };
        connection.ended = true;
        let guid = connection.guid.clone();
        let sockets = [connection.get.take(), connection.post.take()];
        self.polling -= usize::from(connection.encapsulation() == Encapsulation::Polling);
        self.by_guid.remove(&guid);
        self.disarm_connection(id);
        for socket in sockets.into_iter().flatten() {
            if let Some(socket) = self.socket_mut(socket) {
                socket.attached = None;
            }
            self.close_socket(socket);
            // A reader that was told to wait sees the end only if it reads.
            self.actions.push_back(Action::Resume(socket));
        }
        self.actions.push_back(Action::Readable(id));
        self.actions.push_back(Action::Writable(id));
    }

    /// A socket that is refused belongs to the virtual connection no more.
    pub(super) fn detach(&mut self, id: VirtualId, socket: SocketId) {
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.get == Some(socket) || connection.post == Some(socket) {
            self.socket_lost(id, socket, false);
        }
    }

    /// A socket of the virtual connection is gone; `unsent` says that it had output.
    pub(super) fn socket_lost(&mut self, id: VirtualId, socket: SocketId, unsent: bool) {
        let Some(connection) = self.connection_mut(id).filter(|connection| !connection.ended) else { return };
        let (was_get, was_post) = (connection.get == Some(socket), connection.post == Some(socket));
        if was_get {
            connection.get = None;
        }
        if was_post {
            connection.post = None;
        }
        if !was_get && !was_post {
            return;
        }
        match connection.encapsulation() {
            Encapsulation::LongLived => self.end(id),
            Encapsulation::KeepAlive if was_get => self.keep_alive_get_lost(id, unsent),
            Encapsulation::KeepAlive => self.keep_alive_post_lost(id),
            // Its answer can be asked for again.
            Encapsulation::Polling => {}
        }
    }

    /// A deadline of a virtual connection may have passed.
    pub(super) fn connection_due(&mut self, id: VirtualId) {
        let now = self.now;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.armed = None;
        if connection.due().is_some_and(|due| due <= now) {
            match &mut connection.carriage {
                _ if !connection.established => self.end(id),
                // Who is not read is not silent.
                Carriage::LongLived(state) if connection.inbox_bytes >= INBOX_BYTES => state.heard = now,
                Carriage::LongLived(_) => self.end(id),
                Carriage::KeepAlive(_) => self.keep_alive_due(id),
                Carriage::Polling(_) => self.polling_due(id),
            }
        }
        self.arm_connection(id);
    }
}
