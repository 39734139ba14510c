//! MessageCount and when it is sent (sstp-behaviour 3.1.4.2.1, 3.1.4.6, 3.1.4.7, 3.1.5.19), and late commands for closed
//! sessions, which must not disturb it.

use crate::pair::drain;
use crate::script::*;
use relay_core::sstp::command::Message;
use relay_core::sstp::profile::{ACKNOWLEDGE_RUN, TOMBSTONES};
use relay_core::sstp::{CloseReason, Command, Event, SessionId};

const A: u8 = 0x04;

// The count.

#[test]
fn message_count_is_the_leading_run_of_all_sessions() {
    let mut script = Script::relay_with_session(1);
    script.opened(3);
    let first = script.receive_message(1, 0);
    let second = script.receive_message(3, 0);
    let third = script.receive_message(1, 0);
    script.machine.complete(second);
    script.machine.complete(third);
    script.sent();
    script.wait(seconds(5));
    assert_eq!(script.sent(), [], "the oldest message is not complete");
    script.machine.complete(first);
    script.sent();
    script.wait(seconds(5));
    assert_eq!(script.sent(), [noop(3)]);
    assert_eq!(script.machine.unfinished(), 0);
}

#[test]
fn message_count_is_a_count_since_the_last_one() {
    let mut script = Script::relay_with_session(1);
    for _ in 0..3 {
        let message = script.receive_message(1, A);
        script.machine.complete(message);
        assert_eq!(script.sent(), [noop(1)]);
    }
}

#[test]
fn an_acknowledgement_takes_the_oldest_messages_of_all_sessions() {
    let mut script = Script::relay();
    let (first, second) = (script.ready_session(), script.ready_session());
    script.send_message(first, 70);
    script.send_message(second, 71);
    script.send_message(first, 72);
    let events = script.receive(noop(2));
    assert_eq!(
        events,
        [
            Event::Acknowledged { session: first, tag: 70, count: 1 },
            Event::Acknowledged { session: second, tag: 71, count: 1 }
        ]
    );
    assert_eq!(script.machine.unacknowledged(), 1);
    assert_eq!(script.receive(noop(1)), [Event::Acknowledged { session: first, tag: 72, count: 1 }]);
}

#[test]
fn an_acknowledgement_may_be_of_a_session_that_is_closed() {
    let mut script = Script::relay();
    let session = script.ready_session();
    script.send_message(session, 70);
    script.machine.close_session(session, CloseReason::Idle);
    assert_eq!(script.receive(noop(1)), [Event::Acknowledged { session, tag: 70, count: 1 }]);
}

#[test]
fn a_count_above_the_outstanding_closes_with_0x03() {
    for (outstanding, count) in [(0, 1), (2, 3), (2, u32::MAX)] {
        let mut script = Script::relay_with_session(1);
        let session = script.ready_session();
        for tag in 0..outstanding {
            script.send_message(session, tag);
        }
        script.sent();
        let events = script.receive(noop(count));
        assert_eq!(events.len(), 1, "nothing is acknowledged");
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn a_count_above_the_outstanding_in_a_message_closes_with_0x03() {
    let mut script = Script::relay_with_session(1);
    let events = script.receive(begin(1, 1, 0));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn a_violation_is_answered_with_the_final_acknowledgement() {
    let mut script = Script::relay_with_session(1);
    let message = script.receive_message(1, 0);
    script.machine.complete(message);
    script.receive(end(1));
    let reason = CloseReason::ProtocolError;
    assert_eq!(script.sent(), [Command::ConnectClose { reason, message_count: 1, return_time: 0 }]);
}

// When it is sent.

#[test]
fn flag_a_is_acknowledged_with_the_next_output() {
    let mut script = Script::relay_with_session(1);
    let message = script.receive_message(1, A);
    assert_eq!(script.sent(), [], "it is not complete");
    script.machine.complete(message);
    assert_eq!(script.sent(), [noop(1)]);
    assert_eq!(script.sent(), []);
    script.wait(seconds(5));
    assert_eq!(script.sent(), [], "no timer was left running");
}

#[test]
fn flag_a_behind_an_incomplete_message_waits() {
    let mut script = Script::relay_with_session(1);
    let first = script.receive_message(1, 0);
    let second = script.receive_message(1, A);
    script.machine.complete(second);
    assert_eq!(script.sent(), []);
    script.machine.complete(first);
    assert_eq!(script.sent(), [noop(2)]);
}

#[test]
fn flag_a_anywhere_in_the_run_is_enough() {
    for with_a in 0..3 {
        let mut script = Script::relay_with_session(1);
        let flags = |n| if n == with_a { A } else { 0 };
        let messages: Vec<_> = (0..3).map(|n| script.receive_message(1, flags(n))).collect();
        for message in messages.into_iter().rev() {
            assert_eq!(script.sent(), []);
            script.machine.complete(message);
        }
        assert_eq!(script.sent(), [noop(3)], "flag A on message {with_a}");
    }
}

#[test]
fn without_flag_a_the_timer_of_5_seconds_is_started() {
    let mut script = Script::relay_with_session(1);
    let message = script.receive_message(1, 0);
    script.machine.complete(message);
    assert_eq!(script.sent(), []);
    assert_eq!(script.machine.poll_timeout(), Some(script.now + seconds(5)));
    script.wait(seconds(4));
    assert_eq!(script.sent(), []);
    script.wait(seconds(1));
    assert_eq!(script.sent(), [noop(1)]);
}

#[test]
fn the_timer_counts_from_the_first_completion() {
    let mut script = Script::relay_with_session(1);
    let (first, second) = (script.receive_message(1, 0), script.receive_message(1, 0));
    script.machine.complete(first);
    script.sent();
    script.wait(seconds(3));
    script.machine.complete(second);
    script.sent();
    script.wait(seconds(2));
    assert_eq!(script.sent(), [noop(2)]);
}

#[test]
fn a_run_of_completed_messages_does_not_wait_for_the_timer() {
    let mut script = Script::relay_with_session(1);
    for n in 1..=ACKNOWLEDGE_RUN {
        let message = script.receive_message(1, 0);
        script.machine.complete(message);
        let expected = if n == ACKNOWLEDGE_RUN { vec![noop(ACKNOWLEDGE_RUN as u32)] } else { vec![] };
        assert_eq!(script.sent(), expected, "after {n}");
    }
}

#[test]
fn a_message_of_ours_carries_the_acknowledgement_and_stops_the_timer() {
    let mut script = Script::relay_with_session(1);
    let session = script.ready_session();
    let message = script.receive_message(1, 0);
    script.machine.complete(message);
    script.sent();
    script.wait(seconds(3));
    script.send_message(session, 70);
    let sent = script.sent();
    assert!(matches!(sent[0], Command::Message(Message { message_count: 1, .. })), "{sent:?}");
    script.wait(seconds(2));
    assert_eq!(script.sent(), [], "the timer was stopped");
    script.send_message(session, 71);
    let sent = script.sent();
    assert!(matches!(sent[0], Command::Message(Message { message_count: 0, .. })), "{sent:?}");
}

// Late commands (wire-profile 1).

/// A relay that has closed `session` of the peer.
fn relay_that_closed(session: u32) -> Script {
    let mut script = Script::relay_with_session(session);
    script.machine.close_session(SessionId(session), CloseReason::EmptySession);
    assert_eq!(script.sent(), [close(session, CloseReason::EmptySession)]);
    script
}

#[test]
fn late_commands_for_a_session_that_we_closed_are_dropped() {
    let mut script = relay_that_closed(1);
    let mut late = message(1, A, &[b"x", b"y"]);
    late.extend([begin(1, 0, 0), data(1, b"z"), close(1, CloseReason::NoReason)]);
    assert_eq!(script.receive_all(late), []);
    assert!(script.machine.is_established());
    assert_eq!(script.machine.held_bytes(), 0);
}

#[test]
fn a_dropped_message_is_acknowledged_in_step() {
    let mut script = Script::relay_with_session(1);
    script.opened(3);
    assert_eq!(script.receive_all([begin(1, 0, 0), data(1, b"half")]), []);
    let before = script.receive_message(3, 0);
    script.machine.close_session(SessionId(1), CloseReason::EmptySession);
    assert_eq!(script.receive_all([data(1, b"other half"), end(1)]), []);
    let after = script.receive_message(3, A);
    script.sent();
    assert_eq!(script.machine.unfinished(), 3);
    script.machine.complete(after);
    assert_eq!(script.sent(), [], "the first of the three is not complete");
    script.machine.complete(before);
    assert_eq!(script.sent(), [noop(3)]);
}

#[test]
fn message_count_of_a_late_message_still_counts() {
    let mut script = relay_that_closed(1);
    let session = script.ready_session();
    script.send_message(session, 70);
    assert_eq!(script.receive(begin(1, 1, 0)), [Event::Acknowledged { session, tag: 70, count: 1 }]);
}

#[test]
fn a_refused_session_leaves_a_tombstone_too() {
    let mut script = Script::relay_with_session(1);
    script.machine.respond(SessionId(1), relay_core::sstp::OpenResponseId::Unknown);
    assert_eq!(script.receive_all(message(1, 0, &[b"x"])), []);
    assert!(script.machine.is_established());
}

#[test]
fn a_session_that_the_peer_closed_leaves_no_tombstone() {
    for late in [begin(1, 0, 0), data(1, b"x"), end(1), close(1, CloseReason::Idle)] {
        let mut script = Script::relay_with_session(1);
        script.receive(close(1, CloseReason::Idle));
        let events = script.receive(late);
        script.assert_violation(&events, CloseReason::TooManyUnknownSessionCmds);
    }
}

#[test]
fn the_last_256_closed_sessions_are_remembered_and_the_257th_is_not() {
    assert_eq!(TOMBSTONES, 256);
    for (closed_after, remembered) in [(255, true), (256, false)] {
        for late in [begin(1, 0, 0), data(1, b"x"), end(1), close(1, CloseReason::Idle)] {
            let mut script = relay_that_closed(1);
            for session in 2..2 + closed_after {
                script.receive(open(session));
                script.machine.close_session(SessionId(session), CloseReason::Idle);
            }
            script.sent();
            let events = script.receive(late);
            if remembered {
                assert_eq!(events, []);
                assert!(script.machine.is_established());
            } else {
                script.assert_violation(&events, CloseReason::TooManyUnknownSessionCmds);
            }
        }
    }
}

#[test]
fn a_number_used_again_is_a_new_session() {
    let mut script = relay_that_closed(1);
    script.opened(1);
    script.receive_message(1, 0);
    script.receive(close(1, CloseReason::Idle));
    let events = script.receive(end(1));
    script.assert_violation(&events, CloseReason::TooManyUnknownSessionCmds);
}

#[test]
fn what_is_acknowledged_is_told_before_the_next_command_is_read() {
    let mut script = Script::relay_with_session(1);
    let session = script.ready_session();
    script.send_message(session, 70);
    let mut events = script.receive_all([noop(1), noop(1)]);
    assert_eq!(events.remove(0), Event::Acknowledged { session, tag: 70, count: 1 });
    script.assert_violation(&events, CloseReason::ProtocolError);
    assert_eq!(drain(&mut script.machine, script.now), []);
}
