//! `sstp`: the command line of a Furrow client. It owns arguments, exit codes and what is printed; all else is the library's.
#![forbid(unsafe_code)]

mod cli;

use clap::Parser;
use cli::{Arguments, Printer};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => tracing::Level::ERROR,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let printer = Printer::new(arguments.json);
    match cli::run(arguments, &printer).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit_code()
        }
    }
}
