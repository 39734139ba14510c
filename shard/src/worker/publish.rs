//! What a shard counts beside its relay's own counters, and writing all of it on the board, a few times a second.

use super::Worker;
use crate::board::Shown;
use crate::histogram::{BATCH, COMMIT, COMPLETION, Recorder};
use relay_core::relay::Latencies;
use relay_core::sstp::output::OutputQueue;
use relay_core::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tuning::operator::ShardCounters;

/// How often the board is written at most; the time task runs a little more often than that.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// Counters of the runtime around the relay.
pub(super) struct Meter {
    sent_bytes: Cell<u64>,
    log_failures: Cell<u64>,
    commit: RefCell<Recorder>,
    batch: RefCell<Recorder>,
    completion: RefCell<Recorder>,
    /// What `completion` has of the relay's own counts.
    completed: Cell<Latencies>,
    write_at: Cell<Timestamp>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            sent_bytes: Cell::default(),
            log_failures: Cell::default(),
            commit: RefCell::new(Recorder::new(&COMMIT)),
            batch: RefCell::new(Recorder::new(&BATCH)),
            completion: RefCell::new(Recorder::new(&COMPLETION)),
            completed: Cell::default(),
            write_at: Cell::default(),
        }
    }
}

impl Meter {
    /// Sends output, and counts what has gone.
    pub(super) fn sending<T>(&self, output: &mut OutputQueue, send: impl FnOnce(&mut OutputQueue) -> T) -> T {
        let before = output.len();
        let sent = send(output);
        self.sent_bytes.set(self.sent_bytes.get() + (before - output.len()) as u64);
        sent
    }

    /// A batch of so many records has become durable.
    pub(super) fn committed(&self, records: usize, took: Duration) {
        self.commit.borrow_mut().record(took.as_micros() as u64, 1);
        self.batch.borrow_mut().record(records as u64, 1);
    }

    /// A batch could not be made durable.
    pub(super) fn commit_failed(&self) {
        self.log_failures.set(self.log_failures.get() + 1);
    }
}

impl Worker {
    /// Writes the board, if it is time.
    pub(crate) fn publish(&self) {
        let now = self.now();
        if now < self.meter.write_at.get() {
            return;
        }
        self.meter.write_at.set(now + WRITE_EVERY);
        self.options.board.write(self.options.shard, &self.shown());
    }

    /// What there is to show now.
    pub(super) fn shown(&self) -> Shown {
        let (now, meter) = (self.now(), &self.meter);
        self.record_completions();
        let distributions =
            [&meter.commit, &meter.batch, &meter.completion].map(|recorder| recorder.borrow_mut().read(now));
        Shown { counters: self.counters(), distributions, at: now }
    }

    fn record_completions(&self) {
        let latest = self.relay.borrow().stats().completion;
        let before = self.meter.completed.replace(latest);
        let mut recorder = self.meter.completion.borrow_mut();
        for ((bound_ms, count), (_, before)) in latest.counts().zip(before.counts()) {
            if count > before {
                recorder.record(bound_ms * 1000, count - before);
            }
        }
    }

    fn counters(&self) -> ShardCounters {
        let (relay, log) = (self.relay.borrow(), self.log.stats());
        let (has, did) = (relay.snapshot(), relay.stats());
        ShardCounters {
            connections: has.connections as u64,
            half_open: has.half_open as u64,
            devices: has.devices as u64,
            connections_accepted: did.connections,
            connections_handed_over: did.handed_off,
            refused_turned_away: did.turned_away,
            refused_pushed_out: did.pushed_out,
            refused_put_off: did.put_off,
            refused_newcomers: did.refused_newcomers,
            authenticated_devices: did.authenticated,
            authenticated_accounts: did.attached,
            security_failures: did.security_failures,
            registrations_accepted: did.registered,
            registrations_busy: did.busy,
            received_bytes: did.received_bytes,
            sent_bytes: self.meter.sent_bytes.get(),
            deposited: did.deposits,
            completed: did.completed,
            delivered: did.delivered,
            expired: did.expired,
            dropped_abandoned: did.purged,
            dropped_by_order: did.deleted_by_order,
            unreadable: did.unreadable,
            over_quota: did.faults,
            refused_deposits: did.refused_deposits,
            deposited_bytes: did.deposited_bytes,
            delivered_bytes: did.delivered_bytes,
            sender_stops: did.stops,
            messages: has.messages as u64,
            mailboxes: has.mailboxes as u64,
            incomplete: has.incomplete as u64,
            in_flight_bytes: has.in_flight_bytes,
            delivery_sessions: has.outlets as u64,
            log_queue: has.log_queue as u64,
            parts_stored: did.stored_parts,
            parts_cancelled: did.cancelled,
            log_batches: log.batches,
            log_records: log.records,
            log_written_bytes: log.bytes_written,
            log_syncs: log.syncs,
            log_failures: self.meter.log_failures.get(),
            log_emptied_segments: log.emptied_segments,
            log_segments: log.segments,
            log_free_segments: log.free_segments,
            log_live_bytes: log.live_bytes,
            log_dead_bytes: log.dead_bytes,
            taking_connections: u64::from(has.intake.newcomers),
            taking_deposits: u64::from(has.intake.deposits),
            draining: u64::from(has.draining),
        }
    }
}
