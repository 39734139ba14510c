//! What all connections of a device share.

use crate::sstp::command::Version;
use crate::sstp::profile;
use crate::sstp::text::Text;
use std::time::Duration;

/// Which kind of device this side is: it decides which requests are answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Supports neither multi-drop nor single-hop, answers no Attach or Register (sstp-behaviour 6.1).
    Client,
    /// A relay server.
    Relay,
}

/// What all connections of a device share.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Client or relay.
    pub endpoint: Endpoint,
    /// LocalDeviceURLs, at least one.
    pub local_device_urls: Vec<Text>,
    /// Highest version spoken.
    pub version: Version,
    /// PeerProductVersion of our Connect.
    pub product_version: Text,
    /// Sessions of one connection, both directions and Attach included.
    pub max_sessions: usize,
    /// Payload bytes of one received message.
    pub max_message_bytes: u64,
    /// Payload bytes held of messages whose end has not arrived, all sessions together; what is above is handed on in
    /// smaller parts.
    pub max_held_bytes: usize,
    /// Wait for Connect, or for ConnectResponse.
    pub connect_deadline: Duration,
    /// Wait for ConnectAuthenticate.
    pub authenticate_deadline: Duration,
    /// Message Acknowledgment Timer.
    pub acknowledge_delay: Duration,
    /// Time without sending after which a Noop goes out.
    pub keep_alive: Duration,
    /// Time without receiving after which the connection ends.
    pub idle_deadline: Duration,
}

impl ConnectionConfig {
    /// The defaults of the wire profile for a device of these URLs.
    pub fn new(endpoint: Endpoint, local_device_urls: Vec<Text>, product_version: Text) -> Self {
        Self {
            endpoint,
            local_device_urls,
            version: Version::V1_6,
            product_version,
            max_sessions: 4096,
            max_message_bytes: 250_000_000,
            max_held_bytes: 1 << 20,
            connect_deadline: profile::CONNECT_DEADLINE,
            authenticate_deadline: profile::AUTHENTICATE_DEADLINE,
            acknowledge_delay: profile::ACKNOWLEDGE_DELAY,
            keep_alive: profile::KEEP_ALIVE,
            idle_deadline: profile::IDLE_DEADLINE,
        }
    }

    /// The same for connections that HTTP carries: a Noop goes out after 45 s at the latest, or proxies give up what waits for it
    /// (http-encapsulation 6.1).
    pub fn for_virtual_connections(&self) -> Self {
        let keep_alive = self.keep_alive.min(crate::http::profile::HELD_GET);
        Self { keep_alive, ..self.clone() }
    }
}
