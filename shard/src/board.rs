//! The board on which shards write what they count, for others to read.
//!
//! Each shard has a block of its own, apart from the others' cache lines, and stores into it a few times a second; counting
//! itself is the shard's own business and touches no atomic. Reading takes no lock and may meet a block between two stores:
//! numbers are right one by one, not all of one moment.

use crate::histogram::{BOUNDS, Distribution, SHAPES};
use crossbeam::utils::CachePadded;
use relay_core::relay::ShardId;
use relay_core::time::Timestamp;
use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tuning::operator::ShardCounters;

/// What one shard shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Its numbers.
    pub counters: ShardCounters,
    /// Its distributions, in the order of [`SHAPES`].
    pub distributions: [Distribution; SHAPES.len()],
    /// When it wrote them; 0 if it has not yet.
    pub at: Timestamp,
}

/// The blocks of all shards.
#[derive(Debug)]
pub struct Board(Vec<CachePadded<Block>>);

#[derive(Debug)]
struct Block {
    counters: [AtomicU64; ShardCounters::COUNT],
    distributions: [Cells; SHAPES.len()],
    at: AtomicU64,
}

#[derive(Debug)]
struct Cells {
    counts: [AtomicU64; BOUNDS],
    /// Count, sum, p50, p99 and max.
    others: [AtomicU64; 5],
}

impl Board {
    /// Blocks for so many shards, all zero.
    pub fn new(shards: u16) -> Self {
        let zero = |_| AtomicU64::new(0);
        let cells = |_| Cells { counts: from_fn(zero), others: from_fn(zero) };
        let block =
            || Block { counters: from_fn(zero), distributions: from_fn(cells), at: AtomicU64::new(0) };
        Self((0..shards).map(|_| CachePadded::new(block())).collect())
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.0.len() as u16
    }

    /// A shard writes its block.
    pub fn write(&self, shard: ShardId, shown: &Shown) {
        let block = &self.0[usize::from(shard.0)];
        let store = |cells: &[AtomicU64], values: &[u64]| {
            for (cell, &value) in cells.iter().zip(values) {
                cell.store(value, Relaxed);
            }
        };
        store(&block.counters, &shown.counters.values());
        for (cells, of) in block.distributions.iter().zip(&shown.distributions) {
            store(&cells.counts, &of.counts);
            store(&cells.others, &[of.count, of.sum, of.p50, of.p99, of.max]);
        }
        block.at.store(shown.at.0, Relaxed);
    }

    /// What a shard wrote last.
    pub fn read(&self, shard: ShardId) -> Shown {
        let block = &self.0[usize::from(shard.0)];
        let load = |cell: &AtomicU64| cell.load(Relaxed);
        let distribution = |cells: &Cells| {
            let [count, sum, p50, p99, max] = cells.others.each_ref().map(load);
            Distribution { counts: cells.counts.each_ref().map(load), count, sum, p50, p99, max }
        };
        Shown {
            counters: ShardCounters::from_values(block.counters.each_ref().map(load)),
            distributions: block.distributions.each_ref().map(distribution),
            at: Timestamp(load(&block.at)),
        }
    }

    /// What every shard wrote last, in their order.
    pub fn all(&self) -> impl Iterator<Item = (ShardId, Shown)> + '_ {
        (0..self.shards()).map(|shard| (ShardId(shard), self.read(ShardId(shard))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written_and_each_shard_has_its_own() {
        let board = Board::new(2);
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        let mut distribution = || Distribution {
            counts: from_fn(|_| next()),
            count: next(),
            sum: next(),
            p50: next(),
            p99: next(),
            max: next(),
        };
        let distributions = [distribution(), distribution(), distribution()];
        let counters = ShardCounters::from_values(from_fn(|index| 1000 + index as u64));
        board.write(ShardId(1), &Shown { counters, distributions, at: Timestamp(9) });
        let read = board.read(ShardId(1));
        assert_eq!((read.counters, read.distributions, read.at), (counters, distributions, Timestamp(9)));
        assert_eq!(board.read(ShardId(0)).at, Timestamp(0));
        assert!(align_of::<CachePadded<Block>>() >= 64);
    }
}
