//! The demonstration: mail for somebody who is offline survives the death of the relay.
//!
//! A relay with two shards runs as a child process in a temporary directory; Alice (modern security profile) sends Bob (legacy
//! profile), who is offline, bodies of every interesting size; the relay is killed, started again, and Bob collects. Every byte
//! is compared. Alice sends one message to three: to Bob, to Dave, who is offline, and to Carol, who is a user of a second
//! relay (single-hop fanout). Then somebody sends a message to themselves on each of the ways to a relay.

mod carriers;
mod proxy;

use crate::init::{IDENTITY_FILE, InitError, Initialised, init};
use bytes::Bytes;
use client::{
    Body, BodyError, BodySource, Client, ClientProfile, Config as ClientConfig, Message, NotReady, Read,
    Received, Recipient, Register, RegistrationError, RelayIdentity, RelayIdentityError, SecurityProfile,
    SendError, UrlsTooLong,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tuning::Config;

/// The bodies that are sent: nothing, a byte, one Data command, one byte more, many, very many.
const SIZES: [u64; 6] = [0, 1, 2048, 2049, 1 << 20, 64 << 20];
/// What goes to two relays.
const HELLO: &[u8] = b"hello to both";
/// No step takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long Bob waits for mail that he does not expect.
const QUIET: Duration = Duration::from_millis(500);

/// What the demonstration found; the last line of `--json`.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Messages that the relay acknowledged to Alice.
    pub sent: usize,
    /// Of these, messages that Bob got whole.
    pub received: usize,
    /// Of these, messages that Bob did not get.
    pub lost: usize,
    /// Messages that Bob got more than once.
    pub duplicates: usize,
    /// Bodies that were not what was sent.
    pub damaged: usize,
    /// Ways to the relay on which a message went there and back.
    pub carriers: usize,
    /// Payload bytes that were received.
    pub bytes: u64,
    /// From the start of the second relay to its first answer, in milliseconds.
    pub restart_ms: u64,
    /// Whether one message reached a user of this relay and one of another relay.
    pub single_hop: bool,
    /// The relay's exit code on SIGTERM.
    pub exit_code: Option<i32>,
    /// Whether everything arrived, once or more, and the relay ended as asked.
    pub ok: bool,
}

/// Why the demonstration could not be carried through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A file, process or socket.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The relay's files.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] RelayIdentityError),
    /// A client could not be made.
    #[error(transparent)]
    Urls(#[from] UrlsTooLong),
    /// A client did not come to be ready.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A registration was refused.
    #[error("registration: {0}")]
    Registration(#[from] RegistrationError),
    /// A message was not acknowledged.
    #[error("sending: {0}")]
    Send(#[from] SendError),
    /// An incoming body was cut short.
    #[error("receiving: {0}")]
    Body(#[from] BodyError),
    /// Something took more than a minute.
    #[error("{0} took longer than {PATIENCE:?}")]
    TooSlow(&'static str),
    /// The demonstration ran, and its outcome is bad.
    #[error("not everything arrived")]
    Failed,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |error| DemoError::System { what, error }
}

/// Runs the demonstration and prints what happens.
///
/// # Errors
/// [`DemoError`] if it could not be carried through, or not everything arrived.
pub fn run(json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(demonstrate(json))?;
    if json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!(
            "\n{} sent, {} received, {} lost, {} duplicates, {} damaged: {}",
            outcome.sent,
            outcome.received,
            outcome.lost,
            outcome.duplicates,
            outcome.damaged,
            if outcome.ok { "all is well" } else { "NOT WELL" }
        );
    }
    if outcome.ok { Ok(()) } else { Err(Box::new(DemoError::Failed)) }
}

async fn demonstrate(json: bool) -> Result<Outcome, DemoError> {
    let say = Narrator { start: Instant::now(), json };
    let directory = tempfile::tempdir().map_err(system("temporary directory"))?;
    let (home, away) = (directory.path().join("home"), directory.path().join("away"));
    let free_port = || free_address().map_err(system("free port"));
    // It stands for port 443.
    let tunnel = free_port()?;
    let http = free_port()?;
    let made = prepare(&home, "grooveDNS://demo.localhost", &away, |config| {
        config.listen.sstp.push(tunnel);
        config.listen.http = vec![http];
        config.http.poll_interval = Duration::from_secs(1);
    })?;
    let second = prepare(&away, "grooveDNS://away.localhost", &home, |_| {})?;
    let mut relay_identity = RelayIdentity::load(&made.identity)?;
    relay_identity.addresses.retain(|address| *address != tunnel.to_string());
    relay_identity.fallback.tunnel = vec![tunnel.to_string()];

    let mut relay = RelayProcess::start(&made.config)?;
    let alice = Person::new(relay_identity.clone(), SecurityProfile::Modern)?;
    let mut bob = Person::new(relay_identity.clone(), SecurityProfile::Legacy)?;
    alice.register().await?;
    bob.register().await?;
    say.step("a relay with two shards runs; Alice (modern) and Bob (legacy) have registered");
    bob.leave().await;
    say.step("Bob has left");

    let mut outcome = Outcome::default();
    let mut table = Table::default();
    for (number, size) in SIZES.into_iter().enumerate() {
        let began = Instant::now();
        let mut message = Message::to(bob.profile.identities[0].clone());
        if goes_to_device(number) {
            message = message.device(bob.profile.device_url.clone());
        }
        let body = Body::source(Pattern { number: number as u64, length: size });
        let message = message.body(body).user_ref(number.to_string());
        let delivery = in_time("acknowledging a message", alice.client.send(message)).await??;
        in_time("acknowledging a message", delivery).await??;
        outcome.sent += 1;
        table.0[number].stored = Some(began.elapsed());
    }

    say.step("Alice has sent six messages, and the relay has acknowledged each");
    relay.kill()?;
    say.step("the relay was killed (SIGKILL)");
    let began = Instant::now();
    relay = RelayProcess::start(&made.config)?;
    bob.come_back().await?;
    outcome.restart_ms = began.elapsed().as_millis() as u64;
    say.step(&format!("the relay runs again and Bob is back, after {:.1?}", began.elapsed()));

    collect(&bob, &mut outcome, &mut table).await;
    say.step("Bob has collected his mail and compared every byte");
    outcome.single_hop = hop(&say, &second, &alice, &bob).await?;
    bob.leave().await;
    alice.leave().await;
    let carriers = carriers::try_each(&relay_identity, &mut outcome).await?;
    say.step("somebody has sent a message to themselves on each way to the relay");
    let status = relay.terminate().await?;
    outcome.exit_code = status.code();
    say.step(&format!("the relay was asked to end (SIGTERM): {status}"));
    say.line(&table.to_string());
    say.line(&carriers.to_string());
    outcome.lost = outcome.sent - outcome.received;
    outcome.ok = outcome.lost == 0 && outcome.damaged == 0 && outcome.single_hop && status.success();
    Ok(outcome)
}

/// The files of a relay in `directory` that knows the one in `peer` as another relay.
fn prepare(
    directory: &Path,
    url: &str,
    peer: &Path,
    change: impl FnOnce(&mut Config),
) -> Result<Initialised, DemoError> {
    let mut config = Config::new(url);
    config.listen.sstp = vec![free_address().map_err(system("free port"))?];
    config.shards.count = 2;
    config.shards.pin = false;
    config.log.level = tuning::LogLevel::Warn;
    config.peers.identity_files = vec![peer.join(IDENTITY_FILE)];
    change(&mut config);
    Ok(init(directory, &config)?)
}

/// One message from Alice to three: Bob, who is online, Dave, who is not, and, through a second relay, Carol.
async fn hop(say: &Narrator, second: &Initialised, alice: &Person, bob: &Person) -> Result<bool, DemoError> {
    let away = RelayProcess::start(&second.config)?;
    let carol = Person::new(RelayIdentity::load(&second.identity)?, SecurityProfile::Modern)?;
    carol.register().await?;
    let mut dave = Person::new(bob.profile.relay.clone(), SecurityProfile::Modern)?;
    dave.register().await?;
    dave.leave().await;
    say.step("a second relay runs, and Carol has registered there; Dave has registered here, and has left");
    let there =
        Recipient::identity(carol.profile.identities[0].clone()).at(carol.profile.relay.relay_url.clone());
    let message = Message::to(bob.profile.identities[0].clone())
        .and_to(Recipient::identity(dave.profile.identities[0].clone()))
        .and_to(there)
        .body(HELLO);
    let delivery = in_time("acknowledging a message", alice.client.send(message)).await??;
    let receipt = in_time("acknowledging a message", delivery).await??;
    let mut reached = receipt.failed.is_empty();
    dave.come_back().await?;
    for person in [bob, &carol, &dave] {
        let mut incoming = person.client.incoming();
        let received = in_time("receiving a message", incoming.recv()).await?;
        let Some(mut received) = received else { return Ok(false) };
        reached &= received.bytes(HELLO.len()).await? == HELLO;
        received.acknowledge();
    }
    say.step("one message from Alice has reached Bob here, Carol there, and Dave when he came back");
    carol.leave().await;
    dave.leave().await;
    Ok(away.terminate().await?.success() && reached)
}

/// Receives until everything is here, and then a little longer, to see duplicates.
async fn collect(bob: &Person, outcome: &mut Outcome, table: &mut Table) {
    let mut incoming = bob.client.incoming();
    let mut seen = [false; SIZES.len()];
    loop {
        let wait = if seen.iter().all(|seen| *seen) { QUIET } else { PATIENCE };
        let Ok(Some(mut received)) = tokio::time::timeout(wait, incoming.recv()).await else { return };
        let began = Instant::now();
        let Some(number) = received.user_ref().parse::<usize>().ok().filter(|&number| number < SIZES.len())
        else {
            outcome.damaged += 1;
            continue;
        };
        let pattern = Pattern { number: number as u64, length: SIZES[number] };
        match pattern.compare(&mut received).await {
            Ok(true) if seen[number] => outcome.duplicates += 1,
            Ok(true) => {
                seen[number] = true;
                outcome.received += 1;
                outcome.bytes += pattern.length;
                table.0[number].collected = Some(began.elapsed());
            }
            Ok(false) => outcome.damaged += 1,
            // The connection was lost in the middle: it comes again.
            Err(_) => continue,
        }
        received.acknowledge();
    }
}

/// Somebody with a client.
struct Person {
    profile: ClientProfile,
    client: Client,
}

impl Person {
    fn new(relay: RelayIdentity, profile: SecurityProfile) -> Result<Self, DemoError> {
        Self::with(ClientConfig::new(ClientProfile::generate_in(relay, profile)))
    }

    fn with(config: ClientConfig) -> Result<Self, DemoError> {
        let profile = config.profile.clone();
        Ok(Self { profile, client: Client::connect(config)? })
    }

    async fn register(&self) -> Result<(), DemoError> {
        let register = Register::new().identity(self.profile.identities[0].clone());
        Ok(in_time("registering", self.client.register(register)).await??)
    }

    async fn leave(&self) {
        self.client.close().await;
    }

    async fn come_back(&mut self) -> Result<(), DemoError> {
        self.client = Client::connect(ClientConfig::new(self.profile.clone()))?;
        Ok(in_time("connecting", self.client.ready()).await??)
    }
}

async fn in_time<T>(what: &'static str, work: impl Future<Output = T>) -> Result<T, DemoError> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| DemoError::TooSlow(what))
}

/// A relay that runs as a child process, and dies with this value.
struct RelayProcess(Child);

impl RelayProcess {
    fn start(config: &Path) -> Result<Self, DemoError> {
        let program = std::env::current_exe().map_err(system("own program"))?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
        command.spawn().map(Self).map_err(system("starting the relay"))
    }

    fn kill(&mut self) -> Result<(), DemoError> {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).map_err(system("killing the relay"))
    }

    async fn terminate(mut self) -> Result<ExitStatus, DemoError> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)
            .map_err(|error| DemoError::System { what: "signalling the relay", error: error.into() })?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().map_err(system("waiting for the relay"))? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(DemoError::TooSlow("ending the relay"))
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A body whose every byte follows from the message's number and the byte's place.
#[derive(Clone, Copy)]
struct Pattern {
    number: u64,
    length: u64,
}

impl Pattern {
    fn byte(&self, place: u64) -> u8 {
        let mixed = (place ^ self.number << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    }

    /// Reads a body to its end and tells whether it is this one.
    async fn compare(&self, received: &mut Received) -> Result<bool, BodyError> {
        let mut place = 0;
        let mut same = true;
        while let Some(chunk) = received.body().chunk().await? {
            same &= chunk.iter().zip(place..).all(|(&byte, place)| byte == self.byte(place));
            place += chunk.len() as u64;
        }
        Ok(same && place == self.length)
    }
}

impl BodySource for Pattern {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, max: usize) -> Read<'_> {
        let end = self.length.min(offset + max as u64);
        let bytes: Bytes = (offset..end).map(|place| self.byte(place)).collect();
        Box::pin(std::future::ready(Ok(bytes)))
    }
}

/// Where a message with this number goes: to Bob's device or to his identity, in turn.
fn goes_to_device(number: usize) -> bool {
    number % 2 == 1
}

/// What happened to each message.
#[derive(Default)]
struct Table([Row; SIZES.len()]);

#[derive(Default)]
struct Row {
    /// From sending to the relay's acknowledgement.
    stored: Option<Duration>,
    /// From the message's first byte to its last.
    collected: Option<Duration>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<Duration>| time.map_or("never".into(), |time| format!("{time:.1?}"));
        write!(f, "\n{:>12}  {:<10}{:>14}{:>16}", "bytes", "sent to", "on disk after", "collected in")?;
        for (number, (row, size)) in self.0.iter().zip(SIZES).enumerate() {
            let target = if goes_to_device(number) { "device" } else { "identity" };
            write!(f, "\n{size:>12}  {target:<10}{:>14}{:>16}", time(row.stored), time(row.collected))?;
        }
        Ok(())
    }
}

struct Narrator {
    start: Instant,
    json: bool,
}

impl Narrator {
    fn step(&self, what: &str) {
        self.line(&format!("{:>8.3} s  {what}", self.start.elapsed().as_secs_f64()));
    }

    fn line(&self, line: &str) {
        if self.json { eprintln!("{line}") } else { println!("{line}") }
    }
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
