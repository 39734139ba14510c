//! What an operator sees and can say (relay-product-operations sec. 7): listings, ending connections, and what is taken in.

use crate::bench::Bench;
use relay_core::relay::operator::{ConnectionView, MailboxView};
use relay_core::relay::{Intake, MailboxOrder, Page, Whom};
use relay_core::sstp::connection::{Ended, Event};
use relay_core::sstp::profile::flags;
use relay_core::sstp::{CloseReason, ConnectResponseId, Version};
use std::time::Duration;

const WHOLE: Page = Page { from: 0, look_at: 1000, most: 1000 };
const NO_DEPOSITS: Intake = Intake { deposits: false, newcomers: true };
const NO_NEWCOMERS: Intake = Intake { deposits: true, newcomers: false };

fn connections(bench: &Bench, whom: &Whom) -> Vec<ConnectionView> {
    bench.relays[0].list_connections(WHOLE, whom).entries
}

fn mailboxes(bench: &Bench, order: MailboxOrder) -> Vec<MailboxView> {
    bench.relays[0].list_mailboxes(WHOLE, order).entries
}

/// Account 0 leaves mail of these sizes for the devices of these accounts.
fn with_mail(mail: &[(usize, usize)]) -> Bench {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    for &(account, bytes) in mail {
        let session = bench.open(sender, account, true);
        bench.send(sender, session, 0, bytes);
    }
    bench
}

#[test]
fn connections_are_listed_with_what_they_are_and_do() {
    let mut bench = Bench::new();
    let alice = bench.device(0);
    bench.attach(alice, 0, 0);
    bench.open(alice, 1, true);
    bench.stranger();
    let listed = connections(&bench, &Whom::Everybody);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].id, bench.clients[alice].id.unwrap());
    assert_eq!(listed[0].device.as_ref(), Some(&bench.people.devices[0].url));
    assert_eq!(listed[0].accounts, std::slice::from_ref(&bench.people.accounts[0].url));
    assert_eq!((listed[0].authenticated, listed[0].senders), (true, 1));
    assert!(!listed[1].authenticated);
    let account = Whom::Account(bench.people.accounts[0].url.clone());
    let device = Whom::Device(bench.people.devices[0].url.clone());
    let number = Whom::Connection(listed[0].id.as_u64());
    for whom in [account, device, number] {
        assert_eq!(connections(&bench, &whom), listed[..1], "{whom:?}");
    }
    assert_eq!(connections(&bench, &Whom::Account(bench.people.accounts[1].url.clone())), []);
}

#[test]
fn a_listing_comes_in_pages_that_together_have_everybody_once() {
    let mut bench = Bench::new();
    for device in 0..7 {
        bench.device(device);
    }
    for (look_at, most) in [(1, 1), (3, 2), (2, 5), (100, 3)] {
        let mut found = Vec::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let page =
                bench.relays[0].list_connections(Page { from: first, look_at, most }, &Whom::Everybody);
            assert!(page.entries.len() <= most.min(look_at));
            found.extend(page.entries);
            from = page.next;
        }
        assert_eq!(found, connections(&bench, &Whom::Everybody), "{look_at} {most}");
    }
}

#[test]
fn mailboxes_are_listed_by_bytes_or_by_messages() {
    let bench = with_mail(&[(1, 10), (1, 10), (1, 10), (2, 1000), (3, 500), (3, 1)]);
    let of =
        |order| mailboxes(&bench, order).iter().map(|view| view.address.account.clone()).collect::<Vec<_>>();
    let accounts = |numbers: [usize; 3]| numbers.map(|number| bench.people.accounts[number].url.clone());
    assert_eq!(of(MailboxOrder::Bytes), accounts([2, 3, 1]));
    assert_eq!(of(MailboxOrder::Messages), accounts([1, 3, 2]));
    assert_eq!(of(MailboxOrder::Slowest), [], "nobody collects");
    let first = &mailboxes(&bench, MailboxOrder::Bytes)[0];
    assert_eq!((first.messages, first.held_bytes, first.collectors), (1, 1000, 0));
    let best = bench.relays[0].list_mailboxes(Page { most: 1, ..WHOLE }, MailboxOrder::Messages);
    assert_eq!(best.entries[0].messages, 3);
}

#[test]
fn the_slowest_mailbox_is_the_fullest_among_those_that_somebody_collects_from() {
    let mut bench = with_mail(&[(1, 10), (2, 10), (2, 10), (3, 10), (3, 10), (3, 10)]);
    for account in [1, 2] {
        let hello = bench.hello(account);
        let url = bench.people.devices[account].url.to_string();
        let recipient = bench.dial(0, &[&url], Version::V1_6, Some(hello));
        bench.clients[recipient].finishes = false;
        bench.exchange();
        assert_eq!(bench.lengths(recipient).len(), account);
    }
    let slowest = mailboxes(&bench, MailboxOrder::Slowest);
    assert_eq!(slowest.iter().map(|view| view.messages).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(slowest[0].under_way, 2);
    assert!(slowest[0].collector.is_some());
}

#[test]
fn only_those_who_are_meant_are_disconnected_and_they_are_told_when_to_return() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.device(0), bench.device(1));
    bench.events(alice);
    let whom = Whom::Device(bench.people.devices[0].url.clone());
    let pause = Duration::from_secs(7);
    let ended = bench.relays[0].disconnect(bench.now, &whom, CloseReason::Resting, pause);
    bench.exchange();
    assert_eq!(ended, 1);
    let told = Ended::ByPeer { reason: CloseReason::Resting, return_time: 7 };
    assert_eq!(bench.events(alice), [Event::Ended(told)]);
    assert!(bench.clients[bob].connection.is_established());
}

#[test]
fn while_deposits_are_stopped_senders_wait_and_stored_mail_is_delivered() {
    let mut bench = with_mail(&[(1, 100)]);
    let sender = bench.device(2);
    let session = bench.open(sender, 3, true);
    bench.relays[0].set_intake(bench.now, NO_DEPOSITS);
    bench.exchange();
    assert!(!bench.clients[sender].connection.may_send(session), "a session that is there");
    let late = bench.open(sender, 4, true);
    assert!(!bench.clients[sender].connection.may_send(late), "a new session");
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [100]);
    bench.relays[0].set_intake(bench.now, Intake::OPEN);
    bench.exchange();
    assert!(bench.clients[sender].connection.may_send(session));
    assert!(bench.clients[sender].connection.may_send(late));
    bench.send(sender, session, flags::A, 5);
    assert_eq!(bench.acknowledged(sender), [5]);
}

#[test]
fn what_was_on_its_way_when_deposits_were_stopped_is_taken_and_what_comes_long_after_is_refused() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.relays[0].set_intake(bench.now, NO_DEPOSITS);
    bench.send(sender, session, flags::A, 5);
    assert_eq!(bench.acknowledged(sender), [5], "on its way");
    bench.pass(Duration::from_secs(11));
    bench.events(sender);
    bench.send(sender, session, flags::A, 6);
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    assert_eq!(bench.events(sender).first(), Some(&closed), "before any acknowledgement");
    assert_eq!(bench.relays[0].stats().refused_deposits, 1);
    assert_eq!(bench.relays[0].mail().0, 1);
}

#[test]
fn while_newcomers_are_refused_they_are_told_to_try_later_and_the_others_stay() {
    let mut bench = Bench::new();
    let there = bench.device(0);
    bench.relays[0].set_intake(bench.now, NO_NEWCOMERS);
    let newcomer = bench.dial(0, &["dpp://newcomer"], Version::V1_6, None);
    bench.exchange();
    let refused = bench.events(newcomer).into_iter().find_map(|event| match event {
        Event::ConnectResponse { response, retry_time, .. } => Some((response, retry_time)),
        _ => None,
    });
    assert_eq!(refused, Some((ConnectResponseId::TryLater, 30)));
    assert!(bench.clients[there].connection.is_established());
    assert_eq!(bench.relays[0].stats().refused_newcomers, 1);
    bench.relays[0].set_intake(bench.now, Intake::OPEN);
    let newcomer = bench.stranger();
    assert!(bench.clients[newcomer].connection.is_established());
}

#[test]
fn a_drained_shard_takes_connections_again_when_the_operator_says_so() {
    let mut bench = Bench::new();
    let there = bench.device(0);
    let session = bench.open(there, 1, true);
    bench.relays[0].drain(bench.now);
    let id = bench.clients[there].id.unwrap();
    assert!(!bench.relays[0].wants_read(id));
    assert!(bench.relays[0].snapshot().draining);
    bench.relays[0].resume(bench.now);
    assert!(bench.relays[0].wants_read(id));
    bench.send(there, session, flags::A, 5);
    assert_eq!(bench.acknowledged(there), [5]);
}

#[test]
fn the_time_from_a_message_to_its_completion_is_counted() {
    let mut bench = Bench::new();
    bench.durable_at_once = false;
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, 0, 5);
    bench.pass(Duration::from_millis(5));
    bench.durable_at_once = true;
    bench.exchange();
    let completion = bench.relays[0].stats().completion;
    let counted: Vec<_> = completion.counts().filter(|(_, count)| *count > 0).collect();
    assert_eq!((counted, completion.total_ms()), (vec![(8, 1)], 5));
}
