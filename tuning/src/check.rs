//! The rules between keys, and between keys and the machine.
//!
//! What a single value may be is said in the table of keys; here is only what one value means for another.

use crate::error::{Cause, as_ranges};
use crate::host::Host;
use crate::keys::Config;
use crate::read::Reader;

/// Rules that hold on every machine.
pub(crate) fn relations(config: &Config, reader: &mut Reader<'_>) {
    let (timers, limits, storage) = (&config.timers, &config.limits, &config.storage);
    if timers.idle <= 2 * timers.keep_alive {
        let cause = Cause::IdleTooShort { idle: timers.idle, keep_alive: timers.keep_alive };
        reader.report_relation(&["timers.idle", "timers.keep_alive"], cause);
    }
    let listeners = [
        ("listen.sstp", &config.listen.sstp),
        ("listen.tls", &config.listen.tls),
        ("listen.http", &config.listen.http),
        ("management.listen", &config.management.listen),
    ];
    for (at, (key, addresses)) in listeners.iter().enumerate() {
        for (other, others) in &listeners[at + 1..] {
            if let Some(twice) = addresses.iter().find(|address| others.contains(address)) {
                reader.report_relation(&[key, other], Cause::Repeated(twice.to_string()));
            }
        }
    }
    if config.shards.leave_first_core && !config.shards.cores.is_empty() {
        let cause = Cause::Together { with: "shards.cores", remedy: "leave the core out of shards.cores" };
        reader.report_relation(&["shards.leave_first_core", "shards.cores"], cause);
    }
    let monitor = &config.monitor;
    let levels = [
        ("disk", monitor.disk_warning_percent, monitor.disk_critical_percent),
        ("memory", monitor.memory_warning_percent, monitor.memory_critical_percent),
        ("descriptors", monitor.descriptors_warning_percent, monitor.descriptors_critical_percent),
        ("connections", monitor.connections_warning_percent, monitor.connections_critical_percent),
    ];
    for (resource, warning, critical) in levels {
        let keys =
            [format!("monitor.{resource}_warning_percent"), format!("monitor.{resource}_critical_percent")];
        if warning > critical {
            let cause = Cause::NotAbove { found: warning, bound: keys[1].clone(), limit: critical };
            reader.report_relation(&[&keys[0], &keys[1]], cause);
        }
        if monitor.hysteresis_percent >= warning {
            let cause =
                Cause::NotBelow { found: monitor.hysteresis_percent, bound: keys[0].clone(), limit: warning };
            reader.report_relation(&["monitor.hysteresis_percent", &keys[0]], cause);
        }
    }
    let not_above = [
        (
            "limits.connection_in_flight_bytes",
            limits.connection_in_flight_bytes,
            "limits.shard_in_flight_bytes",
            limits.shard_in_flight_bytes,
        ),
        ("storage.batch_bytes", storage.batch_bytes, "storage.segment_bytes", storage.segment_bytes),
    ];
    for (key, found, bound, limit) in not_above {
        if found > limit {
            reader.report_relation(&[key, bound], Cause::AboveOther { found, bound, limit });
        }
    }
}

/// Whether the configuration can run on `host`.
pub(crate) fn host(config: &Config, host: &Host, reader: &mut Reader<'_>) {
    let Some(usable) = &host.cpus else { return };
    for &cpu in config.shards.cores.iter().filter(|cpu| !usable.contains(cpu)) {
        let cause = Cause::NoSuchCpu { cpu, usable: as_ranges(usable) };
        reader.report_relation(&["shards.cores"], cause);
    }
}
