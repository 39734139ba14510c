//! The ways to a relay, in the order of preference: straight, through proxies, inside HTTP (http-encapsulation 1).
//!
//! * `ladder`: which way is tried next, and which one is remembered;
//! * `proxies`: the settings of proxies;
//! * `stream`: one TCP connection, perhaps with TLS, perhaps through a tunnel of a proxy;
//! * `http_pipe`: a virtual connection made of HTTP requests.

mod http_pipe;
pub(crate) mod ladder;
mod memory;
mod proxies;
mod stream;

pub(crate) use memory::Memory;
pub(crate) use proxies::ProxySettings;
pub use proxies::{Proxies, Proxy, ProxyUrlError};

use bytes::Bytes;
use http_pipe::HttpPipe;
use relay_core::http::Encapsulation;
use relay_core::sstp::output::OutputQueue;
use std::fmt;
use std::io;
use std::str::FromStr;
use stream::Stream;

/// A way to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A TCP connection to the relay's usual port, 2492.
    Direct,
    /// The same to port 443 (Secure Tunnel).
    Tunnel,
    /// A tunnel through an HTTP proxy, by CONNECT (Secure Tunnel).
    Connect,
    /// A tunnel through a SOCKS 5 proxy.
    Socks,
    /// Inside HTTP: one endless GET and one endless POST.
    LongLived,
    /// Inside HTTP: many requests on two connections.
    KeepAlive,
    /// Inside HTTP: a connection for each request.
    Polling,
}

impl Carrier {
    /// All of them, the best first.
    pub const ALL: [Carrier; 7] = [
        Carrier::Direct,
        Carrier::Tunnel,
        Carrier::Connect,
        Carrier::Socks,
        Carrier::LongLived,
        Carrier::KeepAlive,
        Carrier::Polling,
    ];

    /// Its name, as [`FromStr`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Carrier::Direct => "direct",
            Carrier::Tunnel => "tunnel",
            Carrier::Connect => "connect",
            Carrier::Socks => "socks",
            Carrier::LongLived => "long-lived",
            Carrier::KeepAlive => "keep-alive",
            Carrier::Polling => "polling",
        }
    }

    fn encapsulation(self) -> Option<Encapsulation> {
        match self {
            Carrier::LongLived => Some(Encapsulation::LongLived),
            Carrier::KeepAlive => Some(Encapsulation::KeepAlive),
            Carrier::Polling => Some(Encapsulation::Polling),
            Carrier::Direct | Carrier::Tunnel | Carrier::Connect | Carrier::Socks => None,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no carrier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no carrier; the carriers are direct, tunnel, connect, socks, long-lived, keep-alive and polling"
)]
pub struct UnknownCarrier(String);

impl FromStr for Carrier {
    type Err = UnknownCarrier;

    fn from_str(name: &str) -> Result<Self, UnknownCarrier> {
        let found = Carrier::ALL.into_iter().find(|carrier| carrier.name() == name);
        found.ok_or_else(|| UnknownCarrier(name.to_owned()))
    }
}

/// A byte pipe to the relay, whatever carries it.
#[derive(Debug)]
pub(crate) enum Pipe {
    Stream(Stream),
    Http(Box<HttpPipe>),
}

impl Pipe {
    /// Waits until it can be read (if wanted) or written (if wanted).
    pub(crate) async fn ready(&mut self, read: bool, write: bool) -> io::Result<()> {
        match self {
            Pipe::Stream(stream) => stream.ready(read, write).await,
            Pipe::Http(pipe) => pipe.ready(read, write).await,
        }
    }

    /// What has arrived; `None` if nothing has.
    ///
    /// # Errors
    /// The pipe is broken or closed, and everything that came has been read.
    pub(crate) fn read(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Pipe::Stream(stream) => stream.read(),
            Pipe::Http(pipe) => pipe.read(),
        }
    }

    /// Sends as much as goes without waiting; whether anything went.
    pub(crate) fn write(&mut self, output: &mut OutputQueue) -> io::Result<bool> {
        match self {
            Pipe::Stream(stream) => stream.write(output),
            Pipe::Http(pipe) => pipe.write(output),
        }
    }

    /// Sends the last words and waits a little for the relay to have read them.
    pub(crate) async fn hang_up(self, last_words: Bytes) {
        match self {
            Pipe::Stream(stream) => stream.hang_up(last_words).await,
            Pipe::Http(pipe) => pipe.hang_up(last_words).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_carrier_is_named_and_no_other() {
        for carrier in Carrier::ALL {
            assert_eq!(carrier.name().parse(), Ok(carrier));
        }
        assert!("pigeon".parse::<Carrier>().is_err());
    }
}
