//! The keys of metrics, operators and the resource monitor: defaults, and what goes together.

use std::time::Duration;
use tuning::{Config, Monitor};

fn parsed(text: &str) -> Result<Config, String> {
    let text = format!("relay.url = 'x'\n{text}");
    Config::parse(&text, "/etc/furrow/furrow.toml").map_err(|errors| errors.to_string())
}

#[test]
fn without_a_word_there_are_no_metrics_and_the_socket_is_beside_the_mail() {
    let config = parsed("").unwrap();
    assert_eq!(config.metrics.listen, []);
    assert_eq!(config.operator_socket().to_str(), Some("/etc/furrow/data/relayd.sock"));
    let monitor = Monitor {
        interval: Duration::from_secs(10),
        hysteresis_percent: 3,
        disk_warning_percent: 80,
        disk_critical_percent: 95,
        memory_warning_percent: 75,
        memory_critical_percent: 90,
        descriptors_warning_percent: 80,
        descriptors_critical_percent: 95,
        connections_warning_percent: 80,
        connections_critical_percent: 98,
    };
    assert_eq!(config.monitor, monitor);
}

#[test]
fn the_socket_may_lie_anywhere_and_follows_the_data_folder() {
    let socket = |text| parsed(text).unwrap().operator_socket().to_str().unwrap().to_owned();
    assert_eq!(socket("relay.data_dir = '/mail'"), "/mail/relayd.sock");
    assert_eq!(socket("operator.socket = '/run/furrow/op.sock'"), "/run/furrow/op.sock");
}

#[test]
fn metrics_may_ask_the_system_for_a_port() {
    let config = parsed("metrics.listen = '127.0.0.1:0'").unwrap();
    assert_eq!(config.metrics.listen, ["127.0.0.1:0".parse().unwrap()]);
    assert!(
        parsed("metrics.listen = 'here:9249'").unwrap_err().contains("metrics.listen: \"here:9249\" is not")
    );
}

#[test]
fn levels_and_their_hysteresis_fit_together() {
    let table = [
        ("monitor.disk_warning_percent = 95", ""),
        (
            "monitor.disk_warning_percent = 96",
            "2: monitor.disk_warning_percent: 96 is more than monitor.disk_critical_percent (95); it must not be",
        ),
        (
            "monitor.memory_critical_percent = 5",
            "2: monitor.memory_warning_percent: 75 is more than monitor.memory_critical_percent (5); it must not be",
        ),
        (
            "monitor.hysteresis_percent = 3\nmonitor.connections_warning_percent = 3",
            "2: monitor.hysteresis_percent: 3 is not less than monitor.connections_warning_percent (3); it must be",
        ),
        ("monitor.hysteresis_percent = 0\nmonitor.connections_warning_percent = 1", ""),
    ];
    for (text, wanted) in table {
        let said = parsed(text).err().unwrap_or_default();
        let wanted =
            if wanted.is_empty() { String::new() } else { format!("/etc/furrow/furrow.toml:{wanted}") };
        assert_eq!(said, wanted, "{text}");
    }
}
