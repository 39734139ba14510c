//! Every key of the configuration: name, type, bounds, default and meaning, each said once.
//!
//! The structs that the relay uses, the commented default file, the reference and the checks all come from this table.
//! Only keys that the relay obeys are here.

use crate::kind::{
    Address, AnyPort, Choice, DataPath, FilePath, Flag, Kind, List, OneOf, ProductVersion, Size, Time, Url,
    Whole,
};
use crate::managers::Servers;
use crate::read::Reader;
use crate::table::{Key, Preset, Section, choices, settings};
use relay_core::spmr::ManagerPublicKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

choices! {
    /// Who may leave mail (wire-profile sec. 1).
    Deposit {
        /// only devices that have authenticated
        Registered = "registered",
        /// whoever connects
        Anyone = "anyone",
    }
}

choices! {
    /// Who may register an account.
    Registration {
        /// whoever connects
        Open = "open",
        /// only who presents the token that the directory holds for the account
        PreAuthenticated = "pre-authenticated",
    }
}

choices! {
    /// How much the log says; each level includes those before it.
    LogLevel {
        /// what needs a person
        Error = "error",
        /// what may need one
        Warn = "warn",
        /// starts, stops and changes
        Info = "info",
        /// every connection
        Debug = "debug",
        /// every command
        Trace = "trace",
    }
}

choices! {
    /// The form of a log line.
    LogFormat {
        /// for people
        Text = "text",
        /// one object a line, for programs
        Json = "json",
    }
}

choices! {
    /// Which processors shards get first, if not all are used.
    ShardsPlacement {
        /// those of one NUMA node before those of the next: shards talk to each other
        Packed = "packed",
        /// NUMA nodes in turn: each shard has more memory bandwidth
        Spread = "spread",
    }
}

settings! {
    /// Who this relay is and where it keeps its files.
    relay: Relay {
        /// The relay's device URLs: the names by which clients and other relays connect to it. The first one is the
        /// name it gives itself.
        url: Vec<String> as List { of: Url, may_be_empty: false } => required, ["grooveDNS://relay.example.com"];
        /// The file with the relay's private keys. Whoever reads it can pretend to be this relay.
        key_file: PathBuf as FilePath => "relay.key";
        /// The folder for mail and the user database. It needs a file system with direct I/O, such as ext4 or XFS.
        data_dir: PathBuf as FilePath => "data";
        /// The PeerProductVersion that the relay tells its peers.
        product_version: String as ProductVersion => "Furrow Relay 0.1 1";
    }
    /// Where the relay listens.
    listen: Listen {
        /// Addresses for SSTP. Every shard listens on each of them (SO_REUSEPORT), and the kernel spreads the
        /// connections. Clients expect port 2492.
        sstp: Vec<SocketAddr> as List { of: Address, may_be_empty: false } => ["127.0.0.1:2492"];
        /// Addresses for SSTP inside TLS, on a port of their own; none by default. SSTP by itself proves who is there and
        /// protects nothing that follows. See the section tls.
        tls: Vec<SocketAddr> as List { of: Address, may_be_empty: true } => [];
        /// Addresses for SSTP inside HTTP, for clients behind firewalls that let nothing else out; none by default. Clients
        /// expect port 80. A browser finds a short page there.
        http: Vec<SocketAddr> as List { of: Address, may_be_empty: true } => [];
        /// Connections that may wait to be accepted, per shard and address. The kernel caps it at
        /// net.core.somaxconn.
        backlog: usize as Whole { min: 1, max: 65_535 } => 4096;
    }
    /// What the relay shows where it listens for TLS. The files are read at the start if listen.tls has an address, and
    /// again upon SIGHUP; connections that are there keep what they have.
    tls: Tls {
        /// The certificate in PEM form, with those of its issuers behind it.
        certificate_file: PathBuf as FilePath => "tls.crt";
        /// Its private key in PEM form, which only its owner may read (mode 0600).
        key_file: PathBuf as FilePath => "tls.key";
    }
    /// SSTP inside HTTP, where listen.http has an address.
    http: Http {
        /// How often a client of the Polling encapsulation is told to ask for mail. With more than a thousand of them on a
        /// shard the relay tells them longer intervals, up to a minute.
        poll_interval: Duration as Time::seconds_up_to(MINUTE) => "2 s";
        /// Whether all requests of a client have to come from the address of its first one. That makes a stolen connection
        /// identifier useless elsewhere, and shuts out clients behind proxies with several addresses.
        bind_address: bool as Flag => false;
    }
    /// How the relay uses the processors: one shard is one thread with its own ring, connections and log.
    shards: Shards {
        /// How many shards; 0 is one for each processor that the process may use. When it has changed, the relay re-homes
        /// stored mail as it starts, which takes as long as copying it.
        count: usize as Whole { min: 0, max: 1024 } => 0;
        /// The processors to run on, one shard for each; if not empty, it decides instead of count and placement.
        cores: Vec<usize> as List { of: Whole { min: 0, max: 65_535 }, may_be_empty: true } => [];
        /// Which processors shards get first. Either way every core gets one shard before its siblings (hyper-threads) do.
        placement: ShardsPlacement as OneOf::<ShardsPlacement>::NEW => "packed";
        /// Whether the first core, with its siblings, is left to interrupts and everybody else. Not together with cores.
        leave_first_core: bool as Flag => false;
        /// Whether each shard is bound to its processor. Turn it off where others use the machine as well.
        pin: bool as Flag => true;
        /// Whether each shard has a table of descriptors of its own (unshare(2)). Then the limit on descriptors
        /// (LimitNOFILE) is one for each shard instead of one for all, and shards do not share the table's lock; handing a
        /// connection to its home costs some microseconds more.
        own_descriptors: bool as Flag => false;
        /// Whether the relay's memory may lie in transparent huge pages, where the system grants them on request. They save
        /// processor time where memory stays, and cost a pause of the shard for every 2 MiB by which it grows: 0.2 ms, or
        /// 6 ms on a virtual machine whose host takes free memory back; and a relay under load is up to 1.8 times as large.
        huge_pages: bool as Flag => false;
    }
    /// What the relay accepts at most. Every limit is a bound on memory or disk; at the bound it makes its peers wait
    /// or refuses, and loses nothing that it has acknowledged.
    limits: Limits {
        /// Connections of one shard. Above it a new one gets TryLater.
        connections_per_shard: usize as Whole { min: 1, max: 16_000_000 } => 600000 @live;
        /// Open sessions of one connection. Above it an Open is refused.
        sessions_per_connection: usize as Whole { min: 1, max: 1_000_000 } => 4096 @live;
        /// The largest message.
        message_bytes: u64 as Size::between(KIB, GIB) => "250 MB" @live;
        /// Bytes received from one connection and not yet complete, that is neither acknowledged by their recipients
        /// nor durable. Above it the connection's sessions are told to stop sending; at twice as much the relay stops
        /// reading from the connection.
        connection_in_flight_bytes: u64 as Size::between(64 * KIB, GIB) => "1 MiB" @live;
        /// The same bytes of all connections of one shard. At least connection_in_flight_bytes.
        shard_in_flight_bytes: u64 as Size::between(64 * KIB, TIB) => "64 MiB" @live;
        /// Bytes that wait to be sent on one connection; above it the relay sends no further message there until the
        /// peer has read.
        connection_output_bytes: u64 as Size::between(4 * KIB, 64 * MIB) => "256 KiB" @live;
        /// The same for all connections of one shard. Above it a connection is given one piece of a message (at most
        /// 128 KiB) at a time, and only when it has read all that was sent before.
        shard_output_bytes: u64 as Size::between(64 * KIB, TIB) => "256 MiB" @live;
        /// Items that one shard may have waiting for another. When the queue is full, the sessions that feed it are told
        /// to stop sending.
        mesh_queue_items: usize as Whole { min: 16, max: 1_048_576 } => 4096;
        /// Recipients of one FanoutOpen.
        fanout_recipients: usize as Whole { min: 1, max: 65_535 } => 16384 @live;
        /// Authenticated connections of one device. A further one is closed as CrossedConnections.
        connections_per_device: usize as Whole { min: 1, max: 1024 } => 4 @live;
        /// Connections from one address whose device has not proven its key, on all shards together. A further one is dropped
        /// as soon as it is accepted. This and the limits per minute below count IPv6 addresses by their /64.
        unauthenticated_per_address: usize as Whole { min: 1, max: 1_000_000 } => 1024 @live;
        /// Connections of one shard whose device has not proven its key. Above it the oldest of them is dropped.
        unauthenticated_per_shard: usize as Whole { min: 1, max: 1_000_000 } => 16384;
        /// Failed authentications and registrations from one address in a minute. After so many, a Connect from there gets
        /// TryLater and an Attach fails, before any cryptography. This and the other limits per minute are counted by each shard
        /// for itself, so a relay of four shards may grant four times as much; a device's own connections all end at one shard.
        failures_per_address_per_minute: usize as Whole { min: 1, max: 1_000_000 } => 60 @live;
        /// Registrations from one address in a minute. Above it they are answered with Busy. A user with one identity
        /// takes two.
        registrations_per_address_per_minute: usize as Whole { min: 1, max: 1_000_000 } => 60 @live;
        /// TLS handshakes from one address in a minute; each costs a shard about a tenth of a millisecond. Above it a
        /// connection is dropped as soon as it is accepted.
        tls_handshakes_per_address_per_minute: usize as Whole { min: 1, max: 1_000_000 } => 6000 @live;
    }
    /// How long the relay waits.
    timers: Timers {
        /// From accepting a connection to its Connect. Later the connection is dropped. The same for an address of another
        /// relay to answer a call, and for its ConnectResponse.
        connect: Duration as Time::up_to(10 * MINUTE) => "10 s" @live;
        /// From ConnectResponse to ConnectAuthenticate. Later the connection is dropped.
        authenticate: Duration as Time::up_to(10 * MINUTE) => "10 s" @live;
        /// How long an acknowledgement waits for a message to travel with before it goes alone.
        acknowledge: Duration as Time::up_to(10 * MINUTE) => "5 s" @live;
        /// After so long without sending, the relay sends a Noop.
        keep_alive: Duration as Time::up_to(24 * HOUR) => "45 s";
        /// After so long without receiving, the relay drops the connection. More than twice keep_alive.
        idle: Duration as Time::up_to(72 * HOUR) => "135 s";
        /// How long a shutdown waits for connections to drain and for mail to become durable. Keep it below the
        /// service manager's own limit (TimeoutStopSec).
        shutdown_grace: Duration as Time::up_to(HOUR) => "10 s";
        /// The least ReturnTime that peers are told when the relay shuts down: when to come back.
        return_time: Duration as Time::seconds_up_to(DAY) => "30 s" @live;
        /// What is added to it: each peer is told a ReturnTime of its own, drawn evenly from return_time to return_time plus
        /// this, so that not all of them come back in one second. A shard takes in about 5000 connections a second.
        return_time_spread: Duration as Time { min: 0, max: DAY, step: SECOND } => "30 s" @live;
        /// The RetryTime that peers are told with TryLater: when to try again.
        retry_time: Duration as Time::seconds_up_to(DAY) => "30 s" @live;
    }
    /// Mail that waits for recipients that are not connected.
    mail: Mail {
        /// Who may leave mail.
        deposit: Deposit as OneOf::<Deposit>::NEW => "registered" @live;
        /// How long mail waits if its sender does not say. Then it is deleted.
        lifetime: Duration as Time::seconds_up_to(3650 * DAY) => "30 days" @live;
        /// A device that has not connected for so long is taken for abandoned: device-targeted mail that has waited for it for a
        /// day is deleted.
        abandoned_after: Duration as Time::seconds_up_to(3650 * DAY) => "90 days";
        /// Bytes of mail that may wait for one identity, unless the directory says otherwise.
        quota_per_identity: u64 as Size::between(KIB, 1024 * TIB) => "1 GB" @live;
        /// Bytes of mail that may wait for one device.
        quota_per_device: u64 as Size::between(KIB, 1024 * TIB) => "4 GB" @live;
    }
    /// Who is online, for those who want to know (WAN DPP).
    presence: Presence {
        /// Whether the relay has presence. Without it clients are told that there is no such resource.
        enabled: bool as Flag => true;
        /// How long the changes for one subscriber are gathered before they are told, in one message.
        window: Duration as Time::up_to(10 * SECOND) => "100 ms";
        /// How long a device that has lost its last connection is still shown as it was. A few seconds spare everybody who
        /// watches it the news of a short interruption.
        offline_damping: Duration as Time { min: 0, max: MINUTE, step: 1 } => "0 ms";
        /// Devices that one connection may watch. One above it is answered with the status unknown and not watched; after 1024
        /// such answers that wait to be sent, the session is closed.
        subscriptions_per_connection: usize as Whole { min: 1, max: 1_000_000 } => 10000;
        /// Connections of one shard that may watch the same device. One above it is answered with the status unknown.
        subscribers_per_device: usize as Whole { min: 1, max: 1_000_000 } => 10000;
    }
    /// How mail is written to the disk.
    storage: Storage {
        /// The size of a file of the log. At least batch_bytes.
        segment_bytes: u64 as Size { min: 4 * MIB, max: 2 * GIB, step: 4 * KIB } => "64 MiB";
        /// The most that one group commit writes.
        batch_bytes: u64 as Size::between(256 * KIB, 256 * MIB) => "4 MiB";
        /// How long mail that is on its way to all its recipients waits to be written: if they acknowledge it before, the disk
        /// is spared. Mail for somebody who is not there, or is behind, is written at once.
        commit_delay: Duration as Time { min: 0, max: SECOND, step: 1 } => "5 ms";
        /// Pages of the user database that stay in memory, of which they take about two and a half times as much. A user takes
        /// about 300 bytes; where there are many more than have room, listing and admitting them takes twice the time.
        user_cache_bytes: u64 as Size::between(4 * MIB, 64 * GIB) => "256 MiB";
    }
    /// Whom the relay trusts.
    security: Security {
        /// Who may register an account.
        registration: Registration as OneOf::<Registration>::NEW => "open";
        /// Threads that judge registrations, beside those of the shards, to which they give way. One judges about 90 a second
        /// in the legacy profile and more than 1000 in the modern one.
        registration_threads: usize as Whole { min: 1, max: 64 } => 2;
    }
    /// The port for management servers (SPMR), which list users and set quotas with `relayctl manager`. Messages are
    /// secured by themselves, with the means of 2001: keep the port on an internal address.
    management: Management {
        /// Addresses to listen on; none by default. Management servers expect port 8009.
        listen: Vec<SocketAddr> as List { of: Address, may_be_empty: true } => [];
        /// The management servers that may register, by name, with the public keys that `relayctl manager init` prints.
        /// They can stand in a section of their own, [management.servers].
        servers: BTreeMap<String, ManagerPublicKey> as Servers => {};
        /// Whether messages are processed. If not, each is answered with fault 313.
        accept: bool as Flag => true;
        /// The longest message. A list of users is sent in many.
        body_bytes: u64 as Size::between(64 * KIB, 256 * MIB) => "16 MiB";
        /// Connections at a time. Further ones wait to be accepted.
        clients: usize as Whole { min: 1, max: 1024 } => 16;
        /// How long a connection may wait between requests, and how long a request may take to arrive.
        timeout: Duration as Time::up_to(HOUR) => "60 s";
    }
    /// Metrics, in the text format of Prometheus at /metrics, and whether the relay lives (/healthz) and is ready for
    /// connections (/readyz), over HTTP.
    metrics: Metrics {
        /// Addresses for it; none by default. Whoever reaches them can read: an address of this machine alone, such as
        /// 127.0.0.1:9249, or one behind a firewall. With port 0 the system chooses one, and `relayctl status` shows it.
        listen: Vec<SocketAddr> as List { of: AnyPort, may_be_empty: true } => [];
    }
    /// How operators reach the running relay.
    operator: Operator {
        /// The Unix socket for relayctl. Only the user that the relay runs as may open it (mode 0600). Linux allows a path of 107
        /// bytes.
        socket: PathBuf as DataPath => "relayd.sock";
    }
    /// What the relay watches of its machine. At a warning it only says so. At the critical level of the disk it stops taking
    /// messages, which its senders then keep, and goes on delivering; at that of anything else it answers new connections
    /// with TryLater. It goes on by itself when there is room again.
    monitor: Monitor {
        /// How often it looks.
        interval: Duration as Time::up_to(HOUR) => "10 s";
        /// How far below a level the use must fall before that level is over, in percent of what there is.
        hysteresis_percent: usize as Whole { min: 0, max: 50 } => 3;
        /// Use of the disk that holds data_dir, by whomever.
        disk_warning_percent: usize as Whole { min: 1, max: 100 } => 80;
        /// The same, critical.
        disk_critical_percent: usize as Whole { min: 1, max: 100 } => 95;
        /// Memory of the relay, of what its control group or else the machine has.
        memory_warning_percent: usize as Whole { min: 1, max: 100 } => 75;
        /// The same, critical.
        memory_critical_percent: usize as Whole { min: 1, max: 100 } => 90;
        /// File descriptors of the relay, of what it may have.
        descriptors_warning_percent: usize as Whole { min: 1, max: 100 } => 80;
        /// The same, critical.
        descriptors_critical_percent: usize as Whole { min: 1, max: 100 } => 95;
        /// Connections, of limits.connections_per_shard of all shards.
        connections_warning_percent: usize as Whole { min: 1, max: 100 } => 80;
        /// The same, critical.
        connections_critical_percent: usize as Whole { min: 1, max: 100 } => 98;
    }
    /// What the relay says about itself: to the journal if systemd runs it, with every field by name, else to standard error.
    /// The other relays with whose users this relay's users exchange mail (single-hop fanout). Either side may call the
    /// other; each has to list the other one.
    peers: Peers {
        /// The relay identity files of the other relays, as `relayd init` makes them: their URLs, addresses and public
        /// keys. They are read at the start.
        identity_files: Vec<PathBuf> as List { of: FilePath, may_be_empty: true } => [];
    }
    /// What the relay says about itself, on standard error.
    log: Log {
        /// How much; each level includes those before it.
        level: LogLevel as OneOf::<LogLevel>::NEW => "info";
        /// The form of a line on standard error.
        format: LogFormat as OneOf::<LogFormat>::NEW => "text";
    }
}

/// Every key, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}
