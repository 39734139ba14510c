//! How long mail waits and how much of it: lifetimes, quotas, devices that do not come any more, over a restart as well
//! (relay-product-operations sec. 5.2 and 6; sstp-messages 2.2.3.12 for the E field).

use crate::bench::{Bench, Who};
use relay_core::address::DeviceUrl;
use relay_core::relay::RelayConfig;
use relay_core::sstp::connection::Event;
use relay_core::sstp::profile::flags;
use relay_core::sstp::{CloseReason, SessionId};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// An empty UserRef and so many days in the Ephemeral field.
fn kept_for(days: u32) -> Vec<u8> {
    [&[0][..], &(days * 24 * 3600).to_le_bytes()].concat()
}

/// Time passes for the relay without its connections, whose deadlines are not the matter here; then everything is lost that has
/// no place on a disk.
fn later(bench: &mut Bench, time: Duration) {
    bench.now = bench.now + time;
    sweep(bench);
}

/// The purge pass gets round.
fn sweep(bench: &mut Bench) {
    for _ in 0..3 {
        bench.now = bench.now + SECOND;
        bench.relays[0].handle_timeout(bench.now);
    }
    bench.exchange();
}

fn waiting(bench: &Bench) -> usize {
    bench.relays[0].mail().0
}

/// What the side thread does: those who were seen are written down.
fn write_down(bench: &mut Bench) -> Vec<DeviceUrl> {
    let seen = bench.relays[0].take_seen();
    let at = bench.now.as_secs();
    let mut records = bench.people.directory.0.borrow_mut();
    records.seen.extend(seen.iter().map(|device| (device.clone(), at)));
    seen
}

fn refused(bench: &mut Bench, who: Who, session: SessionId) -> bool {
    let closed = Event::SessionClosed { session, reason: CloseReason::QuotaWouldBeExceeded };
    bench.events(who).contains(&closed)
}

#[test]
fn mail_waits_thirty_days_if_its_sender_does_not_say() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    later(&mut bench, 30 * DAY - 10 * SECOND);
    assert_eq!(waiting(&bench), 1);
    later(&mut bench, 10 * SECOND);
    assert_eq!((waiting(&bench), bench.relays[0].stats().expired), (0, 1));
}

#[test]
fn the_e_field_shortens_and_lengthens_the_lifetime() {
    for (days, lives, gone) in [(2, 1, 3), (60, 45, 61)] {
        let mut bench = Bench::new();
        let sender = bench.device(0);
        let session = bench.open(sender, 1, true);
        bench.send_with(sender, session, flags::E, &kept_for(days), 100);
        later(&mut bench, lives * DAY);
        assert_eq!(waiting(&bench), 1, "{days} days after {lives}");
        later(&mut bench, (gone - lives) * DAY);
        assert_eq!(waiting(&bench), 0, "{days} days after {gone}");
    }
}

#[test]
fn a_full_quota_is_told_and_mail_is_taken_again_when_there_is_room() {
    type Case = (bool, fn(&mut RelayConfig));
    let cases: [Case; 2] =
        [(true, |config| config.quota_per_device = 250), (false, |config| config.quota_per_identity = 250)];
    for (on_device, limit) in cases {
        let mut bench = Bench::with(1, limit);
        let sender = bench.device(0);
        for round in 0..2 {
            let session = bench.open(sender, 1, on_device);
            bench.send(sender, session, flags::A, 200);
            assert_eq!(bench.acknowledged(sender), [200], "round {round}");
            bench.send(sender, session, flags::A, 100);
            assert!(refused(&mut bench, sender, session), "on_device {on_device}, round {round}");
            let other = bench.open(sender, 2, on_device);
            bench.send(sender, other, flags::A, 10);
            assert_eq!(bench.acknowledged(sender).last(), Some(&10), "others are not concerned");
            for recipient in [1, 2] {
                let who = bench.device(recipient);
                bench.attach(who, recipient, recipient);
                bench.lose(who);
            }
            assert_eq!(waiting(&bench), 0, "round {round}");
        }
    }
}

#[test]
fn quotas_count_what_was_stored_before_a_restart() {
    let mut bench = Bench::with(1, |config| config.quota_per_device = 250);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 200);
    bench.restart(0);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    assert!(refused(&mut bench, sender, session));
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [200]);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    assert_eq!(bench.lengths(recipient), [200, 100]);
}

#[test]
fn a_lifetime_goes_on_over_a_restart() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 100);
    bench.send_with(sender, session, flags::E | flags::A, &kept_for(40), 101);
    later(&mut bench, 20 * DAY);
    bench.restart(0);
    later(&mut bench, 11 * DAY);
    assert_eq!(waiting(&bench), 1);
    let recipient = bench.device(1);
    assert_eq!(bench.lengths(recipient), [101]);
}

#[test]
fn mail_for_a_device_that_was_last_seen_ninety_days_ago_goes_and_that_of_others_stays() {
    for restart in [false, true] {
        let mut bench = Bench::new();
        for device in [1, 2] {
            let who = bench.device(device);
            bench.lose(who);
        }
        assert_eq!(write_down(&mut bench).len(), 2);
        later(&mut bench, 50 * DAY);
        let active = bench.device(2);
        bench.lose(active);
        assert_eq!(write_down(&mut bench).len(), 1, "only who came");
        later(&mut bench, 35 * DAY);
        let sender = bench.device(0);
        for account in [1, 2] {
            for on_device in [true, false] {
                let session = bench.open(sender, account, on_device);
                bench.send(sender, session, flags::A, 10);
            }
        }
        if restart {
            bench.restart(0);
        }
        later(&mut bench, 4 * DAY);
        assert_eq!(waiting(&bench), 4, "89 days");
        later(&mut bench, 2 * DAY);
        assert_eq!((waiting(&bench), bench.relays[0].stats().purged), (3, 1), "91 days, restart {restart}");
        let back = bench.device(1);
        bench.attach(back, 1, 1);
        assert_eq!(bench.lengths(back), [10], "what is for the identity stays");
        let active = bench.device(2);
        assert_eq!(bench.lengths(active), [10]);
    }
}

#[test]
fn mail_for_an_abandoned_device_has_a_day_in_which_the_device_may_come_back() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    bench.lose(who);
    write_down(&mut bench);
    later(&mut bench, 200 * DAY);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    later(&mut bench, DAY - 10 * SECOND);
    assert_eq!(waiting(&bench), 1);
    let back = bench.device(1);
    assert_eq!(bench.lengths(back), [10]);
    bench.lose(back);
    write_down(&mut bench);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 11);
    later(&mut bench, 2 * DAY);
    assert_eq!(waiting(&bench), 1, "it is active again");
}

#[test]
fn a_device_is_written_down_once_a_day_and_one_that_stays_connected_every_day() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    assert_eq!(write_down(&mut bench), [bench.people.devices[1].url.clone()]);
    bench.lose(who);
    let who = bench.device(1);
    assert_eq!(write_down(&mut bench), [], "it was today already");
    bench.lose(who);
    let stays = bench.device(2);
    write_down(&mut bench);
    for day in 0..3 {
        // In steps that keep the connection: everybody says something now and then.
        for _ in 0..24 * 60 {
            bench.pass(Duration::from_secs(60));
        }
        assert!(bench.clients[stays].id.is_some(), "day {day}");
        assert_eq!(write_down(&mut bench), [bench.people.devices[2].url.clone()], "day {day}");
    }
}

#[test]
fn what_could_not_be_written_down_is_given_again() {
    let mut bench = Bench::new();
    bench.device(1);
    let taken = bench.relays[0].take_seen();
    bench.relays[0].not_written(taken.clone());
    bench.device(2);
    let again = bench.relays[0].take_seen();
    assert_eq!((again[0].clone(), again.len()), (taken[0].clone(), 2));
}

#[test]
fn nothing_is_dropped_while_it_cannot_be_read_when_a_device_was_last_seen() {
    let mut bench = Bench::new();
    let who = bench.device(1);
    bench.lose(who);
    write_down(&mut bench);
    later(&mut bench, 100 * DAY);
    let sender = bench.device(0);
    let session = bench.open(sender, 1, true);
    bench.send(sender, session, flags::A, 10);
    bench.people.directory.0.borrow_mut().unreadable = true;
    later(&mut bench, 2 * DAY);
    assert_eq!(waiting(&bench), 1);
    bench.people.directory.0.borrow_mut().unreadable = false;
    sweep(&mut bench);
    assert_eq!(waiting(&bench), 0);
}

#[test]
fn looking_devices_up_is_spread_over_turns() {
    let mut bench = Bench::new();
    let sender = bench.device(0);
    // Many mailboxes of one device: resources.
    for resource in 0..100 {
        let name: &'static str = format!("resource {resource}").replace(' ', "-").leak();
        let (identity, device) = (bench.identity(1), bench.device_url(1));
        let session = bench.open_to(sender, name, identity, device);
        bench.send_with(sender, session, flags::E | flags::A, &kept_for(200), 1);
    }
    bench.now = bench.now + 91 * DAY;
    let mut passes = Vec::new();
    while waiting(&bench) > 0 && passes.len() < 20 {
        bench.relays[0].handle_timeout(bench.now);
        passes.push(waiting(&bench));
        bench.now = bench.now + Duration::from_millis(20);
    }
    assert!(passes.len() >= 4, "{passes:?}");
    assert_eq!(passes.last(), Some(&0));
}

/// The directory cannot be read: those whom it is about come later, and nothing is decided about them.
mod unreadable_directory {
    use super::*;
    use relay_core::sstp::{ConnectResponseId, Version};

    fn cannot_be_read(bench: &Bench, unreadable: bool) {
        bench.people.directory.0.borrow_mut().unreadable = unreadable;
    }

    #[test]
    fn a_connect_is_told_to_try_later_and_not_that_its_device_is_unknown() {
        let mut bench = Bench::new();
        cannot_be_read(&bench, true);
        let hello = bench.hello(1);
        let url = bench.people.devices[1].url.to_string();
        let who = bench.dial(0, &[&url], Version::V1_6, Some(hello));
        bench.exchange();
        let events = bench.events(who);
        let later = |event: &Event| {
            matches!(event, Event::ConnectResponse { response, retry_time, .. }
                if *response == ConnectResponseId::TryLater && *retry_time == 30)
        };
        assert!(events.iter().any(later), "{events:?}");
        assert_eq!(bench.relays[0].stats().security_failures, 0);
        cannot_be_read(&bench, false);
        let who = bench.device(1);
        assert!(bench.clients[who].id.is_some());
    }

    #[test]
    fn an_open_ends_the_connection_until_later_instead_of_calling_the_recipient_unknown() {
        for fanout in [false, true] {
            let mut bench = Bench::new();
            let sender = bench.device(0);
            bench.events(sender);
            cannot_be_read(&bench, true);
            if fanout {
                let entries = [bench.entry(1, true)];
                bench.fanout(sender, "resource", &entries);
            } else {
                bench.open(sender, 1, true);
            }
            assert_resting(&mut bench, sender);
        }
    }

    #[test]
    fn an_attach_ends_the_connection_until_later() {
        let mut bench = Bench::new();
        let who = bench.device(1);
        bench.events(who);
        cannot_be_read(&bench, true);
        bench.attach(who, 1, 1);
        assert_resting(&mut bench, who);
        assert_eq!(bench.relays[0].stats().security_failures, 0);
    }

    fn assert_resting(bench: &mut Bench, who: Who) {
        let events = bench.events(who);
        let text = format!("{events:?}");
        assert!(text.contains("Resting") && text.contains("30"), "{text}");
        assert!(!text.contains("Unknown"), "{text}");
    }
}
