//! HTTP connections that are handed over between shards with descriptor tables of their own. Alone in its process: such a table keeps
//! a copy of whatever else was open there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "carriers/halves.rs"]
mod halves;

use shard::init::init;
use shard::server::Server;
use std::net::{Ipv4Addr, TcpListener};

#[test]
fn the_halves_of_a_connection_meet_on_the_shard_that_owns_its_guid() {
    let directory = tempfile::tempdir().unwrap();
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut config = tuning::Config::new("grooveDNS://relay.example");
    let http = free();
    config.listen.sstp = vec![free()];
    config.listen.http = vec![http];
    config.shards.count = 2;
    config.shards.pin = false;
    config.shards.own_descriptors = true;
    let made = init(directory.path(), &config).unwrap();
    let server = Server::start(&tuning::Config::load(&made.config).unwrap()).unwrap();
    halves::halves_meet(&http.to_string());
    server.stop().unwrap();
}
