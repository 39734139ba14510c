//! Presence through the binary and real sockets: clients of one relay and of two, a relay that goes and comes back, and one
//! that has no presence.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use client::{
    Client, ClientProfile, Config as ClientConfig, DeviceUrl, OpenResponseId, Register, RelayIdentity,
    Status, StatusWatch,
};
use shard::init::init;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tuning::Config;

const PATIENCE: Duration = Duration::from_secs(30);

struct Relay {
    directory: TempDir,
    process: Child,
    identity: RelayIdentity,
}

impl Relay {
    fn start(host: &str, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(format!("grooveDNS://{host}"));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        config.listen.sstp = vec![free];
        config.shards.count = 2;
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.log.level = tuning::LogLevel::Warn;
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        let process = spawn(&directory);
        Self { directory, process, identity }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = spawn(&self.directory);
    }
}

fn spawn(directory: &TempDir) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
    command.args(["run", "--config"]).arg(directory.path().join("furrow.toml")).stdin(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}

/// A registered client and its device.
async fn member(relay: &Relay) -> (Client, DeviceUrl, ClientProfile) {
    let profile = ClientProfile::generate(relay.identity.clone());
    let client = Client::connect(ClientConfig::new(profile.clone())).unwrap();
    in_time(client.register(Register::new().identity(profile.identities[0].clone()))).await.unwrap();
    (client, profile.device_url.clone(), profile)
}

/// Waits until a device is shown with this status, whatever comes between.
async fn shows(watch: &mut StatusWatch, device: &DeviceUrl, status: Status) {
    in_time(async {
        while !watch.statuses().contains(&(device.clone(), status)) {
            watch.changed().await.expect("somebody can tell");
        }
    })
    .await;
}

#[tokio::test]
async fn two_clients_see_each_other_come_and_go() {
    let relay = Relay::start("one.localhost", |_| {});
    let (alice, device_of_alice, _) = member(&relay).await;
    let (bob, device_of_bob, profile_of_bob) = member(&relay).await;
    let mut seen_by_alice = alice.watch([device_of_bob.clone()]);
    let mut seen_by_bob = bob.watch([device_of_alice.clone(), device_of_bob.clone()]);
    shows(&mut seen_by_alice, &device_of_bob, Status::Offline).await;
    alice.publish(Status::Online);
    shows(&mut seen_by_bob, &device_of_alice, Status::Online).await;
    bob.publish(Status::Away);
    shows(&mut seen_by_alice, &device_of_bob, Status::Away).await;
    shows(&mut seen_by_bob, &device_of_bob, Status::Away).await;
    bob.close().await;
    shows(&mut seen_by_alice, &device_of_bob, Status::Offline).await;
    let bob = Client::connect(ClientConfig::new(profile_of_bob)).unwrap();
    bob.publish(Status::Online);
    shows(&mut seen_by_alice, &device_of_bob, Status::Online).await;
}

#[tokio::test]
async fn a_relay_that_cannot_be_reached_makes_its_devices_unknown_and_they_come_back_by_themselves() {
    let mut relay = Relay::start("one.localhost", |_| {});
    let (alice, device_of_alice, _) = member(&relay).await;
    let (bob, ..) = member(&relay).await;
    alice.publish(Status::Online);
    let mut watch = bob.watch([device_of_alice.clone()]);
    shows(&mut watch, &device_of_alice, Status::Online).await;
    relay.kill();
    shows(&mut watch, &device_of_alice, Status::Unknown).await;
    relay.restart();
    shows(&mut watch, &device_of_alice, Status::Online).await;
}

#[tokio::test]
async fn one_watch_shows_devices_of_several_relays() {
    let mut relays = [Relay::start("one.localhost", |_| {}), Relay::start("two.localhost", |_| {})];
    let (here, ..) = member(&relays[0]).await;
    let (there, ..) = member(&relays[1]).await;
    let (alice, device_of_alice, _) = member(&relays[0]).await;
    let (bob, device_of_bob, _) = member(&relays[1]).await;
    assert!(relays[0].identity.serves(&device_of_alice) && !relays[0].identity.serves(&device_of_bob));
    alice.publish(Status::Online);
    bob.publish(Status::Away);
    let mut watch = StatusWatch::new();
    watch.add(&here, [device_of_alice.clone()]);
    watch.add(&there, [device_of_bob.clone()]);
    shows(&mut watch, &device_of_alice, Status::Online).await;
    shows(&mut watch, &device_of_bob, Status::Away).await;
    relays[1].kill();
    shows(&mut watch, &device_of_bob, Status::Unknown).await;
    assert!(watch.statuses().contains(&(device_of_alice.clone(), Status::Online)), "the other one is there");
    watch.remove(&device_of_bob);
    assert_eq!(watch.statuses().len(), 1);
    here.close().await;
    shows(&mut watch, &device_of_alice, Status::Unknown).await;
    // Nobody can tell any more: the stream ends behind the last change.
    in_time(async { while watch.changed().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_relay_without_presence_says_so_and_everything_else_works() {
    let relay = Relay::start("one.localhost", |config| config.presence.enabled = false);
    let (alice, device, profile) = member(&relay).await;
    let watch = alice.watch([device.clone()]);
    let mut refused = alice.presence_refused();
    let response = *in_time(refused.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(response, Some(OpenResponseId::NoResource));
    assert_eq!(watch.statuses(), [(device, Status::Unknown)]);
    let message = client::Message::to(profile.identities[0].clone()).body("mail");
    in_time(in_time(alice.send(message)).await.unwrap()).await.unwrap();
}
