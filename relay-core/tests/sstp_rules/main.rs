//! One test for each rule of sstp-behaviour 6 and 7 that the connection machine owns. What the relay decides above it is
//! tested elsewhere.

mod acknowledgement;
mod handshake;
mod limits;
mod messages;
#[path = "../pair/mod.rs"]
mod pair;
mod script;
mod sessions;
mod timers;
