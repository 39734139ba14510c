//! `relayctl manager`: a management server on the command line. Owns the arguments and what is printed; the protocol is
//! relay-core's, the way to the relay [`conversation`]'s, lists of users are read in [`users`].

mod conversation;
mod failure;
mod keys;
mod load;
mod memory;
mod note;
mod users;

use clap::{Args, Subcommand};
use conversation::Conversation;
use failure::Failure;
use note::Note;
use relay_core::address::{AccountUrl, IdentityUrl};
use relay_core::directory::SecretKey;
use relay_core::spmr::{Defaults, ListedUser, Outcome, Request};
use std::path::PathBuf;
use std::process::ExitCode;
use tuning::{ByteSize, Span};

/// The exit code if the relay understood and did not do all of it.
const NOT_ALL: u8 = 3;

pub(crate) const HELP: &str = "\
Examples:
  Make the keys of a management server, and print the line for the relay's configuration:
    relayctl manager init manager.key --name msrv1.example
  Register with a relay (any other command does that by itself when the relay asks for it):
    relayctl manager register --keys manager.key --relay relay-identity.toml
  List one user, or a file of them. If the relay's user database needs to be built, that is done:
    relayctl manager user add --keys manager.key --relay relay-identity.toml \\
      --account grooveAccount://a@ --identity grooveIdentity://a@ --token secret --quota '2 GB'
    relayctl manager user add --keys manager.key --relay relay-identity.toml --file users.csv
  Lock a user out, let it in again, delete what waits for it:
    relayctl manager user disable --keys manager.key --relay relay-identity.toml grooveAccount://a@

A file of users is CSV with a line of names: account, token, identities (with blanks between), quota, lifetime; all but
account may be missing or empty.

Exit codes: 0 done, 1 it failed, 2 the command line or a file is wrong, 3 done but for users that the relay does not know.";

/// What a management server does.
#[derive(Debug, Subcommand)]
pub(crate) enum ManagerCommand {
    /// Make the keys of a management server, in a file for its owner only.
    Init {
        /// The file; it must not exist.
        file: PathBuf,
        /// The name by which relays know the management server.
        #[arg(long)]
        name: String,
        /// Make RSA keys, for relays of the legacy profile.
        #[arg(long)]
        legacy: bool,
    },
    /// Share a new key with the relay.
    Register {
        #[command(flatten)]
        relay: Relay,
    },
    /// List users, lock them out, let them in, delete their mail.
    #[command(subcommand)]
    User(UserCommand),
    /// Change the defaults of the service.
    #[command(group = clap::ArgGroup::new("what").args(["quota", "lifetime", "pre_authentication"]).required(true).multiple(true))]
    Defaults {
        #[command(flatten)]
        relay: Relay,
        /// Bytes of mail that may wait for one identity.
        #[arg(long, value_name = "SIZE")]
        quota: Option<ByteSize>,
        /// How long mail is kept if its sender does not say.
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        lifetime: Option<u32>,
        /// Whether an account has to present its token when it registers.
        #[arg(long, value_name = "BOOL")]
        pre_authentication: Option<bool>,
    },
    /// Make the relay serve nobody.
    Quiesce {
        #[command(flatten)]
        relay: Relay,
    },
    /// Make the relay serve; a user database that was being built is in force then.
    Activate {
        #[command(flatten)]
        relay: Relay,
    },
}

/// What is done to users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List users; known ones are changed.
    Add(Add),
    /// Lock accounts out: they are disconnected, and mail for them is refused.
    Disable(Accounts),
    /// Let accounts in again.
    Enable(Accounts),
    /// Delete the mail that waits for accounts. The users stay.
    Purge(Accounts),
}

/// The relay, and how to reach it.
#[derive(Debug, Args)]
pub(crate) struct Relay {
    /// The management server's keys.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// The relay's identity file, which `relayd init` wrote.
    #[arg(long, value_name = "FILE")]
    relay: PathBuf,
    /// Where the relay listens for management servers.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8009/")]
    to: String,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Users to list.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("who").args(["account", "file"]).required(true))]
pub(crate) struct Add {
    #[command(flatten)]
    relay: Relay,
    /// The account of one user.
    #[arg(long, value_name = "URL")]
    account: Option<String>,
    /// An identity of it; may be given several times.
    #[arg(long, value_name = "URL", requires = "account")]
    identity: Vec<String>,
    /// The token with which it may register.
    #[arg(long, requires = "account")]
    token: Option<String>,
    /// Bytes of mail that may wait for each of its identities.
    #[arg(long, value_name = "SIZE", requires = "account")]
    quota: Option<ByteSize>,
    /// How long mail for it is kept if its sender does not say.
    #[arg(long, value_name = "TIME", value_parser = lifetime, requires = "account")]
    lifetime: Option<u32>,
    /// A CSV file of users.
    #[arg(long, value_name = "CSV")]
    file: Option<PathBuf>,
    /// Users in one request.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Make the relay quiescent for it, and activate it afterwards, even if it does not ask for that. A rebuild that was
    /// interrupted is taken up without it.
    #[arg(long)]
    rebuild: bool,
    /// Say how much memory the relay of this process number takes, before and after.
    #[arg(long, value_name = "PID")]
    relay_pid: Option<u32>,
}

/// Accounts.
#[derive(Debug, Args)]
pub(crate) struct Accounts {
    #[command(flatten)]
    relay: Relay,
    /// The accounts.
    #[arg(required = true, value_name = "ACCOUNT")]
    accounts: Vec<AccountUrl>,
}

/// A lifetime in whole seconds.
pub(crate) fn lifetime(text: &str) -> Result<u32, String> {
    let span: Span = text.parse().map_err(|error: tuning::UnitError| error.to_string())?;
    match u32::try_from(span.as_millis() / 1000) {
        Ok(seconds) if seconds > 0 && span.as_millis().is_multiple_of(1000) => Ok(seconds),
        _ => Err("a lifetime is whole seconds, at least one and at most 136 years".into()),
    }
}

/// Does what was asked; prints what came of it.
pub(crate) fn run(command: ManagerCommand) -> ExitCode {
    match perform(command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("relayctl: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn perform(command: ManagerCommand) -> Result<ExitCode, Failure> {
    match command {
        ManagerCommand::Init { file, name, legacy } => {
            let public = keys::make(&file, &name, legacy)?;
            println!("keys            {}", file.display());
            println!("for the relay   [management.servers]");
            println!("                {} = \"{public}\"", toml_key(&name));
            Ok(ExitCode::SUCCESS)
        }
        ManagerCommand::Register { relay } => {
            Conversation::begin(&relay)?.register()?;
            Ok(print_outcome("Registration", Outcome::Success, relay.json))
        }
        ManagerCommand::User(UserCommand::Add(add)) => load::run(add),
        ManagerCommand::User(UserCommand::Disable(accounts)) => modify(accounts, true),
        ManagerCommand::User(UserCommand::Enable(accounts)) => modify(accounts, false),
        ManagerCommand::User(UserCommand::Purge(accounts)) => {
            ask(&accounts.relay, Request::UserPurge(accounts.accounts))
        }
        ManagerCommand::Defaults { relay, quota, lifetime, pre_authentication } => {
            let quota_bytes = quota.map(ByteSize::bytes);
            let defaults = Defaults { quota_bytes, lifetime_seconds: lifetime, pre_authentication };
            ask(&relay, Request::RelayDefault(defaults))
        }
        ManagerCommand::Quiesce { relay } => ask(&relay, Request::RelayQuiescent(true)),
        ManagerCommand::Activate { relay } => {
            let code = ask(&relay, Request::RelayQuiescent(false))?;
            Note::beside(&relay.keys, &relay.to).remove().map(|()| code)
        }
    }
}

/// A name as a key of a TOML table.
fn toml_key(name: &str) -> String {
    toml::Value::from(name).to_string()
}

fn modify(accounts: Accounts, locked_out: bool) -> Result<ExitCode, Failure> {
    let modified = accounts.accounts.into_iter().map(|account| (account, locked_out)).collect();
    ask(&accounts.relay, Request::AccountModify(modified))
}

fn ask(relay: &Relay, request: Request) -> Result<ExitCode, Failure> {
    let operation = request.operation();
    let outcome = Conversation::begin(relay)?.ask(request)?;
    Ok(print_outcome(operation.name(), outcome, relay.json))
}

fn print_outcome(operation: &str, outcome: Outcome, json: bool) -> ExitCode {
    let (word, text) = match outcome {
        Outcome::Success => ("success", "done"),
        Outcome::NeedsBuild => ("needs-build", "the relay's user database needs to be built"),
        Outcome::UnknownUser => ("unknown-user", "done, but for accounts that the relay does not know"),
    };
    match json {
        true => println!("{}", serde_json::json!({ "operation": operation, "outcome": word })),
        false => println!("{operation}: {text}"),
    }
    if outcome == Outcome::Success { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) }
}

impl Add {
    /// The one user that the command line names.
    fn user(&self) -> Result<Option<ListedUser>, Failure> {
        let Some(account) = &self.account else { return Ok(None) };
        let wrong = |what: &str, error| Failure::Argument(format!("{what}: {error}"));
        let account = AccountUrl::new(account).map_err(|error| wrong("--account", error))?;
        let identities = self.identity.iter().map(IdentityUrl::new).collect::<Result<_, _>>();
        Ok(Some(ListedUser {
            account,
            identities: identities.map_err(|error| wrong("--identity", error))?,
            token: self.token.as_ref().map(|token| SecretKey::new(token.clone().into_bytes())),
            quota_bytes: self.quota.map(ByteSize::bytes),
            lifetime_seconds: self.lifetime,
        }))
    }
}
