//! The workloads, one file each.

pub(crate) mod accept;
pub(crate) mod auth;
pub(crate) mod beside;
pub(crate) mod brain;
mod connection_limits;
pub(crate) mod connections;
pub(crate) mod crash;
pub(crate) mod drain;
pub(crate) mod durable;
pub(crate) mod fanout;
pub(crate) mod management;
pub(crate) mod mixed;
pub(crate) mod online;
pub(crate) mod presence;
pub(crate) mod recovery;
pub(crate) mod soak;
pub(crate) mod strangers;
mod talk;
pub(crate) mod traffic;
