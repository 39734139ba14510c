//! Mail for devices that do not come any more, and dropping much of it without a pause.

use crate::bench::Bench;
use relay_core::sstp::profile::flags;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// 200 days, as Ephemeral Fields have it behind an empty UserRef.
const LONG: [u8; 5] = [0, 0x00, 0xac, 0x07, 0x01];

#[test]
fn ephemeral_fields_of_the_test_are_two_hundred_days() {
    assert_eq!(u32::from_le_bytes([LONG[1], LONG[2], LONG[3], LONG[4]]), 200 * 24 * 3600);
}

#[test]
fn all_mail_for_a_device_is_dropped_when_its_oldest_has_waited_ninety_days_and_nobody_elses() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let [device, identity] = [true, false].map(|on_device| bench.open(sender, 1, on_device));
    bench.send_with(sender, device, flags::E, &LONG, 5);
    bench.send_with(sender, identity, flags::E, &LONG, 6);
    // Time passes for the relay without its connections, whose deadlines are not the matter here.
    bench.now = bench.now + 80 * DAY;
    bench.relays[0].handle_timeout(bench.now);
    assert_eq!((bench.relays[0].stats().purged, bench.relays[0].mail().0), (0, 2));
    let sender = bench.device(0);
    for account in [1, 2] {
        let session = bench.open(sender, account, true);
        bench.send_with(sender, session, flags::E, &LONG, 7);
    }
    bench.now = bench.now + 11 * DAY;
    bench.relays[0].handle_timeout(bench.now);
    assert_eq!((bench.relays[0].stats().purged, bench.relays[0].mail().0), (2, 2));
    let late = bench.device(1);
    bench.attach(late, 1, 1);
    assert_eq!(bench.lengths(late), [6], "what is for the identity stays");
    let late = bench.device(2);
    assert_eq!(bench.lengths(late), [7], "what came later for another device stays");
}

#[test]
fn much_mail_is_dropped_a_little_at_a_time() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    for _ in 0..2500 {
        bench.send_with(sender, session, flags::E, &LONG, 1);
    }
    bench.now = bench.now + 91 * DAY;
    let mut passes = Vec::new();
    while bench.relays[0].mail().0 > 0 && passes.len() < 10 {
        bench.relays[0].handle_timeout(bench.now);
        passes.push(bench.relays[0].stats().purged);
        bench.now = bench.now + Duration::from_millis(20);
    }
    assert_eq!(passes, [1024, 2048, 2500]);
}
