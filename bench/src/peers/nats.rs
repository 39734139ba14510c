//! NATS: core, which passes on and acknowledges nothing, and JetStream, which stores in a file and acknowledges.

use super::{LINE_END, Peer, Recipe, block, decimal, put_block, take_lines, text};
use crate::failure::Failure;
use crate::wire::{Wire, WireError, Witness};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const PROGRAM: &str = "nats-server";
/// The subjects of the stream; senders use one each.
const SUBJECTS: &str = "bench.*";

/// Its version.
pub(crate) fn version() -> String {
    super::version(PROGRAM, "--version")
}

/// How it is set up, in words.
pub(crate) fn configuration(jetstream: bool) -> String {
    match jetstream {
        false => "as shipped".into(),
        true => "-js, one stream, file storage, one replica; as shipped it acknowledges before fsync (sync_interval 2 min)".into(),
    }
}

/// Starts a server; with JetStream, a stream takes every sender's subject.
///
/// # Errors
/// [`Failure`].
pub(crate) fn start(parent: &Path, jetstream: bool) -> Result<Peer, Failure> {
    let arguments = |address: SocketAddr, directory: &Path| {
        let mut arguments =
            vec!["-a".into(), address.ip().to_string(), "-p".into(), address.port().to_string()];
        if jetstream {
            arguments.extend(["-js".into(), "-sd".into(), directory.display().to_string()]);
        }
        arguments
    };
    let peer = Peer::start(parent, &Recipe { program: PROGRAM, arguments: &arguments, file: None })?;
    if jetstream {
        create_stream(peer.address).map_err(Failure::system("creating the stream"))?;
    }
    Ok(peer)
}

fn create_stream(address: SocketAddr) -> std::io::Result<()> {
    let config = format!(
        r#"{{"name":"BENCH","subjects":["{SUBJECTS}"],"storage":"file","retention":"limits","num_replicas":1}}"#
    );
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "CONNECT {{\"verbose\":false}}\r\nSUB _INBOX.create 1\r\n\
         PUB $JS.API.STREAM.CREATE.BENCH _INBOX.create {}\r\n{config}\r\n",
        config.len()
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        let so_far = text(&answer);
        if so_far.contains("stream_create_response") && !so_far.contains("\"error\"") {
            return Ok(());
        }
        if count == 0 || so_far.contains("\"error\"") || so_far.contains("-ERR") {
            return Err(std::io::Error::other(so_far));
        }
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Publisher,
    Subscriber,
    /// Publishes to the stream; what it receives are acknowledgements.
    StreamPublisher,
}

/// One NATS connection.
#[derive(Debug)]
pub(crate) struct NatsWire {
    role: Role,
    /// PUB, the subject and, for the stream, where to acknowledge.
    head: Vec<u8>,
    subject: String,
    ready: bool,
}

impl NatsWire {
    fn new(role: Role, number: u32) -> Self {
        let subject = format!("bench.{number}");
        let reply = if role == Role::StreamPublisher { format!("_INBOX.{number} ") } else { String::new() };
        Self { role, head: format!("PUB {subject} {reply}").into_bytes(), subject, ready: false }
    }

    /// Publishes to the subject of this number.
    pub(crate) fn publisher(number: u32) -> Self {
        Self::new(Role::Publisher, number)
    }

    /// Subscribes to the subject of this number.
    pub(crate) fn subscriber(number: u32) -> Self {
        Self::new(Role::Subscriber, number)
    }

    /// Publishes to the stream under the subject of this number.
    pub(crate) fn stream_publisher(number: u32) -> Self {
        Self::new(Role::StreamPublisher, number)
    }

    fn message(&self, payload: &[u8], witness: &mut impl Witness) -> Result<(), WireError> {
        match self.role {
            Role::StreamPublisher if payload.windows(7).any(|part| part == b"\"error\"") => {
                Err(WireError::Refused(text(payload)))
            }
            Role::StreamPublisher => {
                witness.acknowledged(1);
                Ok(())
            }
            _ => {
                witness.begin();
                witness.piece(payload);
                witness.end();
                Ok(())
            }
        }
    }
}

impl Wire for NatsWire {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true}\r\n");
        let subscription = match self.role {
            Role::Publisher => None,
            Role::Subscriber => Some(self.subject.clone()),
            Role::StreamPublisher => Some(self.subject.replace("bench.", "_INBOX.")),
        };
        if let Some(subject) = subscription {
            out.extend_from_slice(format!("SUB {subject} 1\r\n").as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn put(&mut self, payload: &[u8], _prompt: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        put_block(payload, out);
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError> {
        take_lines(input, |words, rest| {
            match words.get(..3) {
                Some(b"MSG") => {
                    let last = words.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
                    let bytes = decimal(last).ok_or(WireError::Malformed("MSG without a length"))?;
                    let Some(payload) = block(rest, bytes) else { return Ok(None) };
                    self.message(payload, witness)?;
                    return Ok(Some(bytes + LINE_END.len()));
                }
                Some(b"PIN") => out.extend_from_slice(b"PONG\r\n"),
                Some(b"PON") => self.ready = true,
                Some(b"INF" | b"+OK") => {}
                _ => return Err(WireError::Refused(text(words))),
            }
            Ok(Some(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::heard::Heard;

    #[test]
    fn messages_are_taken_however_they_are_cut() {
        let stream = b"INFO {}\r\nPONG\r\nMSG bench.1 1 5\r\nhe\r\no\r\nPING\r\nMSG bench.1 1 0\r\n\r\n";
        for cut in 0..stream.len() {
            let (mut wire, mut heard, mut out) = (NatsWire::subscriber(1), Heard::default(), Vec::new());
            let used = wire.take(&stream[..cut], &mut out, &mut heard).unwrap();
            let rest = wire.take(&stream[used..], &mut out, &mut heard).unwrap();
            assert_eq!(used + rest, stream.len());
            assert_eq!(heard.messages, [b"he\r\no".to_vec(), Vec::new()]);
            assert_eq!(out, b"PONG\r\n");
            assert!(wire.is_ready());
        }
    }

    #[test]
    fn a_stream_acknowledges_or_says_what_is_wrong() {
        let mut heard = Heard::default();
        let mut wire = NatsWire::stream_publisher(1);
        let right = b"MSG _INBOX.1 1 26\r\n{\"stream\":\"BENCH\",\"seq\":1}\r\n";
        wire.take(right, &mut Vec::new(), &mut heard).unwrap();
        assert_eq!((heard.acknowledged, heard.messages.len()), (1, 0));
        let wrong = b"MSG _INBOX.1 1 12\r\n{\"error\":{}}\r\n";
        assert!(wire.take(wrong, &mut Vec::new(), &mut heard).is_err());
        assert!(wire.take(b"-ERR 'Slow Consumer'\r\n", &mut Vec::new(), &mut heard).is_err());
    }

    #[test]
    fn a_message_is_written_as_the_protocol_has_it() {
        let mut out = Vec::new();
        NatsWire::stream_publisher(7).put(b"hello", false, &mut out);
        assert_eq!(out, b"PUB bench.7 _INBOX.7 5\r\nhello\r\n");
    }
}
