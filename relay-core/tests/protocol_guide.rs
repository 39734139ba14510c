//! The byte examples of PROTOCOL.md: every block is what it says it is, and the handshake is one that the relay accepts.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::{Bytes, BytesMut};
use relay_core::address::{AccountUrl, DeviceUrl};
use relay_core::directory::{DeviceRecord, Profile};
use relay_core::presence::{Message as Presence, Status};
use relay_core::security::{self, ClientCredentials, HelloAnswer, HelloVerdict, Layer};
use relay_core::sstp::{Command, Version};
use relay_core::time::Entropy;

const GUIDE: &str = include_str!("../../PROTOCOL.md");

/// Bytes that count up.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

/// The commands of every block, with the block's comment.
fn blocks() -> Vec<(&'static str, Vec<Command>)> {
    let texts = GUIDE.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    texts.map(|text| (text.lines().next().unwrap(), commands(text))).collect()
}

fn commands(text: &str) -> Vec<Command> {
    let digits = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let mut bytes: Bytes = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_le_bytes([bytes[1], bytes[2]]));
        let frame = bytes.split_to(length);
        let command = Command::decode(frame.clone(), Version::V1_6).unwrap();
        let mut again = BytesMut::new();
        command.encode(&mut again);
        assert_eq!(again, frame, "{text}");
        commands.push(command);
    }
    commands
}

#[test]
fn every_block_is_the_commands_that_its_comment_names() {
    let named = |command: &Command| format!("{command:?}").split([' ', '(']).next().unwrap().to_owned();
    let found: Vec<String> = blocks()
        .iter()
        .map(|(comment, commands)| {
            let names: Vec<String> = commands.iter().map(named).collect();
            assert!(comment.contains(&names[0]), "{comment}: {names:?}");
            names.join(" ")
        })
        .collect();
    let expected = [
        "Connect",
        "ConnectResponse",
        "ConnectAuthenticate",
        "Open",
        "OpenResponse",
        "Message Data EndMessage",
        "Noop",
        "Data",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_handshake_is_what_both_ends_make_of_these_keys_and_nonces() {
    let blocks = blocks();
    let Command::Connect(connect) = &blocks[0].1[0] else { panic!("{:?}", blocks[0]) };
    let Command::ConnectResponse { token: challenge, .. } = &blocks[1].1[0] else {
        panic!("{:?}", blocks[1])
    };
    let Command::ConnectAuthenticate { token: proof } = &blocks[2].1[0] else { panic!("{:?}", blocks[2]) };
    let device = DeviceUrl::new(connect.source_device_urls[0].as_bytes()).unwrap();
    let credentials = ClientCredentials::generate(Profile::Modern, &mut Counting(0));
    assert_eq!(credentials.secret().expose(), (0..32).collect::<Vec<u8>>());

    let hello = security::hello(Layer::Device, device.as_str(), &credentials, &mut Counting(0x20));
    assert_eq!(hello.token, connect.authentication_token);
    let record = DeviceRecord {
        credentials: Some(credentials.as_registered()),
        accounts: vec![AccountUrl::new("grooveAccount://alice@").unwrap()],
        ..DeviceRecord::default()
    };
    let verdict = security::answer_connect(&hello.token, &device, Some(&record), &mut Counting(0x40));
    let HelloVerdict::Challenged { token, challenge: expected } = verdict else { panic!("{verdict:?}") };
    assert_eq!(token, *challenge);
    assert_eq!(hello.answer(challenge).unwrap(), HelloAnswer::Proof { token: proof.clone() });
    expected.verify(proof).unwrap();
}

#[test]
fn the_publish_is_one() {
    let Some((_, commands)) = blocks().pop() else { panic!("no block") };
    let [Command::Data { payload, .. }] = &commands[..] else { panic!("{commands:?}") };
    let mut publish = BytesMut::new();
    Presence::Publish { status: Status::Online, devices: vec![] }.encode(&mut publish);
    assert_eq!(publish, *payload);
}
