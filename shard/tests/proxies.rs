//! Every carrier through real proxies, started here on loopback with configurations of their own: squid and tinyproxy for HTTP and CONNECT,
//! microsocks for SOCKS 5, and a proxy of ours that holds every message back until it has all of it.
//!
//! Where a proxy is not installed its tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod carriers;

use carriers::{PATIENCE, Relay, free_address, in_time, talk};
use client::{Carrier, Proxies};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const USER: &str = "furrow";
const PASSWORD: &str = "p@ss:word";
/// The same in a URL.
const USER_INFO: &str = "furrow:p%40ss%3aword@";

/// A proxy that runs as a child process and dies with this value.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program is; without it the test has to be skipped, and this says so.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        println!("SKIPPED: {program} is not installed; on Debian: apt-get install {program}");
    }
    found
}

fn start(mut command: Command, address: SocketAddr, directory: TempDir) -> Proxy {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut proxy = Proxy { child, address, _directory: directory };
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(began.elapsed() < PATIENCE, "the proxy does not listen");
        assert!(proxy.child.try_wait().unwrap().is_none(), "the proxy has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy
}

fn tinyproxy(with_password: bool) -> Option<Proxy> {
    let program = installed("tinyproxy")?;
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    // Its configuration has no colons or at signs in passwords.
    let password = if with_password { "BasicAuth furrow secret\n" } else { "" };
    let config = format!("Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\n{password}", address.port());
    let file = directory.path().join("tinyproxy.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-d").arg("-c").arg(file);
    Some(start(command, address, directory))
}

fn squid(with_password: bool) -> Option<Proxy> {
    let program = installed("squid")?;
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    // Squid drops the rights of root, and its user has to get in.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let folder = directory.path().display();
    let access = if with_password {
        let checker = directory.path().join("checker.sh");
        let script = format!(
            "#!/bin/sh\nwhile read line; do [ \"$line\" = '{USER} {PASSWORD}' ] && echo OK || echo ERR; done\n"
        );
        std::fs::write(&checker, script).unwrap();
        std::fs::set_permissions(&checker, std::fs::Permissions::from_mode(0o755)).unwrap();
        format!(
            "auth_param basic program {}\nauth_param basic children 1\nacl known proxy_auth REQUIRED\nhttp_access allow known\n",
            checker.display()
        )
    } else {
        "http_access allow all\n".into()
    };
    let config = format!(
        "http_port 127.0.0.1:{}\n{access}cache deny all\ncache_mem 8 MB\naccess_log none\nshutdown_lifetime 0 seconds\n\
         cache_log {folder}/cache.log\npid_filename none\ncoredump_dir {folder}\nvisible_hostname proxy.test\n\
         pinger_enable off\nnetdb_filename none\nmax_filedescriptors 1024\n",
        address.port()
    );
    let file = directory.path().join("squid.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-N").arg("-f").arg(file);
    Some(start(command, address, directory))
}

fn microsocks(with_password: bool) -> Option<Proxy> {
    let program = installed("microsocks")?;
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut command = Command::new(program);
    command.args(["-i", "127.0.0.1", "-p"]).arg(address.port().to_string());
    if with_password {
        command.args(["-u", USER, "-P", PASSWORD]);
    }
    Some(start(command, address, directory))
}

/// The proxy for everything that goes by HTTP.
fn by(address: SocketAddr, user_info: &str) -> Proxies {
    let url = format!("http://{user_info}{address}");
    Proxies::configured(Some(&url), Some(&url), None, &[]).unwrap()
}

fn by_socks(address: SocketAddr, user_info: &str) -> Proxies {
    Proxies::configured(None, None, Some(&format!("socks5://{user_info}{address}")), &[]).unwrap()
}

/// Mail passes in both directions.
async fn works(carrier: Carrier, proxies: Proxies) {
    let relay = Relay::start();
    let member = relay.member(carrier, proxies).await;
    let lengths: &[usize] = if carrier == Carrier::Polling { &[10, 50_000] } else { &[10, 300_000] };
    talk(&relay, &member, lengths).await;
    member.client.close().await;
}

/// No connection comes about.
async fn fails(carrier: Carrier, proxies: Proxies) {
    let relay = Relay::start();
    let profile = client::ClientProfile::generate(relay.identity.clone());
    let config = client::Config { carrier: Some(carrier), proxies, ..client::Config::new(profile) };
    let client = client::Client::connect(config).unwrap();
    let mut state = client.state();
    let given_up = |state: &client::State| matches!(state, client::State::Disconnected { .. });
    let state = *in_time(state.wait_for(given_up)).await.unwrap();
    assert!(
        matches!(state, client::State::Disconnected { cause: client::Disconnected::Unreachable, .. }),
        "{state:?}"
    );
}

/// One test for each carrier through one proxy.
macro_rules! through {
    ($($name:ident: $proxy:ident, $carrier:ident;)+) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(proxy) = $proxy(false) else { return };
            works(Carrier::$carrier, by(proxy.address, "")).await;
        }
    )+ };
}

through! {
    tinyproxy_connect: tinyproxy, Connect;
    tinyproxy_long_lived: tinyproxy, LongLived;
    tinyproxy_keep_alive: tinyproxy, KeepAlive;
    tinyproxy_polling: tinyproxy, Polling;
    squid_connect: squid, Connect;
    squid_long_lived: squid, LongLived;
    squid_keep_alive: squid, KeepAlive;
    squid_polling: squid, Polling;
    buffering_keep_alive: buffering, KeepAlive;
    buffering_polling: buffering, Polling;
}

#[tokio::test(flavor = "multi_thread")]
async fn squid_wants_a_password_on_every_way() {
    for carrier in [Carrier::Connect, Carrier::LongLived, Carrier::KeepAlive, Carrier::Polling] {
        let Some(proxy) = squid(true) else { return };
        works(carrier, by(proxy.address, USER_INFO)).await;
        fails(carrier, by(proxy.address, "furrow:wrong@")).await;
        fails(carrier, by(proxy.address, "")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tinyproxy_wants_a_password() {
    let Some(proxy) = tinyproxy(true) else { return };
    works(Carrier::Connect, by(proxy.address, "furrow:secret@")).await;
    fails(Carrier::Connect, by(proxy.address, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn microsocks_carries_mail() {
    let Some(proxy) = microsocks(false) else { return };
    works(Carrier::Socks, by_socks(proxy.address, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn microsocks_wants_a_password() {
    let Some(proxy) = microsocks(true) else { return };
    works(Carrier::Socks, by_socks(proxy.address, USER_INFO)).await;
    fails(Carrier::Socks, by_socks(proxy.address, "furrow:wrong@")).await;
    fails(Carrier::Socks, by_socks(proxy.address, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_buffering_proxy_keep_alive_is_found_by_itself() {
    let Some(proxy) = buffering(false) else { return };
    let relay = Relay::start();
    let mut identity = relay.identity.clone();
    identity.addresses = vec![free_address().to_string()];
    identity.fallback.tunnel.clear();
    let memory = tempfile::tempdir().unwrap();
    let proxies = Proxies::configured(Some(&format!("http://{}", proxy.address)), None, None, &[]).unwrap();
    let member = relay.member_of(identity, None, proxies, Some(memory.path().to_owned())).await;
    let remembered = std::fs::read_to_string(memory.path().join("carrier.toml")).unwrap();
    assert!(remembered.contains("\"keep-alive\""), "{remembered}");
    talk(&relay, &member, &[10]).await;
}

/// Stands in for [`Proxy`]: runs in threads of this process.
struct Buffering {
    address: SocketAddr,
}

/// A proxy that passes a request on when it has all of it, a response when it has all of it, and then closes both connections, as it
/// says to both.
fn buffering(_with_password: bool) -> Option<Buffering> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Who hangs up is served no further.
                let _ = pass_on(client);
            });
        }
    });
    Some(Buffering { address })
}

fn pass_on(mut client: TcpStream) -> std::io::Result<()> {
    let request = whole_message(&client)?;
    let text = String::from_utf8_lossy(&request);
    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let rest = target.strip_prefix("http://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut relay = TcpStream::connect(host)?;
    let from = request.windows(target.len()).position(|part| part == target.as_bytes()).unwrap_or_default();
    let request = [&request[..from], b"/", path.as_bytes(), &request[from + target.len()..]].concat();
    relay.write_all(&without_keep_alive(request))?;
    client.write_all(&without_keep_alive(whole_message(&relay)?))
}

/// A connection serves one request.
fn without_keep_alive(mut message: Vec<u8>) -> Vec<u8> {
    let keeps = b"Connection: Keep-Alive\r\n";
    while let Some(at) = message.windows(keeps.len()).position(|part| part == keeps) {
        message.splice(at..at + keeps.len(), *b"Connection: close\r\n");
    }
    message
}

/// A head, and a body of the length that it states.
fn whole_message(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let (mut message, mut length) = (String::new(), 0u64);
    loop {
        let before = message.len();
        reader.read_line(&mut message)?;
        let line = message[before..].trim();
        if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| *name == "Content-Length") {
            length = value.parse().unwrap_or_default();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut whole = message.into_bytes();
    reader.take(length).read_to_end(&mut whole)?;
    Ok(whole)
}
