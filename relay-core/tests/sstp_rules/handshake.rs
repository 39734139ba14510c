//! Connect, ConnectResponse, ConnectAuthenticate, ConnectClose (sstp-behaviour 7.0, 6.2), version negotiation, and the
//! hand-off of a connection that has only said Connect.

use crate::pair::{CLIENT, Pair, RELAY, START, Side, config, drain, text};
use crate::script::*;
use bytes::{Bytes, BytesMut};
use relay_core::sstp::command::{Connect, Open};
use relay_core::sstp::connection::{Ended, Endpoint};
use relay_core::sstp::text::Text;
use relay_core::sstp::{
    CloseReason, Command, ConnectResponseId, Connection, ConnectionConfig, Event, OpenResponseId, SessionId,
    Version,
};
use std::sync::Arc;

fn assert_refused(script: &mut Script, events: &[Event], response: ConnectResponseId) {
    assert_eq!(events, [Event::Ended(Ended::Refused(response))]);
    let sent = script.sent();
    assert!(
        matches!(sent[..], [Command::ConnectResponse { response: said, retry_time: 0, .. }] if said == response),
        "{sent:?}"
    );
    assert!(script.machine.is_ended());
}

// Connect.

#[test]
fn connect_row_0_second_connect_closes_with_0x03() {
    let mut script = Script::relay();
    let events = script.receive(connect(6));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn connect_row_0_connect_to_the_initiator_closes_with_0x03() {
    let mut script = Script::connecting_client();
    let events = script.receive(connect(6));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn connect_row_1_wrong_target_is_answered_with_wrong_device() {
    let mut script = Script::fresh_relay();
    let Command::Connect(connect) = connect(6) else { unreachable!() };
    let events = script.receive(Command::from(Connect { target_device_url: text("dpp://x/y"), ..*connect }));
    assert_refused(&mut script, &events, ConnectResponseId::WrongDevice);
}

#[test]
fn connect_row_1_comes_before_the_version() {
    let mut script = Script::fresh_relay();
    let Command::Connect(connect) = connect(4) else { unreachable!() };
    let events = script.receive(Command::from(Connect { target_device_url: Text::EMPTY, ..*connect }));
    assert_refused(&mut script, &events, ConnectResponseId::WrongDevice);
}

#[test]
fn connect_row_1_each_local_device_url_is_right() {
    let own = vec![text("dpp://other/O"), text(RELAY)];
    let mut script = Script::acceptor(ConnectionConfig { local_device_urls: own, ..config(Endpoint::Relay) });
    assert!(matches!(script.receive(connect(6))[..], [Event::Connect(_)]));
}

fn with_major(major: u8) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    connect(6).encode(&mut bytes);
    bytes[3] = major;
    bytes.to_vec()
}

#[test]
fn connect_row_2_major_2_is_answered_with_wont_upgrade() {
    let mut script = Script::fresh_relay();
    let events = script.receive_bytes(&with_major(2));
    assert_refused(&mut script, &events, ConnectResponseId::WontUpgrade);
}

#[test]
fn connect_row_3_major_0_is_answered_with_new_version_required() {
    let mut script = Script::fresh_relay();
    let events = script.receive_bytes(&with_major(0));
    assert_refused(&mut script, &events, ConnectResponseId::NewVersionRequired);
}

#[test]
fn connect_row_3_minor_4_is_answered_with_new_version_required() {
    let mut script = Script::fresh_relay();
    let events = script.receive(connect(4));
    assert_refused(&mut script, &events, ConnectResponseId::NewVersionRequired);
}

#[test]
fn connect_rows_4_to_6_are_the_owners_refusals() {
    for response in [ConnectResponseId::ConnectRejected, ConnectResponseId::TryLater] {
        let mut script = Script::fresh_relay();
        script.receive(connect(6));
        script.machine.refuse(response, 30, Bytes::new());
        assert_eq!(script.sent(), [connect_response(6, response)]);
        assert_eq!(drain(&mut script.machine, script.now), [Event::Ended(Ended::Refused(response))]);
    }
}

#[test]
fn connect_row_5_crossed_connections_follows_ok() {
    let mut script = Script::relay();
    script.machine.close(CloseReason::CrossedConnections, 0);
    let reason = CloseReason::CrossedConnections;
    assert_eq!(script.sent(), [Command::ConnectClose { reason, message_count: 0, return_time: 0 }]);
}

#[test]
fn connect_is_given_to_the_owner_as_it_was_sent() {
    let mut script = Script::fresh_relay();
    let Command::Connect(expected) = connect(6) else { unreachable!() };
    assert_eq!(script.receive(connect(6)), [Event::Connect(expected)]);
    assert!(!script.machine.is_established());
    assert_eq!(script.sent(), [], "the owner answers");
}

#[test]
fn nothing_behind_an_undecided_connect_is_read() {
    let mut script = Script::fresh_relay();
    assert_eq!(script.receive_all([connect(6), open(1)]).len(), 1);
    assert_eq!(script.receive(open(2)), []);
    script.machine.accept(script.now, Bytes::new(), false);
    let opened = drain(&mut script.machine, script.now);
    assert!(
        matches!(
            &opened[..],
            [
                Event::Open(Open { session: SessionId(1), .. }),
                Event::Open(Open { session: SessionId(2), .. })
            ]
        ),
        "{opened:?}"
    );
}

// Versions.

#[test]
fn both_sides_speak_the_lower_version() {
    use Version::{V1_5, V1_6};
    for (initiator, acceptor, spoken) in
        [(V1_5, V1_5, V1_5), (V1_5, V1_6, V1_5), (V1_6, V1_5, V1_5), (V1_6, V1_6, V1_6)]
    {
        let mut pair = Pair::established(
            ConnectionConfig { version: initiator, ..config(Endpoint::Client) },
            ConnectionConfig { version: acceptor, ..config(Endpoint::Relay) },
        );
        assert_eq!(pair.initiator.version(), spoken, "{initiator:?} to {acceptor:?}");
        assert_eq!(pair.acceptor.version(), spoken, "{initiator:?} to {acceptor:?}");
        let Command::FanoutOpen(expected) = fanout_open(1, &["", "dpp://b/B"], spoken) else {
            unreachable!()
        };
        let open = expected.clone();
        pair.initiator.open_fanout(move |_, version| (version == spoken).then_some(open)).expect("room");
        assert_eq!(pair.deliver(Side::Initiator, usize::MAX), [Event::FanoutOpen(expected)]);
    }
}

#[test]
fn minor_9_is_spoken_to_in_1_6() {
    let mut script = Script::fresh_relay();
    assert!(
        matches!(&script.receive(connect(9))[..], [Event::Connect(connect)] if connect.minor_version == 9)
    );
    script.machine.accept(script.now, Bytes::new(), false);
    assert!(matches!(script.sent()[..], [Command::ConnectResponse { minor_version: 6, .. }]));
    assert_eq!(script.machine.version(), Version::V1_6);
}

#[test]
fn an_initiator_speaks_no_higher_version_than_its_own() {
    for (own, answered, spoken) in [(Version::V1_5, 6, Version::V1_5), (Version::V1_6, 9, Version::V1_6)] {
        let config = Arc::new(ConnectionConfig { version: own, ..config(Endpoint::Client) });
        let machine = Connection::initiator(config, START, text(RELAY), Bytes::new());
        let mut script = Script { machine, now: START };
        let sent = script.sent();
        assert!(matches!(&sent[..], [Command::Connect(connect)] if connect.minor_version == own.minor()));
        script.receive(connect_response(answered, ConnectResponseId::Ok));
        assert_eq!(script.machine.version(), spoken);
    }
}

// ConnectResponse.

#[test]
fn connect_response_row_0_to_the_acceptor_closes_with_0x03() {
    for mut script in [Script::fresh_relay(), Script::relay()] {
        let events = script.receive(connect_response(6, ConnectResponseId::Ok));
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn connect_response_row_0_a_second_one_closes_with_0x03() {
    let mut script = Script::client();
    let events = script.receive(connect_response(6, ConnectResponseId::Ok));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn connect_response_row_1_ok_establishes_with_its_version_and_token() {
    let mut script = Script::connecting_client();
    assert!(!script.machine.is_established());
    let token = Bytes::from_static(&[9, 9]);
    let response = ConnectResponseId::Ok;
    let command =
        Command::ConnectResponse { minor_version: 5, response, retry_time: 0, token: token.clone() };
    assert_eq!(script.receive(command), [Event::ConnectResponse { response, retry_time: 0, token }]);
    assert!(script.machine.is_established());
    assert_eq!(script.machine.version(), Version::V1_5);
}

#[test]
fn connect_response_row_1_ok_below_1_5_closes_with_0x03() {
    let mut script = Script::connecting_client();
    let events = script.receive(connect_response(4, ConnectResponseId::Ok));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn connect_response_rows_2_and_3_any_other_code_ends_without_a_word() {
    for code in [0x01, 0x02, 0x05, 0x06, 0x09, 0x63] {
        let mut script = Script::connecting_client();
        let response = ConnectResponseId::from(code);
        assert_eq!(
            script.receive(connect_response(6, response)),
            [
                Event::ConnectResponse { response, retry_time: 30, token: Bytes::new() },
                Event::Ended(Ended::Refused(response)),
            ]
        );
        assert!(script.machine.is_ended());
        assert_eq!(script.sent(), []);
    }
}

// ConnectAuthenticate.

fn challenged_relay() -> Script {
    let mut script = Script::fresh_relay();
    script.receive(connect(6));
    script.machine.accept(script.now, Bytes::from_static(&[1]), true);
    assert!(matches!(script.sent()[..], [Command::ConnectResponse { .. }]));
    script
}

fn connect_authenticate() -> Command {
    Command::ConnectAuthenticate { token: Bytes::from_static(&[5]) }
}

#[test]
fn connect_authenticate_after_a_challenge_goes_to_the_owner() {
    let mut script = challenged_relay();
    let token = Bytes::from_static(&[5]);
    assert_eq!(script.receive(connect_authenticate()), [Event::ConnectAuthenticate { token }]);
    assert_eq!(script.sent(), [], "there is no reply");
}

#[test]
fn connect_authenticate_is_accepted_once() {
    let mut script = challenged_relay();
    script.receive(connect_authenticate());
    script.machine.authenticated();
    let events = script.receive(connect_authenticate());
    script.assert_violation(&events, CloseReason::ProtocolError);
}

#[test]
fn connect_authenticate_without_a_challenge_closes_with_0x03() {
    for mut script in [Script::fresh_relay(), Script::relay(), Script::client(), Script::connecting_client()]
    {
        let events = script.receive(connect_authenticate());
        script.assert_violation(&events, CloseReason::ProtocolError);
    }
}

#[test]
fn an_unauthenticated_connection_is_established_nevertheless() {
    let mut script = challenged_relay();
    assert!(script.machine.is_established());
    assert!(matches!(script.receive(open(1))[..], [Event::Open(_)]));
}

// ConnectClose.

#[test]
fn connect_close_row_1_acknowledges_before_the_state_goes() {
    let mut script = Script::relay();
    let session = script.ready_session();
    script.send_message(session, 70);
    script.send_message(session, 71);
    let by_peer = Ended::ByPeer { reason: CloseReason::Resting, return_time: 60 };
    assert_eq!(
        script.receive(connect_close(1)),
        [Event::Acknowledged { session, tag: 70, count: 1 }, Event::Ended(by_peer)]
    );
    assert_eq!(script.machine.unacknowledged(), 1);
}

#[test]
fn connect_close_rows_2_and_3_end_everything_without_a_reply() {
    let mut script = Script::relay_with_session(1);
    let events = script.receive(connect_close(0));
    assert_eq!(events, [Event::Ended(Ended::ByPeer { reason: CloseReason::Resting, return_time: 60 })]);
    assert_eq!(script.sent(), []);
    script.machine.respond(SessionId(1), OpenResponseId::Ok);
    script.machine.close_session(SessionId(1), CloseReason::Idle);
    assert_eq!(script.sent(), [], "the sessions are gone");
    assert_eq!(script.receive(open(3)), [], "nothing more is read");
}

#[test]
fn connect_close_is_understood_in_every_state() {
    for mut script in [Script::fresh_relay(), Script::connecting_client(), Script::relay(), Script::client()]
    {
        let events = script.receive(connect_close(0));
        assert!(matches!(events[..], [Event::Ended(Ended::ByPeer { .. })]), "{events:?}");
    }
}

#[test]
fn connect_close_with_a_count_too_high_is_a_violation() {
    let mut script = Script::relay();
    let events = script.receive(connect_close(1));
    script.assert_violation(&events, CloseReason::ProtocolError);
}

// The owner's close (3.1.4.2).

#[test]
fn close_carries_the_final_acknowledgement_and_the_return_time() {
    let mut script = Script::relay_with_session(1);
    let messages: Vec<_> = (0..3).map(|_| script.receive_message(1, 0)).collect();
    script.machine.complete(messages[0]);
    script.machine.complete(messages[1]);
    script.machine.close(CloseReason::Resting, 90);
    let reason = CloseReason::Resting;
    assert_eq!(script.sent(), [Command::ConnectClose { reason, message_count: 2, return_time: 90 }]);
    assert_eq!(drain(&mut script.machine, script.now), [Event::Ended(Ended::ByUs(reason))]);
    script.machine.close(CloseReason::Idle, 0);
    assert_eq!(script.sent(), [], "it ends once");
}

#[test]
fn a_lost_transport_ends_without_a_word() {
    let mut script = Script::relay();
    script.machine.transport_lost();
    assert_eq!(drain(&mut script.machine, script.now), [Event::Ended(Ended::TransportLost)]);
    assert_eq!(script.sent(), []);
    script.machine.transport_lost();
    assert_eq!(drain(&mut script.machine, script.now), []);
}

#[test]
fn an_answer_to_connect_after_the_end_changes_nothing() {
    let endings: [fn(&mut Script); 2] = [
        |script| script.machine.transport_lost(),
        |script| script.machine.handle_timeout(script.now + seconds(10)),
    ];
    for ending in endings {
        let answers: [fn(&mut Script); 2] = [
            |script| script.machine.accept(script.now, Bytes::new(), true),
            |script| script.machine.refuse(ConnectResponseId::TryLater, 5, Bytes::new()),
        ];
        for answer in answers {
            let mut script = Script::fresh_relay();
            script.receive(connect(6));
            ending(&mut script);
            assert!(matches!(drain(&mut script.machine, script.now)[..], [Event::Ended(_)]));
            answer(&mut script);
            assert!(script.machine.is_ended());
            assert_eq!(script.machine.poll_timeout(), None);
            assert_eq!(script.sent(), []);
            assert_eq!(drain(&mut script.machine, script.now), []);
        }
    }
}

// hand_off.

#[test]
fn a_handed_off_connection_continues_as_if_it_had_begun_there() {
    let conversation = [connect(5), connect_authenticate(), open(1), begin(1, 0, 0), data(1, b"abc"), end(1)];
    let mut bytes = BytesMut::new();
    for command in &conversation {
        command.encode(&mut bytes);
    }
    let whole = bytes.freeze();
    let mut connect_bytes = BytesMut::new();
    conversation[0].encode(&mut connect_bytes);
    for cut in connect_bytes.len()..=whole.len() {
        let mut first = Script::fresh_relay();
        let mut events = first.receive_bytes(&whole[..cut]);
        let Some(Event::Connect(connect)) = events.pop() else { panic!("{events:?}") };
        first.machine.receive(START, whole.slice(cut..));
        let handed = first.machine.hand_off(*connect);
        assert_eq!(handed, whole, "cut at {cut}");
    }
    let mut second =
        Script { machine: Connection::acceptor(Arc::new(config(Endpoint::Relay)), START), now: START };
    assert!(matches!(second.receive_bytes(&whole)[..], [Event::Connect(_)]));
    second.machine.accept(START, Bytes::new(), true);
    assert_eq!(second.machine.version(), Version::V1_5);
    let events = drain(&mut second.machine, START);
    assert!(
        matches!(events[..], [Event::ConnectAuthenticate { .. }, Event::Open(_), Event::Part { .. }]),
        "{events:?}"
    );
}

#[test]
fn connect_of_an_initiator_names_its_devices_and_its_highest_version() {
    let own = vec![text(CLIENT), text("dpp://client.example/D")];
    let config = ConnectionConfig { local_device_urls: own.clone(), ..config(Endpoint::Client) };
    let token = Bytes::from_static(&[1, 2]);
    let machine = Connection::initiator(Arc::new(config), START, text(RELAY), token.clone());
    let mut script = Script { machine, now: START };
    assert_eq!(
        script.sent(),
        [Command::from(Connect {
            minor_version: 6,
            target_device_url: text(RELAY),
            source_device_urls: own.into(),
            authentication_token: token,
            peer_product_version: text("Furrow Test 0 1"),
            peer_product_capabilities: Text::EMPTY,
        })]
    );
}
