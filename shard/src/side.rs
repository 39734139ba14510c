//! The side thread: what a shard must not wait for. It judges registrations, one at a time for the whole relay, since they
//! read records, change them and write them back; their public-key work and the flush of the user database cost
//! milliseconds. It never touches a shard's state.

use crate::letter::Letter;
use crate::mesh::{Mesh, Sender};
use crossbeam::channel;
use relay_core::relay::{Registered, Registration, ShardId};
use relay_core::security::{self, RegisterContext, RegisterVerdict, RelayKeys};
use std::sync::Arc;
use std::thread::JoinHandle;
use storage::UserDatabase;

/// Registrations that may wait. At 5 ms each the last one waits two thirds of a second; above it the answer is Busy.
const QUEUE: usize = 128;

/// Work for the side thread.
#[derive(Debug)]
enum Job {
    Register(ShardId, Registration),
    Stop,
}

/// A shard's way to the side thread.
#[derive(Clone, Debug)]
pub struct SideDoor(channel::Sender<Job>);

impl SideDoor {
    /// Asks for a registration to be judged; the verdict comes as [`Letter::Registered`].
    ///
    /// # Errors
    /// If too many wait already, the verdict to give at once.
    pub fn register(&self, shard: ShardId, registration: Registration) -> Result<(), Box<Letter>> {
        let token = registration.token.clone();
        let (connection, event) = (registration.connection, registration.event);
        self.0.try_send(Job::Register(shard, registration)).map_err(|_full| {
            let outcome = Registered::busy(&token);
            Box::new(Letter::Registered { connection, event, outcome })
        })
    }
}

/// The running side thread. It ends when it is told to, or when every [`SideDoor`] is gone.
#[derive(Debug)]
pub struct Side {
    thread: JoinHandle<()>,
    jobs: channel::Sender<Job>,
}

impl Side {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(
        mesh: Arc<Mesh<Letter>>,
        users: UserDatabase,
        keys: RelayKeys,
        pre_authentication_required: bool,
    ) -> std::io::Result<(Side, SideDoor)> {
        let (sender, jobs) = channel::bounded::<Job>(QUEUE);
        let work = move || {
            for job in jobs {
                let Job::Register(shard, registration) = job else { return };
                let outcome = judge(&registration, &users, &keys, pre_authentication_required);
                let Registration { connection, event, .. } = registration;
                deliver(&mesh, shard, Letter::Registered { connection, event, outcome });
            }
        };
        let thread = std::thread::Builder::new().name("side".into()).spawn(work)?;
        Ok((Side { thread, jobs: sender.clone() }, SideDoor(sender)))
    }

    /// Tells it to end when it has done what waits, and waits for that.
    pub fn join(self) {
        // It may have panicked, and then nobody takes this.
        let _ = self.jobs.send(Job::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the side thread panicked; registrations were not answered since");
        }
    }
}

fn judge(
    registration: &Registration,
    users: &UserDatabase,
    keys: &RelayKeys,
    pre_authentication_required: bool,
) -> Registered {
    let context = RegisterContext {
        keys,
        device: &registration.device,
        account: &registration.account,
        directory: users,
        pre_authentication_required,
    };
    match security::answer_register(&registration.token, &context) {
        RegisterVerdict::Accepted { changes, response } => match users.apply(&changes) {
            Ok(()) => Registered::Answered { response, failure: None },
            Err(error) => {
                tracing::error!(account = %registration.account, %error, "a registration could not be stored");
                Registered::Failed
            }
        },
        RegisterVerdict::Refused { response, reason, .. } => {
            Registered::Answered { response, failure: Some(reason) }
        }
        RegisterVerdict::Malformed(reason) => Registered::Malformed(reason),
    }
}

/// Brings a letter to a shard, waiting for room if there is none: the side thread may wait, shards may not. A shard that makes
/// no room for five seconds has ended, and so have its connections.
fn deliver(mesh: &Mesh<Letter>, shard: ShardId, mut letter: Letter) {
    for _ in 0..5000 {
        match mesh.push(Sender::Side, shard, letter) {
            Ok(()) => return mesh.ring(shard),
            Err(back) => letter = back,
        }
        mesh.ring(shard);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
