//! When sockets and virtual connections are to be looked at again.

use super::HttpServer;
use super::sockets::SocketId;
use super::virtual_connection::VirtualId;
use crate::time::Timestamp;
use std::collections::BTreeSet;

/// Who is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Socket(SocketId),
    Virtual(VirtualId),
}

/// Each socket and each virtual connection is in here at most once.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, Due)>);

impl Timers {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out who is due first, if that is now.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<Due> {
        let first = *self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.remove(&first);
        Some(first.1)
    }

    fn replace(&mut self, who: Due, before: &mut Option<Timestamp>, at: Option<Timestamp>) {
        if let Some(before) = before.take() {
            self.0.remove(&(before, who));
        }
        if let Some(at) = at {
            self.0.insert((at, who));
        }
        *before = at;
    }
}

impl HttpServer {
    /// The socket is to be looked at then, and not before.
    pub(super) fn arm_socket(&mut self, id: SocketId, at: Timestamp) {
        if let Some(socket) = self.sockets.get_mut(id.index as usize).filter(|socket| socket.id == id) {
            self.timers.replace(Due::Socket(id), &mut socket.due, Some(at));
        }
    }

    /// The socket waits for nothing.
    pub(super) fn disarm_socket(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id.index as usize).filter(|socket| socket.id == id) {
            self.timers.replace(Due::Socket(id), &mut socket.due, None);
        }
    }

    /// Sees to it that the virtual connection is looked at when it is next due. A look that is too early costs less than moving
    /// it with every byte.
    pub(super) fn arm_connection(&mut self, id: VirtualId) {
        let connection = self.connections.get_mut(id.index as usize).filter(|connection| connection.id == id);
        let Some(connection) = connection else { return };
        let due = connection.due();
        let early_enough = matches!((connection.armed, due), (Some(armed), Some(due)) if armed <= due);
        if !early_enough {
            self.timers.replace(Due::Virtual(id), &mut connection.armed, due);
        }
    }

    /// It is taken out of the table.
    pub(super) fn disarm_connection(&mut self, id: VirtualId) {
        let connection = self.connections.get_mut(id.index as usize).filter(|connection| connection.id == id);
        if let Some(connection) = connection {
            self.timers.replace(Due::Virtual(id), &mut connection.armed, None);
        }
    }
}
