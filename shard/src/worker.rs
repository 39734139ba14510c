//! One shard: its relay, its log, its sockets and the tasks that carry between them, all on one executor.
//!
//! Every input to the relay is followed, before the executor sleeps, by one pass over its outputs (`Worker::flush`): however
//! many inputs came in meanwhile, each connection is sent to once and each shard is woken once.

mod http;
mod line;
mod orders;
mod publish;
mod seen;

use crate::activation::{Inherited, Spoken};
use crate::board::Board;
use crate::descriptors::{Ear, Handover, Parcel};
use crate::dialer::{self, ResolverDoor};
use crate::events;
use crate::letter::{Letter, Passed};
use crate::mesh::{Mesh, Sender};
use crate::notify::Pulse;
use crate::restoring;
use crate::side::SideDoor;
use crate::tls::Certificate;
use crate::transport::{Listener, Protocol, ReadBuffers, Socket};
use bytes::Bytes;
use client::{Clock, DeviceUrl, SystemEntropy};
use glommio::spawn_local;
use glommio::timer::sleep;
use line::{Door, Line};
use relay_core::http::server::HttpServerConfig;
use relay_core::relay::{Action, ConnectionId, ReadToken, Relay, RelayConfig, RemoteRelay, ShardId};
use relay_core::sstp::connection::Ended;
use relay_core::store::{LogEntry, Position};
use relay_core::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use storage::{LogOptions, MailboxLog, StorageError, UserDatabase};

/// Letters taken from one queue before the next one has its turn.
const LETTERS_A_TURN: usize = 512;
/// How long a closed connection is read to its end, so that our last words are not lost to a reset.
const LINGER: Duration = Duration::from_secs(2);
/// How long to wait before a failed batch is written again.
const APPEND_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a read that the disk refused is tried again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait after an accept that failed, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections that a shard accepts before it rests from accepting for [`ACCEPT_REST`]. An accept that succeeds at once waits
/// for nothing, so without this a flood of connections, though each is turned away, would stop everything else on the shard.
/// This way it takes a quarter of a processor, and up to about 6000 connections a second come in.
const ACCEPTS_A_TURN: u32 = 8;
const ACCEPT_REST: Duration = Duration::from_millis(1);
/// How long a connection waits before it is handed over again to a home that had no room for it, and how many may wait so.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(1);
const MOST_WAITING: usize = 1024;
/// How often the log is asked whether its segments want looking after.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);

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
    /// Connections that wait for room at their home.
    waiting: Cell<usize>,
    meter: publish::Meter,
    /// What the timer task waits for, and how it is told of an earlier moment.
    due: Cell<Timestamp>,
    sooner: Signal,
    stopping: Cell<bool>,
    stopped: Signal,
}

/// What carries one connection.
struct Carrier {
    id: ConnectionId,
    socket: Line,
    /// Its reader waits here: for bytes, for leave to read, or for the end.
    reader: Cell<Option<Waker>>,
    /// Set once the relay knows the connection no more.
    fate: Cell<Fate>,
    /// A writer waits for the kernel to take bytes.
    blocked: Cell<bool>,
    /// Where it waits.
    writer: Cell<Option<Waker>>,
    /// The relay has said that the connection has ended.
    ended: Cell<bool>,
}

/// What a connection's reader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Read.
    Live,
    /// The connection has ended: read to its end and close.
    Linger,
    /// The socket is another's, or broken: touch it no more.
    Drop,
}

impl Carrier {
    fn wake_reader(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
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

    /// Binds the addresses to listen on.
    ///
    /// # Errors
    /// What the system says of an address.
    pub fn listen(&self) -> Result<Vec<Listener>, (SocketAddr, std::io::Error)> {
        let plain = self.options.listen.iter().map(|&address| (address, Protocol::Sstp));
        let tls = self.options.listen_tls.iter().flat_map(|(addresses, certificate)| {
            addresses.iter().map(move |&address| (address, Protocol::Tls(certificate.clone())))
        });
        let http = self.options.listen_http.iter().map(|&address| (address, Protocol::Http));
        let bind = |(address, protocol): (SocketAddr, Protocol)| {
            let peer_timeout = self.options.relay.connection.idle_deadline;
            Listener::bind(address, self.options.backlog, peer_timeout, protocol)
                .map_err(|error| (address, error))
        };
        plain
            .chain(tls)
            .chain(http)
            .map(bind)
            .chain(self.options.inherited.iter().map(|from| self.inherit(from)))
            .collect()
    }

    fn speaks_http(&self) -> bool {
        let inherits = || self.options.inherited.iter().any(|socket| socket.spoken == Spoken::Http);
        !self.options.listen_http.is_empty() || inherits()
    }

    fn inherit(&self, from: &Inherited) -> Result<Listener, (SocketAddr, std::io::Error)> {
        let protocol = match from.spoken {
            Spoken::Sstp => Protocol::Sstp,
            Spoken::Http => Protocol::Http,
            Spoken::Tls => {
                let (_, certificate) = self.options.listen_tls.as_ref().expect("the server has checked it");
                Protocol::Tls(certificate.clone())
            }
        };
        let peer_timeout = self.options.relay.connection.idle_deadline;
        Listener::inherit(from, peer_timeout, protocol).map_err(|error| (from.address, error))
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

    // Connections.

    async fn accept(self: Rc<Self>, listener: Rc<Listener>) {
        let mut taken: u32 = 0;
        loop {
            match listener.accept().await {
                Ok(socket) => self.greet(socket, &listener),
                Err(error) => {
                    tracing::warn!(event = events::ACCEPT_FAILED, shard = self.options.shard.0, %error, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
            taken = taken.wrapping_add(1);
            match taken.is_multiple_of(ACCEPTS_A_TURN) {
                true => sleep(ACCEPT_REST).await,
                false => futures_lite::future::yield_now().await,
            }
        }
    }

    /// Accepts from an inherited socket and deals the connections out to all shards, as SO_REUSEPORT would.
    async fn accept_for_all(self: Rc<Self>, index: usize, listener: Rc<Listener>) {
        let shards = self.options.relay.shards;
        let mut taken: u32 = 0;
        loop {
            match listener.accept().await {
                Ok(socket) => {
                    let to = ShardId((taken % u32::from(shards)) as u16);
                    if !self.deal(&socket, to, index).await {
                        self.greet(socket, &listener);
                    }
                }
                Err(error) => {
                    tracing::warn!(event = events::ACCEPT_FAILED, shard = self.options.shard.0, %error, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
            taken = taken.wrapping_add(1);
            match taken.is_multiple_of(ACCEPTS_A_TURN * u32::from(shards)) {
                true => sleep(ACCEPT_REST).await,
                false => futures_lite::future::yield_now().await,
            }
        }
    }

    /// Gives a new connection to another shard. `false` if it is for this one: because it is its turn, or the other cannot
    /// take it.
    async fn deal(&self, socket: &Socket, to: ShardId, listener: usize) -> bool {
        let (this, mesh) = (self.options.shard, &self.options.mesh);
        if to == this {
            return false;
        }
        let Ok(socket) = socket.give_away() else { return false };
        let Some(socket) = self.handover.send_ahead(mesh, to, socket) else { return false };
        let mut letter = Letter::Accepted { socket, listener };
        while let Err(back) = mesh.push(Sender::Shard(this), to, letter) {
            letter = back;
            sleep(HAND_OVER_AGAIN).await;
        }
        mesh.ring(to);
        true
    }

    /// Takes a connection in, unless it is gone already or one too many of its address.
    fn greet(self: &Rc<Self>, socket: Socket, listener: &Listener) {
        let Some(peer) = socket.peer() else { return };
        let turned_away = self.relay.borrow_mut().turns_away(self.now(), peer.ip(), listener.is_tls());
        if turned_away {
            return socket.reset();
        }
        if listener.is_http() {
            return self.welcome_http(socket, None);
        }
        match listener.wrap(socket) {
            Ok(socket) => self.add_connection(socket, None),
            Err(error) => {
                tracing::error!(event = events::TLS_FAILED, shard = self.options.shard.0, %error, "TLS cannot begin")
            }
        }
    }

    fn add_connection(self: &Rc<Self>, socket: Socket, handed_over: Option<Bytes>) {
        let address = socket.peer().map(|peer| peer.ip());
        let id = self.relay.borrow_mut().connected(self.now(), address, handed_over);
        self.add_carrier(Line::Socket(socket), id);
    }

    fn add_carrier(self: &Rc<Self>, socket: Line, id: ConnectionId) {
        let carrier = Rc::new(Carrier {
            id,
            socket,
            reader: Cell::new(None),
            fate: Cell::new(Fate::Live),
            blocked: Cell::new(false),
            writer: Cell::new(None),
            ended: Cell::new(false),
        });
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() <= id.index() {
            sockets.resize(id.index() + 1, None);
        }
        sockets[id.index()] = Some(carrier.clone());
        drop(sockets);
        self.after_input();
        spawn_local(self.clone().read_connection(carrier)).detach();
    }

    /// Another relay has been looked up: calls it.
    async fn dial(self: Rc<Self>, relay: RemoteRelay, addresses: Vec<SocketAddr>) {
        match dialer::connect(&addresses, self.options.dial_patience).await {
            Ok(socket) => {
                let address = socket.peer().map(|peer| peer.ip());
                let dialed = self.relay.borrow_mut().dialed(self.now(), relay, address);
                if let Some(id) = dialed {
                    self.add_carrier(Line::Socket(socket), id);
                }
            }
            Err(failure) => self.relay.borrow_mut().dial_failed(self.now(), relay, failure),
        }
        self.after_input();
    }

    fn carrier(&self, id: ConnectionId) -> Option<Rc<Carrier>> {
        let sockets = self.sockets.borrow();
        sockets.get(id.index())?.as_ref().filter(|carrier| carrier.id == id).cloned()
    }

    /// Takes a connection out of the table; its reader then sees it off.
    fn forget(&self, carrier: &Carrier, fate: Fate) {
        carrier.fate.set(fate);
        carrier.wake_reader();
        carrier.wake_writer();
        let mut sockets = self.sockets.borrow_mut();
        if let Some(entry) = sockets.get_mut(carrier.id.index())
            && entry.as_ref().is_some_and(|found| found.id == carrier.id)
        {
            *entry = None;
        }
    }

    async fn read_connection(self: Rc<Self>, carrier: Rc<Carrier>) {
        loop {
            let received = poll_fn(|context| {
                if carrier.fate.get() != Fate::Live {
                    return Poll::Ready(None);
                }
                carrier.reader.set(Some(context.waker().clone()));
                if !self.relay.borrow_mut().wants_read(carrier.id) {
                    return Poll::Pending;
                }
                carrier.socket.poll_receive(context, &self.buffers).map(Some)
            })
            .await;
            match received {
                None if carrier.fate.get() == Fate::Linger => {
                    // A task of its own, or every reader would be as large as it.
                    spawn_local(async move { self.linger(&carrier.socket).await }).detach();
                    return;
                }
                None => return,
                Some(Ok(Some(bytes))) => {
                    if carrier.socket.wants_write() {
                        self.send(&carrier);
                    }
                    if !bytes.is_empty() {
                        self.relay.borrow_mut().received(self.now(), carrier.id, bytes);
                        // Before anybody else's turn: a connection that is handed over has left the relay already, and
                        // the next one that is accepted may get its index, and with it its place in the table of sockets.
                        self.perform_actions();
                        self.after_input();
                    }
                }
                Some(_) => {
                    self.relay.borrow_mut().disconnected(self.now(), carrier.id);
                    self.forget(&carrier, Fate::Drop);
                    self.after_input();
                    return;
                }
            }
            // Everybody who is ready reads once before anybody reads again, and then all output goes out.
            futures_lite::future::yield_now().await;
        }
    }

    // Outputs.

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

    /// Sends a connection's output as far as the kernel takes it; a writer waits for the rest.
    fn send(self: &Rc<Self>, carrier: &Rc<Carrier>) {
        if carrier.blocked.get() {
            return;
        }
        let sent = {
            let mut relay = self.relay.borrow_mut();
            let now = self.now();
            loop {
                let Some(output) = relay.prepare_output(now, carrier.id) else { return };
                if output.is_empty() && !carrier.socket.wants_write() {
                    break Ok(true);
                }
                match self.meter.sending(output, |output| carrier.socket.send(output)) {
                    Ok(true) => relay.sent(now, carrier.id),
                    other => break other,
                }
            }
        };
        match sent {
            Ok(true) => self.finish_if_ended(carrier),
            Ok(false) => {
                carrier.blocked.set(true);
                if carrier.ended.get() {
                    self.give_up_later(carrier.clone());
                }
                spawn_local(self.clone().write_when_possible(carrier.clone())).detach();
            }
            Err(_) => {
                self.relay.borrow_mut().disconnected(self.now(), carrier.id);
                self.forget(carrier, Fate::Drop);
                self.after_input();
            }
        }
    }

    async fn write_when_possible(self: Rc<Self>, carrier: Rc<Carrier>) {
        let written = poll_fn(|context| {
            if carrier.fate.get() != Fate::Live {
                return Poll::Ready(Ok(()));
            }
            carrier.writer.set(Some(context.waker().clone()));
            let mut relay = self.relay.borrow_mut();
            match relay.prepare_output(self.now(), carrier.id) {
                Some(output) => {
                    self.meter.sending(output, |output| carrier.socket.poll_writable(context, output))
                }
                None => Poll::Ready(Ok(())),
            }
        })
        .await;
        carrier.blocked.set(false);
        if carrier.fate.get() != Fate::Live {
            return;
        }
        if written.is_ok() {
            self.relay.borrow_mut().sent(self.now(), carrier.id);
        }
        // A broken connection shows itself again in `send`.
        self.send(&carrier);
        self.after_input();
    }

    fn finish_if_ended(&self, carrier: &Carrier) {
        let mut relay = self.relay.borrow_mut();
        if relay.is_finished(carrier.id) {
            relay.disconnected(self.now(), carrier.id);
            drop(relay);
            carrier.socket.finish_sending();
            self.forget(carrier, Fate::Linger);
            self.after_input();
        }
    }

    /// A connection that has ended may have last words that its peer does not read. It gets a while, no more.
    fn give_up_later(self: &Rc<Self>, carrier: Rc<Carrier>) {
        let this = self.clone();
        spawn_local(async move {
            sleep(LINGER).await;
            if carrier.fate.get() == Fate::Live {
                this.relay.borrow_mut().disconnected(this.now(), carrier.id);
                this.forget(&carrier, Fate::Drop);
                this.after_input();
            }
        })
        .detach();
    }

    /// Reads what the peer still sends, for a while, so that closing does not reset the connection under our last words.
    /// Only so many at a time: those above are closed at once.
    async fn linger(&self, socket: &Line) {
        if self.lingering.get() >= self.options.relay.max_unauthenticated {
            return;
        }
        self.lingering.set(self.lingering.get() + 1);
        linger(socket, &self.buffers).await;
        self.lingering.set(self.lingering.get() - 1);
    }

    fn post_letters(&self) {
        let mut relay = self.relay.borrow_mut();
        let from = Sender::Shard(self.options.shard);
        for to in (0..self.options.relay.shards).map(ShardId).filter(|to| *to != self.options.shard) {
            let outbox = relay.outbox(to);
            let before = outbox.len();
            while let Some(item) = outbox.pop_front() {
                if let Err(Letter::Mesh(item)) = self.options.mesh.push(from, to, Letter::Mesh(item)) {
                    outbox.push_front(item);
                    break;
                }
            }
            if outbox.len() < before {
                self.options.mesh.ring(to);
            }
        }
        relay.outbox_drained();
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

    fn hand_off(self: &Rc<Self>, connection: ConnectionId, to: ShardId, bytes: Bytes) {
        let Some(carrier) = self.carrier(connection) else { return };
        self.forget(&carrier, Fate::Drop);
        self.give_to(to, &carrier.socket, false, bytes);
    }

    /// Gives a socket to another shard, with what was received on it.
    fn give_to(self: &Rc<Self>, to: ShardId, line: &Line, http: bool, bytes: Bytes) {
        let given = line.give_away().map(|socket| {
            let parcel = Parcel { to, socket: Passed::Open(socket), tls: line.take_tls(), http, bytes };
            self.handover.post(&self.options.mesh, parcel)
        });
        match given {
            Ok(Ok(())) => {}
            Ok(Err(parcel)) if self.waiting.get() < MOST_WAITING => {
                spawn_local(self.clone().hand_off_later(parcel)).detach();
            }
            Ok(Err(_)) => tracing::warn!(
                event = events::HAND_OVER_DROPPED,
                shard = self.options.shard.0,
                to = to.0,
                "a connection was dropped: the queue to its home is full"
            ),
            Err(error) => {
                tracing::warn!(event = events::HAND_OVER_FAILED, shard = self.options.shard.0, %error, "a connection could not be handed over")
            }
        }
    }

    async fn hand_off_later(self: Rc<Self>, mut parcel: Parcel) {
        self.waiting.set(self.waiting.get() + 1);
        while !self.stopping.get() {
            sleep(HAND_OVER_AGAIN).await;
            match self.handover.post(&self.options.mesh, parcel) {
                Ok(()) => break,
                Err(back) => parcel = back,
            }
        }
        self.waiting.set(self.waiting.get() - 1);
    }

    // The log.

    async fn append_batches(self: Rc<Self>) {
        let mut batch: Vec<LogEntry> = Vec::new();
        loop {
            self.append.wait().await;
            if self.disk_full.get() {
                self.relay.borrow_mut().take_deletions(&mut batch);
            } else {
                self.relay.borrow_mut().take_batch(self.options.batch_bytes, &mut batch);
            }
            if batch.is_empty() {
                continue;
            }
            let began = Instant::now();
            match self.log.append(&batch).await {
                Ok(positions) => {
                    self.meter.committed(batch.len(), began.elapsed());
                    batch.clear();
                    self.relay.borrow_mut().appended(self.now(), &positions);
                }
                Err(error @ StorageError::NoSpace { .. }) if !self.disk_full.get() => {
                    self.relay.borrow_mut().append_failed(self.now(), std::mem::take(&mut batch));
                    self.wait_for_space(&error);
                }
                Err(error) => {
                    tracing::error!(event = events::APPEND_FAILED, shard = self.options.shard.0, %error, "mail could not be stored; trying again");
                    self.meter.commit_failed();
                    self.relay.borrow_mut().append_failed(self.now(), std::mem::take(&mut batch));
                    sleep(APPEND_AGAIN).await;
                }
            }
            self.after_input();
        }
    }

    async fn read_part(self: Rc<Self>, token: ReadToken, position: Position) {
        let payload = loop {
            match self.log.read(position).await {
                Ok(payload) => break Some(payload),
                // A disk that refuses may come to itself; the message is lost only when its bytes are wrong.
                Err(error @ StorageError::Io { .. }) if self.relay.borrow().wants_read_done(token) => {
                    tracing::error!(event = events::READ_AGAIN, shard = self.options.shard.0, ?position, %error, "stored mail is read again");
                    sleep(READ_AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(event = events::READ_FAILED, shard = self.options.shard.0, ?position, %error, "stored mail could not be read");
                    break None;
                }
            }
        };
        self.relay.borrow_mut().read_done(self.now(), token, payload);
        self.after_input();
    }

    /// For a while only deletions are written, which make room; then mail is tried again.
    fn wait_for_space(self: &Rc<Self>, error: &StorageError) {
        tracing::error!(event = events::DISK_FULL, shard = self.options.shard.0, %error, "the disk is full: mail waits with its senders, delivery goes on");
        self.disk_full.set(true);
        self.append.raise();
        let this = self.clone();
        spawn_local(async move {
            sleep(APPEND_AGAIN).await;
            this.disk_full.set(false);
            this.append.raise();
        })
        .detach();
    }

    async fn maintain_log(self: Rc<Self>) {
        loop {
            sleep(MAINTAIN_EVERY).await;
            while self.log.wants_maintenance() {
                if let Err(error) = self.log.maintain().await {
                    tracing::warn!(event = events::MAINTENANCE_FAILED, shard = self.options.shard.0, %error, "the log could not be maintained");
                    break;
                }
            }
        }
    }

    // Letters and time.

    async fn read_letters(self: Rc<Self>, mut ear: Option<Ear>) {
        let mut slept = false;
        let this = self.options.shard;
        let shards = (0..self.options.relay.shards).map(ShardId).filter(|from| *from != this);
        let senders: Vec<_> = shards.map(Sender::Shard).chain([Sender::Side]).collect();
        let mut letters = Vec::new();
        loop {
            poll_fn(|context| {
                ear.iter_mut().for_each(|ear| ear.listen(context));
                self.options.mesh.poll_letters(this, context, &mut slept)
            })
            .await;
            for &sender in &senders {
                self.options.mesh.take(sender, this, LETTERS_A_TURN, |letter| letters.push(letter));
                self.letters(sender, &mut letters);
            }
            self.after_input();
            futures_lite::future::yield_now().await;
        }
    }

    fn letters(self: &Rc<Self>, sender: Sender, letters: &mut Vec<Letter>) {
        let mut now = self.now();
        for letter in letters.drain(..) {
            match (letter, sender) {
                (Letter::Mesh(item), Sender::Shard(from)) => {
                    self.relay.borrow_mut().mesh_received(now, from, item);
                }
                (letter, _) => {
                    self.letter(letter);
                    now = self.now();
                }
            }
        }
        self.relay.borrow_mut().mesh_drained();
    }

    fn letter(self: &Rc<Self>, letter: Letter) {
        match letter {
            Letter::Mesh(_) => debug_assert!(false, "the side thread sends no mesh items"),
            Letter::HandOff { socket, tls, http, bytes } => {
                match self.handover.unpack(&self.options.mesh, socket) {
                    Ok(socket) if http => self.welcome_http(Socket::adopt(socket, tls), Some(bytes)),
                    Ok(socket) => self.add_connection(Socket::adopt(socket, tls), Some(bytes)),
                    Err(error) => {
                        tracing::warn!(event = events::HAND_OVER_LOST, shard = self.options.shard.0, %error, "a connection was lost on its way here")
                    }
                }
            }
            Letter::Accepted { socket, listener } => {
                let listener = self.inherited.borrow().get(listener).cloned();
                if let (Some(listener), Ok(socket)) =
                    (listener, self.handover.unpack(&self.options.mesh, socket))
                {
                    self.greet(Socket::adopt(socket, None), &listener);
                }
            }
            Letter::Reconfigure(config) => self.relay.borrow_mut().reconfigure(config),
            Letter::Registered { connection, event, outcome } => {
                self.relay.borrow_mut().registered(self.now(), connection, event, outcome);
                self.after_input();
            }
            Letter::Command(command) => self.obey(command),
            Letter::Resolved { relay, addresses } => {
                spawn_local(self.clone().dial(relay, addresses)).detach();
            }
            Letter::Order { home, order, receipt } => {
                self.relay.borrow_mut().order(self.now(), home, order, receipt);
                self.after_input();
            }
            Letter::Defaults(defaults, done) => {
                let lifetime = defaults.lifetime_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                self.relay.borrow_mut().set_defaults(defaults.quota_bytes, lifetime);
                drop(done);
            }
            Letter::Rest(done) => {
                let this = self.clone();
                let rest = async move {
                    this.rest(this.now()).await;
                    drop(done);
                };
                spawn_local(rest).detach();
            }
            Letter::Resume(done) => {
                self.relay.borrow_mut().resume(self.now());
                self.after_input();
                drop(done);
            }
            Letter::Stop => {
                self.stopping.set(true);
                self.stopped.raise();
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

/// Reads to the end, or until the time is over.
async fn linger(socket: &Line, buffers: &RefCell<ReadBuffers>) {
    let mut deadline = pin!(sleep(LINGER));
    poll_fn(|context| {
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match socket.poll_receive(context, buffers) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
