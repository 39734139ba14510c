//! The commands of `sstp`, one file each.

mod arguments;
mod connect;
mod failure;
mod init;
mod printer;
mod receive;
mod register;
mod send;
mod upload;
mod whoami;

pub(crate) use arguments::Arguments;
pub(crate) use printer::Printer;

use arguments::Command;
use failure::Failure;

/// Runs what the arguments ask for.
pub(crate) async fn run(arguments: Arguments, printer: &Printer) -> Result<(), Failure> {
    let directory = arguments::client_directory(arguments.dir)?;
    match arguments.command {
        Command::Init(init) => init::run(&init, &directory, printer),
        Command::Register(register) => register::run(register, &directory, printer).await,
        Command::Send(send) => send::run(send, &directory, printer).await,
        Command::Receive(receive) => receive::run(receive, &directory, printer).await,
        Command::Whoami => whoami::run(&directory, printer),
    }
}
