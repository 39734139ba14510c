//! What an operator can set of a relay's decisions.

use super::gateway::PeerRelay;
use super::half_open::HalfOpen;
use super::presence::PresenceConfig;
use crate::sstp::ConnectionConfig;
use std::sync::Arc;
use std::time::Duration;

/// The limits and rules of one shard; the same for all shards of a relay.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// What all connections share.
    pub connection: Arc<ConnectionConfig>,
    /// Shards of this relay, at least 1.
    pub shards: u16,
    /// Connections of one shard; above it a new one gets TryLater.
    pub max_connections: usize,
    /// Authenticated connections of one device; a further one is closed as CrossedConnections.
    pub max_connections_per_device: usize,
    /// Half-open connections of one shard; above it the oldest one is dropped. At least 1.
    pub max_unauthenticated: usize,
    /// Half-open connections of all shards from one address (IPv6: from one /64); a further one is turned away. At least 1.
    pub max_unauthenticated_per_address: usize,
    /// Their counters, which all shards with this configuration share.
    pub half_open: Arc<HalfOpen>,
    /// Failed authentications and registrations from one address; after so many in a minute a Connect gets TryLater. At
    /// least 1.
    pub failures_per_address_per_minute: u32,
    /// TLS handshakes from one address in a minute; a further one is turned away. At least 1.
    pub tls_handshakes_per_address_per_minute: u32,
    /// Registers from one address; above it they are answered with Busy. At least 1.
    pub registrations_per_address_per_minute: u32,
    /// Recipients of one FanoutOpen.
    pub max_fanout_recipients: usize,
    /// Payload bytes received on a connection and not complete; above it the sessions are stopped, at twice as much reading
    /// pauses.
    pub connection_in_flight_bytes: u64,
    /// The same for all connections of the shard.
    pub shard_in_flight_bytes: u64,
    /// Output of a connection above which no further part is queued there.
    pub connection_output_bytes: usize,
    /// The same for all connections of the shard; above it a part is queued only where nothing else is.
    pub shard_output_bytes: usize,
    /// Items waiting for another shard above which sessions are stopped.
    pub mesh_queue_items: usize,
    /// Whether a connection whose device is not authenticated may leave mail.
    pub deposit_by_anyone: bool,
    /// How long a message is kept if its sender does not say.
    pub lifetime: Duration,
    /// How long after a device was last seen all device-targeted mail for it is dropped.
    pub abandoned_after: Duration,
    /// How long mail that is on its way to all its recipients waits to be written: if they acknowledge it before, it need not
    /// be. Deletions wait as long.
    pub commit_delay: Duration,
    /// Bytes that may wait for one identity.
    pub quota_per_identity: u64,
    /// Bytes that may wait for one device.
    pub quota_per_device: u64,
    /// The presence service.
    pub presence: PresenceConfig,
    /// The other relays to which single-hop fanout goes, each with another URL, none with one of our own. Empty: not supported.
    pub peers: Arc<[PeerRelay]>,
    /// RetryTime with TryLater.
    pub retry_time: Duration,
    /// The least ReturnTime with Resting.
    pub return_time: Duration,
    /// What is added to it: each connection is told a ReturnTime of its own, drawn evenly from this range in whole seconds.
    pub return_time_spread: Duration,
}

impl RelayConfig {
    /// The documented defaults.
    pub fn new(connection: Arc<ConnectionConfig>, shards: u16) -> Self {
        Self {
            connection,
            shards,
            max_connections: 600_000,
            max_connections_per_device: 4,
            max_unauthenticated: 16_384,
            max_unauthenticated_per_address: 1024,
            half_open: Arc::default(),
            failures_per_address_per_minute: 60,
            registrations_per_address_per_minute: 60,
            tls_handshakes_per_address_per_minute: 6000,
            max_fanout_recipients: 16_384,
            connection_in_flight_bytes: 1 << 20,
            shard_in_flight_bytes: 64 << 20,
            connection_output_bytes: 256 << 10,
            shard_output_bytes: 256 << 20,
            mesh_queue_items: 4096,
            deposit_by_anyone: false,
            lifetime: Duration::from_secs(30 * 24 * 3600),
            abandoned_after: Duration::from_secs(90 * 24 * 3600),
            commit_delay: Duration::from_millis(5),
            quota_per_identity: 1_000_000_000,
            quota_per_device: 4_000_000_000,
            presence: PresenceConfig::default(),
            peers: Arc::new([]),
            retry_time: Duration::from_secs(30),
            return_time: Duration::from_secs(30),
            return_time_spread: Duration::from_secs(30),
        }
    }
}
