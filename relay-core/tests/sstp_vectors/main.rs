//! The wire form of every command, byte for byte, (sstp-messages 4 and 9.2, wire-profile 1). Says nothing about what a command means.

use bytes::{Bytes, BytesMut};
use relay_core::sstp::command::{
    AccountRequest, CommandId, Connect, FanoutEntry, FanoutOpen, Message, Open, SessionStatus,
};
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{
    CloseReason, Command, ConnectResponseId, DecodeError, OpenResponseId, SessionId, StatusId, Version,
};

mod refusals;

const BOTH: &[Version] = &[Version::V1_5, Version::V1_6];
const ONLY_1_5: &[Version] = &[Version::V1_5];
const ONLY_1_6: &[Version] = &[Version::V1_6];

fn text(text: &'static str) -> Text {
    Text::new(text).expect("a literal is ASCII")
}

fn hex(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits")).collect()
}

/// Cuts and decodes exactly one command.
fn decode(bytes: &[u8], version: Version) -> Result<Command, DecodeError> {
    let mut reader = FrameReader::default();
    reader.push(Bytes::copy_from_slice(bytes));
    let frame = reader.next_frame()?.expect("the bytes are one whole command");
    assert_eq!(frame.len(), bytes.len(), "one command and nothing else");
    Command::decode(frame, version)
}

fn encode(command: &Command) -> Vec<u8> {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    out.to_vec()
}

/// `bytes` with CommandLength made to fit.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("CommandLength has 16 bits");
    bytes[1..3].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn open(session: u32, device_url: &'static str) -> Command {
    Command::Open(Open {
        session: SessionId(session),
        resource_url: text("apphandler"),
        identity_url: text("clientB"),
        device_url: text(device_url),
    })
}

fn entry(identity_url: &'static str, device_url: &'static str, relay_url: &'static str) -> FanoutEntry {
    FanoutEntry { identity_url: text(identity_url), device_url: text(device_url), relay_url: text(relay_url) }
}

fn fanout(entries: &[FanoutEntry], version: Version) -> Command {
    let open = FanoutOpen::new(SessionId(5), text("apphandler"), entries, version);
    Command::FanoutOpen(open.expect("the entries fit"))
}

fn session_status(indexes: &[u16]) -> Command {
    Command::SessionStatus(SessionStatus {
        session: SessionId(5),
        status: StatusId::DnsLookupFailed,
        device_url: text("relayB"),
        identity_url: Text::EMPTY,
        indexes: indexes.to_vec(),
    })
}

fn connect(minor_version: u8) -> Command {
    Command::from(Connect {
        minor_version,
        target_device_url: text("relayA"),
        source_device_urls: [text("device1")].into_iter().collect(),
        authentication_token: Bytes::new(),
        peer_product_version: text("Groove Client 14.0 4006"),
        peer_product_capabilities: Text::EMPTY,
    })
}

fn account_request(resource_url: &'static str, token: &'static [u8]) -> AccountRequest {
    AccountRequest {
        event: SessionId(2),
        resource_url: text(resource_url),
        account_url: text("acct1"),
        authentication_token: Bytes::from_static(token),
    }
}

fn message(flags: u8, tail: &'static [u8]) -> Command {
    Command::Message(Message {
        session: SessionId(1),
        message_count: 3,
        flags,
        tail: Bytes::from_static(tail),
    })
}

struct Vector {
    name: &'static str,
    versions: &'static [Version],
    hex: &'static str,
    command: Command,
}

/// The vectors of sstp-messages 9.2.
fn vectors_of_the_document() -> Vec<Vector> {
    let two = [entry("idB", "devB", ""), entry("idC", "", "")];
    vec![
        Vector {
            name: "Close NoReason",
            versions: BOTH,
            hex: "11 08 00  01 00 00 00  00",
            command: Command::Close { session: SessionId(1), reason: CloseReason::NoReason },
        },
        Vector {
            name: "Close QuotaWouldBeExceeded",
            versions: BOTH,
            hex: "11 08 00  04 03 02 01  0b",
            command: Command::Close {
                session: SessionId(0x0102_0304),
                reason: CloseReason::QuotaWouldBeExceeded,
            },
        },
        Vector {
            name: "Open device-targeted",
            versions: BOTH,
            hex: "05 25 00  01 00 00 00
                  61 70 70 68 61 6e 64 6c 65 72 00  63 6c 69 65 6e 74 42 00  64 65 76 69 63 65 32 00  00  00 00",
            command: open(1, "device2"),
        },
        Vector {
            name: "Open identity-targeted",
            versions: BOTH,
            hex: "05 1e 00  03 00 00 00
                  61 70 70 68 61 6e 64 6c 65 72 00  63 6c 69 65 6e 74 42 00  00  00  00 00",
            command: open(3, ""),
        },
        Vector {
            name: "Attach",
            versions: BOTH,
            hex: "08 14 00  02 00 00 00  00  61 63 63 74 31 00  04 00  de ad be ef",
            command: Command::Attach(account_request("", &[0xde, 0xad, 0xbe, 0xef])),
        },
        Vector {
            name: "SessionStatus single",
            versions: BOTH,
            hex: "12 11 00  05 00 00 00  01  00  72 65 6c 61 79 42 00  00",
            command: session_status(&[]),
        },
        Vector {
            name: "Connect 1.6",
            versions: BOTH,
            hex: "01 31 00  01 06 00  72 65 6c 61 79 41 00  01 64 65 76 69 63 65 31 00  00 00
                  47 72 6f 6f 76 65 20 43 6c 69 65 6e 74 20 31 34 2e 30 20 34 30 30 36 00  00",
            command: connect(6),
        },
        Vector {
            name: "Connect 1.5",
            versions: BOTH,
            hex: "01 31 00  01 05 00  72 65 6c 61 79 41 00  01 64 65 76 69 63 65 31 00  00 00
                  47 72 6f 6f 76 65 20 43 6c 69 65 6e 74 20 31 34 2e 30 20 34 30 30 36 00  00",
            command: connect(5),
        },
        Vector {
            name: "FanoutOpen 1.5",
            versions: ONLY_1_5,
            hex: "06 27 00  05 00 00 00  61 70 70 68 61 6e 64 6c 65 72 00  00  02 00
                  69 64 42 00  64 65 76 42 00  00  69 64 43 00  00  00  00 00",
            command: fanout(&two, Version::V1_5),
        },
        Vector {
            name: "FanoutOpen 1.6",
            versions: ONLY_1_6,
            hex: "06 29 00  05 00 00 00  61 70 70 68 61 6e 64 6c 65 72 00  00  02 00
                  69 64 42 00  64 65 76 42 00  00  00  69 64 43 00  00  00  00  00 00",
            command: fanout(&two, Version::V1_6),
        },
        Vector {
            name: "SessionStatus multi",
            versions: ONLY_1_6,
            hex: "12 17 00  05 00 00 00  01  00  72 65 6c 61 79 42 00  00  02 00  00 00  01 00",
            command: session_status(&[0, 1]),
        },
        Vector {
            name: "Message A and D",
            versions: BOTH,
            hex: "0d 0d 00  01 00 00 00  03 00 00 00  05  00",
            command: message(0x05, &[0]),
        },
        Vector {
            name: "Data",
            versions: BOTH,
            hex: "0e 0c 00  01 00 00 00  68 65 6c 6c 6f",
            command: Command::Data { session: SessionId(1), payload: Bytes::from_static(b"hello") },
        },
        Vector {
            name: "EndMessage",
            versions: BOTH,
            hex: "0f 07 00  01 00 00 00",
            command: Command::EndMessage { session: SessionId(1) },
        },
        Vector {
            name: "Noop",
            versions: BOTH,
            hex: "10 07 00  03 00 00 00",
            command: Command::Noop { message_count: 3 },
        },
        Vector {
            name: "OpenResponse Ok",
            versions: BOTH,
            hex: "07 08 00  01 00 00 00  00",
            command: Command::OpenResponse { session: SessionId(1), response: OpenResponseId::Ok },
        },
        Vector {
            name: "OpenResponse hold",
            versions: BOTH,
            hex: "07 08 00  01 00 00 00  0b",
            command: Command::OpenResponse { session: SessionId(1), response: OpenResponseId::OkStopSending },
        },
    ]
}

/// Vectors of our own, for what the document has none: layouts of wire-profile 1.
fn vectors_of_the_profile() -> Vec<Vector> {
    vec![
        Vector {
            name: "ConnectResponse TryLater",
            versions: BOTH,
            hex: "02 0c 00  01 05 02  3c 00 00 00  00 00",
            command: Command::ConnectResponse {
                minor_version: 5,
                response: ConnectResponseId::TryLater,
                retry_time: 60,
                token: Bytes::new(),
            },
        },
        Vector {
            name: "ConnectResponse Ok with a token",
            versions: BOTH,
            hex: "02 0f 00  01 06 00  00 00 00 00  03 00  01 04 03",
            command: Command::ConnectResponse {
                minor_version: 6,
                response: ConnectResponseId::Ok,
                retry_time: 0,
                token: Bytes::from_static(&[1, 4, 3]),
            },
        },
        Vector {
            name: "ConnectAuthenticate",
            versions: BOTH,
            hex: "03 07 00  02 00  ca fe",
            command: Command::ConnectAuthenticate { token: Bytes::from_static(&[0xca, 0xfe]) },
        },
        Vector {
            name: "ConnectClose Resting",
            versions: BOTH,
            hex: "04 0c 00  01  07 00 00 00  2c 01 00 00",
            command: Command::ConnectClose {
                reason: CloseReason::Resting,
                message_count: 7,
                return_time: 300,
            },
        },
        Vector {
            name: "AttachResponse",
            versions: BOTH,
            hex: "09 0b 00  02 00 00 00  02 00  ca fe",
            command: Command::AttachResponse {
                event: SessionId(2),
                token: Bytes::from_static(&[0xca, 0xfe]),
            },
        },
        Vector {
            name: "AttachAuthenticate",
            versions: BOTH,
            hex: "0a 0a 00  02 00 00 00  01 00  fe",
            command: Command::AttachAuthenticate { event: SessionId(2), token: Bytes::from_static(&[0xfe]) },
        },
        Vector {
            name: "Register",
            versions: BOTH,
            hex: "0b 18 00  02 00 00 00  72 65 6c 61 79 41 00  61 63 63 74 31 00  02 00  ca fe",
            command: Command::Register(account_request("relayA", &[0xca, 0xfe])),
        },
        Vector {
            name: "RegisterResponse without a token",
            versions: BOTH,
            hex: "0c 09 00  ff ff ff ff  00 00",
            command: Command::RegisterResponse { event: SessionId(u32::MAX), token: Bytes::new() },
        },
        Vector {
            name: "Message with Ephemeral Fields",
            versions: BOTH,
            hex: "0d 13 00  01 00 00 00  03 00 00 00  02  75 31 00  10 0e 00 00",
            command: message(0x02, &[b'u', b'1', 0, 0x10, 0x0e, 0, 0]),
        },
        Vector {
            name: "Message with StreamSize Fields",
            versions: BOTH,
            hex: "0d 25 00  01 00 00 00  03 00 00 00  10  00
                  07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07",
            command: message(
                0x10,
                &[0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
            ),
        },
        Vector {
            name: "Message with Fragmentation Fields",
            versions: BOTH,
            hex: "0d 10 00  01 00 00 00  03 00 00 00  40  00  ff 00 80",
            command: message(0x40, &[0, 0xff, 0, 0x80]),
        },
        Vector {
            name: "Message with F but no byte of Fragmentation Fields",
            versions: BOTH,
            hex: "0d 0d 00  01 00 00 00  03 00 00 00  40  00",
            command: message(0x40, &[0]),
        },
        Vector {
            name: "Message with all flags and fields",
            versions: BOTH,
            hex: "0d 2b 00  01 00 00 00  03 00 00 00  77  75 00  10 0e 00 00
                  01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01  ee",
            command: message(
                0x77,
                &[
                    b'u', 0, 0x10, 0x0e, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                    1, 1, 1, 0xee,
                ],
            ),
        },
        Vector {
            name: "FanoutOpen without entries",
            versions: BOTH,
            hex: "06 17 00  05 00 00 00  61 70 70 68 61 6e 64 6c 65 72 00  00  00 00  00 00",
            command: Command::FanoutOpen(
                FanoutOpen::new(SessionId(5), text("apphandler"), [], Version::V1_5).expect("it fits"),
            ),
        },
    ]
}

fn all_vectors() -> Vec<Vector> {
    let mut vectors = vectors_of_the_document();
    vectors.extend(vectors_of_the_profile());
    vectors
}

#[test]
fn every_vector_encodes_to_its_bytes() {
    for Vector { name, hex: bytes, command, .. } in all_vectors() {
        assert_eq!(encode(&command), hex(bytes), "{name}");
    }
}

#[test]
fn every_vector_decodes_to_its_value() {
    for Vector { name, versions, hex: bytes, command } in all_vectors() {
        for &version in versions {
            let decoded = decode(&hex(bytes), version).unwrap_or_else(|error| panic!("{name}: {error}"));
            match (&decoded, &command) {
                // An empty FanoutOpen has one wire form in both versions; the value remembers its version.
                (Command::FanoutOpen(decoded), Command::FanoutOpen(open)) if open.is_empty() => {
                    assert_eq!((decoded.session, decoded.len()), (open.session, 0), "{name}");
                    assert_eq!(decoded.resource_url, open.resource_url, "{name}");
                }
                _ => assert_eq!(decoded, command, "{name} in {version:?}"),
            }
        }
    }
}

#[test]
fn there_is_a_vector_for_each_of_the_18_commands() {
    for id in CommandId::ALL {
        let found = all_vectors().iter().any(|vector| hex(vector.hex)[0] == id as u8);
        assert!(found, "{id:?}");
    }
}

#[test]
fn a_decoded_fanout_open_gives_its_entries_in_order() {
    let two = [entry("idB", "devB", ""), entry("idC", "", "relayC")];
    for &version in BOTH {
        let Ok(Command::FanoutOpen(open)) = decode(&encode(&fanout(&two, version)), version) else {
            panic!("{version:?}");
        };
        assert_eq!(open.len(), 2);
        assert_eq!(open.entries().collect::<Vec<_>>(), two);
    }
}

#[test]
fn the_ephemeral_lifetime_is_read_from_the_tail_behind_user_ref() {
    let tail = [b'u', b'1', 0, 0x10, 0x0e, 0, 0];
    assert_eq!(Message::ephemeral_seconds(0x02, &tail), Some(3600));
    assert_eq!(Message::ephemeral_seconds(0x00, &tail), None, "without E there is none");
    assert_eq!(Message::ephemeral_seconds(0x02, &tail[..6]), None, "cut short");
    assert_eq!(Message::ephemeral_seconds(0x02, b"u1"), None, "UserRef has no end");
    assert_eq!(Message::user_ref(&tail), b"u1");
    assert_eq!(Message::user_ref(&[0]), b"");
}

// Lengths (4.19).

/// The table of sstp-messages 4.19, as restated by wire-profile 1, and the shortest form that the fields of each allow.
const LENGTH_LIMITS: [(CommandId, usize, usize); 18] = [
    (CommandId::Connect, 13, 2055),
    (CommandId::ConnectResponse, 12, 2055),
    (CommandId::ConnectAuthenticate, 5, 2055),
    (CommandId::ConnectClose, 12, 12),
    (CommandId::Open, 14, 2055),
    (CommandId::FanoutOpen, 14, 65535),
    (CommandId::OpenResponse, 8, 8),
    (CommandId::Attach, 12, 2055),
    (CommandId::AttachResponse, 9, 2055),
    (CommandId::AttachAuthenticate, 9, 2055),
    (CommandId::Register, 12, 8192),
    (CommandId::RegisterResponse, 9, 2055),
    (CommandId::Message, 13, 2055),
    (CommandId::Data, 8, 2055),
    (CommandId::EndMessage, 7, 7),
    (CommandId::Noop, 7, 7),
    (CommandId::Close, 8, 8),
    (CommandId::SessionStatus, 11, 65535),
];

#[test]
fn the_prefix_alone_is_accepted_at_the_length_limits_and_refused_beside_them() {
    for (command, least, most) in LENGTH_LIMITS {
        let prefix = |length: usize| {
            let [low, high] = u16::try_from(length).expect("16 bits").to_le_bytes();
            let mut reader = FrameReader::default();
            reader.push(Bytes::copy_from_slice(&[command as u8, low, high]));
            reader.next_frame()
        };
        assert_eq!(prefix(least), Ok(None), "{command:?}");
        assert_eq!(prefix(most), Ok(None), "{command:?}");
        for length in [0, 2, least - 1] {
            assert_eq!(prefix(length), Err(DecodeError::Length { command, length }));
        }
        if most < 65535 {
            assert_eq!(prefix(most + 1), Err(DecodeError::Length { command, length: most + 1 }));
        }
    }
}

#[test]
fn the_shortest_form_of_every_command_decodes() {
    let shortest = [
        "01 0d 00  01 06 00  00  01 00  00 00  00  00",
        "02 0c 00  01 06 00  00 00 00 00  00 00",
        "03 05 00  00 00",
        "04 0c 00  00  00 00 00 00  00 00 00 00",
        "05 0e 00  01 00 00 00  72 00  00  00  00  00 00",
        "06 0e 00  01 00 00 00  72 00  00  00 00  00 00",
        "07 08 00  01 00 00 00  00",
        "08 0c 00  01 00 00 00  00  61 00  00 00",
        "09 09 00  01 00 00 00  00 00",
        "0a 09 00  01 00 00 00  00 00",
        "0b 0c 00  01 00 00 00  00  61 00  00 00",
        "0c 09 00  01 00 00 00  00 00",
        "0d 0d 00  01 00 00 00  00 00 00 00  00  00",
        "0e 08 00  01 00 00 00  2a",
        "0f 07 00  01 00 00 00",
        "10 07 00  00 00 00 00",
        "11 08 00  01 00 00 00  00",
        "12 0b 00  01 00 00 00  01  00  00  00",
    ];
    for (bytes, (command, least, _)) in shortest.iter().map(|text| hex(text)).zip(LENGTH_LIMITS) {
        assert_eq!((bytes[0], bytes.len()), (command as u8, least));
        for &version in BOTH {
            let decoded = decode(&bytes, version).unwrap_or_else(|error| panic!("{command:?}: {error}"));
            assert_eq!(encode(&decoded), bytes);
        }
    }
}

#[test]
fn the_longest_form_of_the_commands_with_a_token_decodes() {
    for (id, head) in [(0x02u8, 12usize), (0x03, 5), (0x09, 9), (0x0a, 9), (0x0c, 9)] {
        let token = 2055 - head;
        let mut bytes = vec![0; 2055];
        bytes[0] = id;
        bytes[3] = 1;
        bytes[head - 2..head].copy_from_slice(&(token as u16).to_le_bytes());
        if id == 0x03 {
            bytes[3] = (token & 0xff) as u8;
        }
        let bytes = with_length(bytes);
        let decoded = decode(&bytes, Version::V1_6).unwrap_or_else(|error| panic!("{id:#04x}: {error}"));
        assert_eq!(encode(&decoded), bytes, "{id:#04x}");
    }
}

#[test]
fn data_of_2048_bytes_has_length_field_07_08() {
    let command = Command::Data { session: SessionId(1), payload: Bytes::from(vec![0x5a; 2048]) };
    let bytes = encode(&command);
    assert_eq!(&bytes[..7], &[0x0e, 0x07, 0x08, 1, 0, 0, 0]);
    assert_eq!(bytes.len(), 2055);
    assert_eq!(decode(&bytes, Version::V1_6), Ok(command));
}

#[test]
fn data_of_2049_bytes_or_none_is_refused() {
    for payload in [0, 2049] {
        let mut bytes = hex("0e 00 00  01 00 00 00");
        bytes.resize(7 + payload, 0x5a);
        assert_eq!(
            decode(&with_length(bytes), Version::V1_6),
            Err(DecodeError::Length { command: CommandId::Data, length: 7 + payload })
        );
    }
}

#[test]
#[should_panic(expected = "payload of Data is 1 to 2048 bytes")]
fn data_of_2049_bytes_is_not_encoded() {
    encode(&Command::Data { session: SessionId(1), payload: Bytes::from(vec![0; 2049]) });
}

/// A FanoutOpen with entries of 101 (1.6: 102) bytes that is `length` bytes long.
fn fanout_of_length(length: usize, version: Version) -> Option<FanoutOpen> {
    let entry_bytes = if version == Version::V1_6 { 102 } else { 101 };
    let full = FanoutEntry {
        identity_url: Text::new(vec![b'i'; 50]).expect("ASCII"),
        device_url: Text::new(vec![b'd'; 48]).expect("ASCII"),
        relay_url: Text::EMPTY,
    };
    // 12 bytes, a ResourceURL of one character and its end, entries; what is missing is a longer ResourceURL.
    let count = (length - 14) / entry_bytes;
    let resource = vec![b'r'; 1 + (length - 14) % entry_bytes];
    let entries = vec![full; count];
    FanoutOpen::new(SessionId(1), Text::new(resource).expect("ASCII"), &entries, version)
}

#[test]
fn fanout_open_of_65535_bytes_is_the_longest() {
    for &version in BOTH {
        let open = fanout_of_length(65535, version).expect("it fits exactly");
        let bytes = encode(&Command::FanoutOpen(open.clone()));
        assert_eq!((bytes.len(), &bytes[..3]), (65535, &[0x06, 0xff, 0xff][..]));
        assert_eq!(decode(&bytes, version), Ok(Command::FanoutOpen(open)));
        assert_eq!(fanout_of_length(65536, version), None, "{version:?}");
    }
}

#[test]
fn fanout_open_of_65536_entries_is_not_built() {
    let entry = FanoutEntry { identity_url: Text::EMPTY, device_url: Text::EMPTY, relay_url: Text::EMPTY };
    let entries = vec![entry; 65536];
    assert_eq!(FanoutOpen::new(SessionId(1), text("r"), &entries, Version::V1_5), None);
}
