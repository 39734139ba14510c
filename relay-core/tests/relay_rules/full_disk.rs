//! A disk that takes no more mail: what is there is delivered and deleted, what comes waits with its sender, and all of it goes
//! on by itself.

use crate::bench::Bench;
use relay_core::sstp::profile::flags;
use relay_core::store::LogEntry;

fn is_part(entry: &LogEntry) -> bool {
    matches!(entry, LogEntry::Part { .. })
}

#[test]
fn on_a_full_disk_deletions_are_written_mail_waits_and_nothing_of_it_is_acknowledged() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    assert_eq!(bench.log(), (1, 0, 0));
    bench.durable_at_once = false;

    // For somebody who is offline, when the disk has no more room.
    let other = bench.open(sender, 2, true);
    bench.send(sender, other, flags::A, 20);
    let refused = bench.take_batch(0);
    assert!(refused.iter().all(is_part) && refused.len() == 1, "{refused:?}");
    let now = bench.now;
    bench.relays[0].append_failed(now, refused);

    // Meanwhile what is stored is collected, and its deletion is all that is asked of the disk.
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [10]);
    let mut batch = Vec::new();
    bench.relays[0].take_deletions(&mut batch);
    assert!(matches!(batch[..], [LogEntry::Delete { .. }]), "{batch:?}");
    bench.appended(0, batch);
    assert_eq!((bench.log(), bench.relays[0].stats().completed), ((1, 0, 1), 1));

    // There is room again.
    bench.durable_at_once = true;
    bench.exchange();
    assert_eq!((bench.log(), bench.relays[0].stats().completed), ((2, 0, 1), 2));
    let late = bench.device(2);
    assert_eq!(bench.lengths(late), [20]);
}
