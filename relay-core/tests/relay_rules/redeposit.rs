//! Mail from a backup: stored, delivered and counted like any other, and nobody is told of it but who waits for it to be durable.

use crate::bench::Bench;
use bytes::Bytes;
use relay_core::relay::Page;
use relay_core::relay::redeposit::{Durable, RedepositPart};
use relay_core::sstp::CloseReason;
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::store::{Family, MessageHead, MessageHeader};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn head(bench: &Bench, recipients: &[usize], expires_in: Duration) -> MessageHead {
    let resource = relay_core::address::ResourceUrl::new("resource").unwrap();
    let expires_at = (bench.now + expires_in).as_secs();
    let header = MessageHeader { flags: 0, tail: Bytes::from_static(&[0]), expires_at };
    let addresses = recipients.iter().map(|&n| bench.people.mailbox(n, 0, Some(n), &resource));
    MessageHead { header, recipients: addresses.collect() }
}

fn part(number: u64, index: u32, last: bool, head: Option<MessageHead>, bytes: usize) -> RedepositPart {
    let payload = Bytes::from(vec![number as u8; bytes]);
    RedepositPart { number, family: Family::Device, index, last, head, payload }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn it_is_delivered_now_and_later_and_is_said_to_be_durable_when_it_is() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let online = bench.device(1);
    let durable = Durable::default();
    let parts = vec![
        part(7, 0, false, Some(head(&bench, &[1, 2], HOUR)), 500),
        part(8, 0, true, Some(head(&bench, &[2], HOUR)), 30),
        part(7, 1, true, None, 100),
    ];
    let now = bench.now;
    bench.relays[0].redeposit(now, parts, &durable);
    bench.exchange();
    assert_eq!(durable.load(Ordering::Acquire), 0);
    let batch = bench.take_batch(0);
    assert_eq!(batch.len(), 3);
    bench.appended(0, batch);
    assert_eq!(durable.load(Ordering::Acquire), 3);
    bench.durable_at_once = true;
    bench.exchange();
    assert_eq!(bench.lengths(online), [600]);
    let late = bench.device(2);
    assert_eq!(bench.lengths(late), [30, 600], "in the order in which they were whole");
}

#[test]
fn what_is_acknowledged_before_it_is_written_counts_as_durable() {
    let mut bench = Bench::new();
    bench.device(1);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 1);
    bench.durable_at_once = false;
    let durable = Durable::default();
    let (now, head) = (bench.now, head(&bench, &[1], HOUR));
    let session_of_its_own = part(1, 0, true, Some(head), 10);
    bench.relays[0].redeposit(now, vec![session_of_its_own], &durable);
    bench.exchange();
    assert_eq!(durable.load(Ordering::Acquire), 1);
    assert_eq!(bench.relays[0].mail().0, 0);
}

#[test]
fn a_message_that_does_not_come_to_its_end_leaves_nothing_behind() {
    let mut bench = Bench::with(1, |config| config.quota_per_device = 1000);
    let durable = Durable::default();
    let (now, head) = (bench.now, head(&bench, &[1], HOUR));
    bench.relays[0].redeposit(now, vec![part(1, 0, false, Some(head), 900)], &durable);
    bench.exchange();
    bench.relays[0].give_up_redeposit(now, 1);
    bench.relays[0].give_up_redeposit(now, 99);
    bench.exchange();
    assert_eq!(bench.relays[0].mail(), (0, 0));
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 500);
    assert_eq!(bench.acknowledged(sender), [500], "its bytes count no more");
}

#[test]
fn it_counts_against_quotas_but_none_refuses_it_and_its_lifetime_goes_on() {
    let mut bench = Bench::with(1, |config| config.quota_per_device = 1000);
    let durable = Durable::default();
    let (now, head) = (bench.now, head(&bench, &[1], HOUR));
    let parts = vec![part(1, 0, true, Some(head.clone()), 900), part(2, 0, true, Some(head), 900)];
    bench.relays[0].redeposit(now, parts, &durable);
    bench.exchange();
    assert_eq!(bench.relays[0].mail().0, 2);
    let listed = bench.relays[0].list_messages(Page { from: 0, look_at: 100, most: 100 });
    assert_eq!((listed.entries.len(), listed.next), (2, None));
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.events(sender);
    bench.send(sender, session, flags::A, 10);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert!(bench.events(sender).contains(&closed), "the mailbox is full");
    bench.now = bench.now + HOUR;
    bench.relays[0].handle_timeout(bench.now);
    assert_eq!(bench.relays[0].mail().0, 0);
}
