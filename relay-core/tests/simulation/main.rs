//! The relay under a seeded simulator: shards, disks, wires and clients in one thread with one clock, and every fault that these have
//! in life. A seed is a whole schedule: the same seed does the same again.
//!
//! `cargo test -p relay-core --test simulation` runs a few hundred seeds. `FURROW_SEEDS=10000` runs more, `FURROW_SEED=17`
//! begins with the 17th, so that `FURROW_SEED=17 FURROW_SEEDS=1` repeats one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod dice;
mod disk;
mod model;
mod network;
mod population;
mod scenario;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 300;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn no_schedule_breaks_a_promise() {
    let first = from_environment("FURROW_SEED").unwrap_or(0);
    let seeds = from_environment("FURROW_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(seed).run()));
        if outcome.is_err() {
            panic!(
                "seed {seed} failed; repeat it with\n  FURROW_SEED={seed} FURROW_SEEDS=1 cargo test -p relay-core --test simulation"
            );
        }
    }
}
