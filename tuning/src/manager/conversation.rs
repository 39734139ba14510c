//! A conversation with a relay over HTTP, one request at a time. What goes wrong on the way is tried again with a new
//! document, since every request may be done twice and no document may.

use super::Relay;
use super::failure::Failure;
use super::keys;
use client::{RelayIdentity, SystemEntropy};
use relay_core::spmr::{CONTENT_TYPE, Manager, Outcome, Progress, Request};
use std::path::PathBuf;
use std::time::Duration;

/// How long the relay may take: becoming quiescent, it waits for mail to become durable.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How often a request is tried, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's head.
pub(super) struct Conversation {
    manager: Manager,
    keys: PathBuf,
    url: String,
    agent: ureq::Agent,
    entropy: SystemEntropy,
}

impl Conversation {
    /// Reads the keys and the relay's identity; sends nothing.
    pub(super) fn begin(relay: &Relay) -> Result<Self, Failure> {
        let identity = RelayIdentity::load(&relay.relay)?;
        let agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Ok(Self {
            manager: Manager::new(keys::read(&relay.keys)?, identity.public_keys),
            keys: relay.keys.clone(),
            url: relay.to.clone(),
            agent: agent.into(),
            entropy: SystemEntropy::default(),
        })
    }

    /// Shares a new key.
    pub(super) fn register(&mut self) -> Result<Outcome, Failure> {
        self.manager.register(&mut self.entropy);
        self.converse()
    }

    /// Asks for something; registers first if the relay wants that.
    pub(super) fn ask(&mut self, request: Request) -> Result<Outcome, Failure> {
        self.manager.ask(request, &mut self.entropy);
        self.converse()
    }

    fn converse(&mut self) -> Result<Outcome, Failure> {
        loop {
            let answer = self.send()?;
            let before = self.manager.keys().shared().cloned();
            let progress = self.manager.answered(&answer, &mut self.entropy)?;
            if self.manager.keys().shared() != before.as_ref() {
                keys::replace(&self.keys, self.manager.keys())?;
            }
            if let Progress::Done(outcome) = progress {
                return Ok(outcome);
            }
        }
    }

    fn send(&mut self) -> Result<Vec<u8>, Failure> {
        let mut tries = 0;
        loop {
            let document = self.manager.document(&mut self.entropy)?.unwrap_or_default();
            let sent = self
                .agent
                .post(&self.url)
                .header("Content-Type", CONTENT_TYPE)
                .header("SOAPAction", "\"\"")
                .send(&document[..]);
            let answer = sent.and_then(|mut response| {
                response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()
            });
            tries += 1;
            match answer {
                Ok(answer) => return Ok(answer),
                Err(_) if tries < TRIES => std::thread::sleep(PAUSE),
                Err(error) => {
                    return Err(Failure::Unreachable { url: self.url.clone(), error: error.into() });
                }
            }
        }
    }
}
