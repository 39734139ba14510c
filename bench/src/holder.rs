//! A generator process of `run connections`: it opens authenticated connections from loopback addresses of its own and holds
//! them with keep-alives. Its parent reads one line when all are there, and ends it by closing its standard input.

use crate::clock;
use crate::failure::Failure;
use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::population::User;
use crate::sstp_wire::{Recipients, Role, SstpWire, encode};
use crate::wire::{Deaf, Wire};
use relay_core::security::ClientCredentials;
use relay_core::sstp::Command;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections from one address: far below the number of ephemeral ports, which are slow to find when they run out.
pub(crate) const PER_ADDRESS: u32 = 5_000;
/// Addresses from which holders connect.
pub(crate) const SOURCES: u32 = 65_000;
/// Handshakes under way at the same time.
const CONCURRENT: usize = 16;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a holder is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Hold {
    /// The relay
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// The keys of all users
    #[arg(long)]
    pub(crate) keys: PathBuf,
    /// The number of the first user
    #[arg(long)]
    pub(crate) first: u32,
    /// How many connections
    #[arg(long)]
    pub(crate) count: u32,
    /// A Noop goes out on every connection once in so many seconds
    #[arg(long)]
    pub(crate) keep_alive: u64,
}

/// What a holder says when it has connected.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Held {
    /// Connections that are authenticated.
    pub(crate) connections: u32,
    /// How long that took.
    pub(crate) seconds: f64,
    /// Why there are no more.
    pub(crate) stopped_by: Option<String>,
}

/// The loopback address from which the connection of a user comes.
pub(crate) fn source(user: u32) -> Ipv4Addr {
    let [_, _, high, low] = (user / PER_ADDRESS + 1).to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// A connection from a loopback address of choice.
///
/// # Errors
/// What the system says.
pub(crate) fn connect_from(address: SocketAddr, source: Ipv4Addr) -> io::Result<Link> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &address)?;
    let link = Link::adopt(TcpStream::from(socket))?;
    link.reset_on_close()?;
    Ok(link)
}

struct Holder {
    /// `None` for those that were closed before they had authenticated.
    links: Vec<Option<(Link, SstpWire)>>,
    /// The connection whose keep-alive is next, and when one was last sent.
    next: usize,
    last_noop: u64,
    /// Connections that were closed before they had authenticated.
    refused: u32,
    /// Between two Noops of one connection.
    keep_alive: Duration,
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
}

impl Holder {
    fn open(&mut self, options: &Hold, keys: &Arc<ClientCredentials>, user: u32) -> Result<(), LoadError> {
        let token = self.links.len();
        let mut link = connect_from(options.address, source(user))?;
        let role = Role {
            user: User::new(user),
            keys: keys.clone(),
            collects: true,
            recipients: Recipients::Nobody,
        };
        let mut wire = SstpWire::new(role);
        self.epoll.add(&link, token)?;
        wire.greet(&mut link.out);
        link.flush(&self.epoll, token)?;
        self.links.push(Some((link, wire)));
        Ok(())
    }

    /// Takes in what has come; gives the number of handshakes that ended, those that were refused among them.
    fn turn(&mut self, patience: Duration) -> Result<usize, LoadError> {
        self.epoll.wait(patience, &mut self.ready)?;
        let mut ended = 0;
        for event in std::mem::take(&mut self.ready) {
            let Some((link, wire)) = &mut self.links[event.token] else { continue };
            let was_ready = wire.is_ready();
            let open = link.receive(&mut self.scratch, |input, out| {
                wire.take(input, out, &mut Deaf).map_err(|error| LoadError::Wire { end: event.token, error })
            })?;
            if !open && was_ready {
                return Err(LoadError::Closed(event.token));
            }
            if !open {
                self.links[event.token] = None;
                self.refused += 1;
                ended += 1;
                continue;
            }
            if event.writable {
                link.unblock(&self.epoll, event.token)?;
            } else {
                link.flush(&self.epoll, event.token)?;
            }
            if wire.is_ready() && !was_ready {
                link.shrink();
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Opens all connections, some at a time.
    fn fill(&mut self, options: &Hold, keys: &Arc<ClientCredentials>) -> Result<(), LoadError> {
        let mut under_way = 0;
        let mut last = clock::now();
        let mut next = options.first;
        let end = options.first + options.count;
        while next < end || under_way > 0 {
            if self.refused > 0 {
                return Err(LoadError::TooSlow(
                    "the relay closed a connection before it had authenticated".into(),
                ));
            }
            while next < end && under_way < CONCURRENT {
                self.open(options, keys, next)?;
                next += 1;
                under_way += 1;
            }
            // Those that came first wait for the last ones, and must not be dropped as idle meanwhile.
            self.keep_alive()?;
            let ended = self.turn(Duration::from_millis(50))?;
            under_way -= ended;
            if ended > 0 {
                last = clock::now();
            } else if clock::now() - last > clock::nanoseconds(PATIENCE) {
                return Err(LoadError::TooSlow("a handshake was not answered".into()));
            }
        }
        Ok(())
    }

    fn authenticated(&self) -> u32 {
        self.links.iter().flatten().filter(|(_, wire)| wire.is_ready()).count() as u32
    }

    /// Sends a Noop on so many connections, in turn, as the time since the last one asks for.
    fn keep_alive(&mut self) -> Result<(), LoadError> {
        let now = clock::now();
        let passed = u128::from(now - self.last_noop) * self.links.len() as u128;
        let due = passed / u128::from(clock::nanoseconds(self.keep_alive));
        if due == 0 {
            return Ok(());
        }
        self.last_noop = now;
        for _ in 0..due.min(self.links.len() as u128) {
            self.next = (self.next + 1) % self.links.len();
            let Some((link, wire)) = &mut self.links[self.next] else { continue };
            if wire.is_ready() {
                encode(&Command::Noop { message_count: 0 }, &mut link.out);
                link.flush(&self.epoll, self.next)?;
                link.shrink();
            }
        }
        Ok(())
    }

    /// Keeps every connection alive, and reads what comes, until `over`.
    fn hold(&mut self, over: &AtomicBool) -> Result<(), LoadError> {
        while !over.load(Ordering::SeqCst) {
            self.keep_alive()?;
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

/// Connects, reports, and holds until standard input ends.
///
/// # Errors
/// [`Failure`], if a connection that was there is lost.
pub(crate) fn run(options: &Hold) -> Result<(), Failure> {
    let keys = std::fs::read(&options.keys).map_err(Failure::system("keys"))?;
    let keys = ClientCredentials::decode(&keys).map_err(|error| Failure::Wrong(error.to_string()))?;
    let epoll = Epoll::new().map_err(LoadError::from)?;
    let start = clock::now();
    let mut holder = Holder {
        links: Vec::new(),
        next: 0,
        last_noop: start,
        refused: 0,
        keep_alive: Duration::from_secs(options.keep_alive),
        epoll,
        ready: Vec::new(),
        scratch: Vec::new(),
    };
    let filled = holder.fill(options, &Arc::new(keys));
    let held = Held {
        connections: holder.authenticated(),
        seconds: (clock::now() - start) as f64 / 1e9,
        stopped_by: filled.err().map(|error| error.to_string()),
    };
    println!("{}", serde_json::to_string(&held).expect("numbers and a text have a JSON form"));
    io::stdout().flush().map_err(Failure::system("reporting"))?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    std::thread::spawn(move || {
        // Whatever ends it, the parent is gone or wants no more.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::SeqCst);
    });
    Ok(holder.hold(&over)?)
}
