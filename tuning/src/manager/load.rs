//! `relayctl manager user add`: one user or a file of a million, with a progress bar, and how long it took.

use super::Add;
use super::conversation::Conversation;
use super::failure::Failure;
use super::memory::{self, Memory};
use super::note::Note;
use super::users::{UserFile, Users};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relay_core::spmr::{Load, Request};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lists the users.
pub(super) fn run(add: Add) -> Result<ExitCode, Failure> {
    let (mut users, count) = match (add.user()?, &add.file) {
        (Some(user), _) => (Users::One(Box::new(user), false), 1),
        (None, Some(path)) => (Users::File(Box::new(UserFile::open(path)?)), UserFile::check(path)?),
        (None, None) => return Err(Failure::Argument("--account or --file is needed".into())),
    };
    let mut conversation = Conversation::begin(&add.relay)?;
    let relay = add.relay_pid.map(|pid| pid.to_string());
    let before = relay.as_deref().and_then(memory::of);
    let bar = progress_bar(count, add.relay.json);
    let start = Instant::now();
    let note = Note::beside(&add.relay.keys, &add.relay.to);
    let mut load = Load::new(usize::from(add.batch), add.rebuild || note.is_there()?);
    let loaded = list(&mut load, &mut users, &mut conversation, &bar, &note);
    bar.finish_and_clear();
    if let Err(failure) = loaded {
        // Of a relay that does not go on building it is known that it is not quiescent.
        return Err(match load.is_quiescing() && !matches!(failure, Failure::Load(_)) {
            true => Failure::HalfBuilt(Box::new(failure)),
            false => failure,
        });
    }
    let report = Report {
        added: load.added(),
        rebuilt: load.rebuilt(),
        took: start.elapsed(),
        own: memory::of("self"),
        relay: before.zip(relay.as_deref().and_then(memory::of)),
    };
    match add.relay.json {
        true => println!("{}", report.json()),
        false => print!("{}", report.text()),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(
    load: &mut Load,
    users: &mut Users,
    conversation: &mut Conversation,
    bar: &ProgressBar,
    note: &Note,
) -> Result<(), Failure> {
    while let Some(request) = load.next_request(users)? {
        if matches!(request, Request::RelayQuiescent(true)) {
            note.write()?;
        }
        bar.set_message(match request.operation().name() {
            "RelayQuiescent" if load.is_quiescing() => "activating the relay",
            "RelayQuiescent" => "making the relay quiescent",
            _ if load.is_quiescing() => "building the user database",
            _ => "adding users",
        });
        let outcome = conversation.ask(request)?;
        load.answered(outcome)?;
        bar.set_position(load.added());
    }
    note.remove()
}

fn progress_bar(users: u64, json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(users), target);
    let style =
        ProgressStyle::with_template("{msg:28} {wide_bar} {human_pos} of {human_len} users, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What became of a load.
struct Report {
    added: u64,
    rebuilt: bool,
    took: Duration,
    own: Option<Memory>,
    /// Of the relay, before and after.
    relay: Option<(Memory, Memory)>,
}

impl Report {
    fn per_second(&self) -> u64 {
        (self.added as f64 / self.took.as_secs_f64().max(1e-3)) as u64
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "operation": "userAdd",
            "outcome": "success",
            "users": self.added,
            "rebuilt": self.rebuilt,
            "seconds": self.took.as_secs_f64(),
            "users_per_second": self.per_second(),
            "peak_bytes": self.own.map(|own| own.peak_bytes),
            "relay_bytes_before": self.relay.map(|(before, _)| before.resident_bytes),
            "relay_bytes_after": self.relay.map(|(_, after)| after.resident_bytes),
            "relay_peak_bytes": self.relay.map(|(_, after)| after.peak_bytes),
        })
    }

    fn text(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let how = if self.rebuilt { "in a user database built anew" } else { "added" };
        let mut text = format!(
            "{} users {how} in {:.1} s, {} a second\n",
            self.added,
            self.took.as_secs_f64(),
            self.per_second()
        );
        if let Some(own) = self.own {
            text += &format!("memory of this program: {} MiB at most\n", mib(own.peak_bytes));
        }
        if let Some((before, after)) = self.relay {
            text += &format!(
                "memory of the relay: {} MiB before, {} MiB after, {} MiB at most\n",
                mib(before.resident_bytes),
                mib(after.resident_bytes),
                mib(after.peak_bytes)
            );
        }
        text
    }
}
