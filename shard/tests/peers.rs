//! Two relays that know each other, as two processes on loopback: single-hop fanout through real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod running;

use client::{CloseReason, Message, Receipt, SecurityProfile, SendError, SendFailure, StatusId};
use running::{Person, Relay, at, neighbours};
use std::time::Duration;

fn relays(lists: [bool; 2]) -> [Relay; 2] {
    // Small, so that what it bounds happens.
    neighbours(lists, |_, config| config.limits.connection_in_flight_bytes = 64 << 10)
}

fn both_run() -> [Relay; 2] {
    let mut relays = relays([true, true]);
    relays.iter_mut().for_each(Relay::run);
    relays
}

async fn send_until_it_passes(sender: &Person, message: Message) -> Receipt {
    for _ in 0..100 {
        match sender.send(message.clone()).await {
            Ok(receipt) if receipt.failed.is_empty() => return receipt,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("no message passes");
}

#[tokio::test]
async fn users_of_two_relays_exchange_mail_both_ways_online_and_offline() {
    let [one, two] = both_run();
    let alice = Person::register(&one, SecurityProfile::Modern).await;
    let mut bob = Person::register(&two, SecurityProfile::Legacy).await;
    for number in 0..50u8 {
        let message = Message::to_recipient(at(&bob)).body(vec![number; usize::from(number)]);
        assert_eq!(alice.send(message).await.unwrap(), Receipt::default());
        assert_eq!(bob.receive().await, vec![number; usize::from(number)]);
        bob.send(Message::to_recipient(at(&alice)).body(vec![number])).await.unwrap();
        assert_eq!(alice.receive().await, [number]);
    }
    bob.client.close().await;
    alice.send(Message::to_recipient(at(&bob)).body("later")).await.unwrap();
    bob.return_home();
    assert_eq!(bob.receive().await, b"later");
}

#[tokio::test]
async fn one_message_goes_to_recipients_at_both_relays() {
    let [mut one, mut two] = both_run();
    let alice = Person::register(&one, SecurityProfile::Modern).await;
    let near = Person::register(&one, SecurityProfile::Modern).await;
    let far = [
        Person::register(&two, SecurityProfile::Modern).await,
        Person::register(&two, SecurityProfile::Modern).await,
    ];
    let message = Message::to_recipient(at(&far[0])).and_to(at(&near)).and_to(at(&far[1])).body("to all");
    assert_eq!(alice.send(message).await.unwrap(), Receipt::default());
    for person in [&near, &far[0], &far[1]] {
        assert_eq!(person.receive().await, b"to all");
        person.client.close().await;
    }
    alice.client.close().await;
    assert!(one.terminate().await.success() && two.terminate().await.success());
}

#[tokio::test]
async fn a_body_longer_than_memory_for_a_connection_passes_both_relays() {
    let [one, two] = both_run();
    let alice = Person::register(&one, SecurityProfile::Modern).await;
    let bob = Person::register(&two, SecurityProfile::Modern).await;
    let body: Vec<u8> = (0..9_000_001u32).map(|n| (n >> 3) as u8).collect();
    alice.send(Message::to_recipient(at(&bob)).body(body.clone())).await.unwrap();
    assert!(bob.receive().await == body);
}

#[tokio::test]
async fn mail_for_a_relay_that_is_down_is_refused_by_name_and_passes_once_it_is_up() {
    let [one, mut two] = both_run();
    let alice = Person::register(&one, SecurityProfile::Modern).await;
    let near = Person::register(&one, SecurityProfile::Modern).await;
    let far = Person::register(&two, SecurityProfile::Modern).await;
    two.kill();
    let both = Message::to_recipient(at(&near)).and_to(at(&far)).body("both");
    let receipt = alice.send(both.clone()).await.unwrap();
    assert_eq!(receipt.failed, [(1, StatusId::HostNotReachable)]);
    assert_eq!(near.receive().await, b"both");
    let refused = alice.send(Message::to_recipient(at(&far)).body("far")).await.unwrap_err();
    let empty = SendFailure::Closed(CloseReason::EmptySession);
    assert_eq!(refused, SendError::Failed(empty));
    two.run();
    send_until_it_passes(&alice, Message::to_recipient(at(&far)).body("again")).await;
    assert_eq!(far.receive().await, b"again");
}

#[tokio::test]
async fn what_a_killed_relay_had_not_acknowledged_is_not_acknowledged_to_the_sender() {
    let [one, mut two] = both_run();
    let alice = Person::register(&one, SecurityProfile::Modern).await;
    let mut bob = Person::register(&two, SecurityProfile::Modern).await;
    bob.client.close().await;
    let mut acknowledged = Vec::new();
    for number in 0..40u32 {
        if number == 20 {
            two.kill();
        }
        if number == 25 {
            two.run();
        }
        let body = number.to_le_bytes().repeat(5000);
        if alice.send(Message::to_recipient(at(&bob)).body(body)).await.is_ok() {
            acknowledged.push(number);
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(acknowledged.len() >= 20, "{acknowledged:?}");
    bob.return_home();
    let mut missing = acknowledged;
    while !missing.is_empty() {
        let body = bob.receive().await;
        let number = u32::from_le_bytes(body[..4].try_into().unwrap());
        assert_eq!(body, number.to_le_bytes().repeat(5000));
        missing.retain(|wanted| *wanted != number);
    }
}

#[tokio::test]
async fn a_relay_that_the_other_one_does_not_list_is_refused() {
    let mut pair = relays([true, false]);
    pair.iter_mut().for_each(Relay::run);
    let alice = Person::register(&pair[0], SecurityProfile::Modern).await;
    let near = Person::register(&pair[0], SecurityProfile::Modern).await;
    let far = Person::register(&pair[1], SecurityProfile::Modern).await;
    let both = Message::to_recipient(at(&near)).and_to(at(&far)).body("both");
    assert_eq!(alice.send(both).await.unwrap().failed, [(1, StatusId::HostNotReachable)]);
    let refused = far.send(Message::to_recipient(at(&near))).await.unwrap_err();
    assert!(
        matches!(refused, SendError::Failed(SendFailure::Refused(_))),
        "it knows no other relay: {refused:?}"
    );
}
