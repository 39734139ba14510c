//! What the load driver asks of a protocol: to write messages into a buffer, and to read what arrived out of one. Each
//! system under test has one implementation, all equally tight: no allocation per message, no copy but into the output.

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WireError {
    /// The system refused something, or said something that is out of place.
    #[error("the server said: {0}")]
    Refused(String),
    /// The bytes are not of the protocol.
    #[error("not of the protocol: {0}")]
    Malformed(&'static str),
}

/// Who is told what a connection received.
pub(crate) trait Witness {
    /// That many more messages, sent on this connection, are acknowledged.
    fn acknowledged(&mut self, count: u64);
    /// What follows comes on this session.
    fn session(&mut self, _session: u32) {}
    /// A message begins to arrive.
    fn begin(&mut self);
    /// More bytes of its payload.
    fn piece(&mut self, bytes: &[u8]);
    /// It is whole.
    fn end(&mut self);
}

/// Hears nothing, for those whom nobody sends mail.
#[derive(Debug)]
pub(crate) struct Deaf;

impl Witness for Deaf {
    fn acknowledged(&mut self, _count: u64) {}
    fn begin(&mut self) {}
    fn piece(&mut self, _bytes: &[u8]) {}
    fn end(&mut self) {}
}

/// One end of a connection.
pub(crate) trait Wire {
    /// What is said first.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Whether the handshake is over.
    fn is_ready(&self) -> bool;

    /// Whether the server takes messages at present.
    fn may_send(&self) -> bool {
        true
    }

    /// Appends one message to `out`. `prompt` asks for an acknowledgement without delay, where the protocol knows that.
    fn put(&mut self, payload: &[u8], prompt: bool, out: &mut Vec<u8>);

    /// Reads the whole commands at the front of `input`, answers into `out`, and returns how many bytes it has used.
    ///
    /// # Errors
    /// [`WireError`]; the connection is of no more use.
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError>;
}
