//! What the relay says about configuration files, right and wrong.

use proptest::prelude::*;
use std::time::Duration;
use tuning::{Cause, Config, Deposit, LogFormat, LogLevel, Preset, Registration, SECTIONS, keys};

const URL: &str = "grooveDNS://relay.example.com";

/// What is said about `text` with the required URL before it, on line 1.
fn said(text: &str) -> String {
    let text = format!("relay.url = '{URL}'\n{text}");
    match Config::parse(&text, "furrow.toml") {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn the_least_file_has_every_default() {
    let config = Config::parse(&format!("relay.url = '{URL}'"), "/etc/furrow/furrow.toml").unwrap();
    assert_eq!(config.relay.url, [URL]);
    assert_eq!(config.relay.key_file.to_str(), Some("/etc/furrow/relay.key"));
    assert_eq!(config.relay.data_dir.to_str(), Some("/etc/furrow/data"));
    assert_eq!(config.relay.product_version, "Furrow Relay 0.1 1");
    assert_eq!(config.listen.sstp, ["127.0.0.1:2492".parse().unwrap()]);
    assert_eq!(config.listen.backlog, 4096);
    assert_eq!((config.listen.tls.len(), config.listen.http.len()), (0, 0));
    assert_eq!((config.http.poll_interval.as_secs(), config.http.bind_address), (2, false));
    assert_eq!((config.shards.count, config.shards.cores.as_slice(), config.shards.pin), (0, &[][..], true));
    assert_eq!(config.limits.connections_per_shard, 600_000);
    assert_eq!(config.limits.sessions_per_connection, 4096);
    assert_eq!(config.limits.message_bytes, 250_000_000);
    assert_eq!(config.limits.connection_in_flight_bytes, 1 << 20);
    assert_eq!(config.limits.shard_in_flight_bytes, 64 << 20);
    assert_eq!(config.limits.connection_output_bytes, 256 << 10);
    assert_eq!(config.limits.mesh_queue_items, 4096);
    assert_eq!(config.limits.fanout_recipients, 16_384);
    assert_eq!(config.limits.connections_per_device, 4);
    let timers = &config.timers;
    let seconds = [
        timers.connect,
        timers.authenticate,
        timers.acknowledge,
        timers.keep_alive,
        timers.idle,
        timers.shutdown_grace,
        timers.return_time,
        timers.retry_time,
    ];
    assert_eq!(seconds.map(|time| time.as_secs()), [10, 10, 5, 45, 135, 10, 30, 30]);
    assert_eq!(config.mail.deposit, Deposit::Registered);
    assert_eq!(config.mail.lifetime, Duration::from_secs(30 * 86_400));
    assert_eq!(config.mail.quota_per_identity, 1_000_000_000);
    assert_eq!(config.mail.quota_per_device, 4_000_000_000);
    assert_eq!(config.storage.segment_bytes, 64 << 20);
    assert_eq!(config.storage.batch_bytes, 4 << 20);
    assert_eq!(config.storage.commit_delay, Duration::from_millis(5));
    assert_eq!(config.security.registration, Registration::Open);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
}

#[test]
fn each_mistake_is_said_with_its_line_and_what_would_be_right() {
    let address = "an IP address with a port, such as \"0.0.0.0:2492\" or \"[::]:2492\"";
    for (text, expected) in [
        (
            "limits.conections = 1",
            "2: limits.conections: unknown key; did you mean `limits.connections_per_shard`?",
        ),
        ("[limits]\nbacklog = 1", "3: limits.backlog: unknown key; did you mean `listen.backlog`?"),
        ("[limits]\ncolour = 1", "3: limits.colour: unknown key"),
        ("mesage_bytes = 1", "2: mesage_bytes: unknown key; did you mean `limits.message_bytes`?"),
        ("[limit]\nx = 1", "2: [limit]: unknown section; did you mean `[limits]`?"),
        ("[zoo]", "2: [zoo]: unknown section"),
        ("limits = 1", "2: limits: a value where the relay wants the section [limits] with keys of its own"),
        (
            "[[limits]]\nx = 1",
            "2: limits: a value where the relay wants the section [limits] with keys of its own",
        ),
        (
            "listen.backlog = 'many'",
            "2: listen.backlog: a string where the relay wants a whole number, 1 to 65535",
        ),
        (
            "listen.backlog = 1.5",
            "2: listen.backlog: a number with a fraction where the relay wants a whole number, 1 to 65535",
        ),
        (
            "listen.backlog = 0",
            "2: listen.backlog: 0 is out of bounds; the relay wants a whole number, 1 to 65535",
        ),
        (
            "listen.backlog = -1",
            "2: listen.backlog: -1 is out of bounds; the relay wants a whole number, 1 to 65535",
        ),
        (
            "listen.backlog = 99999999999999999999",
            "2: listen.backlog: 99999999999999999999 is out of bounds; the relay wants a whole number, 1 to 65535",
        ),
        ("shards.pin = 1", "2: shards.pin: an integer where the relay wants true or false"),
        ("listen.sstp = []", "2: listen.sstp: an empty list; the relay wants at least one"),
        (
            "listen.sstp = [\n  '127.0.0.1:2492',\n  'localhost:2492',\n]",
            &format!("4: listen.sstp: \"localhost:2492\" is not {address}"),
        ),
        (
            "listen.sstp = '0.0.0.0:0'",
            "2: listen.sstp: \"0.0.0.0:0\" has port 0, which would be a different port on each shard; give the port",
        ),
        ("listen.sstp = ['[::1]:1', '[0::1]:1']", "2: listen.sstp: \"[::1]:1\" is there twice"),
        ("listen.sstp = '[::1]:1'\nlisten.tls = '[::1]:1'", "2: listen.sstp: [::1]:1 is there twice"),
        ("listen.sstp = '[::1]:1'\nmanagement.listen = '[::1]:1'", "2: listen.sstp: [::1]:1 is there twice"),
        (
            "[management.servers]\nmsrv1 = 'dsa:AAAA'",
            "3: management.servers: the key of \"msrv1\" is not one that `relayctl manager init` prints, such as \
             \"ed25519:...\"",
        ),
        (
            "management.servers = { \"\" = 'ed25519:' }",
            "2: management.servers: the name of a management server has 1 to 255 bytes and no control characters",
        ),
        ("listen.sstp = 2492", &format!("2: listen.sstp: an integer where the relay wants {address}")),
        (
            "shards.placement = 'spred'",
            "2: shards.placement: \"spred\" is none of \"packed\" or \"spread\"; did you mean `\"spread\"`?",
        ),
        (
            "shards.cores = [1, 2]\nshards.leave_first_core = true",
            "3: shards.leave_first_core: has no meaning together with shards.cores; leave the core out of shards.cores",
        ),
        ("shards.cores = [1, 0, 1]", "2: shards.cores: 1 is there twice"),
        (
            "limits.message_bytes = '2 GiB'",
            "2: limits.message_bytes: 2 GiB is out of bounds; the relay wants a size, \"1 KiB\" to \"1 GiB\"",
        ),
        (
            "limits.message_bytes = -5",
            "2: limits.message_bytes: -5 is out of bounds; the relay wants a size, \"1 KiB\" to \"1 GiB\"",
        ),
        (
            "limits.message_bytes = '250 mb'",
            "2: limits.message_bytes: \"250 mb\" has the unknown unit `mb`; use B, kB, MB, GB, TB (powers of 1000) \
             or KiB, MiB, GiB, TiB (powers of 1024)",
        ),
        (
            "limits.message_bytes = '1.5 MB'",
            "2: limits.message_bytes: \"1.5 MB\" has a fraction; write a whole number of a smaller unit, \
             for example \"64 KiB\"",
        ),
        (
            "limits.message_bytes = true",
            "2: limits.message_bytes: true or false where the relay wants a size, \"1 KiB\" to \"1 GiB\"",
        ),
        (
            "limits.connection_output_bytes = 4095",
            "2: limits.connection_output_bytes: 4095 B is out of bounds; the relay wants a size, \
             \"4 KiB\" to \"64 MiB\"",
        ),
        ("storage.segment_bytes = 4194305", "2: storage.segment_bytes: 4194305 B is not a multiple of 4 KiB"),
        (
            "timers.connect = 10",
            "2: timers.connect: an integer where the relay wants a duration, \"1 ms\" to \"10 min\"",
        ),
        ("timers.connect = '10'", "2: timers.connect: \"10\" has no unit; write for example \"5 s\""),
        (
            "timers.connect = '10 sec'",
            "2: timers.connect: \"10 sec\" has the unknown unit `sec`; use ms, s, min, h or days",
        ),
        (
            "timers.connect = 'soon'",
            "2: timers.connect: \"soon\" does not begin with a number; write for example \"5 s\"",
        ),
        (
            "timers.connect = '0 s'",
            "2: timers.connect: 0 ms is out of bounds; the relay wants a duration, \"1 ms\" to \"10 min\"",
        ),
        ("timers.connect = '300000000000 days'", "2: timers.connect: \"300000000000 days\" is too large"),
        ("timers.retry_time = '1500 ms'", "2: timers.retry_time: 1500 ms is not a multiple of 1 s"),
        (
            "timers.connect = 07:30:00",
            "2: timers.connect: a date or time where the relay wants a duration, \"1 ms\" to \"10 min\"",
        ),
        (
            "timers.idle = '90 s'",
            "2: timers.idle: 90 s is not more than twice timers.keep_alive (45 s); a peer that loses one Noop would \
             be dropped",
        ),
        (
            "timers.keep_alive = '90 s'",
            "2: timers.idle: 135 s is not more than twice timers.keep_alive (90 s); a peer that loses one Noop would \
             be dropped",
        ),
        (
            "storage.batch_bytes = '128 MiB'",
            "2: storage.batch_bytes: 128 MiB is more than storage.segment_bytes (64 MiB); it must not be",
        ),
        (
            "limits.shard_in_flight_bytes = '64 KiB'",
            "2: limits.connection_in_flight_bytes: 1 MiB is more than limits.shard_in_flight_bytes (64 KiB); \
             it must not be",
        ),
        (
            "mail.deposit = 'anyon'",
            "2: mail.deposit: \"anyon\" is none of \"registered\" or \"anyone\"; did you mean `\"anyone\"`?",
        ),
        (
            "log.level = 'loud'",
            "2: log.level: \"loud\" is none of \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        ("relay.key_file = ''", "2: relay.key_file: a path must not be empty"),
        (
            "relay.product_version = 'Furrow'",
            "2: relay.product_version: \"Furrow\" is not four words of printable ASCII with one space between, \
             at most 255 bytes: vendor, product, version, build",
        ),
    ] {
        let expected = format!("furrow.toml:{expected}");
        assert_eq!(said(text), expected, "for {text}");
    }
}

#[test]
fn the_url_is_required_and_visible_ascii_of_at_most_1024_bytes() {
    let said = |text: &str| Config::parse(text, "furrow.toml").unwrap_err().to_string();
    let missing =
        "relay.url: missing; it is required, for example `url = [\"grooveDNS://relay.example.com\"]`";
    assert_eq!(said(""), format!("furrow.toml: {missing}"));
    assert_eq!(said("\n[relay]\n"), format!("furrow.toml:2: {missing}"));
    let not = |found: &str, why| format!("furrow.toml:1: relay.url: \"{found}\" is not a URL to SSTP: {why}");
    assert_eq!(said("relay.url = ''"), not("", "it is empty"));
    let rule = "only the visible ASCII characters 0x21 to 0x7E are allowed";
    assert_eq!(said("relay.url = 'a b'"), not("a b", rule));
    assert_eq!(said("relay.url = ['é']"), not("é", rule));
    let long = format!("relay.url = '{}'", "a".repeat(1025));
    let shown = format!("{}…", "a".repeat(60));
    assert_eq!(said(&long), not(&shown, "it has more than 1024 bytes"));
    assert!(Config::parse(&format!("relay.url = '{}'", "~".repeat(1024)), "f").is_ok());
}

#[test]
fn all_mistakes_are_said_at_once_in_the_order_of_the_file() {
    let text = "\
[timers]
idle = '1 s'
keep_alive = 'often'

[relay]
data_dir = 7

[listen]
sstp = ['here', '127.0.0.1:2492', 'there']
bakclog = 5
";
    assert_eq!(
        Config::parse(text, "etc/furrow.toml").unwrap_err().to_string(),
        "\
etc/furrow.toml:3: timers.keep_alive: \"often\" does not begin with a number; write for example \"5 s\"
etc/furrow.toml:5: relay.url: missing; it is required, for example `url = [\"grooveDNS://relay.example.com\"]`
etc/furrow.toml:6: relay.data_dir: an integer where the relay wants a path, relative to the folder of the configuration file or absolute
etc/furrow.toml:9: listen.sstp: \"here\" is not an IP address with a port, such as \"0.0.0.0:2492\" or \"[::]:2492\"
etc/furrow.toml:9: listen.sstp: \"there\" is not an IP address with a port, such as \"0.0.0.0:2492\" or \"[::]:2492\"
etc/furrow.toml:10: listen.bakclog: unknown key; did you mean `listen.backlog`?"
    );
}

#[test]
fn what_is_not_toml_is_said_with_its_line() {
    for (text, line) in [("[relay\n", 2), ("\n\na = \n", 4), ("listen.backlog = 1\nlisten.backlog = 2", 3)] {
        let text = format!("relay.url = '{URL}'\n{text}");
        let errors = Config::parse(&text, "furrow.toml").unwrap_err();
        let first = errors.iter().next().unwrap();
        assert!(matches!(first.cause, Cause::Syntax(_)), "{errors}");
        assert_eq!(first.line, Some(line), "{errors}");
        assert_eq!(errors.to_string().lines().count(), errors.iter().count(), "one line each: {errors}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let cause = |path: &std::path::Path| {
        let errors = Config::load(path).unwrap_err();
        assert!(errors.to_string().starts_with(&format!("{}: ", path.display())), "{errors}");
        errors.iter().next().unwrap().cause.clone()
    };
    assert!(matches!(cause(&folder.path().join("none")), Cause::Unreadable(_)));
    assert!(matches!(cause(folder.path()), Cause::Unreadable(_)));
    let file = folder.path().join("furrow.toml");
    std::fs::write(&file, b"# caf\xe9").unwrap();
    assert_eq!(cause(&file), Cause::NotUtf8(5));
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(cause(&file), Cause::TooLarge(tuning::ByteSize::new(1 << 20)));
}

#[test]
fn only_loading_asks_whether_the_processors_exist() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("furrow.toml");
    std::fs::write(&file, format!("relay.url = '{URL}'\nshards.cores = [65535]")).unwrap();
    let errors = Config::load(&file).unwrap_err();
    let error = errors.iter().next().unwrap();
    assert!(matches!(error.cause, Cause::NoSuchCpu { cpu: 65_535, .. }), "{errors}");
    assert_eq!((error.line, error.key.as_str()), (Some(2), "shards.cores"));
    let config = Config::load_for_any_host(&file).unwrap();
    assert_eq!(config.shards.cores, [65_535]);
    assert_eq!(config.relay.data_dir, folder.path().join("data"));
}

#[test]
fn absolute_paths_stay() {
    let text = format!("[relay]\nurl = '{URL}'\ndata_dir = '/var/lib/furrow'");
    let config = Config::parse(&text, "/etc/furrow/furrow.toml").unwrap();
    assert_eq!(config.relay.data_dir.to_str(), Some("/var/lib/furrow"));
}

#[test]
fn the_default_file_reads_back_as_the_defaults() {
    let text = tuning::default_toml(URL);
    assert_eq!(Config::parse(&text, "furrow.toml").unwrap(), Config::new(URL));
    let set: Vec<&str> =
        text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()).collect();
    assert_eq!(set, [format!("url = [\"{URL}\"]")]);
}

#[test]
fn every_commented_key_of_the_default_file_can_be_uncommented() {
    let text: String = tuning::default_toml(URL)
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(Config::parse(&text, "furrow.toml").unwrap(), Config::new(URL));
    let set = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert_eq!(set, keys().count());
}

#[test]
fn a_url_with_quotes_survives_the_default_file() {
    for url in ["a\"b", "a\\b", "a'b", "\"\"\"'''\\", "#x"] {
        assert_eq!(Config::parse(&tuning::default_toml(url), "f").unwrap().relay.url, [url]);
    }
}

#[test]
fn changed_keys_are_set_in_the_commented_file() {
    let mut config = Config::new(URL);
    config.listen.sstp.push("[::1]:443".parse().unwrap());
    config.shards.cores = vec![2, 3];
    config.limits.message_bytes = 1 << 20;
    config.timers.keep_alive = Duration::from_millis(1500);
    config.mail.deposit = Deposit::Anyone;
    let key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
    config.management.servers.insert("msrv1 \"quoted\"".into(), key);
    let text = tuning::commented_toml(&config);
    assert!(text.contains("\nmessage_bytes = \"1 MiB\"\n"), "{text}");
    assert_eq!(Config::parse(&text, "furrow.toml").unwrap(), config);
}

#[test]
fn every_key_and_section_is_documented_and_its_own() {
    let mut names: Vec<String> = keys().map(tuning::Key::full_name).collect();
    assert!(keys().all(|key| key.doc().next().is_some_and(|line| line.ends_with(|c: char| c != ' '))));
    assert!(SECTIONS.iter().all(|section| section.doc().next().is_some()));
    let required: Vec<String> =
        keys().filter(|key| matches!(key.preset, Preset::Required(_))).map(tuning::Key::full_name).collect();
    assert_eq!(required, ["relay.url"]);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), keys().count());
}

#[test]
fn the_committed_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/REFERENCE.md");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == tuning::reference(), "run: relayctl config reference > tuning/REFERENCE.md");
}

#[test]
fn a_key_explains_itself_and_a_near_one_is_named() {
    assert_eq!(
        tuning::explain("timers.idle").unwrap(),
        "timers.idle\n\nAfter so long without receiving, the relay drops the connection. More than twice \
         keep_alive.\n\nA duration, \"1 ms\" to \"3 days\". Default: `\"135 s\"`.\n"
    );
    assert_eq!(tuning::explain("timers.idel"), Err(Some("timers.idle".into())));
    assert_eq!(tuning::explain("idle"), Err(Some("timers.idle".into())));
    assert_eq!(tuning::explain("zebra"), Err(None));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_never_a_panic(text in "[a-z.=\\[\\]{}'\"# \n0-9é]{0,200}") {
        let _ = Config::parse(&text, "furrow.toml");
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused_at_its_line(
        place in 0..keys().count(),
        value in prop_oneof![
            "-?[0-9]{1,25}".prop_map(|number| number.trim_start_matches('0').to_owned()),
            "'[ -&(-~]{0,20}'",
            "'[0-9]{1,12} ?(B|KiB|MB|GiB|ms|s|min|h|days)'",
            Just("[]".to_owned()),
            Just("[[1], {}]".to_owned()),
            Just("1979-05-27".to_owned()),
            Just("nan".to_owned()),
        ],
    ) {
        let key = keys().nth(place).unwrap().full_name();
        let text = format!("\n{key} = {value}\n{}", if key == "relay.url" { "" } else { "relay.url = 'x'" });
        match Config::parse(&text, "furrow.toml") {
            Ok(config) => {
                let again = Config::parse(&tuning::commented_toml(&config), "furrow.toml");
                prop_assert_eq!(again, Ok(config));
            }
            Err(errors) => prop_assert!(errors.iter().all(|error| error.line == Some(2)), "{}", errors),
        }
    }
}
