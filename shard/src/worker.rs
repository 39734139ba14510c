//! One shard: its relay, its log, its sockets and the tasks that carry between them, all on one executor.
//!
//! Every input to the relay is followed, before the executor sleeps, by one pass over its outputs (`Worker::flush`): however
//! many inputs came in meanwhile, each connection is sent to once and each shard is woken once.

mod accepting;
mod carrier;
mod http;
mod letters;
mod line;
mod log;
mod orders;
mod publish;
mod seen;

use crate::activation::Inherited;
use crate::board::Board;
use crate::descriptors::{Ear, Handover};
use crate::dialer::ResolverDoor;
use crate::events;
use crate::letter::Letter;
use crate::mesh::Mesh;
use crate::notify::Pulse;
use crate::restoring;
use crate::side::SideDoor;
use crate::tls::Certificate;
use crate::transport::{Listener, ReadBuffers};
use carrier::{Carrier, Fate};
use client::{Clock, DeviceUrl, SystemEntropy};
use glommio::spawn_local;
use glommio::timer::sleep;
use line::Door;
use relay_core::http::server::HttpServerConfig;
use relay_core::relay::{Action, ConnectionId, MeshItem, Relay, RelayConfig, ShardId};
use relay_core::sstp::connection::Ended;
use relay_core::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use storage::{LogOptions, MailboxLog, StorageError, UserDatabase};

/// How long a connection waits before it is handed over again to a home that had no room for it.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(1);

/// The timer task looks at least so often, since a new deadline may be earlier than the one that it sleeps for.
const LONGEST_SLEEP: Duration = Duration::from_millis(128);

/// What a shard needs to start.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Which shard.
    pub shard: ShardId,
    /// The relay's limits and rules.
    pub relay: Arc<RelayConfig>,
    /// The folder of its log.
    pub log_directory: PathBuf,
    /// Size of its segments.
    pub segment_bytes: u64,
    /// Payload bytes of one batch.
    pub batch_bytes: u64,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for TLS, and what to show there.
    pub listen_tls: Option<(Vec<SocketAddr>, Certificate)>,
    /// Where to listen for HTTP.
    pub listen_http: Vec<SocketAddr>,
    /// The poll interval that is dictated while there is little to do.
    pub poll_interval: Duration,
    /// A virtual connection belongs to the address that began it.
    pub bind_address: bool,
    /// Sockets to accept from in place of addresses.
    pub inherited: Arc<[Inherited]>,
    /// Shows that the shard works.
    pub pulse: Pulse,
    /// Connections that may wait to be accepted.
    pub backlog: usize,
    /// How long a shutdown may take.
    pub shutdown_grace: Duration,
    /// The users.
    pub users: UserDatabase,
    /// The way to the other shards.
    pub mesh: Arc<Mesh<Letter>>,
    /// The way to the side thread.
    pub side: SideDoor,
    /// Where it shows what it counts.
    pub board: Arc<Board>,
    /// The way to the resolver.
    pub resolver: ResolverDoor,
    /// How long another relay may take to answer a call.
    pub dial_patience: Duration,
    /// The time.
    pub clock: Clock,
}

/// A shard that has replayed its log and is ready to listen.
pub struct Worker {
    options: WorkerOptions,
    relay: RefCell<Relay>,
    log: MailboxLog,
    /// By the index of their ConnectionId.
    sockets: RefCell<Vec<Option<Rc<Carrier>>>>,
    buffers: RefCell<ReadBuffers>,
    door: Rc<Door>,
    /// Those that one shard accepts for all, the same on each shard.
    inherited: RefCell<Vec<Rc<Listener>>>,
    flush: Signal,
    append: Signal,
    /// Mail waits until there is room again.
    disk_full: Cell<bool>,
    touched: RefCell<Vec<ConnectionId>>,
    /// Connections that are read to their end.
    lingering: Cell<usize>,
    handover: Handover,
    /// Emptied letters of other shards.
    spare: RefCell<Vec<VecDeque<MeshItem>>>,
    /// Connections that wait for room at their home.
    waiting: Cell<usize>,
    meter: publish::Meter,
    /// What the timer task waits for, and how it is told of an earlier moment.
    due: Cell<Timestamp>,
    sooner: Signal,
    stopping: Cell<bool>,
    stopped: Signal,
}

/// A condition on which one task of the executor waits.
#[derive(Default)]
struct Signal {
    raised: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Signal {
    fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waiter.take()
        {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            self.waiter.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl Worker {
    /// Opens the shard's log and restores its mail.
    ///
    /// # Errors
    /// The log cannot be opened; the error says what to do.
    pub async fn open(options: WorkerOptions) -> Result<Rc<Self>, StorageError> {
        let log_options = LogOptions {
            directory: options.log_directory.clone(),
            segment_bytes: options.segment_bytes,
            shard: u32::from(options.shard.0),
            shards: u32::from(options.relay.shards),
        };
        let begun = Instant::now();
        let (log, replay) = MailboxLog::open(log_options).await?;
        restoring::report(options.shard, &replay, begun.elapsed());
        let mut relay = Relay::new(
            options.shard,
            options.relay.clone(),
            Box::new(options.users.clone()),
            Box::new(SystemEntropy::default()),
            options.clock.now(),
            replay.highest_id.0 + 1,
        );
        for message in replay.messages {
            relay.restore(message);
        }
        let door = Door::new(http_config(&options), options.clock);
        Ok(Rc::new(Self {
            handover: Handover::new(options.shard),
            spare: RefCell::default(),
            waiting: Cell::new(0),
            options,
            door,
            relay: RefCell::new(relay),
            log,
            sockets: RefCell::new(Vec::new()),
            buffers: RefCell::default(),
            inherited: RefCell::default(),
            flush: Signal::default(),
            append: Signal::default(),
            disk_full: Cell::new(false),
            touched: RefCell::default(),
            lingering: Cell::new(0),
            meter: publish::Meter::default(),
            due: Cell::new(Timestamp(0)),
            sooner: Signal::default(),
            stopping: Cell::new(false),
            stopped: Signal::default(),
        }))
    }

    /// Serves until [`Letter::Stop`] comes, and shuts down: what has been received is completed, every peer is told when to
    /// return, and everything is closed. `ear` is for a shard with a descriptor table of its own.
    pub async fn serve(self: Rc<Self>, listeners: Vec<Listener>, ear: Option<Ear>) {
        let (inherited, bound): (Vec<_>, Vec<_>) =
            listeners.into_iter().map(Rc::new).partition(|listener| listener.is_inherited());
        self.inherited.replace(inherited.clone());
        let mut tasks: Vec<_> =
            bound.into_iter().map(|listener| spawn_local(self.clone().accept(listener))).collect();
        for (index, listener) in inherited.into_iter().enumerate() {
            // Each has one shard that accepts there: see `Listener::inherit`.
            if index % usize::from(self.options.relay.shards) == usize::from(self.options.shard.0) {
                tasks.push(spawn_local(self.clone().accept_for_all(index, listener)));
            }
        }
        let accepting = tasks.len();
        tasks.push(spawn_local(self.clone().flush_when_needed()));
        tasks.push(spawn_local(self.clone().append_batches()));
        tasks.push(spawn_local(self.clone().read_letters(ear)));
        tasks.push(spawn_local(self.clone().keep_time()));
        tasks.push(spawn_local(self.clone().maintain_log()));
        tasks.push(spawn_local(self.clone().write_down_seen()));
        if self.speaks_http() {
            tasks.push(spawn_local(self.clone().follow_owners()));
            tasks.push(spawn_local(self.clone().keep_http_time()));
        }
        self.stopped.wait().await;
        for task in tasks.drain(..accepting) {
            task.cancel().await;
        }
        self.shut_down().await;
        for task in tasks {
            task.cancel().await;
        }
        let sockets = std::mem::take(&mut *self.sockets.borrow_mut());
        for carrier in sockets.into_iter().flatten() {
            carrier.fate.set(Fate::Drop);
            carrier.wake_reader();
            carrier.wake_writer();
        }
        self.close_http();
        // Their tasks hold this worker; they end now.
        sleep(Duration::from_millis(2)).await;
    }

    async fn shut_down(&self) {
        self.see_everybody_off().await;
        self.write_down_seen_now();
        let relay = self.relay.borrow();
        tracing::info!(
            event = events::SHARD_STOPPED,
            shard = self.options.shard.0,
            connections = relay.connections(),
            "shard stopped"
        );
    }

    /// Completes what has been received, tells every peer when to return, and waits until they are gone, all within the grace of
    /// a shutdown.
    async fn see_everybody_off(&self) {
        let start = self.now();
        let in_time = || self.now().since(start) < self.options.shutdown_grace;
        self.rest(start).await;
        while in_time() && (self.relay.borrow().connections() > 0 || self.lingering.get() > 0) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets nobody in, completes what was received, and tells everybody when to return.
    async fn rest(&self, start: relay_core::time::Timestamp) {
        self.relay.borrow_mut().drain(start);
        self.append.raise();
        while self.now().since(start) < self.options.shutdown_grace && !self.is_quiet() {
            sleep(Duration::from_millis(2)).await;
        }
        self.relay.borrow_mut().close_all(self.now());
        self.after_input();
    }

    fn is_quiet(&self) -> bool {
        let relay = self.relay.borrow();
        relay.is_settled() && relay.unanswered() == 0
    }

    fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    /// To be called after every input to the relay.
    fn after_input(&self) {
        self.flush.raise();
        if self.relay.borrow().has_appends() {
            self.append.raise();
        }
    }

    async fn flush_when_needed(self: Rc<Self>) {
        loop {
            self.flush.wait().await;
            self.flush();
            futures_lite::future::yield_now().await;
        }
    }

    /// One pass over everything that the relay has to say.
    fn flush(self: &Rc<Self>) {
        self.perform_actions();
        let mut touched = self.touched.take();
        self.relay.borrow_mut().take_touched(&mut touched);
        for id in touched.drain(..) {
            if let Some(carrier) = self.carrier(id) {
                self.send(&carrier);
            }
        }
        self.touched.replace(touched);
        self.post_letters();
        self.perform_actions();
        // Subscribers and the log wait for less than the timer task may sleep.
        if self.relay.borrow().next_soon().is_some_and(|due| due < self.due.get()) {
            self.sooner.raise();
        }
        if self.relay.borrow().has_appends() {
            self.append.raise();
        }
    }

    fn perform_actions(self: &Rc<Self>) {
        loop {
            let Some(action) = self.relay.borrow_mut().next_action() else { return };
            match action {
                Action::HandOff { connection, shard, bytes } => self.hand_off(connection, shard, bytes),
                Action::Read { token, position } => {
                    spawn_local(self.clone().read_part(token, position)).detach();
                }
                Action::Dial { relay, addresses } => {
                    let asked = self.options.resolver.resolve(self.options.shard, relay, addresses);
                    if let Err(failure) = asked {
                        self.relay.borrow_mut().dial_failed(self.now(), relay, failure);
                    }
                }
                Action::Register(registration) => {
                    if let Err(letter) = self.options.side.register(self.options.shard, registration) {
                        self.letter(*letter);
                    }
                }
                Action::Resume { connection } => {
                    if let Some(carrier) = self.carrier(connection) {
                        carrier.wake_reader();
                    }
                }
                Action::SecurityFailed(failure) => tracing::warn!(
                    event = events::SECURITY_FAILURE,
                    shard = self.options.shard.0,
                    connection = failure.connection.as_u64(),
                    address = failure.address.map(tracing::field::display),
                    device = failure.device.as_ref().map(tracing::field::display),
                    account = failure.account.as_ref().map(tracing::field::display),
                    message_id = failure.message as u8,
                    security_message = ?failure.message,
                    reason = %failure.reason,
                    untold = failure.untold,
                    "security failure"
                ),
                Action::Lost { message, mailbox } => tracing::error!(
                    event = events::MESSAGE_UNREADABLE,
                    shard = self.options.shard.0,
                    message = message.0,
                    account = %mailbox.account,
                    identity = %mailbox.identity,
                    device = mailbox.device.as_ref().map(tracing::field::display),
                    resource = %mailbox.resource,
                    "a stored message is lost: it cannot be read back"
                ),
                Action::Ended { connection, device, how } => self.ended(connection, device.as_ref(), how),
            }
        }
    }

    fn ended(self: &Rc<Self>, connection: ConnectionId, device: Option<&DeviceUrl>, how: Ended) {
        let device = device.map(tracing::field::display);
        tracing::debug!(
            event = events::CONNECTION_ENDED,
            shard = self.options.shard.0,
            connection = connection.as_u64(),
            device,
            ?how,
            "connection ended"
        );
        if let Some(carrier) = self.carrier(connection) {
            carrier.ended.set(true);
            if carrier.blocked.get() {
                self.give_up_later(carrier);
            }
        }
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let due = self.relay.borrow().poll_timeout();
            let wait = due.since(self.now()).clamp(Duration::from_millis(1), LONGEST_SLEEP);
            self.due.set(self.now() + wait);
            futures_lite::future::or(sleep(wait), self.sooner.wait()).await;
            self.options.pulse.beat();
            self.relay.borrow_mut().handle_timeout(self.now());
            self.after_input();
            self.publish();
        }
    }
}

/// HTTP connections are bounded as half-open connections are.
fn http_config(options: &WorkerOptions) -> HttpServerConfig {
    HttpServerConfig {
        shard: options.shard,
        shards: options.relay.shards,
        max_strangers: options.relay.max_unauthenticated,
        max_strangers_per_address: options.relay.max_unauthenticated_per_address,
        request_deadline: options.relay.connection.connect_deadline,
        poll_interval: options.poll_interval,
        bind_address: options.bind_address,
    }
}
