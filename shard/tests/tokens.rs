//! Pre-authentication tokens from the operator's hand to the registered user.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use client::*;
use shard::init::init;
use shard::server::Server;
use shard::users::Users;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

async fn register(profile: &ClientProfile, token: &str) -> Result<(), RegistrationError> {
    let client = Client::connect(Config::new(profile.clone())).unwrap();
    let register = Register::new().token(token.as_bytes().to_vec()).identity(profile.identities[0].clone());
    let outcome = tokio::time::timeout(Duration::from_secs(20), client.register(register)).await.unwrap();
    client.close().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_its_account_register_and_nothing_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut config = tuning::Config::new("grooveDNS://relay.example");
    config.listen.sstp = vec![address];
    config.shards.count = 1;
    config.shards.pin = false;
    config.security.registration = tuning::Registration::PreAuthenticated;
    let made = init(directory.path(), &config).unwrap();
    let config = tuning::Config::load(&made.config).unwrap();
    let relay = RelayIdentity::load(&made.identity).unwrap();
    let (alice, eve) = (ClientProfile::generate(relay.clone()), ClientProfile::generate(relay));

    // The first start makes the database.
    Server::start(&config).unwrap().stop().unwrap();
    let users = Users::open(&config.relay.data_dir).unwrap();
    let token = users.token(alice.account_url.as_str(), &[alice.identities[0].to_string()]).unwrap();
    drop(users);

    let server = Server::start(&config).unwrap();
    for (profile, token) in [(&alice, ""), (&alice, "0123"), (&eve, token.as_str())] {
        assert!(register(profile, token).await.is_err(), "{token:?}");
    }
    assert_eq!(register(&alice, &token).await, Ok(()));
    server.stop().unwrap();
}
