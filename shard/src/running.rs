//! A relay that runs, with the configuration that it obeys: what happens when it is told to read its file again.

use crate::events;
use crate::server::Server;
use std::path::{Path, PathBuf};
use tuning::{Config, changes};

/// A running relay, its configuration, and the file that it came from.
pub struct Running {
    /// The relay.
    pub server: Server,
    path: PathBuf,
    config: Config,
    status: String,
}

impl Running {
    /// A relay that was started with `config`, which was read from `path`.
    pub fn new(path: &Path, config: Config, server: Server) -> Self {
        Self { server, path: path.to_owned(), config, status: "serving".into() }
    }

    /// One line on how it is.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// Reads the configuration and the certificate again. Keys that can change while the relay serves are obeyed from now
    /// on; for each of the others that has changed, the log says that it waits for a restart. A configuration with a mistake
    /// changes nothing.
    pub fn reload(&mut self) {
        // The log has said what came of it.
        let _ = self.server.reload();
        match Config::load(&self.path) {
            Ok(config) => self.change_to(&config),
            Err(errors) => {
                for error in errors.iter() {
                    tracing::error!(event = events::CONFIGURATION_KEPT, %error, "the configuration stays as it was");
                }
                self.status = "serving; the changed configuration is wrong and was not taken".into();
            }
        }
    }

    fn change_to(&mut self, config: &Config) {
        let changes = changes(&self.config, config);
        let mut obeyed = self.config.clone();
        obeyed.take_live(config);
        if let Err(error) = self.server.reconfigure(&obeyed) {
            tracing::error!(event = events::CONFIGURATION_KEPT, %error, "the configuration stays as it was");
            self.status = "serving; the changed configuration was not taken".into();
            return;
        }
        self.config = obeyed;
        let mut waiting = Vec::new();
        for change in changes {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            if change.live {
                tracing::info!(event = events::KEY_CHANGED, %key, %from, %to, "a changed key is obeyed from now on");
            } else {
                tracing::warn!(event = events::KEY_WAITS, %key, %from, %to, "a changed key waits for a restart");
                waiting.push(change.key);
            }
        }
        self.status = match waiting.as_slice() {
            [] => "serving".into(),
            waiting => format!("serving; waiting for a restart: {}", waiting.join(", ")),
        };
    }
}
