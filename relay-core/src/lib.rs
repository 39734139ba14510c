//! The protocols of the Furrow relay and the relay's decisions, as deterministic values.
//!
//! What this crate does *not* do: it opens no socket and no file, starts no thread, reads no clock and draws no
//! random number. Bytes, the time and randomness go in; bytes and actions come out. So the same code runs
//! under io_uring, under a seeded simulator, under a fuzzer and in a unit test.
//!
//! * [`address`]: the URLs of devices, identities, accounts and resources, and what names a mailbox.
//! * [`sstp`]: the 18 SSTP commands, and the connection machine for both roles and both versions.
//! * [`security`]: the tokens that SSTP carries: registration and mutual challenge/response.
//! * [`client`]: the other end: a client of a relay, over one connection after another.
//! * [`presence`]: WAN DPP, the messages by which devices publish and learn who is online.
//! * [`directory`]: what a relay knows of devices, accounts and identities.
//! * [`store`]: what the relay asks of a mailbox log, and what the log gives back.
//! * [`http`]: SSTP inside HTTP and through proxies, at both ends.
//! * [`relay`]: one shard's whole brain: who gets which message, when it is complete, what is acknowledged.
//! * [`spmr`]: the messages of management servers, both ends.
//! * [`time`]: time and randomness as arguments.
#![forbid(unsafe_code)]

pub mod address;
mod chain;
pub mod client;
pub mod directory;
pub mod http;
pub mod presence;
pub mod relay;
pub mod security;
pub mod spmr;
pub mod sstp;
pub mod store;
pub mod time;
