//! Messages on their way in: which session brings which message, what the application has consumed and what it has
//! acknowledged, and when the relay has to hold.

use super::config::Limits;
use super::event::Event;
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::command::{Message, Open};
use crate::sstp::connection::Part;
use crate::sstp::text::Text;
use crate::sstp::{Connection, OpenResponseId, SessionId};
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names an incoming message in the life of a [`Client`](super::Client). A message that comes again has a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncomingId(pub u64);

/// To whom an incoming message is addressed, as its sender said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The resource handler.
    pub resource: Text,
    /// The identity; empty only for presence.
    pub identity: Text,
    /// The device; empty for identity-targeted mail.
    pub device: Text,
}

/// All about an incoming message but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingHead {
    /// Its address.
    pub address: Arc<Address>,
    /// The flag byte, see [`crate::sstp::profile::flags`].
    pub flags: u8,
    /// What stood behind the flag byte, verbatim: UserRef and the optional fields.
    pub tail: Bytes,
}

impl IncomingHead {
    /// The sender's UserRef; may be empty.
    pub fn user_ref(&self) -> &[u8] {
        Message::user_ref(&self.tail)
    }

    /// The lifetime in seconds that the sender gave it.
    pub fn lifetime_seconds(&self) -> Option<u32> {
        Message::ephemeral_seconds(self.flags, &self.tail)
    }
}

/// A session that the relay opened.
#[derive(Debug)]
struct Source {
    address: Arc<Address>,
    /// The message whose end has not arrived.
    current: Option<IncomingId>,
}

/// A message that is not yet acknowledged.
#[derive(Debug, Default)]
struct Arrival {
    /// Known once its end has arrived.
    end: Option<InboundSeq>,
    /// Acknowledged before its end arrived; the rest is dropped unseen.
    acknowledged: bool,
    /// Given back: nothing more of it is passed on.
    returned: bool,
    /// Bytes passed on and not consumed.
    unconsumed: usize,
}

/// Everything of one client that is on its way in.
#[derive(Debug)]
pub(super) struct Inbox {
    unconsumed_limit: usize,
    messages_limit: usize,
    redelivery_delay: std::time::Duration,
    sources: HashMap<SessionId, Source>,
    arrivals: HashMap<IncomingId, Arrival>,
    next: u64,
    unconsumed: usize,
    /// The relay was asked to hold.
    stopped: bool,
    /// When the connection is to be renewed for messages that were given back.
    renew_at: Option<Timestamp>,
}

impl Inbox {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            unconsumed_limit: limits.unconsumed_bytes,
            messages_limit: limits.unacknowledged_messages,
            redelivery_delay: limits.redelivery_delay,
            sources: HashMap::new(),
            arrivals: HashMap::new(),
            next: 0,
            unconsumed: 0,
            stopped: false,
            renew_at: None,
        }
    }

    /// Whether there is room for more input at all.
    pub(super) fn wants_input(&self) -> bool {
        self.unconsumed < 2 * self.unconsumed_limit
    }

    pub(super) fn renew_at(&self) -> Option<Timestamp> {
        self.renew_at
    }

    /// The relay opens a session: accepted, on hold if we are full.
    pub(super) fn opened(&mut self, open: Open, connection: &mut Connection) {
        let address =
            Address { resource: open.resource_url, identity: open.identity_url, device: open.device_url };
        self.sources.insert(open.session, Source { address: Arc::new(address), current: None });
        connection.respond(
            open.session,
            if self.stopped { OpenResponseId::OkStopSending } else { OpenResponseId::Ok },
        );
    }

    /// The relay closed a session of its own; what had begun on it is void.
    pub(super) fn closed(&mut self, session: SessionId, events: &mut VecDeque<Event>) {
        let current = self.sources.remove(&session).and_then(|source| source.current);
        if let Some(id) = current.filter(|id| self.forget(*id)) {
            events.push_back(Event::IncomingLost { id });
        }
    }

    /// The connection is gone, and all that was not acknowledged with it.
    pub(super) fn disconnected(&mut self, events: &mut VecDeque<Event>) {
        self.sources.clear();
        let mut lost: Vec<_> = self.arrivals.keys().copied().collect();
        lost.sort_unstable();
        for id in lost {
            if self.forget(id) {
                events.push_back(Event::IncomingLost { id });
            }
        }
        self.stopped = false;
        self.renew_at = None;
    }

    /// A message or a part of one arrived.
    pub(super) fn part(
        &mut self,
        session: SessionId,
        part: Part,
        end: Option<InboundSeq>,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) {
        let source = self.sources.get_mut(&session).expect("parts arrive on open sessions of the relay");
        let id = *source.current.get_or_insert_with(|| {
            let id = IncomingId(self.next);
            self.next += 1;
            self.arrivals.insert(id, Arrival::default());
            let head =
                IncomingHead { address: source.address.clone(), flags: part.flags, tail: part.tail.clone() };
            events.push_back(Event::Incoming { id, head });
            id
        });
        let arrival = self.arrivals.get_mut(&id).expect("the current message of a session is known");
        let wanted = !arrival.acknowledged && !arrival.returned;
        if wanted && part.payload_bytes > 0 {
            arrival.unconsumed += part.payload_bytes;
            self.unconsumed += part.payload_bytes;
            events.push_back(Event::IncomingData { id, payload: part.payload });
        }
        if let Some(seq) = end {
            source.current = None;
            arrival.end = Some(seq);
            if arrival.acknowledged {
                self.arrivals.remove(&id);
                connection.complete(seq);
            } else if !arrival.returned {
                events.push_back(Event::IncomingEnd { id });
            }
        }
    }

    /// The application has taken bytes out of memory.
    pub(super) fn consumed(&mut self, id: IncomingId, bytes: usize) {
        if let Some(arrival) = self.arrivals.get_mut(&id) {
            let bytes = bytes.min(arrival.unconsumed);
            arrival.unconsumed -= bytes;
            self.unconsumed -= bytes;
        }
    }

    /// The application has dealt with a message; `false` if it is not of this connection any more.
    pub(super) fn acknowledge(&mut self, id: IncomingId, connection: &mut Connection) -> bool {
        let Some(arrival) = self.arrivals.get_mut(&id).filter(|arrival| !arrival.returned) else {
            return false;
        };
        self.unconsumed -= std::mem::take(&mut arrival.unconsumed);
        match arrival.end {
            Some(seq) => {
                self.arrivals.remove(&id);
                connection.complete(seq);
            }
            None => arrival.acknowledged = true,
        }
        true
    }

    /// The application wants a message later: on the next connection, which is made before long.
    pub(super) fn give_back(&mut self, id: IncomingId, now: Timestamp) {
        if let Some(arrival) = self.arrivals.get_mut(&id).filter(|arrival| !arrival.acknowledged) {
            self.unconsumed -= std::mem::take(&mut arrival.unconsumed);
            arrival.returned = true;
            self.renew_at.get_or_insert(now + self.redelivery_delay);
        }
    }

    /// Asks the relay to hold or to go on.
    pub(super) fn regulate(&mut self, connection: &mut Connection) {
        let full = self.unconsumed >= self.unconsumed_limit || self.arrivals.len() >= self.messages_limit;
        let roomy =
            self.unconsumed <= self.unconsumed_limit / 2 && self.arrivals.len() <= self.messages_limit / 2;
        let response = match self.stopped {
            false if full => OpenResponseId::OkStopSending,
            true if roomy => OpenResponseId::Ok,
            _ => return,
        };
        self.stopped = !self.stopped;
        for &session in self.sources.keys() {
            connection.respond(session, response);
        }
    }

    /// Drops a message; whether the application has to hear of it.
    fn forget(&mut self, id: IncomingId) -> bool {
        let arrival = self.arrivals.remove(&id).expect("the message is known");
        self.unconsumed -= arrival.unconsumed;
        !arrival.returned && !arrival.acknowledged
    }
}
