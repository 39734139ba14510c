//! SSTP inside HTTP: the rules of the relay's end and of the client's end by their sections, and both back to back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod back_to_back;
mod client_rules;
mod desk;
mod keep_alive_rules;
mod long_lived_rules;
mod polling_rules;
mod port_80_rules;
