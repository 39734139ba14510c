//! `sstp presence watch` and `sstp presence set`: see who is online, and be seen.

use super::arguments::{PresenceSet, PresenceWatch};
use super::connect::{Home, in_time, ready};
use super::failure::Failure;
use super::printer::Printer;
use super::status_table::StatusTable;
use client::{
    Client, ClientProfile, DeviceUrl, OpenResponseId, RelayIdentity, Status, StatusChange, StatusWatch,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often the table shows that time passes.
const TICK: Duration = Duration::from_secs(1);

pub(crate) async fn set(set: PresenceSet, home: Home<'_>, printer: &Printer) -> Result<(), Failure> {
    let (client, profile) = ready(home, set.timeout).await?;
    client.publish(set.status);
    let outcome = tokio::select! {
        outcome = hold(&set, &client, &profile, printer) => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::about(&"interrupt")),
    };
    client.close().await;
    outcome
}

/// Says what the relay shows of this device, and stays.
async fn hold(
    set: &PresenceSet,
    client: &Client,
    profile: &ClientProfile,
    printer: &Printer,
) -> Result<(), Failure> {
    // The relay hears the status before the question, and so answers with the one or with a later one.
    let mut own = client.watch([profile.device_url.clone()]);
    let shown = in_time(client, set.timeout, async {
        tokio::select! {
            shown = own.changed() => shown.ok_or(Failure::General("the client was closed".into())),
            refusal = refusal(client.clone(), &profile.relay) => Err(refusal),
        }
    });
    print(&shown.await??, printer)?;
    match set.time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
    Ok(())
}

pub(crate) async fn watch(watch: PresenceWatch, home: Home<'_>, printer: &Printer) -> Result<(), Failure> {
    let mut relays = vec![relay(home)?];
    for other in &watch.with {
        relays.push(relay(Home { directory: other, ..home })?);
    }
    let mut statuses = StatusWatch::new();
    for device in &watch.devices {
        let own = relays.iter().find(|(_, identity)| identity.serves(device));
        let (client, _) = own.unwrap_or(&relays[0]);
        statuses.add(client, [device.clone()]);
    }
    let mut refusals = JoinSet::new();
    for (client, identity) in &relays {
        let (client, identity) = (client.clone(), identity.clone());
        refusals.spawn(async move { refusal(client, &identity).await });
    }
    let shown = async {
        if watch.once {
            once(&watch, &mut statuses, printer).await
        } else if !printer.is_json() && std::io::stdout().is_terminal() {
            live(&mut statuses).await
        } else {
            lines(&mut statuses, printer).await
        }
    };
    let outcome = tokio::select! {
        outcome = shown => outcome,
        Some(Ok(refusal)) = refusals.join_next() => Err(refusal),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::about(&"interrupt")),
    };
    for (client, _) in &relays {
        client.close().await;
    }
    outcome
}

fn relay(home: Home<'_>) -> Result<(Client, RelayIdentity), Failure> {
    let profile = ClientProfile::load(home.directory)?;
    let identity = profile.relay.clone();
    Ok((home.connect(profile)?, identity))
}

/// Waits until a relay says that it does not serve us. One that cannot be reached does not say so.
async fn refusal(client: Client, identity: &RelayIdentity) -> Failure {
    if let Err(not_ready) = client.ready().await {
        return not_ready.into();
    }
    let mut refused = client.presence_refused();
    let response = refused.wait_for(Option::is_some).await.ok().and_then(|response| *response);
    // Without one the client is closed, and all is over.
    let Some(response) = response else { return std::future::pending().await };
    let relay = &identity.relay_url;
    Failure::Refused(match response {
        OpenResponseId::NoResource => format!("{relay} has no presence"),
        other => format!("{relay} refuses presence: {other}"),
    })
}

/// Prints each device once, when its status is known.
async fn once(watch: &PresenceWatch, statuses: &mut StatusWatch, printer: &Printer) -> Result<(), Failure> {
    let mut missing: BTreeSet<DeviceUrl> = watch.devices.iter().cloned().collect();
    let all = async {
        while !missing.is_empty() {
            let Some(change) = statuses.changed().await else {
                return Err(Failure::General("the client was closed".into()));
            };
            if change.status != Status::Unknown && missing.remove(&change.device) {
                print(&change, printer)?;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(watch.timeout, all).await {
        Ok(outcome) => outcome,
        Err(_) => {
            for device in &missing {
                print(&StatusChange { device: device.clone(), status: Status::Unknown }, printer)?;
            }
            Err(Failure::Unreachable(format!("{} of the devices are unknown", missing.len())))
        }
    }
}

/// Prints every status and every change.
async fn lines(statuses: &mut StatusWatch, printer: &Printer) -> Result<(), Failure> {
    for (device, status) in statuses.statuses() {
        print(&StatusChange { device, status }, printer)?;
    }
    while let Some(change) = statuses.changed().await {
        print(&change, printer)?;
    }
    Ok(())
}

/// Keeps a table up to date.
async fn live(statuses: &mut StatusWatch) -> Result<(), Failure> {
    let mut table = StatusTable::new();
    for (device, status) in statuses.statuses() {
        table.show(&device, status);
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            change = statuses.changed() => match change {
                Some(change) => table.show(&change.device, change.status),
                None => break,
            },
            _ = tick.tick() => table.refresh(),
        }
    }
    table.leave();
    Ok(())
}

fn print(change: &StatusChange, printer: &Printer) -> Result<(), Failure> {
    let (device, status) = (change.device.as_str(), change.status);
    let json = json!({ "event": "presence", "device": device, "status": status.as_str() });
    printer.result(&json, format_args!("{status:<8}{device}"))
}
