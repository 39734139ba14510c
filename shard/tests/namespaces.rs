//! Two relays as two hosts: a network namespace for each, one cable between them, which is slow and is pulled in the middle
//! of a message. A machine that does not permit namespaces has loopback instead, where the other relay is stopped for as long
//! as the cable would be out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod running;

use client::{Message, Receipt, Recipient, SecurityProfile, SendError, StatusId};
use running::{Person, Relay, at, in_time, neighbours};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// Where clients find the relay of their own host. Different, so that neither takes itself for the other.
const LOCAL_PORTS: [u16; 2] = [2501, 2502];
/// After so long without a word a relay gives the other one up.
const IDLE: Duration = Duration::from_secs(6);
/// An outage that nobody is to notice.
const BRIEF: Duration = Duration::from_millis(500);
/// A message of which the cable carries only a part before it is pulled.
const LONG: usize = 2_000_000;
const SOME_OF_IT: Duration = Duration::from_millis(300);

/// A network namespace. It lasts as long as a process that sleeps in it, which ends by itself if we cannot end it.
struct Host(Child);

impl Host {
    fn new() -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "120"]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut host = Self(command.spawn()?);
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let start = Instant::now();
        // The first look may come before `unshare` has done its work.
        while std::fs::read_link(host.path()).is_ok_and(|its| its == ours) {
            if host.0.try_wait()?.is_some() || start.elapsed() > running::PATIENCE {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(host)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Moves this thread, and whatever it starts, to the host.
    fn enter(&self) -> io::Result<()> {
        enter(&File::open(self.path())?)
    }

    /// Does something there and comes back.
    fn inside<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let back = File::open("/proc/thread-self/ns/net")?;
        self.enter()?;
        let result = work();
        enter(&back)?;
        Ok(result)
    }

    fn run(&self, program: &str, arguments: &str) -> io::Result<()> {
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).stdin(Stdio::null()).stderr(Stdio::null());
        let status = self.inside(|| command.status())??;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("{program} {arguments}: {status}")))
        }
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is between the two relays.
enum Cable {
    /// A veth pair, slowed down if the machine can do that.
    Between([Host; 2], bool),
    /// Loopback, and the process that stands for the other end.
    Loopback(Pid),
}

/// Two hosts with a cable.
fn hosts() -> io::Result<([Host; 2], bool)> {
    let hosts = [Host::new()?, Host::new()?];
    for host in &hosts {
        host.run("ip", "link set lo up")?;
    }
    hosts[0].run("ip", &format!("link add one type veth peer name two netns {}", hosts[1].0.id()))?;
    for (host, (name, address)) in hosts.iter().zip(["one", "two"].into_iter().zip(ADDRESSES)) {
        host.run("ip", &format!("addr add {address}/24 dev {name}"))?;
        host.run("ip", &format!("link set {name} up"))?;
    }
    let slow =
        hosts[0].run("tc", "qdisc add dev one root tbf rate 20mbit burst 32kbit latency 400ms").is_ok();
    Ok((hosts, slow))
}

impl Cable {
    fn pull(&self) {
        match self {
            Cable::Between(hosts, _) => hosts[0].run("ip", "link set one down").unwrap(),
            Cable::Loopback(other) => kill_process(*other, Signal::STOP).unwrap(),
        }
    }

    fn plug_in(&self) {
        match self {
            Cable::Between(hosts, _) => hosts[0].run("ip", "link set one up").unwrap(),
            Cable::Loopback(other) => kill_process(*other, Signal::CONT).unwrap(),
        }
    }

    fn is_slow(&self) -> bool {
        matches!(self, Cable::Between(_, true))
    }

    /// Pulls it when a part of what is being sent has passed. On a fast one that moment cannot be met; then it is pulled first.
    async fn pull_in_mid_message(&self) {
        if self.is_slow() {
            tokio::time::sleep(SOME_OF_IT).await;
        }
        self.pull();
    }
}

fn relays(listen: [Vec<SocketAddr>; 2]) -> [Relay; 2] {
    neighbours([true, true], |number, config| {
        if !listen[number].is_empty() {
            config.listen.sstp = listen[number].clone();
        }
        config.timers.connect = Duration::from_secs(2);
        config.timers.keep_alive = Duration::from_secs(1);
        config.timers.idle = IDLE;
    })
}

/// Numbers of the messages that somebody has received, with how often each came.
type Received = BTreeMap<u32, u32>;

/// Takes messages of a person, every one of which is a number over and over, until told to stop.
async fn collect(person: &Person, mut over: watch::Receiver<bool>) -> Received {
    let mut received = Received::new();
    let mut incoming = person.client.incoming();
    loop {
        let message = tokio::select! {
            message = incoming.recv() => message,
            _ = over.wait_for(|over| *over) => return received,
        };
        let mut message = message.expect("the client is open");
        let Ok(body) = in_time(message.bytes(2 * LONG)).await else { continue };
        let number = u32::from_le_bytes(body[..4].try_into().unwrap());
        assert!(body.chunks(4).all(|piece| piece == number.to_le_bytes()), "message {number} is damaged");
        *received.entry(number).or_default() += 1;
        message.acknowledge();
    }
}

/// One who sends to a neighbour and to somebody at the other relay, and what became of each message.
struct Sender {
    person: Person,
    to: [Recipient; 2],
    outcomes: Vec<Result<Receipt, SendError>>,
}

impl Sender {
    fn message(&self, bytes: usize) -> Message {
        let body = (self.outcomes.len() as u32).to_le_bytes().repeat(bytes / 4);
        Message::to_recipient(self.to[0].clone()).and_to(self.to[1].clone()).body(body)
    }

    async fn send(&mut self, bytes: usize) -> Vec<(u16, StatusId)> {
        let outcome = self.person.send(self.message(bytes)).await;
        self.note(outcome)
    }

    fn note(&mut self, outcome: Result<Receipt, SendError>) -> Vec<(u16, StatusId)> {
        self.outcomes.push(outcome.clone());
        outcome.expect("there is always somebody left who gets it").failed
    }

    /// Sends short messages until one goes to everybody.
    async fn pass_again(&mut self) {
        let start = Instant::now();
        while !self.send(100).await.is_empty() {
            assert!(start.elapsed() < running::PATIENCE, "no message passes");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Sends a long message while something happens. The sender goes on talking to the neighbour meanwhile: the relay would
    /// else take it for idle about when it gives the silent link up, and it would send the message again.
    async fn send_while(&mut self, event: impl Future<Output = ()>) -> Vec<(u16, StatusId)> {
        let person = &self.person;
        let talk = async {
            loop {
                tokio::time::sleep(IDLE / 6).await;
                let word = u32::MAX.to_le_bytes().to_vec();
                let word = Message::to_recipient(self.to[0].clone()).body(word);
                // It is acknowledged behind the long one, for which nobody here waits.
                drop(in_time(person.client.send(word)).await.unwrap());
            }
        };
        let both = async { tokio::join!(person.send(self.message(LONG)), event).0 };
        let outcome = tokio::select! {
            outcome = both => outcome,
            never = talk => never,
        };
        self.note(outcome)
    }
}

/// The story; gives what became of every message.
async fn tell(mut sender: Sender, cable: &Cable) -> Vec<Result<Receipt, SendError>> {
    let nobody = Vec::new();
    for _ in 0..10 {
        assert_eq!(sender.send(100).await, nobody);
    }
    let brief = async {
        cable.pull_in_mid_message().await;
        tokio::time::sleep(BRIEF).await;
        cable.plug_in();
    };
    assert_eq!(sender.send_while(brief).await, nobody, "TCP sends again what was lost meanwhile");

    // Once this has passed, nothing of it is before what comes next.
    sender.pass_again().await;
    for attempt in 0.. {
        let lost = sender.send_while(cable.pull_in_mid_message()).await;
        let [(1, status)] = lost[..] else { panic!("{lost:?} for a link that said nothing for too long") };
        if status == StatusId::ConnectionClosed {
            break;
        }
        // Of a message that never began on the link it is the call that failed. On a slow one that is bad luck.
        assert_eq!(status, StatusId::HostNotReachable);
        if !cable.is_slow() {
            break;
        }
        assert!(attempt < 3, "no message was cut");
        cable.plug_in();
        sender.pass_again().await;
    }
    let unreachable = sender.send(100).await;
    assert_eq!(unreachable, [(1, StatusId::HostNotReachable)], "nobody answers a call");

    cable.plug_in();
    sender.pass_again().await;
    assert_eq!(sender.send(LONG).await, nobody);
    sender.outcomes
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs the story between two relays that run. This thread is at the first one's host; the other recipient's thread
/// goes to where `there` takes it.
fn run(relays: &[Relay; 2], cable: &Cable, there: impl FnOnce() + Send) {
    let (over, is_over) = watch::channel(false);
    let (introduce, introduced) = mpsc::channel();
    let is_over_there = is_over.clone();
    // With `over`, which goes before the scope waits for the other thread, even in a panic.
    std::thread::scope(move |scope| {
        let far = scope.spawn(move || {
            there();
            runtime().block_on(async {
                let person = Person::register(&relays[1], SecurityProfile::Modern).await;
                introduce.send(at(&person)).unwrap();
                collect(&person, is_over_there).await
            })
        });
        let there = introduced.recv_timeout(running::PATIENCE).expect("the other recipient is there");
        let (outcomes, near) = runtime().block_on(async {
            let near = Person::register(&relays[0], SecurityProfile::Modern).await;
            let person = Person::register(&relays[0], SecurityProfile::Legacy).await;
            let sender = Sender { person, to: [at(&near), there], outcomes: Vec::new() };
            let story = async {
                let outcomes = tell(sender, cable).await;
                // What is acknowledged may be on its way from a mailbox still.
                tokio::time::sleep(Duration::from_secs(1)).await;
                over.send(true).unwrap();
                outcomes
            };
            tokio::join!(story, collect(&near, is_over))
        });
        check(&outcomes, [&near, &far.join().unwrap()]);
    });
}

/// What was acknowledged for a recipient came. What was not need not have come. It came once, but for messages of the long
/// outage: it lasts as long as the relay's patience with clients, too, and a sender who waits for an acknowledgement that long
/// says nothing meanwhile, is dropped, and sends the message again to everybody.
fn check(outcomes: &[Result<Receipt, SendError>], received: [&Received; 2]) {
    for (number, outcome) in outcomes.iter().enumerate() {
        let receipt = outcome.as_ref().unwrap();
        for (index, received) in received.iter().enumerate() {
            let times = received.get(&(number as u32)).copied().unwrap_or(0);
            let failed = receipt.failed.iter().any(|(failed, _)| usize::from(*failed) == index);
            let in_outage = !receipt.failed.is_empty();
            let allowed = u32::from(!failed)..=1 + u32::from(in_outage);
            assert!(
                allowed.contains(&times),
                "message {number} came to recipient {index} {times} times: {receipt:?}"
            );
        }
    }
}

#[test]
fn a_cable_pulled_in_mid_message_loses_nothing_that_was_acknowledged() {
    let (hosts, slow) = match hosts() {
        Ok(hosts) => hosts,
        Err(error) => {
            eprintln!("NO NETWORK NAMESPACES HERE ({error}): two relays on loopback instead");
            return on_loopback();
        }
    };
    let listen = [0, 1].map(|n| {
        [format!("127.0.0.1:{}", LOCAL_PORTS[n]), format!("{}:2492", ADDRESSES[n])]
            .map(|address| address.parse().unwrap())
            .to_vec()
    });
    let mut relays = relays(listen);
    hosts[0].enter().unwrap();
    relays[0].run();
    hosts[1].inside(|| relays[1].run()).unwrap();
    let second = File::open(hosts[1].path()).unwrap();
    run(&relays, &Cable::Between(hosts, slow), || enter(&second).unwrap());
}

#[test]
fn a_relay_that_falls_silent_loses_nothing_that_was_acknowledged() {
    on_loopback();
}

fn on_loopback() {
    let mut relays = relays([Vec::new(), Vec::new()]);
    relays.iter_mut().for_each(Relay::run);
    let other = relays[1].id().expect("it was just started");
    run(&relays, &Cable::Loopback(other), || {});
}
