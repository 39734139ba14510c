//! One message on each way to the relay: straight, through proxies, inside HTTP.

use super::proxy;
use super::{DemoError, Outcome, Person, in_time, system};
use client::{
    Carrier, ClientProfile, Config as ClientConfig, Message, Proxies, RelayIdentity, SecurityProfile,
};
use std::fmt;
use std::time::{Duration, Instant};

/// What is sent: more than one HTTP body holds.
const BYTES: usize = 40_000;

/// How each way did.
#[derive(Default)]
pub(super) struct Table(Vec<Row>);

struct Row {
    carrier: Carrier,
    /// From nothing to an authenticated connection, registration included.
    ready: Duration,
    /// From sending a message to oneself to having it whole.
    delivered: Option<Duration>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:>12}{:>20}{:>18}", "carrier", "registered after", "there and back")?;
        for Row { carrier, ready, delivered } in &self.0 {
            let delivered = delivered.map_or("never".into(), |time| format!("{time:.1?}"));
            write!(f, "\n{:>12}{:>20}{delivered:>18}", carrier.name(), format!("{ready:.1?}"))?;
        }
        Ok(())
    }
}

/// Somebody on each way sends a message to themselves.
pub(super) async fn try_each(relay: &RelayIdentity, outcome: &mut Outcome) -> Result<Table, DemoError> {
    let proxy = proxy::start().await.map_err(system("starting a proxy"))?;
    let (http, socks) = (format!("http://{proxy}"), format!("socks5://{proxy}"));
    let proxies = Proxies::configured(None, Some(&http), Some(&socks), &[])
        .expect("an address makes the URL of a proxy");
    let mut table = Table::default();
    for carrier in Carrier::ALL {
        let profile = ClientProfile::generate_in(relay.clone(), SecurityProfile::Modern);
        let config =
            ClientConfig { carrier: Some(carrier), proxies: proxies.clone(), ..ClientConfig::new(profile) };
        let began = Instant::now();
        let person = Person::with(config)?;
        person.register().await?;
        let ready = began.elapsed();
        table.0.push(Row { carrier, ready, delivered: there_and_back(&person, outcome).await? });
        person.leave().await;
    }
    Ok(table)
}

async fn there_and_back(person: &Person, outcome: &mut Outcome) -> Result<Option<Duration>, DemoError> {
    let body: Vec<u8> = (0..BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let message = Message::to(person.profile.identities[0].clone()).body(body.clone());
    let began = Instant::now();
    let delivery = in_time("acknowledging a message", person.client.send(message)).await??;
    outcome.sent += 1;
    let mut incoming = person.client.incoming();
    let Some(mut received) = in_time("delivering a message", incoming.recv()).await? else { return Ok(None) };
    let whole = in_time("delivering a message", received.bytes(2 * BYTES)).await?;
    received.acknowledge();
    in_time("acknowledging a message", delivery).await??;
    match whole {
        Ok(bytes) if bytes == body => {
            outcome.received += 1;
            outcome.bytes += BYTES as u64;
            outcome.carriers += 1;
            Ok(Some(began.elapsed()))
        }
        _ => {
            outcome.damaged += 1;
            Ok(None)
        }
    }
}
