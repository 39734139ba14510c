//! `brain`: the relay's decisions alone, in this process, without sockets, kernel and disk. Its figures hardly depend on what
//! else the machine does, and under callgrind, which cannot run a ring, they are exact:
//!
//! `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*brain*Subject*turn*' relay-bench run brain --rounds 1 --turns 200`

use crate::clock;
use crate::failure::Failure;
use crate::population::{RELAY_URL, User, make_keys};
use crate::report::{Report, median};
use crate::sstp_wire::{Recipients, Role, SstpWire};
use crate::wire::{Deaf, Wire};
use bytes::{Bytes, BytesMut};
use client::SystemEntropy;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{
    AccountRecord, Credentials, DeviceRecord, Directory, IdentityRecord, Profile, Unreadable,
};
use relay_core::relay::{Action, ConnectionId, Relay, RelayConfig, ShardId};
use relay_core::security::ClientCredentials;
use relay_core::sstp::Command;
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use relay_core::store::{LogEntry, Position};
use relay_core::time::Timestamp;
use serde::Serialize;
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// What does the relay's own work on a message cost, without kernel and disk?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Brain {
    /// Only this case
    #[arg(long)]
    pub(crate) only: Option<Case>,
    /// Senders, each with a recipient of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pairs: u32,
    /// Recipients of a fanout message
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) recipients: u32,
    /// Payload bytes of a message
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=65536))]
    pub(crate) payload: u32,
    /// Messages in one read
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) batch: u32,
    /// Turns of one round: every sender is read once in each
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) turns: u32,
    /// Rounds; the median is reported, and how far they spread
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
}

/// What the messages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// From each sender to one recipient, who is connected
    Online,
    /// From one sender to many recipients, who are connected
    Fanout,
    /// From each sender to one recipient, who is not
    Durable,
}

/// What one case costs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    nanoseconds_each: f64,
    range: (f64, f64),
    per_second: f64,
}

/// Runs it.
///
/// # Errors
/// [`Failure`] if the relay refuses a handshake.
pub(crate) fn run(options: &Brain) -> Result<Report, Failure> {
    let mut report = Report::new("brain");
    report.setting("pairs", options.pairs);
    report.setting("recipients", options.recipients);
    report.setting("payload", options.payload);
    report.setting("batch", options.batch);
    report.setting("turns", options.turns);
    report.setting("rounds", options.rounds);
    let pairs: Vec<_> = (0..options.pairs).map(|pair| vec![pair]).collect();
    let one = vec![(0..options.recipients).collect()];
    let cases = [
        ("online", Case::Online, &pairs),
        ("fanout", Case::Fanout, &one),
        ("durable", Case::Durable, &pairs),
    ];
    for (name, case, groups) in cases {
        if options.only.is_some_and(|only| only != case) {
            continue;
        }
        let cost = measure(options, groups, case != Case::Durable)?;
        report.line(format!(
            "{name}: {:.0} ns of a message ({:.0} to {:.0}), {:.2} million a second on one core",
            cost.nanoseconds_each,
            cost.range.0,
            cost.range.1,
            cost.per_second / 1e6,
        ));
        report.result(name, cost);
    }
    report.line(
        "an online or fanout message counts when it is delivered, a durable one when it is acknowledged",
    );
    Ok(report)
}

fn measure(options: &Brain, groups: &[Vec<u32>], online: bool) -> Result<Cost, Failure> {
    let mut costs = Vec::new();
    for _ in 0..options.rounds {
        // Stored mail stays, so that every round needs a relay of its own.
        let mut subject = Subject::new(options, groups, online)?;
        subject.turn();
        let start = clock::now();
        let messages: u64 = (0..options.turns).map(|_| subject.turn()).sum();
        costs.push((clock::now() - start) as f64 / messages as f64);
    }
    let range = (costs.iter().copied().fold(f64::MAX, f64::min), costs.iter().copied().fold(0.0, f64::max));
    let nanoseconds_each = median(costs);
    Ok(Cost { nanoseconds_each, range, per_second: 1e9 / nanoseconds_each })
}

/// A relay with everybody connected.
struct Subject {
    relay: Relay,
    senders: Vec<(ConnectionId, Bytes)>,
    /// With the acknowledgement of what one turn brings.
    recipients: Vec<(ConnectionId, Bytes)>,
    batch: Vec<LogEntry>,
    positions: Vec<Position>,
    touched: Vec<ConnectionId>,
    messages: u64,
}

impl Subject {
    /// One sender for each of `groups`, whose members are its recipients.
    fn new(options: &Brain, groups: &[Vec<u32>], online: bool) -> Result<Self, Failure> {
        let keys = Arc::new(make_keys(Profile::Modern));
        let url = Text::new(RELAY_URL.as_bytes()).expect("a URL is text");
        let connection = ConnectionConfig::new(Endpoint::Relay, vec![url], Text::EMPTY);
        let config = RelayConfig { quota_per_identity: 1 << 50, ..RelayConfig::new(Arc::new(connection), 1) };
        let users = Box::new(Everybody(keys.as_registered()));
        let entropy = Box::new(SystemEntropy::default());
        let mut relay = Relay::new(ShardId(0), Arc::new(config), users, entropy, NOW, 1);
        let mut recipients = Vec::new();
        let mut acknowledgement = BytesMut::new();
        Command::Noop { message_count: options.batch }.encode(&mut acknowledgement);
        let acknowledgement = acknowledgement.freeze();
        let mut clients = Vec::new();
        for number in groups.iter().flatten().filter(|_| online) {
            let mut client = Client::connect(&mut relay, *number, &keys, true, Recipients::Nobody)?;
            recipients.push((client.id, acknowledgement.clone()));
            client.talk(&mut relay)?;
            clients.push(client);
        }
        let mut senders = Vec::new();
        let first = options.pairs.max(options.recipients);
        for (number, group) in (first..).zip(groups) {
            let recipients = match &group[..] {
                [one] => Recipients::One(User::new(*one)),
                many => Recipients::Many(many.iter().copied().map(User::new).collect()),
            };
            let mut client = Client::connect(&mut relay, number, &keys, false, recipients)?;
            let mut read = Vec::new();
            for _ in 0..options.batch {
                client.wire.put(&vec![7; options.payload as usize], false, &mut read);
            }
            // The first message has the recipients' sessions opened.
            relay.received(NOW, client.id, Bytes::from(read.clone()));
            senders.push((client.id, BytesMut::from(&read[..]).freeze()));
        }
        for client in &mut clients {
            client.talk(&mut relay)?;
            client.talk(&mut relay)?;
        }
        let count = if online { recipients.len() } else { senders.len() };
        Ok(Self {
            relay,
            senders,
            recipients,
            batch: Vec::new(),
            positions: Vec::new(),
            touched: Vec::new(),
            messages: count as u64 * u64::from(options.batch),
        })
    }

    /// Every sender is read once, everything goes where it must; the number of messages.
    #[inline(never)]
    fn turn(&mut self) -> u64 {
        for (id, read) in &self.senders {
            self.relay.received(NOW, *id, read.clone());
        }
        for (id, acknowledgement) in &self.recipients {
            drain(&mut self.relay, *id);
            self.relay.received(NOW, *id, acknowledgement.clone());
        }
        self.relay.take_batch(u64::MAX, &mut self.batch);
        if !self.batch.is_empty() {
            let parts = self.batch.iter().filter(|entry| matches!(entry, LogEntry::Part { .. }));
            self.positions.extend(parts.map(|_| Position { segment: 1, offset: 4096, length: 200 }));
            self.batch.clear();
            self.relay.appended(NOW, &self.positions);
            self.positions.clear();
        }
        for (id, _) in &self.senders {
            drain(&mut self.relay, *id);
        }
        self.relay.take_touched(&mut self.touched);
        self.touched.clear();
        while let Some(action) = self.relay.next_action() {
            debug_assert!(!matches!(action, Action::Ended { .. }));
        }
        self.messages
    }
}

/// Sends what a connection's output holds into nowhere.
fn drain(relay: &mut Relay, id: ConnectionId) {
    let output = relay.prepare_output(NOW, id).expect("the connection lives");
    let length = output.len();
    output.advance(length);
    relay.sent(NOW, id);
}

/// A client of which only the handshake is needed.
struct Client {
    id: ConnectionId,
    wire: SstpWire,
}

impl Client {
    fn connect(
        relay: &mut Relay,
        number: u32,
        keys: &Arc<ClientCredentials>,
        collects: bool,
        recipients: Recipients,
    ) -> Result<Self, Failure> {
        let role = Role { user: User::new(number), keys: keys.clone(), collects, recipients };
        let mut client = Self { id: relay.connected(NOW, None, None), wire: SstpWire::new(role) };
        let mut out = Vec::new();
        client.wire.greet(&mut out);
        relay.received(NOW, client.id, Bytes::from(out));
        while !client.wire.is_ready() {
            client.talk(relay)?;
        }
        client.talk(relay)?;
        Ok(client)
    }

    /// Reads what the relay has said, and answers.
    fn talk(&mut self, relay: &mut Relay) -> Result<(), Failure> {
        let said = relay.prepare_output(NOW, self.id).map(|output| output.take()).unwrap_or_default();
        let mut answer = Vec::new();
        self.wire.take(&said, &mut answer, &mut Deaf).map_err(|error| Failure::Wrong(error.to_string()))?;
        relay.received(NOW, self.id, Bytes::from(answer));
        Ok(())
    }
}

/// Every user there could be, all with the same keys.
struct Everybody(Credentials);

impl Directory for Everybody {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        Ok(number_of(url.as_str()).map(|number| DeviceRecord {
            credentials: Some(self.0.clone()),
            accounts: vec![User::new(number).account],
            locked_out: false,
        }))
    }

    fn account(&self, _: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        Ok(Some(AccountRecord { credentials: Some(self.0.clone()), ..AccountRecord::default() }))
    }

    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        Ok(number_of(url.as_str()).map(|number| IdentityRecord::of(User::new(number).account)))
    }
}

fn number_of(url: &str) -> Option<u32> {
    url.trim_end_matches('@').rsplit('/').next()?.parse().ok()
}
