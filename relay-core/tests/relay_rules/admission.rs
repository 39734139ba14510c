//! Who gets in, and what it may collect (sstp-behaviour 7.0, Connect and Attach; sstp-security 7.1).

use crate::bench::{Bench, Proof, RELAY, Who};
use relay_core::relay::{Action, RelayConfig};
use relay_core::sstp::connection::{ConnectionConfig, Ended, Endpoint, Event};
use relay_core::sstp::profile::flags;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, ConnectResponseId, Version};
use std::sync::Arc;
use std::time::Duration;

fn how_it_ended(bench: &mut Bench, who: Who) -> Option<Ended> {
    bench.events(who).into_iter().find_map(|event| match event {
        Event::Ended(how) => Some(how),
        _ => None,
    })
}

fn closed(reason: CloseReason, return_time: u32) -> Option<Ended> {
    Some(Ended::ByPeer { reason, return_time })
}

#[test]
fn a_connection_is_handed_to_the_home_of_its_device() {
    let mut bench = Bench::with(2, |_| {});
    let device = (0..8).find(|&device| bench.home(device) == 1).unwrap();
    let hello = bench.hello(device);
    let url = bench.device_url(device);
    let who = bench.dial(0, &[url.as_str()], Version::V1_6, Some(hello));
    // What follows the Connect goes with it.
    bench.exchange();
    assert_eq!(bench.clients[who].shard, 1);
    assert_eq!((bench.relays[0].connections(), bench.relays[1].connections()), (0, 1));
    assert_eq!((bench.relays[0].stats().handed_off, bench.relays[1].stats().authenticated), (1, 1));
}

#[test]
fn a_virtual_connection_stays_where_it_is_and_its_mail_comes_through_the_mesh() {
    let mut bench = Bench::with(2, |_| {});
    let device = (0..8).find(|&device| bench.home(device) == 1).unwrap();
    let (hello, url) = (bench.hello(device), bench.device_url(device));
    let who = bench.dial(0, &[url.as_str()], Version::V1_6, Some(hello));
    let now = bench.now;
    let virtually = bench.relays[0].connected_virtually(now, None);
    let socket = bench.clients[who].id.replace(virtually).unwrap();
    bench.relays[0].disconnected(now, socket);
    bench.exchange();
    assert_eq!((bench.relays[0].stats().handed_off, bench.relays[0].stats().authenticated), (0, 1));
    let sender = bench.device((device + 1) % 8);
    let session = bench.open(sender, device, true);
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.lengths(who), [10]);
}

#[test]
fn one_connection_too_many_of_a_device_is_closed_as_crossed() {
    let mut bench = Bench::with(1, |config| config.max_connections_per_device = 2);
    let first = bench.device(1);
    bench.device(1);
    let third = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, third), closed(CloseReason::CrossedConnections, 0));
    bench.lose(first);
    let fourth = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, fourth), None);
}

#[test]
fn a_locked_out_device_is_rejected_wherever_it_stands_in_the_list() {
    for urls in [["dpp://sim/1", "dpp://sim/2"], ["dpp://sim/2", "dpp://sim/1"]] {
        let mut bench = Bench::new();
        let locked = bench.people.devices[1].url.clone();
        bench.people.directory.0.borrow_mut().devices.get_mut(&locked).unwrap().locked_out = true;
        let who = bench.dial(0, &urls, Version::V1_6, None);
        bench.exchange();
        assert_eq!(how_it_ended(&mut bench, who), Some(Ended::Refused(ConnectResponseId::ConnectRejected)));
    }
}

#[test]
fn a_device_is_rejected_once_all_of_its_accounts_are_locked_out() {
    let mut bench = Bench::new();
    let account = bench.people.accounts[1].url.clone();
    let first = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, first), None);
    bench.people.directory.0.borrow_mut().accounts.get_mut(&account).unwrap().locked_out = true;
    let second = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, second), Some(Ended::Refused(ConnectResponseId::ConnectRejected)));
    let device = bench.people.devices[1].url.clone();
    let other = bench.people.accounts[2].url.clone();
    bench.people.directory.0.borrow_mut().devices.get_mut(&device).unwrap().accounts.push(other);
    let third = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, third), None, "somebody on it is not locked out");
}

#[test]
fn a_full_or_draining_relay_says_when_to_come_again() {
    for full in [true, false] {
        let mut bench = Bench::with(1, |config| config.max_connections = if full { 1 } else { 10 });
        bench.device(1);
        if !full {
            bench.relays[0].drain(bench.now);
        }
        let who = bench.device(2);
        let events = bench.events(who);
        let Event::ConnectResponse { response, retry_time, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!((*response, *retry_time), (ConnectResponseId::TryLater, 30));
    }
}

#[test]
fn a_wrong_proof_ends_the_connection() {
    let mut bench = Bench::new();
    let hello = bench.hello(1);
    let who = bench.dial(0, &["dpp://sim/1"], Version::V1_6, Some(hello));
    bench.clients[who].proof = Proof::Wrong;
    bench.exchange();
    assert_eq!(how_it_ended(&mut bench, who), closed(CloseReason::DeviceAuthenticationFailed, 0));
    let failed = |action: &Action| matches!(action, Action::SecurityFailed(_));
    assert!(bench.actions.iter().any(failed));
}

#[test]
fn a_challenge_must_be_answered_in_time() {
    let mut bench = Bench::new();
    let hello = bench.hello(1);
    let who = bench.dial(0, &["dpp://sim/1"], Version::V1_6, Some(hello));
    bench.clients[who].proof = Proof::None;
    bench.exchange();
    bench.pass(Duration::from_secs(9));
    assert_eq!(how_it_ended(&mut bench, who), None);
    bench.pass(Duration::from_secs(2));
    assert_eq!(how_it_ended(&mut bench, who), closed(CloseReason::DeviceAuthenticationFailed, 0));
}

#[test]
fn no_account_is_attached_before_the_device_is_authenticated() {
    let mut bench = Bench::new();
    let who = bench.stranger();
    bench.events(who);
    let session = bench.attach(who, 1, 1);
    let reason = CloseReason::DeviceAuthenticationFailed;
    assert_eq!(bench.events(who), [Event::SessionClosed { session, reason }]);
}

#[test]
fn an_account_that_is_not_proven_is_not_collected_for() {
    let mut bench = Bench::new();
    let (sender, who) = (bench.device(0), bench.device(1));
    let mail = bench.open(sender, 2, false);
    bench.send(sender, mail, flags::A, 10);
    bench.events(who);
    // The keys of another account: the hello already fails.
    bench.attach(who, 2, 3);
    // The right hello, and a wrong proof.
    bench.clients[who].proof = Proof::Wrong;
    let session = bench.attach(who, 2, 2);
    let reason = CloseReason::UserAuthenticationFailed;
    assert_eq!(bench.events(who), [Event::SessionClosed { session, reason }]);
    assert!(bench.lengths(who).is_empty());
    assert_eq!(bench.relays[0].stats().security_failures, 2);
}

#[test]
fn a_locked_out_account_is_not_attached() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    let locked = bench.people.accounts[1].url.clone();
    bench.people.directory.0.borrow_mut().accounts.get_mut(&locked).unwrap().locked_out = true;
    bench.attach(who, 1, 1);
    assert_eq!((bench.relays[0].stats().attached, bench.relays[0].stats().security_failures), (0, 1));
}

#[test]
fn a_relay_that_shuts_down_acknowledges_what_it_has_and_says_when_it_returns() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for bytes in 1..=5 {
        bench.send(sender, session, 0, bytes);
    }
    bench.relays[0].drain(bench.now);
    bench.send(sender, session, 0, 6);
    assert!(!bench.relays[0].is_settled());
    bench.durable_at_once = true;
    bench.exchange();
    assert!(bench.relays[0].is_settled());
    assert_eq!(bench.acknowledged(sender), [], "not before it is due");
    bench.relays[0].close_all(bench.now);
    bench.exchange();
    assert_eq!(bench.acknowledged(sender), [1, 2, 3, 4, 5], "the sixth was not read any more");
    let ended = how_it_ended(&mut bench, sender);
    assert!(
        matches!(ended, Some(Ended::ByPeer { reason: CloseReason::Resting, return_time: 30..=60 })),
        "{ended:?}"
    );
    assert_eq!(bench.relays[0].connections(), 0);
}

#[test]
fn a_connect_for_another_relay_is_refused() {
    let mut bench = Bench::new();
    let who = bench.dial_to("dpp://elsewhere", 0, &["dpp://sim/1"], Version::V1_6, None);
    bench.exchange();
    assert_eq!(how_it_ended(&mut bench, who), Some(Ended::Refused(ConnectResponseId::WrongDevice)));
}

/// The ReturnTimes that so many connections of a relay that shuts down are told.
fn return_times(bench: &mut Bench, connections: usize) -> Vec<u32> {
    let strangers: Vec<Who> = (0..connections).map(|_| bench.stranger()).collect();
    bench.relays[0].drain(bench.now);
    bench.relays[0].close_all(bench.now);
    bench.exchange();
    let told = |who| match how_it_ended(bench, who) {
        Some(Ended::ByPeer { reason: CloseReason::Resting, return_time }) => return_time,
        other => panic!("{other:?}"),
    };
    strangers.into_iter().map(told).collect()
}

#[test]
fn those_who_are_sent_away_together_do_not_return_in_one_second() {
    let mut bench = Bench::with(1, |config| {
        config.return_time = Duration::from_secs(10);
        config.return_time_spread = Duration::from_secs(19);
    });
    let mut returning = [0; 20];
    for seconds in return_times(&mut bench, 600) {
        returning[seconds as usize - 10] += 1;
    }
    // 30 are expected in each second of the twenty.
    assert!(returning.iter().all(|count| (10..=60).contains(count)), "{returning:?}");
}

#[test]
fn without_a_spread_everybody_is_told_the_same_return_time() {
    let mut bench = Bench::with(1, |config| config.return_time_spread = Duration::ZERO);
    assert_eq!(return_times(&mut bench, 3), [30, 30, 30]);
}

#[test]
fn a_changed_configuration_holds_from_the_next_decision_on() {
    let mut bench = Bench::with(1, |config| config.max_connections_per_device = 1);
    let first = bench.device(1);
    let connection = ConnectionConfig::new(Endpoint::Relay, vec![Text::new(RELAY).unwrap()], Text::EMPTY);
    let mut config = RelayConfig::new(Arc::new(connection), 1);
    config.max_connections_per_device = 2;
    bench.relays[0].reconfigure(Arc::new(config));
    let second = bench.device(1);
    assert_eq!((how_it_ended(&mut bench, first), how_it_ended(&mut bench, second)), (None, None));
    let third = bench.device(1);
    assert_eq!(how_it_ended(&mut bench, third), closed(CloseReason::CrossedConnections, 0));
}
