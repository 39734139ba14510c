//! What a seed decides before its schedule begins: the people, the limits, and what goes wrong how often.

use crate::client::Habits;
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::links::{self, LinkFaults};
use crate::network::WireFaults;
use relay_core::relay::RelayConfig;
use relay_core::sstp::Version;
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use std::sync::Arc;
use std::time::Duration;

/// The URLs of the relays.
pub(crate) const RELAYS: [&str; 2] = ["dpp://relay", "dpp://relay/two"];

/// Faults of the whole, each in a thousand at every step.
#[derive(Clone, Copy, Default)]
pub(crate) struct WorldFaults {
    pub(crate) wire_cut: u64,
    pub(crate) shard_stop: u64,
    pub(crate) crash: u64,
    pub(crate) restart: u64,
    pub(crate) goes_offline: u64,
}

pub(crate) struct Scenario {
    /// Shards of each relay.
    pub(crate) shards: u16,
    /// Identities of each account.
    pub(crate) identities: usize,
    /// For each device its accounts.
    pub(crate) devices: Vec<Vec<usize>>,
    /// Devices that must register first.
    pub(crate) strangers: Vec<usize>,
    pub(crate) steps: usize,
    pub(crate) messages: usize,
    pub(crate) largest_message: usize,
    /// Messages without payload, in a thousand.
    pub(crate) empty_messages: u64,
    /// One relay, or two that know each other.
    pub(crate) relays: Vec<Arc<RelayConfig>>,
    pub(crate) client_version: Version,
    pub(crate) client_acknowledge_delay: Duration,
    /// Payload bytes that a client leaves unacknowledged on one session.
    pub(crate) client_window: usize,
    pub(crate) mesh_capacity: usize,
    pub(crate) append_delay: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) read_bytes: usize,
    pub(crate) calm: bool,
    pub(crate) world: WorldFaults,
    pub(crate) link: LinkFaults,
    pub(crate) disk: DiskFaults,
    pub(crate) wire: WireFaults,
    pub(crate) habits: Habits,
}

impl Scenario {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let calm = dice.chance(150);
        let relays = if dice.chance(400) { 2 } else { 1 };
        let shards =
            if relays == 1 { dice.pick(&[1, 1, 2, 2, 3, 4, 5, 8]) } else { dice.pick(&[1, 1, 2, 3]) };
        let accounts = dice.between(2, 5) as usize;
        let mut devices: Vec<Vec<usize>> = (0..accounts).map(|account| vec![account]).collect();
        for _ in 0..dice.below(3) {
            devices.push(vec![dice.below(accounts)]);
        }
        for device in &mut devices {
            let other = dice.below(accounts);
            let neighbours = device[0] % relays == other % relays;
            if dice.chance(250) && neighbours && !device.contains(&other) {
                device.push(other);
            }
        }
        let strangers = if dice.chance(200) { Self::loner(&devices) } else { Vec::new() };
        let small_quota = !calm && dice.chance(200);
        let largest_message = if small_quota { 4000 } else { dice.pick(&[500, 5000, 400_000]) };
        let relays = (0..relays).map(|relay| Self::relay(relay, relays, shards, small_quota, dice)).collect();
        let maybe = |dice: &mut Dice, most: u64| {
            if calm || dice.chance(400) { 0 } else { dice.between(1, most) }
        };
        Self {
            shards,
            identities: dice.between(1, 2) as usize,
            devices,
            strangers,
            relays,
            steps: dice.between(100, 700) as usize,
            messages: dice.between(10, 150) as usize,
            largest_message,
            empty_messages: dice.pick(&[50, 50, 1000]),
            client_version: dice.pick(&[Version::V1_5, Version::V1_6]),
            client_acknowledge_delay: Duration::from_millis(dice.pick(&[50, 500, 5000])),
            // Above the quota, a client would send the same messages in vain again and again.
            client_window: if small_quota { 6000 } else { dice.pick(&[20_000, usize::MAX]) },
            mesh_capacity: dice.pick(&[1, 4, 64, 4096]),
            append_delay: dice.pick(&[1, 20, 300]),
            batch_bytes: dice.pick(&[1, 5000, 1 << 20]),
            read_bytes: dice.pick(&[100, 4096, 65536]),
            calm,
            world: WorldFaults {
                wire_cut: maybe(dice, 30),
                shard_stop: maybe(dice, 20),
                crash: maybe(dice, 8),
                restart: maybe(dice, 5),
                goes_offline: maybe(dice, 20),
            },
            link: LinkFaults { cut: maybe(dice, 50), unanswered: maybe(dice, 500) },
            disk: DiskFaults { append_fails: maybe(dice, 300), part_goes_bad: maybe(dice, 100) / 2 },
            wire: WireFaults {
                piece: dice.pick(&[7, 1000, 70_000]),
                delay: dice.pick(&[0, 10, 200]),
                buffer: dice.pick(&[1000, 20_000, 300_000]),
            },
            habits: Habits {
                refuses: maybe(dice, 200),
                closes: maybe(dice, 100),
                stops: maybe(dice, 200),
                dawdles: maybe(dice, 500),
                hoards: maybe(dice, 20),
            },
        }
    }

    /// A device with one account that no other device has.
    fn loner(devices: &[Vec<usize>]) -> Vec<usize> {
        let is_alone = |&n: &usize| {
            devices[n].len() == 1
                && devices.iter().filter(|accounts| accounts.contains(&devices[n][0])).count() == 1
        };
        (0..devices.len()).find(is_alone).into_iter().collect()
    }

    fn relay(
        relay: usize,
        relays: usize,
        shards: u16,
        small_quota: bool,
        dice: &mut Dice,
    ) -> Arc<RelayConfig> {
        let urls = vec![Text::new(RELAYS[relay]).unwrap()];
        let mut connection = ConnectionConfig::new(Endpoint::Relay, urls, Text::EMPTY);
        connection.acknowledge_delay = Duration::from_millis(dice.pick(&[50, 500, 5000]));
        connection.version = dice.pick(&[Version::V1_5, Version::V1_6]);
        connection.max_held_bytes = dice.pick(&[3000, 1 << 20]);
        let peers = (1..relays).map(|_| links::peer(relay)).collect();
        let mut relay = RelayConfig::new(Arc::new(connection), shards);
        relay.peers = peers;
        relay.connection_in_flight_bytes = dice.pick(&[1, 10_000, 1 << 20]);
        relay.shard_in_flight_bytes = dice.pick(&[2000, 100_000, 64 << 20]);
        relay.connection_output_bytes = dice.pick(&[1, 3000, 256 << 10]);
        relay.shard_output_bytes = dice.pick(&[1, 5000, 256 << 20]);
        relay.commit_delay = Duration::from_millis(dice.pick(&[0, 5, 200]));
        relay.mesh_queue_items = dice.pick(&[1, 20, 4096]);
        if small_quota {
            relay.quota_per_device = 20_000;
            relay.quota_per_identity = 20_000;
        }
        Arc::new(relay)
    }

    pub(crate) fn client_config(&self, device: Text) -> Arc<ConnectionConfig> {
        let mut config = ConnectionConfig::new(Endpoint::Client, vec![device], Text::EMPTY);
        config.version = self.client_version;
        config.acknowledge_delay = self.client_acknowledge_delay;
        Arc::new(config)
    }
}
