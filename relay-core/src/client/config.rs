//! Who a client is, which relay it talks to, and its limits.

use crate::address::{AccountUrl, DeviceUrl};
use crate::security::{ClientCredentials, RelayPublicKeys};
use crate::sstp::connection::{ConnectionConfig, Endpoint};
use crate::sstp::text::Text;
use std::sync::Arc;
use std::time::Duration;

/// PeerProductVersion of our Connect: "vendor product version build".
const PRODUCT_VERSION: &str = concat!("Furrow client ", env!("CARGO_PKG_VERSION"), " 0");

/// What the relay's and the device's URL may have together: Connect is at most 2055 bytes long and carries a token beside.
const MAX_CONNECT_URL_BYTES: usize = 1800;

/// The URLs of the relay and of the device have more than 1800 bytes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URLs of relay and device have {0} bytes; at most {MAX_CONNECT_URL_BYTES} are allowed")]
pub struct UrlsTooLong(pub usize);

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
    pub(super) relay_url: DeviceUrl,
    /// The relay's public keys; needed to register only.
    pub relay_keys: Option<RelayPublicKeys>,
    pub(super) device_url: DeviceUrl,
    /// This device's keys. Without them the client is anonymous: it proves nothing, asks for no proof, receives nothing and
    /// may send where the relay takes mail from anyone.
    pub device_credentials: Option<Arc<ClientCredentials>>,
    /// The accounts to attach on each connection.
    pub accounts: Vec<Account>,
    /// Bounds.
    pub limits: Limits,
    pub(super) connection: ConnectionConfig,
}

impl ClientConfig {
    /// A client with this `device_url` at the relay with the device URL `relay_url`, with the default limits, as yet without keys
    /// and accounts.
    ///
    /// # Errors
    /// [`UrlsTooLong`] if no Connect holds both.
    pub fn new(relay_url: DeviceUrl, device_url: DeviceUrl) -> Result<Self, UrlsTooLong> {
        let bytes = relay_url.as_bytes().len() + device_url.as_bytes().len();
        if bytes > MAX_CONNECT_URL_BYTES {
            return Err(UrlsTooLong(bytes));
        }
        let product = Text::new(PRODUCT_VERSION.as_bytes()).expect("the product version is ASCII");
        let connection = ConnectionConfig {
            // What the application acknowledges goes out with the next output, not after five seconds.
            acknowledge_delay: Duration::ZERO,
            ..ConnectionConfig::new(Endpoint::Client, vec![Text::from(&device_url)], product)
        };
        Ok(Self {
            relay_url,
            relay_keys: None,
            device_url,
            device_credentials: None,
            accounts: Vec::new(),
            limits: Limits::default(),
            connection,
        })
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
