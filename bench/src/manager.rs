//! A management server that lists users for as long as it is let. It is another machine as a rule, and so it takes what this one
//! has left: it runs on a thread of its own, which stands back for all others.

use crate::failure::Failure;
use crate::loopback::is_listening;
use crate::processors::stand_back;
use crate::relay_process::RelayProcess;
use client::SystemEntropy;
use relay_core::address::{AccountUrl, IdentityUrl};
use relay_core::directory::{Profile, SecretKey};
use relay_core::spmr::{CONTENT_TYPE, ListedUser, Manager, ManagerKeys, Outcome, Progress, Request};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The name by which relays know it.
const NAME: &str = "relay-bench";
/// How long the relay may take for one request.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// The keys of a management server, before there is a relay that knows them.
pub(crate) struct Candidate {
    keys: ManagerKeys,
    address: SocketAddr,
}

impl Candidate {
    /// For a relay that is to listen for it at `address`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let keys = ManagerKeys::generate(NAME, Profile::Modern, &mut SystemEntropy::default());
        Self { keys: keys.expect("the name is a name"), address }
    }

    /// What the relay's configuration has to say.
    pub(crate) fn settings(&self) -> [String; 2] {
        [
            format!("management.listen=[\"{}\"]", self.address),
            format!("management.servers={{ {NAME} = \"{}\" }}", self.keys.public()),
        ]
    }

    /// The management server of `relay`, which opens the port for it behind those for clients.
    pub(crate) fn manage(self, relay: &RelayProcess) -> ManagementServer {
        let began = Instant::now();
        while !is_listening(self.address) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
        let agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        ManagementServer {
            manager: Manager::new(self.keys, relay.identity().public_keys.clone()),
            url: format!("http://{}/", self.address),
            agent: agent.into(),
            entropy: SystemEntropy::default(),
            listed: 0,
        }
    }
}

/// See the module's head.
pub(crate) struct ManagementServer {
    manager: Manager,
    url: String,
    agent: ureq::Agent,
    entropy: SystemEntropy,
    /// Users listed so far; those of the next request are others.
    listed: u64,
}

impl ManagementServer {
    fn ask(&mut self, request: Request) -> Result<(), Failure> {
        let wrong = |what: String| Failure::Wrong(format!("management: {what}"));
        self.manager.ask(request, &mut self.entropy);
        loop {
            let document =
                self.manager.document(&mut self.entropy).map_err(|error| wrong(error.to_string()))?;
            let post = self.agent.post(&self.url).header("Content-Type", CONTENT_TYPE);
            let answer = post.send(&document.unwrap_or_default()[..]).and_then(|mut response| {
                response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()
            });
            let answer = answer.map_err(|error| wrong(error.to_string()))?;
            match self.manager.answered(&answer, &mut self.entropy) {
                Ok(Progress::Continue) => {}
                Ok(Progress::Done(Outcome::Success)) => return Ok(()),
                Ok(Progress::Done(outcome)) => return Err(wrong(format!("{outcome:?}"))),
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
    }

    /// Builds the relay's user database of so many users. From then on it takes users as they are told.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn build(&mut self, users: u64, batch: u16) -> Result<(), Failure> {
        self.ask(Request::RelayQuiescent(true))?;
        let end = self.listed + users.max(1);
        while self.listed < end {
            self.list(batch)?;
        }
        self.ask(Request::RelayQuiescent(false))
    }

    fn list(&mut self, batch: u16) -> Result<(), Failure> {
        let numbers = self.listed..self.listed + u64::from(batch);
        self.listed = numbers.end;
        self.ask(Request::UserAdd(numbers.map(user).collect()))
    }

    /// Lists users on a thread of its own, until it is told to end.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub(crate) fn go_on(mut self, batch: u16) -> Result<Listing, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let work = move || {
            // It is only politeness.
            let _ = stand_back();
            let (start, before) = (Instant::now(), self.listed);
            while !seen.load(Ordering::SeqCst) {
                self.list(batch)?;
            }
            let listed = Listed { users: self.listed - before, seconds: start.elapsed().as_secs_f64() };
            Ok((self, listed))
        };
        let thread = std::thread::Builder::new().name("management".into());
        Ok(Listing { over, thread: thread.spawn(work).map_err(Failure::system("thread"))? })
    }
}

/// A listing under way.
pub(crate) struct Listing {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<(ManagementServer, Listed), Failure>>,
}

impl Listing {
    /// Ends it behind the request that is under way.
    ///
    /// # Errors
    /// What stopped it before.
    pub(crate) fn end(self) -> Result<(ManagementServer, Listed), Failure> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// What was listed.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Listed {
    /// Users.
    pub(crate) users: u64,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Listed {
    /// Both together.
    pub(crate) fn add(&mut self, other: Listed) {
        self.users += other.users;
        self.seconds += other.seconds;
    }

    /// Users a second.
    pub(crate) fn rate(&self) -> f64 {
        self.users as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// A user whose name stands nowhere near that of the one before, as GUIDs do.
fn user(number: u64) -> ListedUser {
    let name = format!("{:016x}{:016x}", scatter(number), scatter(!number));
    ListedUser {
        account: AccountUrl::new(format!("grooveAccount://{name}@")).expect("it is short"),
        identities: vec![IdentityUrl::new(format!("grooveIdentity://{name}@")).expect("it is short")],
        token: Some(SecretKey::new(name.into_bytes())),
        quota_bytes: Some(1 << 30),
        lifetime_seconds: None,
    }
}

/// Another number for each number (the finaliser of splitmix64).
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn users_have_names_of_their_own_in_no_order() {
        let names: Vec<_> = (0..1000).map(|number| user(number).account).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 1000);
        assert!(!names.is_sorted());
    }
}
