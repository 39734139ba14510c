//! The background task: owns the machine and the transport, and carries everything between them and the application.

use crate::body::{Body, BodySource};
use crate::carrier::ladder::Ladder;
use crate::carrier::{Carrier, Pipe};
use crate::clock::Clock;
use crate::handle::State;
use crate::incoming::{Piece, Received};
use crate::outgoing::{Receipt, SendError};
use crate::presence::{Board, Ear, Ears};
use bytes::Bytes;
use relay_core::address::DeviceUrl;
use relay_core::client::{
    Client as Machine, Disconnected, Event, IncomingHead, IncomingId, MessageId, OutgoingMessage,
    Registration, RegistrationError, SendFailure,
};
use relay_core::presence::Status;
use relay_core::sstp::OpenResponseId;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Commands taken between two looks at the transport.
const COMMANDS_AT_ONCE: usize = 256;

/// The answer to a Send.
pub(crate) type Outcome = Result<Receipt, SendError>;

/// What the application wants.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Box<Send>),
    Provide { message: MessageId, offset: u64, piece: io::Result<Bytes> },
    Consumed { id: IncomingId, bytes: usize },
    Acknowledge(IncomingId),
    GiveBack(IncomingId),
    Register { registration: Registration, done: oneshot::Sender<Result<(), RegistrationError>> },
    Publish(Status),
    Watch(Ear),
    Unwatch { device: DeviceUrl, board: Arc<Board> },
    Flush(oneshot::Sender<()>),
    Close,
}

/// A message to send.
#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) message: OutgoingMessage,
    pub(crate) source: Option<Body>,
    pub(crate) room: OwnedSemaphorePermit,
    pub(crate) byte_room: Option<OwnedSemaphorePermit>,
    pub(crate) done: oneshot::Sender<Outcome>,
}

/// What is kept of a message while it is on its way.
#[derive(Debug)]
struct OnItsWay {
    source: Option<Body>,
    done: oneshot::Sender<Outcome>,
    /// Its place in the queue, freed when it is done.
    _room: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

type Dialled = io::Result<(Pipe, Carrier)>;
type Dialling = Pin<Box<dyn Future<Output = Dialled> + std::marker::Send>>;

enum Link {
    Down,
    Dialling(Dialling),
    Up(Pipe),
}

/// What woke the task.
enum Wake {
    Command(Option<Command>),
    Dialled(Dialled),
    Transport(io::Result<()>),
    Time,
}

pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) clock: Clock,
    pub(crate) ladder: Ladder,
    pub(crate) state: watch::Sender<State>,
    /// Why the relay has no presence for us.
    pub(crate) presence_refused: watch::Sender<Option<OpenResponseId>>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    /// For the tasks that read bodies and for received messages; weak, so that the last handle's end is noticed.
    pub(crate) to_self: mpsc::WeakUnboundedSender<Command>,
    pub(crate) incoming: mpsc::UnboundedSender<Received>,
}

pub(crate) async fn run(driver: Driver) {
    let mut running = Running {
        driver,
        link: Link::Down,
        sending: HashMap::new(),
        receiving: HashMap::new(),
        registering: None,
        flushing: Vec::new(),
        refused_accounts: 0,
        ears: Ears::default(),
    };
    while running.settle().await {
        let wake = running.wait().await;
        running.wake(wake);
    }
    running.driver.state.send_replace(State::Closed);
}

struct Running {
    driver: Driver,
    link: Link,
    sending: HashMap<MessageId, OnItsWay>,
    receiving: HashMap<IncomingId, mpsc::UnboundedSender<Piece>>,
    registering: Option<oneshot::Sender<Result<(), RegistrationError>>>,
    flushing: Vec<oneshot::Sender<()>>,
    refused_accounts: usize,
    ears: Ears,
}

impl Running {
    /// Does all that can be done without waiting; `false` once the client is closed.
    async fn settle(&mut self) -> bool {
        loop {
            while let Some(event) = self.driver.machine.poll(self.driver.clock.now()) {
                match event {
                    Event::Closed => return false,
                    Event::HangUp => self.hang_up().await,
                    event => self.event(event),
                }
            }
            if self.driver.machine.unfinished() == 0 {
                for flushed in self.flushing.drain(..) {
                    // The application may have given up waiting.
                    let _ = flushed.send(());
                }
            }
            if !self.write() {
                return true;
            }
        }
    }

    /// Sends what goes; whether the machine has to be looked at again.
    fn write(&mut self) -> bool {
        let Link::Up(transport) = &mut self.link else { return false };
        let Some(output) = self.driver.machine.output() else { return false };
        match transport.write(output) {
            Ok(any) => any,
            Err(error) => {
                self.lost(&error);
                true
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let machine = &mut self.driver.machine;
        let clock = self.driver.clock;
        let due = machine.poll_timeout();
        let wants_input = machine.wants_input();
        let wants_output = machine.output().is_some_and(|output| !output.is_empty());
        let link = &mut self.link;
        let transport = async {
            match link {
                Link::Down => std::future::pending().await,
                Link::Dialling(dialling) => Wake::Dialled(dialling.await),
                Link::Up(transport) => Wake::Transport(transport.ready(wants_input, wants_output).await),
            }
        };
        let time = async {
            match due {
                Some(due) => tokio::time::sleep(clock.until(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.driver.commands.recv() => Wake::Command(command),
            wake = transport => wake,
            () = time => Wake::Time,
        }
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Time => {}
            Wake::Command(first) => {
                self.command(first.unwrap_or(Command::Close));
                for _ in 1..COMMANDS_AT_ONCE {
                    let Ok(command) = self.driver.commands.try_recv() else { return };
                    self.command(command);
                }
            }
            Wake::Dialled(Ok((pipe, carrier))) => {
                self.link = Link::Up(pipe);
                self.driver.ladder.opened(carrier);
                self.driver.machine.transport_up(self.driver.clock.now());
            }
            Wake::Dialled(Err(error)) | Wake::Transport(Err(error)) => self.lost(&error),
            Wake::Transport(Ok(())) => self.read(),
        }
    }

    fn read(&mut self) {
        let Link::Up(transport) = &mut self.link else { return };
        if !self.driver.machine.wants_input() {
            return;
        }
        match transport.read() {
            Ok(Some(bytes)) => self.driver.machine.receive(self.driver.clock.now(), bytes),
            Ok(None) => {}
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        tracing::debug!(%error, "no transport");
        self.link = Link::Down;
        self.driver.machine.transport_lost(self.driver.clock.now());
    }

    async fn hang_up(&mut self) {
        if let Link::Up(transport) = std::mem::replace(&mut self.link, Link::Down) {
            let last_words = self.driver.machine.output().map(|output| output.take()).unwrap_or_default();
            transport.hang_up(last_words).await;
        }
        self.driver.machine.transport_lost(self.driver.clock.now());
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Dial => {
                self.refused_accounts = 0;
                self.link = Link::Dialling(Box::pin(self.driver.ladder.dial()));
                self.driver.state.send_if_modified(|state| {
                    let first = matches!(state, State::Connecting);
                    *state = State::Connecting;
                    !first
                });
            }
            Event::Ready => {
                let attached = self.refused_accounts == 0;
                self.driver.ladder.works();
                self.driver.state.send_replace(State::Ready { attached });
            }
            Event::Disconnected { cause, retry_at } => self.disconnected(cause, retry_at),
            Event::RegistrationNeeded => {
                self.driver.ladder.works();
                self.driver.state.send_replace(State::RegistrationNeeded);
            }
            Event::AccountRegistrationNeeded(account) | Event::AccountRefused(account) => {
                tracing::warn!(%account, "the relay did not attach the account");
                self.refused_accounts += 1;
                self.driver.state.send_if_modified(|state| match state {
                    State::Ready { attached } => std::mem::replace(attached, false),
                    _ => false,
                });
            }
            Event::Registered => self.registered(Ok(())),
            Event::RegistrationFailed(error) => self.registered(Err(error)),
            Event::WantBody { message, offset, max } => self.want_body(message, offset, max),
            Event::Delivered { message, failed } => self.done(message, Ok(Receipt { failed })),
            Event::Failed { message, failure } => self.done(message, Err(failure.into())),
            Event::Incoming { id, head } => self.incoming(id, head),
            Event::IncomingData { id, payload } => {
                self.piece(id, Piece::Data(payload.iter().cloned().collect()))
            }
            Event::IncomingEnd { id } => {
                self.piece(id, Piece::End);
                self.receiving.remove(&id);
            }
            Event::IncomingLost { id } => {
                self.piece(id, Piece::Lost);
                self.receiving.remove(&id);
            }
            Event::Presence { device, status } => self.ears.tell(&device, status),
            Event::PresenceUnknown => self.ears.know_nothing(),
            Event::PresenceRefused(response) => {
                tracing::warn!(%response, "the relay has no presence for this device");
                self.driver.presence_refused.send_replace(Some(response));
            }
            Event::HangUp | Event::Closed => unreachable!("handled where events are taken"),
        }
    }

    fn disconnected(&mut self, cause: Disconnected, retry_at: relay_core::time::Timestamp) {
        self.driver.ladder.ended(cause);
        let retry_in = self.driver.clock.until(retry_at);
        tracing::info!(%cause, ?retry_in, "disconnected");
        self.driver.state.send_replace(State::Disconnected { cause, retry_in });
        self.driver.presence_refused.send_replace(None);
    }

    fn registered(&mut self, outcome: Result<(), RegistrationError>) {
        if let Some(done) = self.registering.take() {
            // Nobody may be waiting any more.
            let _ = done.send(outcome);
        }
    }

    fn done(&mut self, message: MessageId, outcome: Outcome) {
        let on_its_way = self.sending.remove(&message).expect("a message is done once");
        // The application may have dropped the delivery.
        let _ = on_its_way.done.send(outcome);
    }

    fn want_body(&mut self, message: MessageId, offset: u64, max: usize) {
        let source = self.sending.get(&message).and_then(|on_its_way| on_its_way.source.clone());
        let (Some(source), to_self) = (source, self.driver.to_self.clone()) else {
            return self.driver.machine.body_unavailable(message);
        };
        tokio::spawn(async move {
            let piece = source.read(offset, max).await;
            if let Some(commands) = to_self.upgrade() {
                // The client may have been closed meanwhile.
                let _ = commands.send(Command::Provide { message, offset, piece });
            }
        });
    }

    fn incoming(&mut self, id: IncomingId, head: IncomingHead) {
        let (pieces, reader) = mpsc::unbounded_channel();
        let received =
            self.driver.to_self.upgrade().map(|commands| Received::new(id, head, reader, commands));
        let passed_on = received.is_some_and(|received| self.driver.incoming.send(received).is_ok());
        if passed_on {
            self.receiving.insert(id, pieces);
        }
    }

    /// Passes a piece on; its reader may be gone.
    fn piece(&mut self, id: IncomingId, piece: Piece) {
        if let Some(pieces) = self.receiving.get(&id) {
            let _ = pieces.send(piece);
        }
    }

    fn command(&mut self, command: Command) {
        let machine = &mut self.driver.machine;
        match command {
            Command::Send(send) => self.send(*send),
            Command::Provide { message, offset, piece: Ok(piece) } => machine.provide(message, offset, piece),
            Command::Provide { message, piece: Err(error), .. } => {
                tracing::warn!(%error, "a body cannot be read");
                machine.body_unavailable(message);
            }
            Command::Consumed { id, bytes } => machine.consumed(id, bytes),
            Command::Acknowledge(id) => {
                if !machine.acknowledge(id) {
                    tracing::debug!("acknowledged too late; the message will come again");
                }
            }
            Command::GiveBack(id) => machine.give_back(id, self.driver.clock.now()),
            Command::Register { registration, done } => match machine.register(registration) {
                Ok(()) => self.registering = Some(done),
                // Nobody may be waiting any more.
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Publish(status) => machine.publish(status),
            Command::Watch(ear) => machine.watch(self.ears.add(ear)),
            Command::Unwatch { device, board } => {
                if self.ears.remove(&device, &board) {
                    machine.unwatch(&device);
                }
            }
            Command::Flush(done) => self.flushing.push(done),
            Command::Close => machine.close(),
        }
    }

    fn send(&mut self, send: Send) {
        match self.driver.machine.send(send.message) {
            Ok(id) => {
                let room = (send.room, send.byte_room);
                let on_its_way = OnItsWay { source: send.source, done: send.done, _room: room };
                self.sending.insert(id, on_its_way);
            }
            Err(error) => drop(send.done.send(Err(error.into()))),
        }
    }
}

impl Drop for Running {
    /// If the task is cut off with its runtime, nobody waits for ever.
    fn drop(&mut self) {
        for (_, on_its_way) in self.sending.drain() {
            let _ = on_its_way.done.send(Err(SendFailure::ClientClosed.into()));
        }
    }
}
