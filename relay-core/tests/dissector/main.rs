//! The Wireshark dissector against the codec: what relay-core writes it reads, and what relay-core refuses it calls malformed.
//! The captures are made here, byte by byte; tshark reads them. Where tshark is not installed the tests say so and check nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod capture;
mod http_carriers;

use bytes::{Bytes, BytesMut};
use capture::{Capture, Side, Tcp};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{AccountRecord, DeviceRecord, Profile};
use relay_core::presence::{Message as Presence, Status};
use relay_core::security::{self, ClientCredentials, HelloVerdict, Layer, RelayKeys};
use relay_core::sstp::command::{
    AccountRequest, Connect, FanoutEntry, FanoutOpen, Message, Open, SessionStatus,
};
use relay_core::sstp::text::Text;
use relay_core::sstp::{
    CloseReason, Command, ConnectResponseId, OpenResponseId, SessionId, StatusId, Version,
};
use relay_core::time::Entropy;
use smallvec::smallvec;
use std::collections::BTreeSet;

const PORT: u16 = 2492;
const SESSION: SessionId = SessionId(5);

/// The same bytes every time, good enough to find primes in.
struct Xorshift(u64);

impl Entropy for Xorshift {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 32) as u8;
        }
    }
}

fn text(text: &'static str) -> Text {
    Text::new(Bytes::from_static(text.as_bytes())).unwrap()
}

pub(crate) fn encode(command: &Command) -> Bytes {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    out.freeze()
}

pub(crate) fn connect(version: Version, token: Bytes) -> Command {
    Command::from(Connect {
        minor_version: version.minor(),
        target_device_url: text("grooveDNS://relay"),
        source_device_urls: smallvec![text("dpp://relay/alice"), text("dpp://relay/second")],
        authentication_token: token,
        peer_product_version: text("Furrow Client 0.1 1"),
        peer_product_capabilities: text(""),
    })
}

pub(crate) fn connect_response(version: Version, token: Bytes) -> Command {
    Command::ConnectResponse {
        minor_version: version.minor(),
        response: ConnectResponseId::Ok,
        retry_time: 0,
        token,
    }
}

pub(crate) fn open(session: SessionId, resource: &'static str) -> Command {
    Command::Open(Open {
        session,
        resource_url: text(resource),
        identity_url: text("grooveIdentity://bob@"),
        device_url: text("dpp://relay/bob"),
    })
}

fn message(flags: u8, tail: &'static [u8]) -> Command {
    Command::Message(Message { session: SESSION, message_count: 0, flags, tail: Bytes::from_static(tail) })
}

fn account_request(event: u32, token: Bytes) -> AccountRequest {
    AccountRequest {
        event: SessionId(event),
        resource_url: text(""),
        account_url: text("grooveAccount://alice@"),
        authentication_token: token,
    }
}

/// Every command at least once, with every optional part.
fn commands(version: Version) -> Vec<(Side, Command)> {
    use Side::{Client, Server};
    let none = Bytes::new;
    let entries =
        [("grooveIdentity://b@", "dpp://relay/b", ""), ("grooveIdentity://c@", "", "grooveDNS://away")];
    let entries = entries.map(|(identity, device, relay)| FanoutEntry {
        identity_url: text(identity),
        device_url: text(device),
        relay_url: text(relay),
    });
    let fanout = FanoutOpen::new(SessionId(6), text("app"), &entries, version).unwrap();
    let indexes = if version == Version::V1_6 { vec![0, 1] } else { vec![] };
    vec![
        (Client, connect(version, none())),
        (Server, connect_response(version, none())),
        (Client, Command::ConnectAuthenticate { token: none() }),
        (Client, Command::Attach(account_request(1, none()))),
        (Server, Command::AttachResponse { event: SessionId(1), token: none() }),
        (Client, Command::AttachAuthenticate { event: SessionId(1), token: none() }),
        (Client, Command::Register(account_request(2, none()))),
        (Server, Command::RegisterResponse { event: SessionId(2), token: none() }),
        (Client, open(SESSION, "app")),
        (Server, Command::OpenResponse { session: SESSION, response: OpenResponseId::Ok }),
        (Client, message(0x72, b"ref\0\x3c\0\0\0stream-size, 24 bytes...fragmentation")),
        (Client, Command::Data { session: SESSION, payload: Bytes::from_static(&[0x42; 2048]) }),
        (Client, Command::EndMessage { session: SESSION }),
        (Client, message(0x05, b"\0")),
        (Client, Command::EndMessage { session: SESSION }),
        (Server, Command::Noop { message_count: 2 }),
        (Client, Command::FanoutOpen(fanout)),
        (
            Server,
            Command::SessionStatus(SessionStatus {
                session: SessionId(6),
                status: StatusId::DnsLookupFailed,
                device_url: text("grooveDNS://away"),
                identity_url: text(""),
                indexes,
            }),
        ),
        (Client, Command::Close { session: SESSION, reason: CloseReason::NoReason }),
        (Server, Command::ConnectClose { reason: CloseReason::Resting, message_count: 0, return_time: 60 }),
    ]
}

/// Connect and its answer, so that the version is known.
fn begin(capture: &mut Capture, version: Version) -> Tcp {
    let mut tcp = capture.connect(PORT);
    let token = Bytes::new;
    capture.send(&mut tcp, Side::Client, &encode(&connect(version, token())), usize::MAX);
    capture.send(&mut tcp, Side::Server, &encode(&connect_response(version, token())), usize::MAX);
    tcp
}

#[test]
fn all_commands_of_both_versions_are_read_however_they_are_cut_into_segments() {
    for (version, most) in
        [(Version::V1_5, 1448), (Version::V1_6, 1448), (Version::V1_6, 2), (Version::V1_5, 61)]
    {
        let mut capture = Capture::new();
        let mut tcp = capture.connect(PORT);
        let commands = commands(version);
        let mut end_of_second_message = 0;
        for (side, command) in &commands {
            capture.send(&mut tcp, *side, &encode(command), most);
            if matches!(command, Command::EndMessage { .. }) {
                end_of_second_message = capture.packets();
            }
        }
        let Some(found) = capture.values([
            "gsstp.command",
            "gsstp.target_device",
            "gsstp.source_device",
            "gsstp.product",
            "gsstp.resource",
            "gsstp.account",
            "gsstp.identity",
            "gsstp.relay",
            "gsstp.user_ref",
            "gsstp.lifetime",
            "gsstp.flags",
            "gsstp.body_length",
            "gsstp.message_count",
            "gsstp.return_time",
            "gsstp.index",
            "gsstp.acknowledges",
            "gsstp.malformed",
            "gsstp.not_a_command",
            "gsstp.unknown_session",
            "gsstp.over_count",
            "_ws.malformed",
        ]) else {
            return;
        };
        let ids: Vec<String> =
            commands.iter().map(|(_, command)| format!("{:#04x}", encode(command)[0])).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 18);
        let expected = [
            &ids.join(",")[..],
            "grooveDNS://relay",
            "dpp://relay/alice,dpp://relay/second",
            "Furrow Client 0.1 1",
            "app,app",
            "grooveAccount://alice@,grooveAccount://alice@",
            "grooveIdentity://bob@,grooveIdentity://b@,grooveIdentity://c@",
            "grooveDNS://away",
            "ref",
            "60",
            "0x72,0x05",
            "2048,0",
            "0,0,2,0",
            "60",
            if version == Version::V1_6 { "0,1" } else { "" },
            &end_of_second_message.to_string(),
            "",
            "",
            "",
            "",
            "",
        ];
        assert_eq!(found, expected);
    }
}

/// Changes of a command that keep CommandLength right: one byte after another becomes something else, the end is cut off, a byte
/// is added.
fn changes(command: &[u8]) -> Vec<Vec<u8>> {
    let mut changed = Vec::new();
    for at in 3..command.len().min(90) {
        for byte in [0x00, 0x81, 0xff] {
            let mut other = command.to_vec();
            other[at] = byte;
            changed.push(other);
        }
    }
    let longer = [command, &[0]].concat();
    changed.push(longer);
    changed.push(command[..command.len() - 1].to_vec());
    for command in &mut changed {
        let length = u16::try_from(command.len()).unwrap();
        command[1..3].copy_from_slice(&length.to_le_bytes());
    }
    changed
}

#[test]
fn what_the_codec_refuses_is_malformed_and_what_it_takes_is_not() {
    let mut capture = Capture::new();
    let mut refused = BTreeSet::new();
    let mut number = 0;
    for version in [Version::V1_5, Version::V1_6] {
        for (side, command) in commands(version) {
            for bytes in changes(&encode(&command)) {
                let mut tcp = begin(&mut capture, version);
                capture.send(&mut tcp, side, &bytes, usize::MAX);
                let id = relay_core::sstp::command::CommandId::from_byte(bytes[0]).unwrap();
                let (least, most) = id.length_limits();
                let fits = (least..=most).contains(&bytes.len());
                if !fits || Command::decode(bytes.into(), version).is_err() {
                    refused.insert(number);
                }
                number += 1;
            }
        }
    }
    let Some(found) = capture.streams("gsstp.malformed || gsstp.not_a_command") else { return };
    assert!(refused.len() > 500 && number - refused.len() > 500, "{} of {number}", refused.len());
    assert_eq!(found, refused);
    assert_eq!(capture.streams("_ws.lua.error").unwrap(), BTreeSet::new());
}

#[test]
fn an_acknowledgement_of_more_than_was_sent_and_a_session_that_nobody_opened_are_shown() {
    let mut capture = Capture::new();
    for command in [Command::Noop { message_count: 1 }, Command::EndMessage { session: SessionId(9) }] {
        let mut tcp = begin(&mut capture, Version::V1_6);
        capture.send(&mut tcp, Side::Server, &encode(&command), usize::MAX);
    }
    // A capture that began too late has no reason to complain.
    let mut late = capture.connect(PORT);
    capture.send(&mut late, Side::Server, &encode(&Command::Noop { message_count: 1 }), usize::MAX);
    let Some(over) = capture.streams("gsstp.over_count") else { return };
    assert_eq!(over, BTreeSet::from([0]));
    assert_eq!(capture.streams("gsstp.unknown_session").unwrap(), BTreeSet::from([1]));
}

#[test]
fn sstp_on_any_port_is_known_by_its_connect_and_a_late_capture_reads_fanouts_by_their_length() {
    let mut capture = Capture::new();
    let mut tcp = capture.connect(40_123);
    for (side, command) in &commands(Version::V1_6) {
        capture.send(&mut tcp, *side, &encode(command), 1448);
    }
    let mut ids = Vec::new();
    for version in [Version::V1_5, Version::V1_6] {
        let mut tcp = capture.connect(PORT);
        for (side, command) in &commands(version)[8..] {
            capture.send(&mut tcp, *side, &encode(command), 1448);
            ids.push(encode(command)[0]);
        }
    }
    let Some([found]) = capture.values(["gsstp.command"]) else { return };
    assert_eq!(found.split(',').count(), 20 + ids.len());
    assert_eq!(capture.streams("gsstp.malformed").unwrap(), BTreeSet::new());
}

#[test]
fn tls_on_port_443_is_left_to_its_own_dissector_and_sstp_there_is_not() {
    let mut capture = Capture::new();
    let mut sstp = capture.connect(443);
    capture.send(&mut sstp, Side::Client, &encode(&connect(Version::V1_6, Bytes::new())), usize::MAX);
    let mut tls = capture.connect(443);
    // A ClientHello with one cipher and no extensions.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    capture.send(&mut tls, Side::Client, &hello, usize::MAX);
    let Some(found) = capture.streams("gsstp") else { return };
    assert_eq!(found, BTreeSet::from([0]));
    assert_eq!(capture.streams("tls").unwrap(), BTreeSet::from([1]));
}

/// The tokens of a registration and a login, with whoever carries them.
fn login(profile: Profile) -> Vec<(Side, Command)> {
    use Side::{Client, Server};
    let mut entropy = Xorshift(0x2545_f491_4f6c_dd1d);
    let relay = RelayKeys::generate(&mut entropy);
    let device_url = DeviceUrl::new("dpp://relay/alice").unwrap();
    let account_url = AccountUrl::new("grooveAccount://alice@").unwrap();
    let identity = IdentityUrl::new("grooveIdentity://alice@").unwrap();
    let device = ClientCredentials::generate(profile, &mut entropy);
    let account = ClientCredentials::generate(profile, &mut entropy);
    let keys = relay.public();
    let register = |known: bool, entropy: &mut Xorshift| match known {
        true => security::register_account_on_new_device(
            &device_url,
            &device,
            &account_url,
            &account,
            keys,
            entropy,
        ),
        false => security::register_device_account(
            &device_url,
            &device,
            &account_url,
            &account,
            keys,
            b"pre",
            entropy,
        ),
    };
    let new = register(false, &mut entropy).unwrap();
    let known = register(true, &mut entropy).unwrap();
    let busy = security::busy_response(&new).unwrap();
    let identity_register = security::register_identity(&account_url, &account, &identity, b"").unwrap();
    let identity_busy = security::busy_response(&identity_register).unwrap();
    let device_hello = security::hello(Layer::Device, device_url.as_str(), &device, &mut entropy);
    let record = DeviceRecord {
        credentials: Some(device.as_registered()),
        accounts: vec![account_url.clone()],
        ..DeviceRecord::default()
    };
    let HelloVerdict::Challenged { token: challenge, .. } =
        security::answer_connect(&device_hello.token, &device_url, Some(&record), &mut entropy)
    else {
        panic!("the device is known")
    };
    let security::HelloAnswer::Proof { token: proof } = device_hello.answer(&challenge).unwrap() else {
        panic!("the relay asks for a proof")
    };
    let account_hello = security::hello(Layer::Account, account_url.as_str(), &account, &mut entropy);
    let record = AccountRecord { credentials: Some(account.as_registered()), ..AccountRecord::default() };
    let HelloVerdict::Challenged { token: account_challenge, .. } =
        security::answer_attach(&account_hello.token, &account_url, Some(&record), &mut entropy)
    else {
        panic!("the account is known")
    };
    let security::HelloAnswer::Proof { token: account_proof } =
        account_hello.answer(&account_challenge).unwrap()
    else {
        panic!("the relay asks for a proof")
    };
    vec![
        (Client, connect(Version::V1_6, device_hello.token.clone())),
        (Server, connect_response(Version::V1_6, challenge)),
        (Client, Command::ConnectAuthenticate { token: proof }),
        (Client, Command::Register(account_request(1, new))),
        (Server, Command::RegisterResponse { event: SessionId(1), token: busy }),
        (Client, Command::Register(account_request(2, known))),
        (Client, Command::Register(account_request(3, identity_register))),
        (Server, Command::RegisterResponse { event: SessionId(3), token: identity_busy }),
        (Client, Command::Attach(account_request(4, account_hello.token.clone()))),
        (Server, Command::AttachResponse { event: SessionId(4), token: account_challenge }),
        (Client, Command::AttachAuthenticate { event: SessionId(4), token: account_proof }),
        (
            Server,
            Command::AttachResponse {
                event: SessionId(4),
                token: security::hello_without_key(Layer::Account, profile),
            },
        ),
    ]
}

#[test]
fn the_security_tokens_of_both_profiles_are_read_to_their_last_byte() {
    for profile in [Profile::Modern, Profile::Legacy] {
        let mut capture = Capture::new();
        let mut tcp = capture.connect(PORT);
        for (side, command) in &login(profile) {
            capture.send(&mut tcp, *side, &encode(command), 1448);
        }
        let fields = [
            "gsstps.message",
            "gsstps.major",
            "gsstps.identity",
            "gsstps.status",
            "gsstps.algorithm",
            "gsstps.malformed",
            "gsstp.malformed",
        ];
        let Some([messages, majors, identity, statuses, algorithms, wrong, also]) = capture.values(fields)
        else {
            return;
        };
        assert_eq!((wrong.as_str(), also.as_str()), ("", ""));
        assert_eq!(messages, "1,2,5,12,14,13,12,15,16,17,6,7,10,6");
        assert_eq!(majors, [&profile.major().to_string()[..]; 14].join(","));
        assert_eq!(identity, "grooveIdentity://alice@");
        assert_eq!(statuses, "7,7");
        let legacy = profile == Profile::Legacy;
        assert_eq!(algorithms, if legacy { ["DH,ELGAMAL,RSA,RSA"; 3].join(",") } else { String::new() });
    }
}

#[test]
fn a_token_that_is_cut_short_or_too_long_or_of_a_strange_version_is_malformed() {
    let whole = security::hello_without_key(Layer::Device, Profile::Modern);
    let tokens: [&[u8]; 7] =
        [&whole, &whole[..2], &whole[..6], &[&whole[..], b"x"].concat(), &[3, 0, 1], &[2, 1, 1], &[2, 0, 11]];
    let mut capture = Capture::new();
    for token in tokens {
        let mut tcp = begin(&mut capture, Version::V1_6);
        let token = Bytes::copy_from_slice(token);
        capture.send(&mut tcp, Side::Client, &encode(&Command::ConnectAuthenticate { token }), usize::MAX);
    }
    let Some(found) = capture.streams("gsstps.malformed") else { return };
    assert_eq!(found, (1..7).collect());
}

/// A presence session with one body, in Data commands of 9 bytes.
fn presence(capture: &mut Capture, body: &[u8]) {
    let mut tcp = begin(capture, Version::V1_6);
    let mut send = |command: &Command| capture.send(&mut tcp, Side::Client, &encode(command), 1448);
    send(&open(SESSION, "grooveWanDPP"));
    send(&message(0, b"\0"));
    for payload in body.chunks(9) {
        send(&Command::Data { session: SESSION, payload: Bytes::copy_from_slice(payload) });
    }
    send(&Command::EndMessage { session: SESSION });
}

#[test]
fn presence_is_read_from_whole_bodies_and_broken_ones_are_malformed() {
    let device = |name: &str| DeviceUrl::new(format!("dpp://relay/{name}")).unwrap();
    let mut body = BytesMut::new();
    for message in [
        Presence::Publish { status: Status::Away, devices: vec![] },
        Presence::Subscribe(vec![device("a"), device("b")]),
        Presence::Unsubscribe(vec![]),
        Presence::Notify(vec![(Status::Online, device("c")), (Status::Offline, device("d"))]),
    ] {
        message.encode(&mut body);
    }
    let mut capture = Capture::new();
    presence(&mut capture, &body);
    let broken: [&[u8]; 8] = [
        b"",
        &body[..body.len() - 1],
        &[2, 0, 1, 0, 11, 0, 0, 0, 1, 0, 0],
        &[1, 0, 5, 0, 11, 0, 0, 0, 1, 0, 0],
        &[1, 0, 1, 0, 11, 0, 0, 0, 4, 0, 0],
        &[1, 0, 2, 0, 10, 0, 0, 0, 0, 0],
        &[1, 0, 3, 0, 11, 0, 0, 0, 0, 0, 9],
        &[1, 0, 3, 0, 11, 0, 0, 0, 1, 0, 0],
    ];
    for body in broken {
        presence(&mut capture, body);
    }
    let Some(found) = capture.streams("wandpp.malformed") else { return };
    assert_eq!(found, (1..=broken.len()).collect());
    let first = |field| {
        let lines = capture.dissect(&format!("{field} && tcp.stream == 0"), &[field], 2).unwrap();
        lines.concat().join(",")
    };
    assert_eq!(first("wandpp.message"), "1,2,3,4");
    assert_eq!(first("wandpp.status"), "3,1,2");
    assert_eq!(first("wandpp.device"), "dpp://relay/a,dpp://relay/b,dpp://relay/c,dpp://relay/d");
}
