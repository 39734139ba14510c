//! `relayctl host`: looks at this machine, or at one that lies in a folder, and says what a relay wants otherwise.

use clap::Subcommand;
use std::path::PathBuf;
use std::process::ExitCode;
use tuning::host::{self, Root, Verdict};
use tuning::{Config, ConfigErrors};

pub(crate) const HELP: &str = "\
Examples:
  What is not as a relay with the default configuration wants it:
    relayctl host check
  The same for a configuration, for programs:
    relayctl host check --config /etc/furrow/furrow.toml --json
  A script that would change it; read it before you run it:
    relayctl host check --config /etc/furrow/furrow.toml --plan > tune.sh

Exit codes: 0 nothing is wrong (there may be advice), 1 something is, 2 the configuration or the command line is wrong.";

#[derive(Subcommand)]
pub(crate) enum Host {
    /// Say of each thing what was found, what is wanted, why, and the exact change. Nothing is changed.
    Check {
        /// The configuration that the relay is to run with [default: every default].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The folder in which /proc, /sys and /run of the machine lie.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print JSON.
        #[arg(long, conflicts_with = "plan")]
        json: bool,
        /// Print a script that makes the changes.
        #[arg(long)]
        plan: bool,
    },
}

/// The answer, and how the program ends.
pub(crate) fn answer(command: Host) -> Result<(String, ExitCode), ConfigErrors> {
    let Host::Check { config, root, json, plan } = command;
    let config = match config {
        Some(file) => Config::load_for_any_host(file)?,
        None => Config::new("grooveDNS://localhost"),
    };
    let findings = host::examine(&Root::new(root), &config);
    let wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
    let text = match (json, plan) {
        (true, _) => host::json(&findings),
        (_, true) => host::plan(&findings),
        _ => host::text(&findings),
    };
    Ok((text, ExitCode::from(u8::from(wrong))))
}
