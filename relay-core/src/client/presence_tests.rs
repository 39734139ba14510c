//! Presence at the client, against the scripted relay: what is said when, and what the application is told.

use super::scripted_relay::*;
use super::*;
use crate::address::DeviceUrl;
use crate::presence::{Decoder, Item, Message, Status};
use crate::sstp::connection;
use crate::sstp::profile::RESOURCE_WAN_DPP;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, OpenResponseId, SessionId};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

fn device(name: &str) -> DeviceUrl {
    DeviceUrl::new(format!("dpp://relay.test/{name}")).unwrap()
}

/// What the relay has heard about presence since the last call.
fn heard(script: &mut Script) -> Vec<Item> {
    let mut items = Vec::new();
    for arrived in script.arrived.drain(..) {
        let mut decoder = Decoder::default();
        decoder.push(arrived.body.into());
        while let Some(item) = decoder.poll().unwrap() {
            items.push(item);
        }
        decoder.finish().unwrap();
    }
    items
}

/// The session that the client opened last.
fn session(script: &Script) -> SessionId {
    script.opens.last().unwrap().0
}

/// The relay opens its session.
fn reverse(script: &mut Script) -> SessionId {
    let resource = Text::new(RESOURCE_WAN_DPP).unwrap();
    let own = Text::new(DEVICE.as_bytes()).unwrap();
    let session = script.relay().open(resource, Text::EMPTY, own).unwrap();
    script.run();
    session
}

fn notify(script: &mut Script, session: SessionId, entries: &[(Status, DeviceUrl)]) {
    let mut body = BytesMut::new();
    Message::Notify(entries.to_vec()).encode(&mut body);
    script.deliver(session, body.freeze(), 7);
    script.run();
}

/// What the application was told about presence since the last call; `None` if all is unknown.
fn told(script: &mut Script) -> Vec<Option<(DeviceUrl, Status)>> {
    let told = script.events.drain(..).filter_map(|event| match event {
        Event::Presence { device, status } => Some(Some((device, status))),
        Event::PresenceUnknown => Some(None),
        _ => None,
    });
    told.collect()
}

#[test]
fn wishes_are_said_when_there_is_a_session_and_again_on_every_connection() {
    let mut script = Script::anonymous();
    script.client.publish(Status::Away);
    script.client.watch(device("a"));
    script.client.watch(device("b"));
    for _ in 0..2 {
        script.pass(Duration::from_secs(2));
        let expected =
            [Item::PublishAll(Status::Away), Item::Subscribe(device("a")), Item::Subscribe(device("b"))];
        assert_eq!(heard(&mut script), expected);
        script.cut();
    }
}

#[test]
fn without_wishes_no_session_is_opened() {
    let mut script = Script::anonymous();
    script.pass(Duration::from_secs(60));
    assert!(script.opens.is_empty());
}

#[test]
fn a_change_of_mind_is_said_and_nothing_else() {
    let mut script = Script::anonymous();
    script.client.watch(device("a"));
    script.run();
    heard(&mut script);
    script.client.watch(device("b"));
    script.client.unwatch(&device("a"));
    script.client.publish(Status::Online);
    script.run();
    let expected =
        [Item::PublishAll(Status::Online), Item::Unsubscribe(device("a")), Item::Subscribe(device("b"))];
    assert_eq!(heard(&mut script), expected);
    script.client.unwatch(&device("never"));
    script.client.watch(device("c"));
    script.client.unwatch(&device("c"));
    script.run();
    assert_eq!(heard(&mut script), []);
}

#[test]
fn a_client_that_was_stopped_says_how_things_stand_and_not_how_they_came_about() {
    let mut script = Script::anonymous();
    script.client.publish(Status::Online);
    script.run();
    heard(&mut script);
    let session = session(&script);
    script.relay().respond(session, OpenResponseId::OkStopSending);
    script.run();
    for status in [Status::Away, Status::Online, Status::Away] {
        script.client.publish(status);
        script.client.watch(device("a"));
        script.client.unwatch(&device("a"));
        script.run();
    }
    assert_eq!(heard(&mut script), []);
    script.relay().respond(session, OpenResponseId::Ok);
    script.run();
    assert_eq!(heard(&mut script), [Item::PublishAll(Status::Away)]);
}

#[test]
fn statuses_are_told_until_the_connection_is_lost_and_again_by_themselves() {
    let mut script = Script::anonymous();
    script.client.watch(device("a"));
    for _ in 0..2 {
        script.pass(Duration::from_secs(2));
        let session = reverse(&mut script);
        notify(&mut script, session, &[(Status::Online, device("a")), (Status::Away, device("b"))]);
        assert_eq!(told(&mut script), [Some((device("a"), Status::Online))], "only what is watched");
        assert_eq!(script.delivered.pop(), Some(7), "and acknowledged at once");
        script.cut();
        script.run();
        assert_eq!(told(&mut script), [None]);
    }
}

#[test]
fn a_relay_without_presence_is_asked_once_on_each_connection() {
    let mut script = Script::anonymous();
    script.answers.insert(String::new(), OpenResponseId::NoResource);
    script.client.watch(device("a"));
    script.pass(Duration::from_secs(30));
    let refused = Event::PresenceRefused(OpenResponseId::NoResource);
    assert_eq!(script.events.iter().filter(|event| **event == refused).count(), 1);
    assert_eq!(script.opens.len(), 1);
    script.answers.clear();
    script.cut();
    script.pass(Duration::from_secs(2));
    assert_eq!(heard(&mut script), [Item::Subscribe(device("a"))]);
}

#[test]
fn a_session_that_the_relay_closes_is_opened_again_after_a_while() {
    let mut script = Script::anonymous();
    script.client.watch(device("a"));
    script.run();
    let listening = reverse(&mut script);
    notify(&mut script, listening, &[(Status::Online, device("a"))]);
    told(&mut script);
    heard(&mut script);
    let speaking = session(&script);
    script.relay().close_session(speaking, CloseReason::Idle);
    script.run();
    assert_eq!(told(&mut script), [None]);
    assert_eq!(script.opens.len(), 1);
    script.pass(Duration::from_secs(6));
    assert_eq!(script.opens.len(), 2);
    assert_eq!(heard(&mut script), [Item::Subscribe(device("a"))]);
}

#[test]
fn when_the_relay_closes_the_session_on_which_it_tells_the_devices_are_asked_for_again() {
    let mut script = Script::anonymous();
    script.client.watch(device("a"));
    script.run();
    let listening = reverse(&mut script);
    notify(&mut script, listening, &[(Status::Online, device("a"))]);
    told(&mut script);
    heard(&mut script);
    script.relay().close_session(listening, CloseReason::Idle);
    script.run();
    assert_eq!(told(&mut script), [None]);
    assert_eq!(heard(&mut script), [Item::Subscribe(device("a"))]);
}

#[test]
fn nonsense_closes_the_session_and_the_connection_stays() {
    let mut script = Script::anonymous();
    script.client.watch(device("a"));
    script.run();
    let session = reverse(&mut script);
    script.deliver(session, Bytes::from_static(b"nonsense"), 1);
    script.run();
    let closed = connection::Event::SessionClosed { session, reason: CloseReason::ProtocolError };
    assert!(script.relay_events.contains(&closed), "{:?}", script.relay_events);
    assert!(script.relay().is_established());
}

#[test]
fn many_devices_are_asked_for_in_several_messages() {
    let mut script = Script::anonymous();
    let devices: Vec<_> = (1000..3000).map(|n| device(&n.to_string())).collect();
    devices.iter().cloned().for_each(|device| script.client.watch(device));
    script.run();
    assert!(script.arrived.len() > 1);
    assert!(script.arrived.iter().all(|arrived| arrived.body.len() < 20_000));
    let expected: Vec<_> = devices.into_iter().map(Item::Subscribe).collect();
    assert_eq!(heard(&mut script), expected);
}
