//! The binary with another number of shards than before, and with a descriptor table for each shard.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use client::{Client, ClientProfile, Config as ClientConfig, Message, Recipient, Register, RelayIdentity};
use shard::init::init;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tuning::Config;

const PATIENCE: Duration = Duration::from_secs(30);
const PEOPLE: usize = 7;

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}

struct Relay {
    directory: TempDir,
    config: Config,
    identity: RelayIdentity,
    process: Option<Child>,
}

impl Relay {
    fn prepare(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new("grooveDNS://test.localhost");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        config.listen.sstp = vec![free];
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.log.level = tuning::LogLevel::Warn;
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        Self { directory, config, identity, process: None }
    }

    fn config_file(&self) -> PathBuf {
        self.directory.path().join("furrow.toml")
    }

    fn address(&self) -> SocketAddr {
        self.config.listen.sstp[0]
    }

    /// Ends the relay, if it runs, without a warning, and starts it with so many shards.
    fn restart(&mut self, shards: usize) {
        self.kill();
        self.config.shards.count = shards;
        std::fs::write(self.config_file(), tuning::commented_toml(&self.config)).unwrap();
        self.process = Some(spawn(Command::new(env!("CARGO_BIN_EXE_relayd")), &self.config_file()));
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn wait_until_it_serves(&self) {
        let start = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(start.elapsed() < PATIENCE, "the relay does not serve");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_the_mail_is_home(&self, shards: usize) {
        let expected: Vec<_> = (0..shards).map(|shard| format!("shard-{shard:04}")).collect();
        let start = Instant::now();
        while self.shard_folders() != expected {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.shard_folders());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.wait_until_it_serves();
    }

    fn shard_folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("data")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "users" && name != "relayd.sock");
        names.sort();
        names
    }
}

fn spawn(mut command: Command, config: &Path) -> Child {
    command.args(["run", "--config"]).arg(config).stdin(Stdio::null()).spawn().unwrap()
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Person {
    profile: ClientProfile,
    client: Client,
}

impl Person {
    async fn register(relay: &Relay) -> Self {
        let profile = ClientProfile::generate(relay.identity.clone());
        let client = Client::connect(ClientConfig::new(profile.clone())).unwrap();
        let register = Register::new().identity(profile.identities[0].clone());
        in_time(client.register(register)).await.unwrap();
        Self { profile, client }
    }

    fn return_home(&mut self) {
        self.client = Client::connect(ClientConfig::new(self.profile.clone())).unwrap();
    }

    async fn send(&self, message: Message) {
        let receipt = in_time(in_time(self.client.send(message)).await.unwrap()).await.unwrap();
        assert_eq!(receipt.failed, []);
    }

    async fn receive(&self) -> Vec<u8> {
        let mut received = in_time(self.client.incoming().recv()).await.expect("the client is open");
        let body = in_time(received.bytes(100 << 20)).await.unwrap().to_vec();
        received.acknowledge();
        body
    }
}

fn body(to: usize, number: u32) -> Vec<u8> {
    let size = if number == 3 { 300_000 } else { number as usize * 100 };
    [&[to as u8][..], &number.to_le_bytes(), &vec![number as u8; size]].concat()
}

async fn people(relay: &Relay) -> Vec<Person> {
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        people.push(Person::register(relay).await);
    }
    people
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_follows_its_accounts_through_one_two_three_and_one_shards() {
    let mut relay = Relay::prepare(|_| {});
    relay.restart(1);
    let sender = Person::register(&relay).await;
    let mut people = people(&relay).await;
    for person in &people {
        person.client.close().await;
    }
    let mut number = 0;
    let mut round = async || {
        for _ in 0..4 {
            for (to, person) in people.iter().enumerate() {
                let to_one = Message::to(person.profile.identities[0].clone());
                sender.send(to_one.body(body(to, number))).await;
            }
            number += 1;
        }
        let first = Message::to(people[0].profile.identities[0].clone());
        let all = people[1..].iter().fold(first, |message, person| {
            message.and_to(Recipient::identity(person.profile.identities[0].clone()))
        });
        sender.send(all.body(format!("to all {number}"))).await;
    };
    for shards in [2, 3, 1] {
        round().await;
        // Killed at some moments of its start, it goes on with the next.
        for milliseconds in [3, 10, 25] {
            relay.restart(shards);
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        relay.restart(shards);
        relay.wait_until_the_mail_is_home(shards);
    }
    for (to, person) in people.iter_mut().enumerate() {
        person.return_home();
        for number in 0..12 {
            assert!(person.receive().await == body(to, number), "message {number} to {to}");
            if number % 4 == 3 {
                assert_eq!(person.receive().await, format!("to all {}", number + 1).into_bytes());
            }
        }
    }
    sender.send(Message::to(people[0].profile.identities[0].clone()).body("the last")).await;
    assert_eq!(people[0].receive().await, b"the last", "nothing came twice");
}

/// Sockets in the tables of the shards' threads.
fn sockets_of(process: u32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let shards = threads.map(|entry| entry.unwrap().path()).filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("shard-"))
    });
    shards.map(|path| connections_in(&path.join("fd"))).sum()
}

fn connections_in(table: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(table) else { return 0 };
    let is_socket = |path: &Path| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_socket(&entry.path()))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_with_their_own_tables_hold_more_connections_than_one_table_has_room_for() {
    const SHARDS: usize = 3;
    const LIMIT: usize = 160;
    const CONNECTIONS: usize = 240;
    let mut relay = Relay::prepare(|config| {
        config.shards.count = SHARDS;
        config.shards.own_descriptors = true;
        config.timers.connect = PATIENCE;
    });
    let mut limited = Command::new("sh");
    let script = format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"");
    limited.args(["-c", &script, env!("CARGO_BIN_EXE_relayd")]);
    relay.process = Some(spawn(limited, &relay.config_file()));
    relay.wait_until_it_serves();
    let process = relay.process.as_ref().unwrap().id();
    let before = sockets_of(process);
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(relay.address()).unwrap()).collect();
    let start = Instant::now();
    // The connection that found out whether the relay serves may be counted before and be gone now.
    while sockets_of(process) + SHARDS < before + CONNECTIONS {
        assert!(start.elapsed() < PATIENCE, "{} of {CONNECTIONS} are held", sockets_of(process) - before);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(connections);
    while sockets_of(process) > before + SHARDS {
        assert!(start.elapsed() < PATIENCE, "sockets of closed connections stay open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_with_their_own_tables_hand_connections_over_and_wake_each_other() {
    let mut relay = Relay::prepare(|config| config.shards.own_descriptors = true);
    relay.restart(3);
    let mut people = people(&relay).await;
    for round in 0..5u32 {
        for (to, person) in people.iter().enumerate() {
            for sender in &people {
                let message = Message::to(person.profile.identities[0].clone());
                sender.send(message.body(body(to, round))).await;
                assert_eq!(person.receive().await, body(to, round));
            }
        }
        for person in &mut people {
            person.client.close().await;
            person.return_home();
        }
    }
}
