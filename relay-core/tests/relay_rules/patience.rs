//! When mail is written: at once, or a little later if its recipients are about to acknowledge it.

use crate::bench::{Bench, Who};
use relay_core::sstp::SessionId;
use relay_core::sstp::profile::flags;
use relay_core::store::LogEntry;
use std::time::Duration;

const DELAY: Duration = Duration::from_millis(5);

/// A sender with a session to a recipient who is online, and whose mail is on its way at once.
fn bench() -> (Bench, Who, Who, SessionId) {
    let mut bench = Bench::with(1, |config| config.commit_delay = DELAY);
    let (sender, recipient) = (bench.device(0), bench.device(1));
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 1);
    bench.pass(DELAY);
    assert_eq!(bench.acknowledged(sender), [1]);
    assert!(bench.relays[0].is_settled());
    bench.written.clear();
    bench.durable_at_once = false;
    (bench, sender, recipient, session)
}

fn lengths(batch: &[LogEntry]) -> Vec<u64> {
    let length = |entry: &LogEntry| match entry {
        LogEntry::Part { payload, .. } => payload.iter().map(|slice| slice.len() as u64).sum(),
        other => panic!("{other:?}"),
    };
    batch.iter().map(length).collect()
}

#[test]
fn mail_on_its_way_is_not_written_before_the_delay_is_over() {
    let (mut bench, sender, recipient, session) = bench();
    bench.clients[recipient].finishes = false;
    bench.send(sender, session, flags::A, 20);
    assert_eq!(bench.lengths(recipient), [1, 20], "the recipient has it, and has not acknowledged it");
    assert!(!bench.relays[0].has_appends());
    assert!(bench.take_batch(0).is_empty());
    assert_eq!(bench.relays[0].next_soon(), Some(bench.now + DELAY));
    bench.pass(DELAY);
    assert!(bench.relays[0].has_appends());
    assert_eq!(bench.relays[0].next_soon(), None, "it is the log that is to be called now");
    let batch = bench.take_batch(0);
    assert_eq!(lengths(&batch), [20]);
    bench.send(sender, session, flags::A, 21);
    bench.pass(DELAY);
    assert!(!bench.relays[0].has_appends(), "one batch is out at a time");
    assert_eq!(bench.relays[0].next_soon(), None);
    assert_eq!(bench.acknowledged(sender), []);
    bench.appended(0, batch);
    assert_eq!(bench.acknowledged(sender), [20], "nobody waits longer");
}

#[test]
fn mail_that_is_acknowledged_in_time_wakes_nobody() {
    let (mut bench, sender, recipient, session) = bench();
    bench.clients[recipient].finishes = false;
    for bytes in [20, 21, 22] {
        bench.send(sender, session, flags::A, bytes);
    }
    for _ in 0..3 {
        bench.clients[recipient].complete_oldest();
    }
    bench.exchange();
    assert_eq!(bench.acknowledged(sender), [20, 21, 22]);
    assert_eq!(bench.relays[0].next_soon(), None);
    assert!(bench.relays[0].is_settled() && bench.written.is_empty());
}

#[test]
fn mail_for_somebody_who_is_offline_is_written_at_once_and_with_it_what_came_before() {
    let (mut bench, sender, recipient, session) = bench();
    bench.clients[recipient].finishes = false;
    let offline = bench.open(sender, 2, true);
    bench.send(sender, session, flags::A, 20);
    bench.send(sender, offline, flags::A, 21);
    bench.send(sender, session, flags::A, 22);
    assert!(bench.relays[0].has_appends());
    let batch = bench.take_batch(0);
    assert_eq!(lengths(&batch), [20, 21], "so that what is durable is a beginning of what came");
    bench.appended(0, batch);
    assert!(!bench.relays[0].has_appends());
}

#[test]
fn a_fanout_with_somebody_who_is_offline_is_written_at_once() {
    let (mut bench, sender, ..) = bench();
    let entries = [bench.entry(1, true), bench.entry(2, true)];
    let fanout = bench.fanout(sender, "resource", &entries);
    bench.send(sender, fanout, flags::A, 20);
    assert!(bench.relays[0].has_appends());
}

#[test]
fn mail_that_awaits_the_end_of_the_delay_is_written_at_once_by_a_shutdown() {
    let (mut bench, sender, recipient, session) = bench();
    bench.clients[recipient].finishes = false;
    bench.send(sender, session, flags::A, 20);
    assert!(!bench.relays[0].has_appends());
    let now = bench.now;
    bench.relays[0].drain(now);
    assert!(bench.relays[0].has_appends());
    assert_eq!(lengths(&bench.take_batch(0)), [20]);
}

#[test]
fn deletions_wait_as_long() {
    let (mut bench, sender, ..) = bench();
    let offline = bench.open(sender, 2, true);
    bench.send(sender, offline, flags::A, 20);
    let batch = bench.take_batch(0);
    bench.appended(0, batch);
    let late = bench.device(2);
    assert_eq!(bench.lengths(late), [20]);
    assert!(!bench.relays[0].has_appends());
    bench.pass(DELAY);
    assert!(bench.relays[0].has_appends());
    assert!(matches!(bench.take_batch(0)[..], [LogEntry::Delete { .. }]));
}

#[test]
fn a_batch_that_failed_is_due_at_once() {
    let (mut bench, sender, recipient, session) = bench();
    bench.clients[recipient].finishes = false;
    bench.send(sender, session, flags::A, 20);
    bench.pass(DELAY);
    let batch = bench.take_batch(0);
    bench.send(sender, session, flags::A, 21);
    let now = bench.now;
    bench.relays[0].append_failed(now, batch);
    assert!(bench.relays[0].has_appends());
    assert_eq!(lengths(&bench.take_batch(0)), [20], "and nothing with it that may still wait");
}
