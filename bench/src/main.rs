//! relay-bench: a load generator for SSTP relays, the workloads that questions are answered with, and the same work done by
//! the peers.
#![forbid(unsafe_code)]

mod children;
mod cli;
mod clock;
mod collector;
mod compare;
mod failure;
mod floor;
mod gate;
mod haul;
mod holder;
mod link;
mod load;
mod loopback;
mod manager;
mod measure;
mod page;
mod payload;
mod peers;
mod population;
mod proc_stat;
mod processors;
mod registrar;
mod relay_process;
mod report;
mod ring_echo;
mod siege;
mod sstp_wire;
mod tally;
mod wire;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("relay-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
