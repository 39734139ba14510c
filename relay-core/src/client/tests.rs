//! The client against a scripted relay: every rule of the machine, without a socket and without waiting.

use super::scripted_relay::*;
use super::*;
use crate::address::{AccountUrl, DeviceUrl, ResourceUrl};
use crate::directory::Profile;
use crate::security::RegisterStatus;
use crate::sstp::command::SessionStatus;
use crate::sstp::connection::Event as RelayEvent;
use crate::sstp::profile::flags;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, ConnectResponseId, OpenResponseId, StatusId};
use bytes::Bytes;
use std::time::Duration;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn delivered(events: &[Event]) -> Vec<u64> {
    let ids = events.iter().filter_map(|event| match event {
        Event::Delivered { message, .. } => Some(message.0),
        _ => None,
    });
    ids.collect()
}

fn failures(events: &[Event]) -> Vec<(u64, SendFailure)> {
    let failures = events.iter().filter_map(|event| match event {
        Event::Failed { message, failure } => Some((message.0, *failure)),
        _ => None,
    });
    failures.collect()
}

fn incoming(events: &[Event]) -> Vec<IncomingId> {
    let ids = events.iter().filter_map(|event| match event {
        Event::Incoming { id, .. } => Some(*id),
        _ => None,
    });
    ids.collect()
}

fn numbered(to: &str, numbers: std::ops::Range<u8>) -> Vec<OutgoingMessage> {
    numbers.map(|number| message(to, vec![number])).collect()
}

fn send_all(script: &mut Script, messages: Vec<OutgoingMessage>) {
    for message in messages {
        script.client.send(message).unwrap();
    }
}

#[test]
fn a_message_is_delivered_when_the_relay_acknowledges_it() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    script.client.send(message("bob", "hello")).unwrap();
    script.run();
    assert_eq!(script.bodies("bob"), [b"hello"]);
    assert_eq!(delivered(&script.events), []);
    assert_eq!(script.client.unfinished(), 1);
    script.acknowledge_all();
    assert_eq!(delivered(&script.events), [0]);
    assert_eq!(script.client.unfinished(), 0);
}

#[test]
fn a_device_registers_then_authenticates_and_attaches() {
    let mut script = Script::with_keys();
    script.run();
    assert_eq!(script.events, [Event::RegistrationNeeded]);
    script.client.register(script.registration()).unwrap();
    script.run();
    let renewing = Event::Disconnected { cause: Disconnected::Renewing, retry_at: script.now };
    assert_eq!(script.events[1..], [renewing, Event::Registered, Event::Ready]);
    assert!(script.proven);
    assert_eq!(script.attached, [ACCOUNT]);
    assert_eq!(script.dials.len(), 2);
    let owner = &script.records.identities[ME].account;
    assert_eq!(owner.as_str(), ACCOUNT);
}

#[test]
fn a_registered_device_logs_in_with_the_profile_of_its_keys() {
    for profile in [Profile::Modern, Profile::Legacy] {
        let mut script = Script::with_keys_of(profile).registered_before();
        script.run();
        assert_eq!(script.events, [Event::Ready], "{profile:?}");
        assert!(script.proven);
        assert_eq!(script.attached, [ACCOUNT]);
    }
}

#[test]
fn what_fits_no_command_is_refused_without_a_panic() {
    let long = |prefix: &str| format!("{prefix}{}", "x".repeat(1000));
    let urls = ["a", "b"].map(|prefix| DeviceUrl::new(long(prefix)).unwrap());
    let [relay, device] = urls.clone();
    assert_eq!(ClientConfig::new(relay, device).unwrap_err(), UrlsTooLong(2002));
    let mut script = Script::anonymous();
    let recipient = Recipient::device(identity(&long("")), urls[0].clone());
    let to = Destination::new(ResourceUrl::new("a-resource-that-makes-it-too-long").unwrap(), recipient);
    let body = || Body::Whole(Bytes::new());
    script.client.send(OutgoingMessage::new(to.clone().into(), body())).unwrap();
    let many = (0..40).fold(to, |to, _| to.and(Recipient::device(identity(&long("")), urls[1].clone())));
    script.client.send(OutgoingMessage::new(many.into(), body())).unwrap();
    script.run();
    let expected = [(0, SendFailure::AddressTooLong), (1, SendFailure::TooManyRecipients)];
    assert_eq!(failures(&script.events), expected);
}

#[test]
fn a_registration_succeeds_or_says_that_it_is_too_long() {
    let long = "x".repeat(1000);
    for (profile, account, token) in
        [(Profile::Modern, &*long, 1024), (Profile::Legacy, ACCOUNT, 0), (Profile::Legacy, &*long, 1024)]
    {
        let mut script = Script::with_keys_of(profile);
        let mut config = script.client.config().clone();
        config.accounts[0].url = AccountUrl::new(account).unwrap();
        script.client = Client::new(config, script.now, Box::new(Seeded(9)));
        let account = script.client.config().accounts[0].url.clone();
        let wanted = Registration { account, pre_auth_token: vec![7; token], ..script.registration() };
        script.client.register(wanted).unwrap();
        script.run();
        let last = script.events.last();
        let told = matches!(last, Some(Event::RegistrationFailed(RegistrationError::TooLong { .. })));
        assert!(told || last == Some(&Event::Ready), "{profile:?} {last:?}");
    }
}

#[test]
fn nothing_is_sent_before_the_device_is_registered() {
    let mut script = Script::with_keys();
    script.client.send(message("bob", "early")).unwrap();
    script.run();
    assert!(script.opens.is_empty());
    script.client.register(script.registration()).unwrap();
    script.run();
    assert_eq!(script.bodies("bob"), [b"early"]);
}

#[test]
fn a_registered_device_adds_only_the_identity() {
    let mut script = Script::registered();
    let more = identity("more");
    script.client.register(Registration { identities: vec![more.clone()], ..script.registration() }).unwrap();
    script.run();
    assert!(script.events.contains(&Event::Registered));
    assert_eq!(script.records.identities[more.as_str()].account.as_str(), ACCOUNT);
}

#[test]
fn a_refused_registration_names_the_step_and_the_status() {
    let mut script = Script::with_keys();
    script.pre_authentication = true;
    script.run();
    script.client.register(script.registration()).unwrap();
    assert_eq!(script.client.register(script.registration()), Err(RegistrationError::UnderWay));
    script.run();
    let refused = RegistrationError::Refused {
        step: RegistrationStep::DeviceAndAccount,
        status: RegisterStatus::PreAuthenticationFailed,
    };
    assert_eq!(script.events.last(), Some(&Event::RegistrationFailed(refused)));
    assert!(script.client.register(script.registration()).is_ok(), "another try is allowed");
}

#[test]
fn a_registration_that_loses_its_connection_begins_again() {
    let mut script = Script::with_keys();
    script.run();
    script.client.register(script.registration()).unwrap();
    script.client.poll(script.now);
    script.cut();
    script.pass(seconds(1));
    assert!(script.events.contains(&Event::Registered));
    assert_eq!(script.events.last(), Some(&Event::Ready));
}

#[test]
fn a_relay_that_asks_for_no_proof_is_not_our_relay() {
    let mut script = Script::with_keys();
    script.welcome = Welcome::Anyone;
    script.client.send(message("bob", "secret")).unwrap();
    script.run();
    let causes: Vec<_> = script.events.iter().map(|event| format!("{event:?}")).collect();
    assert!(causes[0].contains("NoProof"), "{causes:?}");
    assert!(script.arrived.is_empty());
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    send_all(&mut script, numbered("bob", 0..5));
    script.run();
    let first_two: Vec<_> = script.unacknowledged.drain(..2).collect();
    first_two.into_iter().for_each(|seq| script.relay().complete(seq));
    script.run();
    assert_eq!(delivered(&script.events), [0, 1]);
    script.cut();
    send_all(&mut script, numbered("bob", 5..7));
    script.arrived.clear();
    script.acknowledging = true;
    script.pass(seconds(1));
    assert_eq!(script.bodies("bob"), [[2], [3], [4], [5], [6]]);
    assert_eq!(delivered(&script.events), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_message_cut_in_the_middle_is_sent_again_from_its_beginning() {
    let mut script = Script::anonymous();
    script.provides_bodies = false;
    let body = Body::Pulled { length: 300_000 };
    let id = script.client.send(OutgoingMessage::new(destination("bob"), body)).unwrap();
    script.run();
    script.client.provide(id, 0, pattern(0, 70_000));
    script.run();
    script.cut();
    script.provides_bodies = true;
    script.pass(seconds(1));
    assert_eq!(script.bodies("bob"), [pattern(0, 300_000).to_vec()]);
    assert_eq!(delivered(&script.events), [0]);
}

#[test]
fn bodies_of_every_length_arrive_whole() {
    for length in [0usize, 1, 2047, 2048, 2049, 65_536, 1 << 20] {
        for pulled in [false, true] {
            let mut script = Script::anonymous();
            let body = match pulled {
                true => Body::Pulled { length: length as u64 },
                false => Body::Whole(pattern(0, length)),
            };
            script.client.send(OutgoingMessage::new(destination("bob"), body)).unwrap();
            script.client.send(message("bob", "next")).unwrap();
            script.run();
            let bodies = script.bodies("bob");
            assert!(bodies == [pattern(0, length).to_vec(), b"next".to_vec()], "{length} pulled {pulled}");
            assert_eq!(delivered(&script.events), [0, 1]);
        }
    }
}

#[test]
fn a_body_that_cannot_be_read_fails_its_message_alone() {
    let mut script = Script::anonymous();
    script.provides_bodies = false;
    script.client.send(message("bob", "before")).unwrap();
    let body = Body::Pulled { length: 100_000 };
    let id = script.client.send(OutgoingMessage::new(destination("bob"), body)).unwrap();
    script.client.send(message("bob", "after")).unwrap();
    script.run();
    script.client.provide(id, 0, pattern(0, 5000));
    script.run();
    script.client.provide(id, 5000, Bytes::new());
    script.run();
    assert_eq!(failures(&script.events), [(id.0, SendFailure::BodyUnavailable)]);
    assert_eq!(script.bodies("bob"), [&b"before"[..], b"after"]);
    assert_eq!(delivered(&script.events), [0, 2]);
}

#[test]
fn a_long_body_leaves_room_for_other_destinations() {
    let mut script = Script::anonymous();
    script.client.send(message("bob", pattern(0, 2 << 20))).unwrap();
    script.client.send(message("carol", "short")).unwrap();
    script.run();
    assert_eq!(script.arrived[0].body, b"short");
    assert_eq!(script.arrived.len(), 2);
}

#[test]
fn output_stays_near_its_high_water_mark() {
    let mut script = Script::anonymous();
    script.run();
    for _ in 0..8 {
        script.client.send(message("bob", vec![7; 1 << 20])).unwrap();
    }
    script.open_only();
    let waiting = script.client.output().unwrap().len();
    let mark = Limits::default().output_high_water;
    assert!((mark..mark + 70_000).contains(&waiting), "{waiting}");
}

#[test]
fn retry_time_is_respected() {
    let mut script = Script::anonymous();
    script.welcome = Welcome::TryLater(30);
    script.run();
    let first = script.dials[0];
    let Some(Event::Disconnected { cause, retry_at }) = script.events.last() else { panic!() };
    assert_eq!(*cause, Disconnected::Refused(ConnectResponseId::TryLater));
    assert!(retry_at.since(first) >= seconds(30));
    script.welcome = Welcome::Anyone;
    script.pass(seconds(29));
    assert_eq!(script.dials.len(), 1);
    script.pass(seconds(10));
    assert_eq!(script.dials.len(), 2);
    assert_eq!(script.events.last(), Some(&Event::Ready));
}

#[test]
fn return_time_is_respected() {
    let mut script = Script::anonymous();
    script.run();
    script.relay().close(CloseReason::Resting, 60);
    script.run();
    script.pass(seconds(59));
    assert_eq!(script.dials.len(), 1);
    script.pass(seconds(20));
    assert_eq!(script.dials.len(), 2);
}

#[test]
fn an_unreachable_relay_is_dialled_ever_more_rarely() {
    let mut script = Script::anonymous();
    script.welcome = Welcome::Unreachable;
    script.pass(seconds(3600));
    assert!((60..150).contains(&script.dials.len()), "{}", script.dials.len());
    let pauses: Vec<_> = script.dials.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(pauses[0] <= Duration::from_millis(250));
    assert!(pauses.iter().all(|pause| *pause <= seconds(60)));
    assert!(pauses[30] >= seconds(30));
}

#[test]
fn a_refused_destination_fails_its_messages_and_no_others() {
    let mut script = Script::anonymous();
    script.answers.insert(identity("nobody").to_string(), OpenResponseId::Unknown);
    send_all(&mut script, numbered("nobody", 0..2));
    script.client.send(message("bob", "hello")).unwrap();
    script.run();
    let refused = SendFailure::Refused(OpenResponseId::Unknown);
    assert_eq!(failures(&script.events), [(0, refused), (1, refused)]);
    assert_eq!(delivered(&script.events), [2]);
    script.answers.clear();
    script.client.send(message("nobody", "now known")).unwrap();
    script.run();
    assert_eq!(delivered(&script.events), [2, 3]);
}

#[test]
fn a_session_closed_for_quota_fails_what_was_on_it() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    script.client.send(message("bob", "too much")).unwrap();
    script.run();
    let session = script.opens[0].0;
    script.relay().close_session(session, CloseReason::QuotaWouldBeExceeded);
    script.run();
    let failure = SendFailure::Closed(CloseReason::QuotaWouldBeExceeded);
    assert_eq!(failures(&script.events), [(0, failure)]);
    script.acknowledge_all();
    assert_eq!(delivered(&script.events), [], "a late acknowledgement proves nothing");
    assert_eq!(script.client.unfinished(), 0);
}

#[test]
fn a_session_closed_for_no_fault_of_ours_is_opened_again() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    send_all(&mut script, numbered("bob", 0..2));
    script.run();
    let session = script.opens[0].0;
    script.relay().close_session(session, CloseReason::Idle);
    script.arrived.clear();
    script.unacknowledged.clear();
    script.acknowledging = true;
    script.pass(seconds(2));
    assert_eq!(script.bodies("bob"), [[0], [1]]);
    assert_eq!(failures(&script.events), []);
}

#[test]
fn a_session_that_is_closed_again_and_again_is_given_up() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    script.client.send(message("bob", "hello")).unwrap();
    for round in 0..5 {
        script.pass(seconds(30));
        let session = script.opens[round].0;
        script.relay().close_session(session, CloseReason::NoReason);
    }
    script.run();
    assert_eq!(failures(&script.events), [(0, SendFailure::Closed(CloseReason::NoReason))]);
}

#[test]
fn a_session_that_loses_its_last_recipient_before_it_takes_anything_fails_what_waits_for_it() {
    let mut script = Script::anonymous();
    script.answers.insert(identity("bob").to_string(), OpenResponseId::OkStopSending);
    send_all(&mut script, numbered("bob", 0..2));
    script.run();
    let session = script.opens[0].0;
    script.relay().close_session(session, CloseReason::EmptySession);
    script.run();
    let failure = SendFailure::Closed(CloseReason::EmptySession);
    assert_eq!(failures(&script.events), [(0, failure), (1, failure)]);
    assert_eq!(script.client.unfinished(), 0);
}

#[test]
fn a_stopped_session_holds_until_it_is_resumed() {
    let mut script = Script::anonymous();
    script.answers.insert(identity("bob").to_string(), OpenResponseId::OkStopSending);
    send_all(&mut script, numbered("bob", 0..2));
    script.run();
    assert!(script.arrived.is_empty());
    let session = script.opens[0].0;
    script.relay().respond(session, OpenResponseId::Ok);
    script.run();
    assert_eq!(script.bodies("bob"), [[0], [1]]);
    script.relay().respond(session, OpenResponseId::OkStopSending);
    script.run();
    send_all(&mut script, numbered("bob", 2..3));
    script.run();
    assert_eq!(script.arrived.len(), 2);
    script.relay().respond(session, OpenResponseId::Ok);
    script.run();
    assert_eq!(script.bodies("bob"), [[0], [1], [2]]);
}

#[test]
fn sessions_are_reused_and_idle_ones_make_room() {
    let mut script = Script::with(Welcome::Anyone, |config| config.limits.open_sessions = 2);
    for to in ["a", "b", "a", "c", "a", "b"] {
        script.client.send(message(to, "x")).unwrap();
        script.run();
    }
    let opened: Vec<_> = script.opens.iter().map(|(_, to)| to.clone()).collect();
    let expected = ["a", "b", "c", "b"].map(|to| identity(to).to_string());
    assert_eq!(opened, expected, "b was used least recently when c came");
    assert_eq!(delivered(&script.events).len(), 6);
}

#[test]
fn more_destinations_than_sessions_all_get_their_mail() {
    let mut script = Script::with(Welcome::Anyone, |config| config.limits.open_sessions = 3);
    for number in 0..20 {
        script.client.send(message(&format!("to{number}"), "x")).unwrap();
    }
    script.run();
    assert_eq!(delivered(&script.events).len(), 20);
}

#[test]
fn the_queue_is_bounded_by_messages_and_by_bytes() {
    let mut script = Script::with(Welcome::Unreachable, |config| {
        config.limits.queued_messages = 3;
        config.limits.queued_bytes = 10;
    });
    assert_eq!(script.client.send(message("bob", "12345678901")), Err(QueueError::TooLong(11)));
    script.client.send(message("bob", "123456")).unwrap();
    assert_eq!(script.client.send(message("bob", "12345")), Err(QueueError::Full));
    script.client.send(message("bob", "1")).unwrap();
    script.client.send(message("bob", "1")).unwrap();
    assert_eq!(script.client.send(message("bob", "")), Err(QueueError::Full));
}

#[test]
fn flags_lifetime_and_user_ref_stand_in_the_message() {
    let mut script = Script::anonymous();
    let user_ref = Text::new(&b"ref-1"[..]).unwrap();
    let full = message("bob", "x").only_if_online().lifetime_seconds(9).acknowledged_at_leisure();
    script.client.send(full.user_ref(user_ref).unwrap()).unwrap();
    script.client.send(message("bob", "y")).unwrap();
    script.pass(seconds(6));
    assert_eq!(script.arrived[0].flags, flags::D | flags::E);
    assert_eq!(&script.arrived[0].tail[..], b"ref-1\0\x09\0\0\0");
    assert_eq!((script.arrived[1].flags, &script.arrived[1].tail[..]), (flags::A, &b"\0"[..]));
    let long = Text::new(vec![b'x'; 1025]).unwrap();
    assert_eq!(message("bob", "x").user_ref(long).unwrap_err(), UserRefTooLong(1025));
}

#[test]
fn several_recipients_share_one_message_and_the_lost_ones_are_named() {
    let mut script = Script::anonymous();
    script.acknowledging = false;
    let to = (*destination("a")).clone().and(Recipient::identity(identity("b")));
    let to = std::sync::Arc::new(to.and(Recipient::identity(identity("c"))));
    let body = || Body::Whole(Bytes::from_static(b"all"));
    script.client.send(OutgoingMessage::new(to.clone(), body())).unwrap();
    script.run();
    let (session, recipients) = script.fanouts[0];
    assert_eq!((recipients, script.arrived.len()), (3, 1));
    script.relay().session_status(SessionStatus {
        session,
        status: StatusId::QuotaWouldBeExceeded,
        device_url: Text::EMPTY,
        identity_url: Text::from(&identity("b")),
        indexes: vec![],
    });
    script.relay().session_status(SessionStatus {
        session,
        status: StatusId::LockedOut,
        device_url: Text::EMPTY,
        identity_url: Text::EMPTY,
        indexes: vec![2, 1],
    });
    script.acknowledge_all();
    let failed = vec![(1, StatusId::QuotaWouldBeExceeded), (2, StatusId::LockedOut)];
    assert_eq!(script.events.last(), Some(&Event::Delivered { message: MessageId(0), failed }));
    script.client.send(OutgoingMessage::new(to, body())).unwrap();
    script.run();
    assert_eq!(script.fanouts.len(), 2, "the next message tries all recipients again");
}

#[test]
fn incoming_messages_are_acknowledged_when_the_application_says_so() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.deliver(session, Bytes::from_static(b"one"), 1);
    script.deliver(session, pattern(0, 300_000), 2);
    script.run();
    let ids = incoming(&script.events);
    assert_eq!(ids.len(), 2);
    let Event::Incoming { head, .. } = &script.events[0] else { panic!() };
    assert_eq!((head.address.resource.as_str(), head.address.identity.as_str()), ("mail", ME));
    assert_eq!(script.events[2], Event::IncomingEnd { id: ids[0] });
    let data = script.events.iter().filter_map(|event| match event {
        Event::IncomingData { id, payload } if *id == ids[1] => Some(payload.concat()),
        _ => None,
    });
    assert_eq!(data.collect::<Vec<_>>().concat(), pattern(0, 300_000));
    assert_eq!(script.delivered, []);
    assert!(script.client.acknowledge(ids[0]));
    script.run();
    assert_eq!(script.delivered, [1], "at once, though nobody set flag A");
    assert!(script.client.acknowledge(ids[1]));
    assert!(!script.client.acknowledge(ids[1]), "once");
    script.run();
    assert_eq!(script.delivered, [1, 2]);
}

#[test]
fn an_acknowledgement_before_the_end_drops_the_rest() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.relay().begin_message(session, 0, b"\0");
    script.relay().message_data(session, pattern(0, 200_000));
    script.run();
    let id = incoming(&script.events)[0];
    script.events.clear();
    assert!(script.client.acknowledge(id));
    script.relay().message_data(session, pattern(0, 200_000));
    script.relay().end_message(session, 5);
    script.run();
    assert_eq!(script.events, []);
    assert_eq!(script.delivered, [5]);
}

#[test]
fn what_is_not_acknowledged_is_lost_with_the_connection() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.deliver(session, Bytes::from_static(b"one"), 1);
    script.run();
    let id = incoming(&script.events)[0];
    script.cut();
    script.run();
    assert!(script.events.contains(&Event::IncomingLost { id }));
    assert!(!script.client.acknowledge(id));
    script.pass(seconds(1));
    assert!(!script.client.acknowledge(id), "nor on the next connection");
}

#[test]
fn a_message_given_back_renews_the_connection() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.deliver(session, Bytes::from_static(b"one"), 1);
    script.deliver(session, Bytes::from_static(b"two"), 2);
    script.run();
    let ids = incoming(&script.events);
    script.client.acknowledge(ids[0]);
    script.client.give_back(ids[1], script.now);
    let dials = script.dials.len();
    script.pass(seconds(4));
    assert_eq!((script.dials.len(), &script.delivered[..]), (dials, &[1][..]));
    script.pass(seconds(2));
    assert_eq!(script.dials.len(), dials + 1);
    assert!(script.proven);
    assert_eq!(script.delivered, [1]);
}

#[test]
fn unconsumed_bytes_stop_the_relay_and_consumption_resumes_it() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.relay_events.clear();
    for tag in 0..5 {
        script.deliver(session, pattern(0, 1 << 20), tag);
        script.run();
    }
    assert_eq!(script.relay_events, [RelayEvent::SessionStopped(session)]);
    let ids = incoming(&script.events);
    for id in &ids[..3] {
        script.client.consumed(*id, 1 << 20);
    }
    script.run();
    assert_eq!(script.relay_events[1..], [RelayEvent::SessionReady(session)]);
    assert!(script.delivered.is_empty(), "consumed is not acknowledged");
    for id in ids {
        script.client.acknowledge(id);
    }
    script.run();
    assert_eq!(script.delivered, [0, 1, 2, 3, 4]);
}

#[test]
fn a_relay_that_does_not_hold_is_not_read_until_there_is_room() {
    let mut script = Script::registered();
    let session = script.open_to_client();
    script.deliver(session, pattern(0, 9 << 20), 1);
    script.run();
    assert!(!script.client.wants_input());
    let id = incoming(&script.events)[0];
    script.client.consumed(id, 2 << 20);
    assert!(script.client.wants_input());
    script.client.acknowledge(id);
    script.run();
    assert_eq!(script.delivered, [1]);
}

#[test]
fn close_carries_the_acknowledgements_and_gives_up_the_rest() {
    let mut script = Script::registered();
    script.acknowledging = false;
    let session = script.open_to_client();
    script.deliver(session, Bytes::from_static(b"one"), 1);
    script.client.send(message("bob", "never acknowledged")).unwrap();
    script.run();
    let id = incoming(&script.events)[0];
    script.events.clear();
    script.client.acknowledge(id);
    script.client.close();
    script.pass(seconds(100));
    assert_eq!(script.delivered, [1]);
    let failed = Event::Failed { message: MessageId(0), failure: SendFailure::ClientClosed };
    assert_eq!(script.events, [failed, Event::Closed]);
    assert_eq!(script.client.send(message("bob", "late")), Err(QueueError::Closed));
}

#[test]
fn close_without_a_connection_closes_at_once() {
    let mut script = Script::anonymous();
    script.welcome = Welcome::Unreachable;
    script.run();
    script.events.clear();
    script.client.close();
    script.run();
    assert_eq!(script.events, [Event::Closed]);
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn a_silent_relay_is_left_after_the_idle_deadline() {
    let mut script = Script::anonymous();
    script.run();
    script.pass(seconds(300));
    assert_eq!(script.dials.len(), 1, "keep-alives hold an idle connection");
    script.relay = None;
    script.pass(seconds(140));
    let silent = |event: &Event| matches!(event, Event::Disconnected { cause: Disconnected::Silent, .. });
    assert!(script.events.iter().any(silent));
}
