//! relayd: the command line of the relay.

use clap::{Parser, Subcommand};
use shard::demo;
use shard::init::init;
use shard::server::Server;
use shard::users::Users;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tuning::{Config, LogFormat};

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
  relayd user token --data ~/relay/data --account grooveAccount://...@
                                               let somebody register

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
    /// Lock an account out.
    Lock(User),
    /// Let an account in again.
    Unlock(User),
    /// Forget an account's keys, so that it can register with new ones.
    ClearKeys(User),
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; then complete what was received, tell peers when to return, and end. SIGHUP reads the
    /// certificate for TLS again.
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
    },
    /// Look after the users of a relay that does not run.
    #[command(subcommand)]
    User(UserCommand),
    /// Check a configuration and the key file that it names, without serving.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => with_config(&config, run),
        Command::Check { config } => with_config(&config, |config| {
            Server::check(&config)?;
            println!("the configuration is right");
            Ok(())
        }),
        Command::Init { directory, url } => finish(initialise(&directory, &url)),
        Command::User(command) => finish(user(&command)),
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

fn run(config: Config) -> Outcome {
    start_log(&config);
    // Before any thread is there, so that none of them is hit by a signal meant for the process.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let server = Server::start(&config)?;
    let signal = signals.forever().find(|&signal| {
        if signal == SIGHUP {
            reload(&server);
        }
        signal != SIGHUP
    });
    tracing::info!(signal, "stopping");
    server.stop()?;
    Ok(())
}

fn user(command: &UserCommand) -> Outcome {
    let (UserCommand::Token { user: User { data, .. }, .. }
    | UserCommand::List { data }
    | UserCommand::Show(User { data, .. })
    | UserCommand::Lock(User { data, .. })
    | UserCommand::Unlock(User { data, .. })
    | UserCommand::ClearKeys(User { data, .. })) = command;
    let users = Users::open(&data.directory)?;
    match command {
        UserCommand::Token { user, identity } => println!("{}", users.token(&user.account, identity)?),
        UserCommand::List { .. } => print!("{}", users.list()?),
        UserCommand::Show(user) => print!("{}", users.show(&user.account)?),
        UserCommand::Lock(user) => users.lock(&user.account, true)?,
        UserCommand::Unlock(user) => users.lock(&user.account, false)?,
        UserCommand::ClearKeys(user) => users.clear_keys(&user.account)?,
    }
    Ok(())
}

fn reload(server: &Server) {
    match server.reload() {
        Ok(()) => tracing::info!("the certificate was read again"),
        Err(error) => tracing::error!(%error, "the certificate stays as it was"),
    }
}

fn start_log(config: &Config) {
    let level = tracing_subscriber::EnvFilter::new(config.log.level.as_str());
    let log = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn initialise(directory: &Path, url: &str) -> Outcome {
    let made = init(directory, &Config::new(url))?;
    println!("configuration   {}", made.config.display());
    println!(
        "private keys    {} (keep a copy; without them clients cannot trust the relay again)",
        made.keys.display()
    );
    println!("for clients     {} (sstp init --relay FILE)", made.identity.display());
    println!("fingerprint     {}", made.fingerprint);
    println!("next            relayd run --config {}", made.config.display());
    Ok(())
}
