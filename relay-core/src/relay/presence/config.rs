//! What an operator can set of presence.

use crate::presence::profile;
use std::time::Duration;

/// The limits and rules of presence on one shard; the same for all shards of a relay.
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// Whether the relay has the presence resource at all; without it an Open of it is answered with NoResource.
    pub enabled: bool,
    /// How long the changes for a subscriber are gathered before they are told.
    pub window: Duration,
    /// How long a device whose last publishing session was lost is still shown as it was.
    pub offline_damping: Duration,
    /// Subscriptions of one connection. A device above it is answered with *unknown* and not subscribed to.
    pub max_subscriptions_per_connection: usize,
    /// Subscribers of one device among the connections of one shard. One above it is answered with *unknown* and not
    /// subscribed.
    pub max_subscribers_per_device: usize,
}

impl Default for PresenceConfig {
    /// The documented defaults.
    fn default() -> Self {
        Self {
            enabled: true,
            window: profile::WINDOW,
            offline_damping: profile::OFFLINE_DAMPING,
            max_subscriptions_per_connection: profile::SUBSCRIPTIONS_PER_CONNECTION,
            max_subscribers_per_device: profile::SUBSCRIBERS_PER_DEVICE,
        }
    }
}
