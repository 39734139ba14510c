//! The client's brain: one device that talks to its relay over one connection after another.
//!
//! [`Client`] is a machine without sockets, threads or clocks. Transport bytes, the time and the application's wishes go in; bytes
//! to send, [`Event`]s and the time of the next look come out. It connects, authenticates, attaches accounts, registers
//! on request, opens sessions on demand, sends, receives, acknowledges and comes back after every loss.
//!
//! # What a sender may rely on
//!
//! A message taken by [`Client::send`] stays with the client until the relay has acknowledged it, and is sent again on the next
//! connection if need be: *at least once*, in order for each [`Destination`]. The end is always told: [`Event::Delivered`] or
//! [`Event::Failed`]. A failed message may have arrived all the same, when the loss fell between arrival and acknowledgement.
//!
//! # What a receiver may rely on
//!
//! The relay keeps a message until the application has called [`Client::acknowledge`] and the count has reached the relay. Since
//! SSTP acknowledges in order of arrival, a message that is never acknowledged holds back those behind it: what was
//! acknowledged behind it comes again on the next connection too.

mod authentication;
mod backoff;
mod config;
mod destination;
mod event;
mod inbox;
mod machine;
mod message;
mod outbox;
mod presence;
#[cfg(test)]
mod presence_tests;
mod registration;
mod route;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod scripted_relay;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use config::{Account, ClientConfig, Limits, UrlsTooLong};
pub use destination::{Destination, Recipient};
pub use event::{Disconnected, Event};
pub use inbox::{Address, IncomingHead, IncomingId};
pub use machine::Client;
pub use message::{Body, MessageId, OutgoingMessage, QueueError, SendFailure, UserRefTooLong};
pub use registration::{Registration, RegistrationError, RegistrationStep};
