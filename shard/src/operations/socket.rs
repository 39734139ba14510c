//! The operator's Unix socket: who may open it (the file's permissions say), lines in and lines out, each within bounds.

use super::{ACCEPT_AGAIN, Deck, OperationsError, requests, restore};
use crate::events;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tuning::operator::{
    ErrorCause, MAX_REQUEST_BYTES, Outcome, Refusal, Reply, Request, RequestLine, VERSION,
};

/// Operators at a time; further ones wait.
const MAX_OPERATORS: usize = 16;
/// Operators that may wait.
const BACKLOG: i32 = 16;
/// An operator who says nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// An operator who does not take its reply for so long is forgotten.
const WRITE: Duration = Duration::from_secs(10);

/// Makes the socket, which only the user of this process may open: it gets its permissions before anybody can connect.
pub(super) fn bind(path: &Path) -> Result<std::os::unix::net::UnixListener, OperationsError> {
    let failed = |error| OperationsError::Socket { path: path.to_owned(), error };
    remove_stale(path)?;
    let make = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    make().map_err(failed)
}

/// Removes a socket on which nobody listens any more.
fn remove_stale(path: &Path) -> Result<(), OperationsError> {
    let failed = |error| OperationsError::Socket { path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => Err(OperationsError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(OperationsError::SocketInUse(path.to_owned()))
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed),
    }
}

/// Accepts operators for as long as the thread lives.
pub(super) async fn serve(listener: UnixListener, deck: Arc<Deck>) {
    let places = Arc::new(Semaphore::new(MAX_OPERATORS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let deck = deck.clone();
                tokio::spawn(async move {
                    // An operator who goes away in the middle is no event.
                    let _ = attend(stream, &deck).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(event = events::OPERATOR_ACCEPT_FAILED, %error, "an operator or a scraper could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Answers one operator's requests.
async fn attend(stream: UnixStream, deck: &Arc<Deck>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(MAX_REQUEST_BYTES as u64);
        timeout(IDLE, bounded.read_until(b'\n', &mut line)).await??;
        let whole = line.last() == Some(&b'\n');
        if line.is_empty() || !whole && line.len() < MAX_REQUEST_BYTES {
            return Ok(());
        }
        let outcome =
            if whole { answer(deck, &line, &mut writer).await? } else { Outcome::Error(too_long()) };
        say(&mut writer, outcome).await?;
        if !whole {
            return Ok(());
        }
    }
}

/// Says something to an operator.
pub(super) async fn say(writer: &mut OwnedWriteHalf, outcome: Outcome) -> io::Result<()> {
    let mut reply = serde_json::to_vec(&Reply { v: VERSION, outcome })?;
    reply.push(b'\n');
    timeout(WRITE, writer.write_all(&reply)).await?
}

/// What came of a request. Of one that takes long, something is said before that.
async fn answer(deck: &Arc<Deck>, line: &[u8], writer: &mut OwnedWriteHalf) -> io::Result<Outcome> {
    let outcome = match parse(line).map(|line| line.request) {
        Ok(Request::Restore { backup, only }) => {
            return restore::restore(deck, backup, only, writer).await;
        }
        Ok(request) => requests::carry_out(deck, request).await,
        Err(refusal) => Err(refusal),
    };
    Ok(outcome.map_or_else(Outcome::Error, Outcome::Answer))
}

/// The request in a line. The version is looked at before anything else.
fn parse(line: &[u8]) -> Result<RequestLine, Refusal> {
    let bad = |error: serde_json::Error| Refusal {
        cause: ErrorCause::BadRequest,
        message: format!("no request: {error}"),
    };
    let value: serde_json::Value = serde_json::from_slice(line).map_err(bad)?;
    match value.get("v").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => serde_json::from_value(value).map_err(bad),
        Some(version) => Err(Refusal {
            cause: ErrorCause::BadVersion,
            message: format!("version {version} of the protocol; this relay speaks {VERSION}"),
        }),
        None => {
            Err(Refusal { cause: ErrorCause::BadRequest, message: "no version: \"v\" is missing".into() })
        }
    }
}

fn too_long() -> Refusal {
    let message = format!("a request of more than {MAX_REQUEST_BYTES} bytes");
    Refusal { cause: ErrorCause::BadRequest, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_for_its_owner_only_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relayd.sock");
        let socket = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(matches!(bind(&path), Err(OperationsError::SocketInUse(_))));
        drop(socket);
        bind(&path).unwrap();
    }

    #[test]
    fn a_file_at_the_path_and_a_path_that_is_too_long_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "mail").unwrap();
        assert!(matches!(bind(&path), Err(OperationsError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"mail");
        let long = folder.path().join("x".repeat(120));
        assert!(bind(&long).unwrap_err().to_string().starts_with("operator.socket "));
    }

    #[test]
    fn a_line_is_refused_for_the_right_reason() {
        let table = [
            ("", ErrorCause::BadRequest),
            ("nonsense", ErrorCause::BadRequest),
            (r#"{"command":"status"}"#, ErrorCause::BadRequest),
            (r#"{"v":2,"command":"status"}"#, ErrorCause::BadVersion),
            (r#"{"v":2,"what":"ever"}"#, ErrorCause::BadVersion),
            (r#"{"v":1,"command":"explode"}"#, ErrorCause::BadRequest),
            (r#"{"v":1,"command":"connections"}"#, ErrorCause::BadRequest),
        ];
        for (line, cause) in table {
            assert_eq!(parse(line.as_bytes()).unwrap_err().cause, cause, "{line}");
        }
        assert_eq!(parse(br#"{"v":1,"command":"drain"}"#).unwrap().request, Request::Drain);
    }
}
