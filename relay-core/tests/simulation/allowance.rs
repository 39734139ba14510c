//! What the relays' defaults allow: how much mail may wait for an identity, and for how long a message is kept whose sender does not
//! say. While a relay has not answered that it has other defaults, some of its shards may have the old ones and some
//! the new.
//!
//! What is checked of quotas is mail for identities without a quota of their own, from senders at the same relay.

use crate::defaults::Change;
use crate::model::{Message, MessageNumber, Model, Moment};
use relay_core::address::{IdentityUrl, MailboxAddress};
use relay_core::relay::RelayConfig;
use relay_core::sstp::profile::flags;
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// No schedule lasts so long.
const DAY: Duration = Duration::from_secs(86_400);

/// The defaults of one relay.
struct Allowance {
    /// The most that some shard may have, and since when.
    quota: u64,
    quota_since: Moment,
    /// The least that some shard ever had.
    least_quota: u64,
    /// What all shards have, and since when; `None` while they may differ.
    lifetime: Option<Duration>,
    lifetime_since: Moment,
    /// When some shard last may have had a lifetime that ends within a schedule; `MAX` if one may have it now.
    short_until: Moment,
}

impl Allowance {
    fn new(config: &RelayConfig) -> Self {
        Self {
            quota: config.quota_per_identity,
            quota_since: 0,
            least_quota: config.quota_per_identity,
            lifetime: Some(config.lifetime),
            lifetime_since: 0,
            short_until: 0,
        }
    }
}

pub(crate) struct Allowances {
    relays: Vec<Allowance>,
    /// Streams all of whose recipients are at the relay of their sender, with that relay.
    local_streams: BTreeMap<usize, usize>,
    /// Who gets mail over a link, which may bring it twice.
    from_elsewhere: HashSet<IdentityUrl>,
    /// Who has or had a quota of their own, and until when.
    own_quotas: HashMap<IdentityUrl, Moment>,
    /// Bytes sent to identities, every time that a message was.
    sent: HashMap<IdentityUrl, u64>,
}

impl Allowances {
    pub(crate) fn new<'a>(relays: impl Iterator<Item = &'a RelayConfig>) -> Self {
        Self {
            relays: relays.map(Allowance::new).collect(),
            local_streams: BTreeMap::new(),
            from_elsewhere: HashSet::new(),
            own_quotas: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// There is a stream, and all its recipients are at this relay, its sender's own.
    pub(crate) fn local_stream(&mut self, stream: usize, relay: usize) {
        self.local_streams.insert(stream, relay);
    }

    /// There is a stream with recipients at another relay than its sender's.
    pub(crate) fn crossing_stream(&mut self, recipients: &[MailboxAddress]) {
        self.from_elsewhere.extend(recipients.iter().map(|recipient| recipient.identity.clone()));
    }

    /// A message is sent, for the first time or again.
    pub(crate) fn sent(&mut self, recipients: &[MailboxAddress], bytes: usize) {
        for recipient in recipients.iter().filter(|recipient| recipient.device.is_none()) {
            *self.sent.entry(recipient.identity.clone()).or_insert(0) += bytes as u64;
        }
    }

    fn of(&self, message: &Message) -> Option<&Allowance> {
        self.local_streams.get(&message.stream).map(|&relay| &self.relays[relay])
    }

    /// Whether copies of a message that were made since this moment may be gone because a default was short.
    pub(crate) fn may_expire(&self, message: &Message, since: Moment) -> bool {
        message.lifetime.is_none() && self.relays.iter().any(|relay| since <= relay.short_until)
    }

    /// From when on nobody who connects may get a message that is just being acknowledged. Only what was sent once is known to
    /// have been deposited by now, and under which default.
    pub(crate) fn gone_by(&self, message: &Message, now: Timestamp) -> Option<u64> {
        let allowance = self.of(message).filter(|_| message.first_sent == message.last_sent)?;
        let default = allowance.lifetime.filter(|_| allowance.lifetime_since < message.first_sent);
        let said = message.lifetime.map(|seconds| Duration::from_secs(seconds.into()));
        Some(now.as_secs() + said.or(default)?.as_secs())
    }
}

impl Model {
    /// A relay is about to hear of other defaults.
    pub(crate) fn defaults_asked(&mut self, relay: usize, change: Change) {
        let allowance = &mut self.allowances.relays[relay];
        if let Some(quota) = change.quota {
            allowance.quota = allowance.quota.max(quota);
            allowance.least_quota = allowance.least_quota.min(quota);
        }
        if let Some(lifetime) = change.lifetime {
            allowance.lifetime = None;
            if lifetime < DAY {
                allowance.short_until = Moment::MAX;
            }
        }
    }

    /// All shards of a relay have other defaults: they hold for what is sent from now on.
    pub(crate) fn defaults_obeyed(&mut self, relay: usize, change: Change) {
        let now = self.next_moment();
        let allowance = &mut self.allowances.relays[relay];
        if let Some(quota) = change.quota {
            (allowance.quota, allowance.quota_since) = (quota, now);
        }
        if let Some(lifetime) = change.lifetime {
            (allowance.lifetime, allowance.lifetime_since) = (Some(lifetime), now);
            if lifetime >= DAY {
                allowance.short_until = allowance.short_until.min(now);
            }
        }
    }

    /// An identity is about to have a quota of its own.
    pub(crate) fn own_quota(&mut self, identity: &IdentityUrl) {
        self.allowances.own_quotas.insert(identity.clone(), Moment::MAX);
    }

    /// An identity has the default again.
    pub(crate) fn no_own_quota(&mut self, identity: &IdentityUrl) {
        let now = self.next_moment();
        if let Some(until) = self.allowances.own_quotas.get_mut(identity) {
            *until = now;
        }
    }

    /// A message was acknowledged: it, and what certainly waits for the same identities since before it was sent, must fit.
    pub(crate) fn check_quotas(&self, number: MessageNumber, faulted: &BTreeSet<usize>) {
        let message = &self.messages[number];
        // What nobody is online for is acknowledged, and not kept.
        let Some(allowance) = self.allowances.of(message).filter(|_| message.flags & flags::D == 0) else {
            return;
        };
        if message.last_sent <= allowance.quota_since {
            return;
        }
        for place in (0..message.recipients.len()).filter(|place| !faulted.contains(place)) {
            let MailboxAddress { identity, device, .. } = &message.recipients[place];
            let own = self.allowances.own_quotas.get(identity);
            if device.is_some() || own.is_some_and(|&until| until >= message.last_sent) {
                continue;
            }
            let waiting = self.certainly_waiting(identity, message.last_sent);
            assert!(
                waiting + message.bytes as u64 <= allowance.quota,
                "message {number} of {} bytes was acknowledged for {identity:?} beside {waiting}, over the quota of {}",
                message.bytes,
                allowance.quota
            );
        }
    }

    /// Bytes that were acknowledged for an identity before a moment, and have not been seen since.
    fn certainly_waiting(&self, identity: &IdentityUrl, before: Moment) -> u64 {
        let waits = |message: &&Message| {
            let is_kept = !message.droppable && self.allowances.of(message).is_some();
            is_kept
                && message.promised.iter().any(|(&place, promise)| {
                    let mailbox = &message.recipients[place];
                    (&mailbox.identity, &mailbox.device) == (identity, &None)
                        && promise.made < before
                        && !promise.may_expire
                        && !self.may_be_purged(mailbox, promise.sent)
                        && !message.delivered.contains_key(mailbox)
                })
        };
        self.messages.iter().filter(waits).map(|message| message.bytes as u64).sum()
    }

    /// A relay refused a message since the recipient's quota would be exceeded: so much must have been sent to it.
    pub(crate) fn refused_for_quota(&self, stream: usize, recipient: &MailboxAddress) {
        let identity = &recipient.identity;
        let allowances = &self.allowances;
        let Some(relay) = allowances.local_streams.get(&stream) else { return };
        if recipient.device.is_some()
            || allowances.own_quotas.contains_key(identity)
            || allowances.from_elsewhere.contains(identity)
        {
            return;
        }
        let sent = allowances.sent.get(identity).copied().unwrap_or(0);
        let least = allowances.relays[*relay].least_quota;
        assert!(
            sent > least,
            "mail for {identity:?} was refused over quota: {sent} bytes sent, quota {least}"
        );
    }
}
