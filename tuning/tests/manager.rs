//! `relayctl manager` against a relay's end of SPMR in this process: what it asks, what it prints, with which code it ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use client::{DeviceUrl, RelayIdentity, SystemEntropy};
use relay_core::security::RelayKeys;
use relay_core::spmr::{
    Command as Order, KeyLedger, LedgerFailed, ManagerPublicKey, MessageTrace, Outcome, Request, SharedKey,
    judge, write_fault,
};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc;
use tempfile::TempDir;

const NAME: &str = "msrv1.example";

/// A relay whose user database needs to be built, and which does nothing else.
struct Relay {
    keys: RelayKeys,
    manager: ManagerPublicKey,
    shared: RefCell<Option<SharedKey>>,
    taken: RefCell<Vec<MessageTrace>>,
    quiescent: bool,
    ready: bool,
}

impl KeyLedger for Relay {
    fn shared_key(&self, _: &str) -> Result<Option<SharedKey>, LedgerFailed> {
        Ok(self.shared.borrow().clone())
    }

    fn was_taken(&self, _: &str, message: &MessageTrace) -> Result<bool, LedgerFailed> {
        Ok(self.taken.borrow().contains(message))
    }

    fn is_former_key(&self, _: &str, _: &[u8; 32]) -> Result<bool, LedgerFailed> {
        Ok(false)
    }

    fn public_key(&self, server: &str) -> Option<ManagerPublicKey> {
        (server == NAME).then(|| self.manager.clone())
    }
}

impl Relay {
    /// Answers one body; says what was asked.
    fn answer(&mut self, body: &[u8], asked: &mpsc::Sender<String>) -> (u16, Vec<u8>) {
        let judged = match judge(Some(b"text/xml"), body, true, &self.keys, self) {
            Ok(judged) => judged,
            Err(error) => return (500, write_fault(error.fault_code(), &error.to_string())),
        };
        let outcome = match judged.command {
            Order::Share(key) => {
                *self.shared.borrow_mut() = Some(key);
                asked.send("register".into()).unwrap();
                Outcome::Success
            }
            Order::Do(request, trace) => {
                self.taken.borrow_mut().push(trace);
                self.perform(request, asked)
            }
        };
        (200, judged.reply.write(outcome, &mut SystemEntropy::default()))
    }

    fn perform(&mut self, request: Request, asked: &mpsc::Sender<String>) -> Outcome {
        let (text, outcome) = match request {
            Request::UserAdd(users) if self.ready || self.quiescent => {
                (format!("add {}", users.len()), Outcome::Success)
            }
            Request::UserAdd(_) => ("add nothing".into(), Outcome::NeedsBuild),
            Request::RelayQuiescent(quiescent) => {
                self.ready |= self.quiescent && !quiescent;
                self.quiescent = quiescent;
                (format!("quiescent {quiescent}"), Outcome::Success)
            }
            Request::UserPurge(_) => ("purge".into(), Outcome::UnknownUser),
            other => (format!("{other:?}"), Outcome::Success),
        };
        asked.send(text).unwrap();
        outcome
    }

    fn serve(mut self, listener: TcpListener, asked: mpsc::Sender<String>) {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.unwrap());
            while let Some(body) = read_body(&mut socket) {
                let (status, body) = self.answer(&body, &asked);
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                socket.get_mut().write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        }
    }
}

fn read_body(socket: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(body)
}

/// The files of a management server, and the relay that it manages.
struct Desk {
    folder: TempDir,
    url: String,
    asked: mpsc::Receiver<String>,
}

fn relayctl(arguments: &[&str]) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_relayctl")).args(arguments).output().unwrap();
    (status.code(), text(stdout), text(stderr))
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("manager.key");
        let (code, said, errors) = relayctl(&["manager", "init", keys.to_str().unwrap(), "--name", NAME]);
        assert_eq!(code, Some(0), "{errors}");
        let line = said.lines().last().unwrap().trim();
        let manager =
            line.strip_prefix("\"msrv1.example\" = \"").unwrap().trim_end_matches('"').parse().unwrap();
        // The line is right where it is to be put.
        let config = format!("relay.url = 'grooveDNS://h'\n[management.servers]\n{line}\n");
        assert_eq!(tuning::Config::parse(&config, "x").unwrap().management.servers[NAME], manager);
        let relay_keys = RelayKeys::generate(&mut SystemEntropy::default());
        let identity = RelayIdentity {
            relay_url: DeviceUrl::new("grooveDNS://relay").unwrap(),
            addresses: vec!["127.0.0.1:2492".into()],
            public_keys: relay_keys.public().clone(),
            tls: None,
            fallback: client::Fallback::default(),
        };
        std::fs::write(folder.path().join("relay.toml"), identity.to_toml()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let relay = Relay {
            keys: relay_keys,
            manager,
            shared: RefCell::default(),
            taken: RefCell::default(),
            quiescent: false,
            ready: false,
        };
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || relay.serve(listener, sender));
        Self { folder, url, asked }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, command: &[&str], rest: &[&str]) -> (Option<i32>, String, String) {
        let (keys, relay) = (self.path("manager.key"), self.path("relay.toml"));
        let common =
            ["--keys", keys.to_str().unwrap(), "--relay", relay.to_str().unwrap(), "--to", &self.url];
        relayctl(&[&["manager"], command, &common, rest].concat())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

#[test]
fn a_file_of_users_is_loaded_with_the_rebuild_that_the_relay_asks_for() {
    let desk = Desk::new();
    let users: String =
        (0..2500).map(|n| format!("grooveAccount://{n}@,grooveIdentity://{n}@,secret\n")).collect();
    let file = desk.path("users.csv");
    std::fs::write(&file, format!("account,identities,token\n{users}")).unwrap();
    let file = file.to_str().unwrap();
    let (code, said, errors) = desk.run(&["user", "add"], &["--file", file, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["users"], &report["rebuilt"]), (&2500.into(), &true.into()));
    assert!(report["peak_bytes"].as_u64().unwrap() > 0);
    let dance =
        ["register", "add nothing", "quiescent true", "add 1000", "add 1000", "add 500", "quiescent false"];
    assert_eq!(desk.asked(), dance);
    // The shared key is in the file now, and the database is there.
    let (code, said, _) = desk.run(&["user", "add"], &["--file", file, "--batch", "10000"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("2500 users added in "), "{said}");
    assert_eq!(desk.asked(), ["add 2500"]);
}

#[test]
fn a_rebuild_that_was_interrupted_is_taken_up_and_sends_everything_again() {
    let desk = Desk::new();
    let add = |desk: &Desk| desk.run(&["user", "add"], &["--account", "grooveAccount://a@"]);
    assert_eq!(add(&desk).0, Some(0));
    assert_eq!(desk.asked(), ["register", "add nothing", "quiescent true", "add 1", "quiescent false"]);
    let note = desk.path("manager.key.rebuilding");
    assert!(!note.exists());
    // What an interrupted program leaves behind; the relay by itself would take the user and stay quiescent.
    desk.run(&["quiesce"], &[]);
    std::fs::write(&note, format!("http://other/\n{}\n", desk.url)).unwrap();
    desk.asked();
    assert_eq!(add(&desk).0, Some(0));
    assert_eq!(desk.asked(), ["quiescent true", "add 1", "quiescent false"]);
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "http://other/\n");
    std::fs::write(&note, format!("{}\n", desk.url)).unwrap();
    assert_eq!(desk.run(&["activate"], &[]).0, Some(0));
    assert!(!note.exists());
}

#[test]
fn each_command_asks_for_what_it_says() {
    let desk = Desk::new();
    let account = "grooveAccount://a@";
    let cases: &[(&[&str], &[&str], &str, &str)] = &[
        (&["register"], &[], "register", "Registration: done\n"),
        (&["quiesce"], &[], "quiescent true", "RelayQuiescent: done\n"),
        (&["user", "add"], &["--account", account, "--quota", "1 kB"], "add 1", "1 users added in "),
        (&["activate"], &[], "quiescent false", "RelayQuiescent: done\n"),
        (
            &["user", "disable"],
            &[account],
            "AccountModify([(AccountUrl(grooveAccount://a@), true)])",
            "accountModify: done\n",
        ),
        (
            &["user", "enable"],
            &[account],
            "AccountModify([(AccountUrl(grooveAccount://a@), false)])",
            "accountModify: done\n",
        ),
        (
            &["defaults"],
            &["--quota", "1 MB", "--lifetime", "2 days", "--pre-authentication", "true", "--json"],
            "RelayDefault(Defaults { quota_bytes: Some(1000000), lifetime_seconds: Some(172800), \
             pre_authentication: Some(true) })",
            "{\"operation\":\"RelayDefault\",\"outcome\":\"success\"}\n",
        ),
    ];
    for (command, rest, asked, printed) in cases {
        let (code, said, errors) = desk.run(command, rest);
        assert_eq!(code, Some(0), "{errors}");
        assert!(said.starts_with(printed), "{said}");
        assert_eq!(desk.asked(), [*asked]);
    }
    let (code, said, _) = desk.run(&["user", "purge"], &[account, "--json"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(3), "{\"operation\":\"userPurge\",\"outcome\":\"unknown-user\"}\n")
    );
}

#[test]
fn what_is_wrong_is_said_with_code_2_and_what_fails_with_code_1() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["defaults"], &[]).0, Some(2));
    assert_eq!(desk.run(&["user", "add"], &[]).0, Some(2));
    assert_eq!(desk.run(&["user", "disable"], &["a b"]).0, Some(2));
    assert_eq!(desk.run(&["user", "add"], &["--account", "a", "--lifetime", "1 ms"]).0, Some(2));
    let (code, _, errors) = desk.run(&["user", "add"], &["--file", "/nonexistent"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("/nonexistent: No such file"), "{errors}");
    let keys = desk.path("manager.key");
    let (code, _, errors) = relayctl(&["manager", "init", keys.to_str().unwrap(), "--name", NAME]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("File exists"), "{errors}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, _, errors) = desk.run(&["quiesce"], &[]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("chmod 600"), "{errors}");
    assert_eq!(desk.asked(), Vec::<String>::new());
}
