//! A short message beside a long one: how many bytes stand before it (RelayConfig; the issue's "a 64 MiB transfer must not add
//! more than a few milliseconds to a 100-byte message beside it", said in bytes).

use crate::bench::{Bench, Who};
use relay_core::sstp::SessionId;
use relay_core::sstp::connection::Event;
use relay_core::store::PART_BYTES;

const LIMIT: usize = 4 * PART_BYTES;

/// What a part is with its Data commands around it.
const PART_OUTPUT: usize = PART_BYTES + PART_BYTES / 100;

fn bench() -> Bench {
    Bench::with(1, |config| config.connection_in_flight_bytes = LIMIT as u64)
}

/// More of a message of which no end is in sight.
fn send_more(bench: &mut Bench, who: Who, session: SessionId, bytes: usize) {
    bench.clients[who].connection.message_data(session, vec![7; bytes].into());
    bench.exchange();
}

fn may_send(bench: &Bench, who: Who, session: SessionId) -> bool {
    bench.clients[who].connection.may_send(session)
}

#[test]
fn a_long_message_stops_its_own_session_and_short_ones_go_on_beside_it() {
    let mut bench = bench();
    bench.durable_at_once = false;
    let sender = bench.device(0);
    let recipient = bench.device(3);
    let (long, short) = (bench.open(sender, 1, true), bench.open(sender, 3, true));
    bench.clients[sender].connection.begin_message(long, 0, b"\0");
    send_more(&mut bench, sender, long, LIMIT + PART_BYTES + PART_BYTES / 2);
    assert!(!may_send(&bench, sender, long), "the limit is passed");
    for _ in 0..100 {
        assert!(may_send(&bench, sender, short));
        bench.send(sender, short, 0, 100);
    }
    assert_eq!(bench.lengths(recipient), [100; 100], "they do not wait for the disk");
    let late = bench.open(sender, 2, true);
    assert!(may_send(&bench, sender, late), "nor does a new session");
    let id = bench.clients[sender].id.unwrap();
    assert!(bench.relays[0].wants_read(id));
    assert_eq!(bench.relays[0].stats().stops, 1);

    bench.durable_at_once = true;
    bench.exchange();
    assert!(may_send(&bench, sender, long));
    send_more(&mut bench, sender, long, PART_BYTES);
    bench.clients[sender].connection.end_message(long, 1);
    bench.exchange();
    assert_eq!(bench.relays[0].in_flight(), (0, 0));
}

#[test]
fn short_messages_beside_a_long_one_are_stopped_too_when_there_are_too_many() {
    let mut bench = bench();
    bench.durable_at_once = false;
    let sender = bench.device(0);
    let (long, short) = (bench.open(sender, 1, true), bench.open(sender, 3, true));
    bench.clients[sender].connection.begin_message(long, 0, b"\0");
    send_more(&mut bench, sender, long, LIMIT + PART_BYTES + PART_BYTES / 2);
    let mut sent = 0;
    while may_send(&bench, sender, short) {
        bench.send(sender, short, 0, 1000);
        sent += 1000;
    }
    assert!(sent <= LIMIT / 2, "{sent} bytes beside the long message");
    let late = bench.open(sender, 2, true);
    assert!(!may_send(&bench, sender, late), "a new session is stopped as well");
    let stopped = bench.events(sender).into_iter().filter(|event| *event == Event::SessionStopped(long));
    assert_eq!(stopped.count(), 1, "nobody is told twice");
    bench.durable_at_once = true;
    bench.exchange();
    assert!([long, short, late].iter().all(|&session| may_send(&bench, sender, session)));
}

#[test]
fn a_short_message_waits_for_little_of_a_long_one_in_the_output() {
    let mut bench = Bench::new();
    let (sender, recipient) = (bench.device(0), bench.device(1));
    let to = |bench: &mut Bench, resource| {
        let (identity, device) = (bench.identity(1), bench.device_url(1));
        let session = bench.open_to(sender, resource, identity, device);
        bench.send(sender, session, 0, 1);
        session
    };
    let (long, short) = (to(&mut bench, "long"), to(&mut bench, "short"));
    bench.clients[recipient].reads = false;
    bench.send(sender, long, 0, 50 * PART_BYTES);
    let id = bench.clients[recipient].id.unwrap();
    let before = bench.relays[0].prepare_output(bench.now, id).unwrap().len();
    assert!(before >= PART_BYTES, "the long message is on its way");
    assert!(before <= PART_OUTPUT + (64 << 10), "{before} bytes stand before what is said next");
    bench.send(sender, short, 0, 100);
    let after = bench.relays[0].prepare_output(bench.now, id).unwrap().len();
    assert!(after > before + 100, "the short message has its place: {before} and {after} bytes");
    bench.clients[recipient].reads = true;
    bench.exchange();
    assert_eq!(bench.lengths(recipient), [1, 1, 100, 50 * PART_BYTES]);
}
