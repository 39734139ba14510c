//! A management server and its relay over real HTTP: every operation and what it does to clients that are there, every fault,
//! and what survives a restart.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use client::*;
use relay_core::directory::SecretKey;
use relay_core::spmr::{
    CONTENT_TYPE, Defaults, ListedUser, Load, Manager, ManagerError, ManagerKeys, Outcome, Progress, Request,
    UserSource,
};
use shard::init::init;
use shard::server::Server;
use shard::users::Users;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tuning::Registration;
use tuning::operator::{self, Answer};

const NAME: &str = "msrv1.example";

/// A relay with a management port, and its management server.
struct Pair {
    directory: TempDir,
    server: Option<Server>,
    config: tuning::Config,
    identity: RelayIdentity,
    manager: Manager,
    entropy: SystemEntropy,
    address: SocketAddr,
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Pair {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut tuning::Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut entropy = SystemEntropy::default();
        let keys = ManagerKeys::generate(NAME, SecurityProfile::Modern, &mut entropy).unwrap();
        let address = free();
        let mut config = tuning::Config::new("grooveDNS://relay.example");
        config.listen.sstp = vec![free()];
        config.shards.count = 2;
        config.shards.pin = false;
        config.storage.segment_bytes = 4 << 20;
        config.timers.retry_time = Duration::from_secs(1);
        config.timers.return_time = Duration::from_secs(1);
        config.timers.return_time_spread = Duration::ZERO;
        config.management.listen = vec![address];
        config.management.servers.insert(NAME.into(), keys.public());
        change(&mut config);
        let made = init(directory.path(), &config).unwrap();
        let config = tuning::Config::load(&made.config).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        let manager = Manager::new(keys, identity.public_keys.clone());
        let server = Some(Server::start(&config).unwrap());
        Self { directory, server, config, identity, manager, entropy, address }
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }

    fn restart(&mut self) {
        self.stop();
        self.server = Some(Server::start(&self.config).unwrap());
    }

    fn url(&self) -> String {
        format!("http://{}/any/path", self.address)
    }

    fn document(&mut self, request: Request) -> Vec<u8> {
        self.manager.ask(request, &mut self.entropy);
        self.manager.document(&mut self.entropy).unwrap().unwrap()
    }

    fn ask(&mut self, request: Request) -> Result<Outcome, ManagerError> {
        self.manager.ask(request, &mut self.entropy);
        loop {
            let document = self.manager.document(&mut self.entropy)?.unwrap();
            let (_, answer) = post(&self.url(), &document);
            if let Progress::Done(outcome) = self.manager.answered(&answer, &mut self.entropy)? {
                return Ok(outcome);
            }
        }
    }

    /// Lists users as a management server does, whatever that takes.
    fn load(&mut self, users: Vec<ListedUser>) -> Load {
        let mut source = Source { users, next: 0 };
        let mut load = Load::new(2, false);
        while let Some(request) = load.next_request(&mut source).unwrap() {
            let outcome = self.ask(request).unwrap();
            load.answered(outcome).unwrap();
        }
        load
    }

    fn person(&self) -> ClientProfile {
        ClientProfile::generate(self.identity.clone())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop();
        }
    }
}

struct Source {
    users: Vec<ListedUser>,
    next: usize,
}

impl UserSource for Source {
    type Error = std::convert::Infallible;

    fn next_user(&mut self) -> Result<Option<ListedUser>, Self::Error> {
        self.next += 1;
        Ok(self.users.get(self.next - 1).cloned())
    }

    fn rewind(&mut self) -> Result<(), Self::Error> {
        self.next = 0;
        Ok(())
    }
}

fn post(url: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = agent.post(url).header("Content-Type", CONTENT_TYPE).send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
}

/// The code of a fault.
fn fault(body: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(body).unwrap();
    let (_, rest) = text.split_once("<faultCode>")?;
    rest.split_once('<')?.0.parse().ok()
}

fn listed(person: &ClientProfile, token: &str) -> ListedUser {
    ListedUser {
        account: person.account_url.clone(),
        identities: person.identities.clone(),
        token: Some(SecretKey::new(token.as_bytes().to_vec())),
        quota_bytes: None,
        lifetime_seconds: None,
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("too slow")
}

async fn register(person: &ClientProfile, token: &str) -> Result<Client, RegistrationError> {
    let client = Client::connect(Config::new(person.clone())).unwrap();
    let register = Register::new().token(token.as_bytes().to_vec()).identity(person.identities[0].clone());
    in_time(client.register(register)).await.map(|()| client)
}

async fn send(from: &Client, to: &ClientProfile, body: &'static str) -> Result<Receipt, SendError> {
    in_time(in_time(from.send(Message::to(to.identities[0].clone()).body(body))).await?).await
}

async fn receive(client: &Client) -> Vec<u8> {
    let mut incoming = client.incoming();
    let mut received = in_time(incoming.recv()).await.expect("the client is open");
    let body = in_time(received.bytes(1 << 20)).await.unwrap().to_vec();
    received.acknowledge();
    body
}

async fn wait_for(client: &Client, told: impl FnMut(&State) -> bool) {
    let mut state = client.state();
    in_time(state.wait_for(told)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_contact_registers_builds_and_lists_and_listed_users_register_with_their_tokens() {
    let mut pair = Pair::with(|config| config.security.registration = Registration::PreAuthenticated);
    let (alice, bob, eve) = (pair.person(), pair.person(), pair.person());
    assert_eq!(pair.ask(Request::UserAdd(vec![listed(&alice, "a")])), Ok(Outcome::NeedsBuild));
    let others = (0..4).map(|_| listed(&pair.person(), "x"));
    let users = [listed(&alice, "a")].into_iter().chain(others).collect();
    let load = pair.load(users);
    assert_eq!((load.added(), load.rebuilt()), (5, true));
    let load = pair.load(vec![listed(&bob, "b")]);
    assert_eq!((load.added(), load.rebuilt()), (1, false));

    assert!(register(&eve, "a").await.is_err());
    assert!(register(&alice, "b").await.is_err());
    let a = register(&alice, "a").await.unwrap();
    // Bob is listed: mail may wait for him before he has ever been here.
    send(&a, &bob, "hello").await.unwrap();
    let b = register(&bob, "b").await.unwrap();
    assert_eq!(receive(&b).await, b"hello");

    let open = Defaults { pre_authentication: Some(false), ..Defaults::default() };
    assert_eq!(pair.ask(Request::RelayDefault(open)), Ok(Outcome::Success));
    register(&eve, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_user_is_sent_away_and_refused_until_enabled() {
    let mut pair = Pair::start();
    let (alice, bob) = (pair.person(), pair.person());
    let (a, b) = (register(&alice, "").await.unwrap(), register(&bob, "").await.unwrap());
    send(&a, &bob, "before").await.unwrap();
    assert_eq!(receive(&b).await, b"before");
    let account = bob.account_url.clone();
    let unknown = AccountUrl::new("grooveAccount://nobody@").unwrap();
    let modify = |locked_out| Request::AccountModify(vec![(account.clone(), locked_out)]);
    assert_eq!(pair.ask(modify(true)), Ok(Outcome::Success));
    wait_for(&b, |state| matches!(state, State::Disconnected { .. })).await;
    assert!(send(&a, &bob, "refused").await.is_err());
    assert_eq!(pair.ask(Request::AccountModify(vec![(unknown, true)])), Ok(Outcome::UnknownUser));
    assert_eq!(pair.ask(modify(false)), Ok(Outcome::Success));
    let b = Client::connect(Config::new(bob.clone())).unwrap();
    in_time(b.ready()).await.unwrap();
    send(&a, &bob, "after").await.unwrap();
    assert_eq!(receive(&b).await, b"after");
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_mail_is_gone_and_the_user_stays() {
    let mut pair = Pair::start();
    let (alice, bob) = (pair.person(), pair.person());
    let (a, b) = (register(&alice, "").await.unwrap(), register(&bob, "").await.unwrap());
    b.close().await;
    for _ in 0..3 {
        send(&a, &bob, "old").await.unwrap();
    }
    let unknown = AccountUrl::new("grooveAccount://nobody@").unwrap();
    let purge = Request::UserPurge(vec![bob.account_url.clone(), unknown]);
    assert_eq!(pair.ask(purge), Ok(Outcome::UnknownUser));
    send(&a, &bob, "new").await.unwrap();
    let b = Client::connect(Config::new(bob)).unwrap();
    assert_eq!(receive(&b).await, b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_listed_or_set_as_default_holds_at_once() {
    let mut pair = Pair::start();
    let (alice, bob, carol) = (pair.person(), pair.person(), pair.person());
    let a = register(&alice, "").await.unwrap();
    for person in [&bob, &carol] {
        register(person, "").await.unwrap().close().await;
        send(&a, person, "0123456789").await.unwrap();
    }
    pair.load(vec![ListedUser { quota_bytes: Some(1_000_000), ..listed(&bob, "") }]);
    let a = Client::connect(Config::new(alice)).unwrap();
    in_time(a.ready()).await.unwrap();
    send(&a, &bob, "0123456789").await.unwrap();
    pair.load(vec![ListedUser { quota_bytes: Some(25), ..listed(&bob, "") }]);
    assert!(send(&a, &bob, "0123456789").await.is_err());
    send(&a, &carol, "0123456789").await.unwrap();
    let defaults = Defaults { quota_bytes: Some(25), ..Defaults::default() };
    assert_eq!(pair.ask(Request::RelayDefault(defaults)), Ok(Outcome::Success));
    assert!(send(&a, &carol, "0123456789").await.is_err());
    pair.server.as_ref().unwrap().reconfigure(&pair.config).unwrap();
    // This is answered once every shard has obeyed it, and so what came before.
    let other = Defaults { lifetime_seconds: Some(3600), ..Defaults::default() };
    assert_eq!(pair.ask(Request::RelayDefault(other)), Ok(Outcome::Success));
    assert!(send(&a, &carol, "0123456789").await.is_err(), "the default survives a reload");
    pair.restart();
    assert!(send(&a, &carol, "0123456789").await.is_err(), "the default survives a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiescent_relay_serves_nobody_and_an_active_one_goes_on_where_it_was() {
    let mut pair = Pair::start();
    let (alice, bob) = (pair.person(), pair.person());
    let (a, b) = (register(&alice, "").await.unwrap(), register(&bob, "").await.unwrap());
    b.close().await;
    send(&a, &bob, "kept").await.unwrap();
    for _ in 0..2 {
        assert_eq!(pair.ask(Request::RelayQuiescent(true)), Ok(Outcome::Success));
        wait_for(&a, |state| matches!(state, State::Disconnected { .. })).await;
    }
    let b = Client::connect(Config::new(bob)).unwrap();
    wait_for(&b, |state| matches!(state, State::Disconnected { .. })).await;
    assert_eq!(pair.ask(Request::RelayQuiescent(false)), Ok(Outcome::Success));
    assert_eq!(receive(&b).await, b"kept");
    in_time(a.ready()).await.unwrap();
    assert_eq!(pair.ask(Request::RelayQuiescent(false)), Ok(Outcome::Success));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_built_user_database_needs_to_be_built_after_a_restart_and_the_key_survives_it() {
    let mut pair = Pair::start();
    let (alice, bob) = (pair.person(), pair.person());
    pair.load(vec![listed(&alice, "a")]);
    let key = pair.manager.keys().shared().cloned();
    pair.stop();
    Users::open(&pair.config.relay.data_dir).unwrap().rebuild().unwrap();
    pair.server = Some(Server::start(&pair.config).unwrap());
    let add = |person| Request::UserAdd(vec![listed(person, "t")]);
    assert_eq!(pair.ask(add(&bob)), Ok(Outcome::NeedsBuild));
    assert_eq!(pair.ask(Request::RelayQuiescent(true)), Ok(Outcome::Success));
    assert_eq!(pair.ask(add(&bob)), Ok(Outcome::Success));
    pair.restart();
    assert_eq!(pair.ask(add(&bob)), Ok(Outcome::NeedsBuild));
    let purge = |person: &ClientProfile| Request::UserPurge(vec![person.account_url.clone()]);
    assert_eq!(pair.ask(purge(&alice)), Ok(Outcome::Success), "what was in force still is");
    assert_eq!(pair.ask(purge(&bob)), Ok(Outcome::UnknownUser));
    assert_eq!(pair.load(vec![listed(&bob, "t")]).added(), 1);
    assert_eq!(pair.ask(purge(&alice)), Ok(Outcome::UnknownUser));
    assert_eq!(pair.ask(purge(&bob)), Ok(Outcome::Success));
    assert_eq!(pair.manager.keys().shared().cloned(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_a_rebuild_and_what_was_in_force_stays() {
    let mut pair = Pair::start();
    let (alice, bob) = (pair.person(), pair.person());
    pair.load(vec![listed(&alice, "a")]);
    let a = register(&alice, "a").await.unwrap();
    pair.stop();
    Users::open(&pair.config.relay.data_dir).unwrap().rebuild().unwrap();
    pair.server = Some(Server::start(&pair.config).unwrap());
    let add = |person| Request::UserAdd(vec![listed(person, "t")]);
    assert_eq!(pair.ask(Request::RelayQuiescent(true)), Ok(Outcome::Success));
    assert_eq!(pair.ask(add(&bob)), Ok(Outcome::Success));
    wait_for(&a, |state| matches!(state, State::Disconnected { .. })).await;
    let mut operator = operator::Client::connect(&pair.config.operator_socket()).unwrap();
    let mut operate = |request| operator.ask(request, Duration::from_secs(10)).unwrap();
    let state = |answer| match answer {
        Answer::Status(status) => status.state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state(operate(operator::Request::Status)), "quiescent");
    assert_eq!(operate(operator::Request::EndDrain), Answer::Done);
    in_time(a.ready()).await.unwrap();
    assert_eq!(state(operate(operator::Request::Status)), "serving");
    let purge = |person: &ClientProfile| Request::UserPurge(vec![person.account_url.clone()]);
    assert_eq!(pair.ask(purge(&alice)), Ok(Outcome::Success));
    assert_eq!(pair.ask(purge(&bob)), Ok(Outcome::UnknownUser));
    assert_eq!(pair.ask(add(&bob)), Ok(Outcome::NeedsBuild), "it is to be built as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_taken_once_also_after_a_restart() {
    let mut pair = Pair::start();
    assert_eq!(pair.ask(Request::RelayQuiescent(false)), Ok(Outcome::Success));
    let defaults = Defaults { lifetime_seconds: Some(100), ..Defaults::default() };
    let document = pair.document(Request::RelayDefault(defaults));
    assert_eq!(post(&pair.url(), &document).0, 200);
    let (status, body) = post(&pair.url(), &document);
    assert_eq!((status, fault(&body)), (500, Some(305)));
    pair.restart();
    assert_eq!(fault(&post(&pair.url(), &document).1), Some(305));
}

/// Says it with curl; gives status and body.
fn curl(pair: &Pair, arguments: &[&str], body: &[u8]) -> (String, Vec<u8>) {
    let (sent, got) = (pair.directory.path().join("sent"), pair.directory.path().join("got"));
    std::fs::write(&sent, body).unwrap();
    let _ = std::fs::remove_file(&got);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--write-out", "%{http_code} %{content_type}"])
        .args(["--data-binary", &format!("@{}", sent.display()), "--output"])
        .arg(&got)
        .args(arguments)
        .arg(pair.url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), std::fs::read(&got).unwrap_or_default())
}

const XML: [&str; 2] = ["-H", "Content-Type: text/xml"];

/// Asks with curl.
fn ask_with_curl(pair: &mut Pair, request: Request) -> Outcome {
    let operation = request.operation().name();
    let document = pair.document(request);
    let (status, answer) = curl(pair, &XML, &document);
    assert_eq!(status, "200 text/xml; charset=utf-8", "{operation}: {}", String::from_utf8_lossy(&answer));
    let envelope = String::from_utf8(answer.clone()).unwrap();
    assert!(envelope.contains(&format!("<{operation}Response>")), "{envelope}");
    match pair.manager.answered(&answer, &mut pair.entropy).unwrap() {
        Progress::Done(outcome) => outcome,
        Progress::Continue => panic!("{operation} is not done"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_with_each_outcome_that_it_has_is_answered_to_curl() {
    let mut pair = Pair::start();
    pair.manager.register(&mut pair.entropy);
    let document = pair.manager.document(&mut pair.entropy).unwrap().unwrap();
    let (status, answer) = curl(&pair, &XML, &document);
    assert_eq!(status, "200 text/xml; charset=utf-8");
    let registered = pair.manager.answered(&answer, &mut pair.entropy);
    assert_eq!(registered, Ok(Progress::Done(Outcome::Success)));

    let (alice, nobody) = (pair.person(), pair.person());
    let add = || Request::UserAdd(vec![listed(&alice, "token")]);
    let modify = |person: &ClientProfile| Request::AccountModify(vec![(person.account_url.clone(), true)]);
    let purge = |person: &ClientProfile| Request::UserPurge(vec![person.account_url.clone()]);
    let defaults = Defaults { lifetime_seconds: Some(60), ..Defaults::default() };
    let conversation = [
        (add(), Outcome::NeedsBuild),
        (Request::RelayQuiescent(true), Outcome::Success),
        (add(), Outcome::Success),
        (Request::RelayQuiescent(false), Outcome::Success),
        (add(), Outcome::Success),
        (modify(&alice), Outcome::Success),
        (modify(&nobody), Outcome::UnknownUser),
        (purge(&alice), Outcome::Success),
        (purge(&nobody), Outcome::UnknownUser),
        (Request::RelayDefault(defaults), Outcome::Success),
    ];
    for (request, outcome) in conversation {
        let operation = request.operation();
        assert_eq!(ask_with_curl(&mut pair, request), outcome, "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_reaches_curl_as_an_envelope_with_status_500() {
    let mut pair = Pair::with(|config| config.management.body_bytes = 64 << 10);
    let xml = XML;
    let document = String::from_utf8({
        pair.manager.register(&mut pair.entropy);
        pair.manager.document(&mut pair.entropy).unwrap().unwrap()
    })
    .unwrap();
    let body = |inner: &str| format!("<Envelope><Body>{inner}</Body></Envelope>");
    let fragment = |text: &str| {
        let data = base64(text.as_bytes());
        body(&format!("<userAdd><Payload data='{data}'/></userAdd>"))
    };
    let payload = |server: &str, inner: &str| {
        fragment(&format!(
            "<g:fragment><Payload ManagementServer='{server}' Method='userAdd'><g:SE>{inner}</g:SE></Payload></g:fragment>"
        ))
    };
    let secured = "<g:Enc EC='AAAA' IV='AAAAAAAAAAAAAAAAAAAAAAAAAAA='/><g:Auth MAC='AAAA'/>";
    let cases: &[(&[&str], String, u16)] = &[
        (&["-H", "Content-Type:"], document.clone(), 301),
        (&xml, body("<userAdd/>"), 303),
        (&xml, payload(NAME, secured), 304),
        (&xml, body("<userRemove/>"), 309),
        (&xml, "no XML".into(), 310),
        (&xml, "x".repeat(70_000), 310),
        (&xml, String::new(), 311),
        (&xml, payload(NAME, ""), 312),
        (&xml, document.replace("<Registration>", "<userAdd>").replace("</Registration>", "</userAdd>"), 312),
    ];
    for (arguments, body, code) in cases {
        let (status, answer) = curl(&pair, arguments, body.as_bytes());
        assert_eq!(status, "500 text/xml; charset=utf-8");
        assert_eq!(fault(&answer), Some(*code), "{body}");
    }
    // Chunked, and with a wait for leave to continue, as curl does by itself with long bodies.
    let (status, answer) = curl(
        &pair,
        &["-H", "Content-Type: text/xml", "-H", "Transfer-Encoding: chunked"],
        document.as_bytes(),
    );
    assert_eq!((status.as_str(), fault(&answer)), ("200 text/xml; charset=utf-8", None));
    assert!(pair.manager.answered(&answer, &mut pair.entropy).is_ok());
    let (_, answer) = curl(&pair, &xml, payload(NAME, secured).as_bytes());
    assert_eq!(fault(&answer), Some(305));
    let (status, _) = curl(&pair, &["-X", "GET"], b"");
    assert!(status.starts_with("405"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_server_that_is_not_configured_and_a_port_that_is_switched_off_say_so() {
    let nobody: fn(&mut tuning::Config) = |config| config.management.servers.clear();
    let off: fn(&mut tuning::Config) = |config| config.management.accept = false;
    for (change, expected) in [(nobody, 306), (off, 313)] {
        let mut pair = Pair::with(change);
        let refused = pair.ask(Request::RelayQuiescent(true)).unwrap_err();
        assert!(matches!(refused, ManagerError::Fault { code, .. } if code == expected), "{refused:?}");
        let document = pair.document(Request::RelayQuiescent(true));
        let (status, answer) = curl(&pair, &XML, &document);
        assert_eq!(
            (status.as_str(), fault(&answer).map(i64::from)),
            ("500 text/xml; charset=utf-8", Some(expected))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_arrive_in_time_holds_no_place() {
    use std::io::{Read, Write};
    let mut pair = Pair::with(|config| {
        config.management.clients = 1;
        config.management.timeout = Duration::from_millis(200);
    });
    let mut slow = std::net::TcpStream::connect(pair.address).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 9\r\n\r\nabc")
        .unwrap();
    let mut silent = std::net::TcpStream::connect(pair.address).unwrap();
    assert_eq!(pair.ask(Request::RelayQuiescent(false)), Ok(Outcome::Success));
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    silent.read_to_string(&mut String::new()).unwrap();
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number =
            chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (number >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}
