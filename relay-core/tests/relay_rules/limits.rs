//! Backpressure: who is stopped, when, and that it goes on (RelayConfig; wire-profile sec. 1, flow control).

use crate::bench::Bench;
use relay_core::sstp::OpenResponseId;
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use std::time::Duration;

#[test]
fn a_connection_with_too_much_in_flight_is_stopped_and_resumed() {
    let mut bench = Bench::with(1, |config| config.connection_in_flight_bytes = 1000);
    bench.durable_at_once = false;
    let (sender, other) = (bench.device(0), bench.device(2));
    let sessions = [bench.open(sender, 1, true), bench.open(sender, 3, true)];
    let others = bench.open(other, 1, true);
    bench.events(sender);
    bench.events(other);
    bench.send(sender, sessions[0], 0, 1000);
    assert_eq!(bench.events(sender), [], "the limit itself is allowed");
    bench.send(sender, sessions[0], 0, 1);
    let mut stopped = bench.events(sender);
    stopped.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(stopped, sessions.map(Event::SessionStopped), "all its sessions");
    assert!(bench.clients[other].connection.may_send(others), "nobody else's");
    let id = bench.clients[sender].id.unwrap();
    assert!(bench.relays[0].wants_read(id), "what is on the way is still read");
    bench.send(sender, sessions[0], 0, 1500);
    assert!(!bench.relays[0].wants_read(id), "up to twice the limit");
    bench.durable_at_once = true;
    bench.exchange();
    assert!(bench.relays[0].wants_read(id));
    assert!(sessions.iter().all(|&session| bench.clients[sender].connection.may_send(session)));
    assert_eq!(bench.relays[0].in_flight(), (0, 0));
    assert!(bench.actions.iter().any(|action| matches!(action, relay_core::relay::Action::Resume { .. })));
}

#[test]
fn a_shard_with_too_much_in_flight_stops_whoever_sends() {
    let mut bench = Bench::with(1, |config| config.shard_in_flight_bytes = 1000);
    bench.durable_at_once = false;
    let senders = [bench.device(0), bench.device(2)];
    let sessions = senders.map(|sender| bench.open(sender, 1, true));
    bench.send(senders[0], sessions[0], 0, 900);
    bench.send(senders[1], sessions[1], 0, 200);
    let may_send = |bench: &Bench, n: usize| bench.clients[senders[n]].connection.may_send(sessions[n]);
    assert_eq!((may_send(&bench, 0), may_send(&bench, 1)), (true, false));
    let late = bench.open(senders[1], 3, true);
    assert!(!bench.clients[senders[1]].connection.may_send(late), "a new session of it is stopped as well");
    bench.durable_at_once = true;
    bench.exchange();
    assert_eq!((may_send(&bench, 0), may_send(&bench, 1)), (true, true));
    assert!(bench.clients[senders[1]].connection.may_send(late));
}

#[test]
fn a_shard_that_does_not_listen_stops_those_who_send_there_and_loses_nothing() {
    let mut bench = Bench::with(2, |config| config.mesh_queue_items = 10);
    let sender = bench.device(0);
    let there = (1..8).find(|&account| bench.home(account) != bench.home(0)).unwrap();
    let session = bench.open(sender, there, true);
    bench.mesh_runs = false;
    let mut sent = 0;
    while bench.clients[sender].connection.may_send(session) {
        bench.send(sender, session, 0, 5);
        sent += 1;
    }
    assert_eq!(sent, 11);
    let home = bench.home(0);
    let to = relay_core::relay::ShardId(1 - home as u16);
    assert!(bench.relays[home].outbox(to).len() <= 12);
    bench.mesh_runs = true;
    bench.exchange();
    assert!(bench.clients[sender].connection.may_send(session));
    bench.send(sender, session, flags::A, 6);
    assert_eq!(bench.acknowledged(sender).len(), 12);
    let recipient = bench.device(there);
    assert_eq!(bench.lengths(recipient).len(), 12);
}

#[test]
fn those_who_do_not_read_share_the_output_of_the_shard_and_those_who_do_get_their_mail() {
    let mut bench = Bench::with(1, |config| config.shard_output_bytes = 20_000);
    let sender = bench.device(0);
    let recipients: Vec<_> = (1..5).map(|account| bench.device(account)).collect();
    let sessions: Vec<_> = (1..5).map(|account| bench.open(sender, account, true)).collect();
    for &session in &sessions {
        bench.send(sender, session, 0, 1);
    }
    for &deaf in &recipients[..3] {
        bench.clients[deaf].reads = false;
    }
    for _ in 0..30 {
        for &session in &sessions {
            bench.send(sender, session, 0, 2000);
        }
    }
    let waiting = bench.relays[0].output_bytes();
    assert!((20_000..24_000).contains(&waiting), "{waiting} bytes of output");
    assert_eq!(bench.lengths(recipients[3]).len(), 31, "one who reads has everything");
    for &deaf in &recipients[..3] {
        bench.clients[deaf].reads = true;
    }
    bench.exchange();
    bench.pass(Duration::from_secs(1));
    assert!(recipients[..3].iter().all(|&deaf| bench.lengths(deaf).len() == 31));
    assert_eq!(bench.relays[0].output_bytes(), 0);
}

#[test]
fn a_read_of_many_messages_does_not_stop_a_sender_on_its_own_shard() {
    let mut bench = Bench::with(1, |config| config.mesh_queue_items = 10);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for tag in 0..100 {
        let connection = &mut bench.clients[sender].connection;
        connection.begin_message(session, 0, b"\0");
        connection.end_message(session, tag);
    }
    bench.exchange();
    assert_eq!(bench.relays[0].stats().stops, 0);
    assert_eq!(bench.acknowledged(sender).len(), 100);
}

#[test]
fn a_client_that_does_not_read_gets_no_more_than_its_output_takes() {
    let mut bench = Bench::with(1, |config| config.connection_output_bytes = 10_000);
    let (sender, recipient) = (bench.device(0), bench.device(1));
    bench.clients[recipient].accepts = OpenResponseId::OkStopSending;
    let session = bench.open(sender, 1, true);
    for _ in 0..50 {
        bench.send(sender, session, 0, 2000);
    }
    let Some(Event::Open(open)) = bench.events(recipient).pop() else { panic!("no session") };
    bench.clients[recipient].reads = false;
    bench.clients[recipient].connection.respond(open.session, OpenResponseId::Ok);
    bench.exchange();
    let id = bench.clients[recipient].id.unwrap();
    let output = bench.relays[0].prepare_output(bench.now, id).unwrap().len();
    assert!((10_000..15_000).contains(&output), "{output} bytes queued");
    bench.clients[recipient].reads = true;
    bench.exchange();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.lengths(recipient).len(), 50);
}
