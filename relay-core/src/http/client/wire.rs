//! One of a client's TCP connections: what is asked on it, and what is answered.

use super::super::head::{self, ResponseHead};
use super::super::profile::{MAX_BODY_BYTES, NETWORK_RECEIVE_IO};
use super::{Action, HttpClient, HttpClientError};
use crate::time::Timestamp;
use bytes::{Buf, Bytes, BytesMut};

/// The two TCP connections of a virtual connection. Polling uses [`Wire::Post`] alone, each time anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// For GET requests: what the relay says.
    Get = 0,
    /// For POST requests: what the client says.
    Post = 1,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Down,
    Dialling,
    Up,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct WireState {
    link: Link,
    /// A request for when the connection is open.
    pub(super) unsent: Option<Bytes>,
    /// A request is out, or will be, and has no answer.
    pub(super) asked: bool,
    /// When the answer is late.
    pub(super) due: Option<Timestamp>,
    pub(super) input: BytesMut,
    pub(super) head: Option<ResponseHead>,
}

impl WireState {
    pub(super) fn up(&mut self) {
        self.link = Link::Up;
    }

    pub(super) fn is_open(&self) -> bool {
        self.link != Link::Down
    }

    /// The connection is no more; whether a request was out on it.
    pub(super) fn down(&mut self) -> bool {
        let asked = self.asked;
        *self = Self::default();
        asked
    }
}

/// Whether a status is what it should be (section 7.7; codes are all that matters).
pub(super) fn check_status(head: ResponseHead) -> Result<(), HttpClientError> {
    match head.status {
        200 => Ok(()),
        401 | 407 => Err(HttpClientError::ProxyAuthentication),
        status => Err(HttpClientError::Status(status)),
    }
}

impl HttpClient {
    /// Sends a request, over a new connection if there is none.
    pub(super) fn ask(&mut self, wire: Wire, request: Bytes) {
        let due = self.now + NETWORK_RECEIVE_IO;
        let state = self.wire(wire);
        state.asked = true;
        state.due = Some(due);
        match state.link {
            Link::Up => self.actions.push_back(Action::Send(wire, request)),
            Link::Dialling => state.unsent = Some(request),
            Link::Down => {
                state.unsent = Some(request);
                state.link = Link::Dialling;
                self.actions.push_back(Action::Dial(wire));
            }
        }
    }

    /// The head of the response, once it is there.
    pub(super) fn response_head(&mut self, wire: Wire) -> Result<Option<ResponseHead>, HttpClientError> {
        let state = self.wire(wire);
        if state.head.is_none() {
            let Some((head, length)) = head::parse_response(&state.input)? else { return Ok(None) };
            state.input.advance(length);
            state.head = Some(head);
            check_status(head)?;
        }
        Ok(state.head)
    }

    /// The body of the response, once it is there whole. The connection is closed if the response says so.
    pub(super) fn response(&mut self, wire: Wire) -> Result<Option<Bytes>, HttpClientError> {
        if !self.wire(wire).asked {
            return if self.wire(wire).input.is_empty() { Ok(None) } else { Err(HttpClientError::Unasked) };
        }
        let Some(head) = self.response_head(wire)? else { return Ok(None) };
        let length = head.content_length.and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= MAX_BODY_BYTES).ok_or(HttpClientError::Length)?;
        let state = self.wire(wire);
        if state.input.len() < length {
            return Ok(None);
        }
        let body = state.input.split_to(length).freeze();
        (state.head, state.asked, state.due) = (None, false, None);
        if head.close {
            self.hang_up(wire);
        }
        Ok(Some(body))
    }
}
