//! `relayctl`: the operator's command line. It checks and explains the relay's configuration, asks and tells a running
//! relay through its operator socket, looks after the mail on disk, plans machines, hands what concerns users on to relayd, and is
//! a management server to relays.
#![forbid(unsafe_code)]

mod machine;
mod manager;
mod operate;
mod plan;
mod store;

use clap::{CommandFactory, Parser, Subcommand};
use manual::Manual;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tuning::{Config, ConfigErrors, Effective, Environment};

const EXAMPLES: &str = "\
Examples:
  relayctl config default --url grooveDNS://relay.example.com > furrow.toml
  relayctl config check furrow.toml
  relayctl config explain limits.message_bytes
  relayctl host check
  relayctl plan --users 20000 --devices 40000 --message-rate 200
  relayctl user token --data /var/lib/furrow/data --account grooveAccount://...@
  relayctl manager user add --keys manager.key --relay relay-identity.toml --file users.csv
  relayctl status
  relayctl top
  relayctl mailboxes --order slowest --most 5 --json
  relayctl devices clear-keys --device dpp://relay.example.com/...
  relayctl drain
  relayctl store verify /var/lib/furrow/data

Every command that talks to a running relay has --json.";

const CONFIG_HELP: &str = "\
Examples:
  Write a commented file with every default:
    relayctl config default --url grooveDNS://relay.example.com > furrow.toml
  See everything that is wrong with a file, with its lines:
    relayctl config check furrow.toml
  See what the relay will obey, and where each value comes from:
    relayctl config show --effective furrow.toml
  See what a change would change:
    relayctl config diff /etc/furrow/furrow.toml furrow.toml
  What a key means, what it may be, what it is by default:
    relayctl config explain timers.idle
  The same for all keys, in Markdown:
    relayctl config reference

Exit codes: 0 the answer is on standard output, 1 it could not be written, 2 the file, the key or the command line is wrong.";

const STORE_HELP: &str = "\
Examples:
  Is everything that the relay has stored still readable?
    relayctl store verify /var/lib/furrow/data
  Copy mail and users while the relay runs, the small urgent mail first:
    relayctl store backup /var/lib/furrow/data --to /backup/monday --identity-first
  Bring the urgent mail back, start the relay, and bring the rest later:
    relayctl store restore /backup/monday --to /var/lib/furrow/data --only identity
    systemctl start furrow-relayd
    relayctl store restore /backup/monday --running
  Keep what can be read of a damaged log:
    relayctl store rebuild /var/lib/furrow/data

Exit codes: 0 all is well, 1 something is lost or failed, 2 the command line is wrong.";

/// The operator's tool for a Furrow relay.
#[derive(Parser)]
#[command(name = "relayctl", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check, explain and write the relay's configuration file.
    #[command(subcommand, after_help = CONFIG_HELP)]
    Config(ConfigCommand),
    /// Check whether this machine is as a relay wants it.
    #[command(subcommand, after_help = machine::HELP)]
    Host(machine::Host),
    /// Write the manual pages and the completions of shells.
    Manual(Manual),
    /// Look after users: token, list, show, lock, unlock, clear-keys. The same as `relayd user`.
    #[command(disable_help_flag = true)]
    User {
        /// What `relayd user` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Manage the users of a relay as a management server does, over SPMR.
    #[command(subcommand, after_help = manager::HELP)]
    Manager(manager::ManagerCommand),
    #[command(flatten)]
    Operate(operate::Operate),
    /// Estimate the machine that a relay needs for so many users and so much mail, and its settings.
    #[command(after_help = plan::HELP)]
    Plan(plan::Arguments),
    /// Verify, list, rebuild, back up and restore stored mail.
    #[command(subcommand, after_help = STORE_HELP)]
    Store(store::StoreCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with a configuration file; exit code 2 if anything is.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Do not ask whether this machine has the processors that the file names.
        #[arg(long)]
        any_host: bool,
    },
    /// Print what the relay obeys with this file: what differs from the defaults, with where it comes from.
    Show {
        /// The configuration file.
        file: PathBuf,
        /// All keys, the defaults too.
        #[arg(long)]
        effective: bool,
    },
    /// Print what differs between two configuration files, presets and environment included, and whether the change takes a
    /// restart.
    Diff {
        /// The one in use.
        from: PathBuf,
        /// The other one.
        to: PathBuf,
    },
    /// Print the reference of all keys in Markdown.
    Reference,
    /// Print what a key means, what it may be and what it is by default.
    Explain {
        /// The key with its section, for example limits.message_bytes.
        key: String,
    },
    /// Print a commented configuration file with every default.
    Default {
        /// The URL by which clients connect to the relay.
        #[arg(long, default_value = "grooveDNS://relay.example.com")]
        url: String,
    },
}

/// What is wrong with what the operator gave: all of it goes to standard error.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{name}: unknown key{}", .near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?")))]
    UnknownKey { name: String, near: Option<String> },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Config(command) => configure(command),
        Command::Host(command) => examine(command),
        Command::Manual(manual) => write_manual(&manual),
        Command::User { arguments } => {
            let error = relayd_user(&arguments);
            eprintln!("relayctl: relayd, which should lie beside this program, cannot be started: {error}");
            ExitCode::FAILURE
        }
        Command::Manager(command) => manager::run(command),
        Command::Operate(command) => operate(command),
        Command::Plan(arguments) => plan(&arguments),
        Command::Store(command) => look_after(command),
    }
}

fn operate(command: operate::Operate) -> ExitCode {
    match operate::run(command) {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("relayctl: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn plan(arguments: &plan::Arguments) -> ExitCode {
    match plan::answer(arguments) {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("relayctl: {error}");
            ExitCode::from(2)
        }
    }
}

fn look_after(command: store::StoreCommand) -> ExitCode {
    match store::run(command, &mut std::io::stdout().lock()) {
        Ok(store::Answer { text, well }) => {
            let printed = print(&text);
            if well { printed } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("relayctl: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn configure(command: ConfigCommand) -> ExitCode {
    match answer(command) {
        Ok(text) => print(&text),
        Err(refusal) => {
            eprintln!("{refusal}");
            ExitCode::from(2)
        }
    }
}

fn write_manual(manual: &Manual) -> ExitCode {
    match manual.write(Arguments::command()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relayctl: {}: {error}", manual.directory.display());
            ExitCode::FAILURE
        }
    }
}

fn examine(command: machine::Host) -> ExitCode {
    match machine::answer(command) {
        Ok((text, code)) if print(&text) == ExitCode::SUCCESS => code,
        Ok(_) => ExitCode::FAILURE,
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(2)
        }
    }
}

/// Becomes `relayd user`: the user database is relayd's, and so is every program line that opens it. Returns only if that fails.
fn relayd_user(arguments: &[OsString]) -> std::io::Error {
    let relayd = match std::env::current_exe() {
        Ok(own) => own.with_file_name("relayd"),
        Err(error) => return error,
    };
    std::process::Command::new(relayd).arg("user").args(arguments).exec()
}

fn answer(command: ConfigCommand) -> Result<String, Refusal> {
    match command {
        ConfigCommand::Check { file, any_host } => {
            if any_host { Config::load_for_any_host(&file) } else { Config::load(&file) }?;
            Ok(format!("{}: right\n", file.display()))
        }
        ConfigCommand::Show { file, effective } => {
            Ok(Effective::load(&file, &Environment::of_process())?.to_toml(effective))
        }
        ConfigCommand::Diff { from, to } => {
            let environment = Environment::of_process();
            Ok(Effective::load(&from, &environment)?.diff(&Effective::load(&to, &environment)?))
        }
        ConfigCommand::Reference => Ok(tuning::reference()),
        ConfigCommand::Explain { key } => {
            tuning::explain(&key).map_err(|near| Refusal::UnknownKey { name: key, near })
        }
        ConfigCommand::Default { url } => {
            let text = tuning::default_toml(&url);
            Config::parse(&text, "--url")?;
            Ok(text)
        }
    }
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
