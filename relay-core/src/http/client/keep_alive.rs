//! The client of KeepAlive (http-encapsulation 7.4): one GET and at most one POST out at a time, each over the connection of the last
//! one or over a new one, as the way to the relay allows.

use super::super::profile::{ECHO, MAX_BODY_BYTES};
use super::wire::Wire;
use super::{HttpClient, HttpClientError};

/// What KeepAlive knows beside its wires: which halves of the handshake have been answered.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    get: bool,
    post: bool,
}

impl HttpClient {
    /// 3.3.4.1: both sessions, the POST with the echo string.
    pub(super) fn start_keep_alive(&mut self) {
        self.get_again();
        self.post(ECHO);
    }

    fn get_again(&mut self) {
        let get = self.request_head("GET", None);
        self.ask(Wire::Get, get.into());
    }

    fn post(&mut self, body: &[u8]) {
        let mut post = self.request_head("POST", Some(body.len() as u64)).into_bytes();
        post.extend_from_slice(body);
        self.ask(Wire::Post, post.into());
    }

    pub(super) fn read_keep_alive(&mut self, wire: Wire) -> Result<(), HttpClientError> {
        while let Some(body) = self.response(wire)? {
            let established = self.established;
            let super::Mode::KeepAlive(handshake) = &mut self.mode else { return Ok(()) };
            match wire {
                Wire::Get if established => self.deliver(body),
                Wire::Get if body == ECHO[..] => handshake.get = true,
                Wire::Get => return Err(HttpClientError::Echo),
                Wire::Post => handshake.post = true,
            }
            if let super::Mode::KeepAlive(KeepAlive { get: true, post: true }) = self.mode {
                if !established {
                    self.establish();
                }
                self.pump();
            }
        }
        Ok(())
    }

    /// The next GET as soon as there is room for its answer, and the next POST as soon as there is something to carry.
    pub(super) fn pump_keep_alive(&mut self) {
        if !self.wires[Wire::Get as usize].asked && self.inbox_has_room() {
            self.get_again();
        }
        if !self.wires[Wire::Post as usize].asked && !self.outbox.is_empty() {
            let body = self.outbox.split_to(self.outbox.len().min(MAX_BODY_BYTES));
            self.post(&body);
        }
    }
}
