//! The thread-per-core runtime of the relay: it gives [`relay_core::relay::Relay`] sockets, a disk, a clock and neighbours.
//!
//! * [`server`]: starting and stopping the whole relay.
//! * [`running`]: what a running relay does when it is told to read its configuration again.
//! * [`worker`]: one shard, an executor on one core with its relay, its log and its tasks.
//! * [`transport`]: everything that touches glommio's sockets.
//! * [`command`]: what operators and managers ask of running shards.
//! * [`operations`]: the thread that answers operators and Prometheus and watches the machine; [`board`] is where shards show
//!   what they count, [`histogram`] how it is distributed, [`monitor`] what follows from it.
//! * [`logging`], [`events`]: what the relay says, where to, how much, and the number of each thing that it says.
//! * [`dialer`], [`peers`]: calling other relays, and knowing them.
//! * [`tls`]: TLS around a connection, and the certificate.
//! * [`users`]: what an operator does to the users of a stopped relay.
//! * [`activation`]: listening sockets that outlive the relay.
//! * [`notify`]: what the service manager is told, and the watchdog.
//! * [`mesh`]: the lock-free queues between shards and how a sleeping shard is woken.
//! * [`descriptors`]: a descriptor table for each shard, and how sockets and wake-ups pass between tables.
//! * [`placement`]: which processor each shard runs on.
//! * [`homes`]: stored mail follows its accounts when the number of shards has changed.
//! * [`side`]: the side thread, for what shards must not wait for.
//! * [`management`]: the thread that serves management servers.
//!
//! Nothing here decides who gets which message; that is relay-core's.
#![deny(unsafe_code)]

pub mod activation;
pub mod board;
pub mod command;
pub mod demo;
pub mod descriptors;
pub mod dialer;
pub mod events;
pub mod histogram;
pub mod homes;
pub mod init;
mod leftover;
pub mod letter;
pub mod logging;
pub mod management;
pub mod mesh;
pub mod monitor;
pub mod notify;
pub mod operations;
pub mod peers;
pub mod placement;
mod restoring;
pub mod running;
pub mod server;
pub mod side;
pub mod tls;
pub mod transport;
pub mod users;
pub mod worker;
