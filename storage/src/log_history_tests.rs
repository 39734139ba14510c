//! Random histories of a log on a real disk against a model: whatever happened, a reopened log holds exactly the messages
//! that were confirmed and not deleted. Crashes are for `crash_tests`.

use super::log_model::{Model, Step, step};
use super::tests::{options, run};
use super::*;
use futures_lite::future::zip;
use proptest::prelude::*;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 32 * 1024;

async fn live_through(directory: &TempDir, steps: &[Step]) {
    let open = || MailboxLog::open(options(directory.path(), SEGMENT_BYTES));
    let mut model = Model::default();
    let (mut log, _) = open().await.unwrap();
    for step in steps {
        match step {
            Step::Append(actions) => {
                let entries = model.entries(actions);
                let positions = log.append(&entries).await.unwrap();
                model.confirm(&entries, positions);
            }
            Step::AppendAndMaintain(actions) => {
                let entries = model.entries(actions);
                let (appended, maintained) = zip(log.append(&entries), log.maintain()).await;
                maintained.unwrap();
                model.confirm(&entries, appended.unwrap());
            }
            Step::Maintain => {
                while log.wants_maintenance() {
                    log.maintain().await.unwrap();
                }
                model.check_parts(&log).await;
            }
            Step::Reopen => {
                log.close().await.unwrap();
                model.restart();
                let (reopened, replay) = open().await.unwrap();
                log = reopened;
                model.check(&log, &replay).await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_log_holds_what_was_confirmed_and_not_deleted(steps in prop::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let steps: Vec<_> = steps.into_iter().chain([Step::Maintain, Step::Reopen, Step::Reopen]).collect();
        run(async { live_through(&directory, &steps).await });
    }
}
