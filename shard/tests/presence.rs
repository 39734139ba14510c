//! Presence through the binary and real sockets: clients of one relay and of two, a relay that goes and comes back, and one
//! that has no presence.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod running;

use client::{
    Client, ClientProfile, Config as ClientConfig, DeviceUrl, OpenResponseId, Register, Status, StatusWatch,
};
use running::{Relay, in_time};
use tuning::Config;

fn start(host: &str, change: impl FnOnce(&mut Config)) -> Relay {
    let mut relay = Relay::prepare(&format!("grooveDNS://{host}"), tempfile::tempdir().unwrap(), change);
    relay.run();
    relay
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
    let relay = start("one.localhost", |_| {});
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
    let mut relay = start("one.localhost", |_| {});
    let (alice, device_of_alice, _) = member(&relay).await;
    let (bob, ..) = member(&relay).await;
    alice.publish(Status::Online);
    let mut watch = bob.watch([device_of_alice.clone()]);
    shows(&mut watch, &device_of_alice, Status::Online).await;
    relay.kill();
    shows(&mut watch, &device_of_alice, Status::Unknown).await;
    relay.run();
    shows(&mut watch, &device_of_alice, Status::Online).await;
}

#[tokio::test]
async fn one_watch_shows_devices_of_several_relays() {
    let mut relays = [start("one.localhost", |_| {}), start("two.localhost", |_| {})];
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
    let relay = start("one.localhost", |config| config.presence.enabled = false);
    let (alice, device, profile) = member(&relay).await;
    let watch = alice.watch([device.clone()]);
    let mut refused = alice.presence_refused();
    let response = *in_time(refused.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(response, Some(OpenResponseId::NoResource));
    assert_eq!(watch.statuses(), [(device, Status::Unknown)]);
    let message = client::Message::to(profile.identities[0].clone()).body("mail");
    in_time(in_time(alice.send(message)).await.unwrap()).await.unwrap();
}
