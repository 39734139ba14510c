//! The HTTP carriers: heads and bodies by hand, commands that go on from body to body, and what is wrong with a poll.

use super::capture::{Capture, Side, Tcp};
use super::{connect, connect_response, encode, open};
use bytes::Bytes;
use relay_core::http::checksum::checksum;
use relay_core::sstp::{SessionId, Version};
use std::collections::BTreeSet;

const GUID: &str = "kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a";
const ECHO: &[u8] = b"GroovePing: 1.0,Ping\r\n";

/// What a client says, as one stream.
fn from_client() -> Vec<u8> {
    let commands =
        [connect(Version::V1_6, Bytes::new()), open(SessionId(5), "app"), open(SessionId(6), "app")];
    commands.iter().flat_map(encode).collect()
}

fn from_relay() -> Vec<u8> {
    encode(&connect_response(Version::V1_6, Bytes::new())).to_vec()
}

fn request(method: &str, target: &str, length: Option<u64>, body: &[u8]) -> Vec<u8> {
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    [format!("{method} {target} HTTP/1.0\r\nAccept: */*\r\n{length}\r\n").as_bytes(), body].concat()
}

fn response(length: u64, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.0 200 OK\r\nServer: Furrow/0.1\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body]
        .concat()
}

fn whole(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    request(method, target, Some(body.len() as u64), body)
}

fn answer(body: &[u8]) -> Vec<u8> {
    response(body.len() as u64, body)
}

/// Nothing is wrong, and all commands were found.
fn check(capture: &Capture, carrier: &str, ids: &str) {
    let fields = [
        "gsstp.command",
        "ghenc.carrier",
        "ghenc.guid",
        "ghenc.malformed",
        "ghenc.checksum_wrong",
        "gsstp.malformed",
        "gsstp.not_a_command",
        "_ws.malformed",
    ];
    let Some([found, carriers, guids, wrong @ ..]) = capture.values(fields) else { return };
    assert_eq!(found, ids, "{carrier}");
    assert!(!carriers.is_empty() && carriers.split(',').all(|found| found == carrier), "{carriers}");
    assert!(!guids.is_empty() && guids.split(',').all(|guid| guid == GUID), "{guids}");
    assert!(wrong.iter().all(String::is_empty), "{carrier}: {wrong:?}");
}

#[test]
fn long_lived_is_a_head_and_then_the_bare_stream() {
    for most in [1448, 50, 3] {
        let mut capture = Capture::new();
        let (mut get, mut post) = (capture.connect(80), capture.connect(80));
        let target = format!("/2.0/relay/{GUID},ConnType=LongLived,ContentLength=2147479552");
        let endless = 2_147_479_552;
        capture.send(&mut get, Side::Client, &request("GET", &target, None, b""), most);
        capture.send(&mut post, Side::Client, &request("POST", &target, Some(endless), ECHO), most);
        capture.send(&mut get, Side::Server, &response(endless, ECHO), most);
        capture.send(&mut post, Side::Client, &from_client(), most);
        capture.send(&mut get, Side::Server, &from_relay(), most);
        check(&capture, "LongLived", "0x01,0x05,0x05,0x02");
    }
}

#[test]
fn keep_alive_bodies_may_cut_a_command_anywhere() {
    for (body, most) in [(200, 1448), (7, 1448), (64, 50)] {
        let mut capture = Capture::new();
        let (mut get, mut post) = (capture.connect(80), capture.connect(80));
        let target = format!("http://relay/2.0/relay/{GUID},ConnType=KeepAlive, ID={GUID}");
        capture.send(&mut get, Side::Client, &request("GET", &target, None, b""), most);
        capture.send(&mut post, Side::Client, &whole("POST", &target, ECHO), most);
        capture.send(&mut post, Side::Server, &answer(b""), most);
        capture.send(&mut get, Side::Server, &answer(ECHO), most);
        for piece in from_client().chunks(body) {
            capture.send(&mut post, Side::Client, &whole("POST", &target, piece), most);
            capture.send(&mut post, Side::Server, &answer(b""), most);
        }
        for piece in from_relay().chunks(body) {
            capture.send(&mut get, Side::Client, &request("GET", &target, None, b""), most);
            capture.send(&mut get, Side::Server, &answer(piece), most);
        }
        check(&capture, "KeepAlive", "0x01,0x05,0x05,0x02");
    }
}

fn poll(sequence: u32, sum: u32, data: &[u8]) -> Vec<u8> {
    [format!("1.2\0relay\0{GUID}\0{sequence}\0{sum}\0").as_bytes(), data].concat()
}

fn exchange(capture: &mut Capture, request: &[u8], data: &[u8], sequence: u32, most: usize) {
    let mut tcp: Tcp = capture.connect(80);
    let message = poll(sequence, checksum(data), b"");
    let body = [&message[..], b"5\x005\x005\0", data].concat();
    capture.send(&mut tcp, Side::Client, &whole("POST", "/", request), most);
    capture.send(&mut tcp, Side::Server, &answer(&body), most);
}

#[test]
fn polls_carry_the_stream_and_a_repeated_one_does_not_carry_it_twice() {
    for most in [1448, 33] {
        let mut capture = Capture::new();
        exchange(&mut capture, &poll(0, 0, b""), b"", 0, most);
        let relay = from_relay();
        for (sequence, piece) in (0..).zip(from_client().chunks(60)) {
            let data = if sequence == 0 { &relay[..] } else { b"" };
            exchange(&mut capture, &poll(sequence, checksum(piece), piece), data, sequence, most);
            if sequence == 1 {
                exchange(&mut capture, &poll(sequence, checksum(piece), piece), data, sequence, most);
            }
        }
        check(&capture, "Polling", "0x02,0x01,0x05,0x05");
        let Some(repeated) = capture.streams("ghenc.repeated") else { return };
        assert_eq!(repeated, BTreeSet::from([3]));
    }
}

#[test]
fn a_wrong_checksum_version_or_number_is_shown_and_other_http_is_left_alone() {
    let mut capture = Capture::new();
    let mut polls = vec![poll(0, 7, b"data"), poll(0, 0, b"")];
    polls[1].pop();
    for body in &polls {
        let mut tcp = capture.connect(80);
        capture.send(&mut tcp, Side::Client, &whole("POST", "/", body), 1448);
    }
    let mut web = capture.connect(80);
    capture.send(&mut web, Side::Client, &whole("POST", "/", b"name=value"), 1448);
    let mut page = capture.connect(80);
    capture.send(&mut page, Side::Client, &request("GET", "/", None, b""), 1448);
    let Some(found) = capture.streams("ghenc.checksum_wrong") else { return };
    assert_eq!(found, BTreeSet::from([0]));
    assert_eq!(capture.streams("ghenc.malformed").unwrap(), BTreeSet::from([1]));
    assert_eq!(capture.streams("ghenc").unwrap(), BTreeSet::from([0, 1]));
    assert_eq!(capture.streams("http.request").unwrap(), BTreeSet::from([2, 3]));
}
