//! The way from a client directory to a client that is ready, within a time.

use super::failure::Failure;
use client::{Client, ClientProfile, Config, Disconnected, State};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

/// Connects and waits until the device is authenticated.
pub(crate) async fn ready(directory: &Path, patience: Duration) -> Result<(Client, ClientProfile), Failure> {
    let profile = ClientProfile::load(directory)?;
    let client = Client::connect(Config::new(profile.clone()))?;
    in_time(&client, patience, client.ready()).await??;
    Ok((client, profile))
}

/// Waits for something that the relay has to do. In vain, it says why there was no connection.
pub(crate) async fn in_time<T>(
    client: &Client,
    patience: Duration,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut state = client.state();
    let mut last = cause(*state.borrow_and_update());
    let (mut future, mut deadline) = (pin!(future), pin!(tokio::time::sleep(patience)));
    loop {
        tokio::select! {
            outcome = &mut future => return Ok(outcome),
            () = &mut deadline => return Err(unreachable(last)),
            Ok(()) = state.changed() => last = cause(*state.borrow_and_update()).or(last),
        }
    }
}

fn cause(state: State) -> Option<Disconnected> {
    match state {
        State::Disconnected { cause, .. } => Some(cause),
        _ => None,
    }
}

fn unreachable(last: Option<Disconnected>) -> Failure {
    Failure::Unreachable(match last {
        Some(cause) => format!("gave up: {cause}"),
        None => "the relay did not answer in time".into(),
    })
}
