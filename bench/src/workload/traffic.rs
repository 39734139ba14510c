//! What the workloads that send messages have in common: their options, and pairs of SSTP connections.

use crate::failure::Failure;
use crate::load::{Done, Load, Party};
use crate::measure::Timing;
use crate::payload::{HEAD_BYTES, Pattern};
use crate::population::User;
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::Report;
use crate::sstp_wire::{Recipients, Role, SstpWire};

/// The largest payload that a relay takes by default.
const MOST_PAYLOAD: usize = 250_000_000;

/// Options of every workload that sends messages.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Traffic {
    /// Payload bytes of a message, at least 16
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: usize,
    /// Messages of one sender that may be under way
    #[arg(long, default_value_t = 512)]
    pub(crate) window: u64,
    /// Every how many messages an acknowledgement is asked for (flag A); at most half a window
    #[arg(long, default_value_t = 64)]
    pub(crate) ask_every: u64,
    /// Messages a second of all senders together, sent when they are due (open loop); without it, as fast as the window lets
    /// them
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) timing: Timing,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

impl Traffic {
    /// The load of each of `senders`.
    ///
    /// # Errors
    /// [`Failure::Setting`].
    pub(crate) fn load(&self, senders: u32, done: Done) -> Result<Load, Failure> {
        if !(HEAD_BYTES..=MOST_PAYLOAD).contains(&self.payload) {
            return Err(Failure::Setting(format!("--payload must be {HEAD_BYTES} to {MOST_PAYLOAD}")));
        }
        if self.window == 0 || senders == 0 || self.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(Failure::Setting(
                "--window, --rate and the number of senders must be above 0".into(),
            ));
        }
        Ok(Load {
            pattern: Pattern::new(self.payload),
            window: self.window,
            ask_every: self.ask_every.clamp(1, (self.window / 2).max(1)),
            rate: self.rate.map(|rate| rate / f64::from(senders)),
            done,
            acknowledged: true,
        })
    }

    /// Writes the settings into a report.
    pub(crate) fn describe(&self, report: &mut Report, load: &Load) {
        report.setting("payload", self.payload);
        report.setting("window", self.window);
        report.setting("ask_every", load.ask_every);
        match self.rate {
            Some(rate) => report.setting("loop", format!("open, {rate} messages/s in all")),
            None => report.setting("loop", "closed"),
        }
        describe_timing(report, &self.timing);
        describe_relay(report, &self.relay);
    }
}

/// Writes the timing into a report.
pub(crate) fn describe_timing(report: &mut Report, timing: &Timing) {
    report.setting("seconds", timing.seconds);
    report.setting("rounds", timing.rounds);
    report.setting("warm_up", timing.warm_up);
    report.setting("threads", timing.threads);
}

/// Writes the relay's settings into a report.
pub(crate) fn describe_relay(report: &mut Report, relay: &RelayOptions) {
    report.setting("shards", relay.shards);
    report.setting("dir", relay.dir.display().to_string());
    report.setting("set", relay.settings.clone());
}

/// A connection of the user of this number that sends to `recipients`.
pub(crate) fn sender(relay: &RelayProcess, user: u32, recipients: Recipients) -> SstpWire {
    let keys = relay.keys().clone();
    SstpWire::new(Role { user: User::new(user), keys, collects: false, recipients })
}

/// A connection of the user of this number that collects its mail.
pub(crate) fn receiver(relay: &RelayProcess, user: u32) -> SstpWire {
    let keys = relay.keys().clone();
    SstpWire::new(Role { user: User::new(user), keys, collects: true, recipients: Recipients::Nobody })
}

/// Pairs: user 2n sends to user 2n + 1, who is online or not.
pub(crate) fn pairs(relay: &RelayProcess, count: u32, online: bool) -> Vec<Party<SstpWire>> {
    let pair = |pair: u32| Party {
        sender: pair,
        sending: sender(relay, 2 * pair, Recipients::One(User::new(2 * pair + 1))),
        receiving: online.then(|| receiver(relay, 2 * pair + 1)).into_iter().collect(),
    };
    (0..count).map(pair).collect()
}
