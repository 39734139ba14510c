//! A relay's end without sockets: requests in as text, responses out as text. Owns no rule.

use bytes::Bytes;
use relay_core::http::server::{Action, HttpServer, HttpServerConfig, Receipt, SocketId, VirtualId};
use relay_core::relay::ShardId;
use relay_core::sstp::output::OutputQueue;
use relay_core::time::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// The GUID of the printed KeepAlive example.
pub(crate) const GUID: &str = "kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a";
/// The echo string.
pub(crate) const ECHO: &str = "GroovePing: 1.0,Ping\r\n";
/// When every test begins: the moment of the printed example.
pub(crate) const START: Timestamp = Timestamp(1_198_698_626_000);

/// The defaults of one shard.
pub(crate) fn config() -> HttpServerConfig {
    HttpServerConfig {
        shard: ShardId(0),
        shards: 1,
        max_strangers: 100,
        max_strangers_per_address: 10,
        request_deadline: Duration::from_secs(10),
        poll_interval: Duration::from_secs(5),
        bind_address: false,
    }
}

/// See the module's head.
pub(crate) struct Desk {
    pub(crate) server: HttpServer,
    pub(crate) now: Timestamp,
    opened: Vec<VirtualId>,
    pub(crate) resumed: Vec<SocketId>,
    pub(crate) handed_over: Vec<(SocketId, ShardId, Bytes)>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: HttpServerConfig) -> Self {
        Self {
            server: HttpServer::new(config),
            now: START,
            opened: Vec::new(),
            resumed: Vec::new(),
            handed_over: Vec::new(),
        }
    }

    pub(crate) fn try_socket(&mut self, address: &str) -> Option<SocketId> {
        let address: IpAddr = address.parse().unwrap();
        self.server.accepted(self.now, Some(address), None)
    }

    pub(crate) fn socket(&mut self) -> SocketId {
        self.try_socket("192.0.2.1").unwrap()
    }

    pub(crate) fn say(&mut self, socket: SocketId, bytes: impl AsRef<[u8]>) {
        self.server.received(self.now, socket, Bytes::copy_from_slice(bytes.as_ref()));
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.server.next_action() {
            match action {
                Action::Opened { connection, .. } => self.opened.push(connection),
                Action::Resume(socket) => self.resumed.push(socket),
                Action::HandOver { socket, shard, bytes } => self.handed_over.push((socket, shard, bytes)),
                Action::Readable(_) | Action::Writable(_) => {}
            }
        }
    }

    /// Everything that goes out on the socket now.
    pub(crate) fn heard(&mut self, socket: SocketId) -> Vec<u8> {
        let Some(output) = self.server.output(socket) else { return Vec::new() };
        let bytes = output.take().to_vec();
        self.server.sent(self.now, socket);
        self.act();
        bytes
    }

    /// Status and body of the response that goes out on the socket now; `None` if there is none.
    pub(crate) fn answer(&mut self, socket: SocketId) -> Option<(u16, Vec<u8>)> {
        let bytes = self.heard(socket);
        if bytes.is_empty() {
            return None;
        }
        let (head, length) = relay_core::http::head::parse_response(&bytes).unwrap().unwrap();
        Some((head.status, bytes[length..].to_vec()))
    }

    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Option<(u16, Vec<u8>)> {
        let socket = self.socket();
        self.say(socket, bytes);
        self.answer(socket)
    }

    /// Virtual connections that have begun.
    pub(crate) fn opened(&self) -> usize {
        self.opened.len()
    }

    /// The first virtual connection.
    pub(crate) fn first(&self) -> VirtualId {
        self.opened[0]
    }

    /// All bytes that the first virtual connection has for its owner; `None` once it has ended.
    pub(crate) fn received(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match self.server.receive(self.now, self.first()) {
                Receipt::Bytes(more) => bytes.extend_from_slice(&more),
                Receipt::Nothing => break,
                Receipt::End if bytes.is_empty() => return None,
                Receipt::End => break,
            }
        }
        self.act();
        Some(bytes)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        while let Some(bytes) = self.received() {
            if bytes.is_empty() {
                return false;
            }
        }
        true
    }

    /// The owner of the first virtual connection sends; whether all of it was taken.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let mut output = OutputQueue::default();
        output.encode(|out| out.extend_from_slice(bytes));
        let all = self.server.send(self.now, self.first(), &mut output).unwrap();
        self.act();
        all
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.server.handle_timeout(self.now);
        self.act();
    }

    pub(crate) fn lose(&mut self, socket: SocketId) {
        self.server.lost(self.now, socket);
        self.act();
    }
}

/// A GET of an encapsulation.
pub(crate) fn get(kind: &str, guid: &str) -> String {
    format!(
        "GET /2.0/server.domain.net/{guid},ConnType={kind} HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n"
    )
}

/// A POST of an encapsulation, with a body of the stated length.
pub(crate) fn post(kind: &str, guid: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /2.0/server.domain.net/{guid},ConnType={kind} HTTP/1.0\r\nConnection: Keep-Alive\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
