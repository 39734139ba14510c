//! The binary as its operator sees it: the socket, metrics and health, the resource monitor, the log.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commands;
mod metrics;
mod monitor;
mod restore;
mod retention;
mod running;
