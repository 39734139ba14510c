//! Opening a tunnel through a proxy, as machines without I/O: CONNECT for HTTP proxies (Secure Tunnel, http-encapsulation 4.4)
//! and SOCKS 5 (4.5). Behind the handshake the tunnel carries bytes as they are.

mod connect;
mod socks;

pub use connect::Connect;
pub use socks::Socks;

use super::head::HeadError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::fmt;

/// A user's name and password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Credentials {
    /// The value of Proxy-Authorization in the scheme Basic.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ...)", self.user)
    }
}

/// Why a proxy opens no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is no HTTP proxy.
    #[error("the proxy does not speak HTTP: {0}")]
    Head(#[from] HeadError),
    /// An HTTP status other than 2xx.
    #[error("the proxy answers with status {0}")]
    Status(u16),
    /// It wants credentials, or others.
    #[error("the proxy wants other credentials")]
    Authentication,
    /// It is no SOCKS 5 proxy.
    #[error("the proxy does not speak SOCKS 5")]
    NotSocks,
    /// It offers no method of authentication that is spoken here.
    #[error("the proxy accepts no method of authentication that this client has")]
    NoMethod,
    /// A SOCKS reply other than success (RFC 1928 section 6).
    #[error("the proxy refuses the connection: {}", socks::reply_text(*.0))]
    Reply(u8),
    /// A host or credentials above 255 octets.
    #[error("a name that is too long for SOCKS")]
    TooLong,
}

/// How far a handshake has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Send this (it may be nothing), then go on receiving.
    Send(Bytes),
    /// The tunnel is open; these bytes are the first that came through it.
    Open(Bytes),
}
