//! The handle that an application holds: cheap to clone, the client lives until the last one is gone or [`Client::close`] is called.

use crate::carrier::ladder::Ladder;
use crate::carrier::{Carrier, Memory, Proxies};
use crate::clock::Clock;
use crate::driver::{self, Command, Driver};
use crate::entropy::SystemEntropy;
use crate::incoming::Incoming;
use crate::outgoing::{Delivery, Message, SendError};
use crate::presence::StatusWatch;
use crate::profile::ClientProfile;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::client::{
    Account, Client as Machine, ClientConfig, Disconnected, Limits, QueueError, Registration,
    RegistrationError, UrlsTooLong,
};
use relay_core::presence::Status;
use relay_core::sstp::{ConnectResponseId, OpenResponseId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot, watch};

/// Bytes of queue room are counted in units of this many.
const ROOM_UNIT: usize = 1024;

/// What a client is told at birth.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is and which relay it uses.
    pub profile: ClientProfile,
    /// Its bounds.
    pub limits: Limits,
    /// The only way to the relay to be used; without it the best that works, see [`Carrier`].
    pub carrier: Option<Carrier>,
    /// The proxies that there are.
    pub proxies: Proxies,
    /// The directory in which to remember the way that works.
    pub memory: Option<PathBuf>,
}

impl Config {
    /// A client with the default limits, and with the proxies of its profile or else of the environment.
    pub fn new(profile: ClientProfile) -> Self {
        let proxies = profile.proxies.clone().unwrap_or_else(Proxies::from_environment);
        Self { profile, limits: Limits::default(), carrier: None, proxies, memory: None }
    }

    fn ladder(&self, clock: Clock) -> Ladder {
        let memory = Memory(self.memory.clone());
        Ladder::new(self.profile.relay.clone(), self.proxies.clone(), self.carrier, memory, clock)
    }

    fn machine(&self, clock: &Clock) -> Result<Machine, UrlsTooLong> {
        let profile = &self.profile;
        let mut config = ClientConfig::new(profile.relay.relay_url.clone(), profile.device_url.clone())?;
        config.relay_keys = Some(profile.relay.public_keys.clone());
        config.device_credentials = Some(profile.device_keys.clone());
        let (url, credentials) = (profile.account_url.clone(), profile.account_keys.clone());
        config.accounts = vec![Account { url, credentials }];
        config.limits = self.limits.clone();
        Ok(Machine::new(config, clock.now(), Box::new(SystemEntropy::default())))
    }
}

/// How the client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On the way to a connection.
    Connecting,
    /// The relay does not know this device: [`Client::register`] is the way on.
    RegistrationNeeded,
    /// The device is authenticated.
    Ready {
        /// Whether the account is attached too, so that mail for its identities comes.
        attached: bool,
    },
    /// Between two connections.
    Disconnected {
        /// Why.
        cause: Disconnected,
        /// When the next one will be tried, from the moment of this change.
        retry_in: Duration,
    },
    /// For good.
    Closed,
}

/// Why [`Client::ready`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The relay does not know this device.
    #[error("the relay does not know this device; register it first")]
    RegistrationNeeded,
    /// The relay rejects this device, or has another name than we think, or speaks another version.
    #[error("the relay refuses this device: {0}")]
    Refused(Disconnected),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// What to register beside the device and the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    token: Vec<u8>,
    identities: Vec<IdentityUrl>,
    on_new_device: bool,
}

impl Register {
    /// Device and account alone, without a pre-authentication token.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that the relay's operator gave out.
    pub fn token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.token = token.into();
        self
    }

    /// One more identity of the account.
    pub fn identity(mut self, identity: IdentityUrl) -> Self {
        self.identities.push(identity);
        self
    }

    /// The relay knows the account from another device.
    pub fn on_new_device(mut self) -> Self {
        self.on_new_device = true;
        self
    }

    fn for_account(self, account: AccountUrl) -> Registration {
        Registration {
            account,
            pre_auth_token: self.token,
            identities: self.identities,
            on_new_device: self.on_new_device,
        }
    }
}

/// A client of one relay. See the [crate documentation](crate).
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    room: Arc<Semaphore>,
    byte_room: Arc<Semaphore>,
    byte_room_units: u32,
    state: watch::Receiver<State>,
    presence_refused: watch::Receiver<Option<OpenResponseId>>,
    incoming: Incoming,
    account: AccountUrl,
}

impl Client {
    /// Starts a client, which connects in the background and stays connected until it is closed.
    ///
    /// # Errors
    /// [`UrlsTooLong`] if no Connect holds the URLs of relay and device.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(config: Config) -> Result<Self, UrlsTooLong> {
        let clock = Clock::start();
        let machine = config.machine(&clock)?;
        let (commands, from_handles) = mpsc::unbounded_channel();
        let (to_incoming, incoming) = mpsc::unbounded_channel();
        let (to_state, state) = watch::channel(State::Connecting);
        let (to_refused, presence_refused) = watch::channel(None);
        let units = (config.limits.queued_bytes / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS.min(1 << 30));
        let client = Self {
            room: Arc::new(Semaphore::new(config.limits.queued_messages.min(Semaphore::MAX_PERMITS))),
            byte_room: Arc::new(Semaphore::new(units)),
            byte_room_units: units as u32,
            state,
            presence_refused,
            incoming: Incoming(Arc::new(Mutex::new(incoming))),
            account: config.profile.account_url.clone(),
            commands,
        };
        tokio::spawn(driver::run(Driver {
            machine,
            clock,
            ladder: config.ladder(clock),
            state: to_state,
            presence_refused: to_refused,
            commands: from_handles,
            to_self: client.commands.downgrade(),
            incoming: to_incoming,
        }));
        Ok(client)
    }

    /// Takes a message as soon as there is room for it; await the [`Delivery`] for the acknowledgement.
    ///
    /// # Errors
    /// [`SendError`] if the message cannot be sent at all.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Delivery, SendError> {
        let (message, source) = message.into().into_parts()?;
        let units = message.body().bytes_in_memory().div_ceil(ROOM_UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.byte_room_units);
        let closed = |_| SendError::NotQueued(QueueError::Closed);
        let room = self.room.clone().acquire_owned().await.map_err(closed)?;
        let byte_room = match units {
            0 => None,
            units => Some(self.byte_room.clone().acquire_many_owned(units).await.map_err(closed)?),
        };
        let (done, outcome) = oneshot::channel();
        let send = driver::Send { message, source, room, byte_room, done };
        self.tell(Command::Send(Box::new(send))).map_err(|_| SendError::NotQueued(QueueError::Closed))?;
        Ok(Delivery(outcome))
    }

    /// The messages that arrive. All streams of a client share them.
    pub fn incoming(&self) -> Incoming {
        self.incoming.clone()
    }

    /// Registers the device, the account and identities, and waits until the client has authenticated with them.
    ///
    /// # Errors
    /// [`RegistrationError`]; in particular [`RegistrationError::Refused`] with the relay's status.
    pub async fn register(&self, register: Register) -> Result<(), RegistrationError> {
        let (done, outcome) = oneshot::channel();
        let registration = register.for_account(self.account.clone());
        let closed = |_| RegistrationError::ClientClosed;
        self.tell(Command::Register { registration, done }).map_err(closed)?;
        outcome.await.map_err(|_| RegistrationError::ClientClosed)??;
        let mut state = self.state.clone();
        let settled = |state: &State| matches!(state, State::Ready { .. } | State::Closed);
        let ended = *state.wait_for(settled).await.map_err(|_| RegistrationError::ClientClosed)?;
        if ended == State::Closed { Err(RegistrationError::ClientClosed) } else { Ok(()) }
    }

    /// How the client stands, now and from now on.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until the device is authenticated, through any number of attempts.
    ///
    /// # Errors
    /// [`NotReady`] if waiting is of no use.
    pub async fn ready(&self) -> Result<(), NotReady> {
        let mut state = self.state.clone();
        let verdict = |state: &State| match state {
            State::Ready { .. } => Some(Ok(())),
            State::RegistrationNeeded => Some(Err(NotReady::RegistrationNeeded)),
            State::Disconnected { cause, .. } if is_refusal(cause) => Some(Err(NotReady::Refused(*cause))),
            State::Closed => Some(Err(NotReady::Closed)),
            State::Connecting | State::Disconnected { .. } => None,
        };
        let settled = state.wait_for(|state| verdict(state).is_some()).await.map_err(|_| NotReady::Closed)?;
        verdict(&settled).expect("the state was waited for")
    }

    /// Publishes the status of this device at its relay, on every connection until the client is closed. [`Status::Unknown`] takes
    /// it back.
    pub fn publish(&self, status: Status) {
        if self.tell(Command::Publish(status)).is_err() {
            tracing::debug!("the client is closed and publishes nothing");
        }
    }

    /// Watches devices at this client's relay. For devices of several relays see [`StatusWatch::add`].
    pub fn watch(&self, devices: impl IntoIterator<Item = DeviceUrl>) -> StatusWatch {
        let mut watch = StatusWatch::new();
        watch.add(self, devices);
        watch
    }

    /// Why the relay has no presence for this device, if it has said so on the present connection.
    pub fn presence_refused(&self) -> watch::Receiver<Option<OpenResponseId>> {
        self.presence_refused.clone()
    }

    /// Waits until every message sent so far has been acknowledged or has failed.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.tell(Command::Flush(done)).is_ok() {
            // An error says that the client was closed, and that nothing is on its way any more.
            let _ = flushed.await;
        }
    }

    /// Closes the client: acknowledgements reach the relay, messages that were not acknowledged fail. All handles are closed with
    /// it.
    pub async fn close(&self) {
        if self.tell(Command::Close).is_ok() {
            let mut state = self.state.clone();
            // An error says that the task has ended.
            let _ = state.wait_for(|state| *state == State::Closed).await;
        }
    }

    pub(crate) fn commands(&self) -> mpsc::UnboundedSender<Command> {
        self.commands.clone()
    }

    fn tell(&self, command: Command) -> Result<(), mpsc::error::SendError<Command>> {
        self.commands.send(command)
    }
}

/// Whether the relay said that it does not want this device, now or later.
fn is_refusal(cause: &Disconnected) -> bool {
    match cause {
        Disconnected::DeviceRefused => true,
        Disconnected::Refused(response) => *response != ConnectResponseId::TryLater,
        _ => false,
    }
}
