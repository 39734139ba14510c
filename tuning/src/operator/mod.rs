//! How an operator talks to a running relay: lines of JSON on a Unix socket that only its owner may open.
//!
//! A request is one line, `{"v":1,"command":"status"}`; the reply is one line, `{"v":1,"answer":...}` or `{"v":1,"error":...}`.
//! Requests of one connection are answered in their order. `relayctl` is one client of it, [`Client`] the part of it that others
//! may want. Here are the words and the client's end; what the relay does about them is the crate shard's.

mod client;
mod counters;
mod protocol;

pub use client::{Client, ClientError};
pub use counters::{COUNTER_FAMILIES, Family, Member, MetricKind, ShardCounters};
pub use protocol::{
    Answer, Connection, ErrorCause, Filter, KeyHolder, MAX_LISTED, MAX_REPLY_BYTES, MAX_REQUEST_BYTES,
    MailFamily, Mailbox, MailboxOrder, Outcome, Refusal, Reply, Request, RequestLine, ResourceState,
    RestoreReport, ShardState, Status, Timing, VERSION,
};
