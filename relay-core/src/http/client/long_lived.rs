//! The client of LongLived (http-encapsulation 7.2).

use super::super::profile::{CONTENT_LENGTH, ECHO};
use super::wire::Wire;
use super::{Action, HttpClient, HttpClientError, Mode};
use bytes::Bytes;

/// What LongLived knows beside its wires.
#[derive(Debug, Default)]
pub(super) struct LongLived {
    /// PostContentLength, the echo string included.
    uploaded: u64,
    /// The driver has bytes of the POST that the system has not taken.
    pub(super) sending: bool,
}

impl HttpClient {
    /// 3.1.4.1: both sessions at once, the POST with its first fragment.
    pub(super) fn start_long_lived(&mut self) {
        let get = self.request_head("GET", None);
        self.ask(Wire::Get, get.into());
        let mut post = self.request_head("POST", Some(CONTENT_LENGTH)).into_bytes();
        post.extend_from_slice(ECHO);
        self.ask(Wire::Post, post.into());
        // Nothing answers a POST that does not end.
        self.wire(Wire::Post).due = None;
        if let Mode::LongLived(state) = &mut self.mode {
            state.uploaded = ECHO.len() as u64;
        }
    }

    pub(super) fn read_long_lived(&mut self, wire: Wire) -> Result<(), HttpClientError> {
        if self.response_head(wire)?.is_none() {
            return Ok(());
        }
        if wire == Wire::Post {
            // An answer to the POST says that it has ended.
            return Err(HttpClientError::Lost);
        }
        if !self.established {
            let state = self.wire(Wire::Get);
            if state.input.len() < ECHO.len() {
                return Ok(());
            }
            if state.input.split_to(ECHO.len()) != ECHO[..] {
                return Err(HttpClientError::Echo);
            }
            state.due = None;
            self.establish();
            self.pump();
        }
        let data = self.wire(Wire::Get).input.split().freeze();
        self.deliver(data);
        Ok(())
    }

    /// 3.1.4.3: on the POST, one piece after the other, and not beyond the budget.
    pub(super) fn pump_long_lived(&mut self) {
        let Mode::LongLived(state) = &mut self.mode else { return };
        if state.sending || self.outbox.is_empty() {
            return;
        }
        state.uploaded += self.outbox.len() as u64;
        if state.uploaded > CONTENT_LENGTH {
            return self.fail(HttpClientError::Exhausted);
        }
        state.sending = true;
        let chunk: Bytes = self.outbox.split().freeze();
        self.actions.push_back(Action::Send(Wire::Post, chunk));
    }
}
