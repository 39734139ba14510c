//! What a client tells its driver and its application.

use super::inbox::{IncomingHead, IncomingId};
use super::message::{MessageId, SendFailure};
use super::registration::RegistrationError;
use crate::address::{AccountUrl, DeviceUrl};
use crate::presence::Status;
use crate::security::SecurityError;
use crate::sstp::connection::Violation;
use crate::sstp::{CloseReason, ConnectResponseId, OpenResponseId, StatusId};
use crate::store::Chain;
use crate::time::Timestamp;

/// Why there is no connection at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// No transport could be opened.
    #[error("the relay cannot be reached")]
    Unreachable,
    /// The transport broke.
    #[error("the connection broke")]
    TransportLost,
    /// The relay was silent for too long.
    #[error("the relay fell silent")]
    Silent,
    /// The relay did not accept Connect.
    #[error("the relay refused the connection: {0}")]
    Refused(ConnectResponseId),
    /// The relay ended the connection.
    #[error("the relay closed the connection: {0}")]
    ClosedByRelay(CloseReason),
    /// The relay broke the protocol.
    #[error("the relay broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// Whoever answered could not prove to be our relay, or answered nonsense.
    #[error("the relay did not prove itself: {0}")]
    NotProven(#[from] SecurityError),
    /// Whoever answered says that our device's proof is wrong.
    #[error("the relay does not accept this device's keys")]
    DeviceRefused,
    /// The relay answered our proof with nothing.
    #[error("the relay asks for no proof and gives none")]
    NoProof,
    /// We closed in order to connect anew: after a registration, or to get messages again.
    #[error("connecting anew")]
    Renewing,
}

/// What happened. The first three are for the driver of the transport.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Open a transport to the relay, then call [`Client::transport_up`](super::Client::transport_up) or
    /// [`Client::transport_lost`](super::Client::transport_lost).
    Dial,
    /// Send what the output holds, if the transport still takes it, close the transport and call
    /// [`Client::transport_lost`](super::Client::transport_lost).
    HangUp,
    /// The client has been closed; nothing follows.
    Closed,
    /// The device is authenticated and every account has been attached or refused.
    Ready,
    /// There is no connection, and when there will be another try.
    Disconnected {
        /// Why.
        cause: Disconnected,
        /// When [`Event::Dial`] will come.
        retry_at: Timestamp,
    },
    /// The relay does not know the device: [`Client::register`](super::Client::register) is the way on. The connection
    /// stays.
    RegistrationNeeded,
    /// The relay does not know this account, though it knows the device.
    AccountRegistrationNeeded(AccountUrl),
    /// The account could not be attached: its identity-targeted mail does not come on this connection.
    AccountRefused(AccountUrl),
    /// A registration is complete; a new connection, with authentication, follows.
    Registered,
    /// A registration was given up.
    RegistrationFailed(RegistrationError),
    /// A piece of a pulled body is wanted: answer with [`Client::provide`](super::Client::provide) or
    /// [`Client::body_unavailable`](super::Client::body_unavailable).
    WantBody {
        /// The message.
        message: MessageId,
        /// Where the piece begins.
        offset: u64,
        /// The most bytes that it may have; at least one.
        max: usize,
    },
    /// The relay has acknowledged a message: it is its duty now.
    Delivered {
        /// The message.
        message: MessageId,
        /// Recipients that will not get it, by their index in the destination.
        failed: Vec<(u16, StatusId)>,
    },
    /// A message was given up.
    Failed {
        /// The message.
        message: MessageId,
        /// Why.
        failure: SendFailure,
    },
    /// A message begins to arrive.
    Incoming {
        /// Its name from now on.
        id: IncomingId,
        /// All about it but the body.
        head: IncomingHead,
    },
    /// The next bytes of an incoming message.
    IncomingData {
        /// The message.
        id: IncomingId,
        /// The bytes, not empty.
        payload: Chain,
    },
    /// An incoming message is complete.
    IncomingEnd {
        /// The message.
        id: IncomingId,
    },
    /// The relay tells the status of a device that is watched.
    Presence {
        /// The device.
        device: DeviceUrl,
        /// Its status.
        status: Status,
    },
    /// The relay cannot tell the status of any device at the moment: all that were told are void. They are told again by
    /// themselves.
    PresenceUnknown,
    /// The relay has no presence, or none for us; it is asked again on the next connection.
    PresenceRefused(OpenResponseId),
    /// An incoming message that was not acknowledged is lost to this connection and will come again. Acknowledging it has no
    /// effect any more.
    IncomingLost {
        /// The message.
        id: IncomingId,
    },
}
