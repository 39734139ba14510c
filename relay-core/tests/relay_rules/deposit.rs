//! Leaving mail: who may, for whom, and when it is acknowledged (sstp-behaviour 7.0, 3.1.4.7, 3.3.5.5, 3.3.5.6).

use crate::bench::Bench;
use relay_core::sstp::command::{FanoutEntry, FanoutOpen, SessionStatus};
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, OpenResponseId, SessionId, StatusId, Version};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn text(text: &'static str) -> Text {
    Text::new(text).unwrap()
}

fn refusal(session: SessionId, response: OpenResponseId) -> Vec<Event> {
    vec![Event::SessionRefused { session, response }]
}

#[test]
fn only_an_authenticated_device_leaves_mail_unless_anyone_may() {
    for (anyone, expected) in [(false, false), (true, true)] {
        let mut bench = Bench::with(1, |config| config.deposit_by_anyone = anyone);
        let stranger = bench.stranger();
        bench.events(stranger);
        let session = bench.open(stranger, 1, true);
        assert_eq!(bench.clients[stranger].connection.may_send(session), expected);
        if !expected {
            assert_eq!(bench.events(stranger), refusal(session, OpenResponseId::Unknown));
        }
    }
}

#[test]
fn open_answers_what_the_address_deserves() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let known = (bench.identity(1), bench.device_url(1));
    let other_device = bench.device_url(2);
    let nobody = text("grooveIdentity://nobody@");
    let nothing = text("dpp://nothing");
    let cases = [
        ("resource", known.0.clone(), known.1.clone(), None),
        ("resource", known.0.clone(), Text::EMPTY, None),
        ("resource", nobody, Text::EMPTY, Some(OpenResponseId::Unknown)),
        ("resource", Text::EMPTY, Text::EMPTY, Some(OpenResponseId::Unknown)),
        ("resource", known.0.clone(), nothing, Some(OpenResponseId::Unknown)),
        ("resource", known.0.clone(), other_device, Some(OpenResponseId::Unknown)),
        ("grooveWanDPP", known.0, known.1, Some(OpenResponseId::NoResource)),
    ];
    for (resource, identity, device, expected) in cases {
        bench.events(sender);
        let session = bench.open_to(sender, resource, identity, device);
        let expected = expected.map_or(vec![Event::SessionReady(session)], |code| refusal(session, code));
        assert_eq!(bench.events(sender), expected);
    }
}

#[test]
fn fanout_open_is_judged_in_the_order_of_its_rows() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let local = bench.entry(1, true);
    let own = FanoutEntry { relay_url: text(crate::bench::RELAY), ..local.clone() };
    let foreign = FanoutEntry { relay_url: text("dpp://elsewhere"), ..local.clone() };
    let unknown = FanoutEntry { identity_url: text("grooveIdentity://nobody@"), ..local.clone() };
    let cases = [
        ("resource", vec![local.clone(), own], None),
        ("grooveWanDPP", vec![local.clone(), foreign], Some(OpenResponseId::FanoutNotSupported)),
        ("grooveWanDPP", vec![local.clone(), unknown.clone()], Some(OpenResponseId::NoResource)),
        ("resource", vec![local, unknown], Some(OpenResponseId::Unknown)),
    ];
    for (resource, entries, expected) in cases {
        bench.events(sender);
        let session = bench.fanout(sender, resource, &entries);
        let expected = expected.map_or(vec![Event::SessionReady(session)], |code| refusal(session, code));
        assert_eq!(bench.events(sender), expected);
    }
}

#[test]
fn a_fanout_open_without_entries_is_ok_and_its_session_gone() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    bench.events(sender);
    let session = bench.fanout(sender, "resource", &[]);
    assert_eq!(bench.events(sender), [Event::SessionReady(session)]);
    bench.send(sender, session, 0, 3);
    bench.pass(6 * SECOND);
    assert_eq!(bench.acknowledged(sender), [3], "dropped, and counted");
    assert_eq!(bench.relays[0].mail(), (0, 0));
}

#[test]
fn a_message_is_acknowledged_when_it_is_durable() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    let batch = bench.take_batch(0);
    assert_eq!(bench.acknowledged(sender), []);
    bench.appended(0, batch);
    assert_eq!(bench.acknowledged(sender), [100]);
    assert_eq!(bench.log(), (1, 0, 0));
}

#[test]
fn a_message_is_acknowledged_when_its_recipients_have_it_and_the_log_never_sees_it() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let (sender, recipient) = (bench.device(0), bench.device(1));
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    assert_eq!(bench.lengths(recipient), [100]);
    assert_eq!(bench.acknowledged(sender), [100]);
    assert!(bench.take_batch(0).is_empty());
    assert!(bench.relays[0].is_settled());
}

#[test]
fn a_message_acknowledged_while_it_is_written_is_deleted_afterwards() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let (sender, recipient) = (bench.device(0), bench.device(1));
    bench.clients[recipient].accepts = OpenResponseId::OkStopSending;
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    let batch = bench.take_batch(0);
    let Event::Open(open) = bench.events(recipient).pop().unwrap() else { panic!("no session") };
    bench.clients[recipient].connection.respond(open.session, OpenResponseId::Ok);
    bench.exchange();
    assert_eq!(bench.acknowledged(sender), [100], "the recipient has it");
    bench.durable_at_once = true;
    bench.appended(0, batch);
    assert_eq!(bench.log(), (1, 0, 1));
    assert_eq!(bench.relays[0].mail().0, 0);
}

#[test]
fn every_recipient_must_have_a_fanout_message_one_way_or_the_other() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let (sender, online) = (bench.device(0), bench.device(1));
    let entries = [bench.entry(1, true), bench.entry(2, true)];
    let session = bench.fanout(sender, "resource", &entries);
    bench.send(sender, session, flags::A, 100);
    assert_eq!(bench.lengths(online), [100]);
    assert_eq!(bench.acknowledged(sender), [], "the other one has it neither in hand nor on disk");
    bench.durable_at_once = true;
    bench.exchange();
    assert_eq!(bench.acknowledged(sender), [100]);
    assert_eq!(bench.log(), (1, 1, 0), "one record, and one recipient deleted from it");
    let late = bench.device(2);
    assert_eq!(bench.lengths(late), [100]);
    assert_eq!(bench.log(), (1, 1, 1));
}

#[test]
fn without_flag_a_acknowledgement_waits_for_a_run_of_64_or_5_seconds() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for _ in 0..63 {
        bench.send(sender, session, 0, 1);
    }
    assert_eq!(bench.acknowledged(sender).len(), 0);
    bench.send(sender, session, 0, 1);
    assert_eq!(bench.acknowledged(sender).len(), 64);
    bench.send(sender, session, 0, 2);
    bench.pass(4 * SECOND);
    assert_eq!(bench.acknowledged(sender), []);
    bench.pass(2 * SECOND);
    assert_eq!(bench.acknowledged(sender), [2]);
    bench.send(sender, session, flags::A, 3);
    assert_eq!(bench.acknowledged(sender), [3]);
}

#[test]
fn flag_d_drops_what_nobody_collects_and_only_that() {
    let mut bench = Bench::new();
    let (sender, online) = (bench.device(0), bench.device(1));
    let entries = [bench.entry(1, true), bench.entry(2, true)];
    let session = bench.fanout(sender, "resource", &entries);
    bench.send(sender, session, flags::A | flags::D, 100);
    assert_eq!(bench.acknowledged(sender), [100]);
    assert_eq!(bench.lengths(online), [100]);
    assert_eq!(bench.relays[0].mail().0, 0);
    let late = bench.device(2);
    assert!(bench.lengths(late).is_empty());
}

#[test]
fn a_message_outlives_its_lifetime_neither_in_the_mailbox_nor_on_the_way() {
    for sweep in [true, false] {
        let mut bench = Bench::new();
        let sender = bench.device(0);
        let session = bench.open(sender, 1, true);
        bench.send_with(sender, session, flags::E, b"\0\x02\0\0\0", 5);
        bench.send_with(sender, session, flags::E | flags::A, b"\0\x10\0\0\0", 6);
        bench.now = bench.now + 3 * SECOND;
        if sweep {
            bench.pass(Duration::ZERO);
            assert_eq!(bench.relays[0].mail().0, 1);
        }
        let recipient = bench.device(1);
        assert_eq!(bench.lengths(recipient), [6]);
        assert_eq!((bench.relays[0].mail().0, bench.log()), (0, (2, 0, 2)));
        assert_eq!(bench.relays[0].stats().expired, 1);
    }
}

#[test]
fn a_full_mailbox_closes_a_plain_session() {
    let mut bench = Bench::with(1, |config| config.quota_per_device = 250);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    bench.events(sender);
    bench.send(sender, session, flags::A, 200);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert_eq!(bench.events(sender)[0], closed);
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [100]);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 200);
    assert_eq!(bench.lengths(recipient), [100, 200], "there is room again");
}

fn status(session: SessionId, named: &FanoutEntry, indexes: &[u16]) -> Event {
    Event::SessionStatus(SessionStatus {
        session,
        status: StatusId::QuotaWouldBeExceeded,
        device_url: named.device_url.clone(),
        identity_url: named.identity_url.clone(),
        indexes: indexes.to_vec(),
    })
}

#[test]
fn full_mailboxes_fall_out_of_a_fanout_session_and_the_others_go_on() {
    for version in [Version::V1_5, Version::V1_6] {
        let mut bench = Bench::with(1, |config| config.quota_per_device = 250);
        let sender = bench.device_of(0, version);
        for full in [2, 3] {
            let session = bench.open(sender, full, true);
            bench.send(sender, session, flags::A, 200);
        }
        let entries = [bench.entry(1, true), bench.entry(2, true), bench.entry(3, true)];
        let session = bench.fanout(sender, "resource", &entries);
        bench.events(sender);
        bench.send(sender, session, flags::A, 100);
        let statuses = match version {
            Version::V1_5 => vec![status(session, &entries[1], &[]), status(session, &entries[2], &[])],
            Version::V1_6 => vec![status(session, &entries[1], &[1, 2])],
        };
        assert_eq!(bench.acknowledged(sender), [100]);
        assert_eq!(bench.events(sender), statuses);
        bench.send(sender, session, flags::A, 50);
        assert_eq!(bench.acknowledged(sender), [50], "the live recipient's mail is still acknowledged");
        bench.send(sender, session, flags::A, 150);
        assert_eq!(
            bench.events(sender)[..2],
            [
                status(session, &entries[0], &[]),
                Event::SessionClosed { session, reason: CloseReason::EmptySession }
            ],
            "nobody is left"
        );
        let (live, full) = (bench.device(1), bench.device(2));
        assert_eq!((bench.lengths(live), bench.lengths(full)), (vec![100, 50], vec![200]));
    }
}

#[test]
fn a_locked_out_recipient_gets_nothing_from_the_beginning() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let locked = bench.people.accounts[2].url.clone();
    bench.people.directory.0.borrow_mut().accounts.get_mut(&locked).unwrap().locked_out = true;
    let locked = bench.people.devices[3].url.clone();
    bench.people.directory.0.borrow_mut().devices.get_mut(&locked).unwrap().locked_out = true;
    let entries = [bench.entry(1, true), bench.entry(2, false), bench.entry(3, true)];
    bench.events(sender);
    let session = bench.fanout(sender, "resource", &entries);
    let events = bench.events(sender);
    let Event::SessionStatus(status) = &events[1] else { panic!("{events:?}") };
    assert_eq!((status.status, &status.indexes[..]), (StatusId::LockedOut, &[1, 2][..]));
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.acknowledged(sender), [10]);
    let session = bench.fanout(sender, "resource", &entries[1..]);
    let closed = Event::SessionClosed { session, reason: CloseReason::EmptySession };
    assert_eq!(bench.events(sender).pop(), Some(closed));
    let session = bench.open(sender, 2, false);
    assert_eq!(bench.events(sender), refusal(session, OpenResponseId::Unknown));
}

#[test]
fn a_fanout_open_as_long_as_a_command_can_be_is_stored_in_records_of_bounded_heads() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let resource: &'static str = "r".repeat(1024).leak();
    // Everybody is named many times over, as device and as identity.
    let all: Vec<_> = (1..8).flat_map(|n| [bench.entry(n, true), bench.entry(n, false)]).collect();
    let fits = |count: &usize| {
        let entries: Vec<_> = all.iter().cycle().take(*count).cloned().collect();
        FanoutOpen::new(SessionId(1), text(resource), &entries, Version::V1_6).is_some()
    };
    let most = (1..2000).take_while(fits).last().unwrap();
    assert!(most > 300, "{most} entries");
    let entries: Vec<_> = all.iter().cycle().take(most).cloned().collect();
    let session = bench.fanout(sender, resource, &entries);
    bench.send(sender, session, flags::A, 100);
    assert_eq!(bench.acknowledged(sender), [100]);
    assert_eq!(bench.log().0, 2, "one record for devices, one for identities");
    for n in 1..8 {
        let recipient = bench.device(n);
        bench.attach(recipient, n, n);
        assert_eq!(bench.lengths(recipient), [100, 100], "once as a device and once as an identity");
    }
}

#[test]
fn who_is_named_twice_in_a_fanout_falls_out_of_it_under_both_names() {
    for version in [Version::V1_5, Version::V1_6] {
        let mut bench = Bench::with(1, |config| config.quota_per_device = 250);
        let sender = bench.device_of(0, version);
        let session = bench.open(sender, 2, true);
        bench.send(sender, session, flags::A, 200);
        let entries = [2, 1, 2, 1, 2].map(|account| bench.entry(account, true));
        let session = bench.fanout(sender, "resource", &entries);
        bench.events(sender);
        bench.send(sender, session, flags::A, 100);
        let statuses = match version {
            Version::V1_5 => (0..3).map(|_| status(session, &entries[0], &[])).collect(),
            Version::V1_6 => vec![status(session, &entries[0], &[0, 2, 4])],
        };
        assert_eq!(bench.acknowledged(sender), [100]);
        assert_eq!(bench.events(sender), statuses);
        let recipient = bench.device(1);
        assert_eq!(bench.lengths(recipient), [100]);
    }
}
