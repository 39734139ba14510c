//! Who has presence at all, who may publish what, and whose word counts.

use super::*;
use crate::bench::RELAY;
use relay_core::sstp::{CloseReason, Version};

#[test]
fn presence_switched_off_is_no_resource_and_everything_else_works() {
    let mut bench = Bench::with(1, |config| config.presence.enabled = false);
    let who = bench.device(1);
    bench.open_to(who, WAN_DPP, Text::EMPTY, Text::EMPTY);
    assert_eq!(refusal(&mut bench, who), Some(OpenResponseId::NoResource));
    let session = bench.open(who, 2, false);
    bench.send(who, session, flags::A, 10);
    assert_eq!(bench.acknowledged(who), [10]);
    assert_eq!(bench.relays[0].presence().connections, 0);
}

#[test]
fn a_presence_session_has_no_identity_and_no_device_but_the_relay() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    let (identity, own) = (bench.identity(1), bench.device_url(1));
    let cases = [
        (Text::EMPTY, Text::EMPTY, None),
        (Text::EMPTY, text(RELAY), None),
        (Text::EMPTY, own, Some(OpenResponseId::Unknown)),
        (identity, Text::EMPTY, Some(OpenResponseId::NoResource)),
    ];
    for (identity, device, expected) in cases {
        bench.open_to(who, WAN_DPP, identity, device);
        assert_eq!(refusal(&mut bench, who), expected);
    }
}

#[test]
fn only_an_authenticated_device_has_presence() {
    let mut bench = Bench::with(1, |config| config.deposit_by_anyone = true);
    let who = bench.stranger();
    bench.open_to(who, WAN_DPP, Text::EMPTY, Text::EMPTY);
    assert_eq!(refusal(&mut bench, who), Some(OpenResponseId::Unknown));
}

#[test]
fn a_connection_has_at_most_eight_presence_sessions() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    let sessions: Vec<_> = (0..8).map(|_| attend(&mut bench, who)).collect();
    bench.open_to(who, WAN_DPP, Text::EMPTY, Text::EMPTY);
    assert_eq!(refusal(&mut bench, who), Some(OpenResponseId::NoResource));
    bench.clients[who].connection.close_session(sessions[3], CloseReason::NoReason);
    bench.exchange();
    attend(&mut bench, who);
}

#[test]
fn subscribe_is_answered_with_the_current_status_and_never_seen_is_offline() {
    for shards in [1, 2] {
        let mut bench = Bench::with(shards, |_| {});
        let ((publisher, _), (subscriber, session)) = pair(&mut bench);
        let devices = [device(1), url("dpp://elsewhere/never")];
        subscribe(&mut bench, subscriber, session, &devices);
        let expected = [(Status::Offline, devices[1].clone()), (Status::Online, device(1))];
        assert_eq!(told(&mut bench, subscriber), expected);
        assert_eq!(told(&mut bench, publisher), []);
    }
}

#[test]
fn a_change_is_told_to_every_subscriber_on_every_shard() {
    for shards in [1, 2, 3] {
        let mut bench = Bench::with(shards, |_| {});
        let people: Vec<(Who, SessionId)> = (0..8)
            .map(|n| {
                let who = bench.device(n);
                (who, attend(&mut bench, who))
            })
            .collect();
        let everybody: Vec<_> = (0..8).map(device).collect();
        for &(who, session) in &people {
            subscribe(&mut bench, who, session, &everybody);
        }
        bench.pass(WINDOW);
        people.iter().for_each(|&(who, _)| drop(notifies(&mut bench, who)));
        for n in 0..8 {
            let (publisher, session) = people[n];
            publish(&mut bench, publisher, session, Status::Away);
            bench.pass(WINDOW);
            for &(who, _) in &people {
                assert_eq!(notifies(&mut bench, who), [vec![(Status::Away, device(n))]]);
            }
        }
        let counts: Vec<_> = bench.relays.iter().map(|relay| relay.presence()).collect();
        assert_eq!(counts.iter().map(|counts| counts.subscriptions).sum::<usize>(), 64);
        assert_eq!(counts.iter().map(|counts| counts.devices).sum::<usize>(), 8);
        assert!(counts.iter().map(|counts| counts.watched).sum::<usize>() <= 8 * usize::from(shards));
    }
}

#[test]
fn publish_without_devices_is_for_every_source_device_url() {
    let mut bench = Bench::new();
    let hello = bench.hello(1);
    let who = bench.dial(0, &["dpp://sim/1", "dpp://sim/1/laptop"], Version::V1_6, Some(hello));
    bench.exchange();
    let session = attend(&mut bench, who);
    let devices = [device(1), url("dpp://sim/1/laptop")];
    subscribe(&mut bench, who, session, &devices);
    publish(&mut bench, who, session, Status::Online);
    assert_eq!(told(&mut bench, who), devices.clone().map(|device| (Status::Online, device)));
    let message = Message::Publish { status: Status::Away, devices: vec![devices[1].clone()] };
    say(&mut bench, who, session, message);
    assert_eq!(told(&mut bench, who), [(Status::Away, devices[1].clone())]);
}

#[test]
fn devices_of_others_are_ignored_and_counted() {
    let mut bench = Bench::new();
    let ((_, _), (subscriber, session)) = pair(&mut bench);
    // Device 1 is registered and belongs to somebody else: to list it in Connect proves nothing.
    let hello = bench.hello(3);
    let impostor = bench.dial(0, &["dpp://sim/3", "dpp://sim/1"], Version::V1_6, Some(hello));
    bench.exchange();
    let theirs = attend(&mut bench, impostor);
    publish(&mut bench, impostor, theirs, Status::Away);
    let message = Message::Publish { status: Status::Away, devices: vec![device(1), device(4), device(3)] };
    say(&mut bench, impostor, theirs, message);
    assert_eq!(bench.relays[0].stats().presence.foreign, 2);
    subscribe(&mut bench, subscriber, session, &[device(1), device(3), device(4)]);
    let expected = [(Status::Online, device(1)), (Status::Away, device(3)), (Status::Offline, device(4))];
    assert_eq!(told(&mut bench, subscriber), expected);
    assert!(bench.clients[impostor].connection.is_established());
}

#[test]
fn what_is_unsubscribed_is_told_no_more() {
    for all in [false, true] {
        let mut bench = Bench::with(2, |_| {});
        let ((publisher, theirs), (subscriber, session)) = pair(&mut bench);
        let devices = if all { vec![] } else { vec![device(1), url("dpp://nobody/watches")] };
        say(&mut bench, subscriber, session, Message::Unsubscribe(devices));
        publish(&mut bench, publisher, theirs, Status::Away);
        assert_eq!(told(&mut bench, subscriber), []);
        assert!(bench.relays.iter().all(|relay| relay.presence().watched == 0));
    }
}

#[test]
fn what_changed_before_it_was_unsubscribed_is_not_told_either() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, session)) = pair(&mut bench);
    publish(&mut bench, publisher, theirs, Status::Away);
    say(&mut bench, subscriber, session, Message::Unsubscribe(vec![device(1)]));
    assert_eq!(told(&mut bench, subscriber), []);
}

#[test]
fn subscribing_again_is_a_refresh() {
    let mut bench = Bench::new();
    let ((..), (subscriber, session)) = pair(&mut bench);
    subscribe(&mut bench, subscriber, session, &[device(1), device(1)]);
    assert_eq!(told(&mut bench, subscriber), [(Status::Online, device(1))]);
    assert_eq!(bench.relays[0].presence().subscriptions, 1);
}

#[test]
fn sessions_of_one_connection_are_separate_and_their_subscriptions_merged() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, first)) = pair(&mut bench);
    let second = attend(&mut bench, subscriber);
    subscribe(&mut bench, subscriber, second, &[device(1)]);
    assert_eq!(told(&mut bench, subscriber), [(Status::Online, device(1))]);
    publish(&mut bench, publisher, theirs, Status::Away);
    assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))], "once");
    bench.clients[subscriber].connection.close_session(first, CloseReason::NoReason);
    publish(&mut bench, publisher, theirs, Status::Online);
    assert_eq!(told(&mut bench, subscriber), [(Status::Online, device(1))], "the second one goes on");
    say(&mut bench, subscriber, second, Message::Unsubscribe(vec![]));
    publish(&mut bench, publisher, theirs, Status::Away);
    assert_eq!(told(&mut bench, subscriber), []);
}

#[test]
fn what_came_through_a_session_or_connection_goes_with_it() {
    for loses_connection in [false, true] {
        let mut bench = Bench::with(2, |_| {});
        let ((publisher, theirs), (subscriber, session)) = pair(&mut bench);
        let end = |bench: &mut Bench, who: Who, session: SessionId| match loses_connection {
            true => bench.lose(who),
            false => {
                bench.clients[who].connection.close_session(session, CloseReason::NoReason);
                bench.exchange();
            }
        };
        end(&mut bench, publisher, theirs);
        assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
        end(&mut bench, subscriber, session);
        for relay in &bench.relays {
            let counts = relay.presence();
            assert_eq!((counts.devices, counts.watched, counts.subscriptions), (0, 0, 0));
            assert_eq!(counts.publications, 0);
        }
    }
}

#[test]
fn a_session_that_takes_its_word_back_publishes_nothing() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    publish(&mut bench, publisher, theirs, Status::Unknown);
    assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
    assert_eq!(bench.relays[0].presence().publications, 0);
}

#[test]
fn overlapping_connections_of_a_device_give_no_false_offline() {
    for orderly in [false, true] {
        let mut bench = Bench::with(2, |_| {});
        let ((old, theirs), (subscriber, _)) = pair(&mut bench);
        let new = bench.device(1);
        let session = attend(&mut bench, new);
        publish(&mut bench, new, session, Status::Online);
        if orderly {
            publish(&mut bench, old, theirs, Status::Offline);
        }
        bench.lose(old);
        assert_eq!(told(&mut bench, subscriber), []);
        publish(&mut bench, new, session, Status::Away);
        assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))]);
        bench.lose(new);
        assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
    }
}

#[test]
fn of_two_connections_the_latest_word_counts_and_then_the_one_that_is_left() {
    let mut bench = Bench::new();
    let ((first, _), (subscriber, _)) = pair(&mut bench);
    let second = bench.device(1);
    let session = attend(&mut bench, second);
    publish(&mut bench, second, session, Status::Away);
    assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))]);
    bench.lose(second);
    assert_eq!(told(&mut bench, subscriber), [(Status::Online, device(1))]);
    bench.lose(first);
    assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
}

#[test]
fn a_lost_device_is_shown_as_offline_only_after_the_damping() {
    let damping = Duration::from_secs(5);
    let mut bench = Bench::with(1, |config| config.presence.offline_damping = damping);
    let ((publisher, _), (subscriber, _)) = pair(&mut bench);
    bench.lose(publisher);
    bench.pass(Duration::from_secs(4));
    let back = bench.device(1);
    let session = attend(&mut bench, back);
    publish(&mut bench, back, session, Status::Online);
    bench.pass(Duration::from_secs(60));
    assert_eq!(told(&mut bench, subscriber), [], "it came back in time");
    bench.lose(back);
    bench.pass(Duration::from_millis(4900));
    assert_eq!(notifies(&mut bench, subscriber), [] as [Vec<_>; 0]);
    bench.pass(WINDOW);
    assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
}

#[test]
fn a_device_that_says_that_it_goes_offline_is_not_damped() {
    let mut bench = Bench::with(1, |config| config.presence.offline_damping = Duration::from_secs(5));
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    publish(&mut bench, publisher, theirs, Status::Offline);
    assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))]);
    bench.lose(publisher);
    bench.pass(Duration::from_secs(10));
    assert_eq!(told(&mut bench, subscriber), []);
}
