//! Presence: who may publish, who is told what and when, and what comes of limits, losses and nonsense (wire-profile sec. 4,
//! presence-wan-dpp sec. 6 and 7).

mod publishing;
mod telling;

use crate::bench::{Bench, Who};
use bytes::{Bytes, BytesMut};
use relay_core::address::DeviceUrl;
use relay_core::presence::{Decoder, Item, Message, Status};
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{OpenResponseId, SessionId};
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
