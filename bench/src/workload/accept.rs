//! `accept`: connections that come, ask for a relay that this one is not, hear so, and go. Each costs the relay a descriptor that is
//! opened and closed, and next to nothing else: what a descriptor table that shards share costs against one for each is
//! seen here if anywhere. Rounds of the four ways take turns.

use crate::clock;
use crate::failure::Failure;
use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::measure::Timing;
use crate::population::{User, make_keys};
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, median, thousands};
use crate::sstp_wire::encode;
use crate::tally::Tally;
use crate::workload::traffic::{describe_relay, describe_timing};
use relay_core::directory::Profile;
use relay_core::sstp::Command;
use relay_core::sstp::Version;
use relay_core::sstp::command::Connect;
use relay_core::sstp::text::Text;
use std::sync::Arc;
use std::time::Duration;

/// How many connections a second come and go, with one descriptor table and with one for each shard?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Accept {
    /// Shards of the larger relay
    #[arg(long, default_value_t = 4)]
    pub(crate) many: usize,
    /// Connections under way at the same time
    #[arg(long, default_value_t = 64)]
    pub(crate) concurrent: usize,
    /// --shards is not looked at; the generator has one thread whatever --threads says
    #[command(flatten)]
    pub(crate) timing: Timing,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// What one way has shown.
struct Way {
    name: String,
    relay: RelayProcess,
    /// Of each round: connections a second, and the relay's CPU microseconds for each.
    rounds: Vec<(f64, f64)>,
    tally: Tally,
}

/// Runs it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(options: &Accept) -> Result<Report, Failure> {
    if options.many < 2 || options.concurrent == 0 || options.timing.rounds == 0 {
        return Err(Failure::Setting("--many must be 2 at least, --concurrent and --rounds above 0".into()));
    }
    let keys = Arc::new(make_keys(Profile::Modern));
    let mut ways = Vec::new();
    for (shards, own) in [(1, false), (1, true), (options.many, false), (options.many, true)] {
        let mut settings = RelayOptions { shards, ..options.relay.clone() };
        settings.settings.push(format!("shards.own_descriptors={own}"));
        let tables = if own { "a table each" } else { "one table" };
        let name = format!("{shards} shard{}, {tables}", if shards == 1 { "" } else { "s" });
        let relay = RelayProcess::start(&settings, 1, keys.clone())?;
        ways.push(Way { name, relay, rounds: Vec::new(), tally: Tally::default() });
    }
    for round in 0..=options.timing.rounds {
        for way in &mut ways {
            let seconds = if round == 0 { options.timing.warm_up } else { options.timing.seconds };
            let (tally, cpu) = come_and_go(&way.relay, options.concurrent, seconds)?;
            if round > 0 {
                let count = tally.acknowledged as f64;
                way.rounds.push((count / seconds, cpu * 1e6 / count.max(1.0)));
                way.tally.add(&tally);
            }
        }
    }
    Ok(report(options, &ways))
}

fn report(options: &Accept, ways: &[Way]) -> Report {
    let mut report = Report::new("accept");
    report.setting("concurrent", options.concurrent);
    describe_timing(&mut report, &options.timing);
    describe_relay(&mut report, &options.relay);
    report.line("a shard accepts 8 connections and rests for a millisecond, so that its rate has a bound; its CPU time tells more");
    for Way { name, rounds, tally, .. } in ways {
        let rate = median(rounds.iter().map(|round| round.0).collect());
        let each = median(rounds.iter().map(|round| round.1).collect());
        let least = rounds.iter().map(|round| round.1).fold(f64::INFINITY, f64::min);
        let most = rounds.iter().map(|round| round.1).fold(0.0, f64::max);
        let latency = tally.acknowledgement_latency();
        report.line(format!(
            "{name}: {} connections/s, {each:.1} us of the relay's CPU each (rounds {least:.1} to {most:.1}), p50 {:.0} us, \
             p99 {:.0} us from dialling to the answer",
            thousands(rate),
            latency.p50_us,
            latency.p99_us,
        ));
        report.result(
            name,
            serde_json::json!({ "per_second": rate, "relay_us_each": each, "latency": latency }),
        );
    }
    report
}

/// Connections for so long; gives what was counted and the relay's CPU seconds.
fn come_and_go(relay: &RelayProcess, concurrent: usize, seconds: f64) -> Result<(Tally, f64), Failure> {
    let text = |text: &'static str| Text::new(text).expect("ASCII");
    let mut question = Vec::new();
    let connect = Connect {
        minor_version: Version::V1_6.minor(),
        target_device_url: text("grooveDNS://elsewhere.localhost"),
        source_device_urls: [Text::from(&User::new(0).device)].into_iter().collect(),
        authentication_token: bytes::Bytes::new(),
        peer_product_version: text("Furrow Bench 0.1 1"),
        peer_product_capabilities: Text::EMPTY,
    };
    encode(&Command::from(connect), &mut question);
    let before = relay.usage();
    let mut visitors = Visitors {
        epoll: Epoll::new().map_err(LoadError::from)?,
        relay,
        question,
        links: Vec::new(),
        scratch: Vec::new(),
        tally: Tally::default(),
    };
    for token in 0..concurrent {
        let visitor = visitors.come(token)?;
        visitors.links.push(visitor);
    }
    let end = clock::now() + clock::nanoseconds(Duration::from_secs_f64(seconds));
    let mut ready: Vec<Ready> = Vec::new();
    while clock::now() < end {
        visitors.epoll.wait(Duration::from_millis(20), &mut ready).map_err(LoadError::from)?;
        for event in &ready {
            visitors.hear(event.token)?;
        }
    }
    Ok((visitors.tally, relay.usage().cpu() - before.cpu()))
}

struct Visitors<'a> {
    relay: &'a RelayProcess,
    question: Vec<u8>,
    epoll: Epoll,
    /// With the time at which each was dialled.
    links: Vec<(Link, u64)>,
    scratch: Vec<u8>,
    tally: Tally,
}

impl Visitors<'_> {
    fn come(&self, token: usize) -> Result<(Link, u64), LoadError> {
        let began = clock::now();
        let mut link = Link::connect(self.relay.address())?;
        link.reset_on_close()?;
        self.epoll.add(&link, token)?;
        link.out.extend_from_slice(&self.question);
        link.flush(&self.epoll, token)?;
        Ok((link, began))
    }

    /// Whatever the relay has said, that was it; the next one comes.
    fn hear(&mut self, token: usize) -> Result<(), LoadError> {
        let (link, began) = &mut self.links[token];
        let mut heard = 0;
        let open = link.receive(&mut self.scratch, |input, _| {
            heard = input.len();
            Ok::<_, LoadError>(heard)
        })?;
        if heard > 0 {
            self.tally.acknowledged += 1;
            self.tally.acknowledgement(clock::now() - *began);
        } else if !open {
            return Err(LoadError::Closed(token));
        } else {
            return Ok(());
        }
        self.links[token] = self.come(token)?;
        Ok(())
    }
}
