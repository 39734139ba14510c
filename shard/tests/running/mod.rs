//! A relay that runs as a process of its own, and people with clients; for the tests of the binary.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use client::{
    Client, ClientProfile, Config as ClientConfig, Message, Receipt, Recipient, Register, RelayIdentity,
    SecurityProfile, SendError,
};
use rustix::process::{Pid, Signal, kill_process};
use shard::init::init;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tuning::Config;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A relay with its files.
pub struct Relay {
    pub directory: TempDir,
    /// `None` while it is down.
    process: Option<Child>,
    pub identity: RelayIdentity,
}

impl Relay {
    pub fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut relay = Self::prepare("grooveDNS://test.localhost", tempfile::tempdir().unwrap(), change);
        relay.run();
        relay
    }

    /// A relay with all its files in `directory` that does not run yet.
    pub fn prepare(url: &str, directory: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(url);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        config.listen.sstp = vec![free];
        config.shards.count = 2;
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.log.level = tuning::LogLevel::Warn;
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        Self { directory, process: None, identity }
    }

    /// Where a relay in this directory has its identity file.
    pub fn identity_file(directory: &Path) -> PathBuf {
        directory.join(shard::init::IDENTITY_FILE)
    }

    pub fn run(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
        let config = self.directory.path().join("furrow.toml");
        command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<Pid> {
        self.process.as_ref().map(Pid::from_child)
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.run();
    }

    pub async fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.process = Some(process);
        panic!("the relay did not end");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two relays with all their files that do not run yet; relay `n` lists the other one if `lists[n]`.
pub fn neighbours(lists: [bool; 2], change: impl Fn(usize, &mut Config)) -> [Relay; 2] {
    let urls = ["grooveDNS://one.localhost", "grooveDNS://two.localhost"];
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = [0, 1].map(|n| Relay::identity_file(directories[1 - n].path()));
    let mut numbers = 0..2;
    directories.map(|directory| {
        let number = numbers.next().unwrap();
        Relay::prepare(urls[number], directory, |config| {
            config.peers.identity_files =
                files[number..=number].iter().filter(|_| lists[number]).cloned().collect();
            change(number, config);
        })
    })
}

/// A person as a recipient that may be at another relay.
pub fn at(person: &Person) -> Recipient {
    Recipient::identity(person.profile.identities[0].clone()).at(person.profile.relay.relay_url.clone())
}

/// A registered client.
pub struct Person {
    pub profile: ClientProfile,
    pub client: Client,
}

impl Person {
    pub async fn register(relay: &Relay, security: SecurityProfile) -> Self {
        let profile = ClientProfile::generate_in(relay.identity.clone(), security);
        let client = Client::connect(ClientConfig::new(profile.clone())).unwrap();
        let register = Register::new().identity(profile.identities[0].clone());
        in_time(client.register(register)).await.unwrap();
        Self { profile, client }
    }

    pub fn return_home(&mut self) {
        self.client = Client::connect(ClientConfig::new(self.profile.clone())).unwrap();
    }

    pub fn message(&self, body: Vec<u8>) -> Message {
        Message::to(self.profile.identities[0].clone()).body(body)
    }

    pub async fn send(&self, message: Message) -> Result<Receipt, SendError> {
        in_time(in_time(self.client.send(message)).await?).await
    }

    pub async fn receive(&self) -> Vec<u8> {
        let mut incoming = self.client.incoming();
        let mut received = in_time(incoming.recv()).await.expect("the client is open");
        let body = in_time(received.bytes(100 << 20)).await.unwrap().to_vec();
        received.acknowledge();
        body
    }
}

pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}
