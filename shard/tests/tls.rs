//! A whole relay that listens for TLS, and the client library.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use client::*;
use shard::init::init;
use shard::server::{Server, ServerError};
use shard::tls::CertificateError;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Writes a new self-signed certificate and its key, and gives the certificate in PEM form.
fn certify(directory: &Path, mode: u32) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()]).unwrap();
    let key = directory.join("tls.key");
    std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    made.cert.pem()
}

struct Relay {
    server: Option<Server>,
    config: tuning::Config,
    identity: RelayIdentity,
    tls: SocketAddr,
    directory: tempfile::TempDir,
}

impl Relay {
    fn prepare(key_mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = tuning::Config::new("grooveDNS://relay.example");
        config.listen.sstp = vec![free_address()];
        let tls = free_address();
        config.listen.tls = vec![tls];
        config.shards.count = 2;
        config.shards.pin = false;
        let made = init(directory.path(), &config).unwrap();
        let trusted = certify(directory.path(), key_mode);
        let mut identity = RelayIdentity::load(&made.identity).unwrap();
        let (addresses, server_name) = (vec![tls.to_string()], "relay.example".into());
        identity.tls = Some(RelayTls { addresses, server_name, trusted });
        let config = tuning::Config::load(&made.config).unwrap();
        Self { server: None, config, identity, tls, directory }
    }

    fn start() -> Self {
        let mut relay = Self::prepare(0o600);
        relay.server = Some(Server::start(&relay.config).unwrap());
        relay
    }

    fn client(&self, change: impl FnOnce(&mut RelayTls)) -> (Client, ClientProfile) {
        let mut identity = self.identity.clone();
        change(identity.tls.as_mut().unwrap());
        let profile = ClientProfile::generate(identity);
        (Client::connect(Config::new(profile.clone())).unwrap(), profile)
    }

    async fn member(&self) -> (Client, ClientProfile) {
        let (client, profile) = self.client(|_| {});
        let register = Register::new().identity(profile.identities[0].clone());
        in_time(client.register(register)).await.unwrap();
        in_time(client.ready()).await.unwrap();
        (client, profile)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Whether the client comes as far as the relay's answer to its Connect.
async fn gets_through(client: &Client) -> bool {
    let mut state = client.state();
    let known = |state: &State| !matches!(state, State::Connecting);
    let state = *in_time(state.wait_for(known)).await.unwrap();
    matches!(state, State::RegistrationNeeded | State::Ready { .. })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_every_length_passes_through_tls_whichever_shard_is_home() {
    let relay = Relay::start();
    // Half of the accounts live on the other shard than the one that accepts: with eight, both ways are gone.
    let mut members = Vec::new();
    for _ in 0..8 {
        members.push(relay.member().await);
    }
    for pair in members.windows(2) {
        let ((from, _), (to, profile)) = (&pair[0], &pair[1]);
        for length in [0usize, 1, 2048, 16_385, 100_000] {
            let message = Message::to(profile.identities[0].clone()).body(pattern(length));
            in_time(in_time(from.send(message)).await.unwrap()).await.unwrap();
            let mut received = in_time(to.incoming().recv()).await.unwrap();
            assert!(in_time(received.bytes(1 << 20)).await.unwrap() == pattern(length), "{length}");
            received.acknowledge();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_every_buffer_passes_to_a_reader_that_pauses() {
    let relay = Relay::start();
    let ((alice, _), (bob, profile)) = (relay.member().await, relay.member().await);
    let message = Message::to(profile.identities[0].clone()).body(pattern(12 << 20));
    let delivery = in_time(alice.send(message)).await.unwrap();
    let mut received = in_time(bob.incoming().recv()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(in_time(received.bytes(13 << 20)).await.unwrap() == pattern(12 << 20));
    received.acknowledge();
    in_time(delivery).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_trusts_only_the_certificate_and_the_name_of_its_relay_identity() {
    let relay = Relay::start();
    let other = tempfile::tempdir().unwrap();
    let (stranger, _) = relay.client(|tls| tls.trusted = certify(other.path(), 0o600));
    assert!(!gets_through(&stranger).await);
    let (misnamed, _) = relay.client(|tls| tls.server_name = "other.example".into());
    assert!(!gets_through(&misnamed).await);
    let (right, _) = relay.client(|_| {});
    assert!(gets_through(&right).await);
}

/// Nobody types a key, a name or a fingerprint: `relayd init`, `relayd run`, `sstp init --relay FILE`, `sstp register`.
#[tokio::test(flavor = "multi_thread")]
async fn what_init_makes_is_all_that_a_relay_and_its_clients_need_for_tls() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = tuning::Config::new("grooveDNS://relay.example");
    config.listen.sstp = vec![free_address()];
    config.listen.tls = vec![free_address()];
    config.shards.count = 1;
    config.shards.pin = false;
    let made = init(directory.path(), &config).unwrap();
    let server = Some(Server::start(&tuning::Config::load(&made.config).unwrap()).unwrap());
    let identity = RelayIdentity::load(&made.identity).unwrap();
    assert_eq!(identity.fingerprint(), made.fingerprint);
    assert_eq!(identity.tls.as_ref().unwrap().addresses, [config.listen.tls[0].to_string()]);
    let tls = config.listen.tls[0];
    let relay = Relay { server, config, identity, tls, directory };
    relay.member().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_the_relay_serves() {
    let relay = Relay::start();
    let (old, profile) = relay.member().await;
    let trusted = certify(relay.directory.path(), 0o600);
    let server = relay.server.as_ref().unwrap();
    server.reload().unwrap();
    let (renewed, _) = relay.client(|tls| tls.trusted = trusted.clone());
    assert!(gets_through(&renewed).await);
    let (outdated, _) = relay.client(|_| {});
    assert!(!gets_through(&outdated).await);
    let to_self = Message::to(profile.identities[0].clone()).body("still here");
    in_time(in_time(old.send(to_self)).await.unwrap()).await.unwrap();

    std::fs::write(relay.directory.path().join("tls.crt"), "no certificate").unwrap();
    assert!(matches!(server.reload(), Err(ServerError::Certificate(_))));
    let (another, _) = relay.client(|tls| tls.trusted = trusted);
    assert!(gets_through(&another).await, "a wrong file changes nothing");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let relay = Relay::prepare(0o640);
    let refused = Server::check(&relay.config);
    let Err(ServerError::Certificate(CertificateError::Mode { mode: 0o640, .. })) = refused else {
        panic!("{refused:?}")
    };
}

#[test]
fn what_is_not_tls_is_refused_on_its_port() {
    use std::io::Write;
    let relay = Relay::start();
    let mut stream = TcpStream::connect(relay.tls).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // A reset behind the alert is as good as an end.
    let _ = stream.read_to_end(&mut said);
    assert_eq!(said.first(), Some(&0x15), "an alert");
}
