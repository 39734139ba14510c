//! Presence: who may publish, who is told what and when, and what comes of limits, losses and nonsense (wire-profile sec. 4,
//! presence-wan-dpp sec. 6 and 7).

use crate::bench::{Bench, RELAY, Who};
use bytes::{Bytes, BytesMut};
use relay_core::address::DeviceUrl;
use relay_core::presence::{Decoder, Item, Message, Status};
use relay_core::relay::{MeshItem, ShardId};
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, OpenResponseId, SessionId, Version};
use std::time::Duration;

const WAN_DPP: &str = "grooveWanDPP";
const WINDOW: Duration = Duration::from_millis(100);

fn text(text: &'static str) -> Text {
    Text::new(text).unwrap()
}

fn url(text: &str) -> DeviceUrl {
    DeviceUrl::new(text).unwrap()
}

/// The URL of a device of the bench.
fn device(n: usize) -> DeviceUrl {
    url(&format!("dpp://sim/{n}"))
}

fn attend(bench: &mut Bench, who: Who) -> SessionId {
    let session = bench.open_to(who, WAN_DPP, Text::EMPTY, Text::EMPTY);
    assert!(bench.clients[who].connection.may_send(session), "{:?}", bench.clients[who].events);
    session
}

fn say_bytes(bench: &mut Bench, who: Who, session: SessionId, pieces: &[&[u8]]) {
    let connection = &mut bench.clients[who].connection;
    connection.begin_message(session, flags::A, b"\0");
    for piece in pieces {
        connection.message_data(session, Bytes::copy_from_slice(piece));
    }
    connection.end_message(session, 0);
    bench.exchange();
}

fn say(bench: &mut Bench, who: Who, session: SessionId, message: Message) {
    let mut body = BytesMut::new();
    message.encode(&mut body);
    say_bytes(bench, who, session, &[&body]);
}

fn publish(bench: &mut Bench, who: Who, session: SessionId, status: Status) {
    say(bench, who, session, Message::Publish { status, devices: vec![] });
}

fn subscribe(bench: &mut Bench, who: Who, session: SessionId, devices: &[DeviceUrl]) {
    say(bench, who, session, Message::Subscribe(devices.to_vec()));
}

/// What a client was told since the last call, one list for each Notify, each sorted by device.
fn notifies(bench: &mut Bench, who: Who) -> Vec<Vec<(Status, DeviceUrl)>> {
    let got = std::mem::take(&mut bench.clients[who].got);
    let read = |body: Vec<u8>| {
        let mut decoder = Decoder::default();
        decoder.push(body.into());
        let mut told = Vec::new();
        while let Some(item) = decoder.poll().unwrap() {
            let Item::Notify(status, device) = item else { panic!("{item:?}") };
            told.push((status, device));
        }
        decoder.finish().unwrap();
        told.sort_by(|(_, a), (_, b)| a.cmp(b));
        told
    };
    got.into_iter().map(|(_, _, body)| read(body)).collect()
}

/// What a client is told when a window has passed.
fn told(bench: &mut Bench, who: Who) -> Vec<(Status, DeviceUrl)> {
    bench.pass(WINDOW);
    notifies(bench, who).into_iter().flatten().collect()
}

/// Two connected devices: the first one publishes *online*, the second one watches it and knows that.
fn pair(bench: &mut Bench) -> ((Who, SessionId), (Who, SessionId)) {
    let (publisher, subscriber) = (bench.device(1), bench.device(2));
    let sessions = (attend(bench, publisher), attend(bench, subscriber));
    publish(bench, publisher, sessions.0, Status::Online);
    subscribe(bench, subscriber, sessions.1, &[device(1)]);
    assert_eq!(told(bench, subscriber), [(Status::Online, device(1))]);
    ((publisher, sessions.0), (subscriber, sessions.1))
}

fn refusal(bench: &mut Bench, who: Who) -> Option<OpenResponseId> {
    bench.events(who).into_iter().find_map(|event| match event {
        Event::SessionRefused { response, .. } => Some(response),
        _ => None,
    })
}

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

#[test]
fn changes_within_a_window_are_told_together_and_the_last_value_wins() {
    let mut bench = Bench::with(2, |_| {});
    let ((publisher, theirs), (subscriber, session)) = pair(&mut bench);
    subscribe(&mut bench, subscriber, session, &[device(3), device(4)]);
    told(&mut bench, subscriber);
    for status in [Status::Away, Status::Offline, Status::Away] {
        publish(&mut bench, publisher, theirs, status);
        bench.pass(Duration::from_millis(10));
    }
    for n in [3, 4] {
        let who = bench.device(n);
        let session = attend(&mut bench, who);
        publish(&mut bench, who, session, Status::Online);
    }
    assert_eq!(notifies(&mut bench, subscriber), [] as [Vec<_>; 0], "not before the window is over");
    bench.pass(Duration::from_millis(70));
    let expected = [(Status::Away, device(1)), (Status::Online, device(3)), (Status::Online, device(4))];
    assert_eq!(notifies(&mut bench, subscriber), [expected.to_vec()]);
}

#[test]
fn a_value_that_is_the_old_one_again_is_not_told() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    publish(&mut bench, publisher, theirs, Status::Away);
    publish(&mut bench, publisher, theirs, Status::Online);
    assert_eq!(told(&mut bench, subscriber), []);
}

#[test]
fn a_suspended_subscriber_is_told_the_last_value_when_it_goes_on() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    let reverse = reverse_session(&mut bench, subscriber).unwrap();
    bench.clients[subscriber].connection.respond(reverse, OpenResponseId::OkStopSending);
    bench.exchange();
    for status in [Status::Away, Status::Offline, Status::Away, Status::Offline] {
        publish(&mut bench, publisher, theirs, status);
        assert_eq!(told(&mut bench, subscriber), []);
    }
    bench.clients[subscriber].connection.respond(reverse, OpenResponseId::Ok);
    bench.exchange();
    assert_eq!(notifies(&mut bench, subscriber), [vec![(Status::Offline, device(1))]]);
}

#[test]
fn a_subscriber_that_does_not_read_is_told_the_last_value_when_it_does() {
    let mut bench = Bench::with(1, |config| config.connection_output_bytes = 4096);
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    bench.clients[subscriber].reads = false;
    for round in 0..500 {
        let status = if round % 2 == 0 { Status::Away } else { Status::Online };
        publish(&mut bench, publisher, theirs, status);
        bench.pass(WINDOW);
    }
    let id = bench.clients[subscriber].id.unwrap();
    let output = bench.relays[0].prepare_output(bench.now, id).unwrap().len();
    assert!((1000..4096).contains(&output), "{output} bytes queued");
    publish(&mut bench, publisher, theirs, Status::Offline);
    bench.clients[subscriber].reads = true;
    let last = told(&mut bench, subscriber).pop();
    assert_eq!(last, Some((Status::Offline, device(1))));
}

#[test]
fn a_subscriber_that_acknowledges_nothing_is_told_no_more_at_some_point_and_then_goes_on() {
    let mut bench = Bench::new();
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    bench.clients[subscriber].finishes = false;
    for round in 0..1100 {
        let status = if round % 2 == 0 { Status::Away } else { Status::Online };
        publish(&mut bench, publisher, theirs, status);
        bench.pass(WINDOW);
    }
    assert_eq!(notifies(&mut bench, subscriber).len(), 1024);
    publish(&mut bench, publisher, theirs, Status::Away);
    bench.clients[subscriber].complete_oldest();
    bench.exchange();
    assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))]);
}

/// The presence session that the relay has opened.
fn reverse_session(bench: &mut Bench, who: Who) -> Option<SessionId> {
    bench.events(who).into_iter().find_map(|event| match event {
        Event::Open(open) if open.resource_url == text(WAN_DPP) => Some(open.session),
        _ => None,
    })
}

#[test]
fn the_reverse_session_is_opened_at_the_first_thing_to_tell_and_kept() {
    let mut bench = Bench::new();
    let (publisher, subscriber) = (bench.device(1), bench.device(2));
    let (theirs, session) = (attend(&mut bench, publisher), attend(&mut bench, subscriber));
    publish(&mut bench, publisher, theirs, Status::Online);
    bench.pass(WINDOW);
    assert_eq!(reverse_session(&mut bench, publisher), None, "who watches nothing has none");
    subscribe(&mut bench, subscriber, session, &[device(1)]);
    assert_eq!(reverse_session(&mut bench, subscriber), None);
    bench.pass(WINDOW);
    let opened = bench.events(subscriber).into_iter().find_map(|event| match event {
        Event::Open(open) => Some((open.resource_url, open.identity_url, open.device_url)),
        _ => None,
    });
    let own = bench.device_url(2);
    assert_eq!(opened, Some((text(WAN_DPP), Text::EMPTY, own)));
    bench.clients[subscriber].connection.close_session(session, CloseReason::NoReason);
    let again = attend(&mut bench, subscriber);
    notifies(&mut bench, subscriber);
    subscribe(&mut bench, subscriber, again, &[device(1)]);
    assert_eq!(told(&mut bench, subscriber), [(Status::Online, device(1))]);
    assert_eq!(reverse_session(&mut bench, subscriber), None, "it is the one of the connection");
}

#[test]
fn a_reverse_session_that_the_client_does_not_want_is_opened_again_when_it_subscribes() {
    for refuses in [false, true] {
        let mut bench = Bench::new();
        let (publisher, subscriber) = (bench.device(1), bench.device(2));
        let (theirs, session) = (attend(&mut bench, publisher), attend(&mut bench, subscriber));
        if refuses {
            bench.clients[subscriber].accepts = OpenResponseId::NoResource;
        }
        subscribe(&mut bench, subscriber, session, &[device(1), device(3)]);
        bench.pass(WINDOW);
        let reverse = reverse_session(&mut bench, subscriber).unwrap();
        if !refuses {
            assert_eq!(notifies(&mut bench, subscriber).len(), 1);
            bench.clients[subscriber].connection.close_session(reverse, CloseReason::NoReason);
            bench.exchange();
        }
        for status in [Status::Online, Status::Away] {
            publish(&mut bench, publisher, theirs, status);
            assert_eq!(told(&mut bench, subscriber), []);
        }
        assert_eq!(reverse_session(&mut bench, subscriber), None);
        bench.clients[subscriber].accepts = OpenResponseId::Ok;
        subscribe(&mut bench, subscriber, session, &[device(1)]);
        let everything = [(Status::Away, device(1)), (Status::Offline, device(3))];
        assert_eq!(told(&mut bench, subscriber), everything);
    }
}

#[test]
fn a_malformed_body_closes_its_session_and_the_connection_stays() {
    let bodies: [&[u8]; 4] = [
        b"",
        b"nonsense",
        &[1, 0, 3, 0, 10, 0, 0, 0, 0, 0, 1],
        // A Notify: right in itself, but not what a client says.
        b"\x01\x00\x04\x00\x14\x00\x00\x00\x01\x00\x01dpp://a/\x00",
    ];
    for body in bodies {
        let mut bench = Bench::new();
        let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
        bench.events(publisher);
        say_bytes(&mut bench, publisher, theirs, &[body]);
        let closed = Event::SessionClosed { session: theirs, reason: CloseReason::ProtocolError };
        let events = bench.events(publisher);
        assert!(events.contains(&closed), "{events:?}");
        assert!(events.contains(&Event::Acknowledged { session: theirs, tag: 0, count: 1 }), "{events:?}");
        assert_eq!(bench.relays[0].stats().presence.malformed, 1);
        assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(1))], "with all it published");
        let mail = bench.open(publisher, 2, false);
        bench.send(publisher, mail, flags::A, 10);
        assert_eq!(bench.acknowledged(publisher), [10]);
    }
}

#[test]
fn a_body_may_hold_several_messages_and_be_cut_anywhere() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    let session = attend(&mut bench, who);
    let mut body = BytesMut::new();
    Message::Publish { status: Status::Away, devices: vec![] }.encode(&mut body);
    Message::Subscribe(vec![device(1), device(2), device(3)]).encode(&mut body);
    Message::Unsubscribe(vec![device(2)]).encode(&mut body);
    let pieces: Vec<&[u8]> = body.chunks(1).collect();
    say_bytes(&mut bench, who, session, &pieces);
    assert_eq!(told(&mut bench, who), [(Status::Away, device(1)), (Status::Offline, device(3))]);
}

#[test]
fn a_long_answer_comes_in_several_notifies_with_each_device_once() {
    let mut bench = Bench::with(2, |_| {});
    let who = bench.device(1);
    let session = attend(&mut bench, who);
    let devices: Vec<_> = (1000..4000).map(|n| url(&format!("dpp://a.host.far.away/{n}"))).collect();
    subscribe(&mut bench, who, session, &devices);
    bench.pass(WINDOW);
    let notifies = notifies(&mut bench, who);
    assert!((5..10).contains(&notifies.len()), "{}", notifies.len());
    let mut told: Vec<_> = notifies.into_iter().flatten().map(|(_, device)| device).collect();
    told.sort();
    assert_eq!(told, devices);
}

#[test]
fn a_subscription_too_many_is_answered_with_unknown_and_made_no_more() {
    let mut bench = Bench::with(1, |config| config.presence.max_subscriptions_per_connection = 2);
    let ((publisher, theirs), (subscriber, session)) = pair(&mut bench);
    subscribe(&mut bench, subscriber, session, &[device(3), device(4), device(1)]);
    let expected = [(Status::Online, device(1)), (Status::Offline, device(3)), (Status::Unknown, device(4))];
    assert_eq!(told(&mut bench, subscriber), expected);
    assert_eq!((bench.relays[0].presence().subscriptions, bench.relays[0].stats().presence.refused), (2, 1));
    publish(&mut bench, publisher, theirs, Status::Away);
    assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))], "the others go on");
    say(&mut bench, subscriber, session, Message::Unsubscribe(vec![device(3)]));
    subscribe(&mut bench, subscriber, session, &[device(4)]);
    assert_eq!(told(&mut bench, subscriber), [(Status::Offline, device(4))], "there is room again");
}

#[test]
fn a_subscriber_too_many_of_a_device_is_answered_with_unknown() {
    let mut bench = Bench::with(1, |config| config.presence.max_subscribers_per_device = 1);
    let ((publisher, theirs), (subscriber, _)) = pair(&mut bench);
    let other = bench.device(3);
    let session = attend(&mut bench, other);
    subscribe(&mut bench, other, session, &[device(1)]);
    assert_eq!(told(&mut bench, other), [(Status::Unknown, device(1))]);
    publish(&mut bench, publisher, theirs, Status::Away);
    assert_eq!(told(&mut bench, subscriber), [(Status::Away, device(1))]);
    assert_eq!(told(&mut bench, other), []);
    bench.lose(subscriber);
    subscribe(&mut bench, other, session, &[device(1)]);
    assert_eq!(told(&mut bench, other), [(Status::Away, device(1))]);
}

#[test]
fn who_asks_for_a_thousand_devices_too_many_at_once_loses_the_session() {
    let mut bench = Bench::with(1, |config| config.presence.max_subscriptions_per_connection = 1);
    let ((..), (subscriber, session)) = pair(&mut bench);
    let devices: Vec<_> = (0..1025).map(|n| url(&format!("dpp://too/many/{n}"))).collect();
    subscribe(&mut bench, subscriber, session, &devices[..1024]);
    assert_eq!(told(&mut bench, subscriber).len(), 1024);
    bench.events(subscriber);
    subscribe(&mut bench, subscriber, session, &devices);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert!(bench.events(subscriber).contains(&closed));
    assert!(bench.clients[subscriber].connection.is_established());
}

#[test]
fn what_one_shard_has_to_tell_another_is_one_mesh_item_at_a_time() {
    let mut bench = Bench::with(2, |_| {});
    let who = bench.device(1);
    let here = bench.home(1);
    let session = attend(&mut bench, who);
    bench.mesh_runs = false;
    let devices: Vec<_> = (0..200).map(|n| url(&format!("dpp://sim/any/{n}"))).collect();
    for round in 0..20 {
        for device in devices.chunks(10) {
            subscribe(&mut bench, who, session, device);
        }
        let status = if round % 2 == 0 { Status::Away } else { Status::Online };
        publish(&mut bench, who, session, status);
        say(&mut bench, who, session, Message::Unsubscribe(vec![]));
    }
    subscribe(&mut bench, who, session, &devices);
    let outbox = bench.relays[here].outbox(ShardId(1 - here as u16));
    let items = outbox.iter().filter(|item| matches!(item, MeshItem::Presence(_))).count();
    assert!(items <= 1, "{items} items wait for a shard that does not listen");
    bench.mesh_runs = true;
    bench.exchange();
    assert_eq!(told(&mut bench, who).len(), 200, "and it still comes to the right end");
}

#[test]
fn a_mesh_item_is_no_larger_for_presence() {
    assert!(size_of::<MeshItem>() <= 112, "{}", size_of::<MeshItem>());
}
