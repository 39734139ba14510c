//! The library against a small relay over loopback TCP.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod relay;

use client::*;
use relay::TestRelay;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// A registered client and its identity.
async fn member(relay: &TestRelay) -> (Client, IdentityUrl, DeviceUrl) {
    let profile = relay.profile();
    let (identity, device) = (profile.identities[0].clone(), profile.device_url.clone());
    let mut config = Config::new(profile);
    config.limits.redelivery_delay = Duration::from_millis(50);
    let client = Client::connect(config).unwrap();
    client.register(Register::new().identity(identity.clone())).await.unwrap();
    (client, identity, device)
}

async fn next_body(incoming: &mut Incoming) -> Vec<u8> {
    let mut received = incoming.recv().await.unwrap();
    let body = received.bytes(100 << 20).await.unwrap().to_vec();
    received.acknowledge();
    body
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_fresh_client_is_told_to_register() {
    let relay = TestRelay::start().await;
    let client = Client::connect(Config::new(relay.profile())).unwrap();
    assert_eq!(client.ready().await, Err(NotReady::RegistrationNeeded));
    client.register(Register::new()).await.unwrap();
    assert_eq!(client.ready().await, Ok(()));
    assert_eq!(*client.state().borrow(), State::Ready { attached: true });
}

#[tokio::test]
async fn two_clients_exchange_bodies_of_every_length() {
    let relay = TestRelay::start().await;
    let ((alice, ..), (bob, to_bob, _)) = (member(&relay).await, member(&relay).await);
    let mut incoming = bob.incoming();
    for length in [0usize, 1, 2048, 2049, 1 << 20] {
        let delivery = alice.send(Message::to(to_bob.clone()).body(pattern(length))).await.unwrap();
        assert_eq!(delivery.await, Ok(Receipt::default()));
        assert!(next_body(&mut incoming).await == pattern(length), "{length}");
    }
    bob.close().await;
    assert_eq!(relay.stored(), 0, "close carried the last acknowledgement");
}

#[tokio::test]
async fn metadata_travels_with_the_message() {
    let relay = TestRelay::start().await;
    let (client, identity, device) = member(&relay).await;
    let resource = ResourceUrl::new("files").unwrap();
    let message = Message::to(identity.clone()).device(device.clone()).resource(resource);
    let message = message.user_ref("42").lifetime(Duration::from_secs(60)).body("to myself");
    client.send(message).await.unwrap().await.unwrap();
    let mut received = client.incoming().recv().await.unwrap();
    assert_eq!((received.resource(), received.user_ref()), ("files", "42"));
    assert_eq!((received.identity(), received.device()), (identity.as_str(), device.as_str()));
    assert_eq!(received.lifetime(), Some(Duration::from_secs(60)));
    let mut body = String::new();
    received.body().read_to_string(&mut body).await.unwrap();
    assert_eq!(body, "to myself");
}

#[tokio::test]
async fn a_file_is_sent_in_pieces() {
    let relay = TestRelay::start().await;
    let (client, identity, _) = member(&relay).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, pattern(3 << 20)).unwrap();
    client.send(Message::to(identity).body(Body::file(&path).unwrap())).await.unwrap().await.unwrap();
    assert!(next_body(&mut client.incoming()).await == pattern(3 << 20));
}

#[tokio::test]
async fn a_reader_that_pauses_gets_the_whole_body_in_the_end() {
    let relay = TestRelay::start().await;
    let profile = relay.profile();
    let identity = profile.identities[0].clone();
    let mut config = Config::new(profile);
    config.limits.unconsumed_bytes = 64 << 10;
    let client = Client::connect(config).unwrap();
    client.register(Register::new().identity(identity.clone())).await.unwrap();
    client.send(Message::to(identity).body(pattern(2 << 20))).await.unwrap().await.unwrap();
    let mut received = client.incoming().recv().await.unwrap();
    let first = received.body().chunk().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rest = received.bytes(2 << 20).await.unwrap();
    assert!([first, rest].concat() == pattern(2 << 20));
    received.acknowledge();
    client.close().await;
    assert_eq!(relay.stored(), 0);
}

#[tokio::test]
async fn several_recipients_get_one_message() {
    let relay = TestRelay::start().await;
    let ((alice, to_alice, _), (bob, to_bob, _)) = (member(&relay).await, member(&relay).await);
    let message = Message::to(to_alice).and_to(Recipient::identity(to_bob)).body("both");
    let receipt = alice.send(message).await.unwrap().await.unwrap();
    assert!(receipt.failed.is_empty());
    assert_eq!(next_body(&mut alice.incoming()).await, b"both");
    assert_eq!(next_body(&mut bob.incoming()).await, b"both");
}

#[tokio::test]
async fn an_unknown_identity_is_a_typed_error() {
    let relay = TestRelay::start().await;
    let (client, ..) = member(&relay).await;
    let delivery = client.send(Message::to(new_identity_url()).body("?")).await.unwrap();
    let refused = SendFailure::Refused(OpenResponseId::Unknown);
    assert_eq!(delivery.await, Err(SendError::Failed(refused)));
}

#[tokio::test]
async fn a_message_dropped_without_acknowledgement_comes_again() {
    let relay = TestRelay::start().await;
    let (client, identity, _) = member(&relay).await;
    client.send(Message::to(identity).body("again")).await.unwrap().await.unwrap();
    let mut incoming = client.incoming();
    drop(incoming.recv().await.unwrap());
    assert_eq!(next_body(&mut incoming).await, b"again");
    client.close().await;
    assert_eq!(relay.stored(), 0);
}

#[tokio::test]
async fn messages_survive_broken_connections_in_order() {
    let relay = TestRelay::start().await;
    let ((alice, ..), (bob, to_bob, _)) = (member(&relay).await, member(&relay).await);
    let mut incoming = bob.incoming();
    let mut deliveries = Vec::new();
    for number in 0..60u8 {
        deliveries.push(alice.send(Message::to(to_bob.clone()).body(vec![number])).await.unwrap());
        if number % 20 == 19 {
            relay.cut();
        }
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&59) {
        seen.push(next_body(&mut incoming).await[0]);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..60).collect::<Vec<_>>(), "at least once each");
}

#[tokio::test]
async fn the_queue_pushes_back_and_flush_waits_for_it() {
    let relay = TestRelay::start().await;
    let profile = relay.profile();
    let identity = profile.identities[0].clone();
    let mut config = Config::new(profile);
    config.limits.queued_messages = 4;
    config.limits.queued_bytes = 4096;
    let client = Client::connect(config).unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(client.send(Message::to(identity.clone()).body("x")).await.unwrap());
    }
    let fifth = client.send(Message::to(identity.clone()).body("x"));
    let blocked = tokio::time::timeout(Duration::from_millis(50), fifth).await;
    assert!(blocked.is_err(), "nothing is acknowledged before the registration");
    let too_long = client.clone();
    client.register(Register::new().identity(identity.clone())).await.unwrap();
    client.flush().await;
    for delivery in deliveries {
        assert_eq!(delivery.await, Ok(Receipt::default()));
    }
    let delivery = too_long.send(Message::to(identity).body(vec![0; 5000])).await.unwrap();
    assert_eq!(delivery.await, Err(SendError::NotQueued(QueueError::TooLong(5000))));
}

#[tokio::test]
async fn close_ends_everything() {
    let relay = TestRelay::start().await;
    let client = Client::connect(Config::new(relay.profile())).unwrap();
    let identity = new_identity_url();
    let delivery = client.send(Message::to(identity.clone())).await.unwrap();
    let mut incoming = client.incoming();
    client.close().await;
    assert_eq!(delivery.await, Err(SendError::Failed(SendFailure::ClientClosed)));
    assert!(incoming.recv().await.is_none());
    assert_eq!(client.ready().await, Err(NotReady::Closed));
    let late = client.send(Message::to(identity)).await.unwrap_err();
    assert_eq!(late, SendError::NotQueued(QueueError::Closed));
    client.close().await;
}

#[tokio::test]
async fn the_last_handle_takes_the_client_with_it() {
    let relay = TestRelay::start().await;
    let (client, ..) = member(&relay).await;
    let mut state = client.state();
    drop(client);
    state.wait_for(|state| *state == State::Closed).await.unwrap();
}
