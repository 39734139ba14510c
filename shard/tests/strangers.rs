//! A whole relay against strangers on real sockets: silent, slow, talking nonsense, or too many.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::BytesMut;
use relay_core::sstp::command::Connect;
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Command, ConnectResponseId, Version};
use shard::init::init;
use shard::server::Server;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tuning::Config;

const RELAY: &str = "grooveDNS://relay.example";
/// Far above every deadline of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Relay {
    address: SocketAddr,
    server: Option<Server>,
    _directory: tempfile::TempDir,
}

impl Relay {
    fn start(limit: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut config = Config::new(RELAY);
        config.listen.sstp = vec![address];
        config.shards.count = 1;
        config.shards.pin = false;
        let made = init(directory.path(), &config).unwrap();
        let mut config = Config::load(&made.config).unwrap();
        limit(&mut config);
        Self { address, server: Some(Server::start(&config).unwrap()), _directory: directory }
    }

    fn dial(&self) -> TcpStream {
        self.dial_from([127, 0, 0, 1])
    }

    fn dial_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }
}

/// All that comes until the relay closes.
fn read_to_end(mut stream: &TcpStream) -> Vec<Command> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the relay did not close: {error}"),
    }
    let mut reader = FrameReader::default();
    reader.push(bytes.into());
    let frames = std::iter::from_fn(|| reader.next_frame().unwrap());
    frames.map(|frame| Command::decode(frame, Version::V1_6).unwrap()).collect()
}

fn connect() -> Vec<u8> {
    let text = |text: &str| Text::new(text.as_bytes().to_vec()).unwrap();
    let mut bytes = BytesMut::new();
    Command::from(Connect {
        minor_version: 6,
        target_device_url: text(RELAY),
        source_device_urls: [text("dpp://relay.example/stranger")].into_iter().collect(),
        authentication_token: Default::default(),
        peer_product_version: text("Test"),
        peer_product_capabilities: Text::EMPTY,
    })
    .encode(&mut bytes);
    bytes.to_vec()
}

fn is_protocol_error(commands: &[Command]) -> bool {
    matches!(commands, [Command::ConnectClose { reason: CloseReason::ProtocolError, .. }])
}

#[test]
fn a_silent_peer_is_cut_at_the_connect_deadline() {
    let relay = Relay::start(|config| config.timers.connect = Duration::from_millis(200));
    assert_eq!(read_to_end(&relay.dial()), []);
}

#[test]
fn a_peer_that_drips_its_connect_is_cut_before_it_is_through() {
    let relay = Relay::start(|config| config.timers.connect = Duration::from_millis(200));
    let mut stream = relay.dial();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for byte in connect() {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => return,
            Ok(_) => panic!("the relay answered half a Connect"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
    panic!("the relay waited for the whole Connect");
}

#[test]
fn a_connection_without_a_challenge_outlives_the_deadline_of_connect() {
    let relay = Relay::start(|config| {
        config.timers.connect = Duration::from_millis(200);
        config.timers.idle = Duration::from_millis(600);
        config.timers.keep_alive = Duration::from_millis(200);
    });
    let mut stream = relay.dial();
    stream.write_all(&connect()).unwrap();
    let said = read_to_end(&stream);
    assert!(matches!(said[0], Command::ConnectResponse { response: ConnectResponseId::Ok, .. }), "{said:?}");
    assert!(
        matches!(said[1], Command::Noop { .. }),
        "it lived longer than the deadline of Connect: {said:?}"
    );
}

#[test]
fn garbage_is_answered_with_protocol_error() {
    let relay = Relay::start(|_| {});
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 3], &[0x0e, 8, 0, 1, 0, 0, 0, 9]] {
        let mut stream = relay.dial();
        stream.write_all(garbage).unwrap();
        let said = read_to_end(&stream);
        assert!(is_protocol_error(&said), "{garbage:?}: {said:?}");
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_the_rest_comes() {
    let relay = Relay::start(|_| {});
    let mut stream = relay.dial();
    // Connect with CommandLength 65535, and nothing behind it.
    stream.write_all(&[0x01, 0xff, 0xff]).unwrap();
    assert!(is_protocol_error(&read_to_end(&stream)));
}

#[test]
fn a_flood_from_one_address_is_turned_away_and_another_is_served() {
    let relay = Relay::start(|config| config.limits.unauthenticated_per_address = 4);
    let flood: Vec<_> = (0..20).map(|_| relay.dial_from([127, 0, 0, 9])).collect();
    for stream in &flood[4..] {
        assert_eq!(read_to_end(stream), []);
    }
    let mut friend = relay.dial();
    friend.write_all(&connect()).unwrap();
    let mut first = [0; 1];
    friend.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x02], "a ConnectResponse");
    flood[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!((&flood[0]).read(&mut first).is_err(), "those within the bound are still there");
}

#[test]
fn above_the_bound_of_the_shard_the_oldest_stranger_is_dropped() {
    let relay = Relay::start(|config| config.limits.unauthenticated_per_shard = 2);
    let mut streams: Vec<_> = (0..3u8).map(|n| relay.dial_from([127, 0, 0, 10 + n])).collect();
    assert_eq!(read_to_end(&streams[0]), []);
    streams[1].write_all(&connect()).unwrap();
    streams[1].read_exact(&mut [0; 1]).unwrap();
}
