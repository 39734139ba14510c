//! What holds of SSTP for all inputs: the codec is the identity, no input panics, what has ended stays ended, and two
//! machines back to back lose nothing and acknowledge everything once, whatever their owners do.

mod back_to_back;
#[path = "../pair/mod.rs"]
mod pair;

use bytes::{Bytes, BytesMut};
use pair::{CLIENT, Pair, RELAY, START, config, text};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use relay_core::sstp::command::{
    AccountRequest, CommandId, Connect, FanoutEntry, FanoutOpen, Message, Open, SessionStatus,
};
use relay_core::sstp::connection::Endpoint;
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{
    CloseReason, Command, Connection, DecodeError, Event, OpenResponseId, SessionId, Version,
};
use relay_core::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

// Commands.

fn some_text(least: usize) -> impl Strategy<Value = Text> {
    vec(1u8..0x80, least..40).prop_map(|bytes| Text::new(bytes).expect("without zero, 7-bit"))
}

fn some_bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=most).prop_map(Bytes::from)
}

fn some_session() -> impl Strategy<Value = SessionId> {
    prop_oneof![1u32..8, u32::MAX - 8..=u32::MAX, 1u32..].prop_map(SessionId)
}

fn some_entry() -> impl Strategy<Value = FanoutEntry> {
    (some_text(0), some_text(0), some_text(0)).prop_map(|(identity_url, device_url, relay_url)| FanoutEntry {
        identity_url,
        device_url,
        relay_url,
    })
}

fn some_request() -> impl Strategy<Value = AccountRequest> {
    (some_session(), some_text(0), some_text(1), some_bytes(300)).prop_map(
        |(event, resource_url, account_url, authentication_token)| AccountRequest {
            event,
            resource_url,
            account_url,
            authentication_token,
        },
    )
}

fn some_message() -> impl Strategy<Value = Command> {
    let fields = (some_session(), any::<u32>(), any::<u8>(), some_text(0), some_bytes(50));
    fields.prop_map(|(session, message_count, flags, user_ref, fragmentation)| {
        let flags = flags & 0x77;
        let mut tail = user_ref.as_bytes().to_vec();
        tail.push(0);
        tail.resize(tail.len() + if flags & 0x02 != 0 { 4 } else { 0 }, 0xe0);
        tail.resize(tail.len() + if flags & 0x10 != 0 { 24 } else { 0 }, 0x50);
        if flags & 0x40 != 0 {
            tail.extend_from_slice(&fragmentation);
        }
        Command::Message(Message { session, message_count, flags, tail: tail.into() })
    })
}

fn some_connect() -> impl Strategy<Value = Command> {
    let fields =
        (any::<u8>(), some_text(0), vec(some_text(0), 1..4), some_bytes(300), some_text(0), some_text(0));
    fields.prop_map(
        |(minor_version, target_device_url, sources, authentication_token, version, capabilities)| {
            Command::from(Connect {
                minor_version,
                target_device_url,
                source_device_urls: sources.into(),
                authentication_token,
                peer_product_version: version,
                peer_product_capabilities: capabilities,
            })
        },
    )
}

fn some_command(version: Version) -> impl Strategy<Value = Command> {
    let indexes = vec(any::<u16>(), 0..if version == Version::V1_6 { 1500 } else { 1 });
    let connection = prop_oneof![
        some_connect(),
        (any::<u8>(), any::<u8>(), any::<u32>(), some_bytes(300)).prop_map(
            |(minor_version, response, retry_time, token)| Command::ConnectResponse {
                minor_version,
                response: response.into(),
                retry_time,
                token
            }
        ),
        some_bytes(2050).prop_map(|token| Command::ConnectAuthenticate { token }),
        (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(reason, message_count, return_time)| {
            Command::ConnectClose { reason: reason.into(), message_count, return_time }
        }),
        any::<u32>().prop_map(|message_count| Command::Noop { message_count }),
    ];
    let session = prop_oneof![
        (some_session(), some_text(1), some_text(0), some_text(0)).prop_map(
            |(session, resource_url, identity_url, device_url)| {
                Command::Open(Open { session, resource_url, identity_url, device_url })
            }
        ),
        (some_session(), some_text(1), vec(some_entry(), 0..40)).prop_map(
            move |(session, resource_url, entries)| {
                let open = FanoutOpen::new(session, resource_url, &entries, version);
                Command::FanoutOpen(open.expect("40 entries of 120 bytes fit"))
            }
        ),
        (some_session(), any::<u8>())
            .prop_map(|(session, response)| Command::OpenResponse { session, response: response.into() }),
        (some_session(), any::<u8>(), some_text(0), some_text(0), indexes).prop_map(
            |(session, status, device_url, identity_url, indexes)| {
                let status = status.into();
                Command::SessionStatus(SessionStatus { session, status, device_url, identity_url, indexes })
            }
        ),
        (some_session(), any::<u8>())
            .prop_map(|(session, reason)| Command::Close { session, reason: reason.into() }),
    ];
    let account = prop_oneof![
        some_request().prop_map(Command::Attach),
        some_request().prop_map(Command::Register),
        (some_session(), some_bytes(300)).prop_map(|(event, token)| Command::AttachResponse { event, token }),
        (some_session(), some_bytes(300))
            .prop_map(|(event, token)| Command::AttachAuthenticate { event, token }),
        (some_session(), some_bytes(300))
            .prop_map(|(event, token)| Command::RegisterResponse { event, token }),
    ];
    let data = prop_oneof![
        some_message(),
        (some_session(), vec(any::<u8>(), 1..=2048))
            .prop_map(|(session, payload)| Command::Data { session, payload: payload.into() }),
        some_session().prop_map(|session| Command::EndMessage { session }),
    ];
    prop_oneof![connection, session, account, data]
}

fn some_commands() -> impl Strategy<Value = (Version, Vec<Command>)> {
    prop_oneof![Just(Version::V1_5), Just(Version::V1_6)]
        .prop_flat_map(|version| (Just(version), vec(some_command(version), 1..12)))
}

fn encode_all(commands: &[Command]) -> Bytes {
    let mut out = BytesMut::new();
    for command in commands {
        command.encode(&mut out);
    }
    out.freeze()
}

/// `stream` in pieces of these sizes, over and over.
fn chunks(stream: Bytes, sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(rest.split_to(size.min(rest.len())));
    }
    pieces
}

fn some_sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1usize..8, 1usize..3000, 1usize..100_000], 1..6)
}

fn decode_all(pieces: Vec<Bytes>, version: Version) -> Result<Vec<Command>, DecodeError> {
    let mut reader = FrameReader::default();
    let mut commands = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(frame) = reader.next_frame()? {
            commands.push(Command::decode(frame, version)?);
        }
    }
    Ok(commands)
}

/// A change of valid bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Truncate(Index),
}

fn some_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match mutation {
            Mutation::Set(at, byte) => bytes[at.index(length)] = *byte,
            Mutation::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Mutation::Remove(at) => drop(bytes.remove(at.index(length))),
            Mutation::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Mutation::Truncate(at) => bytes.truncate(at.index(length)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_command_survives_the_wire_however_it_is_cut(
        (version, commands) in some_commands(),
        sizes in some_sizes(),
    ) {
        let pieces = chunks(encode_all(&commands), &sizes);
        prop_assert_eq!(decode_all(pieces, version), Ok(commands));
    }

    #[test]
    fn commandlength_is_within_the_limits_of_the_command((_, commands) in some_commands()) {
        for command in &commands {
            let bytes = encode_all(std::slice::from_ref(command));
            let (least, most) = CommandId::from_byte(bytes[0]).expect("encoded").length_limits();
            prop_assert!((least..=most).contains(&bytes.len()));
            prop_assert_eq!(usize::from(u16::from_le_bytes([bytes[1], bytes[2]])), bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decode_of_arbitrary_bytes_never_panics(id in 0u8..0x14, body in vec(any::<u8>(), 0..200)) {
        for version in [Version::V1_5, Version::V1_6] {
            let _ = Command::decode(Bytes::from(body.clone()), version);
            let mut framed = vec![id, 0, 0];
            framed.extend_from_slice(&body);
            let _ = Command::decode(Bytes::from(framed), version);
            let _ = decode_all(vec![Bytes::from(body.clone())], version);
        }
    }

    #[test]
    fn what_decodes_of_arbitrary_bytes_encodes_and_decodes_to_the_same(
        id in 1u8..=0x12,
        body in vec(prop_oneof![3 => Just(0u8), 1 => 1u8..4, 1 => any::<u8>()], 0..60),
    ) {
        for version in [Version::V1_5, Version::V1_6] {
            let mut framed = vec![id, body.len() as u8 + 3, 0];
            framed.extend_from_slice(&body);
            if let Ok(commands) = decode_all(vec![framed.into()], version) {
                prop_assert_eq!(decode_all(vec![encode_all(&commands)], version), Ok(commands));
            }
        }
    }

    #[test]
    fn mutated_commands_never_panic(
        (version, commands) in some_commands(),
        mutations in vec(some_mutation(), 1..6),
        sizes in some_sizes(),
    ) {
        let mut bytes = encode_all(&commands).to_vec();
        mutate(&mut bytes, &mutations);
        let _ = decode_all(chunks(bytes.into(), &sizes), version);
    }
}

// One machine against a hostile peer.

/// The machines that a peer can meet.
#[derive(Clone, Copy, Debug)]
enum Meeting {
    FreshAcceptor,
    FreshInitiator,
    EstablishedAcceptor,
    EstablishedInitiator,
}

impl Meeting {
    fn machine(self) -> Connection {
        let pair = || Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
        match self {
            Meeting::FreshAcceptor => Connection::acceptor(Arc::new(config(Endpoint::Relay)), START),
            Meeting::FreshInitiator => Pair::new(config(Endpoint::Client), config(Endpoint::Relay)).initiator,
            Meeting::EstablishedAcceptor => pair().acceptor,
            Meeting::EstablishedInitiator => pair().initiator,
        }
    }
}

fn some_meeting() -> impl Strategy<Value = Meeting> {
    prop_oneof![
        Just(Meeting::FreshAcceptor),
        Just(Meeting::FreshInitiator),
        Just(Meeting::EstablishedAcceptor),
        Just(Meeting::EstablishedInitiator),
    ]
}

/// What a willing owner does.
fn react(machine: &mut Connection, now: Timestamp, event: &Event) {
    match event {
        Event::Connect(_) => machine.accept(now, Bytes::from_static(&[1]), true),
        Event::ConnectAuthenticate { .. } => machine.authenticated(),
        Event::Open(open) => machine.respond(open.session, OpenResponseId::Ok),
        Event::FanoutOpen(open) if open.is_empty() => machine.respond_empty_fanout(open.session),
        Event::FanoutOpen(open) => machine.respond(open.session, OpenResponseId::OkStopSending),
        Event::Attach(request) => machine.attach_response(request.event, Bytes::new()),
        Event::Register(request) => machine.register_response(request.event, Bytes::new()),
        Event::Part { end: Some(end), .. } => machine.complete(*end),
        _ => {}
    }
}

/// Feeds the pieces; checks after each that the end, once reached, is final and was told once.
fn feed(machine: &mut Connection, pieces: Vec<Bytes>) -> Result<(), TestCaseError> {
    let mut now = START;
    let mut endings = 0;
    for piece in pieces {
        now = now + Duration::from_millis(100);
        let was_ended = machine.is_ended();
        machine.receive(now, piece);
        while let Some(event) = machine.poll(now) {
            prop_assert!(!was_ended, "{:?} after the end", event);
            react(machine, now, &event);
            endings += usize::from(matches!(event, Event::Ended(_)));
        }
        machine.prepare_output(now);
        prop_assert!(!was_ended || machine.is_ended());
        prop_assert!(!(machine.is_ended() && machine.is_established()));
        prop_assert_eq!(endings, usize::from(machine.is_ended()));
        if was_ended {
            prop_assert_eq!(machine.output_bytes(), 0, "words after the last words");
            prop_assert_eq!(machine.poll_timeout(), None);
        }
        machine.output().take();
    }
    Ok(())
}

/// Commands that make sense together more often than not: few sessions, and a fitting Connect in front of some.
fn some_conversation() -> impl Strategy<Value = Bytes> {
    let connect = Command::from(Connect {
        minor_version: 6,
        target_device_url: text(RELAY),
        source_device_urls: [text(CLIENT)].into_iter().collect(),
        authentication_token: Bytes::new(),
        peer_product_version: Text::EMPTY,
        peer_product_capabilities: Text::EMPTY,
    });
    let step = (0u8..7, 1u32..4, vec(any::<u8>(), 1..100)).prop_map(|(kind, session, bytes)| {
        let session = SessionId(session);
        match kind {
            0 | 1 => Command::Open(Open {
                session,
                resource_url: text("r"),
                identity_url: text("i"),
                device_url: Text::EMPTY,
            }),
            2 | 3 => Command::Message(Message {
                session,
                message_count: 0,
                flags: bytes[0] & 0x05,
                tail: Bytes::from_static(&[0]),
            }),
            4 => Command::Data { session, payload: bytes.into() },
            5 => Command::EndMessage { session },
            _ => Command::Close { session, reason: CloseReason::NoReason },
        }
    });
    (any::<bool>(), vec(step, 0..40)).prop_map(move |(with_connect, steps)| {
        let mut commands = if with_connect { vec![connect.clone()] } else { Vec::new() };
        commands.extend(steps);
        encode_all(&commands)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_connection_survives_arbitrary_bytes(
        meeting in some_meeting(),
        bytes in some_bytes(400),
        sizes in some_sizes(),
    ) {
        feed(&mut meeting.machine(), chunks(bytes, &sizes))?;
    }

    #[test]
    fn a_connection_survives_arbitrary_commands(
        meeting in some_meeting(),
        (_, commands) in some_commands(),
        sizes in some_sizes(),
    ) {
        feed(&mut meeting.machine(), chunks(encode_all(&commands), &sizes))?;
    }

    #[test]
    fn a_connection_survives_a_mutated_conversation(
        meeting in some_meeting(),
        conversation in some_conversation(),
        mutations in vec(some_mutation(), 0..3),
        sizes in some_sizes(),
    ) {
        let mut bytes = conversation.to_vec();
        mutate(&mut bytes, &mutations);
        feed(&mut meeting.machine(), chunks(bytes.into(), &sizes))?;
    }
}
