//! The mailbox log's side of a shard: batches go out, parts are read back, segments are looked after.

use super::Worker;
use crate::events;
use glommio::spawn_local;
use glommio::timer::sleep;
use relay_core::relay::ReadToken;
use relay_core::store::{LogEntry, Position};
use std::rc::Rc;
use std::time::{Duration, Instant};
use storage::StorageError;

/// How long to wait before a failed batch is written again.
const APPEND_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a read that the disk refused is tried again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often the log is asked whether its segments want looking after.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) async fn append_batches(self: Rc<Self>) {
        let mut batch: Vec<LogEntry> = Vec::new();
        loop {
            self.append.wait().await;
            if self.disk_full.get() {
                self.relay.borrow_mut().take_deletions(&mut batch);
            } else {
                self.relay.borrow_mut().take_batch(self.options.batch_bytes, &mut batch);
            }
            if batch.is_empty() {
                continue;
            }
            let began = Instant::now();
            match self.log.append(&batch).await {
                Ok(positions) => {
                    self.meter.committed(batch.len(), began.elapsed());
                    batch.clear();
                    self.relay.borrow_mut().appended(self.now(), &positions);
                }
                Err(error @ StorageError::NoSpace { .. }) if !self.disk_full.get() => {
                    self.relay.borrow_mut().append_failed(self.now(), std::mem::take(&mut batch));
                    self.wait_for_space(&error);
                }
                Err(error) => {
                    tracing::error!(event = events::APPEND_FAILED, shard = self.options.shard.0, %error, "mail could not be stored; trying again");
                    self.meter.commit_failed();
                    self.relay.borrow_mut().append_failed(self.now(), std::mem::take(&mut batch));
                    sleep(APPEND_AGAIN).await;
                }
            }
            self.after_input();
        }
    }

    pub(super) async fn read_part(self: Rc<Self>, token: ReadToken, position: Position) {
        let payload = loop {
            match self.log.read(position).await {
                Ok(payload) => break Some(payload),
                // A disk that refuses may come to itself; the message is lost only when its bytes are wrong.
                Err(error @ StorageError::Io { .. }) if self.relay.borrow().wants_read_done(token) => {
                    tracing::error!(event = events::READ_AGAIN, shard = self.options.shard.0, ?position, %error, "stored mail is read again");
                    sleep(READ_AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(event = events::READ_FAILED, shard = self.options.shard.0, ?position, %error, "stored mail could not be read");
                    break None;
                }
            }
        };
        self.relay.borrow_mut().read_done(self.now(), token, payload);
        self.after_input();
    }

    /// For a while only deletions are written, which make room; then mail is tried again.
    pub(super) fn wait_for_space(self: &Rc<Self>, error: &StorageError) {
        tracing::error!(event = events::DISK_FULL, shard = self.options.shard.0, %error, "the disk is full: mail waits with its senders, delivery goes on");
        self.disk_full.set(true);
        self.append.raise();
        let this = self.clone();
        spawn_local(async move {
            sleep(APPEND_AGAIN).await;
            this.disk_full.set(false);
            this.append.raise();
        })
        .detach();
    }

    pub(super) async fn maintain_log(self: Rc<Self>) {
        loop {
            sleep(MAINTAIN_EVERY).await;
            while self.log.wants_maintenance() {
                if let Err(error) = self.log.maintain().await {
                    tracing::warn!(event = events::MAINTENANCE_FAILED, shard = self.options.shard.0, %error, "the log could not be maintained");
                    break;
                }
            }
        }
    }
}
