//! One destination in use: the session towards it, and its messages in order. Decides nothing about other destinations.

use super::destination::Destination;
use super::message::MessageId;
use crate::sstp::{SessionId, StatusId};
use crate::time::Timestamp;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// The session towards a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    /// There is none.
    None,
    /// There is none, and none is to be opened before this time.
    Held(Timestamp),
    /// Open was sent.
    Opening(SessionId),
    /// May send.
    Ready(SessionId),
    /// The relay asked to hold.
    Stopped(SessionId),
}

impl SessionState {
    pub(super) fn session(self) -> Option<SessionId> {
        match self {
            Self::None | Self::Held(_) => None,
            Self::Opening(session) | Self::Ready(session) | Self::Stopped(session) => Some(session),
        }
    }
}

/// A message of which Message was sent and EndMessage was not.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: MessageId,
    /// Bytes of the body sent.
    pub(super) offset: u64,
    /// The next piece of a pulled body.
    pub(super) piece: Piece,
}

/// The next piece of a pulled body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Not asked for.
    Unasked,
    /// Asked for.
    Asked,
    /// Here, not empty.
    Here(Bytes),
}

/// One transmission of a message: a new one each time it is sent, so that an acknowledgement for an earlier one, on a
/// session that was closed under it, proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transmission(pub(super) u64);

/// A destination in use.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) destination: Arc<Destination>,
    pub(super) state: SessionState,
    /// Messages not begun, in order.
    pub(super) waiting: VecDeque<MessageId>,
    pub(super) sending: Option<Sending>,
    /// Messages sent and not acknowledged, in order.
    pub(super) sent: VecDeque<(Transmission, MessageId)>,
    /// Recipients that the session has lost.
    pub(super) faults: Vec<(u16, StatusId)>,
    /// Whether it stands in the queue of those that may have something to do.
    pub(super) queued: bool,
    /// When the session was last used, in uses of the outbox.
    pub(super) last_used: u64,
    /// Sessions that were closed under us without a delivery in between.
    pub(super) interruptions: u32,
}

impl Route {
    pub(super) fn new(destination: Arc<Destination>) -> Self {
        Self {
            destination,
            state: SessionState::None,
            waiting: VecDeque::new(),
            sending: None,
            sent: VecDeque::new(),
            faults: Vec::new(),
            queued: false,
            last_used: 0,
            interruptions: 0,
        }
    }

    /// Whether no message is here.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_none() && self.sent.is_empty()
    }

    /// Whether there is something to send now or later.
    pub(super) fn has_unsent(&self) -> bool {
        !self.waiting.is_empty() || self.sending.is_some()
    }

    /// Takes the messages that are on the session, in order.
    pub(super) fn take_on_session(&mut self) -> Vec<MessageId> {
        let sending = self.sending.take().map(|sending| sending.id);
        self.sent.drain(..).map(|(_, id)| id).chain(sending).collect()
    }

    /// The session is gone: what was on it has to be sent again, before all else.
    pub(super) fn rewind(&mut self) {
        for id in self.take_on_session().into_iter().rev() {
            self.waiting.push_front(id);
        }
        self.state = SessionState::None;
        self.faults.clear();
    }

    /// A recipient is lost; each is told once.
    pub(super) fn fault(&mut self, index: u16, status: StatusId) {
        if !self.faults.iter().any(|(known, _)| *known == index) {
            self.faults.push((index, status));
        }
    }
}
