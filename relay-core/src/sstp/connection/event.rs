//! What a connection tells its owner: what the peer did, how it broke the protocol, how it ended.

use super::Part;
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::codes::{CloseReason, ConnectResponseId, OpenResponseId};
use crate::sstp::command::{
    AccountRequest, CommandId, Connect, DecodeError, FanoutOpen, Open, SessionId, SessionStatus,
};
use bytes::Bytes;

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
    /// A peer wants in; its version and target fit. Answer with [`Connection::accept`](super::Connection::accept) or [`Connection::refuse`](super::Connection::refuse); until then
    /// nothing behind it is read.
    Connect(Box<Connect>),
    /// Our Connect was answered. With Ok the connection is established.
    ConnectResponse {
        /// The verdict.
        response: ConnectResponseId,
        /// With TryLater: seconds.
        retry_time: u32,
        /// The relay's security message, or empty.
        token: Bytes,
    },
    /// The peer answers the challenge that [`Connection::accept`](super::Connection::accept) sent.
    ConnectAuthenticate {
        /// The security message.
        token: Bytes,
    },
    /// The peer opens a session. Answer with [`Connection::respond`](super::Connection::respond).
    Open(Open),
    /// The peer opens a fanout session. Answer with [`Connection::respond`](super::Connection::respond).
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
    /// A client wants to attach an account. Answer with [`Connection::attach_response`](super::Connection::attach_response) or [`Connection::close_session`](super::Connection::close_session).
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
    /// A client wants to register. Answer with [`Connection::register_response`](super::Connection::register_response) or [`Connection::close_session`](super::Connection::close_session).
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
        /// With the last part: the entry of InboundMessageList to complete with [`Connection::complete`](super::Connection::complete).
        end: Option<InboundSeq>,
    },
    /// The peer has acknowledged messages of ours: the oldest ones.
    Acknowledged {
        /// Their session, which may be closed by now.
        session: SessionId,
        /// The tag given to [`Connection::end_message`](super::Connection::end_message), the same for all of them.
        tag: u64,
        /// How many, at least 1.
        count: u32,
    },
    /// The end. Nothing follows; what was not acknowledged is the owner's again.
    Ended(Ended),
}
