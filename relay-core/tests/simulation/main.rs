//! The relay under a seeded simulator: shards, disks, wires and clients in one thread with one clock, and every fault that these have
//! in life. A seed is a whole schedule: the same seed does the same again.
//!
//! `cargo test -p relay-core --test simulation` runs 300 seeds. `FURROW_SEEDS=10000` runs more, `FURROW_SEED=17`
//! begins with the 17th, so that `FURROW_SEED=17 FURROW_SEEDS=1` repeats one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod allowance;
mod client;
mod defaults;
mod dice;
mod disk;
mod links;
mod management;
mod model;
mod network;
mod population;
mod presence;
mod scenario;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 300;
/// Seeds of presence, whose schedules are longer.
const PRESENCE_SEEDS: u64 = 100;
/// Seeds with a management server.
const MANAGED_SEEDS: u64 = 200;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn no_schedule_breaks_a_promise() {
    run_seeds(SEEDS, |seed| world::World::new(seed).run());
}

#[test]
fn no_schedule_with_a_management_server_breaks_a_promise() {
    run_seeds(MANAGED_SEEDS, |seed| world::World::managed(seed).run());
}

/// 50,551: a mailbox went with its last message, which could not be read back, while its delivery was about to go on.
/// 62,437: links to another relay had more in flight than all connections together may have, which do not count for them.
/// 72,760: a recipient was named twice, and its fault was reported once.
#[test]
fn schedules_that_once_failed_do_not_again() {
    for seed in [50_551, 62_437, 72_760] {
        world::World::new(seed).run();
    }
}

#[test]
fn no_schedule_of_presence_breaks_a_promise() {
    run_seeds(PRESENCE_SEEDS, |seed| presence::PresenceWorld::new(seed).run());
}

fn run_seeds(usual: u64, run: impl Fn(u64)) {
    let first = from_environment("FURROW_SEED").unwrap_or(0);
    let seeds = from_environment("FURROW_SEEDS").unwrap_or(usual);
    for seed in first..first + seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        if outcome.is_err() {
            panic!(
                "seed {seed} failed; repeat it with\n  FURROW_SEED={seed} FURROW_SEEDS=1 cargo test -p relay-core --test simulation"
            );
        }
    }
}
