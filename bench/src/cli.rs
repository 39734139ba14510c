//! The command line.

use crate::compare::{self, Compare};
use crate::failure::Failure;
use crate::holder::{self, Hold};
use crate::page::{self, Publish};
use crate::report::Report;
use crate::workload::{
    accept, auth, beside, brain, connections, crash, drain, durable, fanout, management, mixed, online,
    presence, recovery, soak, strangers,
};
use clap::{Parser, Subcommand};

/// Measure a Furrow relay: what it does in a second, how long it takes, and what it uses.
#[derive(Debug, Parser)]
#[command(name = "relay-bench", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  relay-bench run online                             messages a second between people who are connected
  relay-bench run online --rate 200000               latency at a rate, a stall included
  relay-bench run durable --payload 4096 --json      messages a second onto the disk, for programs
  relay-bench connections --max                      as many connections as this machine allows
  relay-bench compare --quick                        beside NATS, JetStream, Redis streams and Mosquitto
  relay-bench report --quick                         all of it on one page

Each run starts the relayd that lies beside this program on loopback, with users of its own, and ends it. Build both with:
  cargo build --release -p shard -p bench";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one workload against a relay of its own
    Run {
        #[command(subcommand)]
        workload: Workload,
        /// Print one JSON object
        #[arg(long, global = true)]
        json: bool,
    },
    /// The same as `run connections`: how many does the relay hold, and what does each cost?
    #[command(name = "connections")]
    RunConnections {
        #[command(flatten)]
        options: connections::Connections,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Is the relay faster than NATS, JetStream, Redis streams and Mosquitto at the same work, and how far is it from what
    /// the machine can do?
    Compare {
        #[command(flatten)]
        options: Compare,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// What does it all look like? One page with plots, a Markdown file, and the numbers as JSON
    Report(Publish),
    /// A generator process of `run connections`; not for people
    #[command(hide = true)]
    Hold(Hold),
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// How many messages a second between people who are connected, and how long do they take?
    Online(online::Online),
    /// How many deliveries a second does one message to many recipients become?
    Fanout(fanout::Fanout),
    /// How many messages a second onto the disk, fsync before acknowledgement, and how long does that take?
    Durable(durable::Durable),
    /// How fast do people who come online get the mail that waits for them, and is it all there?
    Drain(drain::Drain),
    Recovery(recovery::Recovery),
    /// What does the relay do with messages of all lengths, some to many recipients, while people come and go?
    Mixed(mixed::Mixed),
    /// Does anything grow or slow down in the long run?
    Soak(soak::Soak),
    /// How many devices a second prove who they are, and how many register, in each security profile?
    Auth(auth::Auth),
    /// How many connections a second come and go, with one descriptor table and with one for each shard?
    Accept(accept::Accept),
    /// How much does an idle authenticated connection cost, how fast do they come, and do those who talk notice them?
    Connections(connections::Connections),
    /// What does the relay's own work on a message cost, without kernel and disk?
    Brain(brain::Brain),
    /// Do people who talk notice an address that keeps thousands of handshakes half-open?
    Strangers(strangers::Strangers),
    /// Do people who talk notice somebody who sends 64 MiB messages beside them?
    Beside(beside::Beside),
    /// Do people who talk notice that a management server lists users by the thousand?
    Management(management::Management),
    /// When a crowd comes online at once, how soon does everybody know, and in how many messages?
    Presence(presence::Presence),
    /// Does every message that was acknowledged arrive, even if the relay is killed in the middle of its work?
    Crash(crash::Crash),
}

impl Workload {
    fn run(&self) -> Result<Report, Failure> {
        match self {
            Workload::Online(options) => online::run(options),
            Workload::Fanout(options) => fanout::run(options),
            Workload::Durable(options) => durable::run(options),
            Workload::Drain(options) => drain::run(options),
            Workload::Recovery(options) => recovery::run(options),
            Workload::Mixed(options) => mixed::run(options),
            Workload::Soak(options) => soak::run(options),
            Workload::Auth(options) => auth::run(options),
            Workload::Accept(options) => accept::run(options),
            Workload::Connections(options) => connections::run(options),
            Workload::Brain(options) => brain::run(options),
            Workload::Strangers(options) => strangers::run(options),
            Workload::Beside(options) => beside::run(options),
            Workload::Management(options) => management::run(options),
            Workload::Presence(options) => presence::run(options),
            Workload::Crash(options) => crash::run(options),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    crate::children::guard().map_err(Failure::system("signal handler"))?;
    match arguments.command {
        Command::Run { workload, json } => workload.run()?.print(json),
        Command::RunConnections { options, json } => Workload::Connections(options).run()?.print(json),
        Command::Hold(options) => holder::run(&options)?,
        Command::Report(options) => page::run(&options)?,
        Command::Compare { options, json } => compare::run(&options, json)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn connections_may_be_asked_for_by_themselves() {
        let asked = Arguments::try_parse_from(["relay-bench", "connections", "--max", "--json"]).unwrap();
        assert!(matches!(asked.command, Command::RunConnections { options, json: true } if options.max));
    }
}
