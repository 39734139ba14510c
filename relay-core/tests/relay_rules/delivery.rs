//! Getting mail: sessions that the relay opens, what is sent again, and what cannot be sent (sstp-behaviour 7.3, 9.4).

use crate::bench::Bench;
use relay_core::relay::Action;
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::sstp::{CloseReason, OpenResponseId};
use std::time::Duration;

#[test]
fn mail_arrives_as_it_was_sent_on_a_session_with_its_address() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send_with(
        sender,
        session,
        flags::A | flags::G | flags::S,
        &[&b"me\0"[..], &[9; 24]].concat(),
        300_000,
    );
    let recipient = bench.device(1);
    let Some(Event::Open(open)) = bench.events(recipient).pop() else { panic!("no session") };
    assert_eq!(open.resource_url.as_str(), "resource");
    assert_eq!((open.identity_url, open.device_url), (bench.identity(1), bench.device_url(1)));
    let (bits, tail, payload) = bench.clients[recipient].got.pop().unwrap();
    assert_eq!(bits & !flags::A, flags::G | flags::S);
    assert_eq!(tail[..], [&b"me\0"[..], &[9; 24]].concat());
    assert!(payload == vec![7; 300_000]);
    assert_eq!(bench.log(), (3, 0, 1), "three parts, and one deletion of all");
}

#[test]
fn identity_targeted_mail_waits_for_the_account_and_goes_to_any_device() {
    let mut bench = Bench::new();
    let (sender, other_device) = (bench.device(0), bench.device(2));
    let session = bench.open(sender, 1, false);
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.acknowledged(sender), [10]);
    bench.attach(other_device, 1, 1);
    assert_eq!(bench.lengths(other_device), [10]);
}

#[test]
fn what_was_not_acknowledged_before_the_connection_was_lost_comes_again() {
    for durable in [true, false] {
        let mut bench = Bench::new();
        bench.durable_at_once = durable;
        let (sender, recipient) = (bench.device(0), bench.device(1));
        bench.clients[recipient].finishes = false;
        let session = bench.open(sender, 1, true);
        for bytes in 1..=3 {
            bench.send(sender, session, flags::A, bytes);
        }
        assert_eq!(bench.lengths(recipient), [1, 2, 3]);
        assert_eq!(bench.acknowledged(sender).len(), if durable { 3 } else { 0 });
        bench.lose(recipient);
        let recipient = bench.device(1);
        assert_eq!(bench.lengths(recipient), [1, 2, 3]);
        assert_eq!(bench.relays[0].mail().0, 0);
    }
}

#[test]
fn many_empty_messages_all_leave_the_mailbox() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for _ in 0..100 {
        bench.send(sender, session, 0, 0);
    }
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [0; 100]);
}

#[test]
fn a_refused_session_is_offered_to_the_next_connection() {
    let mut bench = Bench::new();
    let (sender, first) = (bench.device(0), bench.device(1));
    bench.clients[first].accepts = OpenResponseId::NoResource;
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.acknowledged(sender), [10]);
    let second = bench.device(1);
    assert_eq!(bench.lengths(second), [10]);
}

#[test]
fn an_unreadable_message_is_skipped_and_counted_and_later_mail_flows() {
    // The second part of the first message, when its first part is on the way already.
    let mut bench = Bench::with(1, |config| config.connection_output_bytes = 1000);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 200_000);
    bench.send(sender, session, flags::A, 20);
    bench.unreadable = Some(1);
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [20]);
    assert_eq!(bench.relays[0].stats().unreadable, 1);
    assert_eq!(bench.relays[0].mail().0, 0);
    let closed =
        |event: &Event| matches!(event, Event::SessionClosed { reason: CloseReason::InternalError, .. });
    assert!(bench.events(recipient).iter().any(closed), "the session of the half message ends");
    let [Action::Lost { mailbox, .. }] = &bench.actions[..] else { panic!("{:?}", bench.actions) };
    assert_eq!(mailbox.account, bench.people.accounts[1].url, "the loss is told with its mailbox");
}

#[test]
fn detaching_an_account_ends_its_delivery_sessions() {
    let mut bench = Bench::new();
    let (sender, recipient) = (bench.device(0), bench.device(1));
    let event = bench.attach(recipient, 1, 1);
    let session = bench.open(sender, 1, false);
    bench.send(sender, session, flags::A, 10);
    bench.events(recipient);
    bench.clients[recipient].connection.close_session(event, CloseReason::NoReason);
    bench.exchange();
    assert!(matches!(bench.events(recipient)[..], [Event::SessionClosed { .. }]));
    bench.send(sender, session, flags::A, 20);
    assert_eq!(bench.lengths(recipient), [10]);
    bench.attach(recipient, 1, 1);
    assert_eq!(bench.lengths(recipient), [10, 20]);
}

#[test]
fn an_account_attached_twice_stays_until_both_are_detached() {
    let mut bench = Bench::new();
    let (sender, recipient) = (bench.device(0), bench.device(1));
    let events = [bench.attach(recipient, 1, 1), bench.attach(recipient, 1, 1)];
    let session = bench.open(sender, 1, false);
    for (bytes, expected) in [(10, &[10][..]), (20, &[10])] {
        bench.clients[recipient].connection.close_session(events[bytes / 10 - 1], CloseReason::NoReason);
        bench.exchange();
        bench.send(sender, session, flags::A, bytes);
        assert_eq!(bench.lengths(recipient), expected);
    }
}

#[test]
fn accounts_of_several_homes_share_one_connection() {
    let mut bench = Bench::with(2, |_| {});
    let of = |bench: &Bench, shard: usize| (1..8).find(|&account| bench.home(account) == shard).unwrap();
    let (here, there) = (of(&bench, 0), of(&bench, 1));
    let (sender, recipient) = (bench.device(0), bench.device(here));
    bench.attach(recipient, here, here);
    bench.attach(recipient, there, there);
    for account in [here, there, here] {
        let session = bench.open(sender, account, false);
        bench.send(sender, session, flags::A, 10 + account);
    }
    let mut lengths = bench.lengths(recipient);
    lengths.sort_unstable();
    let mut expected = [10 + here, 10 + there, 10 + here];
    expected.sort_unstable();
    assert_eq!(lengths, expected);
    assert!(bench.relays.iter().all(|relay| relay.mail().0 == 0));
}

#[test]
fn one_acknowledgement_of_messages_from_two_homes_counts_one_at_each() {
    let mut bench = Bench::with(2, |_| {});
    let of = |bench: &Bench, shard: usize| (1..8).find(|&account| bench.home(account) == shard).unwrap();
    let (here, there) = (of(&bench, 0), of(&bench, 1));
    let (sender, recipient) = (bench.device(0), bench.device(here));
    bench.clients[recipient].finishes = false;
    bench.attach(recipient, here, here);
    bench.attach(recipient, there, there);
    // The first mailbox and the first delivery of either home: only the home tells them apart.
    for account in [here, there, here] {
        let session = bench.open(sender, account, false);
        bench.send(sender, session, flags::A, 10);
    }
    bench.clients[recipient].complete_oldest();
    bench.clients[recipient].complete_oldest();
    bench.pass(Duration::from_secs(1));
    let waiting: Vec<_> = bench.relays.iter().map(|relay| relay.mail().0).collect();
    assert_eq!(waiting, [1, 0], "the third message is not acknowledged, the second one is");
}

#[test]
fn an_acknowledgement_never_counts_for_another_homes_session_in_the_same_place() {
    let mut bench = Bench::with(2, |_| {});
    let of = |bench: &Bench, shard: usize| (1..8).find(|&account| bench.home(account) == shard).unwrap();
    let (here, there) = (of(&bench, 0), of(&bench, 1));
    let (sender, recipient) = (bench.device(0), bench.device(here));
    bench.clients[recipient].finishes = false;
    let event = bench.attach(recipient, here, here);
    let session = bench.open(sender, here, false);
    bench.send(sender, session, flags::A, 10);
    // The first delivery ends unacknowledged; the second one takes its place, with the first epoch of its own home.
    bench.clients[recipient].connection.close_session(event, CloseReason::NoReason);
    bench.exchange();
    bench.attach(recipient, there, there);
    let session = bench.open(sender, there, false);
    bench.send(sender, session, flags::A, 20);
    assert_eq!(bench.lengths(recipient), [10, 20]);
    bench.clients[recipient].complete_oldest();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.relays[1].mail().0, 1, "the second message is not acknowledged");
    bench.lose(recipient);
    let recipient = bench.device(here);
    bench.attach(recipient, there, there);
    assert_eq!(bench.lengths(recipient), [20]);
}

#[test]
fn no_action_but_the_expected_ones_comes_of_mail() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    let recipient = bench.device(1);
    bench.lose(recipient);
    assert!(matches!(bench.actions[..], [Action::Ended { .. }]), "{:?}", bench.actions);
}
