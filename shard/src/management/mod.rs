//! The management thread: serves management servers (SPMR over HTTP), one request at a time. It reads and writes the user
//! database and waits for it; what concerns mail and connections it tells the shards in letters, and no shard ever waits
//! for it. It takes what the machine has left (`leftover`), since a load of a million users must not cost those who send mail. Other
//! threads do not wait for it while they hold a processor, since a shard that waits for a record gives its own one up.
//!
//! * `http`: from a socket to a request's body and back, within limits.
//! * `operations`: what a request does.
//! * `orders`: who of the shards is told.

mod http;
mod operations;
mod orders;

use crate::events;
use crate::leftover;
use crate::letter::Letter;
use crate::mesh::Mesh;
use operations::Operations;
use relay_core::security::RelayKeys;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::UserDatabase;
use tokio::sync::oneshot;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// What the management thread needs.
pub struct ManagementOptions {
    /// The configuration.
    pub settings: tuning::Management,
    /// How long shards may take to become quiescent.
    pub patience: Duration,
    /// The users.
    pub users: UserDatabase,
    /// The relay's keys, to which shared keys are sealed.
    pub keys: Arc<RelayKeys>,
    /// The way to the shards.
    pub mesh: Arc<Mesh<Letter>>,
    /// Whether the relay is quiescent. An operator may end that.
    pub quiescent: Arc<AtomicBool>,
}

/// The running management thread.
#[derive(Debug)]
pub struct Management {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Management {
    /// Listens and starts the thread; `None` if there is no address to listen on.
    ///
    /// # Errors
    /// What was asked for and what the system said.
    pub fn start(options: ManagementOptions) -> Result<Option<Self>, (String, io::Error)> {
        if options.settings.listen.is_empty() {
            return Ok(None);
        }
        let mut listeners = Vec::new();
        for &address in &options.settings.listen {
            let listener = bind(address).map_err(|error| (format!("listening on {address}"), error))?;
            listeners.push(listener);
        }
        let failed = |error| ("management thread".to_owned(), error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let addresses = options.settings.listen.clone();
        let work = move || {
            leftover::give_way();
            let limits = http::Limits::of(&options.settings);
            runtime.block_on(http::serve(listeners, limits, Operations::new(options), stopped));
        };
        let thread = std::thread::Builder::new().name("management".into()).spawn(work).map_err(failed)?;
        tracing::info!(event = events::MANAGERS_SERVED, ?addresses, "management servers are served");
        Ok(Some(Self { thread, stop }))
    }

    /// Ends it, after the request that it is doing.
    pub fn stop(self) {
        // It may have panicked, and then nobody takes this.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!(
                event = events::MANAGEMENT_PANICKED,
                "the management thread panicked; no management server was served since"
            );
        }
    }
}

fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
