//! SSTP Security: the tokens inside Connect, Attach and Register, by which devices and accounts register with a relay and
//! prove themselves to it, and it to them (wire-profile sec. 2 and 3, sstp-security).
//!
//! Both ends are here, because what one writes is what the other checks. All of it is pure: a token in, a verdict
//! and a token out. It keeps no connection state, waits for nothing, changes no record and draws no random number;
//! which command carries a token, and what follows from a verdict, is the affair of [`crate::sstp`] and of the relay.
//!
//! | A relay calls | with the token of | a client calls |
//! |---|---|---|
//! | [`answer_connect`] | Connect | [`hello`], [`hello_without_key`] |
//! | [`answer_attach`], [`attach_failed`] | Attach | the same |
//! | | ConnectResponse, AttachResponse | [`Hello::answer`], [`read_answer_without_key`] |
//! | [`Challenge::verify`] | ConnectAuthenticate, AttachAuthenticate | |
//! | [`answer_register`], or [`open_register`] and [`OpenedRegister::judge`]; [`busy_response`] | Register | [`register_device_account`], [`register_account_on_new_device`], [`register_identity`] |
//! | | RegisterResponse | [`read_register_response`] |
//!
//! A device or account keeps the profile with which it registered: what the other profile proves about it is
//! refused, on both ends.

mod client;
mod credentials;
mod error;
mod handshake;
pub(crate) mod key_file;
mod legacy;
pub mod marc4;
mod modern;
mod peers;
mod profile;
mod registration;
mod relay_keys;
pub mod sealed;
#[cfg(test)]
pub(crate) mod test_entropy;
#[cfg(test)]
mod tests;
mod token;

pub use client::{
    Hello, HelloAnswer, hello, hello_without_key, read_answer_without_key, read_register_response,
    register_account_on_new_device, register_device_account, register_identity,
};
pub use credentials::ClientCredentials;
pub(crate) use credentials::ModernSigner;
pub use error::SecurityError;
pub use handshake::{Challenge, HelloVerdict, answer_attach, answer_connect, attach_failed};
pub use key_file::KeyFileError;
pub(crate) use legacy::{der, rsa};
pub use peers::{PeerSecrets, peer_hello};
pub use profile::{
    Layer, MAX_ACCOUNTS_PER_DEVICE, MAX_DEVICES_PER_ACCOUNT, MAX_ELGAMAL_PLAINTEXT_BYTES,
    MAX_IDENTITIES_PER_ACCOUNT, MAX_PRE_AUTH_TOKEN_BYTES, MessageId, RegisterStatus,
};
pub use registration::{
    OpenedRegister, RegisterContext, RegisterVerdict, answer_register, busy_response, claimed_registration,
    open_register,
};
pub use relay_keys::{RelayKeys, RelayPublicKeys};
pub use token::TokenError;
