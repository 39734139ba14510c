//! One thing that was looked at on the machine: what was found, what is wanted, why, and the exact change.

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Right,
    /// The machine does not say; nothing is changed.
    Unknown,
    /// It works, and could be better.
    Advice,
    /// The relay will not start, or not do what its configuration promises.
    Wrong,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Unknown => "unknown",
            Self::Advice => "advice",
            Self::Wrong => "wrong",
        }
    }
}

/// What to change on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A kernel setting, by its name for sysctl(8), and its value.
    Sysctl(&'static str, String),
    /// A file of /sys, and what to write into it; tmpfiles.d(5) repeats that at each start.
    Write(String, String),
    /// A command that may be repeated without harm.
    Command(String),
    /// What no command does.
    ByHand(String),
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub topic: String,
    /// How it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub wanted: String,
    /// Why.
    pub why: &'static str,
    /// What to do; empty if it is right.
    pub changes: Vec<Change>,
}

impl Finding {
    /// Something that is as it should be, or `otherwise` with these changes.
    pub(super) fn unless(
        right: bool,
        otherwise: Verdict,
        (topic, found, wanted): (impl Into<String>, impl Into<String>, impl Into<String>),
        why: &'static str,
        changes: impl FnOnce() -> Vec<Change>,
    ) -> Self {
        let verdict = if right { Verdict::Right } else { otherwise };
        let changes = if right { Vec::new() } else { changes() };
        Self { topic: topic.into(), verdict, found: found.into(), wanted: wanted.into(), why, changes }
    }

    /// Something that the machine does not say.
    pub(super) fn unknown(topic: impl Into<String>, wanted: impl Into<String>, why: &'static str) -> Self {
        let (found, changes) = ("not said by this machine".into(), Vec::new());
        Self { topic: topic.into(), verdict: Verdict::Unknown, found, wanted: wanted.into(), why, changes }
    }
}
