//! `management`: people who talk, while a management server lists users by the thousand beside them. The decoy is another
//! relay, which is managed instead.

use super::talk::{self, Talk, Turns, Words};
use super::traffic::describe_relay;
use crate::failure::Failure;
use crate::loopback::free_address;
use crate::manager::{Candidate, Listed, ManagementServer};
use crate::measure::Round;
use crate::population::make_keys;
use crate::processors::Processors;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, thousands};
use relay_core::directory::Profile;
use relay_core::security::ClientCredentials;
use std::sync::Arc;

/// The bound that a relay has to keep.
const MOST: f64 = 1.1;

/// Do people who talk notice that a management server lists users?
///
/// The relay has all processors but the last. People and the management server share that one, where the server gets what the
/// people leave (SCHED_IDLE), as if it had a machine of its own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Management {
    /// Users that are listed before
    #[arg(long, default_value_t = 100_000)]
    pub(crate) users: u64,
    /// Users in one request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) batch: u16,
    #[command(flatten)]
    pub(crate) talk: Talk,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// A relay with its management server, which is away while it lists.
struct Managed {
    relay: RelayProcess,
    server: Option<ManagementServer>,
}

impl Managed {
    fn start(options: &Management, keys: Arc<ClientCredentials>) -> Result<Self, Failure> {
        let candidate = Candidate::new(free_address().map_err(Failure::system("free port"))?);
        let mut relay = options.relay.clone();
        relay.settings.extend(candidate.settings());
        let relay = RelayProcess::start(&relay, options.talk.users(), keys)?;
        let mut server = candidate.manage(&relay);
        server.build(options.users, options.batch)?;
        Ok(Self { relay, server: Some(server) })
    }

    /// Lists users for as long as `meanwhile` takes.
    fn listing(
        &mut self,
        batch: u16,
        meanwhile: impl FnOnce(&RelayProcess) -> Result<Round, Failure>,
    ) -> Result<(Round, Listed), Failure> {
        let Some(server) = self.server.take() else {
            return Err(Failure::Wrong("the management server has failed".into()));
        };
        let listing = server.go_on(batch)?;
        let round = meanwhile(&self.relay);
        let (server, listed) = listing.end()?;
        self.server = Some(server);
        talk::settle();
        Ok((round?, listed))
    }
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if a message is lost or damaged, or a user refused.
pub(crate) fn run(options: &Management) -> Result<Report, Failure> {
    options.talk.check()?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let processors = Processors::divide()?;
    let mut talking = processors.start(|| Managed::start(options, keys.clone()))?;
    let mut decoy = processors.start(|| Managed::start(options, keys))?;
    let (talk, batch) = (&options.talk, options.batch);
    let (mut turns, mut elsewhere, mut here) = (Turns::default(), Listed::default(), Listed::default());
    for _ in 0..talk.timing.rounds {
        turns.quiet.push(talk.round(&talking.relay)?);
        let (round, listed) = decoy.listing(batch, |_| talk.round(&talking.relay))?;
        turns.beside.push(round);
        elsewhere.add(listed);
        let (round, listed) = talking.listing(batch, |relay| talk.round(relay))?;
        turns.troubled.push(round);
        here.add(listed);
    }
    Ok(report(options, &processors, &turns, here, elsewhere))
}

fn report(
    options: &Management,
    processors: &Processors,
    turns: &Turns,
    here: Listed,
    elsewhere: Listed,
) -> Report {
    let mut report = Report::new("management");
    report.setting("users", options.users);
    report.setting("batch", options.batch);
    processors.describe(&mut report, "management server");
    options.talk.describe(&mut report);
    describe_relay(&mut report, &options.relay);
    for (name, listed) in [("listed", here), ("listed_beside", elsewhere)] {
        report.line(format!(
            "{name}: {} users in {:.1} s, {} users/s",
            thousands(listed.users as f64),
            listed.seconds,
            thousands(listed.rate())
        ));
        report.result(name, listed);
    }
    let elsewhere = "a management server of another relay on this machine";
    turns.report(&mut report, Words { troubled: "listing", elsewhere, most: MOST });
    report
}
