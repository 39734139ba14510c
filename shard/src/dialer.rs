//! Calling other relays: finding their addresses on a thread of its own, since looking a name up blocks, and connecting on the shard that
//! holds the link.
//!
//! Decides nothing: which relay is called and when is relay-core's affair. A relay has one call under way at most, so what
//! waits here is bounded by the number of peers.

use crate::events;
use crate::letter::Letter;
use crate::mesh::Mesh;
use crate::side::deliver;
use crate::transport::Socket;
use crossbeam::channel;
use relay_core::relay::{DialFailure, RemoteRelay, ShardId};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The most addresses of one relay that are tried.
const MOST_ADDRESSES: usize = 16;

/// Work for the resolver.
#[derive(Debug)]
enum Job {
    Resolve { shard: ShardId, relay: RemoteRelay, addresses: Arc<[String]> },
    Stop,
}

/// A shard's way to the resolver.
#[derive(Clone, Debug)]
pub struct ResolverDoor(channel::Sender<Job>);

impl ResolverDoor {
    /// Asks for the addresses of a relay; they come as [`Letter::Resolved`].
    ///
    /// # Errors
    /// [`DialFailure::NameNotFound`] if the resolver is far behind, or gone.
    pub fn resolve(
        &self,
        shard: ShardId,
        relay: RemoteRelay,
        addresses: Arc<[String]>,
    ) -> Result<(), DialFailure> {
        let job = Job::Resolve { shard, relay, addresses };
        self.0.try_send(job).map_err(|_| DialFailure::NameNotFound)
    }
}

/// The running resolver. It ends when it is told to, or when every [`ResolverDoor`] is gone.
#[derive(Debug)]
pub struct Resolver {
    thread: JoinHandle<()>,
    jobs: channel::Sender<Job>,
}

impl Resolver {
    /// Starts the thread, for so many peers.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(mesh: Arc<Mesh<Letter>>, peers: usize) -> std::io::Result<(Resolver, ResolverDoor)> {
        let (sender, jobs) = channel::bounded::<Job>(peers + 1);
        let work = move || {
            for job in jobs {
                let Job::Resolve { shard, relay, addresses } = job else { return };
                deliver(&mesh, shard, Letter::Resolved { relay, addresses: resolve(&addresses) });
            }
        };
        let thread = std::thread::Builder::new().name("resolver".into()).spawn(work)?;
        Ok((Resolver { thread, jobs: sender.clone() }, ResolverDoor(sender)))
    }

    /// Tells it to end. A look-up that is under way is not waited for: it may take as long as the system's resolver likes.
    pub fn stop(self) {
        // A full queue ends with the doors of the shards, which are gone by now.
        let _ = self.jobs.try_send(Job::Stop);
        if self.thread.is_finished() && self.thread.join().is_err() {
            tracing::error!(
                event = events::RESOLVER_PANICKED,
                "the resolver panicked; other relays were not called since"
            );
        }
    }
}

/// What the names stand for, in their order; none for a name that is not found.
fn resolve(names: &[String]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for name in names {
        match name.to_socket_addrs() {
            Ok(addresses) => found.extend(addresses),
            Err(error) => {
                tracing::warn!(event = events::PEER_NOT_FOUND, name, %error, "the address of another relay was not found")
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    found.truncate(MOST_ADDRESSES);
    found
}

/// A socket to the first of `addresses` that answers, each within `patience`. Must be called on a glommio executor.
///
/// # Errors
/// [`DialFailure`].
pub async fn connect(addresses: &[SocketAddr], patience: Duration) -> Result<Socket, DialFailure> {
    if addresses.is_empty() {
        return Err(DialFailure::NameNotFound);
    }
    for address in addresses {
        match Socket::connect(*address, patience).await {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                tracing::debug!(event = events::PEER_SILENT, %address, %error, "another relay does not answer")
            }
        }
    }
    Err(DialFailure::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_order_and_come_once() {
        let names = ["127.0.0.2:7", "no port", "127.0.0.1:7", "127.0.0.2:7"].map(str::to_owned);
        let found: Vec<String> = resolve(&names).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.2:7", "127.0.0.1:7"]);
    }

    #[test]
    fn the_resolver_answers_the_shard_that_asked() {
        let mesh = Mesh::new(2, 16);
        let (resolver, door) = Resolver::start(mesh.clone(), 1).unwrap();
        door.resolve(ShardId(1), RemoteRelay(0), Arc::new(["127.0.0.1:7".to_owned()])).unwrap();
        let mut got = Vec::new();
        while got.is_empty() {
            mesh.take(crate::mesh::Sender::Side, ShardId(1), 1, |letter| got.push(letter));
            std::thread::yield_now();
        }
        let Some(Letter::Resolved { relay: RemoteRelay(0), addresses }) = got.pop() else { panic!() };
        assert_eq!(addresses, ["127.0.0.1:7".parse::<SocketAddr>().unwrap()]);
        resolver.stop();
    }
}
