//! Everything that the relay says in its log: the number of each event, in the ranges of relay-product-operations sec. 8, so that
//! runbooks can name it. `relayd events` prints the table; `systemd/RUNBOOK.md` holds it.
//!
//! Numbers are never used again for something else.

use std::fmt::Write;

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It needs a person.
    Error,
    /// It may need one.
    Warn,
    /// Starts, stops and changes.
    Info,
    /// For who looks for something.
    Debug,
}

/// One thing that the log can say.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its number: the field `event`, or `FURROW_EVENT` in the journal.
    pub number: u16,
    /// The name of its constant.
    pub name: &'static str,
    /// How loud it is.
    pub severity: Severity,
    /// What the line says.
    pub message: &'static str,
    /// What it means and what to do.
    pub advice: &'static str,
}

macro_rules! events {
    ($( $name:ident = $number:expr, $severity:ident, $message:literal, $advice:literal; )+) => {
        $(
            #[doc = concat!("\"", $message, "\". ", $advice)]
            pub const $name: u16 = $number;
        )+

        /// All events, by number.
        pub const EVENTS: &[Event] = &[$(Event {
            number: $name,
            name: stringify!($name),
            severity: Severity::$severity,
            message: $message,
            advice: $advice,
        }),+];
    };
}

events! {
    RELAY_SERVES = 110, Info, "relay serves",
        "The start is over: every shard has its mail and listens.";
    MAIL_RESTORED = 111, Info, "mail restored",
        "A shard has read its log. `messages` wait for their recipients.";
    SHARDS_CHANGED = 112, Info, "the number of shards has changed: stored mail moves to its new homes",
        "The start takes as long as copying the mail, and twice its room on the disk meanwhile.";
    SHARDS_SHARE_PROCESSORS = 113, Warn, "shards share processors: set shards.pin = false, or fewer of them",
        "More pinned shards than processors wait for each other.";
    NOBODY_LISTENS = 114, Warn, "the configuration names an address that the socket unit does not have; nobody listens there",
        "The service manager's sockets stand in for `key`. Give furrow-relayd.socket the address, or take it out of the configuration.";
    RESTORE_BEGUN = 115, Info, "a backup is taken in",
        "An operator restores a backup while the relay runs.";
    RESTORED = 116, Info, "a backup was taken in",
        "`messages` came back; `present` were there already, `expired` were too old, `unreadable` could not be read.";
    NOT_RESTORED = 117, Error, "a backup was not taken in to its end",
        "`error` says why. What was taken in stays, and is passed over when the backup is restored again.";
    HUGE_PAGES_STAY = 118, Warn, "transparent huge pages could not be turned off",
        "The kernel refused with `error`. The relay takes more memory, and growing may stop a shard for some milliseconds.";
    STOPPING = 120, Info, "stopping",
        "A signal asked the relay to end. It completes what it has, tells its peers when to return, and ends.";
    SHARD_STOPPED = 121, Info, "shard stopped",
        "With `connections` above 0, peers did not go in time; see `timers.shutdown_grace`.";
    LOG_SUPPRESSED = 190, Warn, "messages were suppressed",
        "The event `suppressed_event` came so often that `count` lines were left out. Look at the lines that were not.";

    LOG_DAMAGED = 3001, Error, "the log is damaged",
        "Records could not be read when the shard started; everything else was restored. No more messages are lost than \
         `damaged_records` and what `missing_segments` held. Look at the disk (SMART, kernel log); keep a copy of the data folder \
         before you repair anything with `relayctl store rebuild`.";
    APPEND_FAILED = 3002, Error, "mail could not be stored; trying again",
        "Nothing in it was acknowledged, so nothing is lost. `error` says why: most often the disk is full or broken.";
    READ_FAILED = 3003, Error, "stored mail could not be read",
        "The message leaves its mailboxes: see 3010. Look at the disk.";
    MAINTENANCE_FAILED = 3004, Warn, "the log could not be maintained",
        "Space is not given back for now; it is tried again. If it goes on, look at the disk's room and health.";
    REGISTRATION_NOT_STORED = 3005, Error, "a registration could not be stored",
        "The user was told InternalError and will try again. Look at the disk.";
    SEGMENT_MISSING = 3006, Error, "a segment file is gone, and all mail in it: restore it from a backup",
        "Somebody or something removed a file of the data folder: find out what.";
    STRETCH_DAMAGED = 3007, Error, "a stretch of the log cannot be read",
        "`records` records were there. Those that can be told follow as 3008.";
    MESSAGE_LOST = 3008, Error, "a stored message is lost",
        "Its `mailboxes` will not get it, and its sender believes that they will. Tell them, or restore a backup.";
    DISK_FULL = 3009, Error, "the disk is full: mail waits with its senders, delivery goes on",
        "Make room. Mail is tried again every second; what is collected makes room too.";
    MESSAGE_UNREADABLE = 3010, Error, "a stored message is lost: it cannot be read back",
        "As 3008; the damage came after the start.";
    READ_AGAIN = 3011, Error, "stored mail is read again",
        "The disk refused the read; it is tried every second. Look at the disk.";
    SEEN_NOT_WRITTEN = 3012, Warn, "it could not be written down which devices were there",
        "They are seen again tomorrow. A device that is never seen for mail.abandoned_after loses its mail: look at the disk.";
    SEGMENT_LEFT_BEHIND = storage::events::SEGMENT_LEFT_BEHIND, Warn, "an unfinished segment file stays behind",
        "Remove the file `path` when the relay is stopped.";
    USER_RECORD_DAMAGED = storage::events::USER_RECORD_DAMAGED, Warn, "a record of the user database counts as missing",
        "Its user has to register anew: `relayctl devices clear-keys`. Look at the disk.";
    SEGMENT_HEADER_DAMAGED = storage::events::SEGMENT_HEADER_DAMAGED, Warn,
        "a segment header is damaged; its records are read all the same",
        "Nothing is lost by it. Look at the disk.";
    MANIFEST_REBUILT = storage::events::MANIFEST_REBUILT, Warn,
        "the manifest is missing and was rebuilt from a segment",
        "Nothing is lost by it. Somebody or something removed a file of the data folder: find out what.";
    SEGMENTS_NOT_GIVEN_UP = storage::events::SEGMENTS_NOT_GIVEN_UP, Warn,
        "segments that nothing needs could not be given up",
        "As 3004.";
    SEGMENT_NOT_REMOVED = storage::events::SEGMENT_NOT_REMOVED, Warn,
        "a segment file that nothing needs could not be removed",
        "It takes room until the next start. Look at the permissions of the data folder.";
    REHOMING_FINISHED = storage::events::REHOMING_FINISHED, Info, "re-homing, which had been interrupted, is finished",
        "Nothing is lost by it.";
    REHOMED = storage::events::REHOMED, Info, "stored mail has new homes",
        "The number of shards has changed. `unreadable` messages above 0 are in a log that was kept: see 3112.";
    REHOMED_LOG_DAMAGED = storage::events::REHOMED_LOG_DAMAGED, Error, "the log that is re-homed is damaged",
        "As 3001. What could not be read stays in the old log, which is kept: see 3112.";
    REHOMING = storage::events::REHOMING, Info, "re-homing stored mail",
        "`copied` of `of` messages of a log are at their new homes. The relay serves when all are.";
    NOT_REHOMED = storage::events::NOT_REHOMED, Error, "a stored message cannot be re-homed",
        "It stays in the old log, which is kept: see 3112. Look at the disk.";
    OLD_LOG_KEPT = storage::events::OLD_LOG_KEPT, Warn, "an old log with unreadable mail is kept here",
        "Keep the folder `log` until you know that nothing in it can be saved; then remove it.";
    SEGMENT_KEEPS_SPACE = storage::events::SEGMENT_KEEPS_SPACE, Warn, "a segment file that nothing needs keeps its space",
        "It is removed later. Look at the disk.";
    USERS_UNREADABLE = storage::events::USERS_UNREADABLE, Error,
        "the user database cannot be read: those whom it is about are told to come later",
        "They get TryLater, or ConnectClose Resting, and nothing is decided about them. `error` says why: look at the disk.";
    LISTING_DAMAGED = storage::events::LISTING_DAMAGED, Error,
        "the state of the listed users is damaged; they need to be listed anew",
        "The management server is told so when it next adds a user. Look at the disk.";

    ACCEPT_FAILED = 4001, Warn, "a connection could not be accepted",
        "Most often descriptors have run out: compare 8002, and LimitNOFILE of the unit.";
    HAND_OVER_DROPPED = 4002, Warn, "a connection was dropped: the queue to its home is full",
        "The peer comes again. If it goes on, the shard `to` is overloaded: `relayctl top`.";
    HAND_OVER_FAILED = 4003, Warn, "a connection could not be handed over",
        "The peer comes again. `error` says why.";
    CONNECTION_ENDED = 4004, Debug, "connection ended",
        "`how` says how.";
    HAND_OVER_LOST = 4005, Warn, "a connection was lost on its way here",
        "The peer comes again. `error` says why.";
    PEER_NOT_FOUND = 4006, Warn, "the address of another relay was not found",
        "Its identity file (`peers.identity_files`) names `name`, which the system's resolver does not know. Senders are told \
         DNSLookupFailed.";
    PEER_SILENT = 4007, Debug, "another relay does not answer",
        "The next of its addresses is tried; after the last one, senders are told HostNotReachable.";

    SECURITY_FAILURE = 5001, Warn, "security failure",
        "`device`, `account` and `address` failed to prove or to register something; `reason` says what. One device again and \
         again, after a restored backup or a reinstalled client: its key and ours disagree, so `relayctl devices clear-keys`. One \
         address with many devices: an attack, which the limits per address slow down; block it. `untold` earlier ones were not \
         logged.";
    METRICS_EXPOSED = 5002, Warn, "metrics can be read from other machines",
        "`metrics.listen` has an address that is not of this machine alone. Is a firewall before it?";
    TLS_FAILED = 5003, Error, "TLS cannot begin",
        "The certificate and the TLS library disagree. Renew the certificate, then `relayctl reload`.";

    SIDE_PANICKED = 6001, Error, "a side thread panicked; the registration that it judged was not answered",
        "A defect: report it with the lines before. When the last side thread has ended, nobody can register: restart the relay.";
    SHARD_STUCK = 6002, Error, "the shard reads no letters",
        "The shard has ended or hangs. Take a stack trace (gdb -p PID -batch -ex 'thread apply all bt'), then kill the relay; \
         acknowledged mail is on disk.";
    MEASUREMENT_FAILED = 6003, Warn, "a resource cannot be measured",
        "Its level stays as it was. `error` says why.";
    OPERATIONS_PANICKED = 6004, Error, "the operations thread panicked; operators and metrics were not answered since",
        "A defect: report it with the lines before. Mail goes on; restart the relay when it suits.";
    OPERATOR_ACCEPT_FAILED = 6005, Warn, "an operator or a scraper could not be accepted",
        "As 4001.";
    PRIORITY_KEPT = 6006, Warn, "a side thread keeps the priority of a shard",
        "Many registrations slow mail down a little. `error` says why the system refuses.";
    MANAGER_DEAF = 6007, Warn, "the service manager cannot be told how the relay is",
        "`error` says why. Without the watchdog's messages the manager restarts the relay: look at NOTIFY_SOCKET and NotifyAccess.";
    WATCHDOG_PANICKED = 6008, Error, "the watchdog's thread panicked",
        "A defect: report it with the lines before. The service manager restarts the relay.";
    RESOLVER_PANICKED = 6009, Error, "the resolver panicked; other relays were not called since",
        "A defect: report it with the lines before. Restart the relay when it suits.";

    CERTIFICATE_READ = 7001, Info, "the certificate was read again",
        "New connections are shown the new one.";
    CERTIFICATE_KEPT = 7002, Error, "the certificate stays as it was",
        "`error` says what is wrong with the new files.";
    LOG_LEVEL_CHANGED = 7003, Info, "the log level was changed",
        "Until the next start; `log.level` in the configuration is for good.";
    DISCONNECTED = 7004, Info, "connections were ended by an operator",
        "Their peers come back unless something else keeps them out.";
    DRAIN_BEGUN = 7005, Info, "the relay is drained by an operator",
        "It takes nobody in until `relayctl drain --undo` or a restart.";
    DRAINED = 7006, Info, "the relay is drained",
        "With `connections` above 0, peers did not go in time.";
    DRAIN_ENDED = 7007, Info, "the relay is in service again",
        "An operator undid the drain.";
    KEYS_CLEARED = 7008, Info, "keys were cleared by an operator",
        "The device or account registers anew when it comes next.";
    KEY_CHANGED = 7009, Info, "a changed key is obeyed from now on",
        "The configuration was read again: `key` was `from` and is `to`. Deadlines hold for new connections.";
    KEY_WAITS = 7010, Warn, "a changed key waits for a restart",
        "The configuration was read again: `key` is `to` in the file, and the relay obeys `from` until it is restarted.";
    CONFIGURATION_KEPT = 7011, Error, "the configuration stays as it was",
        "`error` says what is wrong in the file. Mend it and reload again.";
    LISTING_ABANDONED = 7012, Warn, "a half-built user database was thrown away by an operator",
        "`relayctl drain --undo` ended a rebuild. What was in force still is; the management server is asked for a rebuild again.";

    MANAGERS_SERVED = 7100, Info, "management servers are served",
        "The port of `management.listen` is open.";
    MANAGEMENT_DONE = 7101, Info, "management request",
        "A management server asked for `operation`; `outcome` says what became of it, `form` how it had hashed the header.";
    MANAGEMENT_REFUSED = 7102, Warn, "management request refused",
        "`code` is the fault that was answered, `reason` why; `untold` refusals before it were left out. 304 is followed by a \
         registration and needs nobody; others from `peer` are mistakes, or somebody who tries.";
    MANAGEMENT_FAILED = 7103, Error, "a management request failed",
        "The management server was told 306 and may ask again. `error` says why.";
    RELAY_QUIESCENT = 7104, Warn, "the relay is quiescent: it serves nobody until it is activated",
        "A management server asked for that. If it stays so: `relayctl manager activate`.";
    RELAY_ACTIVE = 7105, Info, "the relay is active",
        "A management server has ended quiescence; with `built`, a new list of users is in force.";
    MANAGERS_UNREADABLE = 7106, Error, "what is remembered of management servers cannot be read",
        "Their requests are answered with 306. Look at the disk.";
    MANAGERS_NOT_SERVED = 7107, Error, "management servers cannot be served",
        "`error` says why. The relay serves its clients all the same.";
    MANAGER_NOT_ACCEPTED = 7108, Warn, "a management server's connection could not be accepted",
        "As 4001.";
    MANAGER_GONE = 7109, Debug, "a management server's connection ended",
        "`error` says why.";
    USUAL_PRIORITY = 7110, Debug, "user records are written at the usual priority",
        "Loading many users may cost those who send mail a little.";
    MANAGEMENT_PANICKED = 7111, Error,
        "the management thread panicked; no management server was served since",
        "A defect of the relay: please report it. Restart the relay.";
    SHARD_DEAF = 7112, Error, "the shard takes no letters",
        "As the shard hung or ended; other lines say which.";

    RESOURCE_WARNING = 8001, Warn, "a resource runs low",
        "`resource` is used to `used` of `limit`. Nothing is stopped yet. Disk: `relayctl mailboxes` shows who holds most. \
         Descriptors: LimitNOFILE. Connections: `limits.connections_per_shard`.";
    RESOURCE_CRITICAL = 8002, Error, "a resource is used up",
        "Disk: no messages are taken, senders wait; stored mail goes on being delivered, which makes room. Anything else: new \
         connections get TryLater. It ends by itself when there is room (8003).";
    RESOURCE_BETTER = 8003, Info, "a resource has room again",
        "What 8002 stopped goes on, if no other resource is used up.";
}

/// The table in Markdown.
pub fn markdown() -> String {
    let mut text =
        String::from("| Event | Level | The line says | What it means and what to do |\n|---|---|---|---|\n");
    for Event { number, severity, message, advice, .. } in EVENTS {
        let level = format!("{severity:?}").to_lowercase();
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {number} | {level} | {message} | {advice} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn here() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn numbers_ascend_within_the_ranges_of_the_operations_document() {
        let ranges =
            [100..=2999, 3000..=3999, 4000..=4999, 5000..=5999, 6000..=6999, 7000..=7999, 8000..=8999];
        assert!(EVENTS.windows(2).all(|pair| pair[0].number < pair[1].number));
        for event in EVENTS {
            assert!(ranges.iter().any(|range| range.contains(&event.number)), "{}", event.number);
        }
    }

    #[test]
    fn the_runbook_holds_the_table() {
        let runbook = fs::read_to_string(here().join("../systemd/RUNBOOK.md")).unwrap();
        assert!(runbook.contains(&markdown()), "put the output of `relayd events` into systemd/RUNBOOK.md");
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// Every call of a log macro in `text`: its level and all between its parentheses.
    fn calls(text: &str) -> Vec<(&str, String)> {
        let mut calls = Vec::new();
        for level in ["error", "warn", "info", "debug"] {
            for (start, _) in text.match_indices(&format!("tracing::{level}!(")) {
                let rest = &text[start..];
                let mut depth = 0;
                let end = rest.find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    c == ')' && depth == 0
                });
                let call = rest[..end.unwrap()].split_whitespace().collect::<Vec<_>>().join(" ");
                calls.push((level, call));
            }
        }
        calls
    }

    #[test]
    fn every_line_of_the_log_is_an_event_of_the_table_and_every_event_is_a_line() {
        let mut files = Vec::new();
        sources(&here().join("src"), &mut files);
        sources(&here().join("../storage/src"), &mut files);
        let mut said = Vec::new();
        for file in files.iter().filter(|file| !file.ends_with("events.rs")) {
            for (level, call) in calls(&fs::read_to_string(file).unwrap()) {
                let event =
                    EVENTS.iter().find(|event| call.contains(&format!("event = events::{},", event.name)));
                let event = event.unwrap_or_else(|| panic!("{}: no event: {call}", file.display()));
                assert!(call.contains(&format!("\"{}\"", event.message)), "{}: {call}", event.name);
                assert_eq!(level, format!("{:?}", event.severity).to_lowercase(), "{call}");
                said.push(event.number);
            }
        }
        for event in EVENTS {
            assert!(said.contains(&event.number), "{} is never said", event.name);
        }
    }
}
