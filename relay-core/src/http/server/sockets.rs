//! HTTP connections: cutting requests off their bytes, answering, and what becomes of a socket.

use super::super::head::{self, HeadError, Method, RequestHead, Status};
use super::super::profile::{MAX_BODY_BYTES, MAX_HEAD_BYTES, NETWORK_RECEIVE_IO, SOCKET_REST};
use super::super::target::{self, Encapsulation, Route};
use super::HttpServer;
use super::virtual_connection::VirtualId;
use crate::sstp::output::OutputQueue;
use crate::time::Timestamp;
use bytes::{Bytes, BytesMut};
use std::net::IpAddr;

/// Names an HTTP connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SocketId {
    /// A small number that no other socket has at the same time.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What a socket is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request is expected or arriving.
    Request,
    /// Its request waits for an answer.
    Waiting,
    /// The endless body of a LongLived POST.
    Upload,
    /// The endless body of a LongLived GET's response.
    Download,
    /// Nothing more is read here; once its output is sent, it is closed.
    Ending,
}

/// An HTTP connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    pub(super) address: Option<IpAddr>,
    pub(super) phase: Phase,
    /// The virtual connection that its requests belong to.
    pub(super) attached: Option<VirtualId>,
    /// Received and not understood yet.
    input: BytesMut,
    /// The head at the front of the input, once it is complete.
    head: Option<(RequestHead, Route, usize)>,
    /// The time for its body runs.
    in_body: bool,
    pub(super) output: OutputQueue,
    /// To be closed after the answer.
    close: bool,
    /// Another shard handed it here.
    handed_here: bool,
    /// It counts among the strangers.
    stranger: bool,
    pub(super) touched: bool,
    pub(super) due: Option<Timestamp>,
}

impl Socket {
    pub(super) fn new(id: SocketId, address: Option<IpAddr>, handed_here: bool) -> Self {
        Self {
            id,
            address,
            phase: Phase::Request,
            attached: None,
            input: BytesMut::new(),
            head: None,
            in_body: false,
            output: OutputQueue::default(),
            close: false,
            handed_here,
            stranger: true,
            touched: false,
            due: None,
        }
    }

    /// The next request, once all of it is here; its bytes stay in the input until it is taken.
    fn next_request(&mut self) -> Result<Option<(Route, usize, usize)>, Status> {
        if self.head.is_none() {
            let Some((head, length)) = head::parse_request(&self.input).map_err(HeadError::status)? else {
                return Ok(None);
            };
            let route = target::route(head.method, &head.target)?;
            self.head = Some((head, route, length));
        }
        let (head, route, head_length) = self.head.as_ref().expect("it was just put there");
        let body = body_length(head, route)?;
        let whole = (self.input.len() >= head_length + body).then(|| (route.clone(), *head_length, body));
        Ok(whole)
    }
}

/// How many octets behind the head are to be there before the request is looked at.
fn body_length(head: &RequestHead, route: &Route) -> Result<usize, Status> {
    let bounded = match route {
        Route::Page => return Ok(0),
        Route::Polling => true,
        Route::Virtual(target) => {
            head.method == Method::Post && target.encapsulation == Encapsulation::KeepAlive
        }
    };
    match head.content_length {
        // The endless body of a LongLived POST (3.2.5: its length delimits nothing).
        _ if !bounded && head.method == Method::Post => Ok(0),
        None | Some(0) if !bounded => Ok(0),
        Some(_) if !bounded => Err(Status::BadRequest),
        None => Err(Status::LengthRequired),
        Some(length) if length > MAX_BODY_BYTES as u64 => Err(Status::ContentTooLarge),
        Some(length) => Ok(length as usize),
    }
}

impl HttpServer {
    pub(super) fn socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get(id.index()).filter(|socket| socket.id == id)
    }

    pub(super) fn socket_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.index()).filter(|socket| socket.id == id)
    }

    pub(super) fn touch(&mut self, id: SocketId) {
        if let Some(socket) = self.socket_mut(id)
            && !std::mem::replace(&mut socket.touched, true)
        {
            self.touched.push(id);
        }
    }

    pub(super) fn bytes_received(&mut self, id: SocketId, bytes: Bytes) {
        let Some(socket) = self.socket_mut(id) else { return };
        match socket.phase {
            Phase::Request => {
                socket.input.extend_from_slice(&bytes);
                self.unread.push(id);
            }
            // The beginning of the next request; it waits for its turn.
            Phase::Waiting if socket.input.len() + bytes.len() <= MAX_HEAD_BYTES => {
                socket.input.extend_from_slice(&bytes);
            }
            Phase::Waiting => self.refuse(id, Status::BadRequest),
            Phase::Upload => self.uploaded(id, bytes),
            Phase::Download | Phase::Ending => {}
        }
    }

    /// Sees to the requests that are there whole, one after the other.
    pub(super) fn read_requests(&mut self, id: SocketId) {
        while let Some(socket) = self.socket_mut(id).filter(|socket| socket.phase == Phase::Request) {
            if socket.input.is_empty() {
                return;
            }
            match socket.next_request() {
                Ok(None) => return self.expect_rest(id),
                Ok(Some((route, head, body))) => self.request(id, route, head, body),
                Err(status) => self.refuse(id, status),
            }
        }
    }

    /// The rest of a request has a while to arrive: the head counted from its beginning, the body from the end of the head.
    fn expect_rest(&mut self, id: SocketId) {
        let now = self.now;
        let head_due = now + self.config.request_deadline;
        let Some(socket) = self.socket_mut(id) else { return };
        let in_body = socket.head.is_some();
        if in_body && !std::mem::replace(&mut socket.in_body, true) {
            self.arm_socket(id, now + NETWORK_RECEIVE_IO);
        } else if !in_body && socket.due.is_none_or(|due| due > head_due) {
            self.arm_socket(id, head_due);
        }
    }

    fn request(&mut self, id: SocketId, route: Route, head_length: usize, body_length: usize) {
        let shards = self.config.shards;
        let Some(socket) = self.socket_mut(id) else { return };
        let body = || Bytes::copy_from_slice(&socket.input[head_length..head_length + body_length]);
        let owner = match &route {
            Route::Page => None,
            Route::Virtual(target) => Some(target.guid.owner(shards)),
            Route::Polling => match super::super::poll::guid(body()) {
                Ok(guid) => Some(guid.owner(shards)),
                Err(_) => return self.refuse(id, Status::BadRequest),
            },
        };
        let handed_here = socket.handed_here;
        if let Some(shard) = owner.filter(|owner| *owner != self.config.shard && !handed_here) {
            return self.hand_over(id, shard);
        }
        let Some(socket) = self.socket_mut(id) else { return };
        let (head, ..) = socket.head.take().expect("a request has a head");
        let mut whole = socket.input.split_to(head_length + body_length);
        let body = whole.split_off(head_length).freeze();
        (socket.close, socket.in_body) = (head.close, false);
        self.disarm_socket(id);
        self.dispatch(id, &head, route, body);
    }

    fn hand_over(&mut self, id: SocketId, shard: crate::relay::ShardId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let bytes = std::mem::take(&mut socket.input).freeze();
        self.stats.handed_over += 1;
        self.actions.push_back(super::Action::HandOver { socket: id, shard, bytes });
        self.forget_socket(id);
    }

    /// What came behind the head of a LongLived POST.
    pub(super) fn take_input(&mut self, id: SocketId) -> Bytes {
        self.socket_mut(id).map(|socket| std::mem::take(&mut socket.input).freeze()).unwrap_or_default()
    }

    /// The socket's requests belong to a virtual connection.
    pub(super) fn attach(&mut self, id: SocketId, connection: VirtualId) {
        let Some(socket) = self.socket_mut(id) else { return };
        socket.attached = Some(connection);
        let (was_stranger, address) = (std::mem::replace(&mut socket.stranger, false), socket.address);
        if was_stranger {
            self.strangers.leave(address);
        }
    }

    pub(super) fn set_phase(&mut self, id: SocketId, phase: Phase) {
        if let Some(socket) = self.socket_mut(id) {
            socket.phase = phase;
        }
    }

    /// Answers the socket's request; the socket lives on if `lives` and the peer wants it to.
    pub(super) fn respond(
        &mut self,
        id: SocketId,
        status: Status,
        lives: bool,
        fields: &[(&str, &str)],
        body: &[u8],
    ) {
        let now = self.now;
        let Some(socket) = self.socket_mut(id) else { return };
        let lives = lives && !socket.close;
        let length = body.len().to_string();
        let mut all = fields.to_vec();
        all.push(("Content-Length", &length));
        let head = head::write_response(status, now, lives, &all);
        socket.output.encode(|out| {
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(body);
        });
        if !lives {
            return self.close_socket(id);
        }
        socket.phase = Phase::Request;
        self.touch(id);
        self.arm_socket(id, now + SOCKET_REST);
        self.unread.push(id);
    }

    /// Answers with an error and closes the socket; whatever virtual connection it belongs to does not suffer.
    pub(super) fn refuse(&mut self, id: SocketId, status: Status) {
        self.stats.refused += 1;
        if let Some(socket) = self.socket_mut(id) {
            // What it carried until now is no part of this answer.
            if let Some(connection) = socket.attached.take() {
                self.detach(connection, id);
            }
        }
        let allow = [("Allow", "GET, HEAD, POST"), ("Content-Type", "text/plain")];
        let fields = if status == Status::MethodNotAllowed { &allow[..] } else { &allow[1..] };
        self.respond(id, status, false, fields, format!("{status}\r\n").as_bytes());
    }

    /// Closes the socket once its output is sent.
    pub(super) fn close_socket(&mut self, id: SocketId) {
        self.set_phase(id, Phase::Ending);
        self.disarm_socket(id);
        self.touch(id);
    }

    /// The socket is gone.
    pub(super) fn drop_socket(&mut self, id: SocketId) {
        let Some(socket) = self.socket(id) else { return };
        let (attached, unsent) = (socket.attached, !socket.output.is_empty());
        self.forget_socket(id);
        if let Some(connection) = attached {
            self.socket_lost(connection, id, unsent);
        }
    }

    fn forget_socket(&mut self, id: SocketId) {
        self.disarm_socket(id);
        let socket = self.sockets.remove(id.index());
        if socket.stranger {
            self.strangers.leave(socket.address);
        }
    }

    /// A request has not come in time, or a resting socket is not used any more.
    pub(super) fn socket_due(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        socket.due = None;
        if socket.phase != Phase::Request {
            return;
        }
        if socket.input.is_empty() {
            self.close_socket(id);
        } else {
            self.refuse(id, Status::RequestTimeout);
        }
    }
}
