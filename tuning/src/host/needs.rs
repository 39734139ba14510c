//! What a configuration asks of a machine, in the machine's own terms.

use crate::Config;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What all connections of a relay may come to is a guess where the limits are far above what anybody has; this many are
/// planned for at most unless the configuration says so itself.
const PLANNED_CONNECTIONS: u64 = 2_000_000;
/// Memory of an idle connection in the relay and in the kernel, as measured (bench/RESULTS.md) and rounded up.
const BYTES_A_CONNECTION: u64 = 8 << 10;
/// Locked memory of a shard's rings and registered buffers, rounded up.
const LOCKED_A_SHARD: u64 = 16 << 20;

/// What a relay needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Shards.
    pub shards: u64,
    /// Connections on all of them.
    pub connections: u64,
    /// The longest accept queue.
    pub backlog: u64,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where its mail lies.
    pub data: PathBuf,
    /// What is in memory at most on all shards, without connections.
    pub buffers: u64,
}

impl Needs {
    /// What `config` needs on a machine with `processors`. A service of ours asks for as many descriptors as
    /// the unit says.
    pub fn of(config: &Config, processors: u64) -> Self {
        let shards = match (config.shards.cores.len() as u64, config.shards.count as u64) {
            (0, 0) => processors.max(1),
            (0, count) => count,
            (listed, _) => listed,
        };
        let per_shard = config.limits.shard_in_flight_bytes + config.limits.shard_output_bytes;
        let connections = shards.saturating_mul(config.limits.connections_per_shard as u64);
        Self {
            shards,
            connections: connections.min(PLANNED_CONNECTIONS),
            backlog: config.listen.backlog as u64,
            listen: config.listen.sstp.iter().chain(&config.listen.tls).copied().collect(),
            data: config.relay.data_dir.clone(),
            buffers: shards.saturating_mul(per_shard),
        }
    }

    /// Descriptors: one a connection, and some for logs and rings.
    pub fn descriptors(&self) -> u64 {
        self.connections + 64 * self.shards + 1024
    }

    /// Bytes of locked memory.
    pub fn locked(&self) -> u64 {
        self.shards * LOCKED_A_SHARD
    }

    /// Bytes of memory if every limit is reached.
    pub fn memory(&self) -> u64 {
        self.connections * BYTES_A_CONNECTION + self.buffers
    }
}
