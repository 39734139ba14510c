//! `compare`: the relay and its peers at the same work in the same run, in turns, so that what else happens on the machine
//! happens to all of them.

use crate::failure::Failure;
use crate::floor::{self, Driver, Echo, EchoWire};
use crate::load::{Done, Load, Party};
use crate::measure::{Round, Timing, measure};
use crate::payload::Pattern;
use crate::peers::mosquitto::{self, MqttWire};
use crate::peers::nats::{self, NatsWire};
use crate::peers::redis::{self, RedisWire};
use crate::population::make_keys;
use crate::proc_stat;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Summary, Unit, thousands};
use crate::workload::{fanout, traffic};
use relay_core::directory::Profile;
use relay_core::security::ClientCredentials;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Pairs and senders of every workload but fanout.
const PAIRS: u32 = 8;
/// Recipients of the fanout.
const RECIPIENTS: u32 = 100;
/// Every how many messages an SSTP sender asks for an acknowledgement.
const ASK_EVERY: u64 = 64;

/// Options of `compare`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Compare {
    /// Short rounds, and two of them
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seconds of one round [default: 3; quick: 1.5]
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Rounds [default: 3; quick: 2]
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Messages of one sender that may be under way
    #[arg(long, default_value_t = 512)]
    pub(crate) window: u64,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Only the workloads whose name begins with this
    #[arg(long)]
    pub(crate) only: Option<String>,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

impl Compare {
    /// The timing of one round, and how many of them there are.
    pub(crate) fn timing(&self) -> (Timing, usize) {
        let timing = Timing {
            seconds: self.seconds.unwrap_or(if self.quick { 1.5 } else { 3.0 }),
            rounds: 1,
            warm_up: if self.quick { 0.5 } else { 1.0 },
            threads: self.threads,
        };
        (timing, self.rounds.unwrap_or(if self.quick { 2 } else { 3 }))
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// In words.
    pub(crate) name: &'static str,
    /// Who sends to whom.
    pub(crate) kind: Kind,
    /// Bytes of a message.
    pub(crate) payload: usize,
}

impl Workload {
    /// The first of its kind.
    pub(crate) fn first(kind: Kind) -> Self {
        *WORKLOADS.iter().find(|workload| workload.kind == kind).expect("there is one of each kind")
    }
}

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pairs, both connected.
    Online,
    /// One to many, all connected.
    Fanout,
    /// To recipients who are offline.
    Durable,
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "online 100 B", kind: Kind::Online, payload: 100 },
    Workload { name: "fanout 1 to 100, 100 B", kind: Kind::Fanout, payload: 100 },
    Workload { name: "durable 100 B", kind: Kind::Durable, payload: 100 },
    Workload { name: "durable 4 KiB", kind: Kind::Durable, payload: 4096 },
];

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// The relay.
    Furrow,
    /// NATS without a stream.
    NatsCore,
    /// NATS with a stream on the disk.
    JetStream,
    /// Redis with streams on the disk.
    Redis,
    /// Mosquitto at this quality of service.
    Mosquitto {
        /// 0 or 1.
        qos: u8,
    },
    /// No server at all.
    Echo(Driver),
}

/// Everybody, each with one configuration.
const SYSTEMS: [System; 7] = [
    System::Furrow,
    System::NatsCore,
    System::JetStream,
    System::Redis,
    System::Mosquitto { qos: 0 },
    System::Echo(Driver::Epoll),
    System::Echo(Driver::Ring),
];

impl System {
    /// Those that do this kind of work, the relay first.
    pub(crate) fn at(kind: Kind) -> &'static [System] {
        use System as S;
        match kind {
            Kind::Online => &[
                S::Furrow,
                S::NatsCore,
                S::Mosquitto { qos: 0 },
                S::Mosquitto { qos: 1 },
                S::Echo(Driver::Epoll),
                S::Echo(Driver::Ring),
            ],
            Kind::Fanout => &[S::Furrow, S::NatsCore, S::Mosquitto { qos: 0 }],
            Kind::Durable => &[S::Furrow, S::JetStream, S::Redis],
        }
    }

    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Furrow => "Furrow",
            System::NatsCore => "NATS core (no acknowledgement)",
            System::JetStream => "NATS JetStream (file; acknowledges before fsync)",
            System::Redis => "Redis streams (fsync always)",
            System::Mosquitto { qos: 0 } => "Mosquitto QoS 0 (no acknowledgement)",
            System::Mosquitto { .. } => "Mosquitto QoS 1",
            System::Echo(Driver::Epoll) => "floor: bare epoll echo, one core",
            System::Echo(Driver::Ring) => "floor: bare io_uring echo (glommio), one core",
        }
    }

    fn version(self) -> String {
        match self {
            System::Furrow => concat!("relayd ", env!("CARGO_PKG_VERSION")).into(),
            System::NatsCore | System::JetStream => nats::version(),
            System::Redis => redis::version(),
            System::Mosquitto { .. } => mosquitto::version(),
            System::Echo(_) => "a thread of this process".into(),
        }
    }

    fn configuration(self, options: &Compare) -> String {
        match self {
            System::Furrow => {
                let relay = &options.relay;
                let shards = match relay.shards {
                    0 => "one shard for each processor".to_owned(),
                    count => format!("{count} shards"),
                };
                format!(
                    "{shards}, settings {:?}, else the defaults; every message \
                     acknowledged, flag A every {ASK_EVERY}",
                    relay.settings
                )
            }
            System::NatsCore => nats::configuration(false),
            System::JetStream => nats::configuration(true),
            System::Redis => redis::configuration(),
            System::Mosquitto { .. } => mosquitto::configuration(),
            System::Echo(_) => "sends back what it receives; no protocol, no second hop".into(),
        }
    }

    fn acknowledges(self) -> bool {
        !matches!(self, System::NatsCore | System::Mosquitto { qos: 0 })
    }

    /// What counts as work done.
    pub(crate) fn unit(self, kind: Kind) -> Unit {
        if kind == Kind::Fanout || !self.acknowledges() { Unit::Delivered } else { Unit::Acknowledged }
    }
}

/// One line of the comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) workload: String,
    /// Its name.
    pub(crate) system: String,
    /// Median of the rounds; `None`, here and below, of a system that failed or is missing.
    pub(crate) per_second: Option<f64>,
    /// Half are faster.
    pub(crate) p50_us: Option<f64>,
    /// One in a hundred is slower.
    pub(crate) p99_us: Option<f64>,
    /// per_second, divided by the relay's.
    pub(crate) ratio_to_furrow: Option<f64>,
    /// Slowest and fastest round.
    #[serde(skip)]
    pub(crate) range: Option<(f64, f64)>,
    /// CPU seconds a second.
    #[serde(skip)]
    pub(crate) server_cpu: Option<f64>,
    /// Why it is missing.
    #[serde(skip)]
    pub(crate) note: String,
}

/// Runs the comparison and prints it.
///
/// # Errors
/// [`Failure`] of the relay; a peer that fails or is missing is a line of the report.
pub(crate) fn run(options: &Compare, json: bool) -> Result<(), Failure> {
    if !json {
        introduce(options);
    }
    let lines = lines(options)?;
    if json {
        println!("{}", serde_json::to_string(&lines).expect("numbers and texts have a JSON form"));
    } else {
        print_table(&lines);
    }
    Ok(())
}

/// Runs the comparison.
///
/// # Errors
/// [`Failure`] of the relay.
pub(crate) fn lines(options: &Compare) -> Result<Vec<Line>, Failure> {
    let (timing, rounds) = options.timing();
    let keys = Arc::new(make_keys(Profile::Modern));
    let wanted = |workload: &&Workload| {
        options.only.as_ref().is_none_or(|only| workload.name.starts_with(only.as_str()))
    };
    let mut lines = Vec::new();
    for workload in WORKLOADS.iter().filter(wanted) {
        lines.extend(contest(options, *workload, &timing, rounds, &keys)?);
    }
    lines.extend(floor_lines(options, timing.seconds)?);
    Ok(lines)
}

/// The settings that all systems share, in words.
pub(crate) fn settings(options: &Compare) -> String {
    let (timing, rounds) = options.timing();
    format!(
        "{rounds} rounds of {} s in turns after {} s of warm-up each, {PAIRS} senders, window {} messages each, {} \
         generator thread(s); servers and generator share the machine. Files under {}.",
        timing.seconds,
        timing.warm_up,
        options.window,
        timing.threads,
        options.relay.dir.display(),
    )
}

/// Each system's name, version and configuration.
pub(crate) fn systems(options: &Compare) -> impl Iterator<Item = (&'static str, String, String)> {
    SYSTEMS.iter().map(|system| (system.name(), system.version(), system.configuration(options)))
}

fn introduce(options: &Compare) {
    println!("Machine: {}", proc_stat::machine());
    println!("\n{}\n", settings(options));
    for (name, version, configuration) in systems(options) {
        println!("* {name}: {version}; {configuration}");
    }
    println!();
}

/// One workload: all systems in turns, round after round.
fn contest(
    options: &Compare,
    workload: Workload,
    timing: &Timing,
    rounds: usize,
    keys: &Arc<ClientCredentials>,
) -> Result<Vec<Line>, Failure> {
    let systems = System::at(workload.kind);
    let mut results: Vec<Result<Vec<Round>, String>> = systems.iter().map(|_| Ok(Vec::new())).collect();
    for round in 0..rounds {
        for (&system, result) in systems.iter().zip(&mut results) {
            let Ok(done) = result else { continue };
            eprintln!("{}, round {} of {rounds}: {}", workload.name, round + 1, system.name());
            match bout(options, workload, system, None, timing, keys) {
                Ok(mut measured) => done.append(&mut measured),
                Err(failure) if system == System::Furrow => return Err(failure),
                Err(failure) => *result = Err(failure.to_string()),
            }
        }
    }
    let summaries = systems.iter().zip(results).map(|(&system, result)| {
        (system, result.map(|rounds| Summary::of(&rounds, system.unit(workload.kind), workload.payload)))
    });
    Ok(table(workload, summaries.collect()))
}

fn table(workload: Workload, summaries: Vec<(System, Result<Summary, String>)>) -> Vec<Line> {
    let furrow = summaries.first().and_then(|(_, summary)| summary.as_ref().ok()).map(|it| it.per_second);
    let line = |(system, result): (System, Result<Summary, String>)| {
        let summary = result.as_ref().ok();
        Line {
            workload: workload.name.into(),
            system: system.name().into(),
            per_second: summary.map(|it| it.per_second),
            p50_us: summary.map(|it| it.latency.p50_us),
            p99_us: summary.map(|it| it.latency.p99_us),
            ratio_to_furrow: summary.zip(furrow).map(|(it, furrow)| it.per_second / furrow),
            range: summary.map(|it| it.range),
            server_cpu: summary.map(|it| it.server_cpu).filter(|_| !matches!(system, System::Echo(_))),
            note: result.err().unwrap_or_default(),
        }
    };
    summaries.into_iter().map(line).collect()
}

/// One system at one workload, once, from a fresh start; as fast as the window lets it, or at `rate` messages a second of all
/// senders together, which are `PAIRS` or the one of the fanout.
///
/// # Errors
/// [`Failure`].
pub(crate) fn bout(
    options: &Compare,
    workload: Workload,
    system: System,
    rate: Option<f64>,
    timing: &Timing,
    keys: &Arc<ClientCredentials>,
) -> Result<Vec<Round>, Failure> {
    let (senders, receivers) = match workload.kind {
        Kind::Online => (PAIRS, 1),
        Kind::Fanout => (1, RECIPIENTS),
        Kind::Durable => (PAIRS, 0),
    };
    let load = Load {
        pattern: Pattern::new(workload.payload),
        window: options.window,
        ask_every: ASK_EVERY.clamp(1, (options.window / 2).max(1)),
        rate: rate.map(|rate| rate / f64::from(senders)),
        done: if system.acknowledges() { Done::Acknowledged } else { Done::Delivered },
        acknowledged: system.acknowledges(),
    };
    let directory = &options.relay.dir;
    let measured = match system {
        System::Furrow => {
            let users = if workload.kind == Kind::Fanout { RECIPIENTS + 1 } else { 2 * PAIRS };
            let relay = RelayProcess::start(&options.relay, users, keys.clone())?;
            let parties = match workload.kind {
                Kind::Online => traffic::pairs(&relay, PAIRS, true),
                Kind::Fanout => fanout::parties(&relay, 1, RECIPIENTS),
                Kind::Durable => traffic::pairs(&relay, PAIRS, false),
            };
            measure(relay.address(), relay.id(), &load, parties, timing)?
        }
        System::NatsCore => {
            let peer = nats::start(directory, false)?;
            let parties =
                parties(senders, receivers, NatsWire::publisher, |sender, _| NatsWire::subscriber(sender));
            measure(peer.address, peer.id(), &load, parties, timing)?
        }
        System::JetStream => {
            let peer = nats::start(directory, true)?;
            let parties = parties(senders, receivers, NatsWire::stream_publisher, |sender, _| {
                NatsWire::subscriber(sender)
            });
            measure(peer.address, peer.id(), &load, parties, timing)?
        }
        System::Redis => {
            let peer = redis::start(directory)?;
            let parties = parties(senders, receivers, RedisWire::new, |sender, _| RedisWire::new(sender));
            measure(peer.address, peer.id(), &load, parties, timing)?
        }
        System::Mosquitto { qos } => {
            let peer = mosquitto::start(directory)?;
            let parties = parties(
                senders,
                receivers,
                |sender| MqttWire::publisher(sender, qos),
                |sender, receiver| MqttWire::subscriber(sender, receiver, qos),
            );
            measure(peer.address, peer.id(), &load, parties, timing)?
        }
        System::Echo(driver) => {
            let echo = Echo::start(driver).map_err(Failure::system("echo"))?;
            let wire = |_| EchoWire::new(workload.payload);
            let parties = parties(senders, 0, wire, |_, _| EchoWire::new(workload.payload));
            measure(echo.address, std::process::id(), &load, parties, timing)?
        }
    };
    Ok(measured.rounds)
}

fn parties<W>(
    senders: u32,
    receivers: u32,
    sending: impl Fn(u32) -> W,
    receiving: impl Fn(u32, u32) -> W,
) -> Vec<Party<W>> {
    let party = |sender| Party {
        sender,
        sending: sending(sender),
        receiving: (0..receivers).map(|receiver| receiving(sender, receiver)).collect(),
    };
    (0..senders).map(party).collect()
}

/// What the machine's disk and loopback do at their best.
fn floor_lines(options: &Compare, seconds: f64) -> Result<Vec<Line>, Failure> {
    let time = Duration::from_secs_f64(seconds);
    let disk = floor::disk(&options.relay.dir, time)?;
    let loopback = floor::loopback(time).map_err(Failure::system("measuring the loopback"))?;
    let line = |workload: &str, system: &str, per_second: f64, latency: Option<crate::tally::Latency>| Line {
        workload: workload.into(),
        system: format!("floor: {system}"),
        per_second: Some(per_second),
        p50_us: latency.map(|latency| latency.p50_us),
        p99_us: latency.map(|latency| latency.p99_us),
        ratio_to_furrow: None,
        range: None,
        server_cpu: None,
        note: String::new(),
    };
    let blocks = "disk, 4 KiB blocks";
    Ok(vec![
        line(
            blocks,
            "direct write and fdatasync, one block at a time",
            disk.syncs_per_second,
            Some(disk.sync),
        ),
        line(blocks, "the same, 16 blocks at a time", disk.committed_bytes_per_second / 4096.0, None),
        line(
            blocks,
            "direct sequential write, 256 blocks at a time",
            disk.sequential_bytes_per_second / 4096.0,
            None,
        ),
        line("loopback, MiB", "one TCP connection, writes of 1 MiB", loopback / 1_048_576.0, None),
    ])
}

fn print_table(lines: &[Line]) {
    println!(
        "| Workload | System | per second | slowest to fastest round | p50 us | p99 us | ratio to Furrow | server CPU |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    for line in lines {
        let number = |value: Option<f64>| value.map_or("-".into(), thousands);
        let range =
            line.range.map_or("-".into(), |(from, to)| format!("{} to {}", thousands(from), thousands(to)));
        let ratio = line.ratio_to_furrow.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let cpu = line.server_cpu.map_or("-".into(), |cpu| format!("{cpu:.2}"));
        let name = if line.note.is_empty() {
            line.system.clone()
        } else {
            format!("{} ({})", line.system, line.note)
        };
        println!(
            "| {} | {name} | {} | {range} | {} | {} | {ratio} | {cpu} |",
            line.workload,
            number(line.per_second),
            number(line.p50_us),
            number(line.p99_us),
        );
    }
}
