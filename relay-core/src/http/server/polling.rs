//! Polling (http-encapsulation 4.3, 6.4, 7.5): a connection for each request, which carries data up and its answer data down, both
//! numbered.

use super::super::head::Status;
use super::super::poll::{self, Pace, Poll};
use super::super::profile::{
    MAX_BODY_BYTES, MAX_POLL_INTERVAL, NETWORK_RECEIVE_IO, POLL_ANSWER_WAIT, POLLS_PER_SECOND,
};
use super::HttpServer;
use super::sockets::{Phase, SocketId};
use super::virtual_connection::{Carriage, HELD_BACK, VirtualId};
use crate::time::Timestamp;
use bytes::Bytes;

/// What Polling knows of a virtual connection.
#[derive(Debug)]
pub(super) struct Polling {
    /// Relay-Server-URL of the last request.
    server: Bytes,
    /// The last request: number, checksum and length of its data, by which a repetition is known.
    last: Option<(u32, u32, usize)>,
    /// The answer to it, once there is one.
    answer: Option<Bytes>,
    /// When the last request came.
    asked: Timestamp,
    /// How long its answer waits for something to carry.
    waits: bool,
    /// The interval that was dictated last.
    interval: Timestamp,
}

impl Polling {
    fn carriage(now: Timestamp) -> Carriage {
        Carriage::Polling(Box::new(Self {
            server: Bytes::new(),
            last: None,
            answer: None,
            asked: now,
            waits: false,
            interval: Timestamp(0),
        }))
    }

    pub(super) fn due(&self) -> Timestamp {
        match (&self.answer, self.waits) {
            (None, true) => self.asked + POLL_ANSWER_WAIT,
            (None, false) => self.asked + HELD_BACK,
            (Some(_), _) => Timestamp(self.asked.0 + self.interval.0) + NETWORK_RECEIVE_IO,
        }
    }
}

impl HttpServer {
    fn polling(&mut self, id: VirtualId) -> Option<&mut Polling> {
        match &mut self.connection_mut(id).filter(|connection| !connection.ended)?.carriage {
            Carriage::Polling(state) => Some(state),
            _ => None,
        }
    }

    /// 3.6.5: a probe, the second request of a handshake, a later one, or a repetition of any.
    pub(super) fn poll(&mut self, socket: SocketId, body: Bytes) -> Result<(), Status> {
        let full = body.len() == MAX_BODY_BYTES;
        let poll = poll::parse_request(body).map_err(|_| Status::BadRequest)?;
        let now = self.now;
        let is_probe = poll.sequence == 0 && poll.data.is_empty();
        // What is left of a virtual connection that has ended, or of another relay's, begins nothing.
        if !is_probe && !self.by_guid.contains_key(&poll.guid) {
            return Err(Status::BadRequest);
        }
        let id = self.join(socket, &poll.guid, || Polling::carriage(now))?;
        self.attach(socket, id);
        self.set_phase(socket, Phase::Waiting);
        let mark = (poll.sequence, super::super::checksum::checksum(&poll.data), poll.data.len());
        let state = self.polling(id).ok_or(Status::BadRequest)?;
        if state.last == Some(mark) {
            self.repeat(id, socket);
            return Ok(());
        }
        if !self.is_next(id, &poll) {
            self.end(id);
            return Err(Status::BadRequest);
        }
        self.asked(id, socket, poll, mark, full);
        Ok(())
    }

    /// 3.6.5.1 to 3.6.5.3: the probe is 0 and empty, the second 0 and not empty, and from there on each is one more; nothing comes before
    /// the last one was answered.
    fn is_next(&mut self, id: VirtualId, poll: &Poll) -> bool {
        let established = self.connection(id).is_some_and(|connection| connection.established);
        let Some(state) = self.polling(id) else { return false };
        match state.last {
            None => poll.sequence == 0 && poll.data.is_empty(),
            Some(_) if state.answer.is_none() => false,
            Some(_) if !established => poll.sequence == 0 && !poll.data.is_empty(),
            Some((last, ..)) => last.checked_add(1) == Some(poll.sequence),
        }
    }

    fn asked(&mut self, id: VirtualId, socket: SocketId, poll: Poll, mark: (u32, u32, usize), full: bool) {
        let now = self.now;
        let is_probe = self.polling(id).is_some_and(|state| state.last.is_none());
        let Some(connection) = self.connection_mut(id) else { return };
        connection.post = Some(socket);
        connection.established |= !is_probe;
        if let Carriage::Polling(state) = &mut connection.carriage {
            state.server = poll.server;
            state.last = Some(mark);
            state.answer = None;
            state.asked = now;
            // SSTP normally answers at once; who has more to send is not to wait for that.
            state.waits = !poll.data.is_empty() && !full;
        }
        self.deliver(id, poll.data);
        self.pump_polling(id);
        self.arm_connection(id);
    }

    /// The last request once more: its answer was lost on the way, or is not there yet.
    fn repeat(&mut self, id: VirtualId, socket: SocketId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let before = connection.post.replace(socket);
        let Carriage::Polling(state) = &connection.carriage else { return };
        let answer = state.answer.clone();
        self.stats.repeated += 1;
        if let Some(before) = before.filter(|before| *before != socket) {
            if let Some(socket) = self.socket_mut(before) {
                socket.attached = None;
            }
            self.close_socket(before);
        }
        if let Some(answer) = answer {
            self.respond(socket, Status::Ok, false, &[], &answer);
        }
    }

    /// Answers the last request if it has no answer yet and there is a reason to: something to carry, or nothing to wait for.
    pub(super) fn pump_polling(&mut self, id: VirtualId) {
        let Some(connection) = self.connection(id).filter(|connection| !connection.ended) else { return };
        let Carriage::Polling(state) = &connection.carriage else { return };
        let unanswered = state.last.is_some() && state.answer.is_none();
        let has_data = !connection.outbox.is_empty() && connection.established;
        let ready = has_data || connection.finishing || !state.waits;
        if unanswered && ready && !connection.inbox_is_full() {
            self.answer_poll(id);
        }
        let done = |connection: &super::Virtual| connection.finishing && connection.outbox.is_empty();
        if self.connection(id).is_some_and(done) {
            self.end(id);
        }
    }

    /// 3.6.5.2.1: the number of the request, which both sides count alike (0, 0, 1, 2, ...), what there is of data, and how often to poll.
    fn answer_poll(&mut self, id: VirtualId) {
        let interval = self.poll_interval();
        let pace = Pace::steady(interval);
        let Some(connection) = self.connection_mut(id) else { return };
        let guid = connection.guid().clone();
        let Carriage::Polling(state) = &mut connection.carriage else { return };
        let Some((sequence, ..)) = state.last else { return };
        let room = MAX_BODY_BYTES - poll::overhead(&state.server, &guid, Some(pace));
        let room = if connection.established { room } else { 0 };
        let data = connection.outbox.split_to(connection.outbox.len().min(room));
        let answer = poll::write(&state.server, &guid, sequence, Some(pace), &data);
        state.interval = Timestamp(u64::from(interval) * 1000);
        state.answer = Some(answer.clone());
        if let Some(socket) = connection.post {
            self.respond(socket, Status::Ok, false, &[], &answer);
        }
        self.arm_connection(id);
    }

    /// The interval that is dictated, in seconds: longer, the more connections poll (3.6.5.2.1, note 52).
    fn poll_interval(&self) -> u32 {
        let at_rest = self.config.poll_interval.as_secs().max(1);
        let under_load = (self.polling / POLLS_PER_SECOND) as u64;
        at_rest.max(under_load).min(MAX_POLL_INTERVAL.as_secs()) as u32
    }

    pub(super) fn polling_due(&mut self, id: VirtualId) {
        let Some(state) = self.polling(id) else { return };
        if state.answer.is_none() && std::mem::take(&mut state.waits) {
            return self.pump_polling(id);
        }
        self.end(id);
    }
}
