//! Presets, the environment, where values come from, and what a running relay takes without a restart.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;
use tempfile::TempDir;
use tuning::{Config, ConfigErrors, Effective, Environment, NamedPreset, Origin, PRESETS, changes, keys};

const URL: &str = "relay.url = 'grooveDNS://relay.example.com'";

struct File {
    path: PathBuf,
    _folder: TempDir,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("furrow.toml");
    std::fs::write(&path, text).unwrap();
    File { path, _folder: folder }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Effective, ConfigErrors> {
    Effective::load(&file(text).path, &environment(variables))
}

#[test]
fn every_preset_is_right_and_changes_what_it_names() {
    for preset in PRESETS {
        let config = Config::parse(&format!("preset = '{}'\n{URL}", preset.name), "furrow.toml").unwrap();
        let changed = changes(&Config::new("grooveDNS://relay.example.com"), &config);
        let mut named: Vec<&str> = preset.values.iter().map(|(key, _)| *key).collect();
        let mut changed: Vec<&str> = changed.iter().map(|change| change.key).collect();
        named.sort_unstable();
        changed.sort_unstable();
        assert_eq!(
            changed, named,
            "{}: a value that is the default, or a key that does not exist",
            preset.name
        );
    }
}

#[test]
fn systemd_waits_longer_than_the_shutdown_of_any_preset() {
    let unit =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/furrow-relayd.service"))
            .unwrap();
    let wait = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap().parse().unwrap();
    for preset in PRESETS {
        let config = Config::parse(&format!("preset = '{}'\n{URL}", preset.name), "f").unwrap();
        assert!(config.timers.shutdown_grace.as_secs() < wait, "{}", preset.name);
    }
}

#[test]
fn the_file_wins_over_the_preset_and_the_environment_over_the_file() {
    let text = format!("preset = 'large'\n{URL}\nlisten.backlog = 7\nlog.level = 'warn'");
    let loaded = load(&text, &[("FURROW_LOG_LEVEL", "debug"), ("FURROW_TIMERS_IDLE", "200 s")]).unwrap();
    assert_eq!(loaded.config.listen.backlog, 7);
    assert_eq!(loaded.config.log.level.as_str(), "debug");
    assert_eq!(loaded.config.timers.idle.as_secs(), 200);
    assert_eq!(loaded.config.security.registration_threads, 4);
    let origin = |key| loaded.origin(key).to_string();
    assert!(origin("listen.backlog").ends_with("furrow.toml:3"));
    assert_eq!(origin("log.level"), "environment FURROW_LOG_LEVEL");
    assert_eq!(origin("security.registration_threads"), "preset large");
    assert_eq!(loaded.origin("mail.deposit"), Origin::Default);
}

#[test]
fn the_environment_chooses_the_preset_over_the_file() {
    let loaded = load(&format!("preset = 'large'\n{URL}"), &[("FURROW_PRESET", "small")]).unwrap();
    let (preset, origin) = loaded.preset.clone().unwrap();
    assert_eq!((preset.name, origin), ("small", Origin::Variable("FURROW_PRESET".into())));
    assert_eq!(loaded.config.shards.count, 1);
}

#[test]
fn a_variable_is_toml_where_it_looks_like_it_and_text_otherwise() {
    let loaded = load(
        "",
        &[
            ("FURROW_RELAY_URL", "grooveDNS://a"),
            ("FURROW_LISTEN_SSTP", "['127.0.0.1:1', '127.0.0.1:2']"),
            ("FURROW_LISTEN_TLS", "127.0.0.1:3"),
            ("FURROW_LIMITS_MESSAGE_BYTES", "1 MB"),
            ("FURROW_LISTEN_BACKLOG", "12"),
            ("FURROW_SHARDS_PIN", "false"),
            ("FURROW_RELAY_DATA_DIR", "2024-01-01"),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(
        (loaded.relay.url.as_slice(), loaded.listen.sstp.len(), loaded.listen.tls.len()),
        (&["grooveDNS://a".to_owned()][..], 2, 1)
    );
    assert_eq!(
        (loaded.limits.message_bytes, loaded.listen.backlog, loaded.shards.pin),
        (1_000_000, 12, false)
    );
    assert!(loaded.relay.data_dir.ends_with("2024-01-01"));
}

#[test]
fn a_mistake_in_a_variable_is_said_by_its_name() {
    for (name, value, said) in [
        (
            "FURROW_LISTEN_BACKLOG",
            "0",
            "FURROW_LISTEN_BACKLOG: listen.backlog: 0 is out of bounds; the relay wants a whole number, 1 to 65535",
        ),
        (
            "FURROW_LISTEN_BAKLOG",
            "1",
            "FURROW_LISTEN_BAKLOG: unknown key; did you mean `FURROW_LISTEN_BACKLOG`?",
        ),
        (
            "FURROW_PRESET",
            "larg",
            "FURROW_PRESET: preset: \"larg\" is none of \"small\", \"large\", \"million\", \"low-latency\" or \"durable\"; did you mean `\"large\"`?",
        ),
    ] {
        assert_eq!(load(URL, &[(name, value)]).unwrap_err().to_string(), said);
    }
    assert!(load(URL, &[("FURROW_SEED", "7"), ("FURROWED", "x")]).is_ok(), "none of ours");
}

#[test]
fn a_preset_in_the_file_that_is_none_is_said_with_its_line() {
    let said = |text: &str| Config::parse(&format!("{URL}\n{text}"), "furrow.toml").unwrap_err().to_string();
    let text = Config::parse(&format!("\npreset = 'huge'\n{URL}"), "furrow.toml").unwrap_err().to_string();
    assert!(text.starts_with("furrow.toml:2: preset: \"huge\" is none of "), "{text}");
    assert!(said("[limits]\npreset = 'small'").starts_with("furrow.toml:3: limits.preset: unknown key"));
    let text = Config::parse(&format!("preset = 1\n{URL}"), "furrow.toml").unwrap_err().to_string();
    assert!(text.starts_with("furrow.toml:1: preset: an integer where the relay wants \"small\""), "{text}");
}

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    let text = format!("preset = 'million'\n{URL}\nlimits.message_bytes = '1 MiB'");
    let loaded = load(&text, &[("FURROW_LOG_FORMAT", "json")]).unwrap();
    for all in [true, false] {
        let shown = loaded.to_toml(all);
        let again = Effective::load(&file(&shown).path, &Environment::default()).unwrap();
        let same = |config: &Config| {
            let mut config = config.clone();
            // Paths are relative to the file, which lies elsewhere.
            let nowhere = Config::new("");
            (config.relay.data_dir, config.relay.key_file) = (nowhere.relay.data_dir, nowhere.relay.key_file);
            config.tls = nowhere.tls;
            config
        };
        assert_eq!(same(&again.config), same(&loaded.config), "{shown}");
    }
    let lines =
        loaded.to_toml(true).lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert_eq!(lines, keys().count());
    assert!(!loaded.to_toml(false).contains("# default"));
}

#[test]
fn a_difference_says_both_values_both_origins_and_what_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Effective::load(&path, &Environment::default()).unwrap()
    };
    let from = write("a.toml", URL);
    let to = write("b.toml", &format!("preset = 'small'\n{URL}\nshards.count = 4\nmail.lifetime = '1 day'"));
    let said = from.diff(&to);
    let file = folder.path().join("b.toml").display().to_string();
    assert!(
        said.contains(&format!("shards.count: 0 (default) -> 4 ({file}:3); takes a restart\n")),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "mail.lifetime: \"30 days\" (default) -> \"1 day\" ({file}:4); takes a reload\n"
        )),
        "{said}"
    );
    assert!(said.contains(
        "limits.connections_per_shard: 600000 (default) -> 20000 (preset small); takes a reload\n"
    ));
    assert_eq!(from.diff(&from), "");
}

#[test]
fn a_running_relay_takes_live_keys_and_keeps_the_others() {
    let mut running = Config::new("grooveDNS://a");
    let mut new = running.clone();
    new.limits.message_bytes = 5000;
    new.storage.batch_bytes = 1 << 20;
    running.take_live(&new);
    assert_eq!(running.limits.message_bytes, 5000);
    let left = changes(&running, &new);
    assert_eq!(
        left.iter().map(|change| (change.key, change.live)).collect::<Vec<_>>(),
        [("storage.batch_bytes", false)]
    );
}

#[test]
fn what_decides_where_mail_lives_is_never_live() {
    let fixed = [
        "shards.count",
        "shards.cores",
        "relay.data_dir",
        "relay.key_file",
        "listen.sstp",
        "storage.segment_bytes",
    ];
    for key in keys().filter(|key| fixed.contains(&key.path)) {
        assert!(!key.live, "{}", key.path);
    }
    assert!(NamedPreset::named("small").is_some() && NamedPreset::named("smal").is_none());
}
