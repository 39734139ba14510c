//! The binary, through real sockets: two clients, mail that survives, shutting down, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod running;

use client::{CloseReason, Disconnected, Message, Recipient, SecurityProfile, SendError, SendFailure, State};
use relay_core::directory::Directory;
use running::{Person, Relay, in_time};
use shard::init::init;
use std::process::{Command, Output};
use std::time::Duration;
use storage::UserDatabase;
use tuning::Config;

fn relayd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relayd")).args(arguments).output().unwrap()
}

#[tokio::test]
async fn two_clients_that_are_online_talk() {
    let mut relay = Relay::start(|_| {});
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let bob = Person::register(&relay, SecurityProfile::Legacy).await;
    for number in 0..200u32 {
        let body = number.to_le_bytes().repeat(number as usize);
        alice.send(bob.message(body.clone())).await.unwrap();
        assert_eq!(bob.receive().await, body);
    }
    alice.client.close().await;
    bob.client.close().await;
    assert!(relay.terminate().await.success());
}

#[tokio::test]
async fn the_relay_has_huge_pages_only_if_it_is_told_to() {
    for allowed in [false, true] {
        let relay = Relay::start(|config| config.shards.huge_pages = allowed);
        // It serves, so it has said so to the kernel.
        Person::register(&relay, SecurityProfile::Modern).await.client.close().await;
        let process = relay.id().unwrap().as_raw_pid();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).unwrap();
        assert_eq!(enabled.trim(), if allowed { "1" } else { "0" });
    }
}

#[tokio::test]
async fn threads_that_write_user_records_take_what_the_shards_leave() {
    /// SCHED_IDLE, in the 39th field after a thread's name, which may hold anything but its last bracket.
    const IDLE: &str = "5";
    let mut relay = Relay::start(|_| {});
    for _ in 0..2 {
        Person::register(&relay, SecurityProfile::Modern).await.client.close().await;
        let process = relay.id().unwrap().as_raw_pid();
        let mut writers = 0;
        for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            // A thread may end meanwhile.
            let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
            let (name, fields) = stat.rsplit_once(") ").unwrap();
            if name.contains("(sled-io") {
                writers += 1;
                assert_eq!(fields.split(' ').nth(38), Some(IDLE), "{stat}");
            }
        }
        assert!(writers > 0);
        // The second time the database is there already.
        relay.kill_and_restart();
    }
}

#[tokio::test]
async fn acknowledged_mail_survives_sigkill_in_order() {
    let mut relay = Relay::start(|_| {});
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let mut bob = Person::register(&relay, SecurityProfile::Modern).await;
    bob.client.close().await;
    let body = |number: u32| [&number.to_le_bytes()[..], &vec![number as u8; number as usize * 997]].concat();
    for number in 0..100 {
        alice.send(bob.message(body(number))).await.unwrap();
    }
    relay.kill_and_restart();
    bob.return_home();
    for number in 0..100 {
        assert!(bob.receive().await == body(number), "message {number}");
    }
}

#[tokio::test]
async fn which_devices_were_there_is_written_down_when_the_relay_stops() {
    let mut relay = Relay::start(|_| {});
    let mut alice = Person::register(&relay, SecurityProfile::Modern).await;
    alice.client.close().await;
    assert!(relay.terminate().await.success());
    let users = relay.directory.path().join("data/users");
    let database = UserDatabase::open(&users).unwrap();
    database.note_seen([&alice.profile.device_url], 1000).unwrap();
    database.flush().unwrap();
    drop(database);
    relay.run();
    alice.return_home();
    in_time(alice.client.ready()).await.unwrap();
    assert!(relay.terminate().await.success());
    let seen = UserDatabase::open(&users).unwrap().last_seen(&alice.profile.device_url).unwrap();
    assert!(seen.is_some_and(|seen| seen > 1_700_000_000), "{seen:?}");
}

#[tokio::test]
async fn a_body_longer_than_memory_for_a_connection_goes_through_the_disk() {
    let relay = Relay::start(|config| config.limits.connection_in_flight_bytes = 64 << 10);
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let bob = Person::register(&relay, SecurityProfile::Modern).await;
    let body: Vec<u8> = (0..9_000_001u32).map(|n| (n >> 3) as u8).collect();
    alice.send(bob.message(body.clone())).await.unwrap();
    assert!(bob.receive().await == body);
}

#[tokio::test]
async fn multi_drop_reaches_those_who_are_there_and_those_who_are_not() {
    let relay = Relay::start(|_| {});
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let bob = Person::register(&relay, SecurityProfile::Modern).await;
    let mut carol = Person::register(&relay, SecurityProfile::Modern).await;
    carol.client.close().await;
    let message = Message::to(bob.profile.identities[0].clone())
        .and_to(Recipient::identity(carol.profile.identities[0].clone()))
        .body("to both");
    assert_eq!(alice.send(message).await.unwrap().failed, []);
    assert_eq!(bob.receive().await, b"to both");
    carol.return_home();
    assert_eq!(carol.receive().await, b"to both");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_and_the_connection_lives() {
    let relay = Relay::start(|config| config.limits.message_bytes = 100_000);
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let bob = Person::register(&relay, SecurityProfile::Modern).await;
    let refused = alice.send(bob.message(vec![1; 100_001])).await.unwrap_err();
    assert!(
        matches!(refused, SendError::Failed(SendFailure::Closed(CloseReason::QuotaWouldBeExceeded))),
        "{refused:?}"
    );
    alice.send(bob.message(vec![1; 100_000])).await.unwrap();
    assert_eq!(bob.receive().await.len(), 100_000);
}

#[tokio::test]
async fn every_one_of_many_who_come_at_once_is_handed_to_its_home_and_answered() {
    let relay = Relay::start(|_| {});
    let mut people = Vec::new();
    for _ in 0..40 {
        people.push(Person::register(&relay, SecurityProfile::Modern).await);
    }
    for person in &people {
        person.client.close().await;
    }
    people.iter_mut().for_each(Person::return_home);
    for person in &people {
        in_time(person.client.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn sigterm_tells_peers_when_to_return_and_ends_with_0() {
    let mut relay = Relay::start(|config| config.timers.return_time = Duration::from_secs(77));
    let alice = Person::register(&relay, SecurityProfile::Modern).await;
    let mut state = alice.client.state();
    let status = relay.terminate().await;
    assert_eq!(status.code(), Some(0));
    let told = |state: &State| match state {
        State::Disconnected { cause: Disconnected::ClosedByRelay(CloseReason::Resting), retry_in } => {
            *retry_in >= Duration::from_secs(77)
        }
        _ => false,
    };
    in_time(state.wait_for(told)).await.unwrap();
}

#[test]
fn a_wrong_configuration_is_refused_with_line_and_key_and_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("furrow.toml");
    std::fs::write(&path, "[relay]\nurl = \"grooveDNS://x\"\n\n[limits]\nsesions_per_connection = 3\n")
        .unwrap();
    let output = relayd(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("furrow.toml:5") && said.contains("limits.sessions_per_connection"), "{said}");
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let made = init(directory.path(), &Config::new("grooveDNS://x")).unwrap();
    std::fs::set_permissions(&made.keys, std::fs::Permissions::from_mode(0o640)).unwrap();
    let output = relayd(&["check", "--config", made.config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("chmod 600"));
}
