//! Named sets of values for kinds of machines and of use: what `preset = "NAME"` at the top of a configuration stands for.
//!
//! A preset sets defaults and nothing else: a key in the file or in the environment wins. What it comes to is shown by
//! `relayctl config show --effective FILE`.

/// A named set of values.
#[derive(Clone, Copy, Debug)]
pub struct NamedPreset {
    /// The word for it in the file.
    pub name: &'static str,
    /// For whom it is, in lines.
    pub doc: &'static [&'static str],
    /// Keys with their section, and their values in TOML.
    pub values: &'static [(&'static str, &'static str)],
}

/// Every preset, in the order of the reference.
pub const PRESETS: &[NamedPreset] = &[
    NamedPreset {
        name: "small",
        doc: &[
            "A virtual machine or a machine that does other things as well: up to 20000 connections on one shard that is not",
            "bound to a processor, at most 64 MiB for what is on its way, and clients that are back seconds after a restart.",
        ],
        values: &[
            ("shards.count", "1"),
            ("shards.pin", "false"),
            ("limits.connections_per_shard", "20000"),
            ("limits.shard_in_flight_bytes", "\"16 MiB\""),
            ("limits.shard_output_bytes", "\"48 MiB\""),
            ("limits.unauthenticated_per_shard", "2048"),
            ("timers.return_time", "\"2 s\""),
            ("timers.return_time_spread", "\"5 s\""),
            ("storage.segment_bytes", "\"16 MiB\""),
            ("security.registration_threads", "1"),
        ],
    },
    NamedPreset {
        name: "large",
        doc: &[
            "A machine of its own with 8 processors or more, 32 GiB or more and much traffic: longer queues, larger batches",
            "and files, and a minute over which clients come back.",
        ],
        values: &[
            ("listen.backlog", "16384"),
            ("limits.shard_in_flight_bytes", "\"256 MiB\""),
            ("limits.shard_output_bytes", "\"1 GiB\""),
            ("limits.mesh_queue_items", "16384"),
            ("timers.return_time_spread", "\"1 min\""),
            ("storage.segment_bytes", "\"256 MiB\""),
            ("storage.batch_bytes", "\"8 MiB\""),
            ("security.registration_threads", "4"),
        ],
    },
    NamedPreset {
        name: "million",
        doc: &[
            "A million connections or more that say little: less for each of them, a sign of life every four minutes instead",
            "of every 45 seconds, room for a crowd that is let in again, and five minutes over which it comes back. Firewalls",
            "and address translators on the way have to keep silent connections for four minutes.",
        ],
        values: &[
            ("listen.backlog", "65535"),
            ("limits.connections_per_shard", "1000000"),
            ("limits.sessions_per_connection", "256"),
            ("limits.connection_in_flight_bytes", "\"256 KiB\""),
            ("limits.connection_output_bytes", "\"64 KiB\""),
            ("limits.shard_output_bytes", "\"512 MiB\""),
            ("limits.mesh_queue_items", "16384"),
            ("limits.unauthenticated_per_shard", "65536"),
            ("timers.keep_alive", "\"4 min\""),
            ("timers.idle", "\"10 min\""),
            ("timers.return_time_spread", "\"5 min\""),
            ("timers.retry_time", "\"1 min\""),
        ],
    },
    NamedPreset {
        name: "low-latency",
        doc: &[
            "The shortest way from sender to recipient, at the cost of throughput: small batches, short queues,",
            "acknowledgements at once. The shards want processors that nobody else uses.",
        ],
        values: &[
            ("limits.connection_output_bytes", "\"64 KiB\""),
            ("timers.acknowledge", "\"50 ms\""),
            ("storage.batch_bytes", "\"512 KiB\""),
        ],
    },
    NamedPreset {
        name: "durable",
        doc: &[
            "Mail that waits long and must not get lost: little that is received and not yet stored, a year of life, room on",
            "the disk, and a shutdown that has time to complete everything.",
        ],
        values: &[
            ("limits.connection_in_flight_bytes", "\"256 KiB\""),
            ("timers.shutdown_grace", "\"45 s\""),
            ("mail.lifetime", "\"365 days\""),
            ("mail.quota_per_identity", "\"10 GB\""),
            ("mail.quota_per_device", "\"40 GB\""),
            ("storage.batch_bytes", "\"1 MiB\""),
        ],
    },
];

impl NamedPreset {
    /// The preset with this name.
    pub fn named(name: &str) -> Option<&'static NamedPreset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// What it has for a key, in TOML.
    pub fn value(&self, key: &str) -> Option<&'static str> {
        self.values.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }
}
