//! Which way to the relay is tried next: down the order of preference until one works, and that one again from then on.
//!
//! A way works once the relay has said something on it that SSTP understands. A connection that opens and then carries nothing,
//! as behind a proxy that looks for TLS in tunnels, is doubted, and the next attempt begins behind it.

use super::http_pipe::HttpPipe;
use super::memory::Memory;
use super::proxies::{Proxies, split};
use super::stream::{Stream, Through};
use super::{Carrier, Pipe};
use crate::clock::Clock;
use crate::relay_identity::RelayIdentity;
use relay_core::client::Disconnected;
use relay_core::http::client::HttpClientConfig;
use relay_core::http::profile::TUNNEL_PORT;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long one address may take to answer, straight or through a tunnel.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// The same inside HTTP, where a handshake takes several connections.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long on a lesser way the next loss of the connection is a reason to try the better ones again.
const BETTER_AGAIN: Duration = Duration::from_secs(3600);

/// What a client knows of its ways.
#[derive(Debug)]
pub(crate) struct Ladder {
    ways: Ways,
    memory: Memory,
    /// Where the next attempt begins.
    first: usize,
    /// The one that is in use, and whether it has been seen to work.
    current: Option<(usize, bool)>,
    found: Instant,
}

/// The ways that there are, the best first.
#[derive(Clone, Debug)]
struct Ways {
    relay: RelayIdentity,
    proxies: Proxies,
    carriers: Vec<Carrier>,
    clock: Clock,
}

impl Ladder {
    /// All ways that this relay and these proxies offer, or the one that is forced; from the one that is remembered on.
    pub(crate) fn new(
        relay: RelayIdentity,
        proxies: Proxies,
        forced: Option<Carrier>,
        memory: Memory,
        clock: Clock,
    ) -> Self {
        let mut ways = Ways { relay, proxies, carriers: Vec::new(), clock };
        let offered = |carrier: &Carrier| match forced {
            Some(forced) => forced == *carrier,
            None => ways.offers(*carrier),
        };
        let carriers: Vec<_> = Carrier::ALL.into_iter().filter(offered).collect();
        ways.carriers = carriers;
        let remembered = memory.recall();
        let first = ways.carriers.iter().position(|carrier| Some(*carrier) == remembered).unwrap_or(0);
        Self { ways, memory, first, current: None, found: Instant::now() }
    }

    /// Tries one way after the other, from where the last attempt left off; gives the first that opens.
    pub(crate) fn dial(&mut self) -> impl Future<Output = io::Result<(Pipe, Carrier)>> + Send + use<> {
        if self.found.elapsed() >= BETTER_AGAIN {
            (self.first, self.found) = (0, Instant::now());
        }
        self.current = None;
        let (ways, first) = (self.ways.clone(), self.first);
        async move {
            let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no way to the relay is known");
            let (before, from) = ways.carriers.split_at(first.min(ways.carriers.len()));
            for &carrier in from.iter().chain(before) {
                match ways.open(carrier).await {
                    Ok(pipe) => return Ok((pipe, carrier)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }

    /// A way is open.
    pub(crate) fn opened(&mut self, carrier: Carrier) {
        let place = self.ways.carriers.iter().position(|known| *known == carrier);
        self.current = place.map(|place| (place, false));
    }

    /// The relay has answered.
    pub(crate) fn works(&mut self) {
        let Some((place, seen @ false)) = &mut self.current else { return };
        *seen = true;
        let (place, carrier) = (*place, self.ways.carriers[*place]);
        tracing::info!(%carrier, "the relay answers");
        if self.first != place {
            (self.first, self.found) = (place, Instant::now());
        }
        self.memory.keep(carrier);
    }

    /// The connection has ended.
    pub(crate) fn ended(&mut self, cause: Disconnected) {
        match cause {
            Disconnected::Refused(_)
            | Disconnected::ClosedByRelay(_)
            | Disconnected::DeviceRefused
            | Disconnected::NoProof
            | Disconnected::Renewing => self.works(),
            _ => {
                if let Some((place, false)) = self.current {
                    tracing::debug!(carrier = %self.ways.carriers[place], %cause, "this way is doubted");
                    self.first = (place + 1) % self.ways.carriers.len();
                }
            }
        }
        self.current = None;
    }
}

impl Ways {
    fn offers(&self, carrier: Carrier) -> bool {
        let tls = self.relay.tls.is_some();
        match carrier {
            Carrier::Direct => true,
            Carrier::Tunnel => !tls && !self.relay.fallback.tunnel.is_empty(),
            Carrier::Connect => self.proxies.connect.is_some(),
            Carrier::Socks => self.proxies.socks.is_some(),
            Carrier::LongLived | Carrier::KeepAlive | Carrier::Polling => {
                !tls && !self.relay.fallback.http.is_empty()
            }
        }
    }

    /// Where the relay is reached on this way.
    fn addresses(&self, carrier: Carrier) -> Vec<String> {
        let (relay, fallback) = (&self.relay, &self.relay.fallback);
        match (carrier, &relay.tls) {
            (Carrier::LongLived | Carrier::KeepAlive | Carrier::Polling, _) => fallback.http.clone(),
            (_, Some(tls)) => tls.addresses.clone(),
            (Carrier::Tunnel, None) => fallback.tunnel.clone(),
            // Most proxies open tunnels to port 443 only.
            (Carrier::Connect, None) => {
                let is_tunnel = |address: &&String| split(address).1 == Some(&TUNNEL_PORT.to_string());
                let (likely, other): (Vec<&String>, Vec<&String>) =
                    relay.addresses.iter().partition(is_tunnel);
                fallback.tunnel.iter().chain(likely).chain(other).cloned().collect()
            }
            (Carrier::Direct | Carrier::Socks, None) => relay.addresses.clone(),
        }
    }

    async fn open(&self, carrier: Carrier) -> io::Result<Pipe> {
        let nothing = "this way needs an address of the relay, or a proxy, that is not known";
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, nothing);
        for address in self.addresses(carrier) {
            let (host, _) = split(&address);
            let spared = self.proxies.spares(host);
            let opened = match carrier.encapsulation() {
                Some(encapsulation) => {
                    let proxy = self.proxies.http.as_ref().filter(|_| !spared);
                    let dial = proxy.map_or(address.clone(), |proxy| proxy.address.clone());
                    let proxy = proxy.map(|proxy| proxy.credentials.clone());
                    let config = HttpClientConfig { encapsulation, authority: address.clone(), proxy };
                    timeout(HTTP_TIMEOUT, HttpPipe::open(config, dial, self.clock))
                        .await
                        .map(|opened| opened.map(|pipe| Pipe::Http(Box::new(pipe))))
                }
                None => {
                    let Some(through) = self.through(carrier, spared) else { continue };
                    let dialled = Stream::dial(&address, through, self.relay.tls.as_ref());
                    timeout(STREAM_TIMEOUT, dialled).await.map(|opened| opened.map(Pipe::Stream))
                }
            };
            match opened {
                Ok(Ok(pipe)) => {
                    tracing::debug!(%carrier, address, "connected");
                    return Ok(pipe);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(%carrier, address, error = %last, "cannot connect");
        }
        Err(last)
    }

    /// The tunnel of a carrier; `None` if it needs a proxy and there is none for this host.
    fn through(&self, carrier: Carrier, spared: bool) -> Option<Through<'_>> {
        match carrier {
            Carrier::Connect => self.proxies.connect.as_ref().filter(|_| !spared).map(Through::Connect),
            Carrier::Socks => self.proxies.socks.as_ref().filter(|_| !spared).map(Through::Socks),
            _ => Some(Through::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_identity::Fallback;
    use relay_core::address::DeviceUrl;
    use relay_core::security::RelayKeys;
    use relay_core::sstp::ConnectResponseId;

    fn relay() -> RelayIdentity {
        RelayIdentity {
            relay_url: DeviceUrl::new("grooveDNS://relay.example").unwrap(),
            addresses: vec!["relay.example:2492".into(), "relay.example:443".into()],
            public_keys: RelayKeys::generate(&mut crate::SystemEntropy::default()).public().clone(),
            tls: None,
            fallback: Fallback {
                tunnel: vec!["relay.example:443".into()],
                http: vec!["relay.example:80".into()],
            },
        }
    }

    fn proxies() -> Proxies {
        Proxies::configured(Some("web:1"), Some("tunnel:2"), Some("socks:3"), &[]).unwrap()
    }

    fn ladder(relay: RelayIdentity, proxies: Proxies, forced: Option<Carrier>) -> Ladder {
        Ladder::new(relay, proxies, forced, Memory(None), Clock::start())
    }

    #[test]
    fn section_1_the_order_of_preference_has_what_relay_and_proxies_offer() {
        assert_eq!(ladder(relay(), proxies(), None).ways.carriers, Carrier::ALL);
        let plain = RelayIdentity { fallback: Fallback::default(), ..relay() };
        assert_eq!(ladder(plain.clone(), Proxies::default(), None).ways.carriers, [Carrier::Direct]);
        assert_eq!(
            ladder(plain, proxies(), None).ways.carriers,
            [Carrier::Direct, Carrier::Connect, Carrier::Socks]
        );
        assert_eq!(
            ladder(relay(), Proxies::default(), Some(Carrier::Polling)).ways.carriers,
            [Carrier::Polling]
        );
    }

    #[test]
    fn a_tunnel_by_connect_goes_to_port_443_first() {
        let bare = RelayIdentity { fallback: Fallback::default(), ..relay() };
        let ladder = ladder(bare, proxies(), None);
        assert_eq!(ladder.ways.addresses(Carrier::Connect), ["relay.example:443", "relay.example:2492"]);
        assert_eq!(ladder.ways.addresses(Carrier::Socks), ["relay.example:2492", "relay.example:443"]);
    }

    #[test]
    fn a_way_that_carries_nothing_is_doubted_and_one_that_answered_is_kept() {
        let mut ladder = ladder(relay(), proxies(), None);
        ladder.opened(Carrier::Connect);
        ladder.ended(Disconnected::Silent);
        assert_eq!(ladder.ways.carriers[ladder.first], Carrier::Socks);
        ladder.opened(Carrier::KeepAlive);
        ladder.works();
        ladder.ended(Disconnected::TransportLost);
        assert_eq!(ladder.ways.carriers[ladder.first], Carrier::KeepAlive);
        ladder.opened(Carrier::Polling);
        ladder.ended(Disconnected::Refused(ConnectResponseId::TryLater));
        assert_eq!(ladder.ways.carriers[ladder.first], Carrier::Polling, "a refusal is an answer");
        ladder.opened(Carrier::Polling);
        ladder.ended(Disconnected::TransportLost);
        assert_eq!(ladder.first, 0, "behind the last comes the first");
    }

    #[test]
    fn the_way_that_worked_is_remembered_across_processes() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory(Some(directory.path().to_owned()));
        let new = || Ladder::new(relay(), proxies(), None, memory.clone(), Clock::start());
        let mut first = new();
        first.opened(Carrier::LongLived);
        first.works();
        let second = new();
        assert_eq!(second.ways.carriers[second.first], Carrier::LongLived);
    }
}
