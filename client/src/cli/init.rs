//! `sstp init`: new keys in a new directory.

use super::arguments::Init;
use super::failure::Failure;
use super::printer::Printer;
use client::{ClientProfile, RelayIdentity};
use serde_json::json;
use std::path::Path;

pub(crate) fn run(init: &Init, directory: &Path, printer: &Printer) -> Result<(), Failure> {
    let relay = RelayIdentity::load(&init.relay)?;
    let mut profile = ClientProfile::generate_in(relay, init.profile.into());
    // Identities are made when they are registered.
    profile.identities.clear();
    profile.create(directory)?;
    let (device, relay) = (profile.device_url.as_str(), profile.relay.relay_url.as_str());
    let fingerprint = profile.relay.fingerprint();
    let json = json!({
        "event": "initialized", "directory": directory, "device": device, "account": profile.account_url.as_str(),
        "relay": relay, "fingerprint": fingerprint,
    });
    let text = format!(
        "Your keys are in {}\nDevice       {device}\nRelay        {relay}\nFingerprint  {fingerprint}\n\
         Compare the fingerprint with what the relay's operator says, then: sstp register",
        directory.display()
    );
    printer.result(&json, text)
}
