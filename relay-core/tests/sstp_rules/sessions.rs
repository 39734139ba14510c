//! Open, FanoutOpen, OpenResponse, SessionStatus, Close, Attach and Register (sstp-behaviour 7.0), and the choice of
//! SessionIds.

use crate::pair::{Pair, RELAY, Side, config, text};
use crate::script::*;
use bytes::Bytes;
use relay_core::sstp::command::{AccountRequest, SessionStatus};
use relay_core::sstp::connection::Endpoint;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Command, Event, OpenResponseId, SessionId, StatusId, Version};

const UNKNOWN: CloseReason = CloseReason::TooManyUnknownSessionCmds;

// Open and what creates sessions like it.

#[test]
fn open_on_unestablished_connection_closes_with_0x0f() {
    for command in [
        open(1),
        fanout_open(1, &[""], Version::V1_6),
        Command::Attach(account_request(1)),
        Command::Register(account_request(1)),
    ] {
        for mut script in [Script::fresh_relay(), Script::connecting_client()] {
            let events = script.receive(command.clone());
            script.assert_violation(&events, UNKNOWN);
        }
    }
}

#[test]
fn session_commands_on_unestablished_connection_close_with_0x03() {
    for command in [begin(1, 0, 0), data(1, b"x"), end(1), close(1, CloseReason::Idle), noop(0)] {
        let mut script = Script::fresh_relay();
        let events = script.receive(command);
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn open_row_2_duplicate_session_closes_with_0x0f() {
    let mut script = Script::relay_with_session(1);
    let events = script.receive(open(1));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn open_row_2_a_session_of_ours_is_a_duplicate_too() {
    let mut script = Script::relay();
    let session = script.ready_session();
    let events = script.receive(open(session.0));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn open_row_3_the_owner_decides() {
    let mut script = Script::relay();
    let Command::Open(expected) = open(1) else { unreachable!() };
    assert_eq!(script.receive(open(1)), [Event::Open(expected)]);
    assert_eq!(script.sent(), []);
}

#[test]
fn open_row_4_a_refused_session_is_gone() {
    let mut script = Script::relay();
    script.receive(open(1));
    script.machine.respond(SessionId(1), OpenResponseId::Unknown);
    assert_eq!(script.sent(), [open_response(1, OpenResponseId::Unknown)]);
    assert!(matches!(script.receive(open(1))[..], [Event::Open(_)]), "the number is free again");
}

#[test]
fn open_rows_5_to_7_an_accepted_session_takes_messages() {
    for response in [OpenResponseId::OkStopSending, OpenResponseId::Ok] {
        let mut script = Script::relay();
        script.receive(open(1));
        script.machine.respond(SessionId(1), response);
        assert_eq!(script.sent(), [open_response(1, response)]);
        assert!(matches!(script.receive_all(message(1, 0, &[b"x"]))[..], [Event::Part { .. }]));
    }
}

#[test]
fn open_row_7_the_message_receiver_waits_for_message() {
    for command in [data(1, b"x"), end(1)] {
        let mut script = Script::relay_with_session(1);
        let events = script.receive(command);
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

// FanoutOpen.

#[test]
fn fanout_open_row_0a_bytes_of_the_other_version_close_with_0x03() {
    for (sent, spoken) in [(Version::V1_6, 5), (Version::V1_5, 6)] {
        let mut script = Script::fresh_relay();
        script.receive(connect(spoken));
        script.machine.accept(script.now, Bytes::new(), false);
        script.sent();
        let events = script.receive(fanout_open(1, &["", ""], sent));
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn fanout_open_row_0b_duplicate_session_closes_with_0x0f() {
    let mut script = Script::relay_with_session(1);
    let events = script.receive(fanout_open(1, &[""], Version::V1_6));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn fanout_open_row_1_on_a_relay_the_owner_decides() {
    for relays in [&["", "dpp://b/B"][..], &[]] {
        let mut script = Script::relay();
        let Command::FanoutOpen(expected) = fanout_open(1, relays, Version::V1_6) else { unreachable!() };
        let events = script.receive(Command::FanoutOpen(expected.clone()));
        assert_eq!(events, [Event::FanoutOpen(expected)]);
        assert_eq!(script.sent(), []);
    }
}

#[test]
fn fanout_open_row_2_without_entries_is_ok_and_the_session_is_gone() {
    let mut relay = Script::relay();
    relay.receive(fanout_open(9, &[], Version::V1_6));
    relay.machine.respond_empty_fanout(SessionId(9));
    let mut client = Script::client();
    assert_eq!(client.receive(fanout_open(9, &[], Version::V1_6)), []);
    for mut script in [relay, client] {
        assert_eq!(script.sent(), [open_response(9, OpenResponseId::Ok)]);
        script.machine.close_session(SessionId(9), CloseReason::Idle);
        assert_eq!(script.sent(), [], "there is no session to close");
        assert_eq!(script.receive_all(message(9, 0, &[b"x"])), [], "what was sent on Ok is dropped");
    }
}

#[test]
fn fanout_open_rows_3_and_4_a_client_supports_neither_kind() {
    let own = crate::pair::CLIENT;
    for (relays, response) in [
        (&[""][..], OpenResponseId::NoFanoutEntries),
        (&["dpp://b/B", own], OpenResponseId::NoFanoutEntries),
        (&["dpp://b/B", ""], OpenResponseId::NoFanoutEntries),
        (&["dpp://b/B", RELAY], OpenResponseId::FanoutNotSupported),
    ] {
        let mut script = Script::client();
        assert_eq!(script.receive(fanout_open(9, relays, Version::V1_6)), []);
        assert_eq!(script.sent(), [open_response(9, response)]);
        assert!(script.machine.is_established());
        assert_eq!(script.receive_all(message(9, 0, &[b"x"])), []);
    }
}

// OpenResponse.

#[test]
fn open_response_row_1_for_no_session_of_ours_closes_with_0x0f() {
    for mut script in [Script::relay(), Script::relay_with_session(1)] {
        let events = script.receive(open_response(1, OpenResponseId::Ok));
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn open_response_rows_2_to_4_stop_and_resume_in_any_state() {
    let mut script = Script::relay();
    let session = script.machine.open(text("app"), Text::EMPTY, Text::EMPTY).unwrap();
    assert!(!script.machine.may_send(session), "opening");
    let hold = || open_response(session.0, OpenResponseId::OkStopSending);
    let go = || open_response(session.0, OpenResponseId::Ok);
    assert_eq!(script.receive(hold()), [Event::SessionStopped(session)]);
    assert!(!script.machine.may_send(session), "suspended");
    assert_eq!(script.receive(go()), [Event::SessionReady(session)]);
    assert!(script.machine.may_send(session), "ready");
    assert_eq!(script.receive(go()), [], "nothing new");
    assert_eq!(script.receive(hold()), [Event::SessionStopped(session)]);
    assert!(!script.machine.may_send(session), "blocked");
    assert_eq!(script.receive(go()), [Event::SessionReady(session)]);
    assert!(script.machine.may_send(session), "ready again");
}

#[test]
fn open_response_row_5_any_other_code_removes_the_session() {
    for code in [0x04, 0x05, 0x08, 0x0c, 0x63] {
        for established in [false, true] {
            let mut script = Script::relay();
            let session = if established {
                script.ready_session()
            } else {
                script.machine.open(text("app"), Text::EMPTY, Text::EMPTY).unwrap()
            };
            let response = OpenResponseId::from(code);
            assert_eq!(
                script.receive(open_response(session.0, response)),
                [Event::SessionRefused { session, response }]
            );
            assert!(!script.machine.may_send(session));
        }
    }
}

#[test]
fn open_response_for_a_session_that_we_closed_meanwhile_is_dropped() {
    let mut script = Script::relay();
    let session = script.machine.open(text("app"), Text::EMPTY, Text::EMPTY).unwrap();
    script.machine.close_session(session, CloseReason::Idle);
    assert_eq!(script.receive(open_response(session.0, OpenResponseId::Ok)), []);
    assert_eq!(script.receive(open_response(session.0, OpenResponseId::Unknown)), []);
    assert!(script.machine.is_established());
}

// SessionStatus.

fn status(session: SessionId) -> SessionStatus {
    SessionStatus {
        session,
        status: StatusId::ConnectionClosed,
        device_url: text("dpp://b/B"),
        identity_url: Text::EMPTY,
        indexes: vec![0, 2],
    }
}

#[test]
fn session_status_row_1_for_no_session_of_ours_closes_with_0x0f() {
    for mut script in [Script::client(), Script::relay_with_session(7)] {
        let events = script.receive(Command::SessionStatus(status(SessionId(7))));
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn session_status_row_2_goes_to_the_owner() {
    let mut script = Script::client();
    let session = script.ready_session();
    let events = script.receive(Command::SessionStatus(status(session)));
    assert_eq!(events, [Event::SessionStatus(status(session))]);
    assert!(script.machine.may_send(session));
}

#[test]
fn session_status_for_a_session_that_we_closed_meanwhile_is_dropped() {
    let mut script = Script::client();
    let session = script.ready_session();
    script.machine.close_session(session, CloseReason::Idle);
    assert_eq!(script.receive(Command::SessionStatus(status(session))), []);
    assert!(script.machine.is_established());
}

#[test]
fn session_status_is_sent_only_on_a_session_that_is_there() {
    let mut script = Script::relay_with_session(1);
    script.machine.session_status(status(SessionId(1)));
    assert_eq!(script.sent(), [Command::SessionStatus(status(SessionId(1)))]);
    script.machine.close_session(SessionId(1), CloseReason::EmptySession);
    script.machine.session_status(status(SessionId(1)));
    assert_eq!(script.sent(), [close(1, CloseReason::EmptySession)]);
}

// Close.

#[test]
fn close_row_1_for_an_unknown_session_closes_the_connection_with_0x0f() {
    let mut script = Script::relay();
    let events = script.receive(close(1, CloseReason::NoReason));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn close_row_1_removes_the_session_without_a_reply() {
    let mut script = Script::relay_with_session(1);
    let reason = CloseReason::Other(0x63);
    let events = script.receive(close(1, reason));
    assert_eq!(events, [Event::SessionClosed { session: SessionId(1), reason }]);
    assert_eq!(script.sent(), []);
    let events = script.receive(begin(1, 0, 0));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn close_by_the_receiver_ends_a_session_of_ours() {
    let mut script = Script::relay();
    let session = script.ready_session();
    let reason = CloseReason::QuotaWouldBeExceeded;
    assert_eq!(script.receive(close(session.0, reason)), [Event::SessionClosed { session, reason }]);
    assert!(!script.machine.may_send(session));
}

#[test]
fn crossing_closes_do_not_end_the_connection() {
    let mut pair = Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
    let session = pair.initiator.open(text("app"), Text::EMPTY, Text::EMPTY).unwrap();
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX).len(), 1);
    pair.initiator.close_session(session, CloseReason::Idle);
    pair.acceptor.close_session(session, CloseReason::Idle);
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX), []);
    assert_eq!(pair.deliver(Side::Acceptor, usize::MAX), []);
    assert!(pair.initiator.is_established() && pair.acceptor.is_established());
}

// Attach and Register.

#[test]
fn attach_and_register_rows_2_and_3_an_event_id_in_use_closes_with_0x0f() {
    let attach = || Command::Attach(account_request(1));
    let register = || Command::Register(account_request(1));
    for (first, second) in [
        (open(1), attach()),
        (open(1), register()),
        (attach(), attach()),
        (attach(), register()),
        (register(), attach()),
        (register(), register()),
        (attach(), open(1)),
        (register(), fanout_open(1, &[""], Version::V1_6)),
    ] {
        let mut script = Script::relay();
        assert_eq!(script.receive(first).len(), 1);
        let events = script.receive(second);
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn attach_and_register_row_4_go_to_the_owner() {
    let mut script = Script::relay();
    let events = script.receive(Command::Attach(account_request(1)));
    assert_eq!(events, [Event::Attach(account_request(1))]);
    let events = script.receive(Command::Attach(account_request(2)));
    assert_eq!(events, [Event::Attach(account_request(2))], "several accounts may attach");
    let events = script.receive(Command::Register(account_request(3)));
    assert_eq!(events, [Event::Register(account_request(3))]);
}

#[test]
fn attach_and_register_to_a_client_close_with_0x03() {
    for command in [Command::Attach(account_request(9)), Command::Register(account_request(9))] {
        let mut script = Script::client();
        let events = script.receive(command);
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

fn attach_response(event: u32) -> Command {
    Command::AttachResponse { event: SessionId(event), token: Bytes::from_static(&[3]) }
}

fn attach_authenticate(event: u32) -> Command {
    Command::AttachAuthenticate { event: SessionId(event), token: Bytes::from_static(&[3]) }
}

fn register_response(event: u32) -> Command {
    Command::RegisterResponse { event: SessionId(event), token: Bytes::from_static(&[3]) }
}

#[test]
fn an_answer_to_no_attach_or_register_of_ours_closes_with_0x0f() {
    for answer in [attach_response, register_response] {
        let mut script = Script::client();
        let session = script.ready_session();
        let events = script.receive(answer(session.0));
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn attach_authenticate_without_attach_closes_with_0x0f() {
    for mut script in [Script::relay(), Script::relay_with_session(1)] {
        let events = script.receive(attach_authenticate(1));
        script.assert_violation(&events, UNKNOWN);
    }
}

#[test]
fn the_answers_of_a_relay_are_out_of_place_at_a_relay() {
    for answer in [attach_response(1), register_response(1)] {
        for request in [Command::Attach(account_request(1)), Command::Register(account_request(1))] {
            let mut script = Script::relay();
            script.receive(request);
            let events = script.receive(answer.clone());
            script.assert_violation(&events, CloseReason::ProtocolError);
        }
    }
}

#[test]
fn attach_authenticate_is_out_of_place_at_a_client() {
    let mut script = Script::client();
    let event = script.machine.attach(text("account"), Bytes::new()).unwrap();
    let events = script.receive(attach_authenticate(event.0));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn an_attach_takes_challenge_and_answer_and_stays() {
    let mut pair = Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
    let (challenge, answer) = (Bytes::from_static(&[1]), Bytes::from_static(&[2]));
    let event = pair.initiator.attach(text("account"), Bytes::from_static(&[7])).unwrap();
    let request = AccountRequest { event, ..account_request(1) };
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX), [Event::Attach(request)]);
    pair.acceptor.attach_response(event, challenge.clone());
    let events = pair.deliver(Side::Acceptor, usize::MAX);
    assert_eq!(events, [Event::AttachResponse { event, token: challenge }]);
    pair.initiator.attach_authenticate(event, answer.clone());
    let events = pair.deliver(Side::Initiator, usize::MAX);
    assert_eq!(events, [Event::AttachAuthenticate { event, token: answer }]);
    let reason = CloseReason::UserAuthenticationFailed;
    pair.acceptor.close_session(event, reason);
    let events = pair.deliver(Side::Acceptor, usize::MAX);
    assert_eq!(events, [Event::SessionClosed { session: event, reason }]);
}

#[test]
fn a_register_ends_with_its_response() {
    let mut pair = Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
    let token = Bytes::from_static(&[1]);
    let event = pair.initiator.register(text("account"), Bytes::from_static(&[7])).unwrap();
    let request = AccountRequest { event, ..account_request(1) };
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX), [Event::Register(request)]);
    pair.acceptor.register_response(event, token.clone());
    pair.acceptor.register_response(event, token.clone());
    let events = pair.deliver(Side::Acceptor, usize::MAX);
    assert_eq!(events, [Event::RegisterResponse { event, token }], "it is answered once");
}

#[test]
fn a_register_is_answered_once() {
    let mut script = Script::client();
    let event = script.machine.register(text("account"), Bytes::new()).unwrap();
    assert!(matches!(script.receive(register_response(event.0))[..], [Event::RegisterResponse { .. }]));
    let events = script.receive(register_response(event.0));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn a_register_given_up_while_its_response_is_on_the_way_does_not_end_the_connection() {
    let mut pair = Pair::established(config(Endpoint::Client), config(Endpoint::Relay));
    let event = pair.initiator.register(text("account"), Bytes::new()).unwrap();
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX).len(), 1);
    pair.acceptor.register_response(event, Bytes::new());
    pair.initiator.close_session(event, CloseReason::NoReason);
    assert_eq!(pair.deliver(Side::Initiator, usize::MAX), []);
    assert_eq!(pair.deliver(Side::Acceptor, usize::MAX), []);
    assert!(pair.initiator.is_established() && pair.acceptor.is_established());
}

#[test]
fn an_event_id_used_again_is_a_new_exchange() {
    let mut script = Script::relay();
    script.receive(Command::Attach(account_request(1)));
    script.machine.close_session(SessionId(1), CloseReason::StaleAttachAuthenticate);
    assert_eq!(script.receive(attach_authenticate(1)), [], "too late");
    assert_eq!(script.receive(Command::Attach(account_request(1))).len(), 1);
    assert_eq!(script.receive(close(1, CloseReason::NoReason)).len(), 1);
    let events = script.receive(attach_authenticate(1));
    script.assert_violation(&events, UNKNOWN);
}

#[test]
fn the_answers_of_an_attach_are_sent_only_while_it_is_there() {
    let mut relay = Script::relay();
    relay.receive(Command::Attach(account_request(1)));
    relay.machine.close_session(SessionId(1), CloseReason::UserAuthenticationFailed);
    relay.machine.attach_response(SessionId(1), Bytes::new());
    assert_eq!(relay.sent(), [close(1, CloseReason::UserAuthenticationFailed)]);
    let mut client = Script::client();
    let event = client.machine.attach(text("account"), Bytes::new()).unwrap();
    client.sent();
    client.machine.close_session(event, CloseReason::NoReason);
    client.machine.attach_authenticate(event, Bytes::new());
    assert_eq!(client.sent(), [close(event.0, CloseReason::NoReason)]);
}

// Malformed bytes, whatever the state.

#[test]
fn malformed_bytes_close_with_0x03() {
    for bytes in [&[0x13][..], &[0], &[0x11, 9, 0], &[0x0e, 0x08, 0x08], &[0x11, 8, 0, 0, 0, 0, 0, 0]] {
        for mut script in [Script::fresh_relay(), Script::relay(), Script::client()] {
            let events = script.receive_bytes(bytes);
            script.assert_violation(&events, CloseReason::ProtocolError);
        }
    }
}

// SessionIds.

#[test]
fn the_initiator_counts_up_from_1_and_the_acceptor_down_from_the_highest() {
    let mut initiator = Script::client();
    let mut acceptor = Script::relay();
    for n in 0..5 {
        assert_eq!(initiator.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(1 + n)));
        let session = acceptor.machine.open(text("a"), Text::EMPTY, Text::EMPTY);
        assert_eq!(session, Some(SessionId(u32::MAX - n)));
    }
}

#[test]
fn attach_register_and_fanout_draw_on_the_same_numbers() {
    let mut script = Script::client();
    assert_eq!(script.machine.attach(text("a"), Bytes::new()), Some(SessionId(1)));
    assert_eq!(script.machine.register(text("a"), Bytes::new()), Some(SessionId(2)));
    let session = script.machine.open_fanout(|session, version| {
        let Command::FanoutOpen(open) = fanout_open(session.0, &[""], version) else { unreachable!() };
        Some(open)
    });
    assert_eq!(session, Some(SessionId(3)));
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(4)));
}

#[test]
fn a_number_that_the_peer_uses_is_skipped() {
    let mut script = Script::client();
    script.opened(2);
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(1)));
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(3)));
}

#[test]
fn a_number_with_a_tombstone_is_skipped() {
    let mut script = Script::client();
    script.opened(2);
    script.machine.close_session(SessionId(2), CloseReason::Idle);
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(1)));
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), Some(SessionId(3)));
}

#[test]
fn no_session_before_the_connection_is_established() {
    let mut script = Script::connecting_client();
    assert_eq!(script.machine.open(text("a"), Text::EMPTY, Text::EMPTY), None);
    assert_eq!(script.machine.attach(text("a"), Bytes::new()), None);
    assert_eq!(script.machine.register(text("a"), Bytes::new()), None);
    assert_eq!(script.sent(), []);
}

#[test]
fn a_fanout_that_is_too_long_opens_nothing() {
    let mut script = Script::client();
    assert_eq!(script.machine.open_fanout(|_, _| None), None);
    assert_eq!(script.sent(), []);
}
