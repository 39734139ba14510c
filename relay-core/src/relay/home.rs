//! Homes: which shard owns which account's mail and connections.
//!
//! An account URL hashes to one of 4096 virtual partitions, and contiguous ranges of partitions belong to shards. The hash
//! is FNV-1a, 64 bits, with a final mix: fixed for ever (stored mail depends on it), a few nanoseconds for a URL,
//! and good enough since account URLs carry 24 random octets. It is no defence against an operator's own management server
//! inventing accounts that collide, and needs to be none.

use crate::address::{AccountUrl, DeviceUrl};

/// Virtual partitions. Enough that 1024 shards still differ by at most a quarter in their share.
pub const PARTITIONS: u32 = 4096;

/// Names a shard of this relay, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The partition of an account.
pub fn partition(account: &AccountUrl) -> u32 {
    partition_of(account.as_bytes())
}

fn partition_of(name: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for &byte in name {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 52) as u32
}

/// The shard that is home to an account among `shards` (at least 1).
pub fn home(account: &AccountUrl, shards: u16) -> ShardId {
    shard_of(account.as_bytes(), shards)
}

/// The shard that is home to a device's presence among `shards` (at least 1). Its mail and its connections live elsewhere.
pub fn home_of_device(device: &DeviceUrl, shards: u16) -> ShardId {
    shard_of(device.as_bytes(), shards)
}

/// The shard among `shards` (at least 1) to which a name belongs, by the same hash.
pub fn shard_of(name: &[u8], shards: u16) -> ShardId {
    ShardId((partition_of(name) * u32::from(shards) / PARTITIONS) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: u32) -> AccountUrl {
        AccountUrl::new(format!("grooveAccount://{n}@")).unwrap()
    }

    #[test]
    fn the_hash_never_changes() {
        let partitions: Vec<_> = (0..4).map(|n| partition(&account(n))).collect();
        assert_eq!(partitions, [848, 942, 863, 1642]);
    }

    #[test]
    fn accounts_spread_evenly_over_any_number_of_shards() {
        for shards in [1u16, 2, 3, 8, 48] {
            let mut count = vec![0u32; usize::from(shards)];
            for n in 0..48_000 {
                count[usize::from(home(&account(n), shards).0)] += 1;
            }
            let fair = 48_000 / u32::from(shards);
            for (shard, &n) in count.iter().enumerate() {
                assert!(n.abs_diff(fair) < fair / 4, "shard {shard} of {shards} has {n}, fair is {fair}");
            }
        }
    }
}
