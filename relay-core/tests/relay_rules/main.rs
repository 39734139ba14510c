//! The rules of a shard's brain, one by one: what it answers, what it writes and when, and what it keeps back.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod abandoned;
mod admission;
mod bench;
mod delivery;
mod deposit;
#[path = "../simulation/dice.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod dice;
mod fairness;
mod full_disk;
mod limits;
mod management;
mod operator;
mod pair;
mod patience;
mod peers;
#[path = "../simulation/population.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod population;
mod presence;
mod redeposit;
mod retention;
