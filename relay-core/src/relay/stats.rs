//! What a shard counts.

use super::latency::Latencies;
use super::presence::PresenceStats;

/// Counters of one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Connections taken, those handed here included.
    pub connections: u64,
    /// Connections handed to another shard.
    pub handed_off: u64,
    /// Devices that have proven themselves.
    pub authenticated: u64,
    /// Accounts attached.
    pub attached: u64,
    /// Registrations accepted.
    pub registered: u64,
    /// Failed authentications and registrations.
    pub security_failures: u64,
    /// Connections turned away because their address had too many half-open ones.
    pub turned_away: u64,
    /// Half-open connections that were dropped to make room.
    pub pushed_out: u64,
    /// Connects answered with TryLater, and Attaches with AuthenticationFailed, because their address had failed too often or
    /// had too many half-open connections.
    pub put_off: u64,
    /// Registers answered with Busy.
    pub busy: u64,
    /// Messages that arrived at this shard's mailroom.
    pub deposits: u64,
    /// Messages completed towards their origin.
    pub completed: u64,
    /// Messages acknowledged by a recipient.
    pub delivered: u64,
    /// Parts written to the log.
    pub stored_parts: u64,
    /// Parts that were delivered before the log took them, and so never written.
    pub cancelled: u64,
    /// Messages dropped because the device that they are for does not come any more.
    pub purged: u64,
    /// Messages dropped for a recipient because their lifetime was over.
    pub expired: u64,
    /// Messages that could not be read back from the log.
    pub unreadable: u64,
    /// Messages deleted by order of the management server.
    pub deleted_by_order: u64,
    /// Recipients taken out of sessions because their mailbox was full or they were locked out.
    pub faults: u64,
    /// Times that a connection's sessions were stopped.
    pub stops: u64,
    /// Bytes received on connections.
    pub received_bytes: u64,
    /// Payload bytes that arrived at this shard's mailroom.
    pub deposited_bytes: u64,
    /// Payload bytes of messages acknowledged by a recipient.
    pub delivered_bytes: u64,
    /// Messages refused because the relay takes no more mail.
    pub refused_deposits: u64,
    /// Connects answered with TryLater because the relay takes no more connections.
    pub refused_newcomers: u64,
    /// From the end of a message to its completion: what its sender waits for.
    pub completion: Latencies,
    /// Of presence.
    pub presence: PresenceStats,
    /// Links to other relays that came to be, whichever side called.
    pub links: u64,
    /// Messages acknowledged by other relays.
    pub relayed: u64,
}
