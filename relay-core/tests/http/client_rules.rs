//! The client's end, against scripted relays and proxies.

use crate::desk::{ECHO, START};
use bytes::Bytes;
use relay_core::http::Encapsulation;
use relay_core::http::checksum::checksum;
use relay_core::http::client::{Action, HttpClient, HttpClientConfig, HttpClientError, Wire};
use relay_core::http::poll::parse_request;
use relay_core::http::proxy::Credentials;
use relay_core::sstp::output::OutputQueue;
use relay_core::time::{Entropy, Timestamp};
use std::time::Duration;

struct Fours;

impl Entropy for Fours {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(4);
    }
}

struct Scene {
    client: HttpClient,
    now: Timestamp,
}

impl Scene {
    fn new(encapsulation: Encapsulation) -> Self {
        Self::by(encapsulation, None)
    }

    fn by(encapsulation: Encapsulation, proxy: Option<Option<Credentials>>) -> Self {
        let authority = "server.domain.net:80".into();
        let config = HttpClientConfig { encapsulation, authority, proxy };
        Self { client: HttpClient::new(config, START, &mut Fours), now: START }
    }

    fn action(&mut self) -> Option<Action> {
        self.client.next_action()
    }

    /// The wire is dialled and connected; what is sent on it at once.
    fn open(&mut self, wire: Wire) -> String {
        assert_eq!(self.action(), Some(Action::Dial(wire)));
        self.client.connected(self.now, wire);
        self.sent(wire)
    }

    /// Both wires are dialled, then connected; what is sent on each.
    fn open_both(&mut self) -> [String; 2] {
        assert_eq!(self.action(), Some(Action::Dial(Wire::Get)));
        assert_eq!(self.action(), Some(Action::Dial(Wire::Post)));
        [Wire::Get, Wire::Post].map(|wire| {
            self.client.connected(self.now, wire);
            self.sent(wire)
        })
    }

    fn sent(&mut self, on: Wire) -> String {
        match self.action() {
            Some(Action::Send(wire, bytes)) if wire == on => {
                self.client.sent(self.now, wire);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            other => panic!("{other:?} instead of something on {on:?}"),
        }
    }

    fn hear(&mut self, wire: Wire, bytes: impl AsRef<[u8]>) {
        self.client.received(self.now, wire, bytes.as_ref());
    }

    fn say(&mut self, bytes: &[u8]) {
        let mut output = OutputQueue::default();
        output.encode(|out| out.extend_from_slice(bytes));
        while self.client.send(self.now, &mut output) {}
        assert!(output.is_empty());
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.client.handle_timeout(self.now);
    }

    fn received(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.client.receive(self.now)).flatten().collect()
    }
}

fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The answer to a poll, as a relay would give it.
fn poll_answer(request: &str, data: &str, pace: &str) -> Vec<u8> {
    let body = request.split_once("\r\n\r\n").unwrap().1;
    let poll = parse_request(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let sum = checksum(data.as_bytes());
    let server = String::from_utf8(poll.server.to_vec()).unwrap();
    ok(format!("1.2\0{server}\0{}\0{}\0{sum}\0{pace}{data}", poll.guid, poll.sequence))
}

const FIVE: &str = "5\x005\x005\0";

#[test]
fn section_7_2_long_lived_opens_both_sessions_and_sends_nothing_before_the_echo() {
    let mut scene = Scene::new(Encapsulation::LongLived);
    let [get, post] = scene.open_both();
    let path = get.strip_prefix("GET ").unwrap().split(' ').next().unwrap();
    assert!(path.starts_with("/2.0/server.domain.net/"), "{path}");
    assert!(path.ends_with(",ConnType=LongLived,ContentLength=2147479552"), "{path}");
    assert!(post.starts_with(&format!("POST {path} HTTP/1.0\r\n")));
    assert!(post.contains("\r\nContent-Length: 2147479552\r\n") && post.ends_with(ECHO));
    scene.say(b"connect");
    assert_eq!(scene.action(), None, "buffered until it is established");
    scene.hear(Wire::Get, format!("HTTP/1.0 200 OK\r\nContent-Length: 2147479552\r\n\r\n{ECHO}data"));
    assert!(scene.client.is_established());
    assert_eq!(scene.sent(Wire::Post), "connect");
    assert_eq!(scene.received(), b"data");
    scene.client.lost(scene.now, Wire::Get);
    assert_eq!(scene.client.failure(), Some(HttpClientError::Lost));
}

#[test]
fn section_2_2_2_1_1_through_a_proxy_the_uri_is_absolute_and_credentials_go_along() {
    let credentials = Credentials { user: "u".into(), password: "p".into() };
    let mut scene = Scene::by(Encapsulation::KeepAlive, Some(Some(credentials)));
    let [get, post] = scene.open_both();
    assert!(get.starts_with("GET http://server.domain.net/2.0/server.domain.net/"), "{get}");
    for request in [get, post] {
        assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
        assert!(request.contains("\r\nProxy-Connection: Keep-Alive\r\n"));
    }
    let mut polling = Scene::by(Encapsulation::Polling, Some(None));
    let probe = polling.open(Wire::Post);
    assert!(probe.starts_with("POST http://server.domain.net HTTP/1.0\r\n"), "{probe}");
    assert!(!probe.contains("onnection: Keep-Alive"), "each exchange has its own connection");
}

#[test]
fn section_7_7_407_and_401_are_the_proxy_and_any_other_status_is_a_failure() {
    for (status, error) in [
        (407, HttpClientError::ProxyAuthentication),
        (401, HttpClientError::ProxyAuthentication),
        (400, HttpClientError::Status(400)),
        (302, HttpClientError::Status(302)),
    ] {
        let mut scene = Scene::new(Encapsulation::KeepAlive);
        scene.open_both();
        scene.hear(Wire::Get, format!("HTTP/1.0 {status} Whatever\r\n\r\n"));
        assert_eq!(scene.client.failure(), Some(error));
        assert_eq!(scene.action(), Some(Action::HangUp(Wire::Get)));
        assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
    }
}

#[test]
fn section_7_4_keep_alive_has_one_get_and_at_most_one_post_out() {
    let mut scene = Scene::new(Encapsulation::KeepAlive);
    let [_, post] = scene.open_both();
    assert!(post.ends_with(ECHO));
    scene.hear(Wire::Post, ok(""));
    assert!(!scene.client.is_established());
    scene.hear(Wire::Get, ok(ECHO));
    assert!(scene.client.is_established());
    assert!(scene.sent(Wire::Get).starts_with("GET "));
    scene.say(b"one");
    assert!(scene.sent(Wire::Post).ends_with("\r\n\r\none"));
    scene.say(b"two");
    scene.say(b", three");
    assert_eq!(scene.action(), None);
    scene.hear(Wire::Post, ok(""));
    assert!(scene.sent(Wire::Post).ends_with("\r\n\r\ntwo, three"));
    scene.hear(Wire::Get, ok("data"));
    assert_eq!(scene.received(), b"data");
    assert!(scene.sent(Wire::Get).starts_with("GET "), "the next one at once");
}

#[test]
fn gap_g9_between_two_requests_a_proxy_may_close() {
    let mut scene = Scene::new(Encapsulation::KeepAlive);
    scene.open_both();
    scene.hear(Wire::Post, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
    scene.hear(Wire::Get, format!("HTTP/1.0 200 OK\r\nContent-Length: 22\r\n\r\n{ECHO}"));
    assert_eq!(scene.action(), Some(Action::HangUp(Wire::Get)));
    assert!(scene.open(Wire::Get).starts_with("GET "));
    scene.say(b"x");
    assert!(scene.open(Wire::Post).ends_with("x"));
    scene.hear(Wire::Post, ok(""));
    scene.client.lost(scene.now, Wire::Post);
    assert_eq!(scene.client.failure(), None, "nothing was out on it");
    scene.client.lost(scene.now, Wire::Get);
    assert_eq!(scene.client.failure(), Some(HttpClientError::Lost), "its answer may be lost");
}

#[test]
fn section_4_1_4_another_echo_is_refused() {
    for encapsulation in [Encapsulation::LongLived, Encapsulation::KeepAlive] {
        let mut scene = Scene::new(encapsulation);
        scene.open_both();
        scene.hear(Wire::Get, ok("GroovePing: 1.0,Pong\r\n"));
        assert_eq!(scene.client.failure(), Some(HttpClientError::Echo));
    }
}

#[test]
fn section_7_5_polling_probes_then_sends_data_and_counts() {
    let mut scene = Scene::new(Encapsulation::Polling);
    let probe = scene.open(Wire::Post);
    assert!(probe.starts_with("POST / HTTP/1.0\r\n"));
    assert!(probe.contains("\x000\x000\0") && !probe.contains("Connection: "), "{probe}");
    scene.hear(Wire::Post, poll_answer(&probe, "", FIVE));
    assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
    assert!(scene.client.is_established());
    scene.wait(10);
    assert_eq!(scene.action(), None, "the second request has data");
    for (number, data) in [(0, "connect"), (1, "a"), (2, "b")] {
        scene.say(data.as_bytes());
        let request = scene.open(Wire::Post);
        assert!(request.contains(&format!("\0{number}\0{}\0{data}", checksum(data.as_bytes()))), "{request}");
        scene.hear(Wire::Post, poll_answer(&request, "down", FIVE));
        assert_eq!(scene.received(), b"down");
        assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
    }
    scene.wait(4);
    assert_eq!(scene.action(), None);
    scene.wait(1);
    assert!(scene.open(Wire::Post).contains("\x003\x000\0"), "an empty poll after five seconds");
}

#[test]
fn section_6_5_intervals_double_after_so_many_polls_up_to_the_maximum_and_data_begin_anew() {
    let mut scene = Scene::new(Encapsulation::Polling);
    let probe = scene.open(Wire::Post);
    scene.hear(Wire::Post, poll_answer(&probe, "", "2\x0010\x002\0"));
    scene.action();
    scene.say(b"connect");
    let mut request = scene.open(Wire::Post);
    let mut waits = Vec::new();
    for round in 0..9 {
        let data = if round == 0 || round == 7 { "data" } else { "" };
        scene.hear(Wire::Post, poll_answer(&request, data, "2\x0010\x002\0"));
        scene.received();
        assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
        let due = scene.client.poll_timeout().unwrap();
        waits.push(due.since(scene.now).as_secs());
        scene.wait(waits[round]);
        request = scene.open(Wire::Post);
    }
    assert_eq!(waits, [2, 2, 4, 4, 8, 8, 10, 2, 2]);
}

#[test]
fn a_poll_whose_exchange_is_lost_is_repeated_as_it_was_three_times() {
    let mut scene = Scene::new(Encapsulation::Polling);
    let probe = scene.open(Wire::Post);
    scene.hear(Wire::Post, poll_answer(&probe, "", FIVE));
    scene.action();
    scene.say(b"connect");
    let request = scene.open(Wire::Post);
    for _ in 0..3 {
        scene.client.lost(scene.now, Wire::Post);
        scene.say(b"+");
        assert_eq!(scene.open(Wire::Post), request);
    }
    scene.client.lost(scene.now, Wire::Post);
    assert_eq!(scene.client.failure(), Some(HttpClientError::Lost));
}

#[test]
fn section_3_5_5_1_1_an_answer_to_another_request_is_refused() {
    let mut scene = Scene::new(Encapsulation::Polling);
    let probe = scene.open(Wire::Post);
    let other = probe.replace("\x000\x000\0", "\x001\x000\0");
    scene.hear(Wire::Post, poll_answer(&other, "", FIVE));
    assert_eq!(scene.client.failure(), Some(HttpClientError::OutOfOrder));
}

#[test]
fn section_6_1_no_answer_in_time_is_a_failure_and_polling_tries_again() {
    let mut scene = Scene::new(Encapsulation::KeepAlive);
    scene.open_both();
    scene.wait(60);
    assert_eq!(scene.client.failure(), Some(HttpClientError::TimedOut));

    let mut scene = Scene::new(Encapsulation::Polling);
    let probe = scene.open(Wire::Post);
    scene.hear(Wire::Post, poll_answer(&probe, "", FIVE));
    scene.action();
    scene.say(b"connect");
    let request = scene.open(Wire::Post);
    scene.wait(60);
    assert_eq!(scene.action(), Some(Action::HangUp(Wire::Post)));
    assert_eq!(scene.open(Wire::Post), request);
}

#[test]
fn octets_without_a_question_or_a_length_are_refused() {
    let mut scene = Scene::new(Encapsulation::KeepAlive);
    scene.open_both();
    scene.hear(Wire::Post, ok(""));
    scene.hear(Wire::Post, ok(""));
    assert_eq!(scene.client.failure(), Some(HttpClientError::Unasked));
    for length in ["", "Content-Length: 32769\r\n"] {
        let mut scene = Scene::new(Encapsulation::KeepAlive);
        scene.open_both();
        scene.hear(Wire::Get, format!("HTTP/1.0 200 OK\r\n{length}\r\n"));
        assert_eq!(scene.client.failure(), Some(HttpClientError::Length));
    }
}
