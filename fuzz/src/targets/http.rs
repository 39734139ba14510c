//! SSTP inside HTTP: heads and bodies at the relay's end and at the client's, and what proxies answer.

use bytes::Bytes;
use relay_core::http::client::{Action as ClientAction, HttpClient, HttpClientConfig, Wire};
use relay_core::http::head;
use relay_core::http::poll;
use relay_core::http::proxy::{Connect, Progress, Socks};
use relay_core::http::server::{Action, HttpServer, HttpServerConfig, Receipt, SocketId};
use relay_core::http::target;
use relay_core::http::{Encapsulation, Guid};
use relay_core::relay::ShardId;
use relay_core::sstp::output::OutputQueue;
use relay_core::time::{Entropy, Timestamp};
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_000_000);
const ENCAPSULATIONS: [Encapsulation; 3] =
    [Encapsulation::LongLived, Encapsulation::KeepAlive, Encapsulation::Polling];
const WIRES: [Wire; 2] = [Wire::Get, Wire::Post];

/// Bytes that are always the same, so that a find repeats itself, and so that client and server of two runs fit together.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0x42);
    }
}

fn server() -> HttpServer {
    HttpServer::new(HttpServerConfig {
        shard: ShardId(0),
        shards: 1,
        max_strangers: 100,
        max_strangers_per_address: 100,
        request_deadline: Duration::from_secs(10),
        poll_interval: Duration::from_secs(1),
        bind_address: false,
    })
}

fn client(encapsulation: Encapsulation) -> HttpClient {
    let config = HttpClientConfig { encapsulation, authority: "relay.example:80".into(), proxy: None };
    HttpClient::new(config, NOW, &mut Fixed)
}

/// All that a server does about what came, with an owner that echoes. Gives what it sends.
fn attend(server: &mut HttpServer, now: Timestamp) -> Vec<u8> {
    let mut sent = Vec::new();
    // Each round needs a cause in the one before; a bound all the same.
    for _ in 0..64 {
        let mut moved = false;
        while let Some(action) = server.next_action() {
            moved = true;
            match action {
                Action::Opened { connection, .. } | Action::Readable(connection) => {
                    while let Receipt::Bytes(bytes) = server.receive(now, connection) {
                        let mut output = OutputQueue::default();
                        output.encode(|out| out.extend_from_slice(&bytes));
                        let _all = server.send(now, connection, &mut output);
                    }
                }
                Action::Writable(connection) => server.finish(now, connection),
                Action::HandOver { .. } => panic!("there is one shard"),
                Action::Resume(_) => {}
            }
        }
        let mut touched = Vec::new();
        server.take_touched(&mut touched);
        for socket in touched {
            moved = true;
            while let Some(output) = server.output(socket).filter(|output| !output.is_empty()) {
                sent.extend_from_slice(&output.take());
                server.sent(now, socket);
            }
            if server.is_finished(socket) {
                server.lost(now, socket);
            }
        }
        if !moved {
            break;
        }
    }
    sent
}

/// What both ends say to each other for a while, one stream at a time.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst".to_vec(),
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HEAD / HTTP/1.0\r\n\r\n".to_vec(),
        b"POST /x HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n".to_vec(),
        b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50".to_vec(),
        b"\x05\x00\x05\x00\x00\x03\x04host\x00\x50".to_vec(),
    ];
    for encapsulation in ENCAPSULATIONS {
        let (mut client, mut server) = (client(encapsulation), server());
        let mut sockets: [Option<SocketId>; 2] = [None, None];
        for _ in 0..40 {
            let Some(action) = client.next_action() else {
                let mut output = OutputQueue::default();
                output.encode(|out| out.extend_from_slice(&[7; 300]));
                client.send(NOW, &mut output);
                client.handle_timeout(NOW + Duration::from_secs(2));
                if client.failure().is_some() {
                    break;
                }
                continue;
            };
            match action {
                ClientAction::Dial(wire) => {
                    sockets[wire as usize] = server.accepted(NOW, None, None);
                    client.connected(NOW, wire);
                }
                ClientAction::HangUp(wire) => sockets[wire as usize] = None,
                ClientAction::Send(wire, bytes) => {
                    seeds.push(bytes.to_vec());
                    let Some(socket) = sockets[wire as usize] else { continue };
                    server.received(NOW, socket, bytes);
                    client.sent(NOW, wire);
                    let answer = attend(&mut server, NOW);
                    client.received(NOW, wire, &answer);
                    seeds.push(answer);
                }
            }
        }
    }
    seeds.retain(|seed| !seed.is_empty());
    seeds.dedup();
    seeds
}

/// Every reader takes it, cut anywhere.
pub(crate) fn run(data: &[u8]) {
    heads(data);
    bodies(data);
    to_server(data);
    to_client(data);
    from_proxies(data);
}

/// What is read of a beginning is read of the whole.
fn heads(data: &[u8]) {
    let cut = data.len() / 2;
    if let Ok(Some((head, length))) = head::parse_request(&data[..cut]) {
        assert!(length <= cut);
        assert_eq!(head::parse_request(data), Ok(Some((head, length))));
    }
    if let Ok(Some((head, length))) = head::parse_response(&data[..cut]) {
        assert!(length <= cut);
        assert_eq!(head::parse_response(data), Ok(Some((head, length))));
    }
    if let Ok(Some((head, _))) = head::parse_request(data) {
        let _route = target::route(head.method, &head.target);
    }
    let _route = target::route(head::Method::Get, &String::from_utf8_lossy(data));
}

/// Bodies of polls, with and without a head before them.
fn bodies(data: &[u8]) {
    let behind = data.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    for body in [data, &data[behind..]] {
        let body = Bytes::copy_from_slice(body);
        let (guid, request) = (poll::guid(body.clone()), poll::parse_request(body.clone()));
        if let Ok(poll) = &request {
            assert_eq!(guid.as_ref().ok(), Some(&poll.guid));
        }
        let _response = poll::parse_response(body);
    }
    if let Some(guid) = Guid::parse(data) {
        assert_eq!(Guid::parse(guid.as_str().as_bytes()), Some(guid));
    }
}

/// One socket gets it whole, another in pieces; time passes; they are lost.
fn to_server(data: &[u8]) {
    let mut server = server();
    for pieces in [1, 3] {
        let Some(socket) = server.accepted(NOW, None, None) else { return };
        for piece in data.chunks(data.len().div_ceil(pieces).max(1)) {
            server.received(NOW, socket, Bytes::copy_from_slice(piece));
            attend(&mut server, NOW);
        }
    }
    for seconds in [1, 15, 300] {
        let now = NOW + Duration::from_secs(seconds);
        server.handle_timeout(now);
        attend(&mut server, now);
    }
}

fn to_client(data: &[u8]) {
    for encapsulation in ENCAPSULATIONS {
        for wire in WIRES {
            let mut client = client(encapsulation);
            let mut now = NOW;
            for piece in data.chunks(data.len().div_ceil(2).max(1)) {
                answer_actions(&mut client, now);
                client.received(now, wire, piece);
                while client.receive(now).is_some() {}
                now = now + Duration::from_secs(1);
                client.handle_timeout(now);
            }
            answer_actions(&mut client, now);
            client.lost(now, wire);
        }
    }
}

fn answer_actions(client: &mut HttpClient, now: Timestamp) {
    for _ in 0..16 {
        match client.next_action() {
            Some(ClientAction::Dial(wire)) => client.connected(now, wire),
            Some(ClientAction::Send(wire, _)) => client.sent(now, wire),
            Some(ClientAction::HangUp(_)) => {}
            None => return,
        }
    }
}

fn from_proxies(data: &[u8]) {
    let (mut connect, _) = Connect::new("relay.example:443", None);
    let (mut socks, _) = Socks::new("relay.example", 443, None).expect("a short name");
    let pieces = || data.chunks(data.len().div_ceil(3).max(1));
    for piece in pieces() {
        if !matches!(connect.receive(piece), Ok(Progress::Send(_))) {
            break;
        }
    }
    for piece in pieces() {
        if !matches!(socks.receive(piece), Ok(Progress::Send(_))) {
            break;
        }
    }
}
