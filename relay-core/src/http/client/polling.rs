//! The client of Polling (http-encapsulation 7.5, 6.5): a new connection for each request, never two at a time. A request whose exchange
//! was lost is repeated as it was; a relay that counts requests as ours does answers it once more.

use super::super::poll::{self, Pace};
use super::super::profile::{MAX_BODY_BYTES, MAX_POLL_INTERVAL, POLL_ATTEMPTS, POLL_REPETITIONS};
use super::wire::Wire;
use super::{HttpClient, HttpClientError, Mode};
use crate::time::Timestamp;
use bytes::Bytes;
use std::time::Duration;

/// What Polling knows beside its wire.
#[derive(Debug)]
pub(super) struct Polling {
    stage: Stage,
    /// RequestSequenceNum of the request that is out, or was last.
    sequence: u32,
    /// That request, to be repeated if its exchange is lost, and how often it was sent.
    request: Bytes,
    attempts: u32,
    pace: Pace,
    /// The interval now in seconds, and how many polls have come after it.
    interval: u32,
    polls: u32,
    pub(super) next_poll: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The probe is out.
    Probing,
    /// The next request is the second of the handshake: it has data.
    Probed,
    /// The second is out, or was answered.
    Established,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            stage: Stage::Probing,
            sequence: 0,
            request: Bytes::new(),
            attempts: 0,
            pace: Pace { min: 1, max: MAX_POLL_INTERVAL.as_secs() as u32, repetitions: POLL_REPETITIONS },
            interval: 1,
            polls: 0,
            next_poll: None,
        }
    }
}

impl Polling {
    /// Section 6.5: `repetitions` polls at one interval, then it doubles, up to the maximum; data begin anew.
    fn next_interval(&mut self, had_data: bool) -> Duration {
        let (min, max) = (self.pace.min.min(self.pace.max).max(1), self.pace.max.max(1));
        if had_data || self.interval < min {
            (self.interval, self.polls) = (min, 0);
        }
        if self.polls >= self.pace.repetitions {
            (self.interval, self.polls) = (self.interval.saturating_mul(2), 0);
        }
        self.interval = self.interval.min(max);
        self.polls += 1;
        Duration::from_secs(u64::from(self.interval))
    }
}

impl HttpClient {
    /// 3.5.4.1: the probe.
    pub(super) fn start_polling(&mut self) {
        self.poll_with(0, b"");
    }

    fn poll_with(&mut self, sequence: u32, data: &[u8]) {
        let body = poll::write(self.server_name().as_bytes(), &self.guid, sequence, None, data);
        let head = self.request_head("POST", Some(body.len() as u64));
        let request: Bytes = [head.as_bytes(), &body].concat().into();
        if let Mode::Polling(state) = &mut self.mode {
            state.sequence = sequence;
            state.request = request.clone();
            state.attempts = 1;
            state.next_poll = None;
        }
        self.ask(Wire::Post, request);
    }

    /// The next request, if none is out: with what there is to carry, or empty.
    pub(super) fn poll_now(&mut self) {
        let asked = self.wire(Wire::Post).asked;
        let Mode::Polling(state) = &mut self.mode else { return };
        let sequence = match state.stage {
            _ if asked => return,
            Stage::Probing => return,
            // It has to have data (3.5.4.1).
            Stage::Probed if self.outbox.is_empty() => return,
            Stage::Probed => 0,
            Stage::Established => state.sequence + 1,
        };
        state.stage = Stage::Established;
        let room = MAX_BODY_BYTES - poll::overhead(self.server_name().as_bytes(), &self.guid, None);
        let data = self.outbox.split_to(self.outbox.len().min(room));
        self.poll_with(sequence, &data);
    }

    pub(super) fn read_polling(&mut self, wire: Wire) -> Result<(), HttpClientError> {
        let Some(body) = self.response(wire)? else { return Ok(()) };
        self.hang_up(wire);
        let full = body.len() >= MAX_BODY_BYTES - 16;
        let (answer, pace) = poll::parse_response(body)?;
        let guid = self.guid.clone();
        let now = self.now;
        let Mode::Polling(state) = &mut self.mode else { return Ok(()) };
        if answer.guid != guid || answer.sequence != state.sequence {
            return Err(HttpClientError::OutOfOrder);
        }
        state.pace = pace;
        let first = state.stage == Stage::Probing;
        if first {
            state.stage = Stage::Probed;
        } else {
            let wait = state.next_interval(!answer.data.is_empty());
            // A full answer says that there is more.
            state.next_poll = Some(if full { now } else { now + wait });
        }
        self.deliver(answer.data);
        if first {
            self.establish();
        }
        self.pump();
        Ok(())
    }

    /// An exchange was lost: the same request once more (the server knows it by its number).
    pub(super) fn poll_lost(&mut self) {
        let Mode::Polling(state) = &mut self.mode else { return };
        if state.attempts >= POLL_ATTEMPTS {
            return self.fail(HttpClientError::Lost);
        }
        state.attempts += 1;
        let request = state.request.clone();
        self.ask(Wire::Post, request);
    }

    /// What there is to carry goes as soon as the request before it was answered.
    pub(super) fn pump_polling(&mut self) {
        let now = self.now;
        let due = matches!(&self.mode, Mode::Polling(state) if state.next_poll.is_some_and(|at| at <= now));
        if !self.outbox.is_empty() || due && self.inbox_has_room() {
            self.poll_now();
        }
    }
}
