//! The lines of the operator socket, version 1. What is added later is optional for both sides, so that a tool and a relay of
//! different days understand each other; what changes meaning gets another version.

use super::ShardCounters;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The version of the protocol that is spoken here.
pub const VERSION: u32 = 1;
/// The longest request, its line end included, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 << 10;
/// The longest reply that the client reads, in bytes.
pub const MAX_REPLY_BYTES: usize = 16 << 20;
/// The most entries that a listing gives.
pub const MAX_LISTED: usize = 1000;

/// A request with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`].
    pub v: u32,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// How are you? Answered with [`Answer::Status`].
    Status,
    /// Which connections are there? Answered with [`Answer::Connections`].
    Connections {
        /// Which of them.
        #[serde(default)]
        filter: Filter,
        /// How many at most, up to [`MAX_LISTED`].
        most: usize,
    },
    /// Which mailboxes come first? Answered with [`Answer::Mailboxes`].
    Mailboxes {
        /// In which order.
        #[serde(default)]
        order: MailboxOrder,
        /// How many, up to [`MAX_LISTED`].
        most: usize,
    },
    /// Forget the keys of a device or an account, so that it can register with new ones.
    ClearKeys(KeyHolder),
    /// End connections; their peers are told to come back after [`Request::Disconnect::return_seconds`].
    Disconnect {
        /// Which ones.
        filter: Filter,
        /// ReturnTime; the configured one if it is not there.
        #[serde(default)]
        return_seconds: Option<u32>,
    },
    /// Take nobody in, complete what has been received, tell every peer when to return; but go on running.
    Drain,
    /// Be in service again.
    EndDrain,
    /// Read the certificate for TLS again.
    Reload,
    /// Take the mail of a backup in, while the relay goes on. Answered with [`Answer::Restoring`] now and then, and at last with
    /// [`Answer::Restored`].
    Restore {
        /// The backup's folder, an absolute path, which the relay's user may read.
        backup: PathBuf,
        /// Only this mail; all, identity-targeted mail first, if it is not there.
        #[serde(default)]
        only: Option<MailFamily>,
    },
    /// Change how much the log says, until the next start.
    LogLevel {
        /// `error`, `warn`, `info`, `debug`, `trace`, or such words for parts of the program: `info,shard=debug`.
        level: String,
    },
}

/// Which connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// All.
    #[default]
    Everybody,
    /// One, as a listing names it.
    Connection {
        /// Its shard.
        shard: u16,
        /// Its number there.
        number: u64,
    },
    /// Those of a device.
    Device(String),
    /// Those on which an account is attached, or on whose device it is.
    Account(String),
    /// Those from an address.
    Address(IpAddr),
}

/// A family of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailFamily {
    /// Identity-targeted mail.
    Identity,
    /// Device-targeted mail.
    Device,
}

/// Whose keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHolder {
    /// A device's.
    Device(String),
    /// An account's.
    Account(String),
}

/// What a listing of mailboxes has first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailboxOrder {
    /// Most bytes held for the identity or device.
    #[default]
    Bytes,
    /// Most messages.
    Messages,
    /// Most messages among those that somebody collects from: the slowest recipients.
    Slowest,
}

/// A reply with its version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub v: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Answer(Answer),
    /// It was not.
    Error(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub cause: ErrorCause,
    /// For people.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCause {
    /// The line is no request, or too long.
    BadRequest,
    /// A version that the relay does not speak.
    BadVersion,
    /// A URL, level or number in it is wrong.
    BadValue,
    /// There is no such device, account or connection.
    NotFound,
    /// The relay is starting or stopping.
    NotServing,
    /// A shard did not answer in time.
    NoAnswer,
    /// It was tried and failed.
    Failed,
    /// A cause that this version does not know.
    #[serde(other)]
    Other,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Connections`].
    Connections {
        /// The connections.
        connections: Vec<Connection>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Mailboxes`]: the mailboxes, those that come first in the order first.
    Mailboxes(Vec<Mailbox>),
    /// To [`Request::Disconnect`]: how many connections were ended.
    Disconnected(usize),
    /// To [`Request::Drain`]: how many connections are still there.
    Drained(usize),
    /// To [`Request::Restore`], before the last answer: so many messages of the backup have been dealt with.
    Restoring {
        /// Messages dealt with.
        done: u64,
        /// Messages of the backup that are asked for; 0 while it is read.
        total: u64,
    },
    /// To [`Request::Restore`].
    Restored(RestoreReport),
    /// Done, and nothing more to say.
    Done,
}

/// What was restored of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestoreReport {
    /// Messages restored.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages that the relay still had, or that had been restored before.
    pub present: u64,
    /// Messages whose lifetime was over.
    pub expired: u64,
    /// Messages of which a part could not be read.
    pub unreadable: u64,
    /// Messages that are known to be lost in the backup itself.
    pub lost_in_backup: u64,
    /// The backup was whole, and everything in it could be read.
    pub whole: bool,
    /// How long it took.
    pub seconds: f64,
}

/// How a relay is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// `starting`, `serving`, `draining`, `quiescent` or `stopping`.
    pub state: String,
    /// Start of the process, in seconds since the Unix epoch.
    pub started_at: u64,
    /// When this was said, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The process's number.
    pub pid: u32,
    /// How much the log says.
    pub log_level: String,
    /// Where metrics are.
    pub metrics: Vec<SocketAddr>,
    /// What the resource monitor watches.
    pub resources: Vec<ResourceState>,
    /// The shards.
    pub shards: Vec<ShardState>,
}

/// One resource that the monitor watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceState {
    /// `disk`, `memory`, `descriptors` or `connections`.
    pub name: String,
    /// `ok`, `warning` or `critical`.
    pub level: String,
    /// How much is used, in bytes or pieces.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardState {
    /// Its number.
    pub shard: u16,
    /// Whether it answered just now; if not, the numbers are its last ones.
    pub answers: bool,
    /// What it counts and has.
    pub counters: ShardCounters,
    /// Items that wait in the queues to it from other shards.
    pub mesh_queue: u64,
    /// Times that one of these queues was full.
    pub mesh_stalls: u64,
    /// Making a batch durable, in microseconds.
    pub commit: Timing,
    /// Records of a batch.
    pub batch: Timing,
    /// From the end of a message to its completion, in microseconds.
    pub completion: Timing,
}

/// How something was distributed over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How many there were since the start.
    pub count: u64,
    /// The median of the last seconds.
    pub p50: u64,
    /// Of a hundred of the last seconds, only one was above this.
    pub p99: u64,
    /// The highest of the last seconds.
    pub max: u64,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// Its shard.
    pub shard: u16,
    /// Its number there.
    pub number: u64,
    /// Its peer's address.
    pub address: Option<IpAddr>,
    /// The device that it is, or claims to be.
    pub device: Option<String>,
    /// The device has proven its key.
    pub authenticated: bool,
    /// Accounts attached, eight at most.
    pub accounts: Vec<String>,
    /// Sessions on which it sends.
    pub senders: usize,
    /// Sessions on which it is delivered to.
    pub outlets: usize,
    /// Payload bytes received on it and not complete.
    pub in_flight_bytes: u64,
    /// Bytes that wait to be sent.
    pub output_bytes: usize,
    /// Messages sent to it and not acknowledged.
    pub unacknowledged: usize,
    /// It was told to stop sending.
    pub stopped: bool,
}

/// A mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mailbox {
    /// The shard that is its home.
    pub shard: u16,
    /// The account.
    pub account: String,
    /// The identity.
    pub identity: String,
    /// The device, if it is device-targeted mail.
    pub device: Option<String>,
    /// The resource.
    pub resource: String,
    /// Messages that wait.
    pub messages: usize,
    /// Of these, messages that are on their way.
    pub under_way: usize,
    /// Bytes held for the identity or device, other resources included.
    pub held_bytes: u64,
    /// Connections that collect from it.
    pub collectors: usize,
    /// The shard and number of the connection that is delivered to.
    pub collector: Option<(u16, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_are_the_lines_that_are_promised() {
        let request = |request| serde_json::to_string(&RequestLine { v: VERSION, request }).unwrap();
        assert_eq!(request(Request::Status), r#"{"v":1,"command":"status"}"#);
        let filter = Filter::Device("dpp://d".into());
        assert_eq!(
            request(Request::Disconnect { filter, return_seconds: Some(5) }),
            r#"{"v":1,"command":"disconnect","filter":{"device":"dpp://d"},"return_seconds":5}"#
        );
        assert_eq!(
            request(Request::ClearKeys(KeyHolder::Account("a".into()))),
            r#"{"v":1,"command":"clear-keys","account":"a"}"#
        );
        let reply = |outcome| serde_json::to_string(&Reply { v: VERSION, outcome }).unwrap();
        assert_eq!(reply(Outcome::Answer(Answer::Done)), r#"{"v":1,"answer":"done"}"#);
        let refusal = Refusal { cause: ErrorCause::NotFound, message: "no".into() };
        assert_eq!(reply(Outcome::Error(refusal)), r#"{"v":1,"error":{"cause":"not-found","message":"no"}}"#);
    }

    #[test]
    fn what_a_request_may_leave_out_has_a_default() {
        let line: RequestLine = serde_json::from_str(r#"{"v":1,"command":"connections","most":5}"#).unwrap();
        assert_eq!(line.request, Request::Connections { filter: Filter::Everybody, most: 5 });
        let line: RequestLine = serde_json::from_str(r#"{"v":1,"command":"mailboxes","most":5}"#).unwrap();
        assert_eq!(line.request, Request::Mailboxes { order: MailboxOrder::Bytes, most: 5 });
    }

    #[test]
    fn a_cause_of_a_newer_relay_is_other() {
        let refusal: Refusal = serde_json::from_str(r#"{"cause":"of-tomorrow","message":"m"}"#).unwrap();
        assert_eq!(refusal.cause, ErrorCause::Other);
    }
}
