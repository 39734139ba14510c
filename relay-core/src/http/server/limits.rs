//! How many HTTP connections that carry nothing yet one address may have, and all together.
//!
//! Once a request of theirs belongs to a virtual connection they count no more: a virtual connection has one GET and one POST at a
//! time, and is itself counted like any SSTP connection.

use super::HttpServerConfig;
use hashbrown::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Never more entries than connections.
    by_address: HashMap<IpAddr, usize>,
    total: usize,
}

/// IPv6 addresses count by their /64, since whoever has one has all of it.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

impl Strangers {
    /// One more, if there is room.
    pub(super) fn enter(&mut self, address: Option<IpAddr>, config: &HttpServerConfig) -> bool {
        if self.total >= config.max_strangers {
            return false;
        }
        if let Some(address) = address {
            let count = self.by_address.entry(counted(address)).or_insert(0);
            if *count >= config.max_strangers_per_address {
                return false;
            }
            *count += 1;
        }
        self.total += 1;
        true
    }

    /// One has left, or is a stranger no more.
    pub(super) fn leave(&mut self, address: Option<IpAddr>) {
        self.total -= 1;
        if let Some(address) = address.map(counted)
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}
