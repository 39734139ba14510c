//! The watch: measures every now and then, says what has changed, and tells the shards what to take in.

use super::machine::{Measured, measure};
use super::{Deck, State};
use crate::command::Command;
use crate::monitor::{Change, Level, Usage};
use crate::{events, logging};
use relay_core::relay::Intake;
use std::sync::Arc;
use std::time::Duration;

/// How long a shard may take to be told.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the relay's start is looked for.
const UNTIL_IT_SERVES: Duration = Duration::from_millis(20);

/// Watches for as long as the thread lives.
pub(super) async fn watch(deck: Arc<Deck>) {
    while deck.state() == State::Starting {
        tokio::time::sleep(UNTIL_IT_SERVES).await;
    }
    let mut told = Intake::OPEN;
    loop {
        look(&deck).await;
        let intake = deck.monitor().intake();
        if intake != told && tell(&deck, intake).await {
            told = intake;
        }
        logging::tell_suppressed();
        tokio::time::sleep(deck.interval).await;
    }
}

async fn look(deck: &Arc<Deck>) {
    let data_dir = deck.machine().data_dir();
    // A disk that hangs must not hang the answers to operators.
    let Ok((measured, failures)) = tokio::task::spawn_blocking(move || measure(&data_dir)).await else {
        return;
    };
    for (resource, error) in failures {
        tracing::warn!(event = events::MEASUREMENT_FAILED, resource, %error, "a resource cannot be measured");
    }
    deck.machine().keep(measured);
    let Measured { disk, memory, descriptors } = measured;
    let changes = deck.monitor().observe([disk, memory, descriptors, Some(connections(deck))]);
    changes.iter().for_each(say);
}

fn connections(deck: &Deck) -> Usage {
    let used = deck.around.board.all().map(|(_, shown)| shown.counters.connections).sum();
    Usage { used, limit: deck.machine().connections_limit }
}

fn say(change: &Change) {
    let (resource, Usage { used, limit }) = (change.resource.name(), change.usage);
    if change.after < change.before {
        let level = change.after.name();
        tracing::info!(
            event = events::RESOURCE_BETTER,
            resource,
            level,
            used,
            limit,
            "a resource has room again"
        );
    } else if change.after == Level::Critical {
        tracing::error!(event = events::RESOURCE_CRITICAL, resource, used, limit, "a resource is used up");
    } else {
        tracing::warn!(event = events::RESOURCE_WARNING, resource, used, limit, "a resource runs low");
    }
}

/// Tells every shard what to take in; `false` if one did not hear it.
async fn tell(deck: &Deck, intake: Intake) -> bool {
    let told = deck.around.shards.ask_each(PATIENCE, move |reply| Command::Intake(intake, reply)).await;
    told.into_iter().all(|told| told.is_ok())
}
