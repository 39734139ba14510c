//! Who there is: accounts with their identities, devices with their accounts, everybody's keys, and the directory in
//! memory that all shards share.

use crate::dice::Dice;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::directory::{
    AccountRecord, DeviceRecord, Directory, DirectoryChange, IdentityRecord, Profile, Unreadable,
};
use relay_core::security::ClientCredentials;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

pub(crate) struct Account {
    pub(crate) url: AccountUrl,
    pub(crate) identities: Vec<IdentityUrl>,
    pub(crate) keys: ClientCredentials,
    /// Positions in [`Population::devices`].
    pub(crate) devices: Vec<usize>,
}

pub(crate) struct Device {
    pub(crate) url: DeviceUrl,
    pub(crate) keys: ClientCredentials,
    /// Positions in [`Population::accounts`]; the first decides the home.
    pub(crate) accounts: Vec<usize>,
}

pub(crate) struct Population {
    pub(crate) accounts: Vec<Account>,
    pub(crate) devices: Vec<Device>,
    pub(crate) directory: SharedDirectory,
    /// Accounts that were locked out at some time.
    locked_out: RefCell<HashSet<AccountUrl>>,
}

impl Population {
    /// So many accounts with so many identities each, and devices with the accounts that are listed for them; nobody is
    /// in the directory.
    pub(crate) fn new(accounts: usize, identities: usize, devices: &[Vec<usize>], dice: &mut Dice) -> Self {
        let account = |n: usize, dice: &mut Dice| Account {
            url: AccountUrl::new(format!("grooveAccount://{n}x{}@", dice.below(1000))).unwrap(),
            identities: (0..identities)
                .map(|m| IdentityUrl::new(format!("grooveIdentity://{n}.{m}@")).unwrap())
                .collect(),
            keys: ClientCredentials::generate(Profile::Modern, dice),
            devices: (0..devices.len()).filter(|&device| devices[device].contains(&n)).collect(),
        };
        let accounts = (0..accounts).map(|n| account(n, dice)).collect();
        let device = |(n, accounts): (usize, &Vec<usize>)| Device {
            url: DeviceUrl::new(format!("dpp://sim/{n}")).unwrap(),
            keys: ClientCredentials::generate(Profile::Modern, dice),
            accounts: accounts.clone(),
        };
        let devices = devices.iter().enumerate().map(device).collect();
        Self { accounts, devices, directory: SharedDirectory::default(), locked_out: RefCell::default() }
    }

    /// Registers everybody but the devices of `strangers`, whose accounts must be theirs alone.
    pub(crate) fn register_all_but(&self, strangers: &[usize]) {
        let mut records = self.directory.0.borrow_mut();
        for (n, device) in self.devices.iter().enumerate().filter(|(n, _)| !strangers.contains(n)) {
            let record = DeviceRecord {
                credentials: Some(device.keys.as_registered()),
                accounts: device.accounts.iter().map(|&account| self.accounts[account].url.clone()).collect(),
                locked_out: false,
            };
            records.devices.insert(device.url.clone(), record);
            for account in device.accounts.iter().map(|&account| &self.accounts[account]) {
                let entry = records.accounts.entry(account.url.clone()).or_insert_with(|| AccountRecord {
                    credentials: Some(account.keys.as_registered()),
                    identities: account.identities.clone(),
                    ..AccountRecord::default()
                });
                entry.devices.push(self.devices[n].url.clone());
                for identity in &account.identities {
                    let record = IdentityRecord::of(account.url.clone());
                    records.identities.insert(identity.clone(), record);
                }
            }
        }
    }

    /// Locks an account out, or lets it in again: its record only.
    pub(crate) fn lock_out(&self, account: usize, locked_out: bool) {
        let url = &self.accounts[account].url;
        let mut records = self.directory.0.borrow_mut();
        records.accounts.get_mut(url).expect("it is registered").locked_out = locked_out;
        self.locked_out.borrow_mut().insert(url.clone());
    }

    /// Whether an account is locked out.
    pub(crate) fn is_locked_out(&self, account: usize) -> bool {
        let records = self.directory.0.borrow();
        records.accounts.get(&self.accounts[account].url).is_some_and(|record| record.locked_out)
    }

    /// Whether it was at some time.
    pub(crate) fn was_locked_out(&self, account: &AccountUrl) -> bool {
        self.locked_out.borrow().contains(account)
    }

    /// Sets the quota of an identity: its record only.
    pub(crate) fn set_quota(&self, identity: &IdentityUrl, bytes: Option<u64>) {
        let mut records = self.directory.0.borrow_mut();
        records.identities.get_mut(identity).expect("it is registered").quota_bytes = bytes;
    }

    /// The mailbox of an account's identity, on one device or on none.
    pub(crate) fn mailbox(
        &self,
        account: usize,
        identity: usize,
        device: Option<usize>,
        resource: &ResourceUrl,
    ) -> MailboxAddress {
        MailboxAddress {
            account: self.accounts[account].url.clone(),
            identity: self.accounts[account].identities[identity].clone(),
            device: device.map(|device| self.devices[device].url.clone()),
            resource: resource.clone(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Records {
    pub(crate) devices: HashMap<DeviceUrl, DeviceRecord>,
    pub(crate) accounts: HashMap<AccountUrl, AccountRecord>,
    pub(crate) identities: HashMap<IdentityUrl, IdentityRecord>,
    /// When devices were last seen, in seconds.
    pub(crate) seen: HashMap<DeviceUrl, u64>,
    /// Nothing can be read now.
    pub(crate) unreadable: bool,
}

impl Records {
    /// Makes a change as the user database would.
    pub(crate) fn apply(&mut self, change: DirectoryChange) {
        fn set<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        match change {
            DirectoryChange::Device(url, record) => set(&mut self.devices, url, record),
            DirectoryChange::Account(url, record) => set(&mut self.accounts, url, record),
            DirectoryChange::Identity(url, record) => set(&mut self.identities, url, record),
        }
    }
}

/// The directory as every shard sees it.
#[derive(Clone, Default)]
pub(crate) struct SharedDirectory(pub(crate) Rc<RefCell<Records>>);

impl SharedDirectory {
    fn read<T>(&self, find: impl FnOnce(&Records) -> Option<T>) -> Result<Option<T>, Unreadable> {
        let records = self.0.borrow();
        if records.unreadable { Err(Unreadable) } else { Ok(find(&records)) }
    }
}

impl Directory for SharedDirectory {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        self.read(|records| records.devices.get(url).cloned())
    }

    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        self.read(|records| records.accounts.get(url).cloned())
    }

    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        self.read(|records| records.identities.get(url).cloned())
    }

    fn last_seen(&self, url: &DeviceUrl) -> Result<Option<u64>, Unreadable> {
        self.read(|records| records.seen.get(url).copied())
    }
}
