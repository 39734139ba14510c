//! Where a message goes: one resource at one recipient, or the same resource at several.

use crate::address::{DeviceUrl, IdentityUrl, ResourceUrl};
use crate::sstp::command::FanoutEntry;
use crate::sstp::text::Text;
use smallvec::SmallVec;

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// The recipient identity.
    pub identity: IdentityUrl,
    /// The recipient device; `None` for whichever device the identity's account is attached on.
    pub device: Option<DeviceUrl>,
    /// The recipient's relay, if it is not ours. Only sessions towards several recipients can name it.
    pub relay: Option<DeviceUrl>,
}

impl Recipient {
    /// An identity, on whatever device, at our relay.
    pub fn identity(identity: IdentityUrl) -> Self {
        Self { identity, device: None, relay: None }
    }

    /// An identity on one device, at our relay.
    pub fn device(identity: IdentityUrl, device: DeviceUrl) -> Self {
        Self { identity, device: Some(device), relay: None }
    }

    /// The same recipient, at another relay than ours.
    pub fn at(self, relay: DeviceUrl) -> Self {
        Self { relay: Some(relay), ..self }
    }

    fn fanout_entry(&self) -> FanoutEntry {
        let text = |url: &Option<DeviceUrl>| url.as_ref().map_or(Text::EMPTY, Text::from);
        FanoutEntry {
            identity_url: Text::from(&self.identity),
            device_url: text(&self.device),
            relay_url: text(&self.relay),
        }
    }
}

/// A resource and at least one recipient. Messages of equal destinations share a session and keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    resource: ResourceUrl,
    recipients: SmallVec<[Recipient; 1]>,
}

impl Destination {
    /// One recipient.
    pub fn new(resource: ResourceUrl, recipient: Recipient) -> Self {
        Self { resource, recipients: SmallVec::from_iter([recipient]) }
    }

    /// One more recipient, whose index is the number of those before.
    pub fn and(mut self, recipient: Recipient) -> Self {
        self.recipients.push(recipient);
        self
    }

    /// The resource handler.
    pub fn resource(&self) -> &ResourceUrl {
        &self.resource
    }

    /// The recipients; never empty.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The only recipient, if a plain Open can reach it.
    pub(super) fn single(&self) -> Option<&Recipient> {
        match &self.recipients[..] {
            [recipient] if recipient.relay.is_none() => Some(recipient),
            _ => None,
        }
    }

    /// Bytes of the Open that reaches the only recipient (sstp-messages 4.5).
    pub(super) fn open_bytes(&self, recipient: &Recipient) -> usize {
        let device = recipient.device.as_ref().map_or(0, |device| device.as_bytes().len());
        13 + self.resource.as_bytes().len() + recipient.identity.as_bytes().len() + device
    }

    pub(super) fn fanout_entries(&self) -> Vec<FanoutEntry> {
        self.recipients.iter().map(Recipient::fanout_entry).collect()
    }

    /// The index of the recipient that a SessionStatus in the single-recipient form names.
    pub(super) fn position(&self, identity: &Text, device: &Text) -> Option<u16> {
        let found = self.recipients.iter().position(|recipient| {
            let own_device = recipient.device.as_ref().map_or(&b""[..], |device| device.as_bytes());
            recipient.identity.as_bytes() == identity.as_bytes() && own_device == device.as_bytes()
        });
        found.map(|index| index as u16)
    }

    /// The indexes of the recipients behind the relay that a SessionStatus names.
    pub(super) fn behind_relay(&self, relay: &Text) -> Vec<u16> {
        let entries = self.recipients.iter().zip(0u16..);
        let behind = entries.filter(|(recipient, _)| {
            recipient.relay.as_ref().is_some_and(|own| own.as_bytes() == relay.as_bytes())
        });
        behind.map(|(_, index)| index).collect()
    }
}
