//! What one peer may use of a connection: sessions, bytes of one message, bytes held.

use crate::pair::{config, text};
use crate::script::*;
use bytes::Bytes;
use relay_core::sstp::connection::Endpoint;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Command, ConnectionConfig, Event, OpenResponseId, SessionId, Version};

fn relay(limit: impl FnOnce(&mut ConnectionConfig)) -> Script {
    let mut config = config(Endpoint::Relay);
    limit(&mut config);
    Script::relay_with(config)
}

// max_sessions.

#[test]
fn an_open_above_max_sessions_is_refused_and_the_connection_lives() {
    let mut script = relay(|config| config.max_sessions = 2);
    script.opened(1);
    script.opened(2);
    for command in [open(3), fanout_open(4, &[""], Version::V1_6)] {
        let session = if matches!(command, Command::Open(_)) { 3 } else { 4 };
        assert_eq!(script.receive(command), []);
        assert_eq!(script.sent(), [open_response(session, OpenResponseId::NoResource)]);
        assert_eq!(script.receive_all(message(session, 0, &[b"x"])), [], "its late commands are dropped");
    }
    script.receive(close(1, CloseReason::Idle));
    script.opened(5);
}

#[test]
fn a_duplicate_session_is_a_violation_even_above_max_sessions() {
    let mut script = relay(|config| config.max_sessions = 1);
    script.opened(1);
    let events = script.receive(open(1));
    script.assert_violation(&events, CloseReason::TooManyUnknownSessionCmds);
}

#[test]
fn an_attach_or_register_above_max_sessions_is_closed_and_the_connection_lives() {
    let mut script = relay(|config| config.max_sessions = 1);
    script.opened(1);
    for command in [Command::Attach(account_request(3)), Command::Register(account_request(3))] {
        assert_eq!(script.receive(command), []);
        assert_eq!(script.sent(), [close(3, CloseReason::InternalError)]);
        assert_eq!(script.receive(close(3, CloseReason::NoReason)), [], "it was given up meanwhile");
    }
    assert!(script.machine.is_established());
}

#[test]
fn sessions_of_both_directions_count_towards_max_sessions() {
    let mut script = relay(|config| config.max_sessions = 2);
    script.opened(1);
    let ours = script.ready_session();
    assert_eq!(script.machine.open(text("app"), Text::EMPTY, Text::EMPTY), None);
    assert_eq!(script.machine.attach(text("account"), Bytes::new()), None);
    assert_eq!(script.machine.open_fanout(|_, _| unreachable!("there is no room")), None);
    assert_eq!(script.receive(open(3)), []);
    assert_eq!(script.sent(), [open_response(3, OpenResponseId::NoResource)]);
    script.machine.close_session(ours, CloseReason::Idle);
    assert!(script.machine.open(text("app"), Text::EMPTY, Text::EMPTY).is_some());
}

// max_message_bytes.

#[test]
fn a_message_of_exactly_max_message_bytes_is_taken() {
    let mut script = relay(|config| config.max_message_bytes = 3000);
    script.opened(1);
    let events = script.receive_all(message(1, 0, &[&[1; 2048], &[2; 952]]));
    assert!(matches!(&events[..], [Event::Part { part, end: Some(_), .. }] if part.payload_bytes == 3000));
}

#[test]
fn a_longer_message_closes_its_session_and_others_are_acknowledged_in_step() {
    let mut script = relay(|config| config.max_message_bytes = 3000);
    script.opened(1);
    script.opened(3);
    let before = script.receive_message(3, 0);
    let events = script.receive_all([begin(1, 0, 0), data(1, &[1; 2048]), data(1, &[2; 953])]);
    assert_eq!(events, [Event::MessageTooLong(SessionId(1))]);
    assert_eq!(script.sent(), [close(1, CloseReason::QuotaWouldBeExceeded)]);
    assert_eq!(script.machine.held_bytes(), 0);
    assert_eq!(script.receive_all([data(1, &[3; 2048]), end(1)]), [], "the rest is dropped");
    let after = script.receive_message(3, 0x04);
    script.machine.complete(before);
    script.machine.complete(after);
    assert_eq!(script.sent(), [noop(3)], "the dropped message counts");
    assert!(script.machine.is_established());
}

#[test]
fn max_message_bytes_counts_parts_that_were_handed_on() {
    let mut script = relay(|config| {
        config.max_message_bytes = 3000;
        config.max_held_bytes = 0;
    });
    script.opened(1);
    assert_eq!(script.receive(begin(1, 0, 0)), []);
    assert!(matches!(script.receive(data(1, &[1; 2048]))[..], [Event::Part { end: None, .. }]));
    assert_eq!(script.receive(data(1, &[2; 953])), [Event::MessageTooLong(SessionId(1))]);
}

#[test]
fn max_message_bytes_is_for_each_message_of_a_session() {
    let mut script = relay(|config| config.max_message_bytes = 2048);
    script.opened(1);
    for _ in 0..3 {
        let events = script.receive_all(message(1, 0, &[&[1; 2048]]));
        assert!(matches!(events[..], [Event::Part { end: Some(_), .. }]));
    }
}

// max_held_bytes.

#[test]
fn parts_are_handed_on_early_when_more_than_max_held_bytes_would_be_held() {
    let mut script = relay(|config| config.max_held_bytes = 5000);
    script.opened(1);
    let mut parts = Vec::new();
    let mut commands = vec![begin(1, 0, 0)];
    commands.extend((0..5).map(|n| data(1, &[n; 2048])));
    commands.push(end(1));
    for event in script.receive_all(commands) {
        let Event::Part { part, end, .. } = event else { panic!("{event:?}") };
        parts.push((part.index, part.payload_bytes, end.is_some()));
    }
    assert_eq!(parts, [(0, 6144, false), (1, 4096, true)]);
}

#[test]
fn all_sessions_together_hold_at_most_max_held_bytes_and_one_data() {
    let limit = 10_000;
    let mut script = relay(|config| config.max_held_bytes = limit);
    let sessions = 1..=20;
    for session in sessions.clone() {
        script.opened(session);
        assert_eq!(script.receive(begin(session, 0, 0)), []);
    }
    let mut received = [0; 21];
    let mut count = |events: Vec<Event>| {
        for event in events {
            let Event::Part { session, part, .. } = event else { panic!("{event:?}") };
            received[session.0 as usize] += part.payload_bytes;
        }
    };
    for round in 1..=10usize {
        for session in sessions.clone() {
            count(script.receive(data(session, &vec![1; 100 * round])));
            assert!(script.machine.held_bytes() <= limit + 2048, "{}", script.machine.held_bytes());
        }
    }
    for session in sessions {
        count(script.receive(end(session)));
    }
    assert_eq!(script.machine.held_bytes(), 0);
    assert_eq!(received[1..], [5500; 20]);
}

#[test]
fn held_bytes_go_with_their_session_and_with_the_connection() {
    let mut script = relay(|_| {});
    for session in 1..=3 {
        script.opened(session);
        script.receive_all([begin(session, 0, 0), data(session, &[1; 1000])]);
    }
    assert_eq!(script.machine.held_bytes(), 3000);
    script.receive(close(1, CloseReason::Idle));
    assert_eq!(script.machine.held_bytes(), 2000);
    script.machine.close_session(SessionId(2), CloseReason::Idle);
    assert_eq!(script.machine.held_bytes(), 1000);
    script.machine.close(CloseReason::NoReason, 0);
    assert_eq!(script.machine.held_bytes(), 0);
}
