//! WAN DPP, the protocol by which clients publish the status of their device and are told that of others, as messages on
//! an SSTP session of the resource [`RESOURCE_WAN_DPP`](crate::sstp::profile::RESOURCE_WAN_DPP).
//!
//! The published message layer could not be read: the payload bytes are this project's own, fixed in wire-profile sec. 4.
//! Here is the codec alone. What a relay does with the messages is in [`crate::relay`], what a client does in [`crate::client`].

mod decoder;
mod message;
pub mod profile;
mod status;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Item, Malformed};
pub use message::{Kind, Message, MessageWriter};
pub use status::{Status, UnknownStatus};
