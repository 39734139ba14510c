//! LongLived (http-encapsulation 4.1, 6.2, 7.3): one endless POST body up, one endless GET response down.

use super::super::head::{self, Status};
use super::super::profile::{ECHO, OUTBOX_BYTES};
use super::super::target::Target;
use super::HttpServer;
use super::sockets::{Phase, SocketId};
use super::virtual_connection::{Carriage, VirtualId};
use crate::time::Timestamp;
use bytes::{Buf, Bytes};

/// What LongLived knows of a virtual connection.
#[derive(Debug)]
pub(super) struct LongLived {
    /// ConnectionContentLength: octets of each direction.
    budget: u64,
    /// PostContentLength and GetContentLength: octets so far, the echo strings included.
    uploaded: u64,
    downloaded: u64,
    /// GetSessionReady: data have come on the POST, so data may go on the GET.
    get_ready: bool,
    /// When the POST carried something.
    pub(super) heard: Timestamp,
}

impl LongLived {
    fn carriage(budget: u64, now: Timestamp) -> Carriage {
        Carriage::LongLived(Self { budget, uploaded: 0, downloaded: 0, get_ready: false, heard: now })
    }
}

impl HttpServer {
    fn long_lived(&mut self, id: VirtualId) -> Option<&mut LongLived> {
        match &mut self.connection_mut(id).filter(|connection| !connection.ended)?.carriage {
            Carriage::LongLived(state) => Some(state),
            _ => None,
        }
    }

    /// 3.2.5.1.1. A second GET is a protocol error; it does not harm the connection that is there.
    pub(super) fn long_lived_get(&mut self, socket: SocketId, target: Target) -> Result<(), Status> {
        let now = self.now;
        let id = self.join(socket, &target.guid, || LongLived::carriage(target.content_length, now))?;
        let connection = self.connection_mut(id).ok_or(Status::BadRequest)?;
        if connection.get.is_some() {
            return Err(Status::BadRequest);
        }
        connection.get = Some(socket);
        self.attach(socket, id);
        self.set_phase(socket, Phase::Download);
        if let Some(state) = self.long_lived(id) {
            state.budget = target.content_length;
        }
        self.establish_long_lived(id);
        Ok(())
    }

    /// The mirror image, and what came behind the head.
    pub(super) fn long_lived_post(&mut self, socket: SocketId, target: Target) -> Result<(), Status> {
        let now = self.now;
        let id = self.join(socket, &target.guid, || LongLived::carriage(target.content_length, now))?;
        let connection = self.connection_mut(id).ok_or(Status::BadRequest)?;
        if connection.post.is_some() {
            return Err(Status::BadRequest);
        }
        connection.post = Some(socket);
        self.attach(socket, id);
        self.set_phase(socket, Phase::Upload);
        let behind = self.take_input(socket);
        self.uploaded(socket, behind);
        Ok(())
    }

    /// A piece of the POST's body (3.2.5.2.2): the echo string first, then data.
    pub(super) fn uploaded(&mut self, socket: SocketId, mut bytes: Bytes) {
        let now = self.now;
        let Some(id) = self.socket(socket).and_then(|socket| socket.attached) else { return };
        let Some(state) = self.long_lived(id) else { return };
        state.heard = now;
        let echoed = state.uploaded.min(ECHO.len() as u64) as usize;
        let of_echo = bytes.len().min(ECHO.len() - echoed);
        let is_echo = bytes[..of_echo] == ECHO[echoed..echoed + of_echo];
        state.uploaded += bytes.len() as u64;
        let within_budget = state.uploaded <= state.budget;
        bytes.advance(of_echo);
        if !is_echo || !within_budget {
            return self.break_off(id);
        }
        self.establish_long_lived(id);
        if bytes.is_empty() {
            return;
        }
        // Data before Established is a protocol violation.
        if !self.connection(id).is_some_and(|connection| connection.established) {
            return self.break_off(id);
        }
        if let Some(state) = self.long_lived(id) {
            state.get_ready = true;
        }
        self.deliver(id, bytes);
        self.pump(id);
        self.arm_connection(id);
    }

    /// 400 on the GET if it has not been answered, and the end (3.4.5.1.1.2).
    fn break_off(&mut self, id: VirtualId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let get = connection.get.filter(|_| !connection.established);
        self.end(id);
        if let Some(get) = get {
            self.refuse(get, Status::BadRequest);
        }
    }

    /// Answers the GET once both halves are there and the POST has said its echo string.
    fn establish_long_lived(&mut self, id: VirtualId) {
        let now = self.now;
        let Some(connection) = self.connection_mut(id).filter(|found| !found.established) else { return };
        let (Some(get), Some(_), Carriage::LongLived(state)) =
            (connection.get, connection.post, &mut connection.carriage)
        else {
            return;
        };
        if state.uploaded < ECHO.len() as u64 {
            return;
        }
        connection.established = true;
        state.downloaded = ECHO.len() as u64;
        let length = state.budget.to_string();
        if let Some(socket) = self.socket_mut(get) {
            let head = head::write_response(Status::Ok, now, true, &[("Content-Length", &length)]);
            socket.output.encode(|out| {
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(ECHO);
            });
        }
        self.touch(get);
        self.arm_connection(id);
    }

    /// 3.2.4.2: not before data have come on the POST, and not beyond the budget.
    pub(super) fn pump_long_lived(&mut self, id: VirtualId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let (Some(get), Carriage::LongLived(state)) = (connection.get, &mut connection.carriage) else {
            return;
        };
        if !connection.established || !state.get_ready {
            return;
        }
        let finishing = connection.finishing;
        let waiting = connection.outbox.len() as u64;
        if state.downloaded + waiting > state.budget {
            return self.end(id);
        }
        if waiting > 0 && self.socket(get).is_some_and(|socket| socket.output.len() < OUTBOX_BYTES) {
            self.download(id, get);
        }
        if finishing && self.connection(id).is_some_and(|connection| connection.outbox.is_empty()) {
            self.end(id);
        }
    }

    /// All that waits goes to the GET.
    fn download(&mut self, id: VirtualId, get: SocketId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let chunk = connection.outbox.split();
        if let Carriage::LongLived(state) = &mut connection.carriage {
            state.downloaded += chunk.len() as u64;
        }
        if let Some(socket) = self.socket_mut(get) {
            socket.output.encode(|out| out.unsplit(chunk));
        }
        self.touch(get);
    }
}
