//! What port 80 answers to whom, and its limits.

use crate::desk::{Desk, ECHO, GUID, config, get, post};
use relay_core::http::Guid;
use relay_core::http::server::HttpServerConfig;
use relay_core::relay::ShardId;

#[test]
fn section_7_1_a_browser_gets_a_short_page() {
    let mut desk = Desk::new();
    let (status, page) = desk.ask("GET / HTTP/1.1\r\nHost: relay\r\n\r\n").unwrap();
    let page = String::from_utf8(page).unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("<h1>") && page.len() < 1000, "{page}");
    let (status, nothing) = desk.ask("HEAD / HTTP/1.1\r\nHost: relay\r\n\r\n").unwrap();
    assert_eq!((status, nothing.len()), (200, 0));
}

#[test]
fn everything_unknown_gets_a_proper_error_and_the_socket_is_closed() {
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(9000));
    for (request, status) in [
        ("GET /favicon.ico HTTP/1.1\r\n\r\n", 404),
        ("DELETE / HTTP/1.1\r\n\r\n", 405),
        ("POST / HTTP/1.0\r\n\r\n", 411),
        ("POST / HTTP/1.0\r\nContent-Length: 32769\r\n\r\n", 413),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 400),
        (&long, 431),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("\x10\x07\x00\x00\x00\x00\x00", 400),
    ] {
        let mut desk = Desk::new();
        let socket = desk.socket();
        desk.say(socket, request);
        assert_eq!(desk.answer(socket).unwrap().0, status, "{request}");
        assert!(desk.server.is_finished(socket));
        assert_eq!(desk.opened(), 0);
    }
}

#[test]
fn a_405_says_what_is_allowed() {
    let mut desk = Desk::new();
    let socket = desk.socket();
    desk.say(socket, "PUT / HTTP/1.1\r\n\r\n");
    let answer = String::from_utf8(desk.heard(socket)).unwrap();
    assert!(answer.contains("\r\nAllow: GET, HEAD, POST\r\n"), "{answer}");
}

#[test]
fn section_7_8_half_a_request_is_answered_408_and_silence_is_cut() {
    let mut desk = Desk::new();
    let (slow, silent) = (desk.socket(), desk.socket());
    desk.say(slow, "GET / HT");
    desk.wait(9);
    desk.say(slow, "TP/1.0\r\n");
    desk.wait(1);
    assert_eq!(desk.answer(slow).unwrap().0, 408, "the time counts from the first octet");
    assert_eq!(desk.answer(silent), None);
    assert!(desk.server.is_finished(silent));
}

#[test]
fn section_6_1_a_body_has_a_minute_from_the_end_of_its_head() {
    let mut desk = Desk::new();
    let socket = desk.socket();
    desk.say(socket, post("KeepAlive", GUID, 22, b"Groove"));
    for octet in b"Ping: 1.0" {
        desk.wait(6);
        assert_eq!(desk.answer(socket), None);
        desk.say(socket, [*octet]);
    }
    desk.wait(6);
    assert_eq!(desk.answer(socket).unwrap().0, 408);
}

#[test]
fn section_7_8_strangers_are_counted_by_address_until_a_request_belongs_somewhere() {
    let mut desk = Desk::new();
    let sockets: Vec<_> = (0..10).map(|_| desk.socket()).collect();
    assert!(desk.try_socket("192.0.2.1").is_none());
    assert!(desk.try_socket("192.0.2.2").is_some());
    desk.say(sockets[0], get("KeepAlive", GUID));
    assert!(desk.try_socket("192.0.2.1").is_some(), "one of them carries a virtual connection now");
    assert!(desk.try_socket("192.0.2.1").is_none());
    desk.lose(sockets[1]);
    assert!(desk.try_socket("192.0.2.1").is_some());
    assert!((0..10).all(|_| desk.try_socket("2001:db8::1").is_some()));
    assert!(desk.try_socket("2001:db8::2").is_none(), "an IPv6 address counts by its /64");
}

#[test]
fn all_strangers_together_are_bounded() {
    let mut desk = Desk::with(HttpServerConfig { max_strangers: 3, ..config() });
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert!(desk.try_socket(address).is_some());
    }
    assert!(desk.try_socket("192.0.2.4").is_none());
}

#[test]
fn section_1_a_request_goes_to_the_shard_that_owns_its_guid_with_all_its_bytes() {
    let owner = Guid::parse(GUID.as_bytes()).unwrap().owner(2);
    let other = ShardId(1 - owner.0);
    let on = |shard| Desk::with(HttpServerConfig { shard, shards: 2, ..config() });
    let poll = format!("1.2\0server\0{GUID}\x000\x000\0");
    let poll = format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{poll}", poll.len());
    for request in
        [get("LongLived", GUID).into_bytes(), post("KeepAlive", GUID, 22, ECHO.as_bytes()), poll.into()]
    {
        let mut elsewhere = on(other);
        let socket = elsewhere.socket();
        elsewhere.say(socket, &request);
        let [(given, shard, bytes)] = &elsewhere.handed_over[..] else { panic!("not handed over") };
        assert_eq!((*given, *shard, &bytes[..]), (socket, owner, &request[..]));
        assert_eq!((elsewhere.opened(), elsewhere.server.counts()), (0, (0, 0)));

        let mut home = on(owner);
        assert!(home.server.accepted(home.now, None, Some(bytes.clone())).is_some());
        assert_eq!(home.server.counts(), (1, 1));
        assert!(home.handed_over.is_empty());
    }
}

#[test]
fn by_configuration_a_guid_stays_with_its_address() {
    for (bind_address, status) in [(true, Some(403)), (false, None)] {
        let mut desk = Desk::with(HttpServerConfig { bind_address, ..config() });
        let mine = desk.try_socket("192.0.2.1").unwrap();
        let theirs = desk.try_socket("192.0.2.2").unwrap();
        desk.say(mine, get("LongLived", GUID));
        desk.say(theirs, post("LongLived", GUID, 1 << 30, b""));
        assert_eq!(desk.answer(theirs).map(|(status, _)| status), status);
        assert!(!desk.has_ended(), "the connection that is there is not harmed");
    }
}

#[test]
fn a_guid_cannot_change_its_encapsulation() {
    let mut desk = Desk::new();
    let get_half = desk.socket();
    desk.say(get_half, get("LongLived", GUID));
    assert_eq!(desk.ask(get("KeepAlive", GUID)).unwrap().0, 400);
    assert!(!desk.has_ended());
}

#[test]
fn section_6_1_connection_establishment_ends_a_half_that_stays_alone() {
    for kind in ["LongLived", "KeepAlive"] {
        let mut desk = Desk::new();
        let half = desk.socket();
        desk.say(half, get(kind, GUID));
        desk.wait(59);
        assert!(!desk.has_ended());
        desk.wait(1);
        assert!(desk.has_ended(), "{kind}");
        assert!(desk.server.is_finished(half));
    }
}

#[test]
fn a_released_connection_leaves_nothing_behind() {
    let mut desk = Desk::new();
    let half = desk.socket();
    desk.say(half, get("LongLived", GUID));
    desk.server.release(desk.now, desk.first());
    desk.lose(half);
    assert_eq!(desk.server.counts(), (0, 0));
    assert_eq!(desk.server.poll_timeout(), None);
    let again = desk.socket();
    desk.say(again, get("LongLived", GUID));
    assert_eq!(desk.opened(), 2, "the GUID is free again");
}

#[test]
fn requests_of_one_socket_are_answered_in_turn() {
    let mut desk = Desk::new();
    let socket = desk.socket();
    let get_half = desk.socket();
    desk.say(get_half, get("KeepAlive", GUID));
    let two = [post("KeepAlive", GUID, 22, ECHO.as_bytes()), post("KeepAlive", GUID, 2, b"ab")].concat();
    desk.say(socket, two);
    let answers = String::from_utf8(desk.heard(socket)).unwrap();
    assert_eq!(answers.matches("HTTP/1.0 200 OK\r\n").count(), 2);
    assert_eq!(desk.received().unwrap(), b"ab");
}
