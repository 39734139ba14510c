//! The relays that this one knows: whom it may call, and how both sides prove themselves. Fixed for the life of the process.

use crate::address::{AccountUrl, DeviceUrl};
use crate::directory::{Credentials, DeviceRecord, Profile};
use crate::relay::home::{self, ShardId};
use crate::security::PeerSecrets;
use std::sync::Arc;

/// Another relay, as the configuration has it.
#[derive(Clone, Debug)]
pub struct PeerRelay {
    /// Its first device URL: the target of our Connect, and the first SourceDeviceURL of its own.
    pub url: DeviceUrl,
    /// Where it listens, `HOST:PORT`, to be tried in this order; for the driver.
    pub addresses: Arc<[String]>,
    /// What both sides prove.
    pub secrets: PeerSecrets,
}

/// Names a relay of [`RelayConfig::peers`](crate::relay::RelayConfig::peers) by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteRelay(pub u16);

impl PeerRelay {
    /// The shard that holds the link to it, whichever side calls: the fixed hash of accounts, over the relay's URL.
    pub fn home(&self, shards: u16) -> ShardId {
        home::home(&self.account(), shards)
    }

    /// The record under which its calls are judged: to each other relays are devices (see [`PeerSecrets`]).
    pub(in crate::relay) fn record(&self) -> DeviceRecord {
        let credentials = Credentials {
            profile: Profile::Modern,
            secret: self.secrets.called.clone(),
            public_keys: Vec::new(),
        };
        DeviceRecord { credentials: Some(credentials), accounts: vec![self.account()], locked_out: false }
    }

    /// A device needs an account, which decides its home; this one has no record and is never attached.
    fn account(&self) -> AccountUrl {
        AccountUrl::new(self.url.as_bytes()).expect("all kinds of URL obey the same rule")
    }
}
