//! How many half-open connections each source address has, on all shards of a relay together: a connection that is handed to
//! another shard would else escape the count of the one and meet a fresh one on the other.
//!
//! The only state that shards share; a counter that is read a moment late lets one connection more in, and does no other harm.

use crate::time::Entropy;
use ring::hmac;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses share so many counters and tallies by a keyed hash; 4 bytes each here.
pub(super) const SLOTS: usize = 1 << 15;

/// The place where a source address is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u16);

impl Source {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct HalfOpen {
    /// Made for the first address.
    key: OnceLock<hmac::Key>,
    counts: Box<[AtomicU32]>,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self { key: OnceLock::new(), counts: (0..SLOTS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl HalfOpen {
    /// Where `address` is counted: IPv6 by its /64.
    pub(super) fn source(&self, address: IpAddr, entropy: &mut dyn Entropy) -> Source {
        let key = self.key.get_or_init(|| {
            let mut key = [0; 32];
            entropy.fill(&mut key);
            hmac::Key::new(hmac::HMAC_SHA256, &key)
        });
        let tag = match address.to_canonical() {
            IpAddr::V4(address) => hmac::sign(key, &address.octets()),
            IpAddr::V6(address) => hmac::sign(key, &address.octets()[..8]),
        };
        let hash = u16::from_le_bytes([tag.as_ref()[0], tag.as_ref()[1]]);
        Source(hash % SLOTS as u16)
    }

    /// Half-open connections at present.
    pub(super) fn of(&self, source: Source) -> usize {
        self.counts[source.index()].load(Ordering::Relaxed) as usize
    }

    pub(super) fn add(&self, source: Source) {
        self.counts[source.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, source: Source) {
        self.counts[source.index()].fetch_sub(1, Ordering::Relaxed);
    }
}
