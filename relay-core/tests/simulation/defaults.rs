//! RelayDefault beside the schedule: in some schedules with a management server the relays' default quota and lifetime change, one
//! request of a relay after the other, and all shards of the relay hear of each when they next look. As in the user database, a
//! request is written down before any shard hears of it. The dice are its own, so that the schedules without it stay
//! what they are.

use crate::dice::Dice;
use crate::scenario::Scenario;
use crate::world::World;
use relay_core::relay::RelayConfig;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What a request sets; `None` leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) quota: Option<u64>,
    pub(crate) lifetime: Option<Duration>,
}

impl Change {
    fn all_of(config: &RelayConfig) -> Self {
        Self { quota: Some(config.quota_per_identity), lifetime: Some(config.lifetime) }
    }
}

pub(crate) struct Defaults {
    dice: Dice,
    /// Requests in a thousand steps.
    rate: u64,
    /// The relays are to be given what they began with.
    mending: bool,
    /// For each relay what it began with.
    first: Vec<Change>,
    /// For each relay the request that is not answered yet.
    under_way: Vec<Option<Change>>,
    /// For each shard of all relays what it has yet to hear.
    letters: Vec<Option<Change>>,
    /// Relays that have other defaults than at first.
    changed: BTreeSet<usize>,
}

impl Defaults {
    /// For half of the schedules; the others keep their defaults.
    pub(crate) fn new(seed: u64, scenario: &Scenario) -> Option<Self> {
        let mut dice = Dice::new(seed ^ 0x7265_6c61_7964_6566);
        let relays = &scenario.relays;
        dice.chance(500).then(|| Self {
            rate: dice.pick(&[10, 40, 150]),
            dice,
            mending: false,
            first: relays.iter().map(|config| Change::all_of(config)).collect(),
            under_way: vec![None; relays.len()],
            letters: vec![None; relays.len() * usize::from(scenario.shards)],
            changed: BTreeSet::new(),
        })
    }

    /// What is asked of which relay next.
    fn draw(&mut self) -> Option<(usize, Change)> {
        if self.mending {
            let relay = self.changed.iter().copied().find(|&relay| self.under_way[relay].is_none())?;
            return Some((relay, self.first[relay]));
        }
        // Most messages are sent early, so the first request comes at once.
        if !self.changed.is_empty() && !self.dice.chance(self.rate) {
            return None;
        }
        let relay = self.dice.below(self.first.len());
        let quota = self.dice.pick(&[None, Some(0), Some(600), Some(3000), Some(10_000), Some(1 << 30)]);
        let lifetime = self.dice.pick(&[None, Some(1), Some(3), Some(30 * 86_400)]).map(Duration::from_secs);
        let says_something = quota.is_some() || lifetime.is_some();
        (says_something && self.under_way[relay].is_none()).then_some((relay, Change { quota, lifetime }))
    }

    /// All relays have what they began with.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.changed.is_empty()
    }
}

impl World {
    /// Asks for other defaults, or sees how far the relays are with them.
    pub(crate) fn change_defaults(&mut self) {
        let Some(mut defaults) = self.defaults.take() else { return };
        let shards = usize::from(self.scenario.shards);
        for relay in 0..defaults.under_way.len() {
            let nobody_waits = defaults.letters[relay * shards..][..shards].iter().all(Option::is_none);
            if nobody_waits && let Some(change) = defaults.under_way[relay].take() {
                self.defaults_obeyed(&mut defaults, relay, change);
            }
        }
        if let Some((relay, change)) = defaults.draw() {
            self.model.defaults_asked(relay, change);
            let written = Arc::make_mut(&mut self.scenario.relays[relay]);
            written.quota_per_identity = change.quota.unwrap_or(written.quota_per_identity);
            written.lifetime = change.lifetime.unwrap_or(written.lifetime);
            defaults.changed.insert(relay);
            defaults.under_way[relay] = Some(change);
            defaults.letters[relay * shards..][..shards].fill(Some(change));
        }
        self.defaults = Some(defaults);
    }

    fn defaults_obeyed(&mut self, defaults: &mut Defaults, relay: usize, change: Change) {
        self.model.defaults_obeyed(relay, change);
        if defaults.mending {
            let Change { quota, lifetime } = Change::all_of(&self.scenario.relays[relay]);
            let first = defaults.first[relay];
            if (quota, lifetime) == (first.quota, first.lifetime) {
                defaults.changed.remove(&relay);
            }
        }
    }

    /// A shard hears of other defaults.
    pub(crate) fn hear_defaults(&mut self, shard: usize) {
        let Some(defaults) = &mut self.defaults else { return };
        if let Some(Change { quota, lifetime }) = defaults.letters[shard].take() {
            self.shards[shard].relay.set_defaults(quota, lifetime);
        }
    }

    /// From now on the relays are given what they began with.
    pub(crate) fn mend_defaults(&mut self) {
        if let Some(defaults) = &mut self.defaults {
            defaults.mending = true;
        }
    }

    /// The relays begin anew, with the defaults that are written down: nothing is left to be heard.
    pub(crate) fn forget_defaults(&mut self) {
        if let Some(defaults) = &mut self.defaults {
            defaults.letters.fill(None);
        }
    }
}
