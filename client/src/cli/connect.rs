//! The way from a client directory to a client that is ready, within a time.

use super::failure::Failure;
use client::{Carrier, Client, ClientProfile, Config, Disconnected, State};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

/// Where a client's files are, and how it is to reach its relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) carrier: Option<Carrier>,
}

impl Home<'_> {
    /// A client of this profile that is connecting.
    pub(crate) fn connect(self, profile: ClientProfile) -> Result<Client, Failure> {
        let mut config = Config::new(profile);
        config.carrier = self.carrier;
        config.memory = Some(self.directory.to_owned());
        Ok(Client::connect(config)?)
    }
}

/// Connects and waits until the device is authenticated.
pub(crate) async fn ready(home: Home<'_>, patience: Duration) -> Result<(Client, ClientProfile), Failure> {
    let profile = ClientProfile::load(home.directory)?;
    let client = home.connect(profile.clone())?;
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
