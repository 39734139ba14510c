//! The relay under test: the program `relayd` beside this one, in a directory of its own, with users already registered.

use crate::children::{self, Running};
use crate::loopback::{free_address, is_listening};
use crate::population;
use crate::proc_stat::Usage;
use client::{RelayIdentity, RelayIdentityError};
use relay_core::security::ClientCredentials;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::StorageError;
use tuning::{Config, ConfigErrors};

/// How long a relay may take to listen; it replays its mail before.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How the relay is set up.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RelayOptions {
    /// Shards of the relay; 0 is one for each processor
    #[arg(long, default_value_t = 0)]
    pub(crate) shards: usize,
    /// Where the relay's files go: the disk that is measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,
    /// Further settings of furrow.toml, for example limits.connection_in_flight_bytes='4 MiB'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// There is no relayd.
    #[error("{} cannot be started: {error}; build it with: cargo build --release -p shard -p bench", .path.display())]
    Program {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its files.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// `relayd init` failed.
    #[error("relayd init: {0}")]
    Init(ExitStatus),
    /// The configuration, a `--set` among it.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// A `--set` without `=`, or of no known key.
    #[error("--set {0}: write SECTION.KEY=VALUE with a key of `relayctl explain`, strings in quotes")]
    Setting(String),
    /// The user database.
    #[error(transparent)]
    Users(#[from] StorageError),
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] RelayIdentityError),
    /// It ended.
    #[error("relayd ended: {0}")]
    Ended(ExitStatus),
    /// It does not listen.
    #[error("relayd did not listen within {} s", START_PATIENCE.as_secs())]
    Deaf,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RelayError {
    move |error| RelayError::System { what, error }
}

/// A relay's directory, and the relay while it runs.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    directory: tempfile::TempDir,
    config: PathBuf,
    address: SocketAddr,
    keys: Arc<ClientCredentials>,
    identity: RelayIdentity,
    running: Option<Running>,
}

impl RelayProcess {
    /// Makes a relay's files with `users` registered under `keys`, and starts it.
    ///
    /// # Errors
    /// [`RelayError`].
    pub(crate) fn start(
        options: &RelayOptions,
        users: u32,
        keys: Arc<ClientCredentials>,
    ) -> Result<Self, RelayError> {
        let directory = children::temporary_directory(&options.dir).map_err(system("temporary directory"))?;
        let mut init = Command::new(program("relayd")?);
        init.arg("init").arg(directory.path()).args(["--url", population::RELAY_URL]).stdout(Stdio::null());
        let status =
            init.status().map_err(|error| RelayError::Program { path: init.get_program().into(), error })?;
        if !status.success() {
            return Err(RelayError::Init(status));
        }
        let config = directory.path().join("furrow.toml");
        let address = free_address().map_err(system("free port"))?;
        std::fs::write(&config, configuration(options, &config, address)?).map_err(system("furrow.toml"))?;
        population::register(&directory.path().join("data/users"), 0..users, &keys)?;
        let identity = RelayIdentity::load(&directory.path().join("relay-identity.toml"))?;
        let mut relay = Self { directory, config, address, keys, identity, running: None };
        relay.restart()?;
        Ok(relay)
    }

    /// Starts the relay, which must not run, and waits until it listens.
    ///
    /// # Errors
    /// [`RelayError`].
    pub(crate) fn restart(&mut self) -> Result<Duration, RelayError> {
        let began = Instant::now();
        let mut command = Command::new(program("relayd")?);
        command.args(["run", "--config"]).arg(&self.config).stdin(Stdio::null());
        let mut running = Running::start(&mut command)
            .map_err(|error| RelayError::Program { path: command.get_program().into(), error })?;
        while !is_listening(self.address) {
            if let Some(status) = running.ended() {
                return Err(RelayError::Ended(status));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(RelayError::Deaf);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.running = Some(running);
        Ok(began.elapsed())
    }

    /// SIGKILL. The kernel takes the rings of a dead process down in its own time, and its listening sockets with them: until
    /// then connections would go to nobody.
    pub(crate) fn kill(&mut self) {
        self.running = None;
        let began = Instant::now();
        while is_listening(self.address) && began.elapsed() < START_PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its users' keys.
    pub(crate) fn keys(&self) -> &Arc<ClientCredentials> {
        &self.keys
    }

    /// Its public keys.
    pub(crate) fn identity(&self) -> &RelayIdentity {
        &self.identity
    }

    /// Its process id; 0 while it does not run.
    pub(crate) fn id(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::id)
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.id())
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A program beside this one.
fn program(name: &str) -> Result<PathBuf, RelayError> {
    let own = std::env::current_exe().map_err(system("own program"))?;
    Ok(own.with_file_name(name))
}

fn configuration(options: &RelayOptions, path: &Path, address: SocketAddr) -> Result<String, RelayError> {
    let mut config = Config::load(path)?;
    config.listen.sstp = vec![address];
    config.shards.count = options.shards;
    config.log.level = tuning::LogLevel::Warn;
    let mut text = tuning::commented_toml(&config);
    for setting in &options.settings {
        text = with_setting(&text, setting).ok_or_else(|| RelayError::Setting(setting.clone()))?;
    }
    Config::parse(&text, path.display().to_string())?;
    Ok(text)
}

/// The file with one key's line replaced.
fn with_setting(text: &str, setting: &str) -> Option<String> {
    let (name, value) = setting.split_once('=')?;
    let (section, key) = name.trim().split_once('.')?;
    let mut current = "";
    let mut found = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            if let Some(name) = line.strip_prefix('[') {
                current = name.trim_end_matches(']');
            }
            let is_it = current == section
                && line
                    .trim_start_matches('#')
                    .trim()
                    .split_once('=')
                    .is_some_and(|(name, _)| name.trim() == key);
            if is_it && !found {
                found = true;
                return format!("{key} = {value}");
            }
            line.to_owned()
        })
        .collect();
    found.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_its_line_and_only_in_its_section() {
        let text = tuning::commented_toml(&Config::new("grooveDNS://h"));
        let changed = with_setting(&text, "limits.mesh_queue_items=99").unwrap();
        assert_eq!(Config::parse(&changed, "t").unwrap().limits.mesh_queue_items, 99);
        let changed = with_setting(&text, "storage.batch_bytes='1 MiB'").unwrap();
        assert_eq!(Config::parse(&changed, "t").unwrap().storage.batch_bytes, 1 << 20);
        assert_eq!(with_setting(&text, "limits.batch_bytes=1"), None);
        assert_eq!(with_setting(&text, "batch_bytes=1"), None);
        assert_eq!(with_setting(&text, "storage.batch_bytes"), None);
    }
}
