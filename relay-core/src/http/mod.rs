//! SSTP inside HTTP, for those whose firewall lets nothing else out: LongLived, KeepAlive and Polling, at both ends, and what a
//! client says to HTTP and SOCKS proxies (http-encapsulation.md).
//!
//! One *virtual connection* is an ordered byte stream in both directions, made of HTTP requests. SSTP above it does not
//! notice. What this module does *not* do: it owns no socket, knows nothing of SSTP's commands, and proves nobody's
//! identity; that is SSTP Security's, inside.
//!
//! * [`profile`]: every number and literal, with its provenance.
//! * [`head`]: heads of requests and responses, with their limits.
//! * [`target`]: which of the encapsulations a request is for.
//! * [`guid`]: what names a virtual connection.
//! * [`poll`], [`checksum`]: the body of a Polling request or response.
//! * [`server`]: the relay's end of all virtual connections of a shard.
//! * [`client`]: a client's end of one.
//! * [`proxy`]: opening a tunnel through an HTTP proxy (CONNECT) or a SOCKS 5 proxy.

pub mod checksum;
pub mod client;
pub mod guid;
pub mod head;
pub mod poll;
pub mod profile;
pub mod proxy;
pub mod server;
pub mod target;

pub use guid::Guid;
pub use target::Encapsulation;
