//! `sstp receive`: messages into files or onto standard output, each acknowledged once it is written.

use super::arguments::Receive;
use super::connect::{Home, ready};
use super::failure::Failure;
use super::printer::Printer;
use client::{BodyError, Incoming, Received, State};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncWriteExt, stdout};
use tokio::time::timeout;

/// How long to wait for the connection when messages may be waited for longer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// The longest body that `--json` prints.
const JSON_BODY_BYTES: usize = 1 << 20;

pub(crate) async fn run(receive: Receive, home: Home<'_>, printer: &Printer) -> Result<(), Failure> {
    if let Some(out) = &receive.out {
        std::fs::create_dir_all(out).map_err(Failure::about(&out.display()))?;
    }
    let (client, _) = ready(home, CONNECT_PATIENCE.max(receive.timeout)).await?;
    if *client.state().borrow() == (State::Ready { attached: false }) {
        return Err(Failure::Refused("the relay does not know or refuses the account: sstp register".into()));
    }
    let mut incoming = client.incoming();
    let outcome = tokio::select! {
        outcome = collect(&receive, &mut incoming, printer) => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::about(&"interrupt")),
    };
    // What was acknowledged reaches the relay in any case.
    client.close().await;
    outcome
}

async fn collect(receive: &Receive, incoming: &mut Incoming, printer: &Printer) -> Result<(), Failure> {
    let mut collected = 0;
    while receive.count.is_none_or(|count| collected < count) {
        let next = match receive.follow {
            true => Ok(incoming.recv().await),
            false => timeout(receive.timeout, incoming.recv()).await,
        };
        match next {
            Ok(Some(received)) => collected += u64::from(take(receive, received, collected, printer).await?),
            Ok(None) => return Err(Failure::General("the client was closed".into())),
            Err(_) if receive.count.is_none() => return Ok(()),
            Err(_) => {
                return Err(Failure::Unreachable(format!("{collected} messages came in time, not more")));
            }
        }
    }
    Ok(())
}

/// Writes and acknowledges a message; `false` if it was cut off and will come again.
async fn take(
    receive: &Receive,
    mut received: Received,
    number: u64,
    printer: &Printer,
) -> Result<bool, Failure> {
    let written = match &receive.out {
        Some(out) => into_file(out, &mut received, number, printer).await,
        None if printer.is_json() => into_json(&mut received, printer).await,
        None => onto_stdout(&mut received).await,
    };
    match written {
        Err(Stopped::CutOff) => Ok(false),
        Err(Stopped::Failed(failure)) => Err(failure),
        Ok(()) => {
            received.acknowledge();
            Ok(true)
        }
    }
}

/// Why a message was not written.
enum Stopped {
    /// It will come again.
    CutOff,
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

impl From<BodyError> for Stopped {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Lost => Stopped::CutOff,
            other => Stopped::Failed(other.into()),
        }
    }
}

/// Writes the body to a file that has its final name only once it is whole and on the disk.
async fn into_file(
    out: &Path,
    received: &mut Received,
    number: u64,
    printer: &Printer,
) -> Result<(), Stopped> {
    let path = new_path(out, number);
    let draft = path.with_extension("part");
    let failed = |error| Failure::about(&draft.display())(error);
    let mut file = tokio::fs::File::create_new(&draft).await.map_err(failed)?;
    let mut bytes = 0;
    let copied = async {
        while let Some(chunk) = received.body().chunk().await? {
            bytes += chunk.len();
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(&draft, &path).await.map_err(failed)?;
        Ok::<_, Stopped>(())
    };
    if let Err(stopped) = copied.await {
        // Nothing is lost with a draft that cannot be removed.
        let _ = tokio::fs::remove_file(&draft).await;
        return Err(stopped);
    }
    let json = json!({
        "event": "received", "identity": received.identity(), "device": received.device(), "resource": received.resource(),
        "user_ref": received.user_ref(), "bytes": bytes, "file": path,
    });
    Ok(printer.result(&json, format_args!("{bytes} bytes in {}", path.display()))?)
}

/// A name that no sender chooses and no other run uses.
fn new_path(out: &Path, number: u64) -> PathBuf {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.join(format!("message-{}-{}-{number:06}.bin", since_epoch.as_micros(), std::process::id()))
}

async fn into_json(received: &mut Received, printer: &Printer) -> Result<(), Stopped> {
    let body = match received.bytes(JSON_BODY_BYTES).await {
        Ok(body) => body,
        Err(BodyError::TooLong(_)) => {
            let failure = "a message is too long for --json; use --out DIR as well".to_owned();
            return Err(Failure::General(failure).into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut json = json!({
        "event": "received", "identity": received.identity(), "device": received.device(), "resource": received.resource(),
        "user_ref": received.user_ref(), "bytes": body.len(),
    });
    match std::str::from_utf8(&body) {
        Ok(text) => json["text"] = text.into(),
        Err(_) => json["hex"] = body.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
    Ok(printer.result(&json, "")?)
}

async fn onto_stdout(received: &mut Received) -> Result<(), Stopped> {
    let failed = Failure::about(&"standard output");
    let mut out = stdout();
    while let Some(chunk) = received.body().chunk().await? {
        out.write_all(&chunk).await.map_err(&failed)?;
    }
    Ok(out.flush().await.map_err(&failed)?)
}
