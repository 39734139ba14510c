//! Vectors of every message, every refusal, and what holds for all inputs however they are cut.

use super::*;
use crate::address::{DeviceUrl, InvalidUrl};
use crate::sstp::command::{Command, Open, SessionId};
use crate::sstp::output::OutputQueue;
use crate::sstp::profile::RESOURCE_WAN_DPP;
use crate::sstp::text::Text;
use crate::sstp::{OpenResponseId, Version};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

fn device(url: &str) -> DeviceUrl {
    DeviceUrl::new(url).unwrap()
}

/// Reads a body in slices that end at `cuts`.
fn read(body: &[u8], cuts: &[usize]) -> Result<Vec<Item>, Malformed> {
    let mut decoder = Decoder::default();
    let mut items = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([body.len()]) {
        decoder.push(Bytes::copy_from_slice(&body[start..end]));
        while let Some(item) = decoder.poll()? {
            items.push(item);
        }
        start = end;
    }
    decoder.finish().map(|()| items)
}

fn encoded(messages: &[Message]) -> BytesMut {
    let mut body = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut body));
    body
}

/// What a message says, device by device.
fn items(message: &Message) -> Vec<Item> {
    match message {
        Message::Publish { status, devices } if devices.is_empty() => vec![Item::PublishAll(*status)],
        Message::Publish { status, devices } => {
            devices.iter().map(|device| Item::Publish(*status, device.clone())).collect()
        }
        Message::Subscribe(devices) => devices.iter().cloned().map(Item::Subscribe).collect(),
        Message::Unsubscribe(devices) if devices.is_empty() => vec![Item::UnsubscribeAll],
        Message::Unsubscribe(devices) => devices.iter().cloned().map(Item::Unsubscribe).collect(),
        Message::Notify(entries) => {
            entries.iter().map(|(status, device)| Item::Notify(*status, device.clone())).collect()
        }
    }
}

#[test]
fn every_message_has_the_bytes_of_wire_profile_4() {
    let (a, b) = (device("dpp://h/a"), device("dpp://h/b"));
    let cases: [(Message, &[u8]); 7] = [
        (Message::Publish { status: Status::Online, devices: vec![] }, &[1, 0, 1, 0, 11, 0, 0, 0, 1, 0, 0]),
        (
            Message::Publish { status: Status::Away, devices: vec![a.clone()] },
            b"\x01\x00\x01\x00\x15\x00\x00\x00\x03\x01\x00dpp://h/a\x00",
        ),
        (
            Message::Subscribe(vec![a.clone(), b.clone()]),
            b"\x01\x00\x02\x00\x1e\x00\x00\x00\x02\x00dpp://h/a\x00dpp://h/b\x00",
        ),
        (Message::Unsubscribe(vec![]), &[1, 0, 3, 0, 10, 0, 0, 0, 0, 0]),
        (Message::Unsubscribe(vec![b.clone()]), b"\x01\x00\x03\x00\x14\x00\x00\x00\x01\x00dpp://h/b\x00"),
        (Message::Notify(vec![]), &[1, 0, 4, 0, 10, 0, 0, 0, 0, 0]),
        (
            Message::Notify(vec![(Status::Offline, a), (Status::Unknown, b)]),
            b"\x01\x00\x04\x00\x20\x00\x00\x00\x02\x00\x02dpp://h/a\x00\x00dpp://h/b\x00",
        ),
    ];
    for (message, bytes) in cases {
        assert_eq!(&encoded(std::slice::from_ref(&message))[..], bytes, "{message:?}");
        assert_eq!(read(bytes, &[]), Ok(items(&message)), "{message:?}");
    }
}

/// presence-wan-dpp sec. 9: the SSTP side of a presence session.
#[test]
fn the_open_of_a_presence_session_and_its_refusal_have_the_bytes_of_the_specification() {
    let resource = Text::new(RESOURCE_WAN_DPP.as_bytes()).unwrap();
    let open = |device_url| {
        Command::Open(Open {
            session: SessionId(1),
            resource_url: resource.clone(),
            identity_url: Text::EMPTY,
            device_url,
        })
    };
    let relay = Text::new(&b"grooveDNS://server.domain.net"[..]).unwrap();
    let refusal = Command::OpenResponse { session: SessionId(1), response: OpenResponseId::NoResource };
    let cases: [(Command, &[u8]); 3] = [
        (
            open(Text::EMPTY),
            &[
                0x05, 0x19, 0x00, 0x01, 0x00, 0x00, 0x00, 0x67, 0x72, 0x6f, 0x6f, 0x76, 0x65, 0x57, 0x61,
                0x6e, 0x44, 0x50, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            ],
        ),
        (
            open(relay),
            &[
                0x05, 0x36, 0x00, 0x01, 0x00, 0x00, 0x00, 0x67, 0x72, 0x6f, 0x6f, 0x76, 0x65, 0x57, 0x61,
                0x6e, 0x44, 0x50, 0x50, 0x00, 0x00, 0x67, 0x72, 0x6f, 0x6f, 0x76, 0x65, 0x44, 0x4e, 0x53,
                0x3a, 0x2f, 0x2f, 0x73, 0x65, 0x72, 0x76, 0x65, 0x72, 0x2e, 0x64, 0x6f, 0x6d, 0x61, 0x69,
                0x6e, 0x2e, 0x6e, 0x65, 0x74, 0x00, 0x00, 0x00, 0x00,
            ],
        ),
        (refusal, &[0x07, 0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x04]),
    ];
    for (command, bytes) in cases {
        let mut out = OutputQueue::default();
        out.encode(|out| command.encode(out));
        assert_eq!(&out.take()[..], bytes);
        assert_eq!(Command::decode(Bytes::from_static(bytes), Version::V1_6).unwrap(), command);
    }
}

#[test]
fn every_wrong_body_is_refused_for_its_own_reason() {
    let long = [&b"\x01\x00\x02\x00\x10\x05\x00\x00\x01\x00"[..], &[b'a'; 1300]].concat();
    let cases: Vec<(&[u8], Malformed)> = vec![
        (b"", Malformed::Empty),
        (b"\x01\x00\x03\x00\x0a\x00\x00", Malformed::Truncated),
        (b"\x01\x00\x03\x00\x0a\x00\x00\x00\x00", Malformed::Truncated),
        (b"\x01\x00\x02\x00\x0d\x00\x00\x00\x01\x00aa", Malformed::Truncated),
        (b"\x01\x00\x03\x00\x0a\x00\x00\x00\x00\x00\x01", Malformed::Truncated),
        (b"\x02\x00\x03\x00\x0a\x00\x00\x00\x00\x00", Malformed::MajorVersion(2)),
        (b"\x01\x01\x03\x00\x0a\x00\x00\x00\x00\x00", Malformed::MinorVersion(1)),
        (b"\x01\x00\x00\x00\x0a\x00\x00\x00\x00\x00", Malformed::MessageId(0)),
        (b"\x01\x00\x05\x00\x0a\x00\x00\x00\x00\x00", Malformed::MessageId(5)),
        (b"\x01\x00\x03\x07\x0a\x00\x00\x00\x00\x00", Malformed::Reserved(7)),
        (b"\x01\x00\x03\x00\x09\x00\x00\x00\x00", Malformed::Length(9)),
        (b"\x01\x00\x03\x00\xff\xff\xff\xff\x00", Malformed::Length(u32::MAX)),
        (b"\x01\x00\x01\x00\x0a\x00\x00\x00\x01\x00", Malformed::Length(10)),
        (b"\x01\x00\x01\x00\x0b\x00\x00\x00\x04\x00\x00", Malformed::Status(4)),
        (b"\x01\x00\x04\x00\x0d\x00\x00\x00\x01\x00\x04a\x00", Malformed::Status(4)),
        (b"\x01\x00\x02\x00\x0a\x00\x00\x00\x00\x00", Malformed::NoDevice),
        (b"\x01\x00\x02\x00\x0c\x00\x00\x00\x01\x00aa\x00", Malformed::Overrun),
        (b"\x01\x00\x02\x00\x0c\x00\x00\x00\x02\x00a\x00", Malformed::Overrun),
        (b"\x01\x00\x02\x00\x0e\x00\x00\x00\x01\x00a\x00b\x00", Malformed::Trailing(2)),
        (b"\x01\x00\x03\x00\x0b\x00\x00\x00\x00\x00\x00", Malformed::Trailing(1)),
        (b"\x01\x00\x02\x00\x0b\x00\x00\x00\x01\x00\x00", InvalidUrl::Empty.into()),
        (
            b"\x01\x00\x02\x00\x0d\x00\x00\x00\x01\x00a \x00",
            InvalidUrl::Byte { byte: 0x20, position: 1 }.into(),
        ),
        (&long, InvalidUrl::TooLong(1025).into()),
    ];
    for (body, expected) in cases {
        assert_eq!(read(body, &[]), Err(expected), "{body:x?}");
        let every: Vec<usize> = (0..body.len()).collect();
        assert_eq!(read(body, &every), Err(expected), "{body:x?}, byte by byte");
    }
}

#[test]
fn an_unfinished_device_is_all_that_is_held() {
    let devices: Vec<_> = (0..500).map(|n| device(&format!("dpp://host/{n:0>1000}"))).collect();
    let body = encoded(&[Message::Subscribe(devices)]);
    let mut decoder = Decoder::default();
    for slice in body.chunks(700) {
        decoder.push(Bytes::copy_from_slice(slice));
        while decoder.poll().unwrap().is_some() {}
    }
    let held = format!("{decoder:?}");
    assert_eq!(decoder.finish(), Ok(()));
    assert!(held.len() < 500, "{held}");
}

#[test]
fn a_status_has_a_number_and_a_word() {
    for status in Status::ALL {
        assert_eq!(Status::from_byte(status.byte()), Some(status));
        assert_eq!(status.to_string().parse(), Ok(status));
    }
    assert_eq!(Status::ALL.map(Status::byte), [0, 1, 2, 3]);
    assert_eq!(Status::from_byte(4), None);
    assert_eq!("Online".parse::<Status>(), Err(UnknownStatus("Online".into())));
}

fn some_device() -> impl Strategy<Value = DeviceUrl> {
    let short = vec(0x21u8..=0x7e, 1..30);
    let long = vec(0x21u8..=0x7e, 1000..=1024);
    prop_oneof![9 => short, 1 => long].prop_map(|bytes| DeviceUrl::new(bytes).expect("in range"))
}

fn some_message() -> impl Strategy<Value = Message> {
    let status = || (0..4usize).prop_map(|n| Status::ALL[n]);
    prop_oneof![
        (status(), vec(some_device(), 0..6))
            .prop_map(|(status, devices)| Message::Publish { status, devices }),
        vec(some_device(), 1..6).prop_map(Message::Subscribe),
        vec(some_device(), 0..6).prop_map(Message::Unsubscribe),
        vec((status(), some_device()), 0..6).prop_map(Message::Notify),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_wherever_it_is_cut(
        messages in vec(some_message(), 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let body = encoded(&messages);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let expected: Vec<Item> = messages.iter().flat_map(items).collect();
        prop_assert_eq!(read(&body, &cuts), Ok(expected));
    }

    #[test]
    fn no_input_panics_and_no_cut_changes_what_it_means(
        messages in vec(some_message(), 0..3),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut body = encoded(&messages);
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if body.len() > 1 {
            body.truncate(body.len().min(1 + length.index(2 * body.len())));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(read(&body, &cuts), read(&body, &[]));
    }
}
