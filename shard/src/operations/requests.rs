//! What is done about an operator's request.

use super::{Deck, State};
use crate::board::Shown;
use crate::command::{Command, NoAnswer};
use crate::histogram::Distribution;
use crate::users::{Users, UsersError};
use crate::{events, logging, server};
use relay_core::address::{AccountUrl, DeviceUrl, InvalidUrl};
use relay_core::relay::operator::{ConnectionView, MailboxView};
use relay_core::relay::{self as core, Page, ShardId, Whom};
use relay_core::sstp::CloseReason;
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tuning::operator::{
    Answer, Connection, ErrorCause, Filter, KeyHolder, MAX_LISTED, Mailbox, MailboxOrder, Refusal, Request,
    ResourceState, ShardState, Status, Timing,
};

/// How long a shard may take for a short command.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much longer than the grace of a shutdown a drain may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Entries of a table that a shard looks at in one turn.
const LOOK_AT: usize = 4096;

/// Does what is asked for.
pub(super) async fn carry_out(deck: &Arc<Deck>, request: Request) -> Result<Answer, Refusal> {
    match request {
        Request::Status => Ok(Answer::Status(Box::new(status(deck).await))),
        Request::Connections { filter, most } => connections(deck, &filter, most).await,
        Request::Mailboxes { order, most } => mailboxes(deck, order, most).await,
        Request::ClearKeys(holder) => clear_keys(deck, holder).await,
        Request::Disconnect { filter, return_seconds } => disconnect(deck, &filter, return_seconds).await,
        Request::Drain => drain(deck).await,
        Request::EndDrain => end_drain(deck).await,
        Request::Reload => reload(deck).await,
        Request::LogLevel { level } => log_level(&level),
        _ => Err(refusal(ErrorCause::BadRequest, "this relay does not know the command")),
    }
}

fn refusal(cause: ErrorCause, message: impl ToString) -> Refusal {
    Refusal { cause, message: message.to_string() }
}

fn bad_url(error: InvalidUrl) -> Refusal {
    refusal(ErrorCause::BadValue, error)
}

fn no_answer(error: NoAnswer) -> Refusal {
    let cause = match error {
        NoAnswer::NoSuchShard(_) => ErrorCause::NotFound,
        _ => ErrorCause::NoAnswer,
    };
    refusal(cause, error)
}

fn must_serve(deck: &Deck) -> Result<(), Refusal> {
    match deck.state() {
        State::Serving | State::Draining | State::Quiescent => Ok(()),
        state => Err(refusal(ErrorCause::NotServing, format!("the relay is {}", state.name()))),
    }
}

async fn status(deck: &Deck) -> Status {
    let around = &deck.around;
    let fresh = match deck.state() {
        State::Serving | State::Draining | State::Quiescent => {
            around.shards.ask_each(PATIENCE, Command::Status).await
        }
        State::Starting | State::Stopping => Vec::new(),
    };
    let mut fresh = fresh.into_iter();
    let shards = around.shards.all().map(|shard| {
        let answer = fresh.next().and_then(Result::ok);
        shard_state(
            deck,
            shard,
            answer.is_some(),
            &answer.map_or_else(|| around.board.read(shard), |shown| *shown),
        )
    });
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        state: deck.state().name().into(),
        started_at: deck.started.as_secs(),
        now_ms: around.clock.now().0,
        pid: std::process::id(),
        log_level: logging::level(),
        metrics: deck.metrics_at.clone(),
        shards: shards.collect(),
        resources: resources(deck),
    }
}

fn resources(deck: &Deck) -> Vec<ResourceState> {
    let monitor = deck.monitor();
    let state = monitor.levels().map(|(resource, level, usage)| ResourceState {
        name: resource.name().into(),
        level: level.name().into(),
        used: usage.used,
        limit: usage.limit,
    });
    state.collect()
}

fn shard_state(deck: &Deck, shard: ShardId, answers: bool, shown: &Shown) -> ShardState {
    let shards = &deck.around.shards;
    let queues = shards.all().filter(|&from| from != shard).map(|from| shards.queue(from, shard));
    let (mesh_queue, mesh_stalls) =
        queues.fold((0, 0), |(items, stalls), (waiting, full)| (items + waiting as u64, stalls + full));
    let [commit, batch, completion] = shown.distributions.each_ref().map(timing);
    ShardState {
        shard: shard.0,
        answers,
        counters: shown.counters,
        mesh_queue,
        mesh_stalls,
        commit,
        batch,
        completion,
    }
}

fn timing(of: &Distribution) -> Timing {
    Timing { count: of.count, p50: of.p50, p99: of.p99, max: of.max }
}

/// Which connections, and on which shard if they are all on one.
fn whom(filter: &Filter) -> Result<(Whom, Option<ShardId>), Refusal> {
    Ok(match filter {
        Filter::Everybody => (Whom::Everybody, None),
        Filter::Connection { shard, number } => (Whom::Connection(*number), Some(ShardId(*shard))),
        Filter::Device(url) => (Whom::Device(DeviceUrl::new(url).map_err(bad_url)?), None),
        Filter::Account(url) => (Whom::Account(AccountUrl::new(url).map_err(bad_url)?), None),
        Filter::Address(address) => (Whom::Address(address.to_canonical()), None),
    })
}

fn on_shards(deck: &Deck, only: Option<ShardId>) -> Vec<ShardId> {
    only.map_or_else(|| deck.around.shards.all().collect(), |shard| vec![shard])
}

async fn connections(deck: &Deck, filter: &Filter, most: usize) -> Result<Answer, Refusal> {
    must_serve(deck)?;
    let most = most.min(MAX_LISTED);
    let (whom, only) = whom(filter)?;
    let mut connections = Vec::new();
    for shard in on_shards(deck, only) {
        let mut from = Some(0);
        while let Some(first) = from {
            // One more than asked for shows whether there are more.
            let page = Page { from: first, look_at: LOOK_AT, most: most + 1 - connections.len() };
            let ask = |reply| Command::Connections { whom: whom.clone(), page, reply };
            let listed = deck.around.shards.ask(shard, PATIENCE, ask).await.map_err(no_answer)?;
            connections.extend(listed.entries.into_iter().map(|view| connection(shard, view)));
            if connections.len() > most {
                connections.truncate(most);
                return Ok(Answer::Connections { connections, more: true });
            }
            from = listed.next;
        }
    }
    Ok(Answer::Connections { connections, more: false })
}

fn connection(shard: ShardId, view: ConnectionView) -> Connection {
    Connection {
        shard: shard.0,
        number: view.id.as_u64(),
        address: view.address,
        device: view.device.map(|device| device.to_string()),
        authenticated: view.authenticated,
        accounts: view.accounts.iter().map(ToString::to_string).collect(),
        senders: view.senders,
        outlets: view.outlets,
        in_flight_bytes: view.in_flight_bytes,
        output_bytes: view.output_bytes,
        unacknowledged: view.unacknowledged,
        stopped: view.stopped,
    }
}

async fn mailboxes(deck: &Deck, order: MailboxOrder, most: usize) -> Result<Answer, Refusal> {
    must_serve(deck)?;
    let most = most.min(MAX_LISTED);
    let order = match order {
        MailboxOrder::Bytes => core::MailboxOrder::Bytes,
        MailboxOrder::Messages => core::MailboxOrder::Messages,
        MailboxOrder::Slowest => core::MailboxOrder::Slowest,
    };
    let mut best: Vec<(ShardId, MailboxView)> = Vec::new();
    for shard in deck.around.shards.all() {
        let mut from = Some(0);
        while let Some(first) = from {
            let page = Page { from: first, look_at: LOOK_AT, most };
            let ask = |reply| Command::Mailboxes { order, page, reply };
            let listed = deck.around.shards.ask(shard, PATIENCE, ask).await.map_err(no_answer)?;
            best.extend(listed.entries.into_iter().map(|view| (shard, view)));
            best.sort_by_key(|(_, view)| Reverse(view.rank(order)));
            best.truncate(most);
            from = listed.next;
        }
    }
    Ok(Answer::Mailboxes(best.into_iter().map(|(shard, view)| mailbox(shard, &view)).collect()))
}

fn mailbox(shard: ShardId, view: &MailboxView) -> Mailbox {
    Mailbox {
        shard: shard.0,
        account: view.address.account.to_string(),
        identity: view.address.identity.to_string(),
        device: view.address.device.as_ref().map(ToString::to_string),
        resource: view.address.resource.to_string(),
        messages: view.messages,
        under_way: view.under_way,
        held_bytes: view.held_bytes,
        collectors: view.collectors,
        collector: view.collector.map(|(shard, connection)| (shard.0, connection.as_u64())),
    }
}

async fn clear_keys(deck: &Deck, holder: KeyHolder) -> Result<Answer, Refusal> {
    let whose = holder.clone();
    let users = Users::of(deck.around.users.clone());
    let clear = move || match &whose {
        KeyHolder::Device(device) => users.clear_device_keys(device),
        KeyHolder::Account(account) => users.clear_keys(account),
    };
    let cleared = tokio::task::spawn_blocking(clear).await;
    cleared.map_err(|error| refusal(ErrorCause::Failed, error))?.map_err(|error| match error {
        UsersError::Url(error) => bad_url(error),
        UsersError::NoSuchAccount(_) | UsersError::NoSuchDevice(_) => refusal(ErrorCause::NotFound, error),
        UsersError::Storage(error) => refusal(ErrorCause::Failed, error),
        error => refusal(ErrorCause::Failed, error),
    })?;
    let (KeyHolder::Device(url) | KeyHolder::Account(url)) = holder;
    tracing::info!(event = events::KEYS_CLEARED, %url, "keys were cleared by an operator");
    Ok(Answer::Done)
}

async fn disconnect(deck: &Deck, filter: &Filter, return_seconds: Option<u32>) -> Result<Answer, Refusal> {
    must_serve(deck)?;
    let (whom, only) = whom(filter)?;
    let return_time =
        return_seconds.map_or(deck.return_time, |seconds| Duration::from_secs(u64::from(seconds)));
    let mut count = 0;
    for shard in on_shards(deck, only) {
        let reason = CloseReason::Resting;
        let ask = |reply| Command::Disconnect { whom: whom.clone(), reason, return_time, reply };
        count += deck.around.shards.ask(shard, PATIENCE, ask).await.map_err(no_answer)?;
    }
    if count == 0 && *filter != Filter::Everybody {
        return Err(refusal(ErrorCause::NotFound, "there is no such connection"));
    }
    tracing::info!(event = events::DISCONNECTED, count, ?whom, "connections were ended by an operator");
    Ok(Answer::Disconnected(count))
}

async fn drain(deck: &Deck) -> Result<Answer, Refusal> {
    must_serve(deck)?;
    if deck.change_state(State::Serving, State::Draining) {
        tracing::info!(event = events::DRAIN_BEGUN, "the relay is drained by an operator");
    }
    let patience = deck.shutdown_grace + DRAIN_PATIENCE;
    let left = deck.around.shards.ask_each(patience, |reply| Command::Drain { reply }).await;
    let left: usize = left.into_iter().sum::<Result<usize, _>>().map_err(no_answer)?;
    tracing::info!(event = events::DRAINED, connections = left, "the relay is drained");
    Ok(Answer::Drained(left))
}

/// Ends what operators and management servers can do to the service alike. Who has built half a user database begins anew.
async fn end_drain(deck: &Deck) -> Result<Answer, Refusal> {
    must_serve(deck)?;
    let users = deck.around.users.clone();
    let abandoned = tokio::task::spawn_blocking(move || users.abandon_listing()).await;
    let abandoned = abandoned.map_err(|error| refusal(ErrorCause::Failed, error))?;
    if abandoned.map_err(|error| refusal(ErrorCause::Failed, error))? {
        tracing::warn!(
            event = events::LISTING_ABANDONED,
            "a half-built user database was thrown away by an operator"
        );
    }
    deck.around.quiescent.store(false, Ordering::Release);
    let done = deck.around.shards.ask_each(PATIENCE, Command::EndDrain).await;
    done.into_iter().collect::<Result<(), _>>().map_err(no_answer)?;
    deck.change_state(State::Draining, State::Serving);
    tracing::info!(event = events::DRAIN_ENDED, "the relay is in service again");
    Ok(Answer::Done)
}

async fn reload(deck: &Arc<Deck>) -> Result<Answer, Refusal> {
    let this = deck.clone();
    let reload = move || server::reload(this.around.certificate.as_ref());
    let outcome = tokio::task::spawn_blocking(reload).await;
    let outcome = outcome.map_err(|error| refusal(ErrorCause::Failed, error))?;
    outcome.map(|()| Answer::Done).map_err(|error| refusal(ErrorCause::Failed, error))
}

fn log_level(level: &str) -> Result<Answer, Refusal> {
    match logging::set_level(level) {
        Ok(()) => {
            tracing::info!(event = events::LOG_LEVEL_CHANGED, level, "the log level was changed");
            Ok(Answer::Done)
        }
        Err(error @ (logging::LevelError::Parse(_) | logging::LevelError::TooLong)) => {
            Err(refusal(ErrorCause::BadValue, error))
        }
        Err(error) => Err(refusal(ErrorCause::Failed, error)),
    }
}
