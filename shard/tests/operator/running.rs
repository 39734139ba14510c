//! A relay that runs as a process, its operator's socket, and a client of it.

use client::{
    Client, ClientProfile, Config as ClientConfig, Message, Register, RelayIdentity, SecurityProfile,
};
use shard::init::init;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tuning::Config;
use tuning::operator::{Answer, Client as Operator, ClientError, ErrorCause, Request, Status};

/// Far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    directory: TempDir,
    process: Child,
    identity: RelayIdentity,
    socket: PathBuf,
    data: PathBuf,
}

fn spawn(directory: &Path, config: &Path) -> Child {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
    command.args(["run", "--config"]).arg(config).stdin(Stdio::null()).stderr(log);
    command.env_remove("JOURNAL_STREAM").spawn().unwrap()
}

impl Running {
    /// Starts a relay of two shards with metrics, changed by `change`, and waits until it serves.
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new("grooveDNS://test.localhost");
        config.listen.sstp = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()];
        config.metrics.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config.shards.count = 2;
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.log.level = tuning::LogLevel::Warn;
        config.monitor.interval = Duration::from_millis(50);
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        let process = spawn(directory.path(), &made.config);
        let config = Config::load(&made.config).unwrap();
        let (socket, data) = (config.operator_socket(), config.relay.data_dir);
        let running = Self { directory, process, identity, socket, data };
        running.wait_until_it_serves();
        running
    }

    /// Kills the process and starts another one on what it has left.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts another process on what the killed one has left.
    pub(crate) fn run(&mut self) {
        self.process = spawn(self.directory.path(), &self.directory.path().join("furrow.toml"));
        self.wait_until_it_serves();
    }

    /// The relay's data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    fn wait_until_it_serves(&self) {
        let running = self;
        running.eventually("the relay serves", || {
            running
                .try_ask(Request::Status)
                .is_ok_and(|answer| matches!(answer, Answer::Status(status) if status.state == "serving"))
        });
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub(crate) fn try_ask(&self, request: Request) -> Result<Answer, ClientError> {
        Operator::connect(&self.socket)?.ask(request, PATIENCE)
    }

    /// Asks for something that takes long.
    pub(crate) fn ask_at_length(&self, request: Request, progress: impl FnMut(u64, u64)) -> Answer {
        Operator::connect(&self.socket).unwrap().ask_at_length(request, PATIENCE, progress).unwrap()
    }

    pub(crate) fn ask(&self, request: Request) -> Answer {
        self.try_ask(request).unwrap()
    }

    pub(crate) fn refused(&self, request: Request) -> ErrorCause {
        match self.try_ask(request) {
            Err(ClientError::Refused(refusal)) => refusal.cause,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(Request::Status) {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Status and body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.http(&format!("GET {path}"))
    }

    /// Status and body of a request with this method and path.
    pub(crate) fn http(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.status().metrics[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// What the relay has said on standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Waits for something to become so.
    pub(crate) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never: {what}\n{}", self.log());
    }

    pub(crate) async fn person(&self) -> Person {
        let profile = ClientProfile::generate_in(self.identity.clone(), SecurityProfile::Modern);
        let client = Client::connect(ClientConfig::new(profile.clone())).unwrap();
        in_time(client.register(Register::new().identity(profile.identities[0].clone()))).await.unwrap();
        in_time(client.ready()).await.unwrap();
        Person { profile, client }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A registered client that is connected.
pub(crate) struct Person {
    pub(crate) profile: ClientProfile,
    pub(crate) client: Client,
}

impl Person {
    pub(crate) fn device(&self) -> String {
        self.profile.device_url.to_string()
    }

    pub(crate) fn account(&self) -> String {
        self.profile.account_url.to_string()
    }

    pub(crate) fn return_home(&mut self) {
        self.client = Client::connect(ClientConfig::new(self.profile.clone())).unwrap();
    }

    /// Sends a message of so many bytes, and waits until the relay has acknowledged it.
    /// Connects again after its client was closed.
    pub(crate) async fn come_back(&mut self) {
        self.client = Client::connect(ClientConfig::new(self.profile.clone())).unwrap();
        in_time(self.client.ready()).await.unwrap();
    }

    /// The same person at another relay, registered there with the same keys.
    pub(crate) async fn moved_to(&self, relay: &Running) -> Person {
        let profile = ClientProfile { relay: relay.identity.clone(), ..self.profile.clone() };
        let client = Client::connect(ClientConfig::new(profile.clone())).unwrap();
        in_time(client.register(Register::new().identity(profile.identities[0].clone()))).await.unwrap();
        in_time(client.ready()).await.unwrap();
        Person { profile, client }
    }

    pub(crate) async fn send(&self, to: &Person, bytes: usize) {
        let message = Message::to(to.profile.identities[0].clone()).body(vec![7; bytes]);
        in_time(in_time(self.client.send(message)).await.unwrap()).await.unwrap();
    }

    /// Receives a message, acknowledges it and gives its length.
    pub(crate) async fn receive(&self) -> usize {
        let mut incoming = self.client.incoming();
        let mut received = in_time(incoming.recv()).await.unwrap();
        let length = in_time(received.bytes(1 << 20)).await.unwrap().len();
        received.acknowledge();
        length
    }
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}
