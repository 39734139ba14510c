//! The machine of one SSTP connection, for both roles and both versions (sstp-behaviour secs. 6 and 7).
//!
//! Bytes and the time go in ([`Connection::receive`], [`Connection::handle_timeout`]); events come out one at a time
//! ([`Connection::poll`]), so that the owner can act between two commands; output gathers in [`Connection::output`]. The machine
//! owns the handshake, the session table, the message lists, acknowledgement, tombstones and the deadlines. Who may
//! connect, what a message means and when it is complete is the owner's to say.

use super::acknowledge::{InboundMessages, InboundSeq, OutboundMessages};
use super::codes::{CloseReason, ConnectResponseId, OpenResponseId};
use super::command::{
    AccountRequest, Command, CommandId, Connect, DecodeError, FanoutOpen, Message, Open, SessionId,
    SessionStatus, Version,
};
use super::encode;
use super::frame::FrameReader;
use super::output::OutputQueue;
use super::profile::{self, ACKNOWLEDGE_RUN};
use super::session::{OutOfState, OutboundState, Receiving, Session, Tombstones};
use super::text::Text;
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

pub use super::session::Part;

/// Which kind of device this side is: it decides which requests are answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Supports neither multi-drop nor single-hop, answers no Attach or Register (sstp-behaviour 6.1).
    Client,
    /// A relay server.
    Relay,
}

/// What all connections of a device share.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Client or relay.
    pub endpoint: Endpoint,
    /// LocalDeviceURLs, at least one.
    pub local_device_urls: Vec<Text>,
    /// Highest version spoken.
    pub version: Version,
    /// PeerProductVersion of our Connect.
    pub product_version: Text,
    /// Sessions of one connection, both directions and Attach included.
    pub max_sessions: usize,
    /// Payload bytes of one received message.
    pub max_message_bytes: u64,
    /// Payload bytes held of messages whose end has not arrived, all sessions together; what is above is handed on in
    /// smaller parts.
    pub max_held_bytes: usize,
    /// Wait for Connect, or for ConnectResponse.
    pub connect_deadline: Duration,
    /// Wait for ConnectAuthenticate.
    pub authenticate_deadline: Duration,
    /// Message Acknowledgment Timer.
    pub acknowledge_delay: Duration,
    /// Time without sending after which a Noop goes out.
    pub keep_alive: Duration,
    /// Time without receiving after which the connection ends.
    pub idle_deadline: Duration,
}

impl ConnectionConfig {
    /// The defaults of the wire profile for a device of these URLs.
    pub fn new(endpoint: Endpoint, local_device_urls: Vec<Text>, product_version: Text) -> Self {
        Self {
            endpoint,
            local_device_urls,
            version: Version::V1_6,
            product_version,
            max_sessions: 4096,
            max_message_bytes: 250_000_000,
            max_held_bytes: 1 << 20,
            connect_deadline: profile::CONNECT_DEADLINE,
            authenticate_deadline: profile::AUTHENTICATE_DEADLINE,
            acknowledge_delay: profile::ACKNOWLEDGE_DELAY,
            keep_alive: profile::KEEP_ALIVE,
            idle_deadline: profile::IDLE_DEADLINE,
        }
    }
}

/// How the peer broke the protocol; [`Violation::reason`] is the answer it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The bytes are no command.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The command is not allowed in the connection's state or for this role.
    #[error("{0:?} is out of place here")]
    OutOfPlace(CommandId),
    /// A session-creating command before the connection is established.
    #[error("{0:?} before the connection was established")]
    NotEstablished(CommandId),
    /// A session command for a session that never was.
    #[error("{command:?} for unknown session {session:?}")]
    UnknownSession {
        /// The command.
        command: CommandId,
        /// Its session.
        session: SessionId,
    },
    /// A SessionId or EventId in use.
    #[error("{command:?} with {session:?}, which is in use")]
    DuplicateSession {
        /// The command.
        command: CommandId,
        /// Its session.
        session: SessionId,
    },
    /// Message, Data or EndMessage against the MessageReceiver state.
    #[error("{command:?} out of sequence in {session:?}")]
    OutOfSequence {
        /// The command.
        command: CommandId,
        /// Its session.
        session: SessionId,
    },
    /// MessageCount above the number of messages outstanding.
    #[error("MessageCount {0} is above the number of messages outstanding")]
    MessageCount(u32),
}

impl Violation {
    /// ReasonId of the ConnectClose that answers it.
    pub fn reason(self) -> CloseReason {
        match self {
            Violation::NotEstablished(_)
            | Violation::UnknownSession { .. }
            | Violation::DuplicateSession { .. } => CloseReason::TooManyUnknownSessionCmds,
            Violation::Decode(_)
            | Violation::OutOfPlace(_)
            | Violation::OutOfSequence { .. }
            | Violation::MessageCount(_) => CloseReason::ProtocolError,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The peer sent ConnectClose.
    ByPeer {
        /// Its ReasonId.
        reason: CloseReason,
        /// Its ReturnTime in seconds.
        return_time: u32,
    },
    /// We answered a violation.
    Violation(Violation),
    /// The owner closed it.
    ByUs(CloseReason),
    /// We answered Connect with something other than Ok, or the peer answered ours so.
    Refused(ConnectResponseId),
    /// A deadline passed: the peer was silent or too slow.
    Deadline,
    /// The transport is gone.
    TransportLost,
}

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer wants in; its version and target fit. Answer with [`Connection::accept`] or [`Connection::refuse`]; until then
    /// nothing behind it is read.
    Connect(Connect),
    /// Our Connect was answered. With Ok the connection is established.
    ConnectResponse {
        /// The verdict.
        response: ConnectResponseId,
        /// With TryLater: seconds.
        retry_time: u32,
        /// The relay's security message, or empty.
        token: Bytes,
    },
    /// The peer answers the challenge that [`Connection::accept`] sent.
    ConnectAuthenticate {
        /// The security message.
        token: Bytes,
    },
    /// The peer opens a session. Answer with [`Connection::respond`].
    Open(Open),
    /// The peer opens a fanout session. Answer with [`Connection::respond`].
    FanoutOpen(FanoutOpen),
    /// A session of ours may send: opened, or resumed.
    SessionReady(SessionId),
    /// A session of ours must hold.
    SessionStopped(SessionId),
    /// A session of ours was not opened.
    SessionRefused {
        /// The session, now gone.
        session: SessionId,
        /// Why.
        response: OpenResponseId,
    },
    /// Recipients of a fanout session of ours are affected.
    SessionStatus(SessionStatus),
    /// The peer closed a session, ours or its own.
    SessionClosed {
        /// The session, now gone.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// A message on this session grew beyond the limit; the session was closed with QuotaWouldBeExceeded.
    MessageTooLong(SessionId),
    /// A client wants to attach an account. Answer with [`Connection::attach_response`] or [`Connection::close_session`].
    Attach(AccountRequest),
    /// The relay answers our Attach.
    AttachResponse {
        /// EventId.
        event: SessionId,
        /// The security message.
        token: Bytes,
    },
    /// A client answers the challenge of an AttachResponse.
    AttachAuthenticate {
        /// EventId.
        event: SessionId,
        /// The security message.
        token: Bytes,
    },
    /// A client wants to register. Answer with [`Connection::register_response`] or [`Connection::close_session`].
    Register(AccountRequest),
    /// The relay answers our Register; the exchange is over.
    RegisterResponse {
        /// EventId.
        event: SessionId,
        /// The security message.
        token: Bytes,
    },
    /// A message, or a part of a long one, arrived.
    Part {
        /// The session.
        session: SessionId,
        /// The part.
        part: Part,
        /// With the last part: the entry of InboundMessageList to complete with [`Connection::complete`].
        end: Option<InboundSeq>,
    },
    /// The peer has acknowledged a message of ours.
    Acknowledged {
        /// Its session, which may be closed by now.
        session: SessionId,
        /// The tag given to [`Connection::end_message`].
        tag: u64,
    },
    /// The end. Nothing follows; what was not acknowledged is the owner's again.
    Ended(Ended),
}

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
        let connect = Command::Connect(Connect {
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

    /// The next event.
    pub fn poll(&mut self, now: Timestamp) -> Option<Event> {
        loop {
            if let Some((session, tag)) = self.outbound.take_acknowledged() {
                return Some(Event::Acknowledged { session, tag });
            }
            let undecided = self.state == State::Connecting && !self.initiator;
            if self.state == State::Ended || undecided {
                return self.ended.take().map(Event::Ended);
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
        Command::Connect(connect).encode(&mut bytes);
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
    /// form exists: `status.indexes` must be empty there. Does nothing if the session is gone.
    pub fn session_status(&mut self, status: SessionStatus) {
        debug_assert!(self.version == Version::V1_6 || status.indexes.is_empty());
        if matches!(self.sessions.get(&status.session), Some(Session::Inbound(_))) {
            self.send(&Command::SessionStatus(status));
        }
    }

    /// Closes a session, ours or the peer's, or an Attach or Register exchange. Late commands for it are dropped.
    pub fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        if self.sessions.contains_key(&session) {
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

/// The processing rules: one function per "Receiving a ... command" section of sstp-behaviour 7.0.
impl Connection {
    fn command(&mut self, now: Timestamp, frame: Bytes) -> Result<Option<Event>, Violation> {
        let id = CommandId::from_byte(frame[0])?;
        if self.state != State::Established {
            return self.before_established(now, id, frame);
        }
        match Command::decode(frame, self.version)? {
            Command::ConnectClose { reason, message_count, return_time } => {
                self.received_connect_close(reason, message_count, return_time)
            }
            Command::ConnectAuthenticate { token } => self.received_connect_authenticate(token),
            Command::Open(open) => self.received_open(open),
            Command::FanoutOpen(open) => self.received_fanout_open(open),
            Command::OpenResponse { session, response } => self.received_open_response(session, response),
            Command::SessionStatus(status) => self.received_session_status(status),
            Command::Close { session, reason } => self.received_close(session, reason),
            Command::Message(message) => self.received_message(message),
            Command::Data { session, payload } => self.received_data(session, payload),
            Command::EndMessage { session } => self.received_end_message(session),
            Command::Noop { message_count } => self.acknowledged(message_count).map(|()| None),
            Command::Attach(request) => self.received_request(id, request, Session::Attach, Event::Attach),
            Command::Register(request) => {
                self.received_request(id, request, Session::Register, Event::Register)
            }
            Command::AttachResponse { event, token } => {
                self.in_exchange(id, event, false, Event::AttachResponse { event, token })
            }
            Command::AttachAuthenticate { event, token } => {
                self.in_exchange(id, event, true, Event::AttachAuthenticate { event, token })
            }
            Command::RegisterResponse { event, token } => self.received_register_response(event, token),
            Command::Connect(_) | Command::ConnectResponse { .. } => Err(Violation::OutOfPlace(id)),
        }
    }

    fn before_established(
        &mut self,
        now: Timestamp,
        id: CommandId,
        frame: Bytes,
    ) -> Result<Option<Event>, Violation> {
        use CommandId as C;
        match (id, self.state) {
            (C::Connect, State::TransportConnected) => match Command::decode(frame, self.version) {
                Ok(Command::Connect(connect)) => Ok(self.received_connect(connect)),
                Err(DecodeError::MajorVersion(major)) => {
                    self.refuse(major_version_response(major), 0, Bytes::new());
                    Ok(None)
                }
                Ok(_) => Err(Violation::OutOfPlace(id)),
                Err(error) => Err(error.into()),
            },
            (C::ConnectResponse, State::Connecting) => match Command::decode(frame, self.version)? {
                Command::ConnectResponse { minor_version, response, retry_time, token } => {
                    self.received_connect_response(now, minor_version, response, retry_time, token)
                }
                _ => Err(Violation::OutOfPlace(id)),
            },
            (C::ConnectClose, _) => match Command::decode(frame, self.version)? {
                Command::ConnectClose { reason, message_count, return_time } => {
                    self.received_connect_close(reason, message_count, return_time)
                }
                _ => Err(Violation::OutOfPlace(id)),
            },
            (C::Open | C::FanoutOpen | C::Attach | C::Register, _) => Err(Violation::NotEstablished(id)),
            _ => Err(Violation::OutOfPlace(id)),
        }
    }

    /// 3.1.5.1, rows 1 to 3; the rest is the owner's.
    fn received_connect(&mut self, connect: Connect) -> Option<Event> {
        self.state = State::Connecting;
        let refusal = if !self.config.local_device_urls.contains(&connect.target_device_url) {
            Some(ConnectResponseId::WrongDevice)
        } else {
            match Version::from_minor(connect.minor_version) {
                Some(version) => {
                    self.version = version.min(self.config.version);
                    None
                }
                None => Some(ConnectResponseId::NewVersionRequired),
            }
        };
        match refusal {
            Some(response) => {
                self.refuse(response, 0, Bytes::new());
                None
            }
            None => Some(Event::Connect(connect)),
        }
    }

    /// 3.1.5.2.
    fn received_connect_response(
        &mut self,
        now: Timestamp,
        minor_version: u8,
        response: ConnectResponseId,
        retry_time: u32,
        token: Bytes,
    ) -> Result<Option<Event>, Violation> {
        if response == ConnectResponseId::Ok {
            let offered = Version::from_minor(minor_version)
                .ok_or(Violation::OutOfPlace(CommandId::ConnectResponse))?;
            self.version = offered.min(self.config.version);
            self.state = State::Established;
            self.handshake_due = None;
            self.last_received = now;
        } else {
            self.end_with(None, Ended::Refused(response));
        }
        Ok(Some(Event::ConnectResponse { response, retry_time, token }))
    }

    /// 3.1.5.3: only after a challenge, and once.
    fn received_connect_authenticate(&mut self, token: Bytes) -> Result<Option<Event>, Violation> {
        if !std::mem::take(&mut self.challenged) {
            return Err(Violation::OutOfPlace(CommandId::ConnectAuthenticate));
        }
        Ok(Some(Event::ConnectAuthenticate { token }))
    }

    /// 3.1.5.4: the final acknowledgement counts before the state goes.
    fn received_connect_close(
        &mut self,
        reason: CloseReason,
        message_count: u32,
        return_time: u32,
    ) -> Result<Option<Event>, Violation> {
        self.acknowledged(message_count)?;
        self.end_with(None, Ended::ByPeer { reason, return_time });
        Ok(None)
    }

    /// 3.1.5.5.
    fn received_open(&mut self, open: Open) -> Result<Option<Event>, Violation> {
        let session = open.session;
        Ok(self.new_inbound(CommandId::Open, session)?.then_some(Event::Open(open)))
    }

    /// 3.3.5.6 rows 0a and 0b; on a client rows 2 to 4, since it supports neither kind of fanout.
    fn received_fanout_open(&mut self, open: FanoutOpen) -> Result<Option<Event>, Violation> {
        let session = open.session;
        if !self.new_inbound(CommandId::FanoutOpen, session)? {
            return Ok(None);
        }
        if self.config.endpoint == Endpoint::Relay {
            return Ok(Some(Event::FanoutOpen(open)));
        }
        let is_local = |relay: &Text| relay.is_empty() || self.config.local_device_urls.contains(relay);
        if open.is_empty() {
            self.respond_empty_fanout(session);
        } else if open.entries().any(|entry| is_local(&entry.relay_url)) {
            self.respond(session, OpenResponseId::NoFanoutEntries);
        } else {
            self.respond(session, OpenResponseId::FanoutNotSupported);
        }
        Ok(None)
    }

    /// A new session of the peer; `false` if the connection has no room and the peer was told so.
    fn new_inbound(&mut self, command: CommandId, session: SessionId) -> Result<bool, Violation> {
        let full = self.sessions.len() >= self.config.max_sessions;
        match self.sessions.entry(session) {
            Entry::Occupied(_) => Err(Violation::DuplicateSession { command, session }),
            Entry::Vacant(_) if full => {
                self.send(&Command::OpenResponse { session, response: OpenResponseId::NoResource });
                self.tombstones.insert(session);
                Ok(false)
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Session::Inbound(Receiving::default()));
                self.tombstones.remove(session);
                Ok(true)
            }
        }
    }

    /// 3.1.5.7: OpenResponse is also the stop and go of a running session.
    fn received_open_response(
        &mut self,
        session: SessionId,
        response: OpenResponseId,
    ) -> Result<Option<Event>, Violation> {
        let Some(Session::Outbound(state)) = self.sessions.get_mut(&session) else {
            return self.dropped(CommandId::OpenResponse, session);
        };
        Ok(match response {
            OpenResponseId::Ok if *state == OutboundState::Ready => None,
            OpenResponseId::Ok => {
                *state = OutboundState::Ready;
                Some(Event::SessionReady(session))
            }
            OpenResponseId::OkStopSending => {
                *state = OutboundState::Stopped;
                Some(Event::SessionStopped(session))
            }
            response => {
                self.sessions.remove(&session);
                Some(Event::SessionRefused { session, response })
            }
        })
    }

    /// 3.2.5.8.
    fn received_session_status(&mut self, status: SessionStatus) -> Result<Option<Event>, Violation> {
        match self.sessions.get(&status.session) {
            Some(Session::Outbound(_)) => Ok(Some(Event::SessionStatus(status))),
            _ => self.dropped(CommandId::SessionStatus, status.session),
        }
    }

    /// 3.1.5.9.
    fn received_close(
        &mut self,
        session: SessionId,
        reason: CloseReason,
    ) -> Result<Option<Event>, Violation> {
        match self.remove_session(session) {
            Some(_) => Ok(Some(Event::SessionClosed { session, reason })),
            None => self.dropped(CommandId::Close, session),
        }
    }

    /// 3.1.5.10. The acknowledgement is used first, since it belongs to the connection and not to the session.
    fn received_message(&mut self, message: Message) -> Result<Option<Event>, Violation> {
        self.acknowledged(message.message_count)?;
        let (command, session) = (CommandId::Message, message.session);
        let Some(Session::Inbound(receiving)) = self.sessions.get_mut(&session) else {
            return self.dropped(command, session);
        };
        receiving
            .message(message.flags, message.tail)
            .map(|()| None)
            .map_err(|_| Violation::OutOfSequence { command, session })
    }

    /// 3.1.5.11.
    fn received_data(&mut self, session: SessionId, payload: Bytes) -> Result<Option<Event>, Violation> {
        let command = CommandId::Data;
        let Some(Session::Inbound(receiving)) = self.sessions.get_mut(&session) else {
            return self.dropped(command, session);
        };
        let length = payload.len();
        let hand_on = self.held_bytes + length > self.config.max_held_bytes;
        match receiving.data(payload, self.config.max_message_bytes, hand_on) {
            Ok(part) => {
                self.held_bytes += length;
                Ok(part.map(|part| {
                    self.held_bytes -= part.payload_bytes;
                    Event::Part { session, part, end: None }
                }))
            }
            Err(OutOfState::Protocol) => Err(Violation::OutOfSequence { command, session }),
            Err(OutOfState::TooLong) => {
                self.close_session(session, CloseReason::QuotaWouldBeExceeded);
                Ok(Some(Event::MessageTooLong(session)))
            }
        }
    }

    /// 3.1.5.12. Also on a session that this side closed meanwhile: the sequence is dropped, yet it counts on both sides.
    fn received_end_message(&mut self, session: SessionId) -> Result<Option<Event>, Violation> {
        let command = CommandId::EndMessage;
        let Some(Session::Inbound(receiving)) = self.sessions.get_mut(&session) else {
            self.dropped(command, session)?;
            let dropped = self.inbound.push(false);
            self.inbound.complete(dropped);
            return Ok(None);
        };
        let (part, immediately) =
            receiving.end().map_err(|_| Violation::OutOfSequence { command, session })?;
        self.held_bytes -= part.payload_bytes;
        let end = Some(self.inbound.push(immediately));
        Ok(Some(Event::Part { session, part, end }))
    }

    /// 3.3.5.14 for Attach, and by symmetry for Register.
    fn received_request(
        &mut self,
        command: CommandId,
        request: AccountRequest,
        session: Session,
        event: fn(AccountRequest) -> Event,
    ) -> Result<Option<Event>, Violation> {
        if self.config.endpoint == Endpoint::Client {
            return Err(Violation::OutOfPlace(command));
        }
        let id = request.event;
        if self.sessions.contains_key(&id) {
            return Err(Violation::DuplicateSession { command, session: id });
        }
        if self.sessions.len() >= self.config.max_sessions {
            self.send(&Command::Close { session: id, reason: CloseReason::InternalError });
            self.tombstones.insert(id);
            return Ok(None);
        }
        self.tombstones.remove(id);
        self.sessions.insert(id, session);
        Ok(Some(event(request)))
    }

    /// A further step of an Attach exchange; `by_client` says which side sends it.
    fn in_exchange(
        &mut self,
        command: CommandId,
        id: SessionId,
        by_client: bool,
        event: Event,
    ) -> Result<Option<Event>, Violation> {
        if (self.config.endpoint == Endpoint::Relay) != by_client {
            return Err(Violation::OutOfPlace(command));
        }
        match self.sessions.get(&id) {
            Some(Session::Attach) => Ok(Some(event)),
            _ => self.dropped(command, id),
        }
    }

    fn received_register_response(
        &mut self,
        event: SessionId,
        token: Bytes,
    ) -> Result<Option<Event>, Violation> {
        if self.config.endpoint == Endpoint::Relay {
            return Err(Violation::OutOfPlace(CommandId::RegisterResponse));
        }
        match self.sessions.get(&event) {
            Some(Session::Register) => {
                self.sessions.remove(&event);
                Ok(Some(Event::RegisterResponse { event, token }))
            }
            _ => self.dropped(CommandId::RegisterResponse, event),
        }
    }

    /// 3.1.5.19.
    fn acknowledged(&mut self, message_count: u32) -> Result<(), Violation> {
        self.outbound.acknowledge(message_count).map_err(|_| Violation::MessageCount(message_count))
    }

    /// A command for a session that is not there in the right form: dropped if this side closed it, else a violation.
    fn dropped(&self, command: CommandId, session: SessionId) -> Result<Option<Event>, Violation> {
        if self.tombstones.contains(session) {
            Ok(None)
        } else {
            Err(Violation::UnknownSession { command, session })
        }
    }
}

/// 3.1.5.1 rows 2 and 3 for a major version that is not ours.
fn major_version_response(major: u8) -> ConnectResponseId {
    if major > profile::MAJOR_VERSION {
        ConnectResponseId::WontUpgrade
    } else {
        ConnectResponseId::NewVersionRequired
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
