//! Mail of devices that do not come any more, over a restart.

use crate::running::{Person, Running, in_time};
use client::Message;
use std::time::Duration;
use storage::UserDatabase;
use tuning::operator::ShardCounters;

async fn send_to_device(from: &Person, to: &Person, bytes: usize) {
    let message = Message::to(to.profile.identities[0].clone()).device(to.profile.device_url.clone());
    in_time(in_time(from.client.send(message.body(vec![1; bytes]))).await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_a_device_that_was_not_seen_for_too_long_goes_after_a_restart_and_that_of_others_stays() {
    let mut relay = Running::start(|config| config.mail.abandoned_after = Duration::from_secs(2));
    let (alice, mut gone, mut active) = (relay.person().await, relay.person().await, relay.person().await);
    for away in [&gone, &active] {
        away.client.close().await;
        send_to_device(&alice, away, 100).await;
    }
    relay.kill();
    let users = UserDatabase::open(relay.data().join("users")).unwrap();
    users.note_seen([&gone.profile.device_url], 1000).unwrap();
    users.flush().unwrap();
    drop(users);
    relay.run();
    relay.eventually("one message is purged", || {
        let shards = relay.status().shards;
        let sum = |of: fn(&ShardCounters) -> u64| shards.iter().map(|shard| of(&shard.counters)).sum::<u64>();
        (sum(|counters| counters.dropped_abandoned), sum(|counters| counters.messages)) == (1, 1)
    });
    active.come_back().await;
    assert_eq!(active.receive().await, 100);
    gone.come_back().await;
    send_to_device(&active, &gone, 7).await;
    assert_eq!(gone.receive().await, 7, "what was purged does not come");
}
