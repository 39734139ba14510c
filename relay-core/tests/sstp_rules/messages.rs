//! Message, Data, EndMessage and Noop (sstp-behaviour 7.0, 6.3), parts of long messages, and sending data (3.1.4.6).

use crate::pair::{Pair, Side, config, text};
use crate::script::*;
use bytes::Bytes;
use relay_core::sstp::connection::{Endpoint, Part};
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Command, Event, SessionId};
use relay_core::store::PART_BYTES;

const UNKNOWN: CloseReason = CloseReason::TooManyUnknownSessionCmds;

// Receiving.

#[test]
fn message_row_1_for_an_unknown_session_closes_with_0x0f() {
    let mut script = Script::relay();
    let events = script.receive(begin(1, 0, 0));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn message_row_1_on_a_session_of_ours_closes_with_0x0f() {
    for command in [begin as fn(u32, u32, u8) -> Command, |id, _, _| data(id, b"x"), |id, _, _| end(id)] {
        let mut script = Script::relay();
        let session = script.ready_session();
        let events = script.receive(command(session.0, 0, 0));
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn message_row_2_within_a_sequence_closes_with_0x03() {
    for before in [vec![begin(1, 0, 0)], vec![begin(1, 0, 0), data(1, b"x")]] {
        let mut script = Script::relay_with_session(1);
        assert_eq!(script.receive_all(before), []);
        let events = script.receive(begin(1, 0, 0));
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn message_row_4_acknowledges() {
    let mut script = Script::relay_with_session(1);
    let session = script.ready_session();
    script.send_message(session, 70);
    script.send_message(session, 71);
    let events = script.receive(begin(1, 2, 0));
    assert_eq!(events, [70, 71].map(|tag| Event::Acknowledged { session, tag, count: 1 }));
}

#[test]
fn data_row_1_for_an_unknown_session_closes_with_0x0f() {
    let mut script = Script::relay();
    let events = script.receive(data(1, b"x"));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn data_row_2_without_message_closes_with_0x03() {
    let mut script = Script::relay_with_session(1);
    script.receive_message(1, 0);
    let events = script.receive(data(1, b"x"));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn end_message_row_1_for_an_unknown_session_closes_with_0x0f() {
    let mut script = Script::relay();
    let events = script.receive(end(1));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn end_message_row_2_without_message_closes_with_0x03() {
    let mut script = Script::relay_with_session(1);
    script.receive_message(1, 0);
    let events = script.receive(end(1));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn end_message_row_3_gives_the_message_as_it_was_sent() {
    let mut script = Script::relay_with_session(1);
    let tail = Bytes::from_static(&[b'u', 0, 9, 0, 0, 0]);
    let flags = 0x23; // G, E, D
    let message = relay_core::sstp::command::Message {
        session: SessionId(1),
        message_count: 0,
        flags,
        tail: tail.clone(),
    };
    let events = script.receive_all([
        Command::Message(message),
        data(1, b"abc"),
        data(1, &[7; 2048]),
        data(1, b"def"),
        end(1),
    ]);
    let [Event::Part { session: SessionId(1), part, end: Some(_) }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((part.index, part.flags, &part.tail), (0, flags, &tail));
    assert_eq!(part.payload.concat(), [b"abc", &[7; 2048][..], b"def"].concat());
    assert_eq!(part.payload_bytes, 2054);
    assert_eq!(script.machine.unfinished(), 1);
}

#[test]
fn a_message_without_data_is_an_empty_message() {
    let mut script = Script::relay_with_session(1);
    let events = script.receive_all([begin(1, 0, 0), end(1)]);
    let [Event::Part { part, end: Some(_), .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((part.index, part.payload_bytes, part.payload.len()), (0, 0, 0));
}

#[test]
fn sequences_of_different_sessions_interleave() {
    let mut script = Script::relay_with_session(1);
    script.opened(3);
    let events = script.receive_all([
        begin(1, 0, 0),
        begin(3, 0, 0),
        data(3, b"three"),
        data(1, b"on"),
        end(3),
        data(1, b"e"),
        end(1),
    ]);
    let payloads: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Part { session, part, end: Some(_) } => (session.0, part.payload.concat()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [(3, b"three".to_vec()), (1, b"one".to_vec())]);
}

#[test]
fn messages_on_a_stopped_session_are_legal() {
    let mut script = Script::relay_with_session(1);
    script.machine.respond(SessionId(1), relay_core::sstp::OpenResponseId::OkStopSending);
    script.receive_message(1, 0);
    assert!(script.machine.is_established());
}

#[test]
fn noop_asks_for_no_reply() {
    let mut script = Script::relay();
    assert_eq!(script.receive(noop(0)), []);
    assert_eq!(script.sent(), []);
}

// Parts.

/// The parts of a message of `payload`, cut into Data commands of `piece` bytes.
fn parts_of(payload: &[u8], piece: usize) -> Vec<(Part, bool)> {
    let mut script = Script::relay_with_session(1);
    let mut events = script.receive(begin(1, 0, 0));
    for piece in payload.chunks(piece) {
        events.extend(script.receive(data(1, piece)));
        assert!(script.machine.held_bytes() <= PART_BYTES);
    }
    events.extend(script.receive(end(1)));
    assert_eq!(script.machine.held_bytes(), 0);
    events
        .into_iter()
        .map(|event| match event {
            Event::Part { session: SessionId(1), part, end } => (part, end.is_some()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_long_message_comes_in_parts_of_which_only_the_last_has_an_end() {
    let payload: Vec<u8> = (0..3 * PART_BYTES + 5).map(|n| (n % 251) as u8).collect();
    for (length, piece, counts) in [
        (1, 2048, vec![1]),
        (PART_BYTES, 2048, vec![PART_BYTES]),
        (PART_BYTES + 1, 2048, vec![PART_BYTES, 1]),
        (2 * PART_BYTES, 2048, vec![PART_BYTES, PART_BYTES]),
        (3 * PART_BYTES + 5, 2048, vec![PART_BYTES, PART_BYTES, PART_BYTES, 5]),
        (PART_BYTES, 500, vec![PART_BYTES]),
        (PART_BYTES + 100, 1000, vec![131_000, 172]),
    ] {
        let parts = parts_of(&payload[..length], piece);
        let found: Vec<usize> = parts.iter().map(|(part, _)| part.payload_bytes).collect();
        assert_eq!(found, counts, "{length} bytes in pieces of {piece}");
        let joined: Vec<u8> = parts.iter().flat_map(|(part, _)| part.payload.concat()).collect();
        assert!(joined == payload[..length], "{length} bytes in pieces of {piece} arrived changed");
        for (index, (part, end)) in parts.iter().enumerate() {
            assert_eq!(part.index as usize, index);
            assert_eq!(*end, index + 1 == parts.len());
            assert_eq!(part.tail, [0][..]);
        }
    }
}

#[test]
fn part_indexes_begin_anew_with_each_message() {
    let mut script = Script::relay_with_session(1);
    for _ in 0..2 {
        let mut indexes = Vec::new();
        let mut commands = vec![begin(1, 0, 0)];
        commands.extend((0..65).map(|_| data(1, &[1; 2048])));
        commands.push(end(1));
        for event in script.receive_all(commands) {
            let Event::Part { part, .. } = event else { panic!("{event:?}") };
            indexes.push(part.index);
        }
        assert_eq!(indexes, [0, 1]);
    }
}

// Sending (3.1.4.6).

#[test]
fn data_is_sent_in_pieces_of_at_most_2048_bytes() {
    for (bytes, pieces) in [(0, vec![]), (1, vec![1]), (2048, vec![2048]), (5000, vec![2048, 2048, 904])] {
        let mut script = Script::relay();
        let session = script.ready_session();
        script.machine.begin_message(session, 0x01, &[b'u', 0]);
        script.machine.message_data(session, Bytes::from(vec![9; bytes]));
        script.machine.end_message(session, 1);
        let sent = script.sent();
        let [Command::Message(message), datas @ .., Command::EndMessage { session: ended }] = &sent[..]
        else {
            panic!("{sent:?}")
        };
        assert_eq!((message.session, message.flags, &message.tail[..]), (session, 0x01, &[b'u', 0][..]));
        assert_eq!(*ended, session);
        let lengths: Vec<usize> = datas
            .iter()
            .map(|command| match command {
                Command::Data { payload, session: of } if *of == session => payload.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, pieces);
    }
}

#[test]
fn a_message_counts_as_outstanding_from_its_end() {
    let mut script = Script::relay();
    let session = script.ready_session();
    script.machine.begin_message(session, 0, &[0]);
    assert_eq!(script.machine.unacknowledged(), 0);
    script.machine.end_message(session, 1);
    assert_eq!(script.machine.unacknowledged(), 1);
}

#[test]
fn the_payload_of_one_connection_is_sent_on_another_unchanged() {
    let mut pair = Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
    let session = pair.initiator.open(text("app"), Text::EMPTY, Text::EMPTY).unwrap();
    pair.deliver(Side::Initiator, usize::MAX);
    let payload: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
    pair.initiator.begin_message(session, 0, &[0]);
    pair.initiator.message_data(session, Bytes::from(payload.clone()));
    pair.initiator.end_message(session, 1);
    let events = pair.deliver(Side::Initiator, usize::MAX);
    let [Event::Part { part, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(part.payload.concat(), payload);
}
