//! Operations: one thread that answers operators and Prometheus, and watches the machine. It never touches a shard's state: it
//! reads the [`Board`], and asks shards by [`crate::command::Command`]. A shard never waits for it.
//!
//! * `socket`: the operator's Unix socket; `requests`: what is done about a request; `restore`: taking a backup in.
//! * `http`: metrics and health; `metrics`: the text of them.
//! * `watch`: measures what [`crate::monitor`] judges, and tells the shards; `machine`: the measuring.

mod http;
mod machine;
mod metrics;
mod requests;
mod restore;
mod socket;
mod watch;

use crate::board::Board;
use crate::command::Shards;
use crate::events;
use crate::monitor::Monitor;
use crate::tls::Certificate;
use client::Clock;
use machine::Machine;
use relay_core::relay::ShardId;
use relay_core::time::Timestamp;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use storage::UserDatabase;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tuning::Config;

/// A shard that has not written its block for so long does not live: it writes several times a second.
const SILENCE: Duration = Duration::from_secs(5);
/// What may be under way when the thread ends, such as an answer, has so long to end.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long to wait after an accept that failed, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why the relay cannot be operated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationsError {
    /// The operator's socket cannot be made.
    #[error("operator.socket {}: {error}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A relay listens on the operator's socket.
    #[error("operator.socket {}: another relay listens there", .0.display())]
    SocketInUse(PathBuf),
    /// There is something at the path of the operator's socket that is no socket.
    #[error("operator.socket {}: there is something else at this path", .0.display())]
    NotASocket(PathBuf),
    /// An address for metrics cannot be listened on.
    #[error("metrics.listen {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The thread cannot be started.
    #[error("operations thread: {0}")]
    Thread(io::Error),
}

/// Where the relay is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Mail is being restored.
    Starting,
    /// All is as it should be.
    Serving,
    /// An operator has taken it out of service.
    Draining,
    /// A management server has.
    Quiescent,
    /// It ends.
    Stopping,
}

impl State {
    const ALL: [State; 5] =
        [State::Starting, State::Serving, State::Draining, State::Quiescent, State::Stopping];

    /// Its name for operators.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Serving => "serving",
            State::Draining => "draining",
            State::Quiescent => "quiescent",
            State::Stopping => "stopping",
        }
    }
}

/// What the thread works with.
#[derive(Debug)]
pub struct Surroundings {
    /// The way to the shards.
    pub shards: Shards,
    /// What they show.
    pub board: Arc<Board>,
    /// The users, whose keys an operator may clear.
    pub users: UserDatabase,
    /// What a reload reads again.
    pub certificate: Option<Certificate>,
    /// The clock that shards stamp their blocks with.
    pub clock: Clock,
    /// Whether a management server has made the relay quiescent.
    pub quiescent: Arc<AtomicBool>,
}

/// Everything that requests, metrics and the watch share.
#[derive(Debug)]
struct Deck {
    around: Surroundings,
    state: AtomicU8,
    started: Timestamp,
    monitor: Mutex<Monitor>,
    machine: Mutex<Machine>,
    metrics_at: Vec<SocketAddr>,
    interval: Duration,
    shutdown_grace: Duration,
    return_time: Duration,
    /// The relay's data folder.
    data: PathBuf,
    /// Held while a backup is taken in.
    restoring: tokio::sync::Mutex<()>,
}

impl Deck {
    fn state(&self) -> State {
        let state = State::ALL[usize::from(self.state.load(Ordering::Acquire)).min(State::ALL.len() - 1)];
        let quiescent = state == State::Serving && self.around.quiescent.load(Ordering::Acquire);
        if quiescent { State::Quiescent } else { state }
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Goes from one state to another, if it is the one.
    fn change_state(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shards that should have written their block and have not. Until the relay serves, none has to.
    fn silent_shards(&self) -> Vec<ShardId> {
        if self.state() == State::Starting {
            return Vec::new();
        }
        let now = self.around.clock.now();
        let silent = self.around.board.all().filter(|(_, shown)| now.since(shown.at) > SILENCE);
        silent.map(|(shard, _)| shard).collect()
    }
}

/// The open sockets, before there is anything to say on them.
#[derive(Debug)]
pub struct Doors {
    socket: std::os::unix::net::UnixListener,
    path: PathBuf,
    http: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Doors {
    /// Opens the operator's socket and listens for metrics. The user database has to be open already: who holds it may remove
    /// what an earlier relay left behind.
    ///
    /// # Errors
    /// [`OperationsError`].
    pub fn open(config: &Config) -> Result<Self, OperationsError> {
        let path = config.operator_socket();
        let socket = socket::bind(&path)?;
        let mut http = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.metrics.listen {
            let failed = |error| OperationsError::Listen { address, error };
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            if !bound.ip().is_loopback() {
                tracing::warn!(event = events::METRICS_EXPOSED, address = %bound, "metrics can be read from other machines");
            }
            addresses.push(bound);
            http.push(listener);
        }
        Ok(Self { socket, path, http, addresses })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`OperationsError::Thread`].
    pub fn start(self, config: &Config, around: Surroundings) -> Result<Operations, OperationsError> {
        let shards = u64::from(around.board.shards());
        let deck = Arc::new(Deck {
            started: around.clock.now(),
            state: AtomicU8::new(State::Starting as u8),
            monitor: Mutex::new(Monitor::new(&config.monitor)),
            machine: Mutex::new(Machine::new(
                config.relay.data_dir.clone(),
                shards * config.limits.connections_per_shard as u64,
            )),
            metrics_at: self.addresses,
            interval: config.monitor.interval,
            shutdown_grace: config.timers.shutdown_grace,
            return_time: config.timers.return_time,
            data: config.relay.data_dir.clone(),
            restoring: tokio::sync::Mutex::new(()),
            around,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OperationsError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let (this, socket, http) = (deck.clone(), self.socket, self.http);
        let work = move || {
            runtime.block_on(async {
                match serve(&this, socket, http) {
                    // An error as well as a word: whoever could have said it is gone.
                    Ok(()) => drop(stopped.await),
                    Err(error) => {
                        tracing::warn!(event = events::OPERATOR_ACCEPT_FAILED, %error, "an operator or a scraper could not be accepted");
                    }
                }
            });
            runtime.shutdown_timeout(FAREWELL);
        };
        let thread = std::thread::Builder::new()
            .name("operations".into())
            .spawn(work)
            .map_err(OperationsError::Thread)?;
        Ok(Operations { deck, thread, stop, path: self.path })
    }
}

/// Begins all that the thread does.
fn serve(
    deck: &Arc<Deck>,
    socket: std::os::unix::net::UnixListener,
    http: Vec<TcpListener>,
) -> io::Result<()> {
    tokio::spawn(socket::serve(UnixListener::from_std(socket)?, deck.clone()));
    for listener in http {
        tokio::spawn(http::serve(tokio::net::TcpListener::from_std(listener)?, deck.clone()));
    }
    tokio::spawn(watch::watch(deck.clone()));
    Ok(())
}

/// The running thread.
#[derive(Debug)]
pub struct Operations {
    deck: Arc<Deck>,
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    path: PathBuf,
}

impl Operations {
    /// Every shard listens.
    pub fn serving(&self) {
        self.deck.change_state(State::Starting, State::Serving);
    }

    /// The relay ends; operators may go on looking until [`Operations::join`].
    pub fn stopping(&self) {
        self.deck.set_state(State::Stopping);
    }

    /// Ends the thread and takes the operator's socket away.
    pub fn join(self) {
        // It may have panicked.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!(
                event = events::OPERATIONS_PANICKED,
                "the operations thread panicked; operators and metrics were not answered since"
            );
        }
        // Somebody may have removed it already; the next start removes what is left behind.
        let _ = std::fs::remove_file(&self.path);
    }
}
