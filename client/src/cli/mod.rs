//! The commands of `sstp`, one file each.

mod arguments;
mod connect;
mod failure;
mod init;
mod presence;
mod printer;
mod receive;
mod register;
mod send;
mod status_table;
mod upload;
mod whoami;

pub(crate) use arguments::Arguments;
pub(crate) use printer::Printer;

use arguments::{Command, PresenceCommand};
use clap::CommandFactory as _;
use connect::Home;
use failure::Failure;

/// Runs what the arguments ask for.
pub(crate) async fn run(arguments: Arguments, printer: &Printer) -> Result<(), Failure> {
    let directory = arguments::client_directory(arguments.dir)?;
    let home = Home { directory: &directory, carrier: arguments.carrier };
    match arguments.command {
        Command::Init(init) => init::run(&init, &directory, printer),
        Command::Register(register) => register::run(register, home, printer).await,
        Command::Send(send) => send::run(send, home, printer).await,
        Command::Receive(receive) => receive::run(receive, home, printer).await,
        Command::Presence { command: PresenceCommand::Watch(watch) } => {
            presence::watch(watch, home, printer).await
        }
        Command::Presence { command: PresenceCommand::Set(set) } => presence::set(set, home, printer).await,
        Command::Whoami => whoami::run(&directory, printer),
        Command::Manual(manual) => {
            manual.write(Arguments::command()).map_err(Failure::about(&manual.directory.display()))
        }
    }
}
