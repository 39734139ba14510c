//! `sstp send`: one message, until the relay has acknowledged it.

use super::arguments::Send;
use super::connect::{Home, in_time, ready};
use super::failure::Failure;
use super::printer::Printer;
use super::upload::Upload;
use client::{Body, BodySource, Client, Delivery, Message, Receipt, Recipient, SendError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// A bar is drawn for bodies above this, in bytes.
const BAR_ABOVE: u64 = 1 << 20;

pub(crate) async fn run(send: Send, home: Home<'_>, printer: &Printer) -> Result<(), Failure> {
    if send.device.is_some() && send.to.len() > 1 {
        return Err(Failure::Usage("--device goes with one --to".into()));
    }
    if send.at.len() > 1 && send.at.len() != send.to.len() {
        return Err(Failure::Usage("--at is given once for all, or once for each --to".into()));
    }
    let (upload, position) = Upload::open(send.file.clone()).await?;
    let length = upload.length();
    let message = message(&send, Body::source(upload))?;
    let (client, _) = ready(home, send.timeout).await?;
    let delivery = client.send(message).await?;
    let bar = bar(length, printer);
    let receipt = with_progress(&client, delivery, position, &bar, send.timeout).await;
    bar.finish_and_clear();
    let receipt = receipt??;
    client.close().await;
    report(&send, length, &receipt, printer)
}

fn message(send: &Send, body: Body) -> Result<Message, Failure> {
    let relay = |place: usize| send.at.get(if send.at.len() == 1 { 0 } else { place }).cloned();
    let recipient = |(place, identity)| match relay(place) {
        Some(relay) => Recipient::identity(identity).at(relay),
        None => Recipient::identity(identity),
    };
    let mut to = send.to.iter().cloned().enumerate().map(recipient);
    let Some(first) = to.next() else { return Err(Failure::Usage("--to is missing".into())) };
    let mut message = to.fold(Message::to_recipient(first), Message::and_to);
    if let Some(device) = &send.device {
        message = message.device(device.clone());
    }
    if let Some(lifetime) = send.lifetime {
        message = message.lifetime(lifetime);
    }
    if send.only_if_online {
        message = message.only_if_online();
    }
    Ok(message.resource(send.resource.clone()).user_ref(send.user_ref.as_str()).body(body))
}

fn bar(length: u64, printer: &Printer) -> ProgressBar {
    if printer.is_json() || length < BAR_ABOVE {
        return ProgressBar::hidden();
    }
    let template = "{bytes:>10} of {total_bytes} {wide_bar} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
}

/// Waits for the acknowledgement, as long as there is progress.
async fn with_progress(
    client: &Client,
    mut delivery: Delivery,
    mut position: watch::Receiver<u64>,
    bar: &ProgressBar,
    patience: Duration,
) -> Result<Result<Receipt, SendError>, Failure> {
    loop {
        let step = async {
            tokio::select! {
                outcome = &mut delivery => Some(outcome),
                Ok(()) = position.changed() => None,
            }
        };
        match in_time(client, patience, step).await? {
            Some(outcome) => return Ok(outcome),
            None => bar.set_position(*position.borrow_and_update()),
        }
    }
}

fn report(send: &Send, length: u64, receipt: &Receipt, printer: &Printer) -> Result<(), Failure> {
    let lost = |(index, status): &(u16, client::StatusId)| {
        let identity = send.to.get(usize::from(*index)).map_or("?", |identity| identity.as_str());
        (identity, status.to_string())
    };
    let lost: Vec<_> = receipt.failed.iter().map(lost).collect();
    let failed: Vec<_> =
        lost.iter().map(|(identity, status)| json!({ "identity": identity, "status": status })).collect();
    let json = json!({ "event": "delivered", "bytes": length, "failed": failed });
    printer.result(&json, format_args!("delivered {length} bytes"))?;
    match lost.first() {
        None => Ok(()),
        Some((identity, status)) => Err(Failure::Refused(format!(
            "{} of {} recipients did not get it, {identity} first: {status}",
            lost.len(),
            send.to.len()
        ))),
    }
}
