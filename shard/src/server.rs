//! The whole relay: the user database, the side thread and one worker thread for each shard, from start to stop.

use crate::activation::{Inherited, Spoken};
use crate::board::Board;
use crate::command::Shards;
use crate::descriptors::{self, Ear, Lines};
use crate::dialer::Resolver;
use crate::events;
use crate::homes;
use crate::leftover;
use crate::letter::Letter;
use crate::management::{Management, ManagementOptions};
use crate::mesh::{Mesh, Sender};
use crate::notify::{Pulse, Pulses};
use crate::operations::{Doors, Operations, OperationsError, Surroundings};
use crate::peers::{PeerError, read_peers};
use crate::placement::{PlacementError, place};
use crate::side::{Judge, Side};
use crate::tls::{Certificate, CertificateError};
use crate::worker::{Worker, WorkerOptions};
use client::Clock;
use glommio::{LocalExecutorBuilder, Placement};
use relay_core::relay::{PresenceConfig, RelayConfig, ShardId};
use relay_core::security::{KeyFileError, RelayKeys};
use relay_core::spmr::Defaults;
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{StorageError, UserDatabase};
use tuning::{Config, Deposit, Registration};
use zeroize::Zeroizing;

/// Entries of a shard's submission queue. With glommio's 128, what many connections ask for at once takes several calls:
/// 6 % fewer messages a second online (`relay-bench run online`, in turns).
const RING_DEPTH: usize = 1024;

/// Why a relay does not start, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The key file cannot be read.
    #[error("{}: {error}. `relayd init DIR` makes a key file", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The key file is readable by others.
    #[error("{}: others may read this key file (mode {mode:o}). Say: chmod 600 {}", .path.display(), .path.display())]
    KeyFileMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file holds no keys.
    #[error("{}: {error}", .path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
    /// The certificate for TLS.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Operators or metrics.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// Another relay of the configuration.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A folder cannot be made.
    #[error("{}: {error}", .path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The user database or a log.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No processors for the shards.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A thread, ring or socket.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: String,
        /// What the system said.
        error: String,
    },
    /// The service manager passes a socket for TLS, and the configuration says nothing of TLS.
    #[error(
        "the service manager listens on {0} for TLS, but listen.tls is empty. Give it that address, or say: \
         systemctl disable --now furrow-relayd-tls.socket"
    )]
    NoTls(SocketAddr),
    /// A shard died.
    #[error("shard {0} panicked")]
    ShardPanicked(u16),
}

/// A relay that serves.
pub struct Server {
    mesh: Arc<Mesh<Letter>>,
    shards: Vec<JoinHandle<Result<(), ServerError>>>,
    side: Side,
    operations: Operations,
    resolver: Resolver,
    certificate: Option<Certificate>,
    relay: Arc<RelayConfig>,
    pulses: Pulses,
    management: Option<Management>,
    users: UserDatabase,
}

impl Server {
    /// Starts a relay: replays its mail, and returns once every shard listens.
    ///
    /// # Errors
    /// [`ServerError`]; what was started is stopped again.
    pub fn start(config: &Config) -> Result<Server, ServerError> {
        Self::start_with(config, Vec::new())
    }

    /// As [`Server::start`], but accepts from `inherited` sockets: the addresses of listen.sstp are not bound if there are
    /// sockets for SSTP, and likewise those of listen.tls and listen.http.
    ///
    /// # Errors
    /// [`ServerError`]; what was started is stopped again.
    pub fn start_with(config: &Config, inherited: Vec<Inherited>) -> Result<Server, ServerError> {
        let bound = Bound::beside(config, &inherited)?;
        let inherited: Arc<[Inherited]> = inherited.into();
        let keys = Arc::new(read_keys(&config.relay.key_file)?);
        let certificate = read_certificate(config)?;
        let peers = read_peers(config, &keys)?;
        let data = &config.relay.data_dir;
        make_directory(data)?;
        let clock = Clock::start();
        // sled's threads inherit from whoever first has something written. All seven wake up for each write, and would do so
        // before the shards.
        let users = leftover::giving_way(|| {
            let users = UserDatabase::open_with_cache(data.join("users"), config.storage.user_cache_bytes)?;
            users.begin_noting_seen(clock.now().as_secs()).map(|()| users)
        })?;
        let doors = Doors::open(config)?;
        let cores = place(&config.shards)?;
        let shards = cores.len() as u16;
        let defaults = users.managers().defaults()?;
        let relay = Arc::new(RelayConfig { peers, ..with_defaults(relay_config(config, shards), defaults) });
        homes::settle(data, shards, config.storage.segment_bytes)?;
        // Before any shard's table parts from this one.
        let lines =
            config.shards.own_descriptors.then(|| Lines::open(shards)).transpose().map_err(lines_failed)?;
        let mesh = Mesh::with_lines(shards, config.limits.mesh_queue_items, lines);
        let judge = Judge {
            users: users.clone(),
            keys: keys.clone(),
            pre_authentication_required: config.security.registration == Registration::PreAuthenticated,
            clock,
        };
        let (side, door) = Side::start(mesh.clone(), judge, config.security.registration_threads)
            .map_err(|error| ServerError::System { what: "side threads".into(), error: error.to_string() })?;
        let (resolver, resolver_door) = Resolver::start(mesh.clone(), relay.peers.len())
            .map_err(|error| ServerError::System { what: "resolver".into(), error: error.to_string() })?;
        let (report, reports) = mpsc::channel();
        let board = Arc::new(Board::new(shards));
        let quiescent = Arc::new(AtomicBool::new(false));
        let around = Surroundings {
            shards: Shards::new(mesh.clone()),
            board: board.clone(),
            users: users.clone(),
            certificate: certificate.clone(),
            clock,
            quiescent: quiescent.clone(),
        };
        let operations = doors.start(config, around)?;
        let pulses = Pulses::new(shards);
        let mut server = Server {
            mesh: mesh.clone(),
            shards: Vec::new(),
            side,
            operations,
            resolver,
            certificate,
            relay: relay.clone(),
            pulses: pulses.clone(),
            users: users.clone(),
            management: None,
        };
        let mut gates = Vec::new();
        for (index, core) in (0..shards).zip(cores) {
            let (gate, opened) = mpsc::channel();
            let options = WorkerOptions {
                shard: ShardId(index),
                relay: relay.clone(),
                log_directory: storage::log_directory(data, index),
                segment_bytes: config.storage.segment_bytes,
                batch_bytes: config.storage.batch_bytes,
                listen: bound.sstp.clone(),
                listen_tls: server.certificate.clone().map(|shown| (bound.tls.clone(), shown)),
                listen_http: bound.http.clone(),
                poll_interval: config.http.poll_interval,
                bind_address: config.http.bind_address,
                inherited: inherited.clone(),
                pulse: pulses.of(ShardId(index)),
                backlog: config.listen.backlog,
                shutdown_grace: config.timers.shutdown_grace,
                users: users.clone(),
                mesh: mesh.clone(),
                side: door.clone(),
                board: board.clone(),
                resolver: resolver_door.clone(),
                dial_patience: config.timers.connect,
                clock,
            };
            server.shards.push(spawn_shard(core, options, report.clone(), opened)?);
            gates.push(gate);
        }
        drop((report, door, resolver_door));
        // Nobody listens before everybody has restored its mail, and nobody serves before everybody listens.
        for _stage in ["restored", "listening"] {
            let ready = (0..shards).filter(|_| reports.recv().is_ok()).count();
            if ready < usize::from(shards) {
                drop(gates);
                return Err(server.stop().err().unwrap_or(ServerError::ShardPanicked(0)));
            }
            for gate in &gates {
                // A shard that is gone by now is found when it is joined.
                let _ = gate.send(());
            }
        }
        let options = ManagementOptions {
            settings: config.management.clone(),
            patience: config.timers.shutdown_grace,
            users,
            keys,
            mesh,
            quiescent,
        };
        match Management::start(options) {
            Ok(management) => server.management = management,
            Err((what, error)) => {
                let failed = ServerError::System { what, error: error.to_string() };
                return Err(server.stop().err().unwrap_or(failed));
            }
        }
        let held: Vec<_> = inherited.iter().map(|socket| socket.address).collect();
        server.operations.serving();
        tracing::info!(event = events::RELAY_SERVES, shards, addresses = ?bound.sstp, tls = ?bound.tls, http = ?bound.http, inherited = ?held, "relay serves");
        Ok(server)
    }

    /// As [`reload`], for what this relay has.
    ///
    /// # Errors
    /// [`ServerError::Certificate`]; the old one stays.
    pub fn reload(&self) -> Result<(), ServerError> {
        Ok(reload(self.certificate.as_ref())?)
    }

    /// Obeys the limits and deadlines of `config` from now on, which differs from the running configuration only in keys
    /// that can change while the relay serves ([`Config::take_live`]). The defaults that management servers have set stand.
    ///
    /// # Errors
    /// [`ServerError::Storage`], if those cannot be read; nothing changes then.
    pub fn reconfigure(&self, config: &Config) -> Result<(), ServerError> {
        // Defaults that are set from now on reach the shards behind these letters.
        let _exclusive = self.users.exclusive();
        let relay = RelayConfig {
            half_open: self.relay.half_open.clone(),
            peers: self.relay.peers.clone(),
            ..with_defaults(relay_config(config, self.relay.shards), self.users.managers().defaults()?)
        };
        let relay = Arc::new(relay);
        for shard in (0..self.mesh.shards()).map(ShardId) {
            if self.mesh.push(Sender::Side, shard, Letter::Reconfigure(relay.clone())).is_err() {
                tracing::error!(event = events::SHARD_STUCK, shard = shard.0, "the shard reads no letters");
            }
            self.mesh.ring(shard);
        }
        Ok(())
    }

    /// What shows that the shards work.
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Checks what [`Server::start`] would check before it opens anything: the key file, the certificate, the other relays.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn check(config: &Config) -> Result<(), ServerError> {
        let keys = read_keys(&config.relay.key_file)?;
        read_peers(config, &keys)?;
        read_certificate(config).map(drop)
    }

    /// Stops the relay and waits for its end: what has been received is completed, peers are told when to return.
    ///
    /// # Errors
    /// What a shard died of, if one did.
    pub fn stop(self) -> Result<(), ServerError> {
        if let Some(management) = self.management {
            management.stop();
        }
        self.operations.stopping();
        for shard in (0..self.mesh.shards()).map(ShardId) {
            if self.mesh.push(Sender::Side, shard, Letter::Stop).is_err() {
                tracing::error!(event = events::SHARD_STUCK, shard = shard.0, "the shard reads no letters");
            }
            self.mesh.ring(shard);
        }
        let mut result = Ok(());
        for (index, shard) in self.shards.into_iter().enumerate() {
            let ended = shard.join().unwrap_or(Err(ServerError::ShardPanicked(index as u16)));
            result = result.and(ended);
        }
        self.operations.join();
        self.side.join();
        self.resolver.stop();
        result
    }
}

fn lines_failed(error: io::Error) -> ServerError {
    ServerError::System { what: "lines between shards".into(), error: error.to_string() }
}

/// Reads the certificate for TLS again, if TLS is on: new connections are shown the new one.
///
/// # Errors
/// What is wrong with the new one; the old one stays.
pub fn reload(certificate: Option<&Certificate>) -> Result<(), CertificateError> {
    let outcome = certificate.map_or(Ok(()), Certificate::reload);
    match &outcome {
        Ok(()) => tracing::info!(event = events::CERTIFICATE_READ, "the certificate was read again"),
        Err(error) => {
            tracing::error!(event = events::CERTIFICATE_KEPT, %error, "the certificate stays as it was")
        }
    }
    outcome
}

/// The addresses that the relay binds itself.
struct Bound {
    sstp: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
}

impl Bound {
    /// Those of the configuration, but for what `inherited` sockets stand for.
    fn beside(config: &Config, inherited: &[Inherited]) -> Result<Self, ServerError> {
        let held = |spoken| inherited.iter().filter(move |socket| socket.spoken == spoken);
        if config.listen.tls.is_empty()
            && let Some(socket) = held(Spoken::Tls).next()
        {
            return Err(ServerError::NoTls(socket.address));
        }
        let bound = |spoken, configured: &[SocketAddr], key| {
            if held(spoken).next().is_none() {
                return configured.to_vec();
            }
            for address in configured.iter().filter(|at| held(spoken).all(|socket| socket.address != **at)) {
                tracing::warn!(event = events::NOBODY_LISTENS, key, %address, "the configuration names an address that the socket unit does not have; nobody listens there");
            }
            Vec::new()
        };
        Ok(Self {
            sstp: bound(Spoken::Sstp, &config.listen.sstp, "listen.sstp"),
            tls: bound(Spoken::Tls, &config.listen.tls, "listen.tls"),
            http: bound(Spoken::Http, &config.listen.http, "listen.http"),
        })
    }
}

fn spawn_shard(
    core: Option<usize>,
    options: WorkerOptions,
    report: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
) -> Result<JoinHandle<Result<(), ServerError>>, ServerError> {
    let name = format!("shard-{}", options.shard.0);
    let failed = {
        let name = name.clone();
        move |error: String| ServerError::System { what: name.clone(), error }
    };
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    let thread_failed = failed.clone();
    let run = move || {
        if options.mesh.lines().is_some() {
            // Before the ring is there, which is to be in the shard's own table.
            descriptors::own_table().map_err(|error| failed(error.to_string()))?;
        }
        let executor = LocalExecutorBuilder::new(placement).ring_depth(RING_DEPTH).make();
        executor.map_err(|error| failed(error.to_string()))?.run(run_shard(options, report, gate))
    };
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|error| thread_failed(error.to_string()))
}

/// Restores, listens and serves; says so after the first two, and goes on when the gate opens. A gate that is gone means that
/// another shard has failed.
async fn run_shard(
    options: WorkerOptions,
    report: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
) -> Result<(), ServerError> {
    let pulse: Pulse = options.pulse.clone();
    let mesh = options.mesh.clone();
    let ear = mesh.lines().map(|lines| Ear::of(lines, options.shard)).transpose().map_err(lines_failed)?;
    let worker = Worker::open(options).await?;
    // Nothing else runs on this executor yet, so its thread may block.
    if report.send(()).is_err() || gate.recv().is_err() {
        return Ok(());
    }
    let listeners = worker.listen().map_err(|(address, error)| ServerError::System {
        what: format!("listening on {address}"),
        error: error.to_string(),
    })?;
    // Before it serves, so that it never looks dead.
    worker.publish();
    if report.send(()).is_err() || gate.recv().is_err() {
        return Ok(());
    }
    drop(report);
    worker.serve(listeners, ear).await;
    pulse.end();
    Ok(())
}

fn read_certificate(config: &Config) -> Result<Option<Certificate>, ServerError> {
    if config.listen.tls.is_empty() {
        return Ok(None);
    }
    Ok(Some(Certificate::load(&config.tls.certificate_file, &config.tls.key_file)?))
}

pub(crate) fn read_keys(path: &Path) -> Result<RelayKeys, ServerError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| ServerError::KeyFile { path: path.to_owned(), error };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ServerError::KeyFileMode { path: path.to_owned(), mode });
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(failed)?);
    RelayKeys::decode(&bytes).map_err(|error| ServerError::Keys { path: path.to_owned(), error })
}

fn make_directory(path: &Path) -> Result<(), ServerError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| ServerError::Directory { path: path.to_owned(), error })
}

/// The same with what a management server has set.
fn with_defaults(config: RelayConfig, defaults: Defaults) -> RelayConfig {
    RelayConfig {
        quota_per_identity: defaults.quota_bytes.unwrap_or(config.quota_per_identity),
        lifetime: defaults
            .lifetime_seconds
            .map_or(config.lifetime, |seconds| Duration::from_secs(seconds.into())),
        ..config
    }
}

/// The relay's limits and rules as the configuration gives them, but for the other relays, which take the keys.
pub fn relay_config(config: &Config, shards: u16) -> RelayConfig {
    let text =
        |text: &str| Text::new(text.as_bytes().to_vec()).expect("the configuration is checked to be ASCII");
    let urls = config.relay.url.iter().map(|url| text(url)).collect();
    let mut connection = ConnectionConfig::new(Endpoint::Relay, urls, text(&config.relay.product_version));
    connection.max_sessions = config.limits.sessions_per_connection;
    connection.max_message_bytes = config.limits.message_bytes;
    connection.max_held_bytes = config.limits.connection_in_flight_bytes as usize;
    connection.connect_deadline = config.timers.connect;
    connection.authenticate_deadline = config.timers.authenticate;
    connection.acknowledge_delay = config.timers.acknowledge;
    connection.keep_alive = config.timers.keep_alive;
    connection.idle_deadline = config.timers.idle;
    RelayConfig {
        max_connections: config.limits.connections_per_shard,
        max_connections_per_device: config.limits.connections_per_device,
        max_unauthenticated: config.limits.unauthenticated_per_shard,
        max_unauthenticated_per_address: config.limits.unauthenticated_per_address,
        failures_per_address_per_minute: config.limits.failures_per_address_per_minute as u32,
        registrations_per_address_per_minute: config.limits.registrations_per_address_per_minute as u32,
        tls_handshakes_per_address_per_minute: config.limits.tls_handshakes_per_address_per_minute as u32,
        max_fanout_recipients: config.limits.fanout_recipients,
        connection_in_flight_bytes: config.limits.connection_in_flight_bytes,
        shard_in_flight_bytes: config.limits.shard_in_flight_bytes,
        connection_output_bytes: config.limits.connection_output_bytes as usize,
        shard_output_bytes: config.limits.shard_output_bytes as usize,
        mesh_queue_items: config.limits.mesh_queue_items,
        deposit_by_anyone: config.mail.deposit == Deposit::Anyone,
        lifetime: config.mail.lifetime,
        abandoned_after: config.mail.abandoned_after,
        commit_delay: config.storage.commit_delay,
        quota_per_identity: config.mail.quota_per_identity,
        quota_per_device: config.mail.quota_per_device,
        presence: presence_config(config),
        retry_time: config.timers.retry_time,
        return_time: config.timers.return_time,
        return_time_spread: config.timers.return_time_spread,
        ..RelayConfig::new(Arc::new(connection), shards)
    }
}

fn presence_config(config: &Config) -> PresenceConfig {
    let presence = &config.presence;
    PresenceConfig {
        enabled: presence.enabled,
        window: presence.window,
        offline_damping: presence.offline_damping,
        max_subscriptions_per_connection: presence.subscriptions_per_connection,
        max_subscribers_per_device: presence.subscribers_per_device,
    }
}
