//! `sstp whoami`: the names in the client directory.

use super::failure::Failure;
use super::printer::Printer;
use client::ClientProfile;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

pub(crate) fn run(directory: &Path, printer: &Printer) -> Result<(), Failure> {
    let profile = ClientProfile::load(directory)?;
    let identities: Vec<_> = profile.identities.iter().map(|identity| identity.as_str()).collect();
    let relay = &profile.relay;
    let addresses = relay.tls.as_ref().map_or(&relay.addresses, |tls| &tls.addresses);
    let by = if relay.tls.is_some() { ", by TLS" } else { "" };
    let json = json!({
        "event": "whoami", "device": profile.device_url.as_str(), "account": profile.account_url.as_str(),
        "identities": identities, "relay": relay.relay_url.as_str(), "addresses": addresses,
        "tls": relay.tls.is_some(),
        "fingerprint": relay.fingerprint(),
    });
    let mut text = format!("Device       {}\nAccount      {}\n", profile.device_url, profile.account_url);
    for identity in &identities {
        // Writing to a String does not fail.
        let _ = writeln!(text, "Identity     {identity}");
    }
    if identities.is_empty() {
        text.push_str("Identity     none yet; make one with: sstp register\n");
    }
    let _ = writeln!(text, "Relay        {} at {}{by}", relay.relay_url, addresses.join(", "));
    let _ = write!(text, "Fingerprint  {}", relay.fingerprint());
    printer.result(&json, text)
}
