//! Polling, the relay's end.

use crate::desk::{Desk, GUID, config};
use relay_core::http::checksum::checksum;
use relay_core::http::poll::{Pace, parse_response};
use relay_core::http::server::HttpServerConfig;
use std::time::Duration;

fn body(sequence: u32, sum: u32, data: &[u8]) -> Vec<u8> {
    let message = format!("1.2\0server.domain.net\0{GUID}\0{sequence}\0{sum}\0");
    [message.as_bytes(), data].concat()
}

fn request(body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST / HTTP/1.0\r\nHost: server.domain.net\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn poll(sequence: u32, data: &[u8]) -> Vec<u8> {
    request(&body(sequence, checksum(data), data))
}

/// Sequence number and data of the answer to a poll.
fn exchange(desk: &mut Desk, sequence: u32, data: &[u8]) -> Option<(u32, Vec<u8>)> {
    let (status, body) = desk.ask(poll(sequence, data))?;
    assert_eq!(status, 200);
    let (answer, _) = parse_response(body.into()).unwrap();
    assert_eq!((&answer.server[..], answer.guid.as_str()), (&b"server.domain.net"[..], GUID));
    Some((answer.sequence, answer.data.to_vec()))
}

fn established(desk: &mut Desk) {
    assert_eq!(exchange(desk, 0, b""), Some((0, Vec::new())));
    let socket = desk.socket();
    desk.say(socket, poll(0, b"connect"));
    assert_eq!(desk.received().unwrap(), b"connect");
    assert_eq!(desk.answer(socket), None, "SSTP has its answer in a moment");
    assert!(desk.send(b"response"));
    let (status, body) = desk.answer(socket).unwrap();
    let (answer, _) = parse_response(body.into()).unwrap();
    assert_eq!((status, answer.sequence, &answer.data[..]), (200, 0, &b"response"[..]));
}

#[test]
fn section_9_2_probe_and_its_answer() {
    let mut desk = Desk::new();
    let (status, answer) = desk.ask(poll(0, b"")).unwrap();
    let expected = format!("1.2\0server.domain.net\0{GUID}\x000\x000\x005\x005\x005\0");
    assert_eq!((status, answer.len()), (200, 72));
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
}

#[test]
fn section_7_5_numbers_are_0_0_1_2_and_every_socket_is_closed_after_its_answer() {
    let mut desk = Desk::new();
    established(&mut desk);
    for sequence in 1..5 {
        assert!(desk.send(b"d"));
        let socket = desk.socket();
        desk.say(socket, poll(sequence, b"u"));
        let (_, body) = desk.answer(socket).unwrap();
        assert_eq!(parse_response(body.into()).unwrap().0.sequence, sequence);
        assert!(desk.server.is_finished(socket));
        desk.lose(socket);
        assert_eq!(desk.received().unwrap(), b"u");
    }
    assert_eq!(
        exchange(&mut desk, 5, b""),
        Some((5, Vec::new())),
        "an empty poll has an empty answer at once"
    );
}

#[test]
fn section_3_6_5_what_is_out_of_order_ends_it_with_400() {
    type Change = fn(&mut Desk) -> Vec<u8>;
    let after: [(&str, Change); 5] = [
        ("a number skipped", |_| poll(2, b"")),
        ("a number again with other data", |desk| {
            exchange(desk, 1, b"");
            poll(1, b"other")
        }),
        ("a wrong checksum", |_| request(&body(1, 12_345, b"data"))),
        ("another version", |_| request(&[b"1.1", &body(1, 0, b"")[3..]].concat())),
        ("no number", |_| request(format!("1.2\0s\0{GUID}\0one\x000\0").as_bytes())),
    ];
    for (what, change) in after {
        let mut desk = Desk::new();
        established(&mut desk);
        let wrong = change(&mut desk);
        assert_eq!(desk.ask(wrong).unwrap().0, 400, "{what}");
    }
    let mut desk = Desk::new();
    established(&mut desk);
    desk.ask(poll(2, b""));
    assert!(desk.has_ended());
}

#[test]
fn section_3_6_5_1_and_2_the_probe_is_empty_and_the_second_is_not() {
    let mut desk = Desk::new();
    assert_eq!(desk.ask(poll(0, b"eager")).unwrap().0, 400);
    assert_eq!(desk.ask(poll(7, b"")).unwrap().0, 400);
    assert_eq!(desk.opened(), 0, "neither begins anything");
    exchange(&mut desk, 0, b"");
    assert_eq!(desk.ask(poll(1, b"")).unwrap().0, 400, "the second has number 0 and data");
    assert!(desk.has_ended());
}

#[test]
fn a_lost_answer_is_given_again_to_the_same_request_and_its_data_count_once() {
    let mut desk = Desk::new();
    established(&mut desk);
    assert!(desk.send(b"down"));
    let lost = desk.socket();
    desk.say(lost, poll(1, b"up"));
    desk.lose(lost);
    assert_eq!(exchange(&mut desk, 1, b"up"), Some((1, b"down".to_vec())));
    assert_eq!(exchange(&mut desk, 1, b"up"), Some((1, b"down".to_vec())), "a proxy repeats it");
    assert_eq!(desk.received().unwrap(), b"up");
    assert_eq!(exchange(&mut desk, 2, b""), Some((2, Vec::new())));
    assert_eq!(desk.server.stats().repeated, 2);
}

#[test]
fn a_request_whose_socket_is_lost_before_its_answer_is_taken_up_by_its_repetition() {
    let mut desk = Desk::new();
    established(&mut desk);
    let lost = desk.socket();
    desk.say(lost, poll(1, b"up"));
    assert_eq!(desk.answer(lost), None);
    desk.lose(lost);
    let again = desk.socket();
    desk.say(again, poll(1, b"up"));
    assert!(desk.send(b"down"));
    let (_, body) = desk.answer(again).unwrap();
    assert_eq!(parse_response(body.into()).unwrap().0.data, b"down"[..]);
    assert_eq!(desk.received().unwrap(), b"up");
}

#[test]
fn section_7_5_an_answer_waits_a_moment_for_data_and_no_longer() {
    let mut desk = Desk::new();
    established(&mut desk);
    let socket = desk.socket();
    desk.say(socket, poll(1, b"data"));
    assert_eq!(desk.answer(socket), None);
    desk.now = desk.now + Duration::from_millis(100);
    desk.wait(0);
    assert_eq!(desk.answer(socket).unwrap().0, 200);
}

#[test]
fn section_3_6_5_2_1_bodies_have_at_most_32768_octets_and_lose_nothing() {
    let mut desk = Desk::new();
    established(&mut desk);
    let stream: Vec<u8> = (0..60_000u32).map(|n| (n * 7) as u8).collect();
    assert!(desk.send(&stream));
    let mut got = Vec::new();
    for sequence in 1.. {
        let (status, body) = desk.ask(poll(sequence, b"")).unwrap();
        assert!(status == 200 && body.len() <= 32_768);
        let data = parse_response(body.into()).unwrap().0.data;
        if data.is_empty() {
            break;
        }
        got.extend_from_slice(&data);
    }
    assert_eq!(got, stream);
}

#[test]
fn an_owner_that_does_not_take_what_came_holds_the_answer_back_for_45_seconds_at_most() {
    let mut desk = Desk::new();
    established(&mut desk);
    let full = vec![1; 32_768 - body(1, u32::MAX, b"").len()];
    for sequence in 1..=2 {
        desk.ask(poll(sequence, &full));
        desk.wait(1);
    }
    let third = desk.socket();
    desk.say(third, poll(3, &full));
    desk.wait(1);
    assert_eq!(desk.answer(third), None);
    desk.wait(44);
    let mut whole = 0;
    while let Some(bytes) = desk.received() {
        whole += bytes.len();
        assert!(!bytes.is_empty(), "it has ended");
    }
    assert_eq!(whole, 3 * full.len());
}

#[test]
fn note_52_with_many_connections_longer_intervals_are_dictated() {
    let limits = HttpServerConfig { max_strangers: 10_000, max_strangers_per_address: 10_000, ..config() };
    let mut desk = Desk::with(HttpServerConfig { poll_interval: Duration::from_secs(1), ..limits });
    let mut probe = |number: usize| {
        let body = format!("1.2\0s\0guid{number}\x000\x000\0");
        let socket = desk.socket();
        desk.say(socket, request(body.as_bytes()));
        let (_, body) = desk.answer(socket).unwrap();
        desk.lose(socket);
        parse_response(body.into()).unwrap().1
    };
    assert_eq!(probe(0), Pace::steady(1));
    for number in 1..3000 {
        probe(number);
    }
    assert_eq!(probe(3000), Pace::steady(3), "a thousand polls in a second are enough");
}

#[test]
fn section_7_8_a_client_that_polls_no_more_is_forgotten() {
    let mut desk = Desk::new();
    established(&mut desk);
    desk.wait(64);
    assert!(!desk.has_ended());
    desk.wait(1);
    assert!(desk.has_ended(), "the dictated interval and a minute have passed");
}

#[test]
fn last_words_wait_for_the_next_poll() {
    let mut desk = Desk::new();
    established(&mut desk);
    assert!(desk.send(b"goodbye"));
    desk.server.finish(desk.now, desk.first());
    assert_eq!(exchange(&mut desk, 1, b""), Some((1, b"goodbye".to_vec())));
    assert!(desk.has_ended());
}
