//! The files of `systemd/` agree with each other and with the defaults of the configuration.

use std::path::Path;
use tuning::Config;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name);
    std::fs::read_to_string(path).expect("it is committed")
}

/// The number that `text` gives to `key`.
fn number(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    value.expect("the key is set").trim().parse().expect("it is a number")
}

#[test]
fn systemd_waits_longer_for_a_shutdown_than_the_relay_does() {
    let seconds = number(&read("furrow-relayd.service"), "TimeoutStopSec");
    assert!(seconds > Config::new("x").timers.shutdown_grace.as_secs());
}

#[test]
fn the_kernel_allows_the_descriptors_that_the_service_asks_for() {
    let asked = number(&read("furrow-relayd.service"), "LimitNOFILE");
    assert!(asked <= number(&read("furrow.sysctl.conf"), "fs.nr_open"));
    assert!(asked > Config::new("x").limits.connections_per_shard as u64);
}

#[test]
fn the_kernel_does_not_cut_the_default_backlog() {
    let cap = number(&read("furrow.sysctl.conf"), "net.core.somaxconn");
    assert!(cap >= Config::new("x").listen.backlog as u64);
}

#[test]
fn every_kernel_setting_has_its_reason_above_it() {
    let text = read("furrow.sysctl.conf");
    let lines: Vec<&str> = text.lines().collect();
    let is_setting = |line: &str| !line.is_empty() && !line.starts_with('#');
    assert!(lines.iter().any(|line| is_setting(line)));
    for pair in lines.windows(2).filter(|pair| is_setting(pair[1])) {
        assert!(pair[0].starts_with("# "), "{} has no reason", pair[1]);
    }
}

#[test]
fn the_keys_that_the_install_notes_set_are_right() {
    let notes = read("INSTALL.md");
    let (_, rest) = notes.split_once("```toml\n").expect("the notes show a configuration");
    let (shown, _) = rest.split_once("```").expect("the block ends");
    let config = Config::parse(shown, "/etc/furrow/furrow.toml").expect("it is right");
    assert!(config.relay.data_dir.starts_with("/var/lib/furrow"), "the unit's StateDirectory");
}

#[test]
fn the_socket_unit_listens_where_the_default_configuration_does() {
    let unit = read("furrow-relayd.socket");
    let listens = unit.lines().find_map(|line| line.strip_prefix("ListenStream=")).expect("it listens");
    assert_eq!(Config::new("x").listen.sstp, [listens.parse().expect("it is an address")]);
    assert!(unit.contains("\nFileDescriptorName=sstp\n"));
    assert!(read("furrow-relayd-tls.socket").contains("\nFileDescriptorName=tls\n"));
}

#[test]
fn the_service_is_watched_and_says_when_it_is_ready() {
    let unit = read("furrow-relayd.service");
    assert!(unit.contains("\nType=notify\n"));
    // The relay looks four times in this time whether its shards have moved; they do so eight times a second.
    assert!(number(&unit, "WatchdogSec") >= 2);
}
