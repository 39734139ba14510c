//! Stored mail follows its accounts: when the number of shards has changed, the logs are re-homed before any shard starts.
//! The work itself is `storage`'s.

use crate::events;
use crate::server::ServerError;
use glommio::{LocalExecutorBuilder, Placement};
use std::path::Path;
use storage::Rehoming;

/// Makes the logs in `data` those of `shards` shards, if they are not. Blocks; progress is in the log.
///
/// # Errors
/// [`ServerError`]. Nothing is lost: the next start goes on.
pub fn settle(data: &Path, shards: u16, segment_bytes: u64) -> Result<(), ServerError> {
    let rehoming = Rehoming { data: data.into(), shards, segment_bytes };
    if !rehoming.is_needed()? {
        return Ok(());
    }
    tracing::info!(
        event = events::SHARDS_CHANGED,
        shards,
        "the number of shards has changed: stored mail moves to its new homes"
    );
    let failed = |error: String| ServerError::System { what: "re-homing stored mail".into(), error };
    // A thread of its own, since this one keeps no executor.
    let work = move || {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
        executor.map_err(|error| failed(error.to_string()))?.run(rehoming.run()).map_err(ServerError::from)
    };
    let thread = std::thread::Builder::new().name("re-homing".into()).spawn(work);
    let ended = thread.map_err(|error| failed(error.to_string()))?.join();
    ended.unwrap_or_else(|_| Err(failed("its thread panicked".into()))).map(drop)
}
