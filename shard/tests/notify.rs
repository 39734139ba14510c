//! The service manager's side of the binary: what it is told, and sockets that outlive the relay.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use client::{Client, ClientProfile, Config as ClientConfig, Register, RelayIdentity, SecurityProfile};
use rustix::process::{Pid, Signal, kill_process};
use shard::init::init;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tuning::Config;

const PATIENCE: Duration = Duration::from_secs(30);

/// A service manager with one service, which listens for it and hears what it says.
struct Manager {
    folder: TempDir,
    config: PathBuf,
    identity: RelayIdentity,
    listener: TcpListener,
    heard: UnixDatagram,
    service: Option<Child>,
}

impl Manager {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut config = Config::new("grooveDNS://test.localhost");
        config.listen.sstp = vec![listener.local_addr().unwrap()];
        config.shards.count = 2;
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.timers.return_time = Duration::from_secs(1);
        config.timers.return_time_spread = Duration::ZERO;
        change(&mut config);
        let made = init(folder.path(), &config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        let heard = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { folder, config: made.config, identity, listener, heard, service: None }
    }

    /// Starts the relay as systemd would, the listening socket as descriptor 3 under this name. A shell moves it there and
    /// knows the number of the process that will be the relay.
    fn start(&mut self, name: &str) {
        let socket: OwnedFd = self.listener.try_clone().unwrap().into();
        let take_place = "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec 3<&0 </dev/null; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", take_place, env!("CARGO_BIN_EXE_relayd"), "run", "--config"]).arg(&self.config);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "2000000");
        command.stdin(Stdio::from(socket)).stderr(Stdio::piped());
        self.service = Some(command.spawn().unwrap());
    }

    /// Hears until a message has this line, and gives all of that message.
    fn hear(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let length = self.heard.recv(&mut buffer).expect(line);
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|said| said == line) {
                return message;
            }
        }
        panic!("{line} was not said");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.service.as_ref().unwrap()), signal).unwrap();
    }

    /// Waits for the relay's end.
    fn wait(&mut self) -> (ExitStatus, String) {
        let output = self.service.take().unwrap().wait_with_output().unwrap();
        (output.status, String::from_utf8(output.stderr).unwrap())
    }

    fn stop(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("too slow")
}

#[test]
fn the_manager_is_told_of_ready_watchdog_reload_and_stop() {
    let mut manager = Manager::new(|_| {});
    manager.start("sstp");
    assert!(manager.hear("READY=1").contains("STATUS=serving"));
    manager.hear("WATCHDOG=1");
    manager.hear("WATCHDOG=1");
    manager.signal(Signal::HUP);
    assert!(manager.hear("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hear("READY=1");
    manager.signal(Signal::TERM);
    manager.hear("STOPPING=1");
    assert!(manager.wait().0.success());
}

#[tokio::test]
async fn who_connects_while_the_relay_is_down_is_served_when_it_is_up() {
    let mut manager = Manager::new(|_| {});
    let register = |client: Client, profile: &ClientProfile| {
        let register = Register::new().identity(profile.identities[0].clone());
        async move { in_time(client.register(register)).await.unwrap() }
    };
    // Nobody has ever accepted here.
    let profile = ClientProfile::generate_in(manager.identity.clone(), SecurityProfile::Modern);
    let early = Client::connect(ClientConfig::new(profile.clone())).unwrap();
    manager.start("sstp");
    manager.hear("READY=1");
    register(early, &profile).await;
    assert!(manager.stop().0.success());
    // And between two runs, more of them than there are shards.
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let profile = ClientProfile::generate_in(manager.identity.clone(), SecurityProfile::Modern);
            (Client::connect(ClientConfig::new(profile.clone())).unwrap(), profile)
        })
        .collect();
    manager.start("sstp");
    for (client, profile) in waiting {
        register(client, &profile).await;
    }
    let (status, log) = manager.stop();
    assert!(status.success());
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[test]
fn a_manager_that_hangs_does_not_keep_the_relay_from_ending() {
    let mut manager = Manager::new(|_| {});
    manager.start("sstp");
    manager.hear("READY=1");
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    filler.connect(manager.folder.path().join("notify")).unwrap();
    // Whoever says more waits until something of it is read, which nobody does.
    while filler.send(b"STATUS=full").is_ok() {}
    manager.signal(Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while manager.service.as_mut().unwrap().try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the relay hangs with its manager");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, log) = manager.wait();
    assert!(status.success());
    assert!(log.contains("the service manager cannot be told"), "{log}");
}

#[test]
fn a_killed_relay_leaves_a_socket_that_its_successor_can_use() {
    let mut manager = Manager::new(|_| {});
    // As a relay leaves it that is killed in the middle of an accept.
    manager.listener.set_nonblocking(true).unwrap();
    manager.start("sstp");
    manager.hear("READY=1");
    // Left as it was, each accept would fail at once, ten times a second.
    manager.hear("WATCHDOG=1");
    let (status, log) = manager.stop();
    assert!(status.success());
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[test]
fn a_socket_for_tls_needs_a_configuration_for_tls() {
    let mut manager = Manager::new(|_| {});
    manager.start("tls");
    let (status, log) = manager.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("listen.tls is empty"), "{log}");
}

#[test]
fn a_socket_with_a_name_that_stands_for_nothing_is_refused() {
    let mut manager = Manager::new(|_| {});
    manager.start("ssh");
    let (status, log) = manager.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("a socket named \"ssh\""), "{log}");
}

#[test]
fn a_reload_obeys_what_can_change_and_names_what_waits_for_a_restart() {
    let mut manager = Manager::new(|_| {});
    manager.start("sstp");
    manager.hear("READY=1");
    let written = std::fs::read_to_string(&manager.config).unwrap();
    let changed = written
        .replace("#lifetime = \"30 days\"", "lifetime = \"2 days\"")
        .replace("#backlog = 4096", "backlog = 100");
    assert_ne!(changed, written);
    std::fs::write(&manager.config, &changed).unwrap();
    manager.signal(Signal::HUP);
    manager.hear("RELOADING=1");
    assert!(manager.hear("READY=1").contains("waiting for a restart: listen.backlog"));
    // A mistake changes nothing.
    std::fs::write(&manager.config, changed.replace("lifetime = \"2 days\"", "lifetime = \"soon\"")).unwrap();
    manager.signal(Signal::HUP);
    manager.hear("RELOADING=1");
    assert!(manager.hear("READY=1").contains("wrong and was not taken"));
    let (status, log) = manager.stop();
    assert!(status.success());
    let line = |words: &str| {
        log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"))
    };
    assert!(line("a changed key is obeyed from now on").contains("mail.lifetime"));
    assert!(line("a changed key waits for a restart").contains("listen.backlog"));
    assert!(line("the configuration stays as it was").contains("mail.lifetime: \"soon\""));
}
