//! Bodies of WAN DPP messages.

use bytes::{Bytes, BytesMut};
use relay_core::address::DeviceUrl;
use relay_core::presence::{Decoder, Item, Malformed, Message, Status};

/// Every message, alone and together.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let device = |number: u8| DeviceUrl::new(format!("dpp://relay/{number}")).expect("a URL");
    let (one, two) = (vec![device(1)], vec![device(1), device(2)]);
    let messages = [
        Message::Publish { status: Status::Online, devices: Vec::new() },
        Message::Publish { status: Status::Away, devices: two.clone() },
        Message::Subscribe(one.clone()),
        Message::Unsubscribe(Vec::new()),
        Message::Unsubscribe(two),
        Message::Notify(vec![(Status::Offline, device(1)), (Status::Unknown, device(2))]),
    ];
    let encoded = |messages: &[Message]| {
        let mut out = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut out));
        out.to_vec()
    };
    messages
        .iter()
        .map(|message| encoded(std::slice::from_ref(message)))
        .chain([encoded(&messages)])
        .collect()
}

/// What is read in one piece is read in many; what was read of a right body can be written again.
pub(crate) fn run(data: &[u8]) {
    let whole = decode(&[data]);
    let (left, right) = data.split_at(data.len() / 3);
    assert_eq!(whole, decode(&[left, right]));
    let bytes: Vec<&[u8]> = data.chunks(1).take(2048).collect();
    if data.len() <= 2048 {
        assert_eq!(whole, decode(&bytes));
    }
    // What is said is bounded by what was sent.
    assert!(whole.0.len() <= data.len());
}

fn decode(pieces: &[&[u8]]) -> (Vec<Item>, Result<(), Malformed>) {
    let mut decoder = Decoder::default();
    let mut items = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.poll() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
    }
    let end = decoder.finish();
    (items, end)
}
