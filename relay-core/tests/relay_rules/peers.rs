//! Single-hop fanout and the links between relays (sstp-behaviour 3.3.5.6.1, 3.3.4.1.2, 3.3.5.7 to 3.3.5.9, 3.3.5.19).

use crate::bench::{Bench, Who};
use crate::pair::{Calls, Pair, URLS, secret_of};
use relay_core::address::DeviceUrl;
use relay_core::relay::{Action, DialFailure};
use relay_core::security::peer_hello;
use relay_core::sstp::command::{FanoutEntry, SessionStatus};
use relay_core::sstp::connection::{Ended, Event};
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, OpenResponseId, SessionId, StatusId, Version};
use std::sync::Arc;
use std::time::Duration;

const ONE: usize = 0;
const TWO: usize = 1;
const SECOND: Duration = Duration::from_secs(1);

fn text(text: &'static str) -> Text {
    Text::new(text).unwrap()
}

impl Pair {
    /// A sender at relay one with a session towards these entries, settled.
    fn session(&mut self, who: Who, entries: &[FanoutEntry]) -> SessionId {
        let session = self.benches[ONE].fanout(who, "resource", entries);
        self.exchange();
        session
    }

    fn send(&mut self, who: Who, session: SessionId, bytes: usize) {
        self.benches[ONE].send(who, session, flags::A, bytes);
        self.exchange();
    }

    fn acknowledged(&mut self, who: Who) -> Vec<u64> {
        self.benches[ONE].acknowledged(who)
    }

    fn events(&mut self, who: Who) -> Vec<Event> {
        self.benches[ONE].events(who)
    }

    /// Nothing is left over in either relay.
    fn assert_at_rest(&self) {
        for relay in self.benches.iter().flat_map(|bench| &bench.relays) {
            assert_eq!(relay.in_flight(), (0, 0));
        }
    }
}

fn relay_status(session: SessionId, status: StatusId, indexes: &[u16]) -> Event {
    Event::SessionStatus(SessionStatus {
        session,
        status,
        device_url: text(URLS[TWO]),
        identity_url: Text::EMPTY,
        indexes: indexes.to_vec(),
    })
}

fn closed(session: SessionId, reason: CloseReason) -> Event {
    Event::SessionClosed { session, reason }
}

#[test]
fn entries_of_one_relay_go_there_in_one_session_and_one_message() {
    for shards in [1, 2, 3] {
        let mut pair = Pair::with(shards, |_, _| {});
        let sender = pair.benches[ONE].device(0);
        let recipients = [pair.benches[TWO].device(1), pair.benches[TWO].device(2)];
        let entries = [pair.entry_at(TWO, 1, true), pair.entry_at(TWO, 2, true)];
        let session = pair.session(sender, &entries);
        pair.send(sender, session, 100);
        assert_eq!(pair.acknowledged(sender), [100]);
        for recipient in recipients {
            assert_eq!(pair.benches[TWO].lengths(recipient), [100]);
        }
        let relayed: u64 = pair.benches[ONE].relays.iter().map(|relay| relay.stats().relayed).sum();
        assert_eq!((relayed, pair.begun.len()), (1, 1));
        assert_eq!(pair.benches[ONE].log(), (0, 0, 0), "nothing is stored on the way");
        pair.assert_at_rest();
    }
}

#[test]
fn local_and_remote_recipients_share_a_session_and_each_must_have_the_message() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let (local, remote) = (pair.benches[ONE].device(1), pair.benches[TWO].device(1));
    let entries =
        [pair.benches[ONE].entry(1, true), pair.entry_at(TWO, 1, true), pair.entry_at(ONE, 2, true)];
    let session = pair.session(sender, &entries);
    pair.wires_run = false;
    pair.send(sender, session, 100);
    assert_eq!(pair.benches[ONE].lengths(local), [100]);
    assert_eq!(pair.acknowledged(sender), [], "the other relay has not said that it has it");
    pair.wires_run = true;
    pair.exchange();
    assert_eq!(pair.benches[TWO].lengths(remote), [100]);
    assert_eq!(pair.acknowledged(sender), [100]);
    pair.assert_at_rest();
}

#[test]
fn flags_and_tail_pass_through_verbatim() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    let tail = b"note\0\x10\0\0\0";
    pair.benches[ONE].send_with(sender, session, flags::A | flags::E | flags::G, tail, 5);
    pair.exchange();
    let (bits, got, payload) = &pair.benches[TWO].clients[recipient].got[0];
    assert_eq!((*bits & !flags::A, &got[..], payload.len()), (flags::E | flags::G, &tail[..], 5));
}

#[test]
fn a_session_is_held_until_the_other_relay_is_ready() {
    let mut pair = Pair::new();
    pair.calls = Calls::Held;
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.benches[ONE].entry(1, true), pair.entry_at(TWO, 1, true)];
    pair.events(sender);
    let session = pair.session(sender, &entries);
    assert_eq!(pair.events(sender), [Event::SessionStopped(session)]);
    pair.answer_call();
    pair.exchange();
    assert_eq!(pair.events(sender), [Event::SessionReady(session)]);
}

#[test]
fn what_is_sent_into_a_held_session_waits_and_is_not_lost() {
    let mut pair = Pair::new();
    pair.calls = Calls::Held;
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.send(sender, session, 100);
    assert_eq!(pair.acknowledged(sender), []);
    pair.answer_call();
    pair.exchange();
    assert_eq!((pair.benches[TWO].lengths(recipient), pair.acknowledged(sender)), (vec![100], vec![100]));
}

#[test]
fn a_stop_of_the_other_relay_reaches_the_sender_and_so_does_its_go() {
    let mut pair = Pair::with(1, |relay, config| {
        if relay == TWO {
            config.connection_in_flight_bytes = 1000;
        }
    });
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.events(sender);
    pair.benches[TWO].durable_at_once = false;
    pair.send(sender, session, 2000);
    assert_eq!(pair.events(sender), [Event::SessionStopped(session)]);
    pair.benches[TWO].durable_at_once = true;
    pair.exchange();
    assert_eq!(pair.acknowledged(sender), [2000]);
    assert_eq!(pair.events(sender), [Event::SessionReady(session)]);
}

#[test]
fn a_relay_that_cannot_be_reached_is_told_by_name_with_the_positions_of_its_recipients() {
    for (failure, status) in [
        (DialFailure::NameNotFound, StatusId::DnsLookupFailed),
        (DialFailure::Unreachable, StatusId::HostNotReachable),
    ] {
        let mut pair = Pair::new();
        pair.calls = Calls::Fail(failure);
        let sender = pair.benches[ONE].device(0);
        let local = pair.benches[ONE].device(1);
        let entries =
            [pair.entry_at(TWO, 1, true), pair.benches[ONE].entry(1, true), pair.entry_at(TWO, 2, true)];
        pair.events(sender);
        let session = pair.session(sender, &entries);
        let expected = [
            Event::SessionStopped(session),
            relay_status(session, status, &[0, 2]),
            Event::SessionReady(session),
        ];
        assert_eq!(pair.events(sender), expected);
        pair.send(sender, session, 10);
        assert_eq!((pair.acknowledged(sender), pair.benches[ONE].lengths(local)), (vec![10], vec![10]));
        let session = pair.session(sender, &entries[..1]);
        let expected = [
            Event::SessionStopped(session),
            relay_status(session, status, &[]),
            closed(session, CloseReason::EmptySession),
        ];
        // The next call is a pause away.
        pair.pass(SECOND);
        assert_eq!(pair.events(sender), expected);
        pair.assert_at_rest();
    }
}

#[test]
fn on_1_5_a_lost_relay_is_told_once_for_all_its_recipients() {
    let mut pair = Pair::new();
    pair.calls = Calls::Fail(DialFailure::Unreachable);
    let sender = pair.benches[ONE].device_of(0, Version::V1_5);
    let entries = [pair.entry_at(TWO, 1, true), pair.entry_at(TWO, 2, true)];
    pair.events(sender);
    let session = pair.session(sender, &entries);
    let expected = [
        Event::SessionStopped(session),
        relay_status(session, StatusId::HostNotReachable, &[]),
        closed(session, CloseReason::EmptySession),
    ];
    assert_eq!(pair.events(sender), expected);
}

#[test]
fn a_link_lost_under_a_message_is_told_before_the_message_is_acknowledged_for_the_others() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let local = pair.benches[ONE].device(1);
    let entries = [pair.entry_at(TWO, 1, true), pair.benches[ONE].entry(1, true)];
    let session = pair.session(sender, &entries);
    pair.events(sender);
    pair.wires_run = false;
    pair.send(sender, session, 100);
    assert_eq!(pair.events(sender), []);
    pair.cut();
    let expected = [
        relay_status(session, StatusId::ConnectionClosed, &[]),
        Event::Acknowledged { session, tag: 100, count: 1 },
    ];
    assert_eq!(pair.events(sender), expected);
    assert_eq!(pair.benches[ONE].lengths(local), [100]);
    pair.assert_at_rest();
}

#[test]
fn what_the_other_relay_has_acknowledged_is_acknowledged_before_the_loss_is_told() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.entry_at(TWO, 1, true), pair.benches[ONE].entry(1, true)];
    let session = pair.session(sender, &entries);
    pair.events(sender);
    pair.benches[ONE].send(sender, session, 0, 10);
    pair.exchange();
    assert_eq!(pair.events(sender), [], "without flag A it waits for the timer");
    pair.cut();
    let expected = [
        Event::Acknowledged { session, tag: 10, count: 1 },
        relay_status(session, StatusId::ConnectionClosed, &[]),
    ];
    assert_eq!(pair.events(sender), expected);
}

#[test]
fn a_link_lost_in_the_middle_of_a_long_message_faults_it_and_the_session_takes_no_more() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.events(sender);
    let connection = &mut pair.benches[ONE].clients[sender].connection;
    connection.begin_message(session, flags::A, b"\0");
    connection.message_data(session, vec![7; 500_000].into());
    pair.exchange();
    pair.cut();
    let expected =
        [relay_status(session, StatusId::ConnectionClosed, &[]), closed(session, CloseReason::EmptySession)];
    assert_eq!(pair.events(sender), expected);
    assert_eq!(pair.benches[TWO].lengths(recipient), []);
    let connection = &mut pair.benches[ONE].clients[sender].connection;
    connection.end_message(session, 1);
    pair.exchange();
    pair.assert_at_rest();
    assert_eq!(pair.benches[TWO].relays[0].mail().0, 0);
}

#[test]
fn a_long_message_passes_in_parts_and_is_held_in_memory_by_neither_relay() {
    let mut pair = Pair::with(1, |_, config| config.connection_output_bytes = 64 << 10);
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.piece = 10_000;
    pair.send(sender, session, 3_000_000);
    assert_eq!(pair.benches[TWO].lengths(recipient), [3_000_000]);
    assert_eq!(pair.acknowledged(sender), [3_000_000]);
    pair.assert_at_rest();
}

#[test]
fn a_sender_that_closed_its_session_is_cut_off_rather_than_acknowledged_falsely() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.wires_run = false;
    pair.send(sender, session, 100);
    pair.benches[ONE].clients[sender].connection.close_session(session, CloseReason::NoReason);
    pair.exchange();
    pair.events(sender);
    pair.cut();
    let ended = Ended::ByPeer { reason: CloseReason::InternalError, return_time: 0 };
    assert_eq!(pair.events(sender), [Event::Ended(ended)], "and nothing was acknowledged");
    pair.assert_at_rest();
}

#[test]
fn close_of_the_sender_ends_the_other_relays_session_behind_what_was_sent() {
    let mut pair = Pair::new();
    pair.calls = Calls::Held;
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let session = pair.session(sender, &entries);
    pair.send(sender, session, 100);
    let connection = &mut pair.benches[ONE].clients[sender].connection;
    connection.begin_message(session, flags::A, b"\0");
    connection.message_data(session, vec![7; 200_000].into());
    connection.close_session(session, CloseReason::NoReason);
    pair.exchange();
    pair.answer_call();
    pair.exchange();
    assert_eq!(pair.benches[TWO].lengths(recipient), [100], "the whole one; the other one had no end");
    assert_eq!(pair.acknowledged(sender), [100]);
    pair.assert_at_rest();
}

#[test]
fn a_full_mailbox_there_is_told_with_the_senders_own_positions_between_all_versions() {
    let all = [Version::V1_5, Version::V1_6];
    for (inbound, link) in all.iter().flat_map(|&inbound| all.map(|link| (inbound, link))) {
        let mut pair = Pair::with(1, |relay, config| {
            if relay == TWO {
                config.quota_per_device = 250;
                Arc::make_mut(&mut config.connection).version = link;
            }
        });
        let sender = pair.benches[ONE].device_of(0, inbound);
        let entries = [
            pair.benches[ONE].entry(1, true),
            pair.entry_at(TWO, 1, true),
            pair.entry_at(TWO, 2, false),
            pair.entry_at(TWO, 3, true),
        ];
        let session = pair.session(sender, &entries);
        pair.send(sender, session, 200);
        pair.events(sender);
        pair.send(sender, session, 100);
        let mut told: Vec<Event> = pair.events(sender);
        assert_eq!(told.pop(), Some(Event::Acknowledged { session, tag: 100, count: 1 }));
        let status = |entry: usize, indexes: &[u16]| {
            Event::SessionStatus(SessionStatus {
                session,
                status: StatusId::QuotaWouldBeExceeded,
                device_url: entries[entry].device_url.clone(),
                identity_url: entries[entry].identity_url.clone(),
                indexes: indexes.to_vec(),
            })
        };
        let expected = match (inbound, link) {
            (Version::V1_6, Version::V1_6) => vec![status(1, &[1, 3])],
            _ => vec![status(1, &[]), status(3, &[])],
        };
        assert_eq!(told, expected, "{inbound:?} {link:?}");
        pair.send(sender, session, 20);
        assert_eq!(pair.acknowledged(sender), [20]);
        let late = pair.benches[TWO].device(2);
        pair.benches[TWO].attach(late, 2, 2);
        assert_eq!(pair.benches[TWO].lengths(late), [200, 100, 20]);
    }
}

#[test]
fn a_session_that_the_other_relay_refuses_is_lost_with_connection_closed() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let stranger =
        FanoutEntry { identity_url: text("grooveIdentity://nobody@"), ..pair.entry_at(TWO, 1, false) };
    pair.events(sender);
    let session = pair.session(sender, &[stranger]);
    let expected = [
        Event::SessionStopped(session),
        relay_status(session, StatusId::ConnectionClosed, &[]),
        closed(session, CloseReason::EmptySession),
    ];
    assert_eq!(pair.events(sender), expected);
    assert_eq!(pair.links(), 1, "the link stays");
}

#[test]
fn an_entry_at_a_relay_that_is_not_listed_refuses_the_session() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let elsewhere = FanoutEntry { relay_url: text("dpp://elsewhere"), ..pair.entry_at(TWO, 1, false) };
    let invalid = FanoutEntry { identity_url: text("not a URL"), ..pair.entry_at(TWO, 1, false) };
    for entry in [elsewhere, invalid] {
        pair.events(sender);
        let known = pair.entry_at(TWO, 1, true);
        let session = pair.session(sender, &[known, entry]);
        assert_eq!(
            pair.events(sender),
            [Event::SessionRefused { session, response: OpenResponseId::Unknown }]
        );
    }
    assert!(pair.begun.is_empty(), "nobody was called");
}

/// A connection of relay one to relay two, driven by the test.
fn as_relay_one(bench: &mut Bench, caller: usize) -> Who {
    let hello = peer_hello(URLS[ONE], &secret_of(caller), &mut crate::dice::Dice::new(9));
    let who = bench.dial(0, &[URLS[ONE]], Version::V1_6, Some(hello));
    bench.exchange();
    who
}

#[test]
fn what_came_from_a_relay_goes_to_no_third_one() {
    let mut pair = Pair::with(1, |relay, config| {
        if relay == TWO {
            let mut third = config.peers[0].clone();
            third.url = DeviceUrl::new("dpp://three").unwrap();
            config.peers = Arc::new([config.peers[0].clone(), third]);
        }
    });
    let local = pair.entry_at(TWO, 1, true);
    let third = FanoutEntry { relay_url: text("dpp://three"), ..local.clone() };
    let bench = &mut pair.benches[TWO];
    let relay = as_relay_one(bench, ONE);
    bench.events(relay);
    let session = bench.fanout(relay, "resource", &[local.clone(), third.clone()]);
    let response = OpenResponseId::FanoutNotSupported;
    assert_eq!(bench.events(relay), [Event::SessionRefused { session, response }]);
    let session = bench.fanout(relay, "resource", &[local]);
    assert_eq!(bench.events(relay), [Event::SessionReady(session)]);
    // A client of its own may go there.
    let client = bench.device(0);
    bench.events(client);
    let session = bench.fanout(client, "resource", &[third]);
    assert_eq!(bench.events(client), [Event::SessionStopped(session)]);
}

#[test]
fn a_relay_that_is_not_listed_or_has_the_wrong_key_leaves_nothing() {
    let mut pair = Pair::new();
    let entry = pair.entry_at(TWO, 1, true);
    let bench = &mut pair.benches[TWO];
    let wrong = as_relay_one(bench, TWO);
    assert!(
        !bench.clients[wrong].connection.is_established(),
        "the key of the other direction is not this one's"
    );
    let hello = peer_hello("dpp://three", &secret_of(ONE), &mut crate::dice::Dice::new(9));
    let unlisted = bench.dial(0, &["dpp://three"], Version::V1_6, Some(hello));
    bench.exchange();
    bench.events(unlisted);
    let session = bench.fanout(unlisted, "resource", &[entry]);
    assert_eq!(
        bench.events(unlisted),
        [Event::SessionRefused { session, response: OpenResponseId::Unknown }]
    );
}

#[test]
fn a_relay_attaches_no_account_and_nobody_registers_keys_for_it() {
    let mut pair = Pair::new();
    let bench = &mut pair.benches[TWO];
    let relay = as_relay_one(bench, ONE);
    bench.events(relay);
    let event = bench.attach(relay, 1, 1);
    assert_eq!(bench.events(relay), [closed(event, CloseReason::DeviceAuthenticationFailed)]);
    let claims = bench.dial(0, &[URLS[ONE]], Version::V1_6, None);
    bench.exchange();
    bench.events(claims);
    let account = Text::from(&bench.people.accounts[1].url);
    let event = bench.clients[claims].connection.register(account, b"token".as_slice().into()).unwrap();
    bench.exchange();
    assert_eq!(bench.events(claims), [closed(event, CloseReason::ProtocolError)]);
    assert!(!bench.actions.iter().any(|action| matches!(action, Action::Register(_))));
}

#[test]
fn either_side_may_call_and_the_other_uses_the_same_link() {
    let mut pair = Pair::new();
    let (at_one, at_two) = (pair.benches[ONE].device(0), pair.benches[TWO].device(0));
    let entry = pair.entry_at(ONE, 0, true);
    let session = pair.benches[TWO].fanout(at_two, "resource", &[entry]);
    pair.exchange();
    pair.benches[TWO].send(at_two, session, flags::A, 7);
    pair.exchange();
    let entry = pair.entry_at(TWO, 0, true);
    let session = pair.session(at_one, &[entry]);
    pair.send(at_one, session, 9);
    assert_eq!(pair.begun, [(TWO, 0)], "one call");
    assert_eq!((pair.benches[ONE].lengths(at_one), pair.benches[TWO].lengths(at_two)), (vec![7], vec![9]));
    assert_eq!((pair.acknowledged(at_one), pair.benches[TWO].acknowledged(at_two)), (vec![9], vec![7]));
}

#[test]
fn of_two_calls_that_cross_the_one_of_the_first_url_stands() {
    let mut pair = Pair::new();
    pair.calls = Calls::Held;
    let (at_one, at_two) = (pair.benches[ONE].device(0), pair.benches[TWO].device(0));
    let (to_two, to_one) = (pair.entry_at(TWO, 0, true), pair.entry_at(ONE, 0, true));
    let one_to_two = pair.session(at_one, &[to_two]);
    let two_to_one = pair.benches[TWO].fanout(at_two, "resource", &[to_one]);
    pair.exchange();
    assert_eq!(pair.begun, [(ONE, 0), (TWO, 0)]);
    pair.wires_run = false;
    assert!(pair.answer_call() && pair.answer_call());
    pair.exchange();
    pair.wires_run = true;
    pair.exchange();
    assert_eq!(pair.links(), 1);
    let crossed = |bench: &Bench| {
        let met = Ended::ByPeer { reason: CloseReason::CrossedConnections, return_time: 0 };
        bench
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Ended { how, .. } if *how == met))
            .count()
    };
    assert_eq!((crossed(&pair.benches[ONE]), crossed(&pair.benches[TWO])), (0, 1));
    pair.send(at_one, one_to_two, 5);
    pair.benches[TWO].send(at_two, two_to_one, flags::A, 6);
    pair.exchange();
    assert_eq!((pair.acknowledged(at_one), pair.benches[TWO].acknowledged(at_two)), (vec![5], vec![6]));
    pair.pass(60 * SECOND);
    assert_eq!(pair.begun.len(), 2, "and nobody calls again");
}

#[test]
fn a_lost_link_is_called_again_for_a_new_session_after_a_pause_that_grows() {
    let mut pair = Pair::new();
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.entry_at(TWO, 1, true)];
    pair.session(sender, &entries);
    pair.cut();
    pair.pass(60 * SECOND);
    assert_eq!(pair.begun.len(), 1, "nobody needs it");
    pair.calls = Calls::Fail(DialFailure::Unreachable);
    let mut pauses = Vec::new();
    for call in 2..6 {
        let session = pair.session(sender, &entries);
        let mut pause = Duration::ZERO;
        while pair.begun.len() < call {
            pair.pass(Duration::from_millis(25));
            pause += Duration::from_millis(25);
        }
        assert!(pair.events(sender).contains(&relay_status(session, StatusId::HostNotReachable, &[])));
        pauses.push(pause);
    }
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
    pair.calls = Calls::Answered;
    pair.pass(60 * SECOND);
    let session = pair.session(sender, &entries);
    pair.send(sender, session, 3);
    assert_eq!(pair.acknowledged(sender), [3]);
}

#[test]
fn a_relay_that_rests_is_left_alone_for_as_long_as_it_said() {
    let mut pair = Pair::with(1, |_, config| config.return_time = 30 * SECOND);
    let sender = pair.benches[ONE].device(0);
    let entries = [pair.entry_at(TWO, 1, true)];
    pair.session(sender, &entries);
    let now = pair.benches[TWO].now;
    pair.benches[TWO].relays[0].close_all(now);
    pair.exchange();
    pair.events(sender);
    let session = pair.session(sender, &entries);
    assert_eq!(
        pair.events(sender)[..2],
        [Event::SessionStopped(session), relay_status(session, StatusId::HostNotReachable, &[])],
        "too long to wait for"
    );
    assert_eq!(pair.begun.len(), 1);
    pair.pass(40 * SECOND);
    pair.session(sender, &entries);
    assert_eq!(pair.begun.len(), 2);
}

#[test]
fn sessions_above_the_links_number_wait_until_one_ends() {
    let mut pair = Pair::with(1, |relay, config| {
        if relay == ONE {
            Arc::make_mut(&mut config.connection).max_sessions = 2;
        }
    });
    let senders: Vec<Who> = (0..2).map(|account| pair.benches[ONE].device(account)).collect();
    let entries = [pair.entry_at(TWO, 1, true)];
    let first = pair.session(senders[0], &entries);
    pair.session(senders[0], &entries);
    pair.events(senders[1]);
    let third = pair.session(senders[1], &entries);
    assert_eq!(pair.events(senders[1]), [Event::SessionStopped(third)]);
    pair.benches[ONE].clients[senders[0]].connection.close_session(first, CloseReason::NoReason);
    pair.exchange();
    assert_eq!(pair.events(senders[1]), [Event::SessionReady(third)]);
}

#[test]
fn legs_that_wait_for_a_slow_link_take_turns() {
    let mut pair = Pair::with(1, |_, config| config.connection_output_bytes = 1000);
    let sender = pair.benches[ONE].device(0);
    let recipient = pair.benches[TWO].device(1);
    let entries = [pair.entry_at(TWO, 1, true)];
    let sessions = [pair.session(sender, &entries), pair.session(sender, &entries)];
    // Each takes a place in the queue; none is asked for while the wire holds.
    for (number, session) in [0, 0, 0, 1, 1, 1].into_iter().zip(1..).map(|(leg, n)| (n, sessions[leg])) {
        pair.benches[ONE].send(sender, session, flags::A, 2000 + number);
    }
    pair.exchange();
    assert_eq!(pair.benches[TWO].lengths(recipient).len(), 6);
    let order = pair.benches[TWO].lengths(recipient);
    let first_of_second = order.iter().position(|&length| length == 2004).unwrap();
    let last_of_first = order.iter().position(|&length| length == 2003).unwrap();
    assert!(first_of_second < last_of_first, "{order:?}");
}
