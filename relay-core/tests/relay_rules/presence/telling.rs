//! When subscribers are told, on which session, and what comes of those who do not listen, ask for too much, or talk nonsense.

use super::*;
use relay_core::relay::{MeshItem, ShardId};
use relay_core::sstp::CloseReason;

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
