//! The side threads: what a shard must not wait for. They judge registrations, whose public-key work and whose flush of the
//! user database cost milliseconds: the first side by side, the reading, changing and writing of records one at a time for
//! the whole relay. They write down which devices were there, as well. They never touch a shard's state, and give way to the shards where they share a processor.

use crate::events;
use crate::letter::Letter;
use crate::mesh::{Mesh, Sender};
use client::Clock;
use crossbeam::channel;
use relay_core::address::DeviceUrl;
use relay_core::directory::DirectoryChange;
use relay_core::relay::{Registered, Registration, ShardId};
use relay_core::security::{self, RegisterContext, RegisterStatus, RegisterVerdict, RelayKeys};
use relay_core::time::Timestamp;
use std::sync::Arc;
use std::thread::JoinHandle;
use storage::UserDatabase;

/// How much less than a shard a side thread gets of a processor that both want (nice value): about a tenth.
const NICENESS: i32 = 10;
/// Registrations that may wait. At 10 ms each (legacy) the last one waits a second or so; above it the answer is Busy.
const QUEUE: usize = 128;

/// Work for the side threads; each of them that takes a `Stop` ends.
#[derive(Debug)]
enum Job {
    Register(ShardId, Registration),
    /// These devices were there at that time.
    Seen(Vec<DeviceUrl>, Timestamp),
    Stop,
}

/// A shard's way to the side threads.
#[derive(Clone, Debug)]
pub struct SideDoor(channel::Sender<Job>);

impl SideDoor {
    /// Asks for a registration to be judged; the verdict comes as [`Letter::Registered`].
    ///
    /// # Errors
    /// If too many wait already, the verdict to give at once.
    pub fn register(&self, shard: ShardId, registration: Registration) -> Result<(), Box<Letter>> {
        self.0.try_send(Job::Register(shard, registration)).map_err(|refused| {
            let (channel::TrySendError::Full(job) | channel::TrySendError::Disconnected(job)) = refused;
            let Job::Register(_, registration) = job else { unreachable!("it was a registration") };
            let outcome = Registered::busy(&registration);
            let Registration { connection, event, .. } = registration;
            Box::new(Letter::Registered { connection, event, outcome })
        })
    }
}

impl SideDoor {
    /// Asks for it to be written down that devices were there.
    ///
    /// # Errors
    /// The devices, if there is no room now.
    pub fn seen(&self, devices: Vec<DeviceUrl>, at: Timestamp) -> Result<(), Vec<DeviceUrl>> {
        self.0.try_send(Job::Seen(devices, at)).map_err(|refused| {
            let (channel::TrySendError::Full(job) | channel::TrySendError::Disconnected(job)) = refused;
            let Job::Seen(devices, _) = job else { unreachable!("it was about devices") };
            devices
        })
    }
}

/// The running side threads. They end when they are told to, or when every [`SideDoor`] is gone.
#[derive(Debug)]
pub struct Side {
    threads: Vec<JoinHandle<()>>,
    jobs: channel::Sender<Job>,
}

/// What registrations are judged by.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The users.
    pub users: UserDatabase,
    /// The relay's private keys.
    pub keys: Arc<RelayKeys>,
    /// Whether only accounts with a listed token may register.
    pub pre_authentication_required: bool,
    /// The time.
    pub clock: Clock,
}

impl Side {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(mesh: Arc<Mesh<Letter>>, judge: Judge, threads: usize) -> std::io::Result<(Side, SideDoor)> {
        let (sender, jobs) = channel::bounded::<Job>(QUEUE);
        let mut side = Side { threads: Vec::new(), jobs: sender.clone() };
        for number in 0..threads {
            let (jobs, mesh, judge) = (jobs.clone(), mesh.clone(), judge.clone());
            let thread = std::thread::Builder::new().name(format!("side-{number}"));
            side.threads.push(thread.spawn(move || work(&jobs, &mesh, &judge))?);
        }
        Ok((side, SideDoor(sender)))
    }

    /// Tells them to end when they have done what waits, and waits for that.
    pub fn join(self) {
        for _ in &self.threads {
            // They may have panicked, and then nobody takes this.
            let _ = self.jobs.send(Job::Stop);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!(
                    event = events::SIDE_PANICKED,
                    "a side thread panicked; the registration that it judged was not answered"
                );
            }
        }
    }
}

fn work(jobs: &channel::Receiver<Job>, mesh: &Mesh<Letter>, judge: &Judge) {
    // Of this thread alone. Without it registrations are as good, and the shards a little slower meanwhile.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(event = events::PRIORITY_KEPT, %error, "a side thread keeps the priority of a shard");
    }
    for job in jobs {
        match job {
            Job::Register(shard, registration) => {
                let outcome = judge.judge(&registration);
                let Registration { connection, event, .. } = registration;
                deliver(mesh, shard, Letter::Registered { connection, event, outcome });
            }
            Job::Seen(devices, at) => judge.write_down(&devices, at),
            Job::Stop => return,
        }
    }
}

impl Judge {
    fn write_down(&self, devices: &[DeviceUrl], at: Timestamp) {
        let written = self.users.note_seen(devices, at.as_secs()).and_then(|()| self.users.flush());
        if let Err(error) = written {
            tracing::warn!(event = events::SEEN_NOT_WRITTEN, devices = devices.len(), %error, "it could not be written down which devices were there");
        }
    }

    /// A device that is new was here today, though it has not authenticated yet. What fails here is no reason to refuse it.
    fn note_new_device(&self, device: &DeviceUrl, changes: &[DirectoryChange]) {
        if changes.iter().any(|change| matches!(change, DirectoryChange::Device(..)))
            && let Err(error) = self.users.note_seen([device], self.clock.now().as_secs())
        {
            tracing::warn!(event = events::SEEN_NOT_WRITTEN, devices = 1, %error, "it could not be written down which devices were there");
        }
    }

    fn judge(&self, registration: &Registration) -> Registered {
        // A management server may have said who has to present a token.
        let said = self.users.managers().defaults().ok().and_then(|defaults| defaults.pre_authentication);
        let context = RegisterContext {
            keys: &self.keys,
            device: &registration.device,
            account: &registration.account,
            directory: &self.users,
            pre_authentication_required: said.unwrap_or(self.pre_authentication_required),
        };
        let opened = security::open_register(&registration.token, &context);
        let stored = self.users.update(|_| match opened.judge(&context) {
            RegisterVerdict::Accepted { changes, response } => {
                self.note_new_device(&registration.device, &changes);
                (changes, Registered::Answered { response, failure: None })
            }
            RegisterVerdict::Refused { response, status: RegisterStatus::Busy, .. } => {
                (Vec::new(), Registered::Busy { response })
            }
            RegisterVerdict::Refused { response, reason, .. } => {
                let failure = Some(registration.failure(reason));
                (Vec::new(), Registered::Answered { response, failure })
            }
            RegisterVerdict::Malformed(reason) => {
                (Vec::new(), Registered::Malformed(registration.failure(reason)))
            }
        });
        stored.unwrap_or_else(|error| {
            tracing::error!(event = events::REGISTRATION_NOT_STORED, account = %registration.account, %error, "a registration could not be stored");
            Registered::Failed
        })
    }
}

/// Brings a letter to a shard, waiting for room if there is none: side threads may wait, shards may not. A shard that makes
/// no room for five seconds has ended, and so have its connections.
pub(crate) fn deliver(mesh: &Mesh<Letter>, shard: ShardId, mut letter: Letter) {
    for _ in 0..5000 {
        match mesh.push(Sender::Side, shard, letter) {
            Ok(()) => return mesh.ring(shard),
            Err(back) => letter = back,
        }
        mesh.ring(shard);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
