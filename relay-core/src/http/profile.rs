//! Every number and literal of the HTTP encapsulation, with its provenance: *seen* in the published specification,
//! *inferred* from it, or *ours*. One fact learnt later changes one line here.

use std::time::Duration;

/// The relay's port for HTTP (seen, 1.9).
pub const PORT: u16 = 80;
/// The relay's port for Secure Tunnel (seen, 1.9).
pub const TUNNEL_PORT: u16 = 443;
/// The usual port of an HTTP proxy (seen, 3.3.1.2: 80 or 8080).
pub const PROXY_PORT: u16 = 8080;
/// The port of a SOCKS proxy (seen, 1.9).
pub const SOCKS_PORT: u16 = 1080;

/// Version of LongLived and KeepAlive (seen, 2.2.2.1.1.1, 2.2.3.1.1.2).
pub const VERSION: &str = "2.0";
/// Version of Polling (seen, 2.2.4.1.3.1.1).
pub const POLLING_VERSION: &str = "1.2";
/// Encapsulation-Echo-String, the same octets in both directions (seen in 4.2; the server's inferred, gap G2).
pub const ECHO: &[u8; 22] = b"GroovePing: 1.0,Ping\r\n";
/// Octets of one direction of a LongLived connection, the echo string included (seen, 3.1.4.1; the latter inferred).
pub const CONTENT_LENGTH: u64 = 0x7fff_f000;
/// The longest body of KeepAlive and Polling (seen, 3.4.4.3, 3.5.4.3.1).
pub const MAX_BODY_BYTES: usize = 32_768;

/// Random octets of a Virtual-Connection-GUID (inferred from the examples).
pub const GUID_BYTES: usize = 24;
/// The longest Virtual-Connection-GUID that is accepted (wire-profile 5).
pub const MAX_GUID_CHARS: usize = 64;
/// The longest Relay-Server-Name that is accepted (ours; a DNS name has at most 253 characters, and a scheme may stand
/// before it, gap G4).
pub const MAX_SERVER_NAME_BYTES: usize = 300;

/// The longest head of a request or response (ours, 7.8: examples are about 400 octets, proxies add some).
pub const MAX_HEAD_BYTES: usize = 8192;
/// The most header lines of a head (ours; clients send ten, proxies add some).
pub const MAX_HEADERS: usize = 64;

/// How long a GET of KeepAlive is held if there is nothing to send (seen, 3.2.6.3: a Noop answers it by then).
pub const HELD_GET: Duration = Duration::from_secs(45);
/// NetworkReceiveIO (seen for SOCKS, inferred to be the same elsewhere).
pub const NETWORK_RECEIVE_IO: Duration = Duration::from_secs(60);
/// ConnectionEstablishment (inferred, gap G6).
pub const CONNECTION_ESTABLISHMENT: Duration = Duration::from_secs(60);
/// How long a connection that carried a request of a virtual connection may rest before its next one (ours: two Noops and a
/// half, as for SSTP itself).
pub const SOCKET_REST: Duration = Duration::from_secs(135);

/// How long the answer to a poll with data waits for SSTP to have something to say (ours, 7.5: normally that is immediate).
pub const POLL_ANSWER_WAIT: Duration = Duration::from_millis(100);
/// Polls that one shard wants to answer in a second; with more connections it dictates longer intervals (ours).
pub const POLLS_PER_SECOND: usize = 1000;
/// The longest poll interval that is dictated (ours: below NetworkReceiveIO and SSTP's idle deadline).
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// PollRepetitions that is assumed where none was dictated yet (inferred; the server dictates it).
pub const POLL_REPETITIONS: u32 = 5;
/// How often a client repeats a poll whose exchange was lost (ours, see [`super::server`]).
pub const POLL_ATTEMPTS: u32 = 4;

/// Bytes received for the virtual connection's owner above which nothing more is read or answered (ours).
pub const INBOX_BYTES: usize = 64 * 1024;
/// Bytes of the virtual connection's owner that wait for a request to carry them (ours: two full bodies).
pub const OUTBOX_BYTES: usize = 2 * MAX_BODY_BYTES;

/// User-Agent of our client (ours, note 2: implementers use their own token).
pub const USER_AGENT: &str = "Furrow/0.1";
/// Server of our relay (ours).
pub const SERVER: &str = "Furrow/0.1";
