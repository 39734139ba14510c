//! What an operator asks and tells a running relay.

use crate::running::{PATIENCE, Running, in_time};
use client::{CloseReason, Disconnected, NotReady, Register, State};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tuning::operator::{
    Answer, Connection, ErrorCause, Filter, KeyHolder, MAX_REQUEST_BYTES, Mailbox, MailboxOrder, Outcome,
    Reply, Request,
};

fn connections(relay: &Running, filter: Filter, most: usize) -> (Vec<Connection>, bool) {
    match relay.ask(Request::Connections { filter, most }) {
        Answer::Connections { connections, more } => (connections, more),
        other => panic!("{other:?}"),
    }
}

fn mailboxes(relay: &Running, order: MailboxOrder) -> Vec<Mailbox> {
    match relay.ask(Request::Mailboxes { order, most: 5 }) {
        Answer::Mailboxes(mailboxes) => mailboxes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_state_resources_and_every_shard_with_what_it_has() {
    let relay = Running::start(|_| {});
    let _alice = relay.person().await;
    let status = relay.status();
    assert_eq!((status.state.as_str(), status.log_level.as_str()), ("serving", "warn"));
    assert!(status.shards.iter().all(|shard| shard.answers));
    assert_eq!(status.shards.iter().map(|shard| shard.shard).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(status.shards.iter().map(|shard| shard.counters.connections).sum::<u64>(), 1);
    assert_eq!(
        status.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(),
        ["disk", "memory", "descriptors", "connections"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_one_device_is_disconnected_with_a_time_to_return() {
    let relay = Running::start(|_| {});
    let (alice, bob) = (relay.person().await, relay.person().await);
    relay.eventually("both are attached", || {
        let (all, more) = connections(&relay, Filter::Everybody, 10);
        !more && all.len() == 2 && all.iter().all(|connection| connection.accounts.len() == 1)
    });
    assert!(connections(&relay, Filter::Everybody, 1).1, "there are more");
    let of_alice = connections(&relay, Filter::Account(alice.account()), 10).0;
    assert_eq!(
        of_alice.iter().map(|connection| connection.device.clone()).collect::<Vec<_>>(),
        [Some(alice.device())]
    );
    let (shard, number) = (of_alice[0].shard, of_alice[0].number);
    assert_eq!(connections(&relay, Filter::Connection { shard, number }, 10).0, of_alice);

    let mut state = alice.client.state();
    let filter = Filter::Device(alice.device());
    let request = Request::Disconnect { filter, return_seconds: Some(77) };
    assert_eq!(relay.ask(request.clone()), Answer::Disconnected(1));
    let told = |state: &State| {
        matches!(state, State::Disconnected { cause: Disconnected::ClosedByRelay(CloseReason::Resting), retry_in }
            if *retry_in >= Duration::from_secs(77))
    };
    in_time(state.wait_for(told)).await.unwrap();
    assert!(matches!(*bob.client.state().borrow(), State::Ready { .. }));
    assert_eq!(relay.refused(request), ErrorCause::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_are_listed_with_the_fullest_first() {
    let relay = Running::start(|_| {});
    let (alice, bob, carol) = (relay.person().await, relay.person().await, relay.person().await);
    bob.client.close().await;
    carol.client.close().await;
    for _ in 0..3 {
        alice.send(&bob, 10).await;
    }
    alice.send(&carol, 5000).await;
    let accounts =
        |order| mailboxes(&relay, order).into_iter().map(|mailbox| mailbox.account).collect::<Vec<_>>();
    assert_eq!(accounts(MailboxOrder::Bytes), [carol.account(), bob.account()]);
    assert_eq!(accounts(MailboxOrder::Messages), [bob.account(), carol.account()]);
    assert_eq!(accounts(MailboxOrder::Slowest), [""; 0], "nobody collects");
    let first = &mailboxes(&relay, MailboxOrder::Bytes)[0];
    assert_eq!((first.messages, first.held_bytes, first.collectors), (1, 5000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_an_account_whose_keys_were_cleared_register_anew_and_get_their_mail() {
    let relay = Running::start(|_| {});
    let (alice, mut bob) = (relay.person().await, relay.person().await);
    bob.client.close().await;
    alice.send(&bob, 33).await;
    assert_eq!(relay.ask(Request::ClearKeys(KeyHolder::Device(bob.device()))), Answer::Done);
    assert_eq!(relay.ask(Request::ClearKeys(KeyHolder::Account(bob.account()))), Answer::Done);
    bob.return_home();
    assert_eq!(in_time(bob.client.ready()).await, Err(NotReady::RegistrationNeeded));
    in_time(bob.client.register(Register::new())).await.unwrap();
    assert_eq!(bob.receive().await, 33);

    let nobody = KeyHolder::Device("dpp://nobody".into());
    assert_eq!(relay.refused(Request::ClearKeys(nobody)), ErrorCause::NotFound);
    let no_url = KeyHolder::Account("with space".into());
    assert_eq!(relay.refused(Request::ClearKeys(no_url)), ErrorCause::BadValue);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_relay_sends_everybody_away_takes_nobody_and_comes_back() {
    let relay = Running::start(|config| config.timers.return_time = Duration::from_secs(1));
    let (alice, mut bob) = (relay.person().await, relay.person().await);
    bob.client.close().await;
    alice.send(&bob, 44).await;
    assert_eq!(relay.get("/readyz").0, 200);
    let mut state = alice.client.state();
    assert_eq!(relay.ask(Request::Drain), Answer::Drained(0));
    let away = |state: &State| matches!(state, State::Disconnected { .. });
    in_time(state.wait_for(away)).await.unwrap();
    assert_eq!(relay.status().state, "draining");
    let (ready, why) = relay.get("/readyz");
    assert_eq!((ready, why.as_str()), (503, "the relay is draining\n"));
    assert_eq!(relay.get("/healthz").0, 200);
    assert_eq!(relay.ask(Request::EndDrain), Answer::Done);
    bob.return_home();
    assert_eq!(bob.receive().await, 44);
    assert_eq!(relay.get("/readyz").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_while_the_relay_runs_and_lines_have_their_event() {
    let relay = Running::start(|_| {});
    let alice = relay.person().await;
    alice.client.close().await;
    let level = |level: &str| Request::LogLevel { level: level.into() };
    assert_eq!(relay.refused(level("shard=loud")), ErrorCause::BadValue);
    assert!(!relay.log().contains("connection ended"));
    assert_eq!(relay.ask(level("info,shard=debug")), Answer::Done);
    assert_eq!(relay.status().log_level, "info,shard=debug");
    let bob = relay.person().await;
    bob.client.close().await;
    relay.eventually("the end of a connection is logged", || {
        relay.log().lines().any(|line| line.contains("connection ended") && line.contains("event=4004"))
    });
    assert_eq!(relay.ask(level("error")), Answer::Done);
}

#[test]
fn reload_without_tls_has_nothing_to_do_and_says_so_to_nobody() {
    let relay = Running::start(|_| {});
    assert_eq!(relay.ask(Request::Reload), Answer::Done);
}

#[test]
fn the_socket_is_for_its_owner_only_and_gone_with_the_relay() {
    let relay = Running::start(|_| {});
    let mode = std::fs::metadata(relay.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

/// The first reply to these bytes, and whether the relay closes behind it.
fn said(relay: &Running, bytes: &[u8]) -> (Outcome, bool) {
    let mut stream = UnixStream::connect(relay.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let reply: Reply = serde_json::from_str(&line).unwrap();
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let closed = matches!(reader.read(&mut [0]), Ok(0));
    (reply.outcome, closed)
}

#[test]
fn what_is_no_request_is_refused_and_a_line_without_end_is_cut() {
    let relay = Running::start(|_| {});
    let cause = |outcome: Outcome| match outcome {
        Outcome::Error(refusal) => refusal.cause,
        other => panic!("{other:?}"),
    };
    let (outcome, closed) = said(&relay, b"nonsense\n{\"v\":1,\"command\":\"status\"}\n");
    assert_eq!((cause(outcome), closed), (ErrorCause::BadRequest, false));
    let (outcome, closed) = said(&relay, b"{\"v\":9,\"command\":\"status\"}\n");
    assert_eq!((cause(outcome), closed), (ErrorCause::BadVersion, false));
    let (outcome, closed) = said(&relay, &vec![b'x'; MAX_REQUEST_BYTES]);
    assert_eq!((cause(outcome), closed), (ErrorCause::BadRequest, true));
}
