//! Who has proven what on one connection: the device by Connect, each account by Attach (sstp-security sec. 7, client side).

use super::config::{Account, ClientConfig};
use super::event::{Disconnected, Event};
use crate::security::{Hello, HelloAnswer, Layer, SecurityError, hello};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, Connection, SessionId};
use crate::time::Entropy;
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// How far the device has come.
#[derive(Debug)]
enum Device {
    /// ConnectResponse is awaited; without a hello if the client is anonymous.
    Asking(Option<Hello>),
    /// The relay does not know it.
    Unregistered,
    /// Nothing was proven, nor is to be.
    Anonymous,
    /// Both sides have proven themselves.
    Proven,
}

/// The proofs of one connection.
#[derive(Debug)]
pub(super) struct Login {
    device: Device,
    attaching: HashMap<SessionId, (Account, Hello)>,
    attached: HashMap<SessionId, Account>,
}

impl Login {
    /// The beginning, and the token of Connect.
    pub(super) fn new(config: &ClientConfig, entropy: &mut dyn Entropy) -> (Self, Bytes) {
        let device = config.device_credentials.as_ref();
        let hello = device.map(|keys| hello(Layer::Device, config.device_url.as_str(), keys, entropy));
        let token = hello.as_ref().map_or_else(Bytes::new, |hello| hello.token.clone());
        let login =
            Self { device: Device::Asking(hello), attaching: HashMap::new(), attached: HashMap::new() };
        (login, token)
    }

    /// The relay's answer to Connect was Ok, with this token: proves the device and begins to attach the accounts.
    pub(super) fn connected(
        &mut self,
        token: &[u8],
        accounts: &[Account],
        connection: &mut Connection,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Disconnected> {
        let asked = std::mem::replace(&mut self.device, Device::Anonymous);
        let Device::Asking(Some(hello)) = asked else { return Ok(()) };
        if token.is_empty() {
            return Err(Disconnected::NoProof);
        }
        match hello.answer(token)? {
            HelloAnswer::Failed => Err(Disconnected::DeviceRefused),
            HelloAnswer::RegistrationNeeded => {
                self.device = Device::Unregistered;
                Ok(())
            }
            HelloAnswer::Proof { token } => {
                self.device = Device::Proven;
                connection.connect_authenticate(token);
                accounts.iter().for_each(|account| self.attach(account, connection, entropy));
                Ok(())
            }
        }
    }

    fn attach(&mut self, account: &Account, connection: &mut Connection, entropy: &mut dyn Entropy) {
        let hello = hello(Layer::Account, account.url.as_str(), &account.credentials, entropy);
        if let Some(event) = connection.attach(Text::from(&account.url), hello.token.clone()) {
            self.attaching.insert(event, (account.clone(), hello));
        }
    }

    /// The relay's answer to Attach.
    pub(super) fn attach_response(
        &mut self,
        event: SessionId,
        token: &[u8],
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) -> Result<(), SecurityError> {
        let Some((account, hello)) = self.attaching.remove(&event) else { return Ok(()) };
        match hello.answer(token)? {
            HelloAnswer::Proof { token } => {
                connection.attach_authenticate(event, token);
                self.attached.insert(event, account);
                return Ok(());
            }
            HelloAnswer::RegistrationNeeded => {
                events.push_back(Event::AccountRegistrationNeeded(account.url));
            }
            HelloAnswer::Failed => events.push_back(Event::AccountRefused(account.url)),
        }
        connection.close_session(event, CloseReason::NoReason);
        Ok(())
    }

    /// The relay closed an exchange; `false` if it is not an Attach.
    pub(super) fn closed(&mut self, event: SessionId, events: &mut VecDeque<Event>) -> bool {
        let attaching = self.attaching.remove(&event).map(|(account, _)| account);
        let Some(account) = attaching.or_else(|| self.attached.remove(&event)) else { return false };
        events.push_back(Event::AccountRefused(account.url));
        true
    }

    /// Whether every question has been answered.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.device, Device::Asking(_)) && self.attaching.is_empty()
    }

    /// Whether the relay does not know the device.
    pub(super) fn is_unregistered(&self) -> bool {
        matches!(self.device, Device::Unregistered)
    }

    /// Whether this client may send on this connection.
    pub(super) fn may_send(&self) -> bool {
        matches!(self.device, Device::Proven | Device::Anonymous)
    }

    /// Whether the account has been proven, and the device before it.
    pub(super) fn is_attached(&self, account: &crate::address::AccountUrl) -> bool {
        self.attached.values().any(|attached| attached.url == *account)
    }
}
