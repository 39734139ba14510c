//! relayd: the command line of the relay.

use clap::{CommandFactory, Parser, Subcommand};
use manual::Manual;
use rustix::thread::disable_transparent_huge_pages;
use shard::activation;
use shard::init::{Reachable, identity, init_for};
use shard::notify::{self, Watchdog};
use shard::running::Running;
use shard::server::Server;
use shard::users::{Users, UsersError};
use shard::{demo, events, logging};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tuning::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A store-and-forward relay for SSTP.
#[derive(Debug, Parser)]
#[command(name = "relayd", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  relayd demo                                  see a message survive a kill
  relayd init ~/relay                          make a configuration and keys
  relayd run --config ~/relay/furrow.toml      serve
  relayd init ~/relay --url grooveDNS://relay.example.com --listen 0.0.0.0:2492 --listen-tls 0.0.0.0:2493
                                               the same for the network, with TLS
  relayd user token --data ~/relay/data --account grooveAccount://...@
                                               let somebody register
  relayd user lock --data ~/relay/data --device dpp://...
                                               lock a lost device out

Exit codes: 0 ended as asked, 1 failed, 2 the configuration or the command line is wrong.";

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// List an account with the identities that it may claim, and print the token with which it can register.
    Token {
        #[command(flatten)]
        user: User,
        /// An identity that the account may claim; may be given several times.
        #[arg(long, value_name = "URL")]
        identity: Vec<String>,
    },
    /// Print all accounts.
    List {
        #[command(flatten)]
        data: Data,
    },
    /// Print an account with its identities and devices.
    Show(User),
    /// Lock an account or a device out: its connections and its mail are refused.
    Lock(Locked),
    /// Let an account or a device in again.
    Unlock(Locked),
    /// Forget an account's keys, so that it can register with new ones.
    ClearKeys(User),
    /// Have the management server list all users anew, next time that it adds one.
    Rebuild {
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, clap::Args)]
struct Data {
    /// The folder that relay.data_dir names.
    #[arg(long = "data", value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, clap::Args)]
struct User {
    #[command(flatten)]
    data: Data,
    /// The account.
    #[arg(long, value_name = "URL")]
    account: String,
}

#[derive(Debug, clap::Args)]
struct Locked {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// The account, on all of its devices.
    #[arg(long, value_name = "URL")]
    account: Option<String>,
    /// The device, with all of its accounts.
    #[arg(long, value_name = "URL")]
    device: Option<String>,
}

/// Where a new relay listens.
#[derive(Debug, clap::Args)]
struct Reach {
    /// Where to listen for SSTP; may be given several times [default: 127.0.0.1:2492].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Where to listen for SSTP inside TLS; may be given several times. Unless the directory holds a tls.crt and a tls.key
    /// already, init makes a certificate that clients trust by the identity file.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_tls: Vec<SocketAddr>,
    /// Where to listen for SSTP inside HTTP, for clients behind firewalls; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_http: Vec<SocketAddr>,
    #[command(flatten)]
    names: Names,
}

/// How clients reach a relay, if not by the addresses on which it listens.
#[derive(Debug, clap::Args)]
struct Names {
    /// Where clients find the relay, for example relay.example.com:2492; may be given several times.
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// The same for TLS.
    #[arg(long = "tls-address", value_name = "HOST:PORT")]
    tls_addresses: Vec<String>,
    /// The same for HTTP.
    #[arg(long = "http-address", value_name = "HOST:PORT")]
    http_addresses: Vec<String>,
    /// The name in the relay's certificate [default: the host in the relay's URL].
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
}

impl From<Names> for Reachable {
    fn from(Names { addresses, tls_addresses, http_addresses, tls_name }: Names) -> Self {
        Self { addresses, tls_addresses, http_addresses, tls_name }
    }
}

impl Who {
    fn lock(&self, users: &Users, locked_out: bool) -> Result<(), UsersError> {
        match (&self.account, &self.device) {
            (Some(account), _) => users.lock(account, locked_out),
            (None, device) => {
                users.lock_device(device.as_ref().expect("the parser asks for one"), locked_out)
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; then complete what was received, tell peers when to return, and end. SIGHUP reads the
    /// configuration and the certificate for TLS again; what cannot change while the relay serves waits for a restart, and the
    /// log says so.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Send mail to somebody who is offline, kill the relay, start it again, and see all of it arrive.
    Demo {
        /// Print the outcome as one JSON object in the last line.
        #[arg(long)]
        json: bool,
    },
    /// Make a directory with a commented configuration, the relay's keys (mode 0600) and the identity file for its clients.
    Init {
        /// The directory; files that are there are not touched.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The relay's URL, by which clients and other relays name it.
        #[arg(long, default_value = "grooveDNS://localhost")]
        url: String,
        /// The folder for mail and the user database; the service may write to /var/lib/furrow only [default: data, beside
        /// the configuration].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Print the identity file for the clients of a relay whose configuration has changed since init.
    Identity {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        names: Names,
    },
    /// Look after the users of a relay that does not run.
    #[command(subcommand)]
    User(UserCommand),
    /// Print everything that the log can say, with its number and what to do about it, in Markdown.
    Events,
    /// Write the manual pages and the completions of shells.
    Manual(Manual),
    /// Check a configuration and the key file that it names, without serving.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => with_config(&config, |read| run(&config, read)),
        Command::Check { config } => with_config(&config, |config| {
            Server::check(&config)?;
            println!("the configuration is right");
            Ok(())
        }),
        Command::Init { directory, url, data, reach } => finish(initialise(&directory, &url, data, reach)),
        Command::Identity { config, names } => with_config(&config, |config| {
            print!("{}", identity(&config, &names.into())?.to_toml());
            Ok(())
        }),
        Command::User(command) => finish(user(&command)),
        Command::Events => {
            print!("{}", events::markdown());
            ExitCode::SUCCESS
        }
        Command::Manual(manual) => finish(manual.write(Arguments::command()).map_err(Into::into)),
        Command::Demo { json } => finish(demo::run(json)),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn with_config(path: &Path, work: impl FnOnce(Config) -> Outcome) -> ExitCode {
    match Config::load(path) {
        Ok(config) => finish(work(config)),
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(2)
        }
    }
}

fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relayd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says so for the whole process. A system that has no huge pages has nothing to refuse.
fn allow_huge_pages(allowed: bool) {
    if let Err(error) = disable_transparent_huge_pages(!allowed)
        && !allowed
    {
        tracing::warn!(event = events::HUGE_PAGES_STAY, %error, "transparent huge pages could not be turned off");
    }
}

fn run(path: &Path, config: Config) -> Outcome {
    logging::start(&config.log);
    // Before any thread is there, so that none of them is hit by a signal meant for the process.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    allow_huge_pages(config.shards.huge_pages);
    let server = Server::start_with(&config, activation::inherit()?)?;
    let _watchdog = Watchdog::start(server.pulses())?;
    let mut running = Running::new(path, config, server);
    notify::ready(running.status());
    let signal = signals.forever().find(|&signal| {
        if signal == SIGHUP {
            notify::reloading();
            running.reload();
            notify::ready(running.status());
        }
        signal != SIGHUP
    });
    tracing::info!(event = events::STOPPING, signal, "stopping");
    notify::stopping();
    running.server.stop()?;
    Ok(())
}

fn user(command: &UserCommand) -> Outcome {
    let (UserCommand::Token { user: User { data, .. }, .. }
    | UserCommand::List { data }
    | UserCommand::Rebuild { data }
    | UserCommand::Show(User { data, .. })
    | UserCommand::Lock(Locked { data, .. })
    | UserCommand::Unlock(Locked { data, .. })
    | UserCommand::ClearKeys(User { data, .. })) = command;
    let users = Users::open(&data.directory)?;
    match command {
        UserCommand::Token { user, identity } => println!("{}", users.token(&user.account, identity)?),
        UserCommand::List { .. } => print!("{}", users.list()?),
        UserCommand::Show(user) => print!("{}", users.show(&user.account)?),
        UserCommand::Lock(locked) => locked.who.lock(&users, true)?,
        UserCommand::Unlock(locked) => locked.who.lock(&users, false)?,
        UserCommand::ClearKeys(user) => users.clear_keys(&user.account)?,
        UserCommand::Rebuild { .. } => users.rebuild()?,
    }
    Ok(())
}

fn initialise(directory: &Path, url: &str, data: Option<PathBuf>, reach: Reach) -> Outcome {
    let mut config = Config::new(url);
    if let Some(data) = data {
        config.relay.data_dir = data;
    }
    if !reach.listen.is_empty() {
        config.listen.sstp = reach.listen;
    }
    config.listen.tls = reach.listen_tls;
    config.listen.http = reach.listen_http;
    let made = init_for(directory, &config, &reach.names.into())?;
    println!("configuration   {}", made.config.display());
    println!(
        "private keys    {} (keep a copy; without them clients cannot trust the relay again)",
        made.keys.display()
    );
    if let Some(certificate) = &made.certificate {
        println!(
            "certificate     {} (made for this relay; clients get it with the next)",
            certificate.display()
        );
    }
    println!("for clients     {} (sstp init --relay FILE)", made.identity.display());
    println!("fingerprint     {}", made.fingerprint);
    println!("next            relayd run --config {}", made.config.display());
    Ok(())
}
