//! KeepAlive (http-encapsulation 4.2, 6.3, 7.4): a GET that is held until there is something to carry, and POSTs that are answered
//! one by one, each on a connection that may be another one every time.

use super::super::guid::Guid;
use super::super::head::Status;
use super::super::profile::{ECHO, HELD_GET, MAX_BODY_BYTES, NETWORK_RECEIVE_IO};
use super::HttpServer;
use super::sockets::{Phase, SocketId};
use super::virtual_connection::{Carriage, HELD_BACK, VirtualId};
use crate::time::Timestamp;
use bytes::Bytes;

/// What KeepAlive knows of a virtual connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// ServerOKtoSend: a GET is held, since then.
    held: Option<Timestamp>,
    /// A POST's data were taken and its answer is held back, since then.
    held_back: Option<Timestamp>,
    /// When the last GET was answered.
    answered: Timestamp,
}

impl KeepAlive {
    fn carriage(now: Timestamp) -> Carriage {
        Carriage::KeepAlive(Self { held: None, held_back: None, answered: now })
    }

    pub(super) fn due(&self) -> Timestamp {
        let get = self.held.map_or(self.answered + NETWORK_RECEIVE_IO, |since| since + HELD_GET);
        self.held_back.map_or(get, |since| get.min(since + HELD_BACK))
    }
}

impl HttpServer {
    fn keep_alive(&mut self, id: VirtualId) -> Option<&mut KeepAlive> {
        match &mut self.connection_mut(id).filter(|connection| !connection.ended)?.carriage {
            Carriage::KeepAlive(state) => Some(state),
            _ => None,
        }
    }

    /// 3.4.5.1.1 and 3.4.5.1.2. A further GET takes the place of the one before, whose socket is closed: an HTTP/1.0 proxy
    /// opens a new one each time (gap G9).
    pub(super) fn keep_alive_get(&mut self, socket: SocketId, guid: Guid) -> Result<(), Status> {
        let now = self.now;
        let id = self.join(socket, &guid, || KeepAlive::carriage(now))?;
        self.attach(socket, id);
        self.set_phase(socket, Phase::Waiting);
        let connection = self.connection_mut(id).ok_or(Status::BadRequest)?;
        let before = connection.get.replace(socket);
        let established = connection.established;
        self.replaced(before, socket);
        if established {
            if let Some(state) = self.keep_alive(id) {
                state.held = Some(now);
            }
            self.pump(id);
            self.arm_connection(id);
        } else {
            self.establish_keep_alive(id);
        }
        Ok(())
    }

    /// The handshake's POST carries the echo string, later ones data.
    pub(super) fn keep_alive_post(
        &mut self,
        socket: SocketId,
        guid: Guid,
        body: Bytes,
    ) -> Result<(), Status> {
        let now = self.now;
        // What is left of a virtual connection that has ended begins nothing.
        if body != ECHO[..] && !self.by_guid.contains_key(&guid) {
            return Err(Status::BadRequest);
        }
        let id = self.join(socket, &guid, || KeepAlive::carriage(now))?;
        let connection = self.connection_mut(id).ok_or(Status::BadRequest)?;
        let unanswered =
            matches!(&connection.carriage, Carriage::KeepAlive(state) if state.held_back.is_some());
        let right = if connection.established { !unanswered } else { body == ECHO[..] };
        if !right {
            self.end(id);
            return Err(Status::BadRequest);
        }
        let before = connection.post.replace(socket);
        let established = connection.established;
        self.attach(socket, id);
        self.set_phase(socket, Phase::Waiting);
        self.replaced(before, socket);
        if !established {
            self.establish_keep_alive(id);
            return Ok(());
        }
        self.deliver(id, body);
        if let Some(state) = self.keep_alive(id) {
            state.held_back = Some(now);
        }
        self.answer_post(id);
        Ok(())
    }

    /// A socket whose place another one has taken is closed.
    fn replaced(&mut self, before: Option<SocketId>, now: SocketId) {
        if let Some(before) = before.filter(|before| *before != now) {
            if let Some(socket) = self.socket_mut(before) {
                socket.attached = None;
            }
            self.close_socket(before);
        }
    }

    fn establish_keep_alive(&mut self, id: VirtualId) {
        let now = self.now;
        let Some(connection) = self.connection_mut(id) else { return };
        let (Some(get), Some(post)) = (connection.get, connection.post) else { return };
        connection.established = true;
        if let Carriage::KeepAlive(state) = &mut connection.carriage {
            state.answered = now;
        }
        self.respond(post, Status::Ok, true, &[], b"");
        self.respond(get, Status::Ok, true, &[], ECHO);
        self.arm_connection(id);
    }

    /// Answers the POST whose data were taken, unless the owner has yet to take what is there.
    pub(super) fn answer_post(&mut self, id: VirtualId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let (full, post) = (connection.inbox_is_full(), connection.post);
        if let Carriage::KeepAlive(state) = &mut connection.carriage
            && !full
            && state.held_back.take().is_some()
            && let Some(post) = post
        {
            self.respond(post, Status::Ok, true, &[], b"");
        }
        self.arm_connection(id);
    }

    /// 3.4.4.3: one response for each GET, of at most 32768 octets.
    pub(super) fn pump_keep_alive(&mut self, id: VirtualId) {
        let Some(connection) = self.connection(id) else { return };
        if !connection.outbox.is_empty() {
            self.answer_get(id);
        }
        if self.connection(id).is_some_and(|connection| connection.finishing && connection.outbox.is_empty())
        {
            self.end(id);
        }
    }

    /// Answers the GET that is held, if one is, with what there is.
    fn answer_get(&mut self, id: VirtualId) {
        let now = self.now;
        let Some(connection) = self.connection_mut(id) else { return };
        let (Some(get), Carriage::KeepAlive(state)) = (connection.get, &mut connection.carriage) else {
            return;
        };
        if state.held.take().is_none() {
            return;
        }
        state.answered = now;
        let length = connection.outbox.len().min(MAX_BODY_BYTES);
        let body = connection.outbox.split_to(length);
        self.respond(get, Status::Ok, true, &[], &body);
        self.arm_connection(id);
    }

    /// Without a GET nothing is lost unless an answer was on its way: another GET may come.
    pub(super) fn keep_alive_get_lost(&mut self, id: VirtualId, unsent: bool) {
        let now = self.now;
        let Some(connection) = self.connection_mut(id) else { return };
        if unsent || !connection.established && connection.post.is_none() {
            return self.end(id);
        }
        if let Some(state) = self.keep_alive(id)
            && state.held.take().is_some()
        {
            state.answered = now;
        }
        self.arm_connection(id);
    }

    /// A POST session may be opened anew (3.3.4.2). An answer that was held back is owed no more.
    pub(super) fn keep_alive_post_lost(&mut self, id: VirtualId) {
        let Some(connection) = self.connection_mut(id) else { return };
        if !connection.established && connection.get.is_none() {
            return self.end(id);
        }
        if let Some(state) = self.keep_alive(id) {
            state.held_back = None;
        }
        self.arm_connection(id);
    }

    pub(super) fn keep_alive_due(&mut self, id: VirtualId) {
        let now = self.now;
        let Some(state) = self.keep_alive(id) else { return };
        let held_back_too_long = state.held_back.is_some_and(|since| since + HELD_BACK <= now);
        if held_back_too_long || state.held.is_none() {
            return self.end(id);
        }
        // Something has to flow, or a proxy gives the GET up.
        self.answer_get(id);
    }
}
