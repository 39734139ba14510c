//! SPMR: how a management server administers a relay, in XML messages over HTTP (management-soap-spmr, wire-profile sec. 6).
//!
//! Both ends are here, and no HTTP: documents in, documents out. Nothing here keeps users, speaks to shards, or draws a
//! random number of its own.
//!
//! | A relay | a management server |
//! |---|---|
//! | [`judge()`]: a request becomes a [`Command`] or a refusal | [`Manager`]: a [`Request`] becomes documents, answers become an [`Outcome`] |
//! | [`Reply::write`], [`write_fault`] | [`Load`]: a million users become requests |
//! | [`KeyLedger`]: what it has to remember | [`ManagerKeys`]: what it has to remember |
//!
//! A request passes three layers: the `envelope` (SOAP), the `fragment` in it, whose content is `secured` under the shared
//! key, and the plaintext in that, of which the `provisional` form is the only one so far. The cipher is weak by today's measure
//! (RC4, SHA-1): the port belongs on an internal address.

mod base64_text;
mod canonical;
mod envelope;
mod error;
mod fragment;
mod judge;
mod load;
mod manager;
mod manager_keys;
mod operation;
mod profile;
mod provisional;
mod registration;
mod request;
mod secured;
mod shared_key;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
mod xml;

pub use envelope::write_fault;
pub use error::{FaultCode, SpmrError};
pub use fragment::HeaderForm;
pub use judge::{Command, Judged, KeyLedger, LedgerFailed, Reply, judge};
pub use load::{Load, LoadFailed, UserSource};
pub use manager::{Manager, ManagerError, Progress};
pub use manager_keys::{ManagerKeys, ManagerPublicKey, NotAManagerKey, NotAServerName};
pub use operation::Operation;
pub use profile::{
    CONTENT_TYPE, MAX_FORMER_KEYS, MAX_REQUESTS_PER_KEY, MAX_SERVER_NAME_BYTES, MAX_USERS_PER_REQUEST, PORT,
    SHARED_KEY_BYTES,
};
pub use provisional::{
    read_request as read_plain_request, read_response as read_plain_response,
    write_request as write_plain_request,
};
pub use registration::UnusableRelayKey;
pub use request::{Defaults, ListedUser, Outcome, Request};
pub use secured::MessageTrace;
pub use shared_key::SharedKey;
pub use xml::XmlError;
