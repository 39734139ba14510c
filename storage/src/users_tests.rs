//! Tests of the user database on real files.

use super::*;
use relay_core::directory::{Credentials, Profile, SecretKey};

fn device_url() -> DeviceUrl {
    DeviceUrl::new("dpp://device").unwrap()
}

fn account_url() -> AccountUrl {
    AccountUrl::new("account://a").unwrap()
}

fn identity_url() -> IdentityUrl {
    IdentityUrl::new("identity://i").unwrap()
}

fn credentials() -> Option<Credentials> {
    Some(Credentials {
        profile: Profile::Modern,
        secret: SecretKey::new(vec![7; 32]),
        public_keys: vec![8; 32],
    })
}

fn device() -> DeviceRecord {
    DeviceRecord { credentials: credentials(), accounts: vec![account_url()], locked_out: true }
}

fn account() -> AccountRecord {
    AccountRecord {
        credentials: credentials(),
        identities: vec![identity_url()],
        devices: vec![device_url()],
        pre_auth_token: Some(SecretKey::new(b"token".to_vec())),
        locked_out: false,
    }
}

fn identity() -> IdentityRecord {
    IdentityRecord { quota_bytes: Some(1 << 40), ..IdentityRecord::of(account_url()) }
}

fn fill(users: &UserDatabase) {
    let changes = [
        DirectoryChange::Device(device_url(), Some(device())),
        DirectoryChange::Account(account_url(), Some(account())),
        DirectoryChange::Identity(identity_url(), Some(identity())),
    ];
    users.apply(&changes).unwrap();
}

#[test]
fn a_shard_may_share_it_with_other_threads() {
    fn shared<T: Clone + Send + Sync>() {}
    shared::<UserDatabase>();
}

#[test]
fn records_survive_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    fill(&UserDatabase::open(directory.path()).unwrap());
    let users = UserDatabase::open(directory.path()).unwrap();
    assert_eq!(users.device(&device_url()), Ok(Some(device())));
    assert_eq!(users.account(&account_url()), Ok(Some(account())));
    assert_eq!(users.identity(&identity_url()), Ok(Some(identity())));
    assert_eq!(
        users.counts(),
        UserCounts { devices: 1, accounts: 1, identities: 1, ..UserCounts::default() }
    );
    assert_eq!(users.devices().next().unwrap().unwrap(), (device_url(), device()));
    assert_eq!(users.accounts().next().unwrap().unwrap(), (account_url(), account()));
    assert_eq!(users.identities().next().unwrap().unwrap(), (identity_url(), identity()));
}

#[test]
fn a_removed_record_is_gone_and_later_changes_of_a_batch_win() {
    let directory = tempfile::tempdir().unwrap();
    let users = UserDatabase::open(directory.path()).unwrap();
    fill(&users);
    let changes = [
        DirectoryChange::Account(account_url(), None),
        DirectoryChange::Device(device_url(), None),
        DirectoryChange::Device(device_url(), Some(DeviceRecord::default())),
    ];
    users.apply(&changes).unwrap();
    drop(users);
    let users = UserDatabase::open(directory.path()).unwrap();
    assert_eq!(users.account(&account_url()), Ok(None));
    assert_eq!(users.device(&device_url()), Ok(Some(DeviceRecord::default())));
    assert_eq!(users.identity(&identity_url()), Ok(Some(identity())));
}

#[test]
fn changes_that_are_decided_at_once_on_several_threads_do_not_overwrite_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let users = UserDatabase::open(directory.path()).unwrap();
    let join = |number: usize| {
        let decide = |users: &UserDatabase| {
            let mut record = users.device(&device_url()).unwrap().unwrap_or_default();
            std::thread::sleep(std::time::Duration::from_millis(2));
            record.accounts.push(AccountUrl::new(format!("account://{number}")).unwrap());
            (vec![DirectoryChange::Device(device_url(), Some(record))], number)
        };
        assert_eq!(users.update(decide).unwrap(), number);
    };
    std::thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || join(number)))));
    assert_eq!(users.device(&device_url()).unwrap().unwrap().accounts.len(), 8);
}

#[test]
fn a_missing_record_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let users = UserDatabase::open(directory.path()).unwrap();
    assert_eq!(users.device(&device_url()), Ok(None));
    assert_eq!(users.read_device(&device_url()).unwrap(), None);
    assert_eq!(users.counts(), UserCounts::default());
}

#[test]
fn a_damaged_record_is_an_error_for_tools_and_missing_for_the_relay() {
    let directory = tempfile::tempdir().unwrap();
    let users = UserDatabase::open(directory.path()).unwrap();
    fill(&users);
    for tree in [&users.devices, &users.accounts, &users.identities] {
        let key = tree.first().unwrap().unwrap().0;
        tree.insert(key, &b"\x01 spoilt"[..]).unwrap();
    }
    assert_eq!(users.device(&device_url()), Ok(None));
    assert_eq!(users.account(&account_url()), Ok(None));
    assert_eq!(users.identity(&identity_url()), Ok(None));
    let faults = [
        users.read_device(&device_url()).unwrap_err(),
        users.accounts().next().unwrap().unwrap_err(),
        users.identities().next().unwrap().unwrap_err(),
    ];
    for fault in faults {
        assert!(matches!(fault, StorageError::UserRecordDamaged { .. }), "{fault}");
    }
}

#[test]
fn a_second_opener_is_told_that_the_database_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _first = UserDatabase::open(directory.path()).unwrap();
    let second = UserDatabase::open(directory.path()).unwrap_err();
    assert!(matches!(second, StorageError::UsersLocked { .. }), "{second}");
}

#[test]
fn when_devices_were_last_seen_survives_a_reopen_and_goes_with_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let users = UserDatabase::open(directory.path()).unwrap();
    assert_eq!(users.last_seen(&device_url()), Ok(None), "nothing was ever noted");
    fill(&users);
    users.begin_noting_seen(1000).unwrap();
    users.begin_noting_seen(2000).unwrap();
    assert_eq!(users.last_seen(&device_url()), Ok(Some(1000)), "at the latest before noting began");
    users.note_seen([&device_url()], 3000).unwrap();
    users.flush().unwrap();
    drop(users);
    let users = UserDatabase::open(directory.path()).unwrap();
    assert_eq!(users.last_seen(&device_url()), Ok(Some(3000)));
    assert_eq!(users.device(&device_url()), Ok(Some(device())), "the record is as it was");
    users.apply(&[DirectoryChange::Device(device_url(), None)]).unwrap();
    assert_eq!(users.last_seen(&device_url()), Ok(Some(1000)));
}

#[test]
fn a_record_that_the_disk_does_not_give_is_unreadable_and_not_missing() {
    let directory = tempfile::tempdir().unwrap();
    fill(&UserDatabase::open(directory.path()).unwrap());
    let users = UserDatabase::open(directory.path()).unwrap();
    // The pages of the records are read when they are asked for; by then the file has lost them.
    std::fs::OpenOptions::new().write(true).open(directory.path().join("db")).unwrap().set_len(0).unwrap();
    assert_eq!(users.device(&device_url()), Err(Unreadable));
    assert_eq!(users.account(&account_url()), Err(Unreadable));
    assert_eq!(users.identity(&identity_url()), Err(Unreadable));
}
