//! The processing rules: one function for each "Receiving a ... command" section of sstp-behaviour 7.0.

use super::{Connection, Ended, Endpoint, Event, Part, State, Violation};
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::codes::{CloseReason, ConnectResponseId, OpenResponseId};
use crate::sstp::command::{
    self, AccountRequest, Command, CommandId, Connect, DecodeError, FanoutOpen, Message, Open, SessionId,
    SessionStatus, Version,
};
use crate::sstp::profile::{self, flags};
use crate::sstp::session::{OutOfState, OutboundState, Session};
use crate::sstp::text::Text;
use crate::sstp::whole_message::WholeMessage;
use crate::time::Timestamp;
use bytes::Bytes;
use hashbrown::hash_map::Entry;

impl Connection {
    pub(super) fn command(&mut self, now: Timestamp, frame: Bytes) -> Result<Option<Event>, Violation> {
        let id = CommandId::from_byte(frame[0])?;
        if self.state != State::Established {
            return self.before_established(now, id, frame);
        }
        // The commands of every message, without the detour over a value that could be any command.
        match id {
            CommandId::Data => {
                let (session, payload) = command::decode_data(frame)?;
                return self.received_data(session, payload);
            }
            CommandId::EndMessage => return self.received_end_message(command::decode_end_message(&frame)?),
            _ => {}
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
            Command::Connect(_)
            | Command::ConnectResponse { .. }
            | Command::Data { .. }
            | Command::EndMessage { .. } => Err(Violation::OutOfPlace(id)),
        }
    }

    /// 3.1.5.10 to 3.1.5.12 in one step, for a message that lies whole in the input. `None` for everything else, and for
    /// what breaks a rule: that is taken command by command.
    #[inline]
    pub(super) fn received_whole_message(&mut self) -> Option<(SessionId, Part, InboundSeq)> {
        let input = self.reader.unread();
        let whole = WholeMessage::read(input)?;
        let fits =
            self.state == State::Established && whole.data_bytes() as u64 <= self.config.max_message_bytes;
        let session = whole.session;
        if !fits || !matches!(self.sessions.get(&session), Some(Session::Inbound(it)) if it.is_waiting()) {
            return None;
        }
        self.outbound.acknowledge(whole.message_count).ok()?;
        let part = whole.part(input);
        self.reader.skip(whole.length());
        let end = self.inbound.push(part.flags & flags::A != 0);
        Some((session, part, end))
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
    fn received_connect(&mut self, connect: Box<Connect>) -> Option<Event> {
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
                vacant.insert(Session::Inbound(Box::default()));
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
