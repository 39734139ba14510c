//! Who a client is, which relay it talks to, and its limits.

use crate::address::{AccountUrl, DeviceUrl};
use crate::security::{ClientCredentials, RelayPublicKeys};
use crate::sstp::connection::{ConnectionConfig, Endpoint};
use crate::sstp::text::Text;
use std::sync::Arc;
use std::time::Duration;

/// PeerProductVersion of our Connect: "vendor product version build".
const PRODUCT_VERSION: &str = concat!("Furrow client ", env!("CARGO_PKG_VERSION"), " 0");

/// An account of this device and its keys.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account.
    pub url: AccountUrl,
    /// Its keys.
    pub credentials: Arc<ClientCredentials>,
}

/// Everything that a [`Client`](super::Client) is told at birth.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The relay's device URL, the target of Connect.
    pub relay_url: DeviceUrl,
    /// The relay's public keys; needed to register only.
    pub relay_keys: Option<RelayPublicKeys>,
    /// This device.
    pub device_url: DeviceUrl,
    /// This device's keys. Without them the client is anonymous: it proves nothing, asks for no proof, receives nothing and
    /// may send where the relay takes mail from anyone.
    pub device_credentials: Option<Arc<ClientCredentials>>,
    /// The accounts to attach on each connection.
    pub accounts: Vec<Account>,
    /// Bounds.
    pub limits: Limits,
    /// What the connection machine is told; made from the device URL by [`ClientConfig::new`].
    pub connection: ConnectionConfig,
}

impl ClientConfig {
    /// A client of `relay_url` with the default limits, as yet without keys and accounts.
    pub fn new(relay_url: DeviceUrl, device_url: DeviceUrl) -> Self {
        let product = Text::new(PRODUCT_VERSION.as_bytes()).expect("the product version is ASCII");
        let connection = ConnectionConfig {
            // What the application acknowledges goes out with the next output, not after five seconds.
            acknowledge_delay: Duration::ZERO,
            ..ConnectionConfig::new(Endpoint::Client, vec![Text::from(&device_url)], product)
        };
        Self {
            relay_url,
            relay_keys: None,
            device_url,
            device_credentials: None,
            accounts: Vec::new(),
            limits: Limits::default(),
            connection,
        }
    }
}

/// The bounds of a client. All are soft by at most one unit of work (a part, a piece of a body).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages queued or sent and not yet acknowledged.
    pub queued_messages: usize,
    /// Bytes of their bodies that are in memory.
    pub queued_bytes: usize,
    /// Outbound sessions open at once.
    pub open_sessions: usize,
    /// Output above which no more messages are put into it, in bytes.
    pub output_high_water: usize,
    /// The most bytes of a pulled body asked for at once.
    pub piece_bytes: usize,
    /// Incoming bytes handed to the application and not yet consumed, above which the relay is asked to hold. At twice this
    /// [`Client::wants_input`](super::Client::wants_input) says no.
    pub unconsumed_bytes: usize,
    /// Incoming messages not yet acknowledged, above which the relay is asked to hold.
    pub unacknowledged_messages: usize,
    /// How long after the application has given a message back the connection is renewed, so that the relay sends it again.
    pub redelivery_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queued_messages: 16_384,
            queued_bytes: 64 << 20,
            open_sessions: 256,
            output_high_water: 256 << 10,
            piece_bytes: 128 << 10,
            unconsumed_bytes: 4 << 20,
            unacknowledged_messages: 16_384,
            redelivery_delay: Duration::from_secs(5),
        }
    }
}
