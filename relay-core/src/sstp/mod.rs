//! SSTP: the Groove Simple Symmetric Transport Protocol, versions 1.5 and 1.6.
//!
//! [`command`] holds nothing but the wire: the 18 commands, decoded from and encoded to bytes. [`frame`] cuts a byte
//! stream into commands. [`connection`] is the machine of one connection with its sessions, for both roles. What the
//! messages mean, who may send them and where they go is not decided here.

pub mod acknowledge;
pub mod codes;
pub mod command;
pub mod connection;
mod encode;
pub mod frame;
pub mod output;
pub mod profile;
mod session;
pub mod text;
mod whole_message;

pub use codes::{CloseReason, ConnectResponseId, OpenResponseId, StatusId};
pub use command::{Command, DecodeError, SessionId, Version};
pub use connection::{Connection, ConnectionConfig, Event};
