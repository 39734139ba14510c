//! `sstp register`: device, account and identities become known to the relay.

use super::arguments::Register as Arguments;
use super::connect::{Home, in_time};
use super::failure::Failure;
use super::printer::Printer;
use client::{ClientProfile, Register, new_identity_url};
use serde_json::json;

pub(crate) async fn run(arguments: Arguments, home: Home<'_>, printer: &Printer) -> Result<(), Failure> {
    let token = token(&arguments)?;
    let mut profile = ClientProfile::load(home.directory)?;
    for identity in arguments.identity {
        if !profile.identities.contains(&identity) {
            profile.identities.push(identity);
        }
    }
    if profile.identities.is_empty() {
        profile.identities.push(new_identity_url());
    }
    let start = Register::new().token(token);
    let start = if arguments.on_new_device { start.on_new_device() } else { start };
    let registration = profile.identities.iter().cloned().fold(start, Register::identity);
    let client = home.connect(profile.clone())?;
    in_time(&client, arguments.timeout, client.register(registration)).await??;
    profile.save(home.directory)?;
    client.close().await;
    for identity in &profile.identities {
        printer.result(&json!({ "event": "registered", "identity": identity.as_str() }), identity)?;
    }
    Ok(())
}

fn token(arguments: &Arguments) -> Result<Vec<u8>, Failure> {
    match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => Ok(token.clone().into_bytes()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(Failure::about(&path.display()))?;
            Ok(text.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
        }
        (None, None) => Ok(Vec::new()),
    }
}
