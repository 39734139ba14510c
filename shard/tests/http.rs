//! A whole relay that speaks HTTP, without a proxy in between.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod carriers;
#[path = "carriers/halves.rs"]
mod halves;

use carriers::{Member, PATIENCE, Relay, in_time, pattern, talk};
use client::{Carrier, Client, Proxies, State};
use halves::halves_meet;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Where the relay speaks HTTP.
fn http(relay: &Relay) -> &str {
    &relay.identity.fallback.http[0]
}

fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A reset behind the answer is as good as an end.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_browser_gets_a_page_and_everything_unknown_an_error() {
    let relay = Relay::start();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "200 OK"),
        ("GET /robots.txt HTTP/1.1\r\nHost: relay\r\n\r\n", "404 Not Found"),
        ("OPTIONS / HTTP/1.1\r\nHost: relay\r\n\r\n", "405 Method Not Allowed"),
        ("POST / HTTP/1.0\r\nContent-Length: 99999\r\n\r\n", "413 Content Too Large"),
        ("\x10\x07\x00", "400 Bad Request"),
    ] {
        let answer = exchange(http(&relay), request);
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}\r\n")), "{request}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    assert!(exchange(http(&relay), "GET / HTTP/1.0\r\n\r\n").contains("<h1>This is a Furrow relay</h1>"));
}

#[test]
fn the_halves_of_a_connection_meet_on_the_shard_that_owns_its_guid() {
    halves_meet(http(&Relay::start()));
}

/// Members on one way, so many that each shard owns some connections and is home to some accounts.
async fn several(relay: &Relay, carrier: Carrier, count: usize) -> Vec<Member> {
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(relay.member(carrier, Proxies::default()).await);
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lived_carries_mail_of_every_length_whichever_shard_is_home() {
    let relay = Relay::start();
    for member in several(&relay, Carrier::LongLived, 6).await {
        talk(&relay, &member, &[0, 1, 2048, 32_768, 300_000]).await;
        member.client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_carries_mail_of_every_length_whichever_shard_is_home() {
    let relay = Relay::start();
    for member in several(&relay, Carrier::KeepAlive, 6).await {
        talk(&relay, &member, &[0, 1, 2048, 32_768, 300_000]).await;
        member.client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_carries_mail_of_every_length() {
    let relay = Relay::start();
    let member = relay.member(Carrier::Polling, Proxies::default()).await;
    talk(&relay, &member, &[0, 100_000]).await;
    member.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_every_buffer_passes_to_a_reader_that_pauses() {
    let relay = Relay::start();
    for carrier in [Carrier::LongLived, Carrier::KeepAlive] {
        let alice = relay.member(Carrier::Direct, Proxies::default()).await;
        let bob = relay.member(carrier, Proxies::default()).await;
        let message = client::Message::to(bob.config.profile.identities[0].clone()).body(pattern(12 << 20));
        let delivery = in_time(alice.client.send(message)).await.unwrap();
        let mut received = in_time(bob.client.incoming().recv()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(in_time(received.bytes(13 << 20)).await.unwrap() == pattern(12 << 20));
        received.acknowledge();
        in_time(delivery).await.unwrap();
        bob.send(&alice, pattern(5 << 20)).await;
        assert!(alice.receive().await == pattern(5 << 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_says_goodbye_on_every_way() {
    let relay = Relay::start();
    let mut members = Vec::new();
    for carrier in [Carrier::LongLived, Carrier::KeepAlive] {
        members.push(relay.member(carrier, Proxies::default()).await);
    }
    let states: Vec<_> = members.iter().map(|member| member.client.state()).collect();
    tokio::task::spawn_blocking(move || drop(relay)).await.unwrap();
    for mut state in states {
        let told = |state: &State| {
            let resting = client::Disconnected::ClosedByRelay(client::CloseReason::Resting);
            matches!(state, State::Disconnected { cause, .. } if *cause == resting)
        };
        in_time(state.wait_for(told)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_that_works_is_found_and_remembered() {
    let relay = Relay::start();
    let mut identity = relay.identity.clone();
    // The firewall: nobody answers but HTTP.
    identity.addresses = vec![carriers::free_address().to_string()];
    identity.fallback.tunnel = vec![carriers::free_address().to_string()];
    let memory = tempfile::tempdir().unwrap();
    let found = relay.member_of(identity, None, Proxies::default(), Some(memory.path().to_owned())).await;
    let remembered = || std::fs::read_to_string(memory.path().join("carrier.toml")).unwrap();
    assert!(remembered().contains("\"long-lived\""), "{}", remembered());
    found.client.close().await;

    std::fs::write(memory.path().join("carrier.toml"), remembered().replace("long-lived", "keep-alive"))
        .unwrap();
    let again = Client::connect(found.config.clone()).unwrap();
    in_time(again.ready()).await.unwrap();
    assert!(remembered().contains("\"keep-alive\""), "it is tried first, and it works");
    again.close().await;
}
