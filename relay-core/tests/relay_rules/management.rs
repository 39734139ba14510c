//! What the management of users means for connections and mail that are there (management-soap-spmr 7.8 to 7.11).

use crate::bench::{Bench, Who};
use relay_core::relay::mesh::Target;
use relay_core::relay::{Order, Receipt, ShardId};
use relay_core::sstp::command::SessionStatus;
use relay_core::sstp::connection::{Ended, Event};
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, ConnectResponseId, StatusId, Version};
use std::sync::Arc;
use std::time::Duration;

fn targets(bench: &Bench, account: usize) -> [Target; 2] {
    let url = bench.people.accounts[account].url.clone();
    let device = bench.people.devices[account].url.clone();
    [Target::Account(url.clone()), Target::Device(url, device)]
}

/// Gives an order about an account to every shard.
fn order(bench: &mut Bench, account: usize, order: Order) {
    let home = ShardId(bench.home(account) as u16);
    let receipt: Receipt = Arc::new(());
    for relay in &mut bench.relays {
        relay.order(bench.now, home, order.clone(), receipt.clone());
    }
    bench.exchange();
    assert_eq!(Arc::strong_count(&receipt), 1, "the order has been obeyed");
}

fn lock(bench: &mut Bench, account: usize, locked_out: bool) {
    let url = bench.people.accounts[account].url.clone();
    bench.people.directory.0.borrow_mut().accounts.get_mut(&url).unwrap().locked_out = locked_out;
}

fn lock_out(bench: &mut Bench, account: usize) {
    lock(bench, account, true);
    let targets = targets(bench, account).into();
    order(bench, account, Order::LockOut(targets));
}

fn ended(bench: &mut Bench, who: Who) -> Option<Ended> {
    bench.events(who).into_iter().find_map(|event| match event {
        Event::Ended(how) => Some(how),
        _ => None,
    })
}

#[test]
fn a_locked_out_user_is_disconnected_and_rejected_until_let_in_again() {
    for shards in [1, 2] {
        let mut bench = Bench::with(shards, |_| {});
        let (sender, recipient) = (bench.device(0), bench.device(1));
        let session = bench.open(sender, 1, true);
        bench.send(sender, session, flags::A, 10);
        lock_out(&mut bench, 1);
        let by_relay = Ended::ByPeer { reason: CloseReason::NoReason, return_time: 0 };
        assert_eq!(ended(&mut bench, recipient), Some(by_relay));
        let again = bench.device(1);
        assert_eq!(ended(&mut bench, again), Some(Ended::Refused(ConnectResponseId::ConnectRejected)));
        lock(&mut bench, 1, false);
        let again = bench.device(1);
        assert_eq!(ended(&mut bench, again), None);
        assert_eq!(bench.lengths(recipient), [10]);
    }
}

#[test]
fn who_sends_to_a_locked_out_user_is_told_and_what_waits_is_kept() {
    for shards in [1, 2] {
        let mut bench = Bench::with(shards, |_| {});
        let sender = bench.device(0);
        let plain = bench.open(sender, 1, true);
        let entries = [bench.entry(1, true), bench.entry(2, true)];
        let fanout = bench.fanout(sender, "resource", &entries);
        bench.send(sender, plain, flags::A, 10);
        bench.send(sender, fanout, flags::A, 20);
        bench.events(sender);
        lock_out(&mut bench, 1);
        let status = |session, named: Option<usize>| {
            let entry = named.map(|index| &entries[index]);
            Event::SessionStatus(SessionStatus {
                session,
                status: StatusId::LockedOut,
                device_url: entry.map_or(Text::EMPTY, |entry| entry.device_url.clone()),
                identity_url: entry.map_or(Text::EMPTY, |entry| entry.identity_url.clone()),
                indexes: vec![],
            })
        };
        let events = bench.events(sender);
        let closed = Event::SessionClosed { session: plain, reason: CloseReason::EmptySession };
        for expected in [status(plain, None), status(fanout, Some(0)), closed] {
            assert!(events.contains(&expected), "{expected:?} in {events:?}");
        }
        assert_eq!(events.len(), 3, "{events:?}");
        bench.send(sender, fanout, flags::A, 30);
        lock(&mut bench, 1, false);
        let (locked, other) = (bench.device(1), bench.device(2));
        assert_eq!(bench.lengths(other), [20, 30]);
        let mut lengths = bench.lengths(locked);
        lengths.sort_unstable();
        assert_eq!(lengths, [10, 20]);
    }
}

#[test]
fn a_message_that_is_arriving_is_not_kept_for_who_is_locked_out_meanwhile() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let entries = [bench.entry(1, true), bench.entry(2, true)];
    let session = bench.fanout(sender, "resource", &entries);
    let connection = &mut bench.clients[sender].connection;
    connection.begin_message(session, flags::A, b"\0");
    connection.message_data(session, vec![7; 300_000].into());
    bench.exchange();
    lock_out(&mut bench, 1);
    bench.clients[sender].connection.end_message(session, 1);
    bench.exchange();
    lock(&mut bench, 1, false);
    let (locked, other) = (bench.device(1), bench.device(2));
    assert_eq!((bench.lengths(locked), bench.lengths(other)), (vec![], vec![300_000]));
    assert_eq!(bench.acknowledged(sender), [1]);
    assert_eq!(bench.relays[0].in_flight(), (0, 0));
}

#[test]
fn an_attached_account_that_is_locked_out_is_detached_and_the_connection_lives() {
    let mut bench = Bench::with(2, |_| {});
    let who = bench.device(0);
    let event = bench.attach(who, 1, 1);
    bench.events(who);
    lock_out(&mut bench, 1);
    let closed = Event::SessionClosed { session: event, reason: CloseReason::UserAuthenticationFailed };
    assert_eq!(bench.events(who), [closed]);
    let sender = bench.device(2);
    lock(&mut bench, 1, false);
    let session = bench.open(sender, 1, false);
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.lengths(who), []);
    bench.attach(who, 1, 1);
    assert_eq!(bench.lengths(who), [10]);
}

#[test]
fn an_account_that_is_locked_out_during_its_handshake_gets_nothing() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    let hello = bench.hello(1);
    let who = bench.dial(0, &[bench.device_url(1).as_str().to_owned().as_str()], Version::V1_6, Some(hello));
    // The Connect is answered before, the proof arrives after.
    let id = bench.clients[who].id.unwrap();
    let connection = &mut bench.clients[who].connection;
    connection.prepare_output(bench.now);
    let connect = connection.output().take();
    bench.relays[0].received(bench.now, id, connect);
    lock_out(&mut bench, 1);
    assert_eq!(bench.lengths(who), []);
    assert_eq!(bench.relays[0].mail().0, 1);
}

#[test]
fn a_purge_deletes_what_waits_and_nothing_that_comes_later() {
    for (shards, count) in [(1, 3), (2, 2500)] {
        let mut bench = Bench::with(shards, |_| {});
        let sender = bench.device(0);
        let (to_device, to_identity) = (bench.open(sender, 1, true), bench.open(sender, 1, false));
        let other = bench.open(sender, 2, true);
        for _ in 0..count {
            bench.send(sender, to_device, flags::A, 10);
        }
        bench.send(sender, to_identity, flags::A, 20);
        bench.send(sender, other, flags::A, 30);
        let home = bench.home(1);
        let purge = Order::Purge(targets(&bench, 1).into());
        order(&mut bench, 1, purge);
        bench.send(sender, to_device, flags::A, 40);
        for _ in 0..4 {
            assert!(bench.relays[home].stats().deleted_by_order <= count + 1);
            bench.pass(Duration::from_millis(1));
        }
        assert_eq!(bench.relays[home].stats().deleted_by_order, count + 1);
        assert!(bench.relays[home].poll_timeout() > bench.now, "nothing is left to do");
        let (purged, spared) = (bench.device(1), bench.device(2));
        assert_eq!(bench.lengths(purged), [40]);
        assert_eq!(bench.lengths(spared), [30]);
        assert!(bench.relays.iter().all(|relay| relay.mail().0 == 0));
    }
}

#[test]
fn mail_that_expires_while_it_is_purged_costs_no_later_mail() {
    const COUNT: u64 = 4000;
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for _ in 0..COUNT {
        bench.send(sender, session, flags::A, 10);
    }
    let purge = Order::Purge(targets(&bench, 1).into());
    order(&mut bench, 1, purge);
    let two_hundred_days = [0, 0x00, 0xac, 0x07, 0x01];
    bench.send_with(sender, session, flags::E, &two_hundred_days, 20);
    let deleted = bench.relays[0].stats().deleted_by_order;
    assert!(deleted < COUNT - 1024, "the purge goes on when the sweep comes: {deleted}");
    bench.now = bench.now + Duration::from_secs(31 * 24 * 3600);
    for _ in 0..5 {
        bench.relays[0].handle_timeout(bench.now);
    }
    let stats = bench.relays[0].stats();
    assert_eq!((stats.deleted_by_order, stats.expired), (COUNT, 0));
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [20]);
}

#[test]
fn a_purge_ends_a_delivery_and_later_mail_takes_a_new_one() {
    let mut bench = Bench::new();
    let (sender, recipient) = (bench.device(0), bench.device(1));
    bench.clients[recipient].finishes = false;
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    bench.events(recipient);
    let purge = Order::Purge(targets(&bench, 1).into());
    order(&mut bench, 1, purge);
    let events = bench.events(recipient);
    assert!(matches!(events[..], [Event::SessionClosed { .. }]), "{events:?}");
    bench.send(sender, session, flags::A, 20);
    assert_eq!(bench.lengths(recipient), [10, 20]);
    assert_eq!(bench.relays[0].mail().0, 1);
}

#[test]
fn a_new_quota_holds_for_sessions_that_are_open() {
    let mut bench = Bench::with(1, |config| config.quota_per_identity = 1000);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, false);
    bench.send(sender, session, flags::A, 100);
    let identity = bench.people.accounts[1].identities[0].clone();
    order(&mut bench, 1, Order::Quota([(identity, Some(150))].into()));
    bench.events(sender);
    bench.send(sender, session, flags::A, 100);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert_eq!(bench.events(sender)[0], closed);
}

#[test]
fn new_defaults_hold_for_sessions_that_are_open() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, false);
    bench.relays[0].set_defaults(Some(150), Some(Duration::from_secs(5)));
    bench.send(sender, session, flags::A, 100);
    bench.events(sender);
    bench.send(sender, session, flags::A, 100);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert_eq!(bench.events(sender)[0], closed);
    bench.pass(Duration::from_secs(6));
    assert_eq!(bench.relays[0].stats().expired, 1);
}

#[test]
fn mail_for_a_user_with_a_lifetime_of_its_own_is_kept_for_so_long() {
    let mut bench = Bench::new();
    let identity = bench.people.accounts[1].identities[0].clone();
    bench.people.directory.0.borrow_mut().identities.get_mut(&identity).unwrap().lifetime_seconds = Some(5);
    let sender = bench.device(0);
    let entries = [bench.entry(1, true), bench.entry(2, true)];
    let session = bench.fanout(sender, "resource", &entries);
    bench.send(sender, session, flags::A, 10);
    // The sender's own word counts more.
    bench.send_with(sender, session, flags::E | flags::A, b"\0\x10\0\0\0", 20);
    assert_eq!(bench.acknowledged(sender), [10, 20]);
    bench.now = bench.now + Duration::from_secs(6);
    let (short, long) = (bench.device(1), bench.device(2));
    assert_eq!(bench.lengths(short), [20]);
    assert_eq!(bench.lengths(long), [10, 20]);
}

#[test]
fn a_quiescent_relay_puts_newcomers_off_until_it_is_resumed() {
    let mut bench = Bench::new();
    let first = bench.device(0);
    bench.relays[0].drain(bench.now);
    bench.relays[0].close_all(bench.now);
    bench.exchange();
    let sent_away = ended(&mut bench, first);
    // The return times of many are spread over another 30 s.
    assert!(
        matches!(sent_away, Some(Ended::ByPeer { reason: CloseReason::Resting, return_time: 30..=60 })),
        "{sent_away:?}"
    );
    let put_off = bench.device(0);
    assert_eq!(ended(&mut bench, put_off), Some(Ended::Refused(ConnectResponseId::TryLater)));
    bench.relays[0].resume(bench.now);
    let second = bench.device(0);
    assert_eq!(ended(&mut bench, second), None);
}
