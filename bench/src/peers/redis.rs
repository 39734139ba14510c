//! Redis streams: XADD, with the append-only file flushed before the answer.

use super::{LINE_END, Peer, Recipe, block, decimal, put_block, take_lines, text};
use crate::failure::Failure;
use crate::wire::{Wire, WireError, Witness};
use std::net::SocketAddr;
use std::path::Path;

const PROGRAM: &str = "redis-server";

/// Its version.
pub(crate) fn version() -> String {
    super::version(PROGRAM, "--version")
}

/// How it is set up, in words.
pub(crate) fn configuration() -> String {
    "appendonly yes, appendfsync always, no snapshots; XADD stream * d PAYLOAD, one stream for each sender"
        .into()
}

/// Starts a server.
///
/// # Errors
/// [`Failure`].
pub(crate) fn start(parent: &Path) -> Result<Peer, Failure> {
    let arguments = |address: SocketAddr, directory: &Path| {
        let settings = [
            ("--bind", address.ip().to_string()),
            ("--port", address.port().to_string()),
            ("--dir", directory.display().to_string()),
            ("--appendonly", "yes".into()),
            ("--appendfsync", "always".into()),
            ("--save", String::new()),
        ];
        settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    };
    Peer::start(parent, &Recipe { program: PROGRAM, arguments: &arguments, file: None })
}

/// One Redis connection.
#[derive(Debug)]
pub(crate) struct RedisWire {
    /// XADD up to the length of the payload.
    head: Vec<u8>,
    ready: bool,
}

impl RedisWire {
    /// Appends to the stream of this number.
    pub(crate) fn new(number: u32) -> Self {
        let key = format!("bench:{number}");
        let head = format!("*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n$1\r\n*\r\n$1\r\nd\r\n$", key.len());
        Self { head: head.into_bytes(), ready: false }
    }
}

impl Wire for RedisWire {
    fn greet(&mut self, out: &mut Vec<u8>) {
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
        _out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError> {
        take_lines(input, |words, rest| match words.first() {
            Some(b'+') => {
                self.ready = true;
                Ok(Some(0))
            }
            Some(b'$') => {
                let bytes = decimal(&words[1..]).ok_or(WireError::Malformed("a bulk string"))?;
                let id = block(rest, bytes);
                witness.acknowledged(u64::from(id.is_some()));
                Ok(id.map(|id| id.len() + LINE_END.len()))
            }
            _ => Err(WireError::Refused(text(words))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::heard::Heard;

    #[test]
    fn each_entry_id_is_an_acknowledgement_however_it_is_cut() {
        let stream = b"+PONG\r\n$15\r\n1700000000000-0\r\n$15\r\n1700000000000-1\r\n";
        for cut in 0..stream.len() {
            let (mut wire, mut heard) = (RedisWire::new(1), Heard::default());
            let used = wire.take(&stream[..cut], &mut Vec::new(), &mut heard).unwrap();
            let rest = wire.take(&stream[used..], &mut Vec::new(), &mut heard).unwrap();
            assert_eq!(used + rest, stream.len());
            assert_eq!((heard.acknowledged, wire.is_ready()), (2, true));
        }
        let refused = RedisWire::new(1).take(b"-ERR full\r\n", &mut Vec::new(), &mut Heard::default());
        assert!(matches!(refused, Err(WireError::Refused(_))));
    }

    #[test]
    fn an_entry_is_written_as_the_protocol_has_it() {
        let mut out = Vec::new();
        RedisWire::new(7).put(b"hello", false, &mut out);
        assert_eq!(out, b"*5\r\n$4\r\nXADD\r\n$7\r\nbench:7\r\n$1\r\n*\r\n$1\r\nd\r\n$5\r\nhello\r\n");
    }
}
