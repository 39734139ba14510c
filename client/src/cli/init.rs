//! `sstp init`: new keys in a new directory.

use super::arguments::Init;
use super::failure::Failure;
use super::printer::Printer;
use client::{ClientProfile, RelayIdentity, RelayTls};
use serde_json::json;
use std::path::Path;

pub(crate) fn run(init: &Init, directory: &Path, printer: &Printer) -> Result<(), Failure> {
    let mut relay = RelayIdentity::load(&init.relay)?;
    if let (Some(address), Some(file)) = (&init.tls, &init.tls_ca) {
        relay.tls = Some(tls(address, init.tls_name.as_deref(), file)?);
    }
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

fn tls(address: &str, name: Option<&str>, file: &Path) -> Result<RelayTls, Failure> {
    let trusted = std::fs::read_to_string(file).map_err(Failure::about(&file.display()))?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let server_name = name.unwrap_or(host.trim_matches(['[', ']'])).to_owned();
    let tls = RelayTls { addresses: vec![address.to_owned()], server_name, trusted };
    tls.check().map_err(|error| Failure::General(format!("TLS: {error}")))?;
    Ok(tls)
}
