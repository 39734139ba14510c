//! What only the driver can do for the relay.

use super::admission::Registration;
use super::gateway::RemoteRelay;
use super::home::ShardId;
use super::mesh::ConnectionId;
use crate::address::{AccountUrl, DeviceUrl, MailboxAddress};
use crate::security::{MessageId, SecurityError};
use crate::sstp::connection::Ended;
use crate::store::{Position, RecordId};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;

/// Names a read of the log that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadToken(pub(super) u32);

/// Something that only the driver can do.
#[derive(Debug)]
pub enum Action {
    /// Give the connection's socket and these bytes to another shard, which calls [`Relay::connected`](super::Relay::connected) with them. The
    /// connection is unknown here from now on.
    HandOff {
        /// The connection.
        connection: ConnectionId,
        /// Its home.
        shard: ShardId,
        /// Everything received on it so far.
        bytes: Bytes,
    },
    /// Read from the log and call [`Relay::read_done`](super::Relay::read_done).
    Read {
        /// To be given back.
        token: ReadToken,
        /// What to read.
        position: Position,
    },
    /// Make a transport to another relay, at the first of its addresses that answers, and call [`Relay::dialed`](super::Relay::dialed) or
    /// [`Relay::dial_failed`](super::Relay::dial_failed).
    Dial {
        /// The relay.
        relay: RemoteRelay,
        /// `HOST:PORT`, at least one.
        addresses: Arc<[String]>,
    },
    /// Judge a registration and call [`Relay::registered`](super::Relay::registered).
    Register(Registration),
    /// Reading from this connection, which [`Relay::wants_read`](super::Relay::wants_read) had denied, may go on.
    Resume {
        /// The connection.
        connection: ConnectionId,
    },
    /// Something for the security log; a bounded number of them a minute, for each address and in all.
    SecurityFailed(SecurityFailure),
    /// A stored message cannot be read back and has left this mailbox undelivered, for the log.
    Lost {
        /// The message.
        message: RecordId,
        /// Whose it was.
        mailbox: Arc<MailboxAddress>,
    },
    /// A connection has ended, for the log.
    Ended {
        /// The connection.
        connection: ConnectionId,
        /// Its device, if it came that far.
        device: Option<DeviceUrl>,
        /// How.
        how: Ended,
    },
}

/// A failed authentication or registration.
#[derive(Debug)]
pub struct SecurityFailure {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer's address, if it is known.
    pub address: Option<IpAddr>,
    /// The device that it claims to be.
    pub device: Option<DeviceUrl>,
    /// The account concerned, if one is.
    pub account: Option<AccountUrl>,
    /// The security message that failed, or in whose place something else stood.
    pub message: MessageId,
    /// What was wrong.
    pub reason: SecurityError,
    /// Earlier failures from the same address that were not told, to spare the log.
    pub untold: u32,
}
