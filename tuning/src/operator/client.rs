//! The client's end of the operator socket. Blocking: it is for tools.

use super::protocol::{Answer, MAX_REPLY_BYTES, Outcome, Refusal, Reply, Request, RequestLine, VERSION};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there, or this user may not open the socket.
    #[error("{}: {error}. Does the relay run, and may this user open its socket?", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The relay went away or took too long.
    #[error("the relay does not answer: {0}")]
    Lost(#[from] io::Error),
    /// The relay closed the socket instead of answering.
    #[error("the relay closed the connection")]
    Closed,
    /// What came is no reply.
    #[error("the relay's reply cannot be read: {0}")]
    Reply(#[from] serde_json::Error),
    /// What came is longer than a reply can be.
    #[error("the relay's reply is longer than {MAX_REPLY_BYTES} bytes")]
    TooLong,
    /// The relay says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// A connection to a relay's operator socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connect { path: path.to_owned(), error };
        let stream = UnixStream::connect(path).map_err(failed)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer, but not longer than `patience` for any part of it.
    ///
    /// # Errors
    /// [`ClientError`], in particular [`ClientError::Refused`]; after any other one this connection is of no more use.
    pub fn ask(&mut self, request: Request, patience: Duration) -> Result<Answer, ClientError> {
        self.begin(request, patience)?;
        self.answer()
    }

    /// As [`Client::ask`], for a request that says now and then how far it is: `progress` gets messages done and in all.
    ///
    /// # Errors
    /// As there.
    pub fn ask_at_length(
        &mut self,
        request: Request,
        patience: Duration,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Answer, ClientError> {
        self.begin(request, patience)?;
        loop {
            match self.answer()? {
                Answer::Restoring { done, total } => progress(done, total),
                answer => return Ok(answer),
            }
        }
    }

    fn begin(&mut self, request: Request, patience: Duration) -> Result<(), ClientError> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        self.stream.get_ref().set_write_timeout(Some(patience))?;
        let mut line = serde_json::to_vec(&RequestLine { v: VERSION, request })?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, ClientError> {
        let mut reply = Vec::new();
        self.stream.by_ref().take(MAX_REPLY_BYTES as u64).read_until(b'\n', &mut reply)?;
        match reply.last() {
            None => return Err(ClientError::Closed),
            Some(b'\n') => {}
            Some(_) if reply.len() == MAX_REPLY_BYTES => return Err(ClientError::TooLong),
            Some(_) => return Err(ClientError::Closed),
        }
        match serde_json::from_slice::<Reply>(&reply)?.outcome {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }
}
