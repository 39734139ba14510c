//! Tests of restoring: into any number of shards, again and again, and from a backup with damage.

use super::*;
use crate::rehome::tests::{Mail, fill, names, open, read, run};
use crate::{UserDatabase, copy_log, log_directory};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

const BOTH: [Family; 2] = [Family::Identity, Family::Device];
/// All mail of the tests expires later.
const NOW: u64 = 5;

struct Scene {
    folder: TempDir,
    mail: Mail,
}

impl Scene {
    /// A backup of a relay with so many shards, and the users of another relay.
    fn new(shards: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("old");
        let mail = fill(&data, shards);
        for shard in 0..shards {
            let to = log_directory(&folder.path().join("backup"), shard);
            copy_log(&log_directory(&data, shard), &to, &BOTH, |_| {}).unwrap();
        }
        Self { folder, mail }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn restore(&self, into: &str, families: &[Family], now: u64) -> (RestoreCounts, Vec<Replay>) {
        let backup = BackupLogs::open(&self.path("backup")).unwrap();
        let users = UserDatabase::open(self.path("users")).unwrap();
        let mut relay = StoppedRelay::open(&self.path(into), &backup, users.restored_mail().clone()).unwrap();
        let mut told = (0, 0);
        let restored = backup.restore(families, now, &mut relay, |done, total| told = (done, total)).unwrap();
        assert_eq!(told.0, told.1, "the bar comes to its end");
        relay.close().unwrap();
        restored
    }
}

/// What each account has, whatever its order among families.
fn sorted(mut mail: Mail) -> Mail {
    mail.values_mut().for_each(|payloads| payloads.sort());
    mail
}

#[test]
fn a_backup_is_restored_into_any_number_of_shards_and_only_once() {
    for (from, to) in [(2, 3), (3, 2), (1, 4), (2, 2)] {
        let scene = Scene::new(from);
        for shard in 0..to {
            run(async { open(&scene.path("new"), shard, to).await.0.close().await.unwrap() });
        }
        let (first, _) = scene.restore("new", &BOTH, NOW);
        assert!(first.messages > 0 && first.bytes > 0, "{first:?}");
        assert_eq!((first.present, first.expired, first.unreadable), (0, 0, 0));
        assert_eq!(sorted(read(&scene.path("new"), to)), sorted(scene.mail.clone()), "{from} to {to}");
        let (second, _) = scene.restore("new", &BOTH, NOW);
        assert_eq!((second.messages, second.present), (0, first.messages), "{from} to {to}");
        assert_eq!(sorted(read(&scene.path("new"), to)), sorted(scene.mail), "{from} to {to}");
    }
}

#[test]
fn an_empty_folder_becomes_a_relay_like_that_of_the_backup() {
    let scene = Scene::new(2);
    scene.restore("new", &BOTH, NOW);
    assert_eq!(names(&scene.path("new")), ["shard-0000", "shard-0001"]);
    assert_eq!(sorted(read(&scene.path("new"), 2)), sorted(scene.mail));
}

#[test]
fn what_the_relay_still_has_is_passed_over_and_what_it_has_lost_comes_back() {
    let scene = Scene::new(2);
    let (whole, _) = scene.restore("old", &BOTH, NOW);
    assert_eq!(whole.messages, 0);
    assert_eq!(read(&scene.path("old"), 2), scene.mail);
    std::fs::remove_dir_all(log_directory(&scene.path("old"), 1)).unwrap();
    let (counts, _) = scene.restore("old", &BOTH, NOW);
    assert!(counts.messages > 0 && counts.present > 0, "{counts:?}");
    assert_eq!(sorted(read(&scene.path("old"), 2)), sorted(scene.mail));
}

#[test]
fn families_are_restored_apart_and_mail_whose_time_is_over_is_not() {
    let scene = Scene::new(2);
    let (identity, _) = scene.restore("new", &[Family::Identity], NOW);
    let (device, _) = scene.restore("new", &[Family::Device], NOW);
    assert!(identity.messages > 0 && device.messages > 0);
    assert_eq!(sorted(read(&scene.path("new"), 2)), sorted(scene.mail.clone()));
    let (none, _) = scene.restore("other", &BOTH, 2_000_000);
    assert_eq!((none.messages, none.expired), (0, identity.messages + device.messages));
}

#[test]
fn a_message_with_damage_in_the_backup_is_left_out_and_told_and_all_others_come() {
    let scene = Scene::new(1);
    let folder = log_directory(&scene.path("backup"), 0);
    let backup = OfflineLog::open(&folder).unwrap();
    let replay = backup.replay(|_| {}).unwrap();
    let victim = replay.messages.iter().find(|message| message.parts.len() == 3).unwrap();
    let (at, _) = victim.parts[1];
    let name = names(&folder).into_iter().find(|name| name.contains(&format!("-{:010}.", at.segment)));
    let file = std::fs::File::options().write(true).open(folder.join(name.unwrap())).unwrap();
    file.write_all_at(b"?", u64::from(at.offset + at.length) - 9).unwrap();
    let (counts, found) = scene.restore("new", &BOTH, NOW);
    assert_eq!(counts.messages + 1, replay.messages.len() as u64);
    assert_eq!(found[0].report.lost.len(), 1, "the replay of the backup names it");
    let restored = sorted(read(&scene.path("new"), 1));
    let count = |mail: &Mail| mail.values().map(Vec::len).sum::<usize>();
    assert_eq!(count(&restored) + victim.pending.len(), count(&scene.mail));
}

/// Fails when the message with this number comes to its end, or at some commit.
struct Failing<'a> {
    inner: &'a mut StoppedRelay,
    commits: u32,
}

impl RestoreInto for Failing<'_> {
    type Error = StorageError;

    fn shards(&self) -> u16 {
        self.inner.shards()
    }

    fn has(&mut self, log: u64, id: RecordId) -> Result<bool, StorageError> {
        self.inner.has(log, id)
    }

    fn take(&mut self, shard: ShardId, part: RedepositPart) -> Result<(), StorageError> {
        self.inner.take(shard, part)
    }

    fn give_up(&mut self, number: u64) -> Result<(), StorageError> {
        self.inner.give_up(number)
    }

    fn commit(&mut self, restored: &[(u64, RecordId)]) -> Result<(), StorageError> {
        self.commits = self.commits.checked_sub(1).ok_or(StorageError::SegmentSize(0))?;
        self.inner.commit(restored)
    }
}

#[test]
fn a_restore_that_was_interrupted_goes_on_where_it_was() {
    let scene = Scene::new(2);
    let backup = BackupLogs::open(&scene.path("backup")).unwrap();
    let users = UserDatabase::open(scene.path("users")).unwrap();
    let restored = users.restored_mail().clone();
    for commits in [0, 1, 2, 3] {
        let mut relay = StoppedRelay::open(&scene.path("new"), &backup, restored.clone()).unwrap();
        let outcome = backup.restore(&BOTH, NOW, &mut Failing { inner: &mut relay, commits }, |_, _| {});
        relay.close().unwrap();
        if outcome.is_ok() {
            break;
        }
    }
    drop((users, restored));
    scene.restore("new", &BOTH, NOW);
    assert_eq!(sorted(read(&scene.path("new"), 2)), sorted(scene.mail));
}
