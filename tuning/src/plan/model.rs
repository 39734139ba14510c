//! From a load and the figures that were measured to what a relay needs: shards, memory, disk, network, descriptors, settings. Pure
//! arithmetic; every rule of it is one of [`Plan::assumptions`].

use super::measured::Measured;
use serde::Serialize;
use tuning::{ByteSize, Config, PRESETS, Span};

/// The largest message that a relay can be made to take (limits.message_bytes).
pub(crate) const MAX_MESSAGE_BYTES: u64 = 1 << 30;
/// Payload of one Data command.
const DATA_BYTES: f64 = 2048.0;
/// Bytes of the commands around a message, and in front of each piece of its payload.
const MESSAGE_OVERHEAD: f64 = 20.0;
const DATA_OVERHEAD: f64 = 7.0;
/// Of Ethernet, IP and TCP for each full segment.
const SEGMENT_BYTES: f64 = 1448.0;
const SEGMENT_OVERHEAD: f64 = 90.0;
/// The keep-alive with which idle connections were measured.
const MEASURED_KEEP_ALIVE: f64 = 45.0;
/// The log may hold so much more than what is live before it is compacted, and so many segments on top for each shard.
const LOG_FACTOR: f64 = 2.0;
const LOG_SEGMENTS: f64 = 6.0;
/// How much of a resource the relay is planned to use: what is below the warnings of the monitor.
const MEMORY_USE: f64 = 0.75;
const DISK_USE: f64 = 0.80;
/// Room above the planned number in limits.
const ROOM: f64 = 1.5;
/// Descriptors that are no connections: log, ring, database, mesh; for each shard.
const DESCRIPTORS_PER_SHARD: f64 = 64.0;
/// From so many connections on the preset `million` fits, and up to so many the preset `small` does.
const MANY: f64 = 200_000.0;
const FEW: f64 = 20_000.0;

/// What is planned for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) users: f64,
    pub(crate) devices: f64,
    /// Messages sent in a second, at the peak.
    pub(crate) message_rate: f64,
    pub(crate) recipients: f64,
    pub(crate) message_bytes: f64,
    pub(crate) offline_share: f64,
    pub(crate) away_seconds: f64,
    pub(crate) lifetime_seconds: f64,
    pub(crate) peak_to_mean: f64,
    /// The share of a processor that may be busy.
    pub(crate) busy: f64,
}

/// What the relay has to do, at the peak unless it says otherwise.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Work {
    pub(crate) connections: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) stored_per_second: f64,
    /// On average over days.
    pub(crate) waiting_messages: f64,
    pub(crate) waiting_bytes: f64,
}

/// What that takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Needs {
    /// Processors' worth of CPU.
    pub(crate) cpu: f64,
    pub(crate) shards: f64,
    /// Parts of the memory, in bytes.
    pub(crate) memory_connections: f64,
    pub(crate) memory_kernel: f64,
    pub(crate) memory_mail: f64,
    pub(crate) memory_users: f64,
    pub(crate) memory_shards: f64,
    pub(crate) memory_buffers: f64,
    /// Of the machine.
    pub(crate) memory: f64,
    pub(crate) disk: f64,
    pub(crate) disk_write_per_second: f64,
    pub(crate) network_in_bits: f64,
    pub(crate) network_out_bits: f64,
    pub(crate) descriptors: f64,
    /// Over which clients come back after a restart.
    pub(crate) return_seconds: f64,
}

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    pub(crate) work: Work,
    pub(crate) needs: Needs,
    pub(crate) preset: Option<&'static str>,
    /// Lines for furrow.toml.
    pub(crate) settings: String,
    /// What the operator should think about.
    pub(crate) notes: Vec<String>,
    pub(crate) assumptions: Vec<String>,
    pub(crate) measured: Measured,
}

impl Load {
    fn work(&self) -> Work {
        let deliveries = self.message_rate * self.recipients;
        let stored = deliveries * self.offline_share;
        let waiting = stored / self.peak_to_mean * self.away_seconds.min(self.lifetime_seconds);
        Work {
            connections: (self.devices * (1.0 - self.offline_share)).ceil(),
            deliveries_per_second: deliveries,
            stored_per_second: stored,
            waiting_messages: waiting.ceil(),
            waiting_bytes: waiting * self.message_bytes,
        }
    }

    /// Bytes of one message on the wire, towards one peer.
    fn wire_bytes(&self) -> f64 {
        let commands = MESSAGE_OVERHEAD + DATA_OVERHEAD * (self.message_bytes / DATA_BYTES).ceil();
        let bytes = commands + self.message_bytes;
        bytes * (1.0 + SEGMENT_OVERHEAD / SEGMENT_BYTES)
    }

    /// CPU that messages and connections take, in processors.
    fn cpu(&self, work: &Work, keep_alive: f64, measured: &Measured) -> f64 {
        let for_each_byte =
            (measured.stored_4k_us.value - measured.stored_us.value).max(0.0) / (4096.0 - 100.0);
        let for_size = (self.message_bytes - 100.0).max(0.0) * for_each_byte;
        let further = work.deliveries_per_second - self.message_rate;
        let sent = self.message_rate * (measured.online_us.value + for_size);
        let fanned_out = further * (measured.fanout_us.value + for_size);
        let stored_and_collected = work.stored_per_second
            * ((measured.stored_us.value - measured.online_us.value).max(0.0)
                + measured.collected_us.value
                + 2.0 * for_size);
        let idle = work.connections * measured.idle_us.value * MEASURED_KEEP_ALIVE / keep_alive;
        (sent + fanned_out + stored_and_collected + idle) / 1e6
    }
}

fn preset_for(shards: f64, connections: f64) -> Option<&'static str> {
    if connections >= MANY {
        Some("million")
    } else if shards <= 1.0 && connections <= FEW {
        Some("small")
    } else if shards >= 8.0 {
        Some("large")
    } else {
        None
    }
}

fn config_of(preset: Option<&str>) -> Config {
    let name = preset.map(|name| format!("preset = \"{name}\"\n")).unwrap_or_default();
    let text = format!("{name}[relay]\nurl = \"grooveDNS://plan\"\n");
    Config::parse(&text, "plan").expect("presets are right, which their own tests show")
}

/// A number that is easy to read and not below: two digits, then zeros.
fn rounded_up(number: f64) -> f64 {
    if number <= 100.0 {
        return number.ceil();
    }
    let unit = 10f64.powf(number.log10().floor() - 1.0);
    (number / unit).ceil() * unit
}

impl Plan {
    pub(crate) fn new(load: Load, measured: Measured) -> Self {
        let work = load.work();
        // The preset decides the keep-alive, and with it a part of the CPU, which decides the shards and so the preset: begin with the
        // keep-alive of few connections, which costs most.
        let cpu = load.cpu(&work, config_of(None).timers.keep_alive.as_secs_f64(), &measured);
        let preset = preset_for((cpu / load.busy).ceil().max(1.0), work.connections);
        let config = config_of(preset);
        let cpu = load.cpu(&work, config.timers.keep_alive.as_secs_f64(), &measured);
        let shards = (cpu / load.busy).ceil().max(1.0);
        let needs = needs(&load, &work, cpu, shards, &config, &measured);
        let settings = settings(&load, &work, &needs, preset, &config);
        let notes = notes(&load, &work, &needs);
        let assumptions = assumptions(&load, &config);
        Self { load, work, needs, preset, settings, notes, assumptions, measured }
    }
}

fn needs(load: &Load, work: &Work, cpu: f64, shards: f64, config: &Config, measured: &Measured) -> Needs {
    let limits = &config.limits;
    // What is on its way is bounded by these limits, and by what the connections can have at all.
    let bound = |shard: u64, connection: u64| {
        shards * (shard as f64).min(work.connections / shards * connection as f64)
    };
    let buffers = bound(limits.shard_in_flight_bytes, limits.connection_in_flight_bytes)
        + bound(limits.shard_output_bytes, limits.connection_output_bytes);
    let memory_connections = work.connections * measured.connection_bytes.value;
    let memory_kernel = work.connections * measured.kernel_bytes.value;
    let memory_mail = work.waiting_messages * measured.waiting_bytes.value;
    let memory_users = load.users * measured.user_bytes.value;
    let memory_shards = shards * measured.shard_bytes.value;
    let memory = memory_connections + memory_kernel + memory_mail + memory_users + memory_shards + buffers;
    let records = work.waiting_bytes + work.waiting_messages * measured.record_bytes.value;
    let segment = config.storage.segment_bytes as f64;
    let log = records * LOG_FACTOR + shards * LOG_SEGMENTS * segment;
    let keep_alives =
        work.connections / config.timers.keep_alive.as_secs_f64() * (DATA_OVERHEAD + SEGMENT_OVERHEAD) * 8.0;
    let connects_per_second = shards * 1e6 / measured.connect_us.value * load.busy;
    Needs {
        cpu,
        shards,
        memory_connections,
        memory_kernel,
        memory_mail,
        memory_users,
        memory_shards,
        memory_buffers: buffers,
        memory: memory / MEMORY_USE,
        disk: (log + load.users * measured.user_disk_bytes.value) / DISK_USE,
        disk_write_per_second: work.stored_per_second * (load.message_bytes + measured.record_bytes.value),
        network_in_bits: load.message_rate * load.wire_bytes() * 8.0 + keep_alives,
        network_out_bits: work.deliveries_per_second * load.wire_bytes() * 8.0 + keep_alives,
        descriptors: rounded_up(
            (work.connections * ROOM + shards * DESCRIPTORS_PER_SHARD + records / segment).max(1024.0),
        ),
        return_seconds: (work.connections / connects_per_second).ceil().max(1.0),
    }
}

/// Lines for furrow.toml: the preset, and what differs from it.
fn settings(load: &Load, work: &Work, needs: &Needs, preset: Option<&str>, config: &Config) -> String {
    let mut lines = String::new();
    if let Some(name) = preset {
        debug_assert!(PRESETS.iter().any(|preset| preset.name == name), "the preset exists");
        lines += &format!("preset = \"{name}\"\n\n");
    }
    lines += &format!("[shards]\ncount = {}\n\n", needs.shards);
    let connections = rounded_up((work.connections / needs.shards * ROOM).max(1000.0)).min(16e6);
    lines += &format!("[limits]\nconnections_per_shard = {connections}\n");
    if load.message_bytes as u64 > config.limits.message_bytes {
        lines += &format!("message_bytes = \"{}\"\n", ByteSize::new(load.message_bytes as u64));
    }
    let spread = Span::of(std::time::Duration::from_secs(needs.return_seconds.min(86_400.0) as u64));
    let lifetime = Span::of(std::time::Duration::from_secs(load.lifetime_seconds as u64));
    if spread.duration() > config.timers.return_time_spread {
        lines += &format!("\n[timers]\nreturn_time_spread = \"{spread}\"\n");
    }
    lines += &format!("\n[mail]\nlifetime = \"{lifetime}\"\n");
    lines
}

fn notes(load: &Load, work: &Work, needs: &Needs) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |when: bool, text: String| {
        if when {
            notes.push(text);
        }
    };
    note(
        needs.shards > 2.0,
        "No more than two shards were measured on processors of their own; beyond, each is taken to do as much as one of two.".into(),
    );
    note(
        needs.shards > 64.0,
        format!(
            "{} shards are more than most machines have processors for: divide the users among several relays, which exchange \
             mail among each other (peers.identity_files).",
            needs.shards
        ),
    );
    note(
        needs.disk_write_per_second > 200e6,
        "The disk writes more than 200 MB/s at the peak: `relay-bench run durable --dir ...` on the disk itself tells whether it can.".into(),
    );
    note(
        needs.network_out_bits.max(needs.network_in_bits) > 5e9,
        "The network carries more than 5 Gbit/s at the peak; one direction of a 10 Gbit/s card is then more than half full.".into(),
    );
    note(
        needs.descriptors > 1_048_576.0,
        "More descriptors than fs.nr_open allows by default (1 048 576): `relayctl host check` says how to raise it, or set \
         shards.own_descriptors = true."
            .into(),
    );
    note(
        work.connections / needs.shards > 600_000.0,
        "More than 600 000 connections on a shard were never measured.".into(),
    );
    note(
        needs.memory_mail > needs.memory / 2.0 && needs.memory > 16e9,
        format!(
            "Most of the memory is what the relay remembers of mail that waits: {}. A shorter mail.lifetime, or more relays, need less.",
            super::print::bytes(needs.memory_mail)
        ),
    );
    note(
        load.away_seconds > load.lifetime_seconds,
        "Mail is deleted before most recipients come for it: the lifetime is shorter than they are away."
            .into(),
    );
    let nobody = work.stored_per_second / load.peak_to_mean * load.lifetime_seconds * load.message_bytes;
    note(
        load.offline_share > 0.0,
        format!(
            "If nobody collected anything for the whole lifetime, {} of mail would wait; mail.quota_per_identity and \
             mail.quota_per_device bound what one of them can take.",
            super::print::bytes(nobody)
        ),
    );
    notes
}

fn assumptions(load: &Load, config: &Config) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    vec![
        format!("The rate of messages is that of the peak; its mean over days is 1/{} of it.", load.peak_to_mean),
        "Every device that is online has one connection, without TLS and not inside HTTP.".into(),
        format!("{} of the recipients are offline, and their copies wait for {} s on average.", percent(load.offline_share), load.away_seconds),
        "Of the mail of each day as much is collected as comes; at the peak as much is collected as is stored.".into(),
        "The CPU for a byte of payload is that of the difference between stored messages of 100 bytes and of 4 KiB.".into(),
        format!("Processors are at most {} busy, by the relay alone; shards share the work evenly.", percent(load.busy)),
        format!("The relay uses at most {} of the memory and {} of the disk (the warnings of [monitor]).", percent(MEMORY_USE), percent(DISK_USE)),
        "Memory holds what may be on its way at most (limits of a shard and of a connection), whether it is or not.".into(),
        format!("The log takes up to {LOG_FACTOR} times what is live in it, and {LOG_SEGMENTS} segments of {} for each shard.", ByteSize::new(config.storage.segment_bytes)),
        format!("Idle connections cost CPU in proportion to their keep-alive, which is {} s here.", config.timers.keep_alive.as_secs()),
        "After a restart clients come back evenly over the spread, and take the same share of the processors.".into(),
        "No presence, no mail to other relays, no legacy registrations: measure those (relay-bench run presence, auth).".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            users: 20_000.0,
            devices: 40_000.0,
            message_rate: 300.0,
            recipients: 2.0,
            message_bytes: 1024.0,
            offline_share: 0.5,
            away_seconds: 43_200.0,
            lifetime_seconds: 30.0 * 86_400.0,
            peak_to_mean: 3.0,
            busy: 0.5,
        }
    }

    fn plan(load: Load) -> Plan {
        Plan::new(load, Measured::ours())
    }

    #[test]
    fn the_work_is_what_the_load_says() {
        let work = plan(load()).work;
        assert_eq!(
            (work.connections, work.deliveries_per_second, work.stored_per_second),
            (20_000.0, 600.0, 300.0)
        );
        // 100 a second on average, for twelve hours.
        assert_eq!(work.waiting_messages, 4_320_000.0);
        assert_eq!(work.waiting_bytes, 4_320_000.0 * 1024.0);
    }

    #[test]
    fn shards_follow_from_cpu_and_how_busy_they_may_be() {
        let mut busy = load();
        (busy.message_rate, busy.recipients, busy.message_bytes) = (2e6, 1.0, 100.0);
        (busy.offline_share, busy.devices) = (0.0, 1.0);
        let mut measured = Measured::ours();
        measured.online_us.value = 0.92;
        let plan = |load| Plan::new(load, measured.clone());
        let needs = plan(busy).needs;
        assert!((needs.cpu - 1.84).abs() < 1e-5, "{}", needs.cpu);
        assert_eq!(needs.shards, 4.0);
        busy.busy = 1.0;
        assert_eq!(plan(busy).needs.shards, 2.0);
        assert_eq!(plan(Load { message_rate: 0.0, ..busy }).needs.shards, 1.0);
    }

    #[test]
    fn more_of_anything_needs_no_less_of_everything() {
        let base = plan(load()).needs;
        let more: [fn(&mut Load); 6] = [
            |load| load.users *= 50.0,
            |load| load.devices *= 3.0,
            |load| load.message_rate *= 40.0,
            |load| load.recipients *= 10.0,
            |load| load.message_bytes *= 20.0,
            |load| load.away_seconds *= 2.0,
        ];
        for (number, change) in more.into_iter().enumerate() {
            let mut load = load();
            change(&mut load);
            let found = plan(load).needs;
            let pairs = [
                (base.cpu, found.cpu),
                (base.shards, found.shards),
                (base.memory, found.memory),
                (base.disk, found.disk),
                (base.disk_write_per_second, found.disk_write_per_second),
                (base.network_out_bits, found.network_out_bits),
            ];
            assert!(pairs.iter().all(|(less, more)| less <= more), "{number}: {base:?} {found:?}");
            assert_ne!((base.memory, base.disk), (found.memory, found.disk), "{number}");
        }
    }

    #[test]
    fn the_settings_of_every_plan_are_a_right_configuration_and_hold_the_load() {
        let mut presets = std::collections::BTreeSet::new();
        for devices in [1.0, 30_000.0, 3e6, 1e9] {
            for message_rate in [0.0, 50_000.0, 2e7] {
                for message_bytes in [0.0, 4096.0, 1e9] {
                    let load = Load { devices, message_rate, message_bytes, offline_share: 0.2, ..load() };
                    let plan = plan(load);
                    // Above what one relay can be, the notes say so.
                    if plan.needs.shards > 1024.0 {
                        assert!(plan.notes.iter().any(|note| note.contains("several relays")));
                        continue;
                    }
                    presets.insert(plan.preset);
                    let name =
                        plan.settings.replace("[shards]", "[relay]\nurl = \"grooveDNS://r\"\n[shards]");
                    let config =
                        Config::parse(&name, "plan").unwrap_or_else(|errors| panic!("{name}\n{errors}"));
                    let room = config.limits.connections_per_shard * config.shards.count;
                    assert!(
                        room as f64 >= plan.work.connections
                            || plan.work.connections / plan.needs.shards > 16e6
                    );
                    assert!(config.limits.message_bytes as f64 >= message_bytes);
                    assert!(
                        config.timers.return_time_spread.as_secs_f64()
                            >= plan.needs.return_seconds.min(86_400.0)
                    );
                }
            }
        }
        assert_eq!(presets.len(), 4, "{presets:?}");
    }

    #[test]
    fn numbers_are_rounded_up_to_two_digits() {
        for (number, rounded) in
            [(0.2, 1.0), (99.5, 100.0), (101.0, 110.0), (123_456.0, 130_000.0), (1e6, 1e6)]
        {
            assert_eq!(rounded_up(number), rounded);
        }
    }
}
