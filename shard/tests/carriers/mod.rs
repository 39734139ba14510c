//! A whole relay that is reached in every way, and clients that are told which one to take.

use client::*;
use shard::init::init;
use shard::server::Server;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A port that was free a moment ago, and that nobody else in this process was given.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address) {
            return address;
        }
    }
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}

/// A relay with two shards.
pub(crate) struct Relay {
    server: Option<Server>,
    pub(crate) identity: RelayIdentity,
    _directory: tempfile::TempDir,
}

impl Relay {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut tuning::Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = tuning::Config::new("grooveDNS://relay.example");
        let (tunnel, http) = (free_address(), free_address());
        config.listen.sstp = vec![free_address(), tunnel];
        config.listen.http = vec![http];
        config.http.poll_interval = Duration::from_secs(1);
        config.shards.count = 2;
        config.shards.pin = false;
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let mut identity = RelayIdentity::load(&made.identity).unwrap();
        // What would be port 443.
        identity.addresses.retain(|address| *address != tunnel.to_string());
        identity.fallback.tunnel = vec![tunnel.to_string()];
        let config = tuning::Config::load(&made.config).unwrap();
        Self { server: Some(Server::start(&config).unwrap()), identity, _directory: directory }
    }

    /// A registered client on this way.
    pub(crate) async fn member(&self, carrier: Carrier, proxies: Proxies) -> Member {
        self.member_of(self.identity.clone(), Some(carrier), proxies, None).await
    }

    pub(crate) async fn member_of(
        &self,
        identity: RelayIdentity,
        carrier: Option<Carrier>,
        proxies: Proxies,
        memory: Option<std::path::PathBuf>,
    ) -> Member {
        let profile = ClientProfile::generate(identity);
        let config = Config { carrier, proxies, memory, ..Config::new(profile.clone()) };
        let client = Client::connect(config.clone()).unwrap();
        let register = Register::new().identity(profile.identities[0].clone());
        in_time(client.register(register)).await.unwrap();
        in_time(client.ready()).await.unwrap();
        Member { client, config }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
    }
}

/// A client.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) config: Config,
}

impl Member {
    pub(crate) async fn send(&self, to: &Member, body: Vec<u8>) {
        let message = Message::to(to.config.profile.identities[0].clone()).body(body);
        in_time(in_time(self.client.send(message)).await.unwrap()).await.unwrap();
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut received = in_time(self.client.incoming().recv()).await.unwrap();
        let body = in_time(received.bytes(100 << 20)).await.unwrap().to_vec();
        received.acknowledge();
        body
    }
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Bodies of these lengths pass in both directions between a member on this way and one that is connected straight.
pub(crate) async fn talk(relay: &Relay, member: &Member, lengths: &[usize]) {
    let straight = relay.member(Carrier::Direct, Proxies::default()).await;
    for &length in lengths {
        straight.send(member, pattern(length)).await;
        assert!(member.receive().await == pattern(length), "{length} down");
        member.send(&straight, pattern(length)).await;
        assert!(straight.receive().await == pattern(length), "{length} up");
    }
    straight.client.close().await;
}
