//! The resource monitor of a running relay: what it stops, and that it goes on by itself.

use crate::running::{Running, in_time};
use client::{Message, State};
use std::time::Duration;

fn level(relay: &Running, resource: &str) -> String {
    let status = relay.status();
    status.resources.iter().find(|found| found.name == resource).unwrap().level.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_disk_is_full_takes_no_messages_and_says_so() {
    let relay = Running::start(|config| {
        // Every disk in use is used to one percent, or soon: the relay's own segments are on it.
        config.monitor.disk_warning_percent = 1;
        config.monitor.disk_critical_percent = 1;
        config.monitor.hysteresis_percent = 0;
    });
    if level(&relay, "disk") == "ok" {
        eprintln!("this disk is empty: nothing to see");
        return;
    }
    relay.eventually("no shard takes messages", || {
        relay.status().shards.iter().all(|shard| shard.counters.taking_deposits == 0)
    });
    assert!(relay.log().contains("event=8002"));
    let (alice, bob) = (relay.person().await, relay.person().await);
    let message = Message::to(bob.profile.identities[0].clone()).body("later");
    let receipt = in_time(alice.client.send(message)).await.unwrap();
    let held = tokio::time::timeout(Duration::from_millis(300), receipt).await;
    assert!(held.is_err(), "the sender keeps it");
    assert_eq!(relay.get("/readyz").0, 200, "connections are taken");
    assert_eq!(relay.status().shards.iter().map(|shard| shard.counters.deposited).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_too_many_connections_puts_newcomers_off_and_goes_on_by_itself() {
    let relay = Running::start(|config| {
        config.shards.count = 1;
        config.limits.connections_per_shard = 100;
        config.monitor.connections_warning_percent = 1;
        config.monitor.connections_critical_percent = 2;
        config.monitor.hysteresis_percent = 0;
        config.timers.retry_time = Duration::from_secs(1);
    });
    let (alice, mut bob) = (relay.person().await, relay.person().await);
    relay.eventually("two of a hundred are critical", || level(&relay, "connections") == "critical");
    relay.eventually("newcomers are refused", || relay.get("/readyz").0 == 503);
    bob.client.close().await;
    relay.eventually("there is room again", || relay.get("/readyz").0 == 200);
    assert_eq!(level(&relay, "connections"), "warning");
    bob.return_home();
    in_time(bob.client.ready()).await.unwrap();
    relay.eventually("newcomers are refused", || relay.get("/readyz").0 == 503);

    let mut carol = bob;
    carol.return_home();
    let mut state = carol.client.state();
    let put_off = |state: &State| matches!(state, State::Disconnected { retry_in, .. } if *retry_in >= Duration::from_secs(1));
    in_time(state.wait_for(put_off)).await.unwrap();
    assert!(matches!(*alice.client.state().borrow(), State::Ready { .. }), "who is there stays");
    relay.eventually("carol comes in when there is room", || {
        matches!(*carol.client.state().borrow(), State::Ready { .. })
    });
}
