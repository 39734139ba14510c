//! The messages of the legacy profile (wire-profile sec. 2).

use super::profile::{Layer, MessageId};
use super::token::{Header, Writer};
use crate::directory::Profile;
use bytes::Bytes;

/// Message 1 or 6.
pub(super) struct Hello;

impl Hello {
    /// Client: message 1 or 6 without a key.
    pub(super) fn write_empty(layer: Layer) -> Bytes {
        let minor = Profile::Legacy.client_minor(layer);
        let header = Header { profile: Profile::Legacy, minor, id: MessageId::hello(layer) };
        Writer::new(header).field(&[]).field(&[]).field(&[]).finish()
    }
}
