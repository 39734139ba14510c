//! Messages on their way out: queued for each destination, sent over sessions opened on demand, kept until acknowledged.
//!
//! Every message has exactly one place: in `waiting`, `sending` or `sent` of its route. It leaves with
//! [`Event::Delivered`] or [`Event::Failed`], once.

use super::config::Limits;
use super::destination::Destination;
use super::event::Event;
use super::message::{Body, MessageId, OutgoingMessage, QueueError, SendFailure};
use super::route::{Piece, Route, Sending, SessionState, Transmission};
use crate::sstp::command::{CommandId, FanoutOpen, SessionStatus};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, Connection, OpenResponseId, SessionId, StatusId};
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::HashMap;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Sessions that may be closed under a message for no reason of its own before it is given up.
const MOST_INTERRUPTIONS: u32 = 5;
/// The pause before a session is opened again, doubled with each interruption.
const HOLD: Duration = Duration::from_millis(250);
/// What one route may send before it is another's turn, in bytes.
const TURN_BYTES: u64 = 64 << 10;

#[derive(Debug)]
struct Message {
    route: usize,
    body: Body,
    flags: u8,
    tail: Bytes,
}

/// Whether a route has more to do at once.
#[derive(PartialEq, Eq)]
enum Turn {
    Again,
    Over,
}

/// Everything of one client that is on its way out.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: Limits,
    messages: HashMap<MessageId, Message>,
    routes: Slab<Route>,
    by_destination: HashMap<Arc<Destination>, usize>,
    by_session: HashMap<SessionId, usize>,
    /// Transmissions that count when they are acknowledged.
    in_flight: HashMap<Transmission, MessageId>,
    /// Routes that may have something to do, each at most once.
    turns: VecDeque<usize>,
    /// Routes that wait for another's session to fall idle.
    starved: VecDeque<usize>,
    /// When the first hold ends.
    next_hold: Option<Timestamp>,
    bytes: usize,
    next_message: u64,
    next_transmission: u64,
    uses: u64,
}

impl Outbox {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            messages: HashMap::new(),
            routes: Slab::new(),
            by_destination: HashMap::new(),
            by_session: HashMap::new(),
            in_flight: HashMap::new(),
            turns: VecDeque::new(),
            starved: VecDeque::new(),
            next_hold: None,
            bytes: 0,
            next_message: 0,
            next_transmission: 0,
            uses: 0,
        }
    }

    /// Messages not yet acknowledged.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Takes a message.
    pub(super) fn push(&mut self, message: OutgoingMessage) -> Result<MessageId, QueueError> {
        let bytes = message.body.bytes_in_memory();
        if bytes > self.limits.queued_bytes {
            return Err(QueueError::TooLong(bytes));
        }
        if self.messages.len() >= self.limits.queued_messages || self.bytes + bytes > self.limits.queued_bytes
        {
            return Err(QueueError::Full);
        }
        let id = MessageId(self.next_message);
        self.next_message += 1;
        self.bytes += bytes;
        let tail = message.tail();
        let route = self.route_to(message.destination);
        self.routes[route].waiting.push_back(id);
        self.messages.insert(id, Message { route, body: message.body, flags: message.flags, tail });
        self.queue(route);
        Ok(id)
    }

    /// When the first hold ends.
    pub(super) fn next_hold(&self) -> Option<Timestamp> {
        self.next_hold
    }

    /// The connection is there: everybody's turn.
    pub(super) fn connected(&mut self) {
        let routes: Vec<_> = self.routes.iter().map(|(route, _)| route).collect();
        routes.into_iter().for_each(|route| self.queue(route));
    }

    /// The connection is gone: all that was not acknowledged is to be sent again.
    pub(super) fn disconnected(&mut self) {
        self.by_session.clear();
        self.in_flight.clear();
        self.turns.clear();
        self.starved.clear();
        self.next_hold = None;
        for (_, route) in &mut self.routes {
            route.rewind();
            route.queued = false;
        }
        let by_destination = &mut self.by_destination;
        self.routes.retain(|_, route| {
            if route.is_idle() {
                by_destination.remove(&route.destination);
            }
            !route.is_idle()
        });
    }

    /// The client is closed: everything is given up.
    pub(super) fn abandon(&mut self, events: &mut VecDeque<Event>) {
        self.disconnected();
        self.routes.clear();
        self.by_destination.clear();
        self.bytes = 0;
        let mut ids: Vec<_> = self.messages.drain().map(|(id, _)| id).collect();
        ids.sort_unstable();
        let failed =
            ids.into_iter().map(|message| Event::Failed { message, failure: SendFailure::ClientClosed });
        events.extend(failed);
    }

    /// Fills the output of an established connection up to the high-water mark.
    pub(super) fn pump(&mut self, now: Timestamp, connection: &mut Connection, events: &mut VecDeque<Event>) {
        while connection.output_bytes() < self.limits.output_high_water {
            let Some(route) = self.turns.pop_front() else { return };
            match self.turn(route, now, connection, events) {
                Turn::Again => self.turns.push_back(route),
                Turn::Over => {
                    if let Some(route) = self.routes.get_mut(route) {
                        route.queued = false;
                    }
                }
            }
        }
    }

    /// The routes whose hold is over get their turn.
    pub(super) fn release_holds(&mut self, now: Timestamp) {
        if self.next_hold.is_none_or(|first| first > now) {
            return;
        }
        let holds = self.routes.iter().filter_map(|(index, route)| match route.state {
            SessionState::Held(until) => Some((until, index)),
            _ => None,
        });
        let (over, running): (Vec<_>, Vec<_>) = holds.partition(|(until, _)| *until <= now);
        self.next_hold = running.into_iter().map(|(until, _)| until).min();
        over.into_iter().for_each(|(_, index)| self.queue(index));
    }

    /// A session may send.
    pub(super) fn session_ready(&mut self, session: SessionId) {
        if let Some(&route) = self.by_session.get(&session) {
            self.routes[route].state = SessionState::Ready(session);
            self.queue(route);
        }
    }

    /// A session must hold.
    pub(super) fn session_stopped(&mut self, session: SessionId) {
        if let Some(&route) = self.by_session.get(&session) {
            self.routes[route].state = SessionState::Stopped(session);
        }
    }

    /// A session was not opened: nothing for this destination has a chance.
    pub(super) fn session_refused(
        &mut self,
        session: SessionId,
        response: OpenResponseId,
        events: &mut VecDeque<Event>,
    ) {
        let Some(route) = self.by_session.remove(&session) else { return };
        self.recall(route);
        self.routes[route].rewind();
        self.fail_route(route, SendFailure::Refused(response), events);
        self.feed_starved();
    }

    /// A session of ours was closed by the relay; `false` if it was none of ours.
    pub(super) fn session_closed(
        &mut self,
        session: SessionId,
        reason: CloseReason,
        now: Timestamp,
        events: &mut VecDeque<Event>,
    ) -> bool {
        let Some(index) = self.by_session.remove(&session) else { return false };
        self.recall(index);
        let route = &mut self.routes[index];
        route.interruptions += 1;
        if !blames_messages(reason) && route.interruptions < MOST_INTERRUPTIONS {
            route.rewind();
        } else {
            let mut blamed = route.take_on_session();
            route.rewind();
            if blamed.is_empty() {
                // It was closed before it took anything, as when no relay of its recipients could be reached.
                blamed.extend(route.waiting.drain(..));
            }
            for id in blamed {
                self.fail(id, SendFailure::Closed(reason), events);
            }
        }
        let route = &mut self.routes[index];
        if route.is_idle() {
            self.remove_route(index);
        } else {
            let until = now + HOLD * (1 << route.interruptions.min(8));
            route.state = SessionState::Held(until);
            self.next_hold = Some(self.next_hold.map_or(until, |first| first.min(until)));
        }
        self.feed_starved();
        true
    }

    /// Recipients of a fanout session are affected.
    pub(super) fn session_status(&mut self, status: SessionStatus) {
        let Some(&route) = self.by_session.get(&status.session) else { return };
        let route = &mut self.routes[route];
        let about_relay = matches!(
            status.status,
            StatusId::DnsLookupFailed | StatusId::HostNotReachable | StatusId::ConnectionClosed
        );
        let indexes = if !status.indexes.is_empty() {
            status.indexes
        } else if about_relay {
            route.destination.behind_relay(&status.device_url)
        } else {
            route.destination.position(&status.identity_url, &status.device_url).into_iter().collect()
        };
        for index in indexes {
            route.fault(index, status.status);
        }
    }

    /// The relay acknowledges a transmission.
    pub(super) fn acknowledged(
        &mut self,
        transmission: Transmission,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) {
        let Some(id) = self.in_flight.remove(&transmission) else { return };
        let message = self.messages.remove(&id).expect("a message in flight is known");
        self.bytes -= message.body.bytes_in_memory();
        let route = &mut self.routes[message.route];
        match route.sent.front() {
            Some((front, _)) if *front == transmission => drop(route.sent.pop_front()),
            _ => route.sent.retain(|(sent, _)| *sent != transmission),
        }
        route.interruptions = 0;
        events.push_back(Event::Delivered { message: id, failed: route.faults.clone() });
        if route.is_idle() {
            self.route_fell_idle(message.route, connection);
        }
    }

    /// A piece of a pulled body; ignored if it is not the one that is wanted. An empty one means that the body is at an end too early.
    pub(super) fn provide(
        &mut self,
        id: MessageId,
        offset: u64,
        mut bytes: Bytes,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) {
        let Some(message) = self.messages.get(&id) else { return };
        let (route, length) = (message.route, message.body.length());
        let Some(sending) = self.routes[route].sending.as_mut() else { return };
        if sending.id != id || sending.offset != offset || sending.piece != Piece::Asked {
            return;
        }
        if bytes.is_empty() {
            return self.body_unavailable(id, connection, events);
        }
        bytes.truncate((length - offset).min(bytes.len() as u64) as usize);
        sending.piece = Piece::Here(bytes);
        self.queue(route);
    }

    /// A pulled body cannot be read: its message is given up. If it has begun, only the end of the session ends it.
    pub(super) fn body_unavailable(
        &mut self,
        id: MessageId,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) {
        let Some(index) = self.messages.get(&id).map(|message| message.route) else { return };
        let route = &mut self.routes[index];
        if route.sending.as_ref().is_none_or(|sending| sending.id != id) {
            return;
        }
        route.sending = None;
        self.fail(id, SendFailure::BodyUnavailable, events);
        self.close_session(index, connection);
        if self.routes[index].is_idle() {
            self.remove_route(index);
        } else {
            self.queue(index);
        }
        self.feed_starved();
    }

    /// One turn of one route.
    fn turn(
        &mut self,
        index: usize,
        now: Timestamp,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) -> Turn {
        let Some(route) = self.routes.get_mut(index).filter(|route| route.has_unsent()) else {
            return Turn::Over;
        };
        match route.state {
            SessionState::Held(until) if until > now => Turn::Over,
            SessionState::None | SessionState::Held(_) => self.open(index, connection, events),
            SessionState::Opening(_) | SessionState::Stopped(_) => Turn::Over,
            SessionState::Ready(session) => {
                self.uses += 1;
                self.routes[index].last_used = self.uses;
                self.send(index, session, connection, events)
            }
        }
    }

    /// Sends what one turn allows.
    fn send(
        &mut self,
        index: usize,
        session: SessionId,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) -> Turn {
        let route = &mut self.routes[index];
        let mut budget = TURN_BYTES;
        loop {
            if route.sending.is_none() {
                let Some(id) = route.waiting.pop_front() else { return Turn::Over };
                let message = &self.messages[&id];
                connection.begin_message(session, message.flags, &message.tail);
                route.sending = Some(Sending { id, offset: 0, piece: Piece::Unasked });
            }
            let sending = route.sending.as_mut().expect("a message is being sent");
            let id = sending.id;
            let body = &self.messages[&id].body;
            let before = sending.offset;
            match body {
                Body::Whole(bytes) => {
                    let start = sending.offset as usize;
                    let end = bytes.len().min(start + budget as usize);
                    connection.message_data(session, bytes.slice(start..end));
                    sending.offset = end as u64;
                }
                Body::Pulled { length } => {
                    if let Piece::Here(piece) = std::mem::replace(&mut sending.piece, Piece::Unasked) {
                        sending.offset += piece.len() as u64;
                        connection.message_data(session, piece);
                    }
                    let left = *length - sending.offset;
                    if left > 0 {
                        let (offset, max) =
                            (sending.offset, left.min(self.limits.piece_bytes as u64) as usize);
                        sending.piece = Piece::Asked;
                        events.push_back(Event::WantBody { message: id, offset, max });
                        return Turn::Over;
                    }
                }
            }
            budget = budget.saturating_sub(sending.offset - before + 32);
            if sending.offset == body.length() {
                let transmission = Transmission(self.next_transmission);
                self.next_transmission += 1;
                connection.end_message(session, transmission.0);
                route.sending = None;
                route.sent.push_back((transmission, id));
                self.in_flight.insert(transmission, id);
            }
            if budget == 0 {
                return if route.has_unsent() { Turn::Again } else { Turn::Over };
            }
        }
    }

    /// Opens a session, if need be at the cost of an idle one.
    fn open(&mut self, index: usize, connection: &mut Connection, events: &mut VecDeque<Event>) -> Turn {
        if self.by_session.len() >= self.limits.open_sessions && !self.close_idle_session(connection) {
            return self.starve(index);
        }
        let destination = self.routes[index].destination.clone();
        let (_, most) = CommandId::Open.length_limits();
        if destination.single().is_some_and(|recipient| destination.open_bytes(recipient) > most) {
            self.fail_route(index, SendFailure::AddressTooLong, events);
            return Turn::Over;
        }
        let mut too_many = false;
        let session = match destination.single() {
            Some(recipient) => connection.open(
                Text::from(destination.resource()),
                Text::from(&recipient.identity),
                recipient.device.as_ref().map_or(Text::EMPTY, Text::from),
            ),
            None => connection.open_fanout(|session, version| {
                let entries = destination.fanout_entries();
                let open = FanoutOpen::new(session, Text::from(destination.resource()), &entries, version);
                too_many = open.is_none();
                open
            }),
        };
        match session {
            Some(session) => {
                self.routes[index].state = SessionState::Opening(session);
                self.by_session.insert(session, index);
            }
            None if too_many => self.fail_route(index, SendFailure::TooManyRecipients, events),
            // The relay's own sessions have taken all room: when one of ours falls idle we try again.
            None => return self.starve(index),
        }
        Turn::Over
    }

    fn starve(&mut self, index: usize) -> Turn {
        if !self.starved.contains(&index) {
            self.starved.push_back(index);
        }
        Turn::Over
    }

    /// Closes the idle session that was used least recently, if there is any idle one.
    fn close_idle_session(&mut self, connection: &mut Connection) -> bool {
        let idle = self.by_session.values().filter(|&&route| self.routes[route].is_idle());
        let Some(&index) = idle.min_by_key(|&&route| self.routes[route].last_used) else { return false };
        self.close_session(index, connection);
        self.remove_route(index);
        true
    }

    fn close_session(&mut self, index: usize, connection: &mut Connection) {
        let route = &mut self.routes[index];
        if let Some(session) = route.state.session() {
            self.by_session.remove(&session);
            connection.close_session(session, CloseReason::NoReason);
        }
        route.state = SessionState::None;
        route.faults.clear();
    }

    /// All messages of a route are done. A session that has lost recipients is closed, so that the next message tries
    /// them again; any other is kept for reuse.
    fn route_fell_idle(&mut self, index: usize, connection: &mut Connection) {
        let route = &self.routes[index];
        if route.state.session().is_none() || !route.faults.is_empty() {
            self.close_session(index, connection);
            self.remove_route(index);
        }
        self.feed_starved();
    }

    /// What is on the session of a route no longer counts when it is acknowledged.
    fn recall(&mut self, index: usize) {
        for (transmission, _) in &self.routes[index].sent {
            self.in_flight.remove(transmission);
        }
    }

    /// A session may be had now: the next one that waits for it tries.
    fn feed_starved(&mut self) {
        if let Some(route) = self.starved.pop_front() {
            self.queue(route);
        }
    }

    fn route_to(&mut self, destination: Arc<Destination>) -> usize {
        if let Some(&route) = self.by_destination.get(&destination) {
            return route;
        }
        let route = self.routes.insert(Route::new(destination.clone()));
        self.by_destination.insert(destination, route);
        route
    }

    fn remove_route(&mut self, index: usize) {
        let route = self.routes.remove(index);
        debug_assert!(route.is_idle());
        self.by_destination.remove(&route.destination);
        self.turns.retain(|&turn| turn != index);
        self.starved.retain(|&starved| starved != index);
    }

    fn queue(&mut self, index: usize) {
        let route = &mut self.routes[index];
        if !std::mem::replace(&mut route.queued, true) {
            self.turns.push_back(index);
        }
    }

    /// Gives all messages of a route up, and the route with them.
    fn fail_route(&mut self, index: usize, failure: SendFailure, events: &mut VecDeque<Event>) {
        let ids = std::mem::take(&mut self.routes[index].waiting);
        for id in ids {
            self.fail(id, failure, events);
        }
        self.remove_route(index);
    }

    fn fail(&mut self, id: MessageId, failure: SendFailure, events: &mut VecDeque<Event>) {
        let message = self.messages.remove(&id).expect("a message fails once");
        self.bytes -= message.body.bytes_in_memory();
        events.push_back(Event::Failed { message: id, failure });
    }
}

/// Whether a session closed for this reason would be closed again under the same messages.
fn blames_messages(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::NoReason
            | CloseReason::Resting
            | CloseReason::Idle
            | CloseReason::InternalError
            | CloseReason::Other(_)
    )
}
