//! The deadlines of a connection (sstp-behaviour 6.5, wire-profile 1). The Message Acknowledgment Timer is tested with
//! the acknowledgement.

use crate::pair::{START, drain};
use crate::script::*;
use bytes::Bytes;
use relay_core::sstp::connection::Ended;
use relay_core::sstp::{CloseReason, Command, ConnectResponseId, Event};
use std::time::Duration;

const JUST_BEFORE: Duration = Duration::from_millis(1);

fn deadline() -> [Event; 1] {
    [Event::Ended(Ended::Deadline)]
}

#[test]
fn connect_is_awaited_for_10_seconds() {
    let mut script = Script::fresh_relay();
    assert_eq!(script.machine.poll_timeout(), Some(START + seconds(10)));
    assert_eq!(script.wait(seconds(10) - JUST_BEFORE), []);
    assert_eq!(script.wait(JUST_BEFORE), deadline());
    assert_eq!(script.sent(), [], "nobody has spoken");
    assert_eq!(script.machine.poll_timeout(), None);
}

#[test]
fn a_connect_in_small_pieces_does_not_move_the_deadline() {
    let mut script = Script::fresh_relay();
    for byte in [0x01, 0x31, 0x00, 0x01, 0x06] {
        assert_eq!(script.receive_bytes(&[byte]), []);
        assert_eq!(script.wait(seconds(1)), []);
    }
    assert_eq!(script.wait(seconds(5)), deadline());
}

#[test]
fn connect_response_is_awaited_for_10_seconds() {
    let mut script = Script::connecting_client();
    assert_eq!(script.machine.poll_timeout(), Some(START + seconds(10)));
    assert_eq!(script.wait(seconds(10) - JUST_BEFORE), []);
    assert_eq!(script.wait(JUST_BEFORE), deadline());
}

#[test]
fn connect_authenticate_is_awaited_for_10_seconds() {
    let mut script = Script::fresh_relay();
    script.receive(connect(6));
    script.wait(seconds(3));
    script.machine.accept(script.now, Bytes::from_static(&[1]), true);
    script.sent();
    assert_eq!(script.machine.poll_timeout(), Some(script.now + seconds(10)));
    assert_eq!(script.wait(seconds(10) - JUST_BEFORE), []);
    assert_eq!(script.wait(JUST_BEFORE), deadline());
    let reason = CloseReason::DeviceAuthenticationFailed;
    assert_eq!(script.sent(), [Command::ConnectClose { reason, message_count: 0, return_time: 0 }]);
}

#[test]
fn the_handshake_is_over_once_authenticated() {
    let mut script = Script::fresh_relay();
    script.receive(connect(6));
    script.machine.accept(script.now, Bytes::from_static(&[1]), true);
    script.sent();
    script.receive(Command::ConnectAuthenticate { token: Bytes::from_static(&[2]) });
    script.machine.authenticated();
    assert_eq!(script.wait(seconds(20)), []);
    assert!(script.machine.is_established());
}

#[test]
fn without_a_challenge_nothing_more_is_awaited() {
    for mut script in [Script::relay(), Script::client()] {
        assert_eq!(script.machine.poll_timeout(), Some(START + seconds(45)));
        assert_eq!(script.wait(seconds(20)), []);
        assert!(script.machine.is_established());
    }
}

#[test]
fn after_45_seconds_without_sending_a_noop_goes_out() {
    for mut script in [Script::relay(), Script::client()] {
        for _ in 0..2 {
            assert_eq!(script.wait(seconds(45) - JUST_BEFORE), []);
            assert_eq!(script.sent(), []);
            assert_eq!(script.wait(JUST_BEFORE), []);
            assert_eq!(script.sent(), [noop(0)]);
            assert_eq!(script.machine.poll_timeout(), Some(script.now + seconds(45)));
        }
    }
}

#[test]
fn sending_moves_the_keep_alive_and_receiving_does_not() {
    let mut script = Script::relay();
    let session = script.ready_session();
    script.wait(seconds(30));
    script.receive(noop(0));
    script.sent();
    assert_eq!(script.machine.poll_timeout(), Some(START + seconds(45)));
    script.send_message(session, 1);
    assert_eq!(script.sent().len(), 3);
    assert_eq!(script.machine.poll_timeout(), Some(script.now + seconds(45)));
}

#[test]
fn after_135_seconds_without_receiving_the_connection_ends() {
    for mut script in [Script::relay(), Script::client()] {
        for _ in 0..2 {
            assert_eq!(script.wait(seconds(45)), []);
            assert_eq!(script.sent(), [noop(0)]);
        }
        assert_eq!(script.wait(seconds(45) - JUST_BEFORE), []);
        assert_eq!(script.wait(JUST_BEFORE), deadline());
        let reason = CloseReason::Idle;
        assert_eq!(script.sent(), [Command::ConnectClose { reason, message_count: 0, return_time: 0 }]);
        assert_eq!(script.wait(seconds(1000)), []);
        assert_eq!(script.sent(), []);
    }
}

#[test]
fn whatever_is_received_moves_the_idle_deadline() {
    let mut script = Script::relay();
    for _ in 0..6 {
        script.wait(seconds(40));
        script.receive(noop(0));
        script.sent();
    }
    assert!(script.machine.is_established());
}

#[test]
fn the_idle_deadline_of_an_initiator_counts_from_the_connect_response() {
    let mut script = Script::connecting_client();
    script.wait(seconds(9));
    script.receive(connect_response(6, ConnectResponseId::Ok));
    let established = script.now;
    for _ in 0..2 {
        script.wait(seconds(45));
        script.sent();
    }
    assert_eq!(script.machine.poll_timeout(), Some(established + seconds(135)));
}

#[test]
fn a_late_timeout_acts_on_everything_that_has_passed() {
    let mut script = Script::relay_with_session(1);
    let message = script.receive_message(1, 0);
    script.machine.complete(message);
    script.sent();
    script.wait(seconds(60));
    let sent = script.sent();
    let acknowledged: u32 = sent
        .iter()
        .map(|command| match command {
            Command::Noop { message_count } => *message_count,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(acknowledged, 1);
}

#[test]
fn a_connection_that_has_ended_waits_for_nothing() {
    let mut script = Script::relay();
    script.machine.close(CloseReason::NoReason, 0);
    drain(&mut script.machine, script.now);
    assert_eq!(script.machine.poll_timeout(), None);
    assert_eq!(script.wait(seconds(1000)), []);
}
