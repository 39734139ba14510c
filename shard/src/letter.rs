//! What reaches a shard from another thread.

use crate::command::Command;
use crate::mesh::Load;
use crate::tls::TlsSession;
use bytes::Bytes;
use relay_core::relay::{
    ConnectionId, MeshItem, Order, Receipt, Registered, RelayConfig, RemoteRelay, ShardId,
};
use relay_core::spmr::Defaults;
use relay_core::sstp::SessionId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Held by whoever has been asked for something; who asked knows by its end that it is done.
pub type Done = mpsc::Sender<Infallible>;

/// One thing that reaches a shard from another thread.
#[derive(Debug)]
pub enum Letter {
    /// From the relay of another shard, in order; never empty.
    Mesh(VecDeque<MeshItem>),
    /// A connection whose home is the receiving shard, or an HTTP connection whose virtual connection it owns, with what was
    /// received on it.
    HandOff {
        /// The socket.
        socket: Passed,
        /// Its TLS, if it has one.
        tls: Option<TlsSession>,
        /// It speaks HTTP.
        http: bool,
        /// What was received.
        bytes: Bytes,
    },
    /// A connection that another shard accepted from a listening socket that it holds for all.
    Accepted {
        /// The socket.
        socket: Passed,
        /// Which of the listeners it came from; they are the same, in the same order, on every shard.
        listener: usize,
    },
    /// The side thread has judged a registration.
    Registered {
        /// The connection.
        connection: ConnectionId,
        /// EventId.
        event: SessionId,
        /// The verdict.
        outcome: Registered,
    },
    /// Pass an order about accounts to their home.
    Order {
        /// Their home.
        home: ShardId,
        /// The order.
        order: Order,
        /// Gone once it has been obeyed.
        receipt: Receipt,
    },
    /// Set the defaults that are given.
    Defaults(Defaults, Done),
    /// Complete what was received, send everybody away and let nobody in.
    Rest(Done),
    /// Let everybody in again.
    Resume(Done),
    /// An operator's or manager's order.
    Command(Command),
    /// Obey other limits and deadlines from now on.
    Reconfigure(Arc<RelayConfig>),
    /// The resolver has looked another relay up.
    Resolved {
        /// The relay.
        relay: RemoteRelay,
        /// Where it may be reached, in order; none if nothing was found.
        addresses: Vec<SocketAddr>,
    },
    /// Shut down.
    Stop,
}

impl Load for Letter {
    fn items(&self) -> usize {
        match self {
            Letter::Mesh(items) => items.len(),
            _ => 1,
        }
    }
}

/// How a socket comes with its letter.
#[derive(Debug)]
pub enum Passed {
    /// As a descriptor of the table that the shards share.
    Open(OwnedFd),
    /// By itself, through the receiver's hatch, with this token (`descriptors`).
    ThroughHatch(u64),
}
