//! The machine of one SSTP connection, for both roles and both versions (sstp-behaviour secs. 6 and 7). Here: its state and what its
//! owner can do; `receive`: what the peer's commands do.
//!
//! Bytes and the time go in ([`Connection::receive`], [`Connection::handle_timeout`]); events come out one at a time
//! ([`Connection::poll`]), so that the owner can act between two commands; output gathers in [`Connection::output`]. The machine
//! owns the handshake, the session table, the message lists, acknowledgement, tombstones and the deadlines. Who may
//! connect, what a message means and when it is complete is the owner's to say.

mod config;
mod event;
mod receive;

pub use super::session::Part;
pub use config::{ConnectionConfig, Endpoint};
pub use event::{Ended, Event, Violation};

use super::acknowledge::{InboundMessages, InboundSeq, OutboundMessages, Run};
use super::codes::{CloseReason, ConnectResponseId, OpenResponseId};
use super::command::{AccountRequest, Command, Connect, FanoutOpen, Open, SessionId, SessionStatus, Version};
use super::encode;
use super::frame::FrameReader;
use super::output::OutputQueue;
use super::profile::ACKNOWLEDGE_RUN;
use super::session::{OutboundState, Session, Tombstones};
use super::text::Text;
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::HashMap;
use std::sync::Arc;

/// ConnectionState (sstp-behaviour 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The transport is up and the peer is to speak first.
    TransportConnected,
    /// As acceptor: Connect awaits the owner's answer. As initiator: ConnectResponse is awaited.
    Connecting,
    Established,
    /// 'aborting': nothing more is read; the output may still hold our last words.
    Ended,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    config: Arc<ConnectionConfig>,
    state: State,
    initiator: bool,
    version: Version,
    /// A ConnectResponse with a challenge was sent and ConnectAuthenticate is awaited.
    challenged: bool,
    ended: Option<Ended>,
    reader: FrameReader,
    output: OutputQueue,
    inbound: InboundMessages,
    outbound: OutboundMessages,
    sessions: HashMap<SessionId, Session>,
    /// Payload bytes held in `sessions`.
    held_bytes: usize,
    tombstones: Tombstones,
    next_session: u32,
    /// The handshake step that is awaited must be here by then.
    handshake_due: Option<Timestamp>,
    acknowledge_due: Option<Timestamp>,
    last_sent: Timestamp,
    last_received: Timestamp,
}

impl Connection {
    /// The side that accepted the transport; the peer is to send Connect.
    pub fn acceptor(config: Arc<ConnectionConfig>, now: Timestamp) -> Self {
        Self::new(config, false, now)
    }

    /// The side that opened the transport; sends Connect at once, with a SecConnect `token` or an empty one.
    pub fn initiator(config: Arc<ConnectionConfig>, now: Timestamp, target: Text, token: Bytes) -> Self {
        let connect = Command::from(Connect {
            minor_version: config.version.minor(),
            target_device_url: target,
            source_device_urls: config.local_device_urls.iter().cloned().collect(),
            authentication_token: token,
            peer_product_version: config.product_version.clone(),
            peer_product_capabilities: Text::EMPTY,
        });
        let mut connection = Self::new(config, true, now);
        connection.state = State::Connecting;
        connection.send(&connect);
        connection
    }

    fn new(config: Arc<ConnectionConfig>, initiator: bool, now: Timestamp) -> Self {
        Self {
            state: State::TransportConnected,
            initiator,
            version: config.version,
            challenged: false,
            ended: None,
            reader: FrameReader::default(),
            output: OutputQueue::default(),
            inbound: InboundMessages::default(),
            outbound: OutboundMessages::default(),
            sessions: HashMap::new(),
            held_bytes: 0,
            tombstones: Tombstones::default(),
            next_session: if initiator { 1 } else { u32::MAX },
            handshake_due: Some(now + config.connect_deadline),
            acknowledge_due: None,
            last_sent: now,
            last_received: now,
            config,
        }
    }

    /// The negotiated version; before that, our highest.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether Connect was answered with Ok and the connection has not ended.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether the connection has ended; the transport is to be closed once the output is sent.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes received bytes. Follow with [`Connection::poll`] until it gives nothing.
    pub fn receive(&mut self, now: Timestamp, bytes: Bytes) {
        if self.state != State::Ended {
            self.last_received = now;
            self.reader.push(bytes);
        }
    }

    /// The next event, if it is a message that lies whole in the input: what [`Connection::poll`] tells of it, without the detour
    /// over a value that could be any event.
    #[inline]
    pub fn poll_message(&mut self) -> Option<(SessionId, Part, InboundSeq)> {
        if self.outbound.has_acknowledged() { None } else { self.received_whole_message() }
    }

    /// The next event.
    pub fn poll(&mut self, now: Timestamp) -> Option<Event> {
        loop {
            if let Some(Run { session, tag, count }) = self.outbound.take_acknowledged() {
                return Some(Event::Acknowledged { session, tag, count });
            }
            let undecided = self.state == State::Connecting && !self.initiator;
            if self.state == State::Ended || undecided {
                return self.ended.take().map(Event::Ended);
            }
            if let Some((session, part, end)) = self.received_whole_message() {
                return Some(Event::Part { session, part, end: Some(end) });
            }
            let step = match self.reader.next_frame() {
                Ok(Some(frame)) => self.command(now, frame),
                Ok(None) => return None,
                Err(error) => Err(error.into()),
            };
            match step {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(violation) => self.end_with(Some((violation.reason(), 0)), Ended::Violation(violation)),
            }
        }
    }

    /// What is to be sent. Call [`Connection::prepare_output`] before looking.
    pub fn output(&mut self) -> &mut OutputQueue {
        &mut self.output
    }

    /// Bytes in the output queue.
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Adds the acknowledgement that is due without delay (3.1.4.7): once per batch of output, not once per message.
    pub fn prepare_output(&mut self, now: Timestamp) {
        if self.state == State::Established {
            let run = self.inbound.acknowledgeable();
            if run > 0 && (self.inbound.wants_immediate() || run >= ACKNOWLEDGE_RUN) {
                self.acknowledge_now();
            } else if run > 0 && self.acknowledge_due.is_none() {
                self.acknowledge_due = Some(now + self.config.acknowledge_delay);
            }
        }
        if !self.output.is_empty() {
            self.last_sent = now;
        }
    }

    /// When [`Connection::handle_timeout`] is next due. It may only move later without a call into the machine.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.state {
            State::Ended => None,
            State::TransportConnected | State::Connecting => self.handshake_due,
            State::Established => {
                let idle = self.last_received + self.config.idle_deadline;
                let keep_alive = self.last_sent + self.config.keep_alive;
                [self.handshake_due, self.acknowledge_due, Some(idle.min(keep_alive))]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Acts on every deadline that has passed; follow with [`Connection::poll`].
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let passed = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        if self.state == State::Ended {
            return;
        }
        if passed(self.handshake_due) {
            let last_words = self.challenged.then_some((CloseReason::DeviceAuthenticationFailed, 0));
            return self.end_with(last_words, Ended::Deadline);
        }
        if self.state != State::Established {
            return;
        }
        if now.since(self.last_received) >= self.config.idle_deadline {
            return self.end_with(Some((CloseReason::Idle, 0)), Ended::Deadline);
        }
        if passed(self.acknowledge_due) {
            self.acknowledge_now();
        }
        if now.since(self.last_sent) >= self.config.keep_alive {
            self.shrink();
            self.acknowledge_now();
        }
    }

    /// The peer's silence is ours: its bytes were not read. The idle deadline starts anew.
    pub fn excuse_silence(&mut self, now: Timestamp) {
        self.last_received = now;
    }

    /// The transport is gone.
    pub fn transport_lost(&mut self) {
        if self.state != State::Ended {
            self.end_with(None, Ended::TransportLost);
        }
    }

    /// Answers Connect with Ok. A non-empty `token` is the security message for the peer; `challenged` says that it must
    /// be answered by ConnectAuthenticate in time. Does nothing if no Connect awaits an answer, as when a deadline passed meanwhile.
    pub fn accept(&mut self, now: Timestamp, token: Bytes, challenged: bool) {
        if self.state != State::Connecting || self.initiator {
            return;
        }
        self.connect_response(ConnectResponseId::Ok, 0, token);
        self.state = State::Established;
        self.challenged = challenged;
        self.handshake_due = challenged.then(|| now + self.config.authenticate_deadline);
    }

    /// Answers Connect with a refusal and ends the connection. Does nothing if it has ended already.
    pub fn refuse(&mut self, response: ConnectResponseId, retry_time: u32, token: Bytes) {
        if self.state == State::Ended {
            return;
        }
        self.connect_response(response, retry_time, token);
        self.end_with(None, Ended::Refused(response));
    }

    /// What was received behind the Connect that awaits an answer, and the Connect itself: all that another shard needs to
    /// take the connection over. The connection is of no use afterwards.
    pub fn hand_off(self, connect: Connect) -> Bytes {
        let mut bytes = bytes::BytesMut::new();
        Command::from(connect).encode(&mut bytes);
        bytes.extend_from_slice(&self.reader.into_rest());
        bytes.freeze()
    }

    /// The owner has found the ConnectAuthenticate right.
    pub fn authenticated(&mut self) {
        self.handshake_due = None;
    }

    /// Payload bytes held of messages whose end has not arrived.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Sends our answer to the relay's challenge.
    pub fn connect_authenticate(&mut self, token: Bytes) {
        self.send(&Command::ConnectAuthenticate { token });
    }

    /// Ends the connection with ConnectClose (3.1.4.2): the final acknowledgement goes with it. `return_time` is in seconds
    /// and means something with Resting.
    pub fn close(&mut self, reason: CloseReason, return_time: u32) {
        if self.state != State::Ended {
            self.end_with(Some((reason, return_time)), Ended::ByUs(reason));
        }
    }

    /// Opens a session of ours; it may send after [`Event::SessionReady`]. `None` if the connection has no room for another.
    pub fn open(&mut self, resource_url: Text, identity_url: Text, device_url: Text) -> Option<SessionId> {
        let session = self.new_session(Session::Outbound(OutboundState::Opening))?;
        self.send(&Command::Open(Open { session, resource_url, identity_url, device_url }));
        Some(session)
    }

    /// Opens a fanout session of ours; `build` gets the SessionId and the version that decides the entries' layout.
    pub fn open_fanout(
        &mut self,
        build: impl FnOnce(SessionId, Version) -> Option<FanoutOpen>,
    ) -> Option<SessionId> {
        let session = self.new_session(Session::Outbound(OutboundState::Opening))?;
        match build(session, self.version) {
            Some(open) => {
                self.send(&Command::FanoutOpen(open));
                Some(session)
            }
            None => {
                self.sessions.remove(&session);
                None
            }
        }
    }

    /// Answers Open or FanoutOpen, or later stops (OkStopSending) and resumes (Ok) the peer's session. Any other code ends
    /// the session.
    pub fn respond(&mut self, session: SessionId, response: OpenResponseId) {
        if !matches!(self.sessions.get(&session), Some(Session::Inbound(_))) {
            return;
        }
        self.send(&Command::OpenResponse { session, response });
        if !matches!(response, OpenResponseId::Ok | OpenResponseId::OkStopSending) {
            self.bury(session);
        }
    }

    /// Answers a FanoutOpen without entries: Ok, and the session is gone (sstp-behaviour 7.0, FanoutOpen row 2).
    pub fn respond_empty_fanout(&mut self, session: SessionId) {
        self.respond(session, OpenResponseId::Ok);
        self.bury(session);
    }

    /// Tells the originator of a fanout session that recipients are affected. On a 1.5 connection only the single-recipient
    /// form exists: `status.indexes` must be empty there. Does nothing if the session is gone. What is complete by now is
    /// acknowledged first, so that the peer can tell it from what these recipients may not have got.
    pub fn session_status(&mut self, status: SessionStatus) {
        debug_assert!(self.version == Version::V1_6 || status.indexes.is_empty());
        if matches!(self.sessions.get(&status.session), Some(Session::Inbound(_))) {
            if self.inbound.acknowledgeable() > 0 {
                self.acknowledge_now();
            }
            self.send(&Command::SessionStatus(status));
        }
    }

    /// Closes a session, ours or the peer's, or an Attach or Register exchange. Late commands for it are dropped. What is
    /// complete by now is acknowledged first, so that the peer can tell it from what the Close refuses.
    pub fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        if self.sessions.contains_key(&session) {
            if self.inbound.acknowledgeable() > 0 {
                self.acknowledge_now();
            }
            self.send(&Command::Close { session, reason });
            self.bury(session);
        }
    }

    /// Whether a session of ours may start a message.
    pub fn may_send(&self, session: SessionId) -> bool {
        matches!(self.sessions.get(&session), Some(Session::Outbound(OutboundState::Ready)))
    }

    /// Starts a message on a session for which [`Connection::may_send`] holds, or held when the message was decided on. The
    /// pending acknowledgement rides along (3.1.4.6).
    pub fn begin_message(&mut self, session: SessionId, flags: u8, tail: &[u8]) {
        let count = self.inbound.take_count();
        self.acknowledge_due = None;
        self.output.encode(|out| encode::put_message(out, session, count, flags, tail));
    }

    /// Sends payload of the message begun on the session.
    pub fn message_data(&mut self, session: SessionId, payload: Bytes) {
        self.output.data(session, payload);
    }

    /// Ends the message begun on the session; [`Event::Acknowledged`] will carry `tag`.
    pub fn end_message(&mut self, session: SessionId, tag: u64) {
        self.output.encode(|out| encode::put_end_message(out, session));
        self.outbound.push(session, tag);
    }

    /// Sends a message of 1 to [`MAX_DATA_BYTES`](super::profile::MAX_DATA_BYTES) payload bytes in one step; see [`Connection::begin_message`] and
    /// [`Connection::end_message`].
    pub fn whole_message(&mut self, session: SessionId, flags: u8, tail: &[u8], payload: &Bytes, tag: u64) {
        let count = self.inbound.take_count();
        self.acknowledge_due = None;
        self.output.whole_message(session, count, flags, tail, payload);
        self.outbound.push(session, tag);
    }

    /// Messages of ours that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.outbound.len()
    }

    /// The owner has finished with a received message (3.1.4.7).
    pub fn complete(&mut self, message: InboundSeq) {
        self.inbound.complete(message);
    }

    /// Received messages that are not yet acknowledged.
    pub fn unfinished(&self) -> usize {
        self.inbound.len()
    }

    /// Attaches an account; `None` if the connection has no room for another session.
    pub fn attach(&mut self, account_url: Text, token: Bytes) -> Option<SessionId> {
        let event = self.new_session(Session::Attach)?;
        let resource_url = Text::EMPTY;
        self.send(&Command::Attach(AccountRequest {
            event,
            resource_url,
            account_url,
            authentication_token: token,
        }));
        Some(event)
    }

    /// Answers the challenge of an AttachResponse. Does nothing if the exchange is gone.
    pub fn attach_authenticate(&mut self, event: SessionId, token: Bytes) {
        if matches!(self.sessions.get(&event), Some(Session::Attach)) {
            self.send(&Command::AttachAuthenticate { event, token });
        }
    }

    /// Answers an Attach with a challenge or a refusal. Does nothing if the exchange is gone.
    pub fn attach_response(&mut self, event: SessionId, token: Bytes) {
        if matches!(self.sessions.get(&event), Some(Session::Attach)) {
            self.send(&Command::AttachResponse { event, token });
        }
    }

    /// Registers a device with an account, or an identity; `None` if the connection has no room for another session.
    pub fn register(&mut self, account_url: Text, token: Bytes) -> Option<SessionId> {
        let event = self.new_session(Session::Register)?;
        let resource_url = Text::EMPTY;
        self.send(&Command::Register(AccountRequest {
            event,
            resource_url,
            account_url,
            authentication_token: token,
        }));
        Some(event)
    }

    /// Answers a Register; the exchange is over.
    pub fn register_response(&mut self, event: SessionId, token: Bytes) {
        if matches!(self.sessions.get(&event), Some(Session::Register)) {
            self.send(&Command::RegisterResponse { event, token });
            self.bury(event);
        }
    }

    fn send(&mut self, command: &Command) {
        self.output.encode(|out| command.encode(out));
    }

    fn connect_response(&mut self, response: ConnectResponseId, retry_time: u32, token: Bytes) {
        let minor_version = self.version.minor();
        self.send(&Command::ConnectResponse { minor_version, response, retry_time, token });
    }

    fn acknowledge_now(&mut self) {
        let count = self.inbound.take_count();
        self.acknowledge_due = None;
        self.output.encode(|out| encode::put_noop(out, count));
    }

    /// An idle connection owns no buffer.
    fn shrink(&mut self) {
        self.output.shrink();
        self.inbound.shrink();
        self.outbound.shrink();
        self.sessions.shrink_to_fit();
    }

    fn end_with(&mut self, last_words: Option<(CloseReason, u32)>, how: Ended) {
        if let Some((reason, return_time)) = last_words {
            let message_count = self.inbound.take_count();
            self.send(&Command::ConnectClose { reason, message_count, return_time });
        }
        self.state = State::Ended;
        self.ended = Some(how);
        self.reader = FrameReader::default();
        self.sessions = HashMap::new();
        self.held_bytes = 0;
    }

    fn new_session(&mut self, session: Session) -> Option<SessionId> {
        if self.state != State::Established || self.sessions.len() >= self.config.max_sessions {
            return None;
        }
        loop {
            let id = SessionId(self.next_session);
            self.next_session = match (self.initiator, self.next_session) {
                (true, u32::MAX) => 1,
                (true, n) => n + 1,
                (false, 1) => u32::MAX,
                (false, n) => n - 1,
            };
            if !self.sessions.contains_key(&id) && !self.tombstones.contains(id) {
                self.sessions.insert(id, session);
                return Some(id);
            }
        }
    }

    fn remove_session(&mut self, session: SessionId) -> Option<Session> {
        let removed = self.sessions.remove(&session)?;
        if let Session::Inbound(receiving) = &removed {
            self.held_bytes -= receiving.held_bytes();
        }
        Some(removed)
    }

    fn bury(&mut self, session: SessionId) {
        self.remove_session(session);
        self.tombstones.insert(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sessions that a machine opens next when it is about to choose `next`.
    fn chosen(initiator: bool, next: u32, in_use: &[u32]) -> Vec<u32> {
        let urls = vec![Text::EMPTY];
        let config = Arc::new(ConnectionConfig::new(Endpoint::Relay, urls, Text::EMPTY));
        let mut machine = Connection::new(config, initiator, Timestamp(0));
        machine.state = State::Established;
        machine.next_session = next;
        for &session in in_use {
            machine.sessions.insert(SessionId(session), Session::Attach);
        }
        let mut open = || machine.open(Text::EMPTY, Text::EMPTY, Text::EMPTY).expect("there is room").0;
        (0..3).map(|_| open()).collect()
    }

    #[test]
    fn session_ids_wrap_around_without_0_and_without_those_in_use() {
        assert_eq!(chosen(true, u32::MAX - 1, &[]), [u32::MAX - 1, u32::MAX, 1]);
        assert_eq!(chosen(false, 2, &[]), [2, 1, u32::MAX]);
        assert_eq!(chosen(true, u32::MAX, &[1, 2]), [u32::MAX, 3, 4]);
        assert_eq!(chosen(false, 1, &[u32::MAX]), [1, u32::MAX - 1, u32::MAX - 2]);
    }
}
