//! The commands of `relayctl` that talk to a running relay: arguments, the request, and what is printed of the answer.

mod print;
mod top;

use clap::{Args, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tuning::operator::{Answer, Client, ClientError, Filter, KeyHolder, MAX_LISTED, MailboxOrder, Request};
use tuning::{Config, ConfigErrors};

/// How long the relay may take for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// A drain takes as long as `timers.shutdown_grace`, an hour at most.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3700);

const FIND_HELP: &str = "\
The relay's socket is the one of the configuration, /etc/furrow/furrow.toml unless --config says otherwise; --socket names it
directly. Only the user that the relay runs as (and root) may open it.

Exit codes: 0 done, 1 the relay refused or does not answer, 2 the command line or the configuration is wrong.";

/// What is asked of the running relay.
#[derive(Debug, Subcommand)]
pub(crate) enum Operate {
    /// Show how the running relay is: state, resources, shards.
    #[command(after_help = FIND_HELP)]
    Status(Reach),
    /// Watch the running relay: connections, messages and bytes a second, queues, the log, the slowest mailboxes. Ends with q.
    #[command(after_help = FIND_HELP)]
    Top {
        #[command(flatten)]
        reach: Reach,
        /// Seconds from one look to the next.
        #[arg(long, default_value_t = 1.0, value_parser = seconds)]
        every: f64,
        /// Look so often and end; without a terminal, or with --json, each look is printed below the one before.
        #[arg(long, value_name = "N")]
        times: Option<u64>,
    },
    /// List connections.
    #[command(after_help = FIND_HELP)]
    Connections {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        which: Which,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = listed)]
        most: usize,
    },
    /// List the mailboxes with most mail.
    #[command(after_help = FIND_HELP)]
    Mailboxes {
        #[command(flatten)]
        reach: Reach,
        /// Which come first.
        #[arg(long, value_enum, default_value_t = Order::Bytes)]
        order: Order,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = listed)]
        most: usize,
    },
    /// Look after devices.
    #[command(subcommand)]
    Devices(Devices),
    /// End connections; their peers are told when to come back.
    #[command(after_help = FIND_HELP)]
    Disconnect {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        which: Which,
        /// End all connections.
        #[arg(long, conflicts_with_all = ["connection", "device", "account", "address"])]
        all: bool,
        /// After so many seconds the peers come back, instead of after timers.return_time.
        #[arg(long, value_name = "SECONDS")]
        return_time: Option<u32>,
    },
    /// Take the relay out of service without stopping it: complete what it has received, tell all peers when to return, and
    /// answer newcomers with TryLater.
    #[command(after_help = FIND_HELP)]
    Drain {
        #[command(flatten)]
        reach: Reach,
        /// Take it into service again, also if it was a management server that made it quiescent. A user database that this one
        /// has half built is thrown away.
        #[arg(long)]
        undo: bool,
    },
    /// Read the certificate for TLS again. `systemctl reload furrow-relayd` reads the configuration too.
    #[command(after_help = FIND_HELP)]
    Reload(Reach),
    /// Change how much the running relay's log says, until its next start.
    #[command(after_help = FIND_HELP)]
    LogLevel {
        #[command(flatten)]
        reach: Reach,
        /// error, warn, info, debug, trace, or such words for parts of the program: info,shard=debug
        level: String,
    },
}

/// What is done about devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Forget the keys of a device or an account, so that it can register with new ones. The cure when a client's keys and
    /// the relay's disagree.
    #[command(after_help = FIND_HELP)]
    ClearKeys {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        holder: Holder,
    },
}

/// How to reach the relay, and how to print.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// The relay's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/furrow/furrow.toml")]
    config: PathBuf,
    /// The relay's operator socket.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Print the answer as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which connections.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Which {
    /// The one with this name, as a listing shows it.
    #[arg(long, value_name = "SHARD:NUMBER", value_parser = connection)]
    connection: Option<(u16, u64)>,
    /// Those of a device.
    #[arg(long, value_name = "URL")]
    device: Option<String>,
    /// Those of an account.
    #[arg(long, value_name = "URL")]
    account: Option<String>,
    /// Those from an address.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
}

/// Whose keys.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Holder {
    /// A device's.
    #[arg(long, value_name = "URL")]
    device: Option<String>,
    /// An account's.
    #[arg(long, value_name = "URL")]
    account: Option<String>,
}

/// What a listing of mailboxes has first.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Order {
    /// Most bytes held for the identity or device.
    Bytes,
    /// Most messages.
    Messages,
    /// Most messages among those that somebody collects from.
    Slowest,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("which connections? Say --connection, --device, --account, --address or --all")]
    Nobody,
    #[error("{0}")]
    Relay(#[from] ClientError),
    #[error("the terminal: {0}")]
    Terminal(#[from] std::io::Error),
    #[error("the relay's answer fits no request of this program; its version is another one")]
    Unfit,
}

impl OperateError {
    /// Whether what the operator gave is wrong.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, OperateError::Config(_) | OperateError::Nobody)
    }
}

fn listed(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MAX_LISTED).contains(&count) => Ok(count),
        _ => Err(format!("a number from 1 to {MAX_LISTED}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.1 to 3600".into()),
    }
}

fn connection(text: &str) -> Result<(u16, u64), String> {
    let numbers =
        text.split_once(':').and_then(|(shard, number)| Some((shard.parse().ok()?, number.parse().ok()?)));
    numbers.ok_or_else(|| "a shard and a number, such as 0:4294967297".into())
}

impl Reach {
    pub(crate) fn connect(&self) -> Result<Client, OperateError> {
        let path = match &self.socket {
            Some(path) => path.clone(),
            None => Config::load_for_any_host(&self.config)?.operator_socket(),
        };
        Ok(Client::connect(&path)?)
    }

    /// Asks for one answer, and gives what is to be printed.
    fn ask(&self, request: Request, patience: Duration) -> Result<String, OperateError> {
        let answer = self.connect()?.ask(request, patience)?;
        Ok(if self.json { print::json(&answer) } else { print::text(&answer) })
    }
}

impl Which {
    fn filter(self) -> Option<Filter> {
        let connection = self.connection.map(|(shard, number)| Filter::Connection { shard, number });
        let device = self.device.map(Filter::Device);
        let account = self.account.map(Filter::Account);
        connection.or(device).or(account).or(self.address.map(Filter::Address))
    }
}

impl Holder {
    fn holder(self) -> KeyHolder {
        match (self.device, self.account) {
            (Some(device), _) => KeyHolder::Device(device),
            (None, account) => KeyHolder::Account(account.unwrap_or_default()),
        }
    }
}

impl From<Order> for MailboxOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Bytes => MailboxOrder::Bytes,
            Order::Messages => MailboxOrder::Messages,
            Order::Slowest => MailboxOrder::Slowest,
        }
    }
}

/// Carries a command out; gives what is to be printed.
pub(crate) fn run(command: Operate) -> Result<String, OperateError> {
    match command {
        Operate::Status(reach) => reach.ask(Request::Status, PATIENCE),
        Operate::Top { reach, every, times } => {
            top::run(&mut reach.connect()?, Duration::from_secs_f64(every), times, reach.json)
        }
        Operate::Connections { reach, which, most } => {
            let filter = which.filter().unwrap_or_default();
            reach.ask(Request::Connections { filter, most }, PATIENCE)
        }
        Operate::Mailboxes { reach, order, most } => {
            reach.ask(Request::Mailboxes { order: order.into(), most }, PATIENCE)
        }
        Operate::Devices(Devices::ClearKeys { reach, holder }) => {
            reach.ask(Request::ClearKeys(holder.holder()), PATIENCE)
        }
        Operate::Disconnect { reach, which, all, return_time } => {
            let filter = which.filter().or(all.then_some(Filter::Everybody)).ok_or(OperateError::Nobody)?;
            reach.ask(Request::Disconnect { filter, return_seconds: return_time }, PATIENCE)
        }
        Operate::Drain { reach, undo: false } => reach.ask(Request::Drain, DRAIN_PATIENCE),
        Operate::Drain { reach, undo: true } => reach.ask(Request::EndDrain, PATIENCE),
        Operate::Reload(reach) => reach.ask(Request::Reload, PATIENCE),
        Operate::LogLevel { reach, level } => reach.ask(Request::LogLevel { level }, PATIENCE),
    }
}

/// Asks for a relay's status.
fn status(client: &mut Client) -> Result<tuning::operator::Status, OperateError> {
    match client.ask(Request::Status, PATIENCE)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(OperateError::Unfit),
    }
}
