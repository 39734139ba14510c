//! A management server beside the schedule: it locks accounts out and lets them in, deletes their mail, changes quotas, and makes a
//! relay quiescent, one request after the other as a relay takes them. Its dice are its own, so that the schedules
//! without it stay what they are.

use crate::dice::Dice;
use crate::world::World;
use relay_core::relay::home::home;
use relay_core::relay::mesh::Target;
use relay_core::relay::{Order, Receipt, ShardId};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How long a shard may take to complete what it has received before it sends everybody away.
const GRACE: u64 = 5000;

/// What a request is about: an account by its number, or a relay by its own.
#[derive(Clone, Copy, Debug)]
enum Request {
    Disable(usize),
    Enable(usize),
    Purge(usize),
    /// For an identity of an account.
    Quota(usize, usize, Option<u64>),
    Quiesce(usize),
    Resume(usize),
}

/// What goes to a shard's driver.
struct Letter {
    home: ShardId,
    order: Order,
    receipt: Receipt,
}

pub(crate) struct Management {
    dice: Dice,
    /// Requests in a thousand steps.
    rate: u64,
    /// Nothing goes wrong any more: what it did is undone.
    mending: bool,
    /// The request that is not answered yet.
    under_way: Option<(Request, Receipt)>,
    /// For each shard of all relays.
    letters: Vec<VecDeque<Letter>>,
    /// Shards on their way to being quiescent.
    resting: BTreeMap<usize, Timestamp>,
    quiescent: BTreeSet<usize>,
    disabled: BTreeSet<usize>,
    quotas: BTreeSet<(usize, usize)>,
}

impl Management {
    pub(crate) fn new(seed: u64, shards: usize) -> Self {
        let mut dice = Dice::new(!seed);
        let rate = dice.pick(&[5, 30, 200]);
        Self {
            dice,
            rate,
            mending: false,
            under_way: None,
            letters: (0..shards).map(|_| VecDeque::new()).collect(),
            resting: BTreeMap::new(),
            quiescent: BTreeSet::new(),
            disabled: BTreeSet::new(),
            quotas: BTreeSet::new(),
        }
    }

    fn draw(&mut self, accounts: &[usize], identities: usize, relays: usize) -> Option<Request> {
        if self.mending {
            return self.next_to_mend();
        }
        if !self.dice.chance(self.rate) || accounts.is_empty() {
            return None;
        }
        let (account, relay) = (self.dice.pick(accounts), self.dice.below(relays));
        Some(match self.dice.below(10) {
            0..4 if self.disabled.contains(&account) => Request::Enable(account),
            0..4 => Request::Disable(account),
            4..6 => Request::Purge(account),
            6..8 => {
                let bytes = self.dice.pick(&[None, Some(0), Some(3000), Some(50_000)]);
                Request::Quota(account, self.dice.below(identities), bytes)
            }
            _ if self.quiescent.contains(&relay) => Request::Resume(relay),
            _ => Request::Quiesce(relay),
        })
    }

    fn next_to_mend(&self) -> Option<Request> {
        let resume = self.quiescent.first().map(|&relay| Request::Resume(relay));
        let enable = || self.disabled.first().map(|&account| Request::Enable(account));
        let quota =
            || self.quotas.first().map(|&(account, identity)| Request::Quota(account, identity, None));
        resume.or_else(enable).or_else(quota)
    }

    /// Nothing is under way, and nothing is left of what was done.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.under_way.is_none() && !self.mending
    }
}

impl World {
    /// Asks for something, or sees how far the relay is with it.
    pub(crate) fn manage(&mut self) {
        let Some(mut management) = self.management.take() else { return };
        self.rest_on(&mut management);
        let obeyed = |(_, receipt): &mut (Request, Receipt)| Arc::strong_count(receipt) == 1;
        if let Some((request, _)) = management.under_way.take_if(obeyed) {
            self.answered(&mut management, request);
        }
        if management.under_way.is_none() {
            let accounts = self.accounts_of_known_devices();
            let (identities, relays) = (self.scenario.identities, self.scenario.relays.len());
            match management.draw(&accounts, identities, relays) {
                Some(request) => self.ask(&mut management, request),
                None if management.mending => {
                    // Device-targeted mail comes from the next Connect on.
                    management.mending = false;
                    self.all_connect_anew();
                }
                None => {}
            }
        }
        self.management = Some(management);
    }

    /// From now on the management server undoes what it did.
    pub(crate) fn mend_management(&mut self) {
        if let Some(management) = &mut self.management {
            (management.mending, management.rate) = (true, 0);
        }
    }

    fn ask(&mut self, management: &mut Management, request: Request) {
        let receipt: Receipt = Arc::new(());
        let targets = |account: usize| -> Arc<[Target]> {
            let data = &self.people.accounts[account];
            let devices = data.devices.iter().map(|&device| &self.people.devices[device].url);
            let devices = devices.map(|device| Target::Device(data.url.clone(), device.clone()));
            [Target::Account(data.url.clone())].into_iter().chain(devices).collect()
        };
        let order = match request {
            Request::Disable(account) => {
                self.people.lock_out(account, true);
                management.disabled.insert(account);
                Some((account, Order::LockOut(targets(account))))
            }
            Request::Enable(account) => {
                self.people.lock_out(account, false);
                management.disabled.remove(&account);
                self.model.let_in(&self.people.accounts[account].url);
                None
            }
            Request::Purge(account) => {
                self.model.purge(&self.people.accounts[account].url);
                Some((account, Order::Purge(targets(account))))
            }
            Request::Quota(account, identity, bytes) => {
                let url = &self.people.accounts[account].identities[identity];
                self.people.set_quota(url, bytes);
                if bytes.is_some() {
                    self.model.own_quota(url);
                }
                management.quotas.insert((account, identity));
                Some((account, Order::Quota([(url.clone(), bytes)].into())))
            }
            Request::Quiesce(relay) => {
                management.quiescent.insert(relay);
                for shard in self.shards_of(relay) {
                    self.shards[shard].relay.drain(self.now);
                    management.resting.insert(shard, self.now);
                }
                None
            }
            Request::Resume(relay) => {
                management.quiescent.remove(&relay);
                for shard in self.shards_of(relay) {
                    self.shards[shard].relay.resume(self.now);
                }
                None
            }
        };
        if let Some((account, order)) = order {
            let home = home(&self.people.accounts[account].url, self.scenario.shards);
            for shard in self.shards_of(account % self.scenario.relays.len()) {
                let (order, receipt) = (order.clone(), receipt.clone());
                management.letters[shard].push_back(Letter { home, order, receipt });
            }
        }
        management.under_way = Some((request, receipt));
    }

    fn answered(&mut self, management: &mut Management, request: Request) {
        match request {
            Request::Disable(account) => self.model.locked_out(&self.people.accounts[account].url),
            Request::Purge(account) => self.model.purged(&self.people.accounts[account].url),
            Request::Quota(account, identity, None) => {
                management.quotas.remove(&(account, identity));
                self.model.no_own_quota(&self.people.accounts[account].identities[identity]);
            }
            Request::Quota(..) | Request::Enable(_) | Request::Quiesce(_) | Request::Resume(_) => {}
        }
        // A relay that is becoming quiescent answers when it is.
        if let (Request::Quiesce(_), false) = (request, management.resting.is_empty()) {
            management.under_way = Some((request, Arc::new(())));
        }
    }

    /// Shards that have completed what they had received, or could not in time, send everybody away.
    fn rest_on(&mut self, management: &mut Management) {
        let now = self.now;
        management.resting.retain(|&shard, since| {
            let relay = &mut self.shards[shard].relay;
            let quiet = relay.is_settled() && relay.unanswered() == 0;
            let over = quiet || now.since(*since).as_millis() as u64 > GRACE;
            if over {
                relay.close_all(now);
            }
            !over
        });
    }

    /// Letters that have reached a shard's driver.
    pub(crate) fn read_letters(&mut self, shard: usize) {
        let Some(management) = &mut self.management else { return };
        for Letter { home, order, receipt } in management.letters[shard].drain(..) {
            self.shards[shard].relay.order(self.now, home, order, receipt);
        }
    }

    /// The relays begin anew, active; what they had not answered may have been done in part.
    pub(crate) fn forget_requests(&mut self) {
        let Some(management) = &mut self.management else { return };
        management.letters.iter_mut().for_each(VecDeque::clear);
        management.resting.clear();
        management.quiescent.clear();
        match management.under_way.take() {
            Some((Request::Purge(account), _)) => self.model.purged(&self.people.accounts[account].url),
            Some((Request::Disable(account), _)) => self.model.locked_out(&self.people.accounts[account].url),
            _ => {}
        }
    }

    fn shards_of(&self, relay: usize) -> std::ops::Range<usize> {
        let shards = usize::from(self.scenario.shards);
        relay * shards..(relay + 1) * shards
    }

    /// Who has yet to register is not in the directory.
    fn accounts_of_known_devices(&self) -> Vec<usize> {
        let is_known = |account: &usize| {
            !self
                .scenario
                .strangers
                .iter()
                .any(|&device| self.people.devices[device].accounts.contains(account))
        };
        (0..self.people.accounts.len()).filter(is_known).collect()
    }
}
